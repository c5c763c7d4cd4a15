//! From an event to a line in the buffer, on the thread that logs.
//!
//! Invariant: nothing here waits or allocates more than a line; a panic while a line is made is logged all the same.

use std::{cell::RefCell, sync::Arc};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use crate::{clock, limits::LOG_LINE_BYTES_MAX, metrics::Count};

use super::{buffer::Buffer, line::Form};

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Turns events into lines.
pub(super) struct Lines {
    pub form: Form,
    pub buffer: Arc<Buffer>,
}

impl Lines {
    fn push(&self, event: &Event<'_>, line: &mut String) {
        line.clear();
        self.form.event(event, clock::unix_now(), line);
        self.buffer.push(line.as_bytes());
        line.shrink_to(LOG_LINE_BYTES_MAX);
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.buffer.counters().add_shared(count_of(*event.metadata().level()), 1);
        // What a value logs while it is shown, or a thread at its very end, gets a line of its own.
        let shared = LINE.try_with(|line| match line.try_borrow_mut() {
            Ok(mut line) => {
                self.push(event, &mut line);
                true
            }
            Err(_) => false,
        });
        if shared != Ok(true) {
            self.push(event, &mut String::new());
        }
    }
}

fn count_of(level: Level) -> Count {
    match level {
        Level::ERROR => Count::LinesError,
        Level::WARN => Count::LinesWarn,
        Level::INFO => Count::LinesInfo,
        _ => Count::LinesDebug,
    }
}
