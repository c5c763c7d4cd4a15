//! Panics: one line at ERROR with where it was, instead of the standard hook's text.
//!
//! Invariant: a panic's message is shown only where no peer's bytes can be in it: the program's own literals, and what
//! the core library says of indices and sums. Others (`unwrap` on an error, a cut through a text) quote values.

use std::{
    io::{self, Write},
    panic::PanicHookInfo,
};

use crate::{clock, limits::LAST_WORDS_OF_A_CORE_MAX, logs};

/// The module that panics are told as.
pub const TARGET: &str = "ws_cluster::panic";

/// Messages that hold numbers at most.
const NUMBERS_ONLY: &[&str] = &[
    "index out of bounds: the len is ",
    "attempt to ",
    "range end index ",
    "range start index ",
    "slice index starts at ",
    "mid > len",
    "already borrowed",
    "already mutably borrowed",
    "RefCell already",
    "capacity overflow",
    "called `Option::unwrap()` on a `None` value",
];

/// After these the process is aborted, and nobody gets another word in.
const LAST: &[&str] = &["panic in a function that cannot unwind", "panic in a destructor during cleanup"];

const NOT_SHOWN: &str = "a message that is not shown, because values may be in it";

/// From now on panics are logged, and with that reported, as errors.
pub fn log_them() {
    std::panic::set_hook(Box::new(hook));
}

fn hook(info: &PanicHookInfo<'_>) {
    let (what, thread) = (what(info), std::thread::current());
    let thread = thread.name().unwrap_or("unnamed");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    if tracing::enabled!(target: TARGET, tracing::Level::ERROR) {
        tracing::error!(target: TARGET, thread, at, "panicked: {what}");
    } else {
        // Logs are off or not set up yet; a panic is told all the same.
        let _ = writeln!(io::stderr(), "ws-cluster: thread {thread} panicked at {at}: {what}");
    }
    if LAST.contains(&what) {
        let end = clock::now() + LAST_WORDS_OF_A_CORE_MAX;
        super::installed().map(|reports| reports.flush(end));
        logs::installed().map(|logs| logs.flush(end));
    }
}

fn what<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    if let Some(literal) = payload.downcast_ref::<&'static str>() {
        return literal;
    }
    payload.downcast_ref::<String>().map_or(NOT_SHOWN, |message| shown(message))
}

fn shown(message: &str) -> &str {
    let holds_numbers_only = NUMBERS_ONLY.iter().any(|start| message.starts_with(start));
    if holds_numbers_only && !message.contains(['"', '\n']) { message } else { NOT_SHOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_only_if_no_value_can_be_in_it() {
        for message in [
            "index out of bounds: the len is 3 but the index is 5",
            "attempt to subtract with overflow",
            "called `Option::unwrap()` on a `None` value",
        ] {
            assert_eq!(shown(message), message);
        }
        for message in [
            "byte index 1 is not a char boundary; it is inside 'é' (bytes 0..2) of `hush`",
            "called `Result::unwrap()` on an `Err` value: \"hush\"",
            "assertion `left == right` failed\n  left: \"hush\"",
            "told by hush",
        ] {
            assert_eq!(shown(message), NOT_SHOWN);
        }
    }
}
