//! Work that takes long, on a thread of its own: one at a time in the process, and abandoned with the request that wants it.
//!
//! Invariants: neither a core nor the operators' event loop waits for it; the place is free again when the work has
//! ended, however it ends.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use http::StatusCode;

use crate::{http::Fault, inbox::Mailbox};

/// Whether a job runs. One for the process, as the signals and the allocator are.
static BUSY: AtomicBool = AtomicBool::new(false);

const TAKEN: Fault =
    Fault::new(StatusCode::CONFLICT, "busy", "a profile is being taken: one at a time; try again later");
const FAILED: Fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the profile could not be taken");

/// Tells a job that nobody waits for it any more.
#[derive(Debug)]
pub struct Cancel(Receiver<()>);

/// The request is gone.
#[derive(Debug)]
pub struct Cancelled;

impl Cancel {
    /// Waits for `time`, or until the request is gone.
    pub fn wait(&self, time: Duration) -> Result<(), Cancelled> {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Cancelled),
        }
    }
}

/// The one place; free again when dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        // Lazily: a value that is made and dropped would free the place of the one who has it.
        (!BUSY.swap(true, Ordering::AcqRel)).then(|| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Does `work` and waits for what it gives. Dropping the future cancels it.
///
/// Errors: 409 while another job runs; 500 when the thread cannot be had or panics; those of the work.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let place = Place::take().ok_or(TAKEN)?;
    // Nothing is ever sent: that its other end is gone is the message.
    let (waiting, cancel) = sync_channel(1);
    let mailbox = Mailbox::new(1);
    let answer = mailbox.clone();
    let spawned = thread::Builder::new().name("pprof".to_owned()).spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| work(&Cancel(cancel))));
        drop(place);
        let _ = answer.offer(done.unwrap_or(Err(FAILED)));
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "failed to start a thread for a profile");
        return Err(FAILED);
    }
    let mut done = Vec::with_capacity(1);
    mailbox.receive(&mut done).await;
    drop(waiting);
    done.pop().unwrap_or(Err(FAILED))
}

impl From<Cancelled> for Fault {
    /// Nobody reads it.
    fn from(_: Cancelled) -> Self {
        FAILED
    }
}
