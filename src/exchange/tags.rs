//! What every tag's last values are, and which cores want to hear of it.
//!
//! Invariants: at most `tags_max` entries, and the publications that they hold cost at most `bytes_max` together;
//! an entry that a core follows is never dropped; a ring's publications are chained by `prev` without a hole, so
//! that what follows any of them in the ring is all that followed it. Left out: access rules and sessions (cores').
//!
//! Over the byte bound the tag that was published longest ago and that nobody follows goes first, whole; then the
//! growing tag gives up its own past, then other followed tags theirs; at last the new value is not remembered.
//!
//! A value out of the queue's store stands only until the log brings one of its tag from before this node's start:
//! what the log holds is the newest part of the past.

mod unsaved;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use self::unsaved::Unsaved;
use super::{cores::Cores, ring::Ring};
use crate::{
    metrics::{Count, Counters},
    model::{FollowStart, LastValue, Pid, Publication, Published, RecordId, Tag, TagRule, TagRules, record},
};

/// Entries looked at in one step of trimming or sweeping, so that no step takes long.
const STEP_ENTRIES: usize = 256;
/// The stamps of what the log brings begin here; a value out of the store has its Unix milliseconds, below all these.
const FIRST_STAMP: u64 = 1 << 63;

/// What is to come of a value out of the queue's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stored {
    /// Nothing: there was none, or the log has brought it.
    #[default]
    No,
    /// It is the newest, and the log has brought nothing of the tag yet.
    Newest(RecordId),
    /// The log has brought others, which may be replays of what was before it.
    Passed(RecordId),
}

/// The table is full of tags that are followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A publication and the cores that want it.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) published: Arc<Published>,
    pub(super) cores: Cores,
    /// There is a hole before it of which not all who want it were told.
    pub(super) gap: bool,
}

/// All tags of all projects.
#[derive(Debug)]
pub(super) struct TagTable {
    slots: HashMap<Pid, HashMap<Tag, u32, ahash::RandomState>, ahash::RandomState>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Entries that were unfollowed when they were queued, by the stamp that they had then; looked at again when popped.
    oldest: BinaryHeap<Reverse<(u64, u32)>>,
    /// Counts publications; an entry's stamp says how long ago its last was.
    stamp: u64,
    /// Where trimming and sweeping go on.
    hand: usize,
    bytes: usize,
    tags_max: usize,
    bytes_max: usize,
    /// Only on the node that writes last values into the queue's store.
    unsaved: Option<Unsaved>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Entry {
    pid: Pid,
    tag: Tag,
    followers: Cores,
    /// The tag's newest publication, remembered or not.
    newest: Option<RecordId>,
    ring: Ring,
    /// The log lost something behind the ring: nothing can be resumed from it.
    broken: bool,
    /// Somebody has followed since, and got the value before the hole.
    is_hole_news: bool,
    /// Whether the log has yet to bring the value that came out of the queue's store.
    stored: Stored,
    stamp: u64,
    queued: bool,
}

impl TagTable {
    pub(super) fn new(tags_max: usize, bytes_max: usize, counters: Arc<Counters>) -> Self {
        Self {
            slots: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: BinaryHeap::new(),
            stamp: FIRST_STAMP,
            hand: 0,
            bytes: 0,
            tags_max,
            bytes_max,
            unsaved: None,
            counters,
        }
    }

    /// Replaces the bounds; what is too much goes as far as nobody follows it.
    pub(super) fn resize(&mut self, tags_max: usize, bytes_max: usize) {
        (self.tags_max, self.bytes_max) = (tags_max, bytes_max);
        while (self.len() > self.tags_max || self.bytes > self.bytes_max) && self.evict_unfollowed() {}
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes a publication in, unless `rule` passes it over as equal to the last value. Whom it is for, if anybody.
    pub(super) fn publish(
        &mut self,
        id: RecordId,
        publication: Publication,
        rule: &TagRule,
        now: Instant,
    ) -> Option<Delivery> {
        let Ok(slot) = self.slot_or_insert(&publication.pid, &publication.tag) else {
            self.counters.inc(Count::TagsEvicted);
            return None;
        };
        let entry = entry(&mut self.entries, slot)?;
        if entry.stands_for(id) || (rule.dedup && entry.repeats(&publication)) {
            return None;
        }
        let was_empty = entry.ring.is_empty();
        let gap = std::mem::take(&mut entry.is_hole_news);
        if std::mem::take(&mut entry.broken) {
            entry.newest = None;
            self.bytes -= entry.ring.clear();
        }
        let published = entry.chain(id, publication);
        let cores = entry.followers;
        self.stamp += 1;
        entry.stamp = self.stamp;
        self.bytes = self.bytes + entry.ring.push(published.clone(), now) - entry.ring.trim(&rule.history, now);
        if was_empty {
            self.counters.add(Count::Tags, 1);
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.changed(slot);
        }
        self.queue_if_unfollowed(slot);
        self.make_room(slot);
        (!cores.is_empty()).then_some(Delivery { published, cores, gap })
    }

    /// The same for a publication from before this node's start, which is for nobody.
    pub(super) fn publish_kept(&mut self, id: RecordId, publication: Publication, rule: &TagRule, now: Instant) {
        if let Some(slot) = self.slot(&publication.pid, &publication.tag)
            && let Some(entry) = entry(&mut self.entries, slot)
            && matches!(entry.stored, Stored::Newest(stored) if stored != id)
        {
            self.counters.sub(Count::Tags, u64::from(!entry.ring.is_empty()));
            self.bytes -= entry.forget();
        }
        self.publish(id, publication, rule, now);
    }

    /// Takes in a value out of the queue's store, heard at `heard_at`, unless the tag is known; whether it was taken.
    /// As every other it gives way to what was published later when the table is full.
    pub(super) fn load(&mut self, value: LastValue, heard_at: Instant) -> bool {
        let LastValue { published, at_unix_ms, is_broken } = value;
        let known = self.slot(&published.pid, &published.tag);
        let Some(slot) = known.or_else(|| self.insert(&published.pid, &published.tag).ok()) else { return false };
        let Some(entry) = entry(&mut self.entries, slot) else { return false };
        if entry.newest.is_some() {
            return false;
        }
        let published = entry.take_over(&published);
        (entry.newest, entry.stored, entry.broken) = (Some(published.id), Stored::Newest(published.id), is_broken);
        entry.stamp = at_unix_ms.min(FIRST_STAMP - 1);
        self.bytes += entry.ring.push(published.clone(), heard_at);
        self.counters.add(Count::Tags, 1);
        self.queue_if_unfollowed(slot);
        while self.len() > self.tags_max && self.evict_unfollowed() {}
        self.make_room(slot);
        self.slot(&published.pid, &published.tag).is_some()
    }

    /// Notes that `core` wants the tag, and gives what its subscriber gets first.
    pub(super) fn follow(
        &mut self,
        core: u8,
        pid: &Pid,
        tag: &Tag,
        since: Option<&str>,
        rule: &TagRule,
        now: Instant,
    ) -> Result<FollowStart, Full> {
        let slot = self.slot_or_insert(pid, tag)?;
        let Some(entry) = entry(&mut self.entries, slot) else { return Err(Full) };
        entry.followers.insert(core);
        entry.is_hole_news = entry.broken;
        self.bytes -= entry.ring.trim(&rule.history, now);
        Ok(entry.start(since))
    }

    /// `core` does not want the tag any more.
    pub(super) fn unfollow(&mut self, core: u8, pid: &Pid, tag: &Tag) {
        let Some(slot) = self.slot(pid, tag) else { return };
        let Some(entry) = entry(&mut self.entries, slot) else { return };
        entry.followers.remove(core);
        if entry.newest.is_none() && entry.followers.is_empty() {
            self.remove(slot);
        } else {
            self.queue_if_unfollowed(slot);
        }
    }

    /// The tag's publications, oldest first, the last included.
    pub(super) fn history(&mut self, pid: &Pid, tag: &Tag, rule: &TagRule, now: Instant) -> Vec<Arc<Published>> {
        let Some(entry) = self.slot(pid, tag).and_then(|slot| entry(&mut self.entries, slot)) else {
            return Vec::new();
        };
        self.bytes -= entry.ring.trim(&rule.history, now);
        entry.ring.iter().cloned().collect()
    }

    /// The tag's last value.
    pub(super) fn last(&self, pid: &Pid, tag: &Tag) -> Option<&Arc<Published>> {
        self.entries.get(self.slot(pid, tag)? as usize)?.as_ref()?.ring.last()
    }

    /// The log lost records of `shard` of `shards` (none: of all): of each tag there only the last value is good,
    /// and nothing follows on it. Calls `tell` for each that is followed.
    pub(super) fn lost(&mut self, shard: Option<u16>, shards: u16, mut tell: impl FnMut(&Pid, &Tag, Cores)) {
        for entry in self.entries.iter_mut().flatten() {
            if shard.is_some_and(|shard| record::shard_of(&entry.pid, &entry.tag, shards) != shard) {
                continue;
            }
            self.bytes -= entry.ring.keep_last();
            (entry.broken, entry.is_hole_news) = (true, false);
            if !entry.followers.is_empty() {
                tell(&entry.pid, &entry.tag, entry.followers);
            }
        }
    }

    /// Drops what is too old by its rule, some entries a call.
    pub(super) fn sweep(&mut self, rules: &TagRules, now: Instant) {
        for _ in 0..STEP_ENTRIES.min(self.entries.len()) {
            if let Some(entry) = self.next_entry() {
                let freed = entry.ring.trim(&rules.find(&entry.tag).history, now);
                self.bytes -= freed;
            }
        }
    }

    fn slot(&self, pid: &Pid, tag: &Tag) -> Option<u32> {
        self.slots.get(pid)?.get(tag).copied()
    }

    fn slot_or_insert(&mut self, pid: &Pid, tag: &Tag) -> Result<u32, Full> {
        if let Some(slot) = self.slot(pid, tag) {
            return Ok(slot);
        }
        if self.len() >= self.tags_max && !self.evict_unfollowed() {
            return Err(Full);
        }
        self.insert(pid, tag)
    }

    fn insert(&mut self, pid: &Pid, tag: &Tag) -> Result<u32, Full> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).map_err(|_| Full)?
            }
        };
        let pid = self.slots.get_key_value(pid).map_or(pid, |(interned, _)| interned).clone();
        self.entries[slot as usize] = Some(Entry::new(pid.clone(), tag.clone()));
        self.slots.entry(pid).or_default().insert(tag.clone(), slot);
        Ok(slot)
    }

    fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries[slot as usize].take() else { return };
        self.free.push(slot);
        self.bytes -= entry.ring.bytes();
        if !entry.ring.is_empty() {
            self.counters.sub(Count::Tags, 1);
        }
        let Some(tags) = self.slots.get_mut(&entry.pid) else { return };
        tags.remove(&entry.tag);
        if tags.is_empty() {
            self.slots.remove(&entry.pid);
        }
    }

    fn queue_if_unfollowed(&mut self, slot: u32) {
        if let Some(entry) = entry(&mut self.entries, slot)
            && entry.followers.is_empty()
            && !entry.queued
        {
            entry.queued = true;
            self.oldest.push(Reverse((entry.stamp, slot)));
        }
    }

    /// Drops the tag that was published longest ago among those that nobody follows; whether there was one.
    ///
    /// A stamp only grows, so a popped entry whose stamp is still the same is the oldest of all.
    fn evict_unfollowed(&mut self) -> bool {
        while let Some(Reverse((stamp, slot))) = self.oldest.pop() {
            let Some(entry) = entry(&mut self.entries, slot) else { continue };
            entry.queued = false;
            if !entry.followers.is_empty() {
                continue;
            }
            if entry.stamp != stamp {
                self.queue_if_unfollowed(slot);
                continue;
            }
            self.remove(slot);
            self.counters.inc(Count::TagsEvicted);
            return true;
        }
        false
    }

    /// Brings the bytes under their bound after `growing` grew.
    fn make_room(&mut self, growing: u32) {
        while self.bytes > self.bytes_max {
            if self.evict_unfollowed() {
                continue;
            }
            let Some(entry) = entry(&mut self.entries, growing) else { return };
            let freed = match entry.ring.pop_past() {
                0 => self.trim_others(),
                freed => freed,
            };
            self.bytes -= freed;
            if freed == 0 {
                return self.forget_value(growing);
            }
        }
    }

    /// Cuts the next followed tag with a past down to its last value; the bytes that gave.
    fn trim_others(&mut self) -> usize {
        (0..STEP_ENTRIES.min(self.entries.len()))
            .find_map(|_| self.next_entry().map(|entry| entry.ring.keep_last()).filter(|freed| *freed > 0))
            .unwrap_or(0)
    }

    fn forget_value(&mut self, slot: u32) {
        let Some(entry) = entry(&mut self.entries, slot) else { return };
        self.bytes -= entry.ring.clear();
        self.counters.sub(Count::Tags, 1);
        self.counters.inc(Count::TagsEvicted);
    }

    fn next_entry(&mut self) -> Option<&mut Entry> {
        self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
        self.entries.get_mut(self.hand)?.as_mut()
    }
}

fn entry(entries: &mut [Option<Entry>], slot: u32) -> Option<&mut Entry> {
    entries.get_mut(slot as usize)?.as_mut()
}

impl Entry {
    fn new(pid: Pid, tag: Tag) -> Self {
        Self {
            pid,
            tag,
            followers: Cores::default(),
            newest: None,
            ring: Ring::default(),
            broken: false,
            is_hole_news: false,
            stored: Stored::No,
            stamp: 0,
            queued: false,
        }
    }

    /// Whether the value out of the store stands for this record already. The log brings a record once; one of the
    /// same origin and before the stored one can only be a replay that comes late.
    fn stands_for(&mut self, id: RecordId) -> bool {
        let (Stored::Newest(stored) | Stored::Passed(stored)) = self.stored else { return false };
        if stored.origin == id.origin && id.seq < stored.seq {
            return true;
        }
        let is_newest = matches!(self.stored, Stored::Newest(_));
        self.stored = if stored == id { Stored::No } else { Stored::Passed(stored) };
        if stored == id && !is_newest {
            // What has come since was before it: it comes once more, as the newest, and whoever follows is told.
            (self.broken, self.is_hole_news) = (true, true);
        }
        stored == id && is_newest
    }

    /// Forgets every publication; gives the bytes that were freed.
    fn forget(&mut self) -> usize {
        (self.newest, self.stored, self.broken, self.is_hole_news) = (None, Stored::No, false, false);
        self.ring.clear()
    }

    /// Whether a subscriber that holds the last value would learn nothing: a `keep` after one that was none counts.
    fn repeats(&self, publication: &Publication) -> bool {
        self.ring
            .last()
            .is_some_and(|last| !self.broken && last.payload == publication.payload && (last.keep || !publication.keep))
    }

    /// Gives the publication its place behind the newest. Its payload is copied out of the batch that it came in,
    /// so that a ring does not hold whole batches in memory; the names are the entry's own for the same reason.
    fn chain(&mut self, id: RecordId, publication: Publication) -> Arc<Published> {
        Arc::new(Published {
            id,
            prev: self.newest.replace(id),
            pid: self.pid.clone(),
            tag: self.tag.clone(),
            keep: publication.keep,
            affair_id: publication.affair_id,
            payload: Bytes::copy_from_slice(&publication.payload),
            stamp: publication.stamp,
        })
    }

    /// A publication out of the store, copied for the same reasons.
    fn take_over(&self, published: &Published) -> Arc<Published> {
        Arc::new(Published {
            pid: self.pid.clone(),
            tag: self.tag.clone(),
            payload: Bytes::copy_from_slice(&published.payload),
            ..published.clone()
        })
    }

    fn start(&self, since: Option<&str>) -> FollowStart {
        if let Some(tail) = since.and_then(|since| self.tail(since.parse().ok()?)) {
            return FollowStart::Tail(tail);
        }
        match (self.ring.last(), since) {
            (Some(last), since) => FollowStart::Snapshot { last: last.clone(), gap: since.is_some() },
            (None, Some(_)) => FollowStart::Gap,
            (None, None) => FollowStart::Empty,
        }
    }

    /// What followed `since`, if that is certain.
    fn tail(&self, since: RecordId) -> Option<Vec<Arc<Published>>> {
        if self.broken {
            return None;
        }
        if self.newest == Some(since) {
            return Some(Vec::new());
        }
        self.ring.after(since)
    }
}

#[cfg(test)]
mod tests;
