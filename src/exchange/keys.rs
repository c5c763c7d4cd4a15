//! Which idempotency keys were heard, and whose they are.
//!
//! The first record with a key *in the order of its shard of the log* owns the key, so that all nodes agree on
//! it without talking. Only hearing makes a key known: what the log refused leaves nothing behind.
//! Invariants: at most `keys_max` keys, the oldest goes first; a key is known for `window` from its hearing.
//! Left out: two pushes with one key and different audiences that are on their way at the same time through
//! different shards; there is no order between those. Later ones are caught when they are submitted.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    metrics::{Count, Counters},
    model::{Pid, Record, RecordId},
};

/// A key of a project in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pid: Pid,
    key: Arc<str>,
    shard: u16,
}

impl Key {
    /// The key of a record, if it has one.
    pub(super) fn of(record: &Record, shards: u16) -> Option<Self> {
        let (pid, key) = record.idempotency_key()?;
        Some(Self { pid: pid.clone(), key: key.into(), shard: record.shard(shards) })
    }
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    shard: u16,
    id: RecordId,
}

type Owners = SmallVec<[Owner; 1]>;

/// The keys that are known.
#[derive(Debug)]
pub(super) struct Keys {
    owners: HashMap<Pid, HashMap<Arc<str>, Owners, ahash::RandomState>, ahash::RandomState>,
    /// In the order of hearing.
    order: VecDeque<(Instant, Key)>,
    window: Duration,
    keys_max: usize,
    counters: Arc<Counters>,
}

impl Keys {
    pub(super) fn new(window: Duration, keys_max: usize, counters: Arc<Counters>) -> Self {
        Self { owners: HashMap::default(), order: VecDeque::new(), window, keys_max, counters }
    }

    pub(super) fn resize(&mut self, window: Duration, keys_max: usize) {
        (self.window, self.keys_max) = (window, keys_max);
    }

    /// A record with a key was heard: the id of the first with that key, which may be `id` itself.
    pub(super) fn heard(&mut self, key: Key, id: RecordId, now: Instant) -> RecordId {
        self.expire(now);
        if let Some(first) = self.owner(&key) {
            return first;
        }
        while self.order.len() >= self.keys_max && self.forget_oldest() {
            self.counters.inc(Count::KeysEvicted);
        }
        let keys = self.owners.entry(key.pid.clone()).or_default();
        keys.entry(key.key.clone()).or_default().push(Owner { shard: key.shard, id });
        self.order.push_back((now, key));
        id
    }

    /// Whose the key is in its shard.
    pub(super) fn owner(&self, key: &Key) -> Option<RecordId> {
        self.owners(key)?.iter().find(|owner| owner.shard == key.shard).map(|owner| owner.id)
    }

    /// Whose the key is in any shard, its own before others.
    pub(super) fn owner_anywhere(&mut self, key: &Key, now: Instant) -> Option<RecordId> {
        self.expire(now);
        self.owner(key).or_else(|| Some(self.owners(key)?.first()?.id))
    }

    /// Drops what is older than the window.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((heard_at, _)) = self.order.front()
            && now.saturating_duration_since(*heard_at) >= self.window
        {
            self.forget_oldest();
        }
    }

    fn owners(&self, key: &Key) -> Option<&Owners> {
        self.owners.get(&key.pid)?.get(&*key.key)
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else { return false };
        let Some(keys) = self.owners.get_mut(&key.pid) else { return true };
        if let Some(owners) = keys.get_mut(&*key.key) {
            owners.retain(|owner| owner.shard != key.shard);
            if owners.is_empty() {
                keys.remove(&*key.key);
            }
        }
        if keys.is_empty() {
            self.owners.remove(&key.pid);
        }
        true
    }
}
