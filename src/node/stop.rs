//! The end of a node: in good order on the first signal, at once on the second.

use std::{io, sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    clock,
    limits::LifeLimits,
    metrics::{Count, Registry},
    protocol::frame::close_code,
};

use super::{exchange_loop::ExchangeLoop, last_words, reload::Reloader};

/// How often the number of open connections is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Status after a second signal.
const STATUS_AT_ONCE: i32 = 1;
/// Log lines and reports get no longer than this after a second signal.
const LAST_WORDS_AT_ONCE_MAX: Duration = Duration::from_millis(200);

/// SIGTERM and SIGINT, which stop the node, and SIGHUP, which has it read its configuration again.
pub(super) struct Signals {
    reloader: Arc<Reloader>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new(reloader: Arc<Reloader>) -> io::Result<Self> {
        Ok(Self {
            reloader,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal to stop.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => self.reloader.in_background(),
            }
        }
    }
}

/// Closes every connection with 1012, lets the log finish, and gives the node's id back.
pub(super) async fn drain(mut exchange: ExchangeLoop, registry: &Registry, life: &LifeLimits, mut signals: Signals) {
    tracing::info!("draining; a second signal ends the process at once");
    let in_order = async {
        exchange.say_goodbye(close_code::RESTART).await;
        let end = clock::now() + life.drain;
        while open_connections(registry) > 0 && clock::now() < end {
            let _ = tokio::time::timeout(LOOK, exchange.run(|| {})).await;
        }
        let log = exchange.log();
        tokio::select! {
            () = log.close() => {}
            _ = exchange.run(|| {}) => {}
        }
    };
    tokio::select! {
        () = in_order => tracing::info!("stopped"),
        () = signals.stop() => {
            tracing::warn!("stopped at once");
            last_words::exit(STATUS_AT_ONCE, LAST_WORDS_AT_ONCE_MAX);
        }
    }
}

fn open_connections(registry: &Registry) -> u64 {
    let of = |count| registry.threads().iter().map(|(_, counters)| counters.get(count)).fold(0, u64::wrapping_add);
    of(Count::UserConnections) + of(Count::BackendConnections)
}
