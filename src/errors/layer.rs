//! From an event at ERROR to a report in the queue, on the thread that logs.

use std::sync::Arc;

use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use crate::clock;

use super::{queue::Queue, report::Report};

/// Turns errors into reports.
pub(super) struct Errors(pub Arc<Queue>);

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The rate first: what is over it costs next to nothing.
        if self.0.may_report(clock::now()) {
            self.0.push(Report::of(event));
        }
    }
}
