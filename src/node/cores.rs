//! The cores' threads: each runs a shard and the HTTP API on its own listeners, and never shares a socket.
//!
//! Invariant: a core that ends takes the process with it (status 101), because its listeners would go on taking
//! connections that nobody serves.

use std::{
    io,
    net::TcpListener as StdListener,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
};

use monoio::net::TcpListener;

use crate::{
    health::Health,
    hub::HubSettings,
    inbox::{ExchangeLink, Mailbox},
    limits::LAST_WORDS_OF_A_CORE_MAX,
    metrics::{Count, Counters},
    model::{FromCore, ToCore},
    shard::{self, Admission, Core, Driven, Driver, Gateway, GatewaySettings},
};

use super::{
    api::SharedListener,
    last_words,
    orders::{self, Order},
};

/// Status of a process whose core has died.
const STATUS_CORE_DIED: i32 = 101;

/// What a core's thread is given.
pub(super) struct CoreParts {
    /// For the hub.
    pub hub: HubSettings,
    /// For the gateway.
    pub gateway: GatewaySettings,
    /// For the HTTP API; it makes the handler on the core.
    pub api: super::api::ApiParts,
    /// The node's account of connections.
    pub admission: Admission,
    /// The core's counters.
    pub counters: Arc<Counters>,
    /// To the core.
    pub inbox: Arc<Mailbox<ToCore>>,
    /// Orders of the node's own threads.
    pub orders: Arc<Mailbox<Order>>,
    /// From the core.
    pub outgoing: Arc<Mailbox<FromCore>>,
    /// The node's health.
    pub health: Arc<Health>,
    /// WebSocket listeners.
    pub ws: Vec<(StdListener, Option<SharedListener>)>,
    /// HTTP listeners.
    pub http: Vec<StdListener>,
    /// Listeners of both.
    pub shared: Vec<StdListener>,
    /// What is asked for.
    pub driver: Driver,
    /// Whether the thread is bound to the CPU of its number.
    pub pinned: bool,
}

/// Starts a core's thread; what drives it comes back when it runs.
///
/// Errors: the thread or its runtime cannot be had.
pub(super) fn start(parts: CoreParts) -> io::Result<Driven> {
    let (core, health) = (parts.hub.core, parts.health.clone());
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new().name(format!("core-{core}")).spawn(move || {
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| run(parts, tell)));
        health.set_dead();
        tracing::error!(core, panicked = ended.is_err(), "a core has ended; the process ends with it");
        last_words::exit(STATUS_CORE_DIED, LAST_WORDS_OF_A_CORE_MAX);
    })?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the core ended before it ran")))
}

fn run(parts: CoreParts, tell: mpsc::SyncSender<io::Result<Driven>>) {
    if parts.pinned && monoio::utils::bind_to_cpu_set([usize::from(parts.hub.core)]).is_err() {
        tracing::warn!(core = parts.hub.core, "the core could not be bound to its CPU");
    }
    let failed = tell.clone();
    let driver = parts.driver;
    let served = shard::run_on_driver(driver, move |driven| async move {
        let served = serve(parts, driven).await;
        let started = served.as_ref().map(|()| driven).map_err(|error| io::Error::new(error.kind(), error.to_string()));
        let is_started = started.is_ok();
        let _ = tell.send(started);
        if is_started {
            std::future::pending::<()>().await;
        }
    });
    if let Err(error) = served {
        let _ = failed.send(Err(error));
    }
    // The starter reports what went wrong and ends the process; this thread must not be faster.
    loop {
        thread::park();
    }
}

/// Sets everything on the core going.
async fn serve(parts: CoreParts, driven: Driven) -> io::Result<()> {
    let driver = if driven == Driven::Uring { Count::DriverUring } else { Count::DriverEpoll };
    parts.counters.inc(driver);
    let core = Core::new(parts.hub.clone(), parts.counters.clone())?;
    let link = ExchangeLink::new(parts.hub.core, parts.outgoing);
    let counters = parts.counters.clone();
    let gateway = Gateway::new(parts.gateway, link.clone(), parts.admission.clone(), parts.health, counters.clone());
    let api = parts.api.server(link, parts.counters);
    monoio::spawn(core.clone().walk());
    monoio::spawn(shard::tick(core.clone()));
    monoio::spawn(gateway.clone().hear(core.clone(), parts.inbox));
    monoio::spawn(orders::obey(parts.orders, core.clone(), gateway.clone(), api.clone()));
    for (listener, operators) in parts.ws {
        let listener = TcpListener::from_std(listener)?;
        let fallback = operators.map(|shared| shared.fallback(counters.clone()));
        monoio::spawn(shard::accept(core.clone(), gateway.clone(), listener, parts.admission.clone(), fallback));
    }
    for listener in parts.shared {
        let listener = TcpListener::from_std(listener)?;
        let fallback = Some(super::api::fallback(api.clone()));
        monoio::spawn(shard::accept(core.clone(), gateway.clone(), listener, parts.admission.clone(), fallback));
    }
    for listener in parts.http {
        monoio::spawn(crate::http::listen(TcpListener::from_std(listener)?, Rc::clone(&api)));
    }
    Ok(())
}
