//! Records that wait for their append, in the order in which they were offered.
//!
//! Invariants: bounded in bytes by who offers; a record that leaves has been answered or is in a batch.

use std::{collections::VecDeque, time::Instant};

use crate::{broker::Body, model::AckTo};

/// A record that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) body: Body,
    pub(super) to: AckTo,
    pub(super) since: Instant,
}

/// The queue of them.
#[derive(Debug, Default)]
pub(super) struct PendingRecords {
    queue: VecDeque<Waiting>,
    bytes: usize,
}

impl PendingRecords {
    /// What waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait.
    pub(super) fn records(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|waiting| waiting.since)
    }

    /// Takes one in.
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.body.cost();
        self.queue.push_back(waiting);
    }

    /// Takes records back in that were in a batch which never left.
    pub(super) fn put_back(&mut self, batch: impl DoubleEndedIterator<Item = Waiting>) {
        for waiting in batch.rev() {
            self.bytes += waiting.body.cost();
            self.queue.push_front(waiting);
        }
    }

    /// The oldest records, as many as fit, at least one.
    pub(super) fn take(&mut self, bytes_max: usize, records_max: usize) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(waiting) = self.queue.front() {
            bytes += waiting.body.cost();
            let is_full = bytes > bytes_max || taken.len() >= records_max;
            if is_full && !taken.is_empty() {
                break;
            }
            taken.extend(self.pop());
        }
        taken
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.bytes -= waiting.body.cost();
        Some(waiting)
    }
}
