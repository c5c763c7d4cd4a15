//! The embedded queue: the log in this process, for a single node and for several nodes of a simulation.
//!
//! Records are shared as values, never encoded. What every reader has passed is let go of beyond a small rest; what
//! a reader still lacks is kept, and when that is too much appends wait for the reader.
//!
//! Invariants: answers as the Redis implementation does (one contract suite holds both to it).
//! Left out: persistence. [`Memory::restart`] and its like make it behave as a queue that fails, for tests.

mod last_values;
mod shard_log;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, Weak},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;

use self::last_values::LastValues;
pub(super) use self::shard_log::ShardLog;
use super::{
    Append, Appended, Broker, BrokerError, Claim, Claimed, Entry, Live, Open, Opened, Pending, Position, Retain,
    Retained, RetainedPage, now,
};
use crate::{
    clock::unix_ms,
    model::{Boot, NodeId},
};

#[expect(clippy::disallowed_types, reason = "held for one synchronous sentence by node threads, never by a core")]
type Lock<T> = std::sync::Mutex<T>;

/// How far a reader has come; told by the reader, asked by the queue.
#[derive(Debug, Default)]
pub struct Progress(Lock<Position>);

impl Progress {
    pub(super) fn set(&self, position: Position) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    fn get(&self) -> Position {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The embedded queue.
#[derive(Debug)]
pub struct Memory {
    /// What the slowest reader may lack, in bytes.
    log_bytes_max: usize,
    faulty: bool,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the queue's starts.
    run: u64,
    /// The first epoch that a queue of the first run may begin with: the time, or in tests a number that repeats.
    epoch_first: u64,
    shards: Option<u16>,
    logs: BTreeMap<u16, Shard>,
    last_values: BTreeMap<u16, LastValues>,
    leases: HashMap<NodeId, Held>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Faults {
    /// The queue does not answer at all.
    is_away: bool,
    /// So many appends are carried out, but their answers are lost.
    replies_lost: u32,
}

#[derive(Debug)]
struct Held {
    boot: Boot,
    text: String,
    until: Instant,
}

/// A shard's log and those who read it.
#[derive(Debug)]
struct Shard {
    log: ShardLog,
    readers: Vec<(Weak<Progress>, Arc<Notify>)>,
}

impl Memory {
    /// A queue that keeps what its slowest reader lacks, up to `log_bytes_max`.
    pub fn new(log_bytes_max: usize) -> Self {
        let state = State { run: 1, epoch_first: unix_ms(), ..State::default() };
        Self { log_bytes_max, faulty: false, state: Lock::new(state) }
    }

    /// For tests: a queue of which publishers believe that it may lose what it has.
    pub fn faulty(log_bytes_max: usize) -> Self {
        let state = State { run: 1, epoch_first: 1, ..State::default() };
        Self { log_bytes_max, faulty: true, state: Lock::new(state) }
    }

    /// For tests: the queue restarts, without what it stored unless `keeps` says so.
    pub fn restart(&self, keeps: bool) {
        self.with(|state| {
            state.run += 1;
            if !keeps {
                state.shards = None;
                state.leases.clear();
                state.last_values.clear();
                let epoch_min = state.epoch_min();
                state.logs.values_mut().for_each(|shard| shard.log = ShardLog::new(epoch_min));
            }
        });
    }

    /// For tests: the queue falls back by up to so many entries of each shard; unseen, unless it restarts too.
    pub fn lose_tail(&self, entries: u64) {
        self.with(|state| state.logs.values_mut().for_each(|shard| shard.log.lose_tail(entries)));
    }

    /// For tests: the queue is away, or back.
    pub fn set_away(&self, is_away: bool) {
        self.with(|state| state.faults.is_away = is_away);
    }

    /// For tests: the answers to the next so many appends are lost.
    pub fn lose_replies(&self, count: u32) {
        self.with(|state| state.faults.replies_lost = count);
    }

    fn with<T>(&self, apply: impl FnOnce(&mut State) -> T) -> T {
        apply(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a call, unless the queue is away.
    fn answer<T: Send + 'static>(&self, apply: impl FnOnce(&mut State) -> Result<T, BrokerError>) -> Pending<'_, T> {
        let answer = self.with(|state| {
            if state.faults.is_away {
                return Err(BrokerError::NotDone("the embedded queue is away".to_owned()));
            }
            apply(state)
        });
        Box::pin(std::future::ready(answer))
    }
}

impl State {
    fn shard(&mut self, shard: u16) -> &mut Shard {
        let epoch_min = self.epoch_min();
        self.logs.entry(shard).or_insert_with(|| Shard { log: ShardLog::new(epoch_min), readers: Vec::new() })
    }

    /// Above every epoch of earlier runs: none of them opens so many.
    fn epoch_min(&self) -> u64 {
        self.epoch_first + (self.run - 1) * 1000
    }

    fn append(&mut self, shard: u16, append: &Append, log_bytes_max: usize) -> Result<Appended, BrokerError> {
        let run = self.run;
        let appended = self.shard(shard).append(run, append, log_bytes_max);
        if self.faults.replies_lost > 0 {
            self.faults.replies_lost -= 1;
            return Err(BrokerError::Unknown("the answer was lost".to_owned()));
        }
        Ok(appended)
    }

    fn claim(&mut self, claim: Claim, now: Instant) -> Claimed {
        match self.leases.get(&claim.node) {
            Some(held) if held.boot != claim.boot && held.until > now => {
                Claimed::Other { holder: format!("{}|{}", held.boot, held.text), left: held.until - now }
            }
            _ => {
                let held = Held { boot: claim.boot, text: claim.text, until: now + claim.ttl };
                self.leases.insert(claim.node, held);
                Claimed::Held
            }
        }
    }
}

impl Shard {
    fn append(&mut self, run: u64, append: &Append, log_bytes_max: usize) -> Appended {
        if self.log.is_over() {
            let passed = self.passed_by_all();
            self.log.trim(passed);
        }
        let is_full = self.log.bytes() > log_bytes_max;
        let appended = self.log.append(run, append, is_full, now());
        if matches!(appended, Appended::Stored { .. }) {
            self.readers.iter().for_each(|(_, nudge)| nudge.notify_one());
        }
        appended
    }

    /// The furthest place that every reader has passed; readers that are gone are forgotten.
    fn passed_by_all(&mut self) -> Option<Position> {
        self.readers.retain(|(progress, _)| progress.strong_count() > 0);
        self.readers.iter().filter_map(|(progress, _)| Some(progress.upgrade()?.get())).min()
    }

    fn subscribe(&mut self) -> Live {
        let (nudge, progress) = (Arc::new(Notify::new()), Arc::new(Progress::default()));
        self.readers.retain(|(progress, _)| progress.strong_count() > 0);
        self.readers.push((Arc::downgrade(&progress), nudge.clone()));
        Live::nudges(nudge, progress)
    }
}

impl Broker for Memory {
    fn join(&self, shards: u16) -> Pending<'_, ()> {
        self.answer(|state| match *state.shards.get_or_insert(shards) {
            held if held == shards => Ok(()),
            held => Err(BrokerError::Refused(format!("the log has {held} shards, this node is set to {shards}"))),
        })
    }

    fn open(&self, shard: u16, open: Open) -> Pending<'_, Opened> {
        self.answer(|state| {
            let run = state.run;
            Ok(state.shard(shard).log.open(run, &open, now()))
        })
    }

    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended> {
        self.answer(|state| state.append(shard, &append, self.log_bytes_max))
    }

    fn read(&self, shard: u16, after: Position, entries_max: usize) -> Pending<'_, Vec<Entry>> {
        self.answer(|state| Ok(state.shard(shard).log.read(after, entries_max)))
    }

    fn subscribe(&self, shard: u16) -> Pending<'_, Live> {
        self.answer(|state| Ok(state.shard(shard).subscribe()))
    }

    fn retain(&self, shard: u16, retain: Retain) -> Pending<'_, Retained> {
        self.answer(|state| Ok(state.last_values.entry(shard).or_default().retain(retain)))
    }

    fn retained(&self, shard: u16, cursor: Option<Bytes>, values_max: usize) -> Pending<'_, RetainedPage> {
        self.answer(|state| {
            let values = state.last_values.get(&shard);
            Ok(values.map(|values| values.page(cursor, values_max)).unwrap_or_default())
        })
    }

    fn claim(&self, claim: Claim) -> Pending<'_, Claimed> {
        self.answer(|state| Ok(state.claim(claim, now())))
    }

    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()> {
        self.answer(|state| {
            if state.leases.get(&node).is_some_and(|held| held.boot == boot) {
                state.leases.remove(&node);
            }
            Ok(())
        })
    }

    fn keeps_data(&self) -> bool {
        !self.faulty
    }

    fn takes_values(&self) -> bool {
        true
    }
}
