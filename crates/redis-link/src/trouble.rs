//! What tells the finder that the servers may not be where they were.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::LinkError;

/// Answers of a server that is not, or not now, the one for what was asked.
const ELSEWHERE: &[&str] = &["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN"];

/// Calls that failed since somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    notify: Notify,
    /// The server that knows more; 0: none.
    knows: AtomicU64,
}

impl Trouble {
    /// A call to a server failed.
    pub(crate) fn failed(&self, server: u64, error: &LinkError) {
        match error {
            LinkError::Rejected(text) => self.answered(server, text),
            LinkError::NotSent(_) | LinkError::Unknown(_) => self.notify.notify_one(),
            LinkError::Url(_) | LinkError::Tls(_) => {}
        }
    }

    /// A server answered with this error.
    pub(crate) fn answered(&self, server: u64, text: &str) {
        if ELSEWHERE.iter().any(|word| text.starts_with(word)) {
            self.knows.store(server, Ordering::Relaxed);
            self.notify.notify_one();
        }
    }

    /// Waits for trouble.
    pub(crate) async fn comes(&self) {
        self.notify.notified().await;
    }

    /// The server that has last said that something is elsewhere.
    pub(crate) fn take_knowing(&self) -> u64 {
        self.knows.swap(0, Ordering::Relaxed)
    }
}
