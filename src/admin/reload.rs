//! `POST /admin/reload`: the configuration is read again and put into effect, as on SIGHUP, and the answer says what came of it.
//!
//! Invariants: the operators' thread does not wait for a file; one order at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use http::StatusCode;

use crate::{
    http::{Fault, Response},
    inbox::Mailbox,
};

/// Reloads: JSON of what came of it, or why nothing is changed.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Whether an order is being carried out.
static BUSY: AtomicBool = AtomicBool::new(false);

const TAKEN: Fault = Fault::new(StatusCode::CONFLICT, "busy", "a reload is under way; try again");
const FAILED: Fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the reload failed; the log says why");
const REFUSED: Fault = Fault::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", "");

/// Frees the place however the work ends.
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Carries the order out on a thread of its own, which goes on if the one who asked goes away.
pub(super) async fn answer(reload: &Reload) -> Response {
    if BUSY.swap(true, Ordering::AcqRel) {
        return TAKEN.into();
    }
    let (place, outcome, reload) = (Place, Mailbox::new(1), reload.clone());
    let tell = outcome.clone();
    let spawned = thread::Builder::new().name("reload".to_owned()).spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reload()));
        drop(place);
        let _ = tell.offer(done.ok());
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "failed to start a thread for a reload");
        return FAILED.into();
    }
    let mut done = Vec::with_capacity(1);
    outcome.receive(&mut done).await;
    match done.pop().flatten() {
        Some(Ok(payload)) => Response::success(payload),
        Some(Err(why)) => Fault { msg: why.into(), ..REFUSED }.into(),
        None => FAILED.into(),
    }
}
