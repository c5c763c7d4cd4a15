//! Errors and panics on their way to Sentry.
//!
//! The way of a report: an event at ERROR ([`layer`]) or a panic ([`panics`], which is logged as such an event) becomes
//! a [`report`] with the bare addresses of its stack, passes the rate ([`limiter`]) and waits in a bounded [`queue`]; the
//! [`sender`]'s thread finds names for the addresses, takes out what is secret ([`scrub`]) and hands it to the Sentry
//! client, whose own thread speaks HTTP.
//!
//! Invariants: what a core spends on a report is some microseconds, and it waits for nobody; a report holds what the
//! program itself wrote and cleaned values, never a payload, a query or a header; what is not sent is counted.

mod layer;
pub mod limiter;
pub mod panics;
pub mod queue;
pub mod report;
pub mod scrub;
mod sender;

use std::{
    io,
    sync::{Arc, OnceLock, PoisonError},
    thread,
    time::Instant,
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, registry::LookupSpan};

use crate::{clock, metrics::Counters};

use layer::Errors;
use queue::Queue;
use scrub::Scrub;

/// Where reports go and what each of them says.
#[derive(Debug)]
pub struct Settings {
    /// The DSN, checked already. It never shows itself.
    pub dsn: sentry::types::Dsn,
    /// The node's number.
    pub node: u16,
    /// What the node is for.
    pub environment: String,
    /// Reports a minute.
    pub per_minute: u32,
    /// What must be in no report.
    pub scrub: Scrub,
}

/// The running reports of the process.
#[derive(Debug)]
pub struct Reports {
    queue: Arc<Queue>,
    scrub: Arc<Known>,
}

#[expect(clippy::disallowed_types, reason = "taken by the thread that sends, and by a reload")]
type Known = std::sync::RwLock<Scrub>;

static INSTALLED: OnceLock<Reports> = OnceLock::new();

/// The process's reports, if it sends any.
pub fn installed() -> Option<&'static Reports> {
    INSTALLED.get()
}

impl Reports {
    /// Waits until every report has been sent, at most until `end`; whether all have.
    pub fn flush(&self, end: Instant) -> bool {
        self.queue.flush(end)
    }

    /// From now on no report holds these either.
    pub fn learn<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let mut known = self.scrub.write().unwrap_or_else(PoisonError::into_inner);
        let more = known.with(secrets);
        *known = more;
    }

    /// Makes these the reports of the process; a second node in one process (a test) keeps the first one's.
    pub fn install(self) {
        let _ = INSTALLED.set(self);
    }
}

/// Starts the thread. The layer is for the process's subscriber, the rest for [`Reports::install`].
///
/// # Errors
/// The thread cannot be had.
pub fn start<S>(settings: Settings, counters: Arc<Counters>) -> io::Result<(impl Layer<S> + Send + Sync, Reports)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let queue = Arc::new(Queue::new(settings.per_minute, clock::now(), counters.clone()));
    let (waiting, scrub) = (queue.clone(), Arc::new(Known::new(settings.scrub.clone())));
    let known = scrub.clone();
    thread::Builder::new()
        .name("errors".to_owned())
        .spawn(move || sender::run(&waiting, settings, known, &counters))?;
    Ok((Errors(queue.clone()).with_filter(LevelFilter::ERROR), Reports { queue, scrub }))
}
