//! What is known of an error when it happens: cleaned texts and where it was, as bare addresses.
//!
//! Invariant: made on the thread it happened on, in some microseconds: names for the addresses, which take a thousand
//! times as long, are found elsewhere.
#![expect(unsafe_code, reason = "the stack is walked without the lock under which names are found")]

use std::{
    fmt::{self, Write},
    time::Duration,
};

use tracing::{
    Event,
    field::{Field, Visit},
};

use crate::{
    clock,
    limits::{LOG_MESSAGE_BYTES_MAX, REPORT_FRAMES_MAX, USER_TEXT_BYTES_MAX},
    logs::text::{Bounded, clean, clean_named},
};

/// An error or a panic.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Whether it was a panic.
    pub is_panic: bool,
    /// The module that said it.
    pub target: String,
    /// What it said.
    pub message: String,
    /// With what values.
    pub fields: Vec<(&'static str, String)>,
    /// The thread it happened on.
    pub thread: String,
    /// When, since the epoch.
    pub unix: Duration,
    /// The addresses on the stack, innermost first.
    pub stack: Vec<usize>,
}

impl Report {
    /// What is known of `event`, here and now.
    pub fn of(event: &Event<'_>) -> Self {
        let mut texts = Texts::default();
        event.record(&mut texts);
        let target = event.metadata().target();
        Self {
            is_panic: target == super::panics::TARGET,
            target: target.to_owned(),
            message: texts.message,
            fields: texts.fields,
            thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
            unix: clock::unix_now(),
            stack: stack(),
        }
    }

    /// The core whose thread this was.
    pub fn core(&self) -> Option<&str> {
        self.thread.strip_prefix("core-")
    }
}

fn stack() -> Vec<usize> {
    let mut addresses = Vec::with_capacity(REPORT_FRAMES_MAX);
    let collect = |frame: &backtrace::Frame| {
        addresses.push(frame.ip() as usize);
        addresses.len() < REPORT_FRAMES_MAX
    };
    // SAFETY: on Linux the walk uses the unwinder of the platform, which any number of threads may use at once and
    // which reads this thread's own stack only. The lock that `trace` takes is there for Windows' dbghelp, and for
    // finding names, and would make a core wait for the thread that finds them.
    unsafe { backtrace::trace_unsynchronized(collect) };
    addresses
}

#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Texts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(Bounded::new(&mut text, LOG_MESSAGE_BYTES_MAX), "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return clean(value, LOG_MESSAGE_BYTES_MAX, &mut self.message);
        }
        let mut text = String::new();
        clean_named(field.name(), value, USER_TEXT_BYTES_MAX, &mut text);
        self.fields.push((field.name(), text));
    }
}
