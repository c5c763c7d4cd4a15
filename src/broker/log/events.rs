//! The bounded queue of events from the shards' tasks to the node, all on one thread.
//!
//! Invariants: order is kept; nothing that was sent is dropped while the reader lives; a sender waits while the
//! queue is full, so that a node which pauses stops the log's reading, not its memory.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::LogEvent;
use crate::limits::{LOG_EVENTS_BYTES_MAX, LOG_EVENTS_MAX};

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<(LogEvent, usize)>,
    bytes: usize,
    reader: Option<Waker>,
    senders: Vec<Waker>,
    /// The reader is gone: what is sent is dropped.
    is_closed: bool,
}

/// The sending end.
#[derive(Clone, Debug)]
pub(super) struct EventSender(Rc<RefCell<Queue>>);

/// The events of a log, in order.
#[derive(Debug)]
pub struct LogEvents(Rc<RefCell<Queue>>);

/// A queue of events.
pub(super) fn events() -> (EventSender, LogEvents) {
    let queue = Rc::<RefCell<Queue>>::default();
    (EventSender(queue.clone()), LogEvents(queue))
}

impl EventSender {
    /// Sends all events, in order, waiting for room as often as needed.
    pub(super) async fn send_all(&self, events: &mut Vec<LogEvent>) {
        let mut events = events.drain(..).peekable();
        while events.peek().is_some() {
            poll_fn(|context| self.poll_room(context)).await;
            let mut queue = self.0.borrow_mut();
            while queue.has_room()
                && let Some(event) = events.next()
            {
                queue.push(event);
            }
        }
    }

    /// Sends one event.
    pub(super) async fn send(&self, event: LogEvent) {
        self.send_all(&mut vec![event]).await;
    }

    fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut queue = self.0.borrow_mut();
        if queue.has_room() {
            return Poll::Ready(());
        }
        queue.senders.push(context.waker().clone());
        Poll::Pending
    }
}

impl LogEvents {
    /// The next event. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> LogEvent {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits for events and moves all that wait, at most `events_max`, into `batch`.
    pub async fn next_batch(&mut self, batch: &mut Vec<LogEvent>, events_max: usize) {
        let first = self.next().await;
        batch.push(first);
        let mut queue = self.0.borrow_mut();
        while batch.len() < events_max
            && let Some(event) = queue.pop()
        {
            batch.push(event);
        }
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<LogEvent> {
        let mut queue = self.0.borrow_mut();
        if let Some(event) = queue.pop() {
            return Poll::Ready(event);
        }
        queue.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for LogEvents {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.is_closed = true;
        queue.events.clear();
        queue.senders.drain(..).for_each(Waker::wake);
    }
}

impl Queue {
    fn has_room(&self) -> bool {
        self.is_closed || (self.events.len() < LOG_EVENTS_MAX && self.bytes < LOG_EVENTS_BYTES_MAX)
    }

    fn push(&mut self, event: LogEvent) {
        if self.is_closed {
            return;
        }
        let bytes = event.bytes();
        self.bytes += bytes;
        self.events.push_back((event, bytes));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn pop(&mut self) -> Option<LogEvent> {
        let (event, bytes) = self.events.pop_front()?;
        self.bytes -= bytes;
        if self.has_room() {
            self.senders.drain(..).for_each(Waker::wake);
        }
        Some(event)
    }
}
