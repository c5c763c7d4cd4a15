//! Logs: events become lines, lines become a file that loses none of them.
//!
//! The way of a line: [`layer`] makes it ([`line`](mod@line), [`text`]) and pushes it into the [`buffer`]; the
//! [`writer`]'s thread writes it to the standard error or the [`file`](mod@file), which it rotates by [`rotation`]; the
//! [`archive`]'s thread compresses and removes rotated files. [`level`] says which events become lines.
//!
//! Invariants: no thread that logs ever waits for a disk or a terminal; what fits the buffer is written once, whole and
//! in order; what does not is counted, in a metric and by a line.

pub mod archive;
pub mod buffer;
pub mod file;
mod layer;
pub mod level;
pub mod line;
pub mod rotation;
pub mod text;
pub mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::Instant,
};

use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan, reload};

use crate::{clock, metrics::Counters};

use archive::{Archive, Shelf};
use buffer::Buffer;
use file::LogFile;
use layer::Lines;
use level::{Control, Directives};
use line::Form;
use rotation::{Keep, When};
use writer::Output;

/// The module that lines of the logs themselves name.
const TARGET: &str = "ws_cluster::logs";

/// What is logged, how, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which events.
    pub directives: Directives,
    /// How a line looks.
    pub form: Form,
    /// Lines that wait, in bytes.
    pub buffer_bytes_max: usize,
    /// Where to; none: the standard error.
    pub file: Option<FileSettings>,
}

/// A log file and what becomes of it.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Its path.
    pub path: PathBuf,
    /// When it is closed for a new one.
    pub when: When,
    /// Which old ones are kept.
    pub keep: Keep,
    /// Whether they are compressed.
    pub compress: bool,
}

/// The running log of the process.
#[derive(Debug)]
pub struct Logs {
    buffer: Arc<Buffer>,
    control: Control,
}

static INSTALLED: OnceLock<Logs> = OnceLock::new();

/// The process's log, once there is one.
pub fn installed() -> Option<&'static Logs> {
    INSTALLED.get()
}

impl Logs {
    /// What is logged.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Waits until every line is written, at most until `end`; how many bytes are left.
    pub fn flush(&self, end: Instant) -> usize {
        self.buffer.flush(end)
    }

    /// Makes these the logs of the process; a second node in one process (a test) keeps the first one's.
    pub fn install(self) {
        let _ = INSTALLED.set(self);
    }
}

/// Starts the threads. The layer is for the process's subscriber, the rest for [`Logs::install`].
///
/// # Errors
/// The file cannot be opened or is another process's, or a thread cannot be had.
pub fn start<S>(settings: Settings, counters: Arc<Counters>) -> io::Result<(impl Layer<S> + Send + Sync, Logs)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let output = output(settings.file, &counters)?;
    let buffer = Arc::new(Buffer::new(settings.buffer_bytes_max, settings.form, counters));
    let filled = buffer.clone();
    thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer::run(&filled, output))?;
    let (filter, handle) = reload::Layer::new(level::filter(&settings.directives));
    let layer = Lines { form: settings.form, buffer: buffer.clone() }.with_filter(filter);
    // It fails only when the subscriber is gone, and with it everything that would log.
    let control = Control::new(settings.directives, move |filter| drop(handle.reload(filter)));
    Ok((layer, Logs { buffer, control }))
}

fn output(file: Option<FileSettings>, counters: &Arc<Counters>) -> io::Result<Output> {
    let Some(FileSettings { path, when, keep, compress }) = file else {
        return Ok(Output::Stderr(io::stderr()));
    };
    let named = |error: io::Error| io::Error::new(error.kind(), format!("log_file {}: {error}", path.display()));
    let log = LogFile::open(&path, when, clock::unix_now()).map_err(named)?;
    let (directory, names) = file::divide(&path)?;
    let shelf = Shelf { directory, names, keep, compress, counters: counters.clone() };
    Ok(Output::File(Box::new(log), Archive::start(shelf)?))
}
