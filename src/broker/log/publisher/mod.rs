//! The writing half of a shard: what is appended next, and what an answer of the queue means.
//!
//! One call to the queue at a time; what gathers meanwhile is the next batch. A batch whose outcome is unknown is
//! offered again, unchanged, until the queue says what became of it; only then does the next one follow. After a
//! fence comes first what the new epoch lacks of the replay window.
//!
//! Invariants: a seq belongs to one record for ever, and seqs have no holes; a submitter is told `Ok` only when its
//! record is in the log, and exactly once. No clock, no I/O.

mod answers;
#[cfg(test)]
mod tests;
mod waiters;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    pending::{PendingRecords, Waiting},
    window::Window,
};
use crate::{
    broker::{Append, Batch, Body, Durability, Kind, Open, Position},
    limits::{LOG_DOWN_AFTER, LOG_GRACE, LOG_ORIGIN_IDLE_MAX, LOG_RETRY_MIN, LOG_SILENCE_MAX},
    model::{AckTo, RecordId, Refusal},
};

/// A publisher's bounds; see [`crate::limits::QueueLimits`].
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Records that wait or whose outcome is unknown, in bytes.
    pub pending_bytes_max: usize,
    /// How long a submitter waits for an answer.
    pub pending_timeout: Duration,
    /// One append, in bytes.
    pub batch_bytes_max: usize,
    /// One append, in records.
    pub batch_records_max: usize,
    /// How long what was acknowledged is kept.
    pub replay_window: Duration,
    /// The same in bytes; 0: nothing is kept.
    pub replay_bytes_max: usize,
}

/// What the publisher wants done.
#[derive(Clone, Debug)]
pub enum Step {
    /// Open the epoch; the answer goes to [`Publisher::opened`] or [`Publisher::failed`].
    Open(Open),
    /// Append; the answer goes to [`Publisher::appended`] or [`Publisher::failed`].
    Append(Append),
    /// Nothing before this instant, unless something happens.
    Wait(Option<Instant>),
}

/// What came out of a call, for submitters and counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Submitters and what they are told, in order.
    pub outcomes: Vec<(AckTo, Result<RecordId, Refusal>)>,
    /// Records that came into the log.
    pub appended: u64,
    /// Records that came into the log again.
    pub replayed: u64,
    /// Records refused.
    pub refused: u64,
    /// New epochs met.
    pub epochs: u64,
}

/// A batch on its way, or of unknown outcome.
#[derive(Debug)]
struct Flying {
    batch: Arc<Batch>,
    submitters: Vec<(AckTo, Instant)>,
    /// Submitters before this one have been told that the outcome is unknown.
    told: usize,
    /// An attempt was made whose outcome is unknown.
    unknown: bool,
    /// Where it was heard: then it was in the log, even if that epoch is over.
    heard: Option<Position>,
}

/// The call that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    Replay { origin: u64, first_seq: u64, last_seq: u64 },
    Batch,
    Seal,
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    settings: PublisherSettings,
    durability: Durability,
    /// Nothing new is taken; what waits is appended.
    closing: bool,
    /// The node does not hold its id: nothing is taken and nothing appended.
    suspended: bool,
    /// Draws origins.
    seed: u64,
    origin: u64,
    /// The seq of the next record that goes into a batch.
    next_seq: u64,
    /// The current epoch, 0 before the first; whether it still stands; whether it is sealed.
    epoch: u64,
    is_open: bool,
    sealed: bool,
    /// The furthest place known.
    seen: Position,
    /// The current epoch has lost something that it had: the next open must start another.
    is_broken: bool,
    /// What the log holds of this publisher's origins.
    lasts: HashMap<u64, u64>,
    pending: PendingRecords,
    flying: Option<Flying>,
    window: Window,
    call: Option<Call>,
    /// No batch before this.
    hold_until: Option<Instant>,
    /// No call before this, and the pause after the next failure.
    retry_at: Option<Instant>,
    retry: Duration,
    failing_since: Option<Instant>,
    /// When the queue last answered, and when something last came into the log.
    answered_at: Option<Instant>,
    stored_at: Option<Instant>,
    /// Fences in a row.
    fences: u32,
}

impl Publisher {
    /// A publisher whose origins are drawn from `seed`, which must be random.
    pub fn new(settings: PublisherSettings, durability: Durability, seed: u64) -> Self {
        let mut publisher = Self {
            settings,
            durability,
            closing: false,
            suspended: false,
            seed,
            origin: 0,
            next_seq: 1,
            epoch: 0,
            is_open: false,
            sealed: false,
            seen: Position::default(),
            is_broken: false,
            lasts: HashMap::new(),
            pending: PendingRecords::default(),
            flying: None,
            window: Window::default(),
            call: None,
            hold_until: None,
            retry_at: None,
            retry: LOG_RETRY_MIN,
            failing_since: None,
            answered_at: None,
            stored_at: None,
            fences: 0,
        };
        publisher.take_new_origin();
        publisher
    }

    /// Replaces the bounds; what waits already stays.
    pub fn set_settings(&mut self, settings: PublisherSettings) {
        self.settings = settings;
    }

    /// Takes a record in, or says why not.
    pub fn offer(&mut self, body: Body, to: AckTo, now: Instant) -> Result<(), (AckTo, Refusal)> {
        let is_away = |since: Instant| now.saturating_duration_since(since) >= self.settings.pending_timeout;
        let refusal = if self.closing || self.suspended {
            Refusal::Stopping
        } else if self.failing_since.is_some_and(is_away) {
            Refusal::QueueUnavailable
        } else if self.pending_bytes() + body.cost() > self.settings.pending_bytes_max {
            Refusal::QueueFull
        } else {
            self.pending.push(Waiting { body, to, since: now });
            return Ok(());
        };
        Err((to, refusal))
    }

    /// What is to be done now. The caller does it and answers, before it asks again.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.call.is_some() || self.suspended {
            return Step::Wait(self.deadline());
        }
        if let Some(until) = self.retry_at.filter(|until| *until > now) {
            return Step::Wait(earliest(Some(until), self.deadline()));
        }
        if !self.is_open || self.check_at().is_none_or(|at| at <= now) {
            return self.open(now);
        }
        if let Some(replay) = self.window.next_replay(|origin| last_of(&self.lasts, origin), &self.settings) {
            return self.append_replay(replay);
        }
        self.step_open(now)
    }

    /// The next step when the epoch is open and holds everything of the window.
    fn step_open(&mut self, now: Instant) -> Step {
        let has_work = self.flying.is_some() || !self.pending.is_empty() || !self.sealed;
        if !has_work {
            return Step::Wait(earliest(self.check_at(), self.deadline()));
        }
        if let Some(until) = self.hold_until.filter(|until| *until > now) {
            return Step::Wait(earliest(Some(until), earliest(self.check_at(), self.deadline())));
        }
        if self.flying.is_none() {
            self.form_batch(now);
        }
        match &self.flying {
            Some(flying) => self.append(Call::Batch, flying.batch.clone()),
            None => self.append_seal(),
        }
    }

    /// The origins of which something is still to be appended or may have to be appended again.
    fn my_origins(&self) -> Vec<u64> {
        let mut origins = self.window.origins();
        origins.extend(self.flying.iter().map(|flying| flying.batch.origin));
        origins.push(self.origin);
        origins.sort_unstable();
        origins.dedup();
        origins
    }

    fn open(&mut self, now: Instant) -> Step {
        self.leave_idle_origin(now);
        self.call = Some(Call::Open);
        let origins = self.my_origins();
        let beyond = Position { epoch: self.epoch, offset: u64::MAX };
        let seen = if self.is_broken { self.seen.max(beyond) } else { self.seen };
        Step::Open(Open { seen, origins, all_origins: false, grace: LOG_GRACE })
    }

    fn append_replay(&mut self, replay: Batch) -> Step {
        let call = Call::Replay { origin: replay.origin, first_seq: replay.first_seq, last_seq: replay.last_seq() };
        self.append(call, Arc::new(replay))
    }

    /// No records: tells everybody that the replay is over.
    fn append_seal(&mut self) -> Step {
        let first_seq = last_of(&self.lasts, self.origin) + 1;
        self.append(Call::Seal, Arc::new(Batch::new(self.origin, first_seq, Vec::new())))
    }

    fn append(&mut self, call: Call, batch: Arc<Batch>) -> Step {
        self.call = Some(call);
        let seen_offset = if self.seen.epoch == self.epoch { self.seen.offset } else { 0 };
        let prev = last_of(&self.lasts, batch.origin);
        Step::Append(Append { epoch: self.epoch, seen_offset, prev, batch, durability: self.durability })
    }

    fn form_batch(&mut self, now: Instant) {
        let taken = self.pending.take(self.settings.batch_bytes_max, self.settings.batch_records_max);
        if taken.is_empty() {
            return;
        }
        self.leave_idle_origin(now);
        let (bodies, submitters): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|waiting| (waiting.body, (waiting.to, waiting.since))).unzip();
        let batch = Arc::new(Batch::new(self.origin, self.next_seq, bodies));
        self.next_seq = batch.last_seq() + 1;
        self.flying = Some(Flying { batch, submitters, told: 0, unknown: false, heard: None });
    }

    /// The receiver has an entry; `last` is its origin and last seq.
    pub fn observed(&mut self, position: Position, kind: Kind, last: Option<(u64, u64)>) {
        self.saw(position);
        self.sealed |= position.epoch == self.epoch && kind == Kind::New;
        if let (Some(flying), Some(last)) = (&mut self.flying, last)
            && last == (flying.batch.origin, flying.batch.last_seq())
        {
            flying.heard = Some(position);
        }
    }

    /// The log has come as far as this: one that ends before it has lost something.
    pub fn saw(&mut self, position: Position) {
        self.seen = self.seen.max(position);
        self.is_open &= position.epoch <= self.epoch;
    }

    /// In the current epoch the log has become another than the one that was known: it must begin a new epoch, in which
    /// every publisher brings all it has.
    pub fn forked(&mut self) {
        self.is_broken = true;
        self.is_open = false;
    }

    /// Whether as much waits as one append takes.
    pub fn has_full_batch(&self) -> bool {
        let PublisherSettings { batch_bytes_max, batch_records_max, .. } = self.settings;
        self.pending.bytes() >= batch_bytes_max || self.pending.records() >= batch_records_max
    }

    /// Whether the last call failed.
    pub fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// Whether the queue has been failing for long enough to say so.
    pub fn is_down(&self, now: Instant) -> bool {
        self.failing_since.is_some_and(|since| now.saturating_duration_since(since) >= LOG_DOWN_AFTER)
    }

    /// What waits or is on its way, in bytes.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes() + self.flying.as_ref().map_or(0, |flying| flying.batch.bytes)
    }

    /// Whether the window was cut shorter than its age since this was last asked.
    pub fn take_window_cut(&mut self) -> bool {
        std::mem::take(&mut self.window.cut)
    }

    /// When an idle publisher makes sure that its epoch still stands.
    fn check_at(&self) -> Option<Instant> {
        self.answered_at.map(|at| at + LOG_SILENCE_MAX)
    }

    /// The queue forgets an origin that was idle for long, so that a new one is the honest way on.
    fn leave_idle_origin(&mut self, now: Instant) {
        let is_idle = |at: Instant| now.saturating_duration_since(at) > LOG_ORIGIN_IDLE_MAX;
        if self.stored_at.is_some_and(is_idle) && self.window.is_empty() && self.flying.is_none() {
            self.stored_at = None;
            self.take_new_origin();
        }
    }

    fn take_new_origin(&mut self) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.origin = mix(self.seed);
        self.next_seq = 1;
    }
}

fn last_of(lasts: &HashMap<u64, u64>, origin: u64) -> u64 {
    lasts.get(&origin).copied().unwrap_or(0)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// SplitMix64's finalizer (<https://prng.di.unimi.it/splitmix64.c>); 0 is no origin.
fn mix(seed: u64) -> u64 {
    let mut z = seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}
