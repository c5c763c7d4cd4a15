//! The signals of a node.

use std::{io, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reload::Reloader;

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
