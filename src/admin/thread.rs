//! The operators' thread: its runtime, its listeners, its end.
//!
//! Invariant: it ends only when told to; a panic of one request stays inside its connection.

use std::{io, pin::pin, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use futures_util::future::{Either, join_all, select};
use monoio::net::TcpListener;

use super::{
    drain::Drain,
    handler::{Group, Handler},
    order::Order,
    pages::Pages,
    pprof::{self, Pprof},
    reload::Reload,
};
use crate::{
    health::Health,
    http::{Moved, Server, listen},
    inbox::Mailbox,
    limits::HttpLimits,
    metrics::Registry,
    model::project::Secret,
};

/// Where connections come from.
#[derive(Debug)]
pub enum Source {
    /// A listener of the operators' own, bound and listening.
    Own(std::net::TcpListener),
    /// One of the cores', which pass on who asks for something of the operators'.
    Cores(Arc<Mailbox<Moved>>),
}

/// A listener and what it serves.
#[derive(Debug)]
pub struct Listener {
    /// Where its connections come from.
    pub source: Source,
    /// What is served on it; groups with one port share a listener.
    pub groups: Vec<Group>,
}

/// What the thread works with.
pub struct Operators {
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Wanted as `Authorization: Bearer` for everything but health; none: everybody may who reaches the listener.
    pub token: Option<Secret>,
    /// Bounds of its HTTP server.
    pub limits: HttpLimits,
    /// Every thread's counters.
    pub registry: Registry,
    /// The node's health.
    pub health: Arc<Health>,
    /// What the API's pages are told.
    pub pages: Pages,
    /// Carries out an order to reload.
    pub reload: Reload,
    /// The program and its arguments as operators may see them: secrets starred.
    pub cmdline: Vec<String>,
    /// Whether the heap is sampled from the start.
    pub heap_profile: bool,
    /// The order to end in good order.
    pub drain: Order,
    /// How long that takes, about.
    pub drain_time: Duration,
}

/// The running thread.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<()>,
    stop: Order,
}

/// Starts the thread. Errors: the thread or its runtime could not be made.
pub fn start(operators: Operators) -> io::Result<Running> {
    for listener in &operators.listeners {
        if let Source::Own(socket) = &listener.source {
            socket.set_nonblocking(true)?;
        }
    }
    if operators.heap_profile
        && let Err(error) = pprof::sample_heap()
    {
        tracing::warn!(%error, "the heap is not sampled");
    }
    let stop = Order::default();
    let told = stop.clone();
    let thread = std::thread::Builder::new().name("operators".to_owned()).spawn(move || run(operators, &told))?;
    Ok(Running { thread, stop })
}

impl Running {
    /// Whether the thread has ended, which it does by itself only when it failed.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread and waits for it. Requests in flight are cut off.
    pub fn stop(self) {
        self.stop.give();
        if self.thread.join().is_err() {
            tracing::error!("the operators' thread panicked");
        }
    }
}

fn run(operators: Operators, stop: &Order) {
    // Readiness is enough for a scrape now and then, and works wherever io_uring is forbidden.
    let runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build();
    let mut runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "failed to start the operators' runtime"),
    };
    runtime.block_on(serve(operators, stop));
}

async fn serve(operators: Operators, stop: &Order) {
    let Operators { listeners, token, limits, registry, health, pages, reload, cmdline, drain, drain_time, .. } =
        operators;
    let counters = registry.register("operators");
    let (token, pages) = (token.map(Arc::new), Arc::new(pages));
    let pprof = Rc::new(Pprof::new(&cmdline, counters.clone()));
    let drain = Drain::new(drain, drain_time, registry.clone(), health.clone());
    let accepting = listeners.into_iter().filter_map(|listener| {
        let handler = Handler::new(
            listener.groups,
            token.clone(),
            registry.clone(),
            health.clone(),
            pages.clone(),
            pprof.clone(),
            (reload.clone(), drain.clone()),
        );
        let server = Server::new(handler, limits.clone(), counters.clone());
        let socket = match listener.source {
            Source::Own(socket) => TcpListener::from_std(socket),
            Source::Cores(mailbox) => return Some(Either::Right(server.take_over(mailbox))),
        };
        match socket {
            Ok(socket) => Some(Either::Left(listen(socket, Rc::new(server)))),
            Err(error) => {
                tracing::error!(%error, "failed to listen for operators");
                None
            }
        }
    });
    let accepting = join_all(accepting);
    select(pin!(accepting), pin!(stop.given())).await;
}
