//! One shard's log in memory: what an append, an open and a read do.
//!
//! Invariants: offsets have no holes; an append is taken whole or not at all. No clock, no I/O.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    broker::{Append, Appended, Content, Entry, Kind, Open, Opened, OriginLast, Position},
    limits::LOG_MEMORY_KEPT_BYTES,
};

/// How long an append waits before it looks again whether the slowest reader has caught up.
const READER_PAUSE: Duration = Duration::from_millis(5);

/// A shard's log.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct ShardLog {
    /// The queue's run in which the epoch was opened; 0: none has been.
    run: u64,
    tail: Position,
    sealed: bool,
    open_at: Option<Instant>,
    origins: HashMap<u64, OriginLast>,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// No epoch is below this: a queue that has forgotten everything must not begin again with an old number.
    epoch_min: u64,
}

impl ShardLog {
    /// An empty log with epochs from `epoch_min`, the time in any unit.
    pub(in crate::broker) fn new(epoch_min: u64) -> Self {
        Self { epoch_min, ..Self::default() }
    }

    /// Joins the epoch of the queue's `run`, or starts the next.
    pub(in crate::broker) fn open(&mut self, run: u64, open: &Open, now: Instant) -> Opened {
        let has_lost = self.tail < open.seen;
        if self.run != run || has_lost {
            self.start_epoch(run, open, has_lost, now);
        }
        let wanted = |origin: &u64| open.all_origins || open.origins.contains(origin);
        let origins = self.origins.iter().filter(|(origin, _)| wanted(origin)).map(|(_, last)| *last).collect();
        Opened { tail: self.tail, sealed: self.sealed, grace: self.grace(now), origins }
    }

    fn start_epoch(&mut self, run: u64, open: &Open, has_lost: bool, now: Instant) {
        let follows = self.tail.epoch > 0 || open.seen.epoch > 0;
        self.run = run;
        self.tail = Position { epoch: (self.tail.epoch.max(open.seen.epoch) + 1).max(self.epoch_min), offset: 0 };
        self.sealed = false;
        self.open_at = follows.then(|| now + open.grace);
        if has_lost {
            // Two histories: let every publisher bring all it has.
            self.origins.clear();
        }
    }

    fn grace(&self, now: Instant) -> Duration {
        self.open_at.filter(|_| !self.sealed).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Appends, unless the caller's view of the log is wrong or `is_full`.
    pub(in crate::broker) fn append(&mut self, run: u64, append: &Append, is_full: bool, now: Instant) -> Appended {
        if self.run != run || append.epoch != self.tail.epoch || append.seen_offset > self.tail.offset {
            return Appended::Fenced;
        }
        let batch = &append.batch;
        let last = self.origins.get(&batch.origin).copied();
        if last.map_or(0, |last| last.seq) != append.prev {
            let has = last.filter(|last| last.seq >= batch.last_seq() && !batch.bodies.is_empty());
            return has.map_or(Appended::Gap, Appended::Have);
        }
        if !batch.is_replay() && !self.grace(now).is_zero() {
            return Appended::Wait(self.grace(now));
        }
        if is_full {
            return Appended::Wait(READER_PAUSE);
        }
        self.store(append)
    }

    fn store(&mut self, append: &Append) -> Appended {
        let batch = Arc::clone(&append.batch);
        let kind = batch.kind(self.sealed);
        self.tail.offset += 1;
        self.sealed |= kind == Kind::New;
        let position = self.tail;
        if !batch.bodies.is_empty() {
            let last = OriginLast { origin: batch.origin, seq: batch.last_seq(), position };
            self.origins.insert(batch.origin, last);
        }
        self.bytes += batch.bytes;
        self.entries.push_back(Entry { position, kind, content: Content::Shared(batch) });
        Appended::Stored { position, kind }
    }

    /// Lets go of what is over the rest that is always kept and that every reader has `passed` (none: no reader).
    pub(in crate::broker) fn trim(&mut self, passed: Option<Position>) {
        let passed = passed.unwrap_or(self.tail);
        while self.is_over() && self.entries.front().is_some_and(|entry| entry.position <= passed) {
            let entry = self.entries.pop_front();
            self.bytes -= entry.map_or(0, |entry| entry.content.bytes());
        }
    }

    /// Whether more is held than the rest that is always kept.
    pub(in crate::broker) fn is_over(&self) -> bool {
        self.bytes > LOG_MEMORY_KEPT_BYTES
    }

    /// What is held, in bytes.
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.bytes
    }

    /// At most so many entries behind `after`.
    pub(in crate::broker) fn read(&self, after: Position, entries_max: usize) -> Vec<Entry> {
        let first = self.entries.partition_point(|entry| entry.position <= after);
        self.entries.range(first..).take(entries_max).cloned().collect()
    }
}

/// For tests.
impl ShardLog {
    /// The queue comes back without its last entries, as many as the current epoch has of them.
    pub(in crate::broker) fn lose_tail(&mut self, entries: u64) {
        for _ in 0..entries.min(self.tail.offset) {
            self.entries.pop_back();
            self.tail.offset -= 1;
        }
        let epoch = self.tail.epoch;
        self.sealed = self.entries.iter().any(|entry| entry.position.epoch == epoch && entry.kind == Kind::New);
        let mut origins = HashMap::new();
        for entry in &self.entries {
            if let Content::Shared(batch) = &entry.content
                && !batch.bodies.is_empty()
            {
                let last = OriginLast { origin: batch.origin, seq: batch.last_seq(), position: entry.position };
                origins.insert(batch.origin, last);
            }
        }
        self.origins = origins;
    }

    /// The entries, oldest first.
    #[cfg(test)]
    pub(in crate::broker) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}
