//! Users' requests that wait for an answer, on every node, so that every node knows who has the least pending.
//!
//! The asking user's own node holds a request from the moment it is submitted and is the only one that tells the
//! user anything; other nodes hold it from hearing to answer or deadline, silently.
//! Invariants: an entry is *open* iff its deadline is queued and it counts for its back-end; a user is told the
//! end of an open entry at most once; at most `pending_max` entries. A second request of one connection with the
//! same `affair_id` takes the place of the first: nobody could tell their answers apart.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use crate::model::{Boot, ClientId, NodeId, Pid};

/// Whom a request went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One back-end.
    One(ClientId),
    /// These back-ends of the project.
    All(Vec<ClientId>),
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pid: Pid,
    pub(super) asker: ClientId,
    pub(super) affair_id: Box<str>,
    pub(super) target: Target,
    pub(super) deadline: Instant,
}

/// What the asking user's own node knows besides.
#[derive(Debug)]
struct Own {
    ack_id: Option<Box<str>>,
    /// Appends whose outcome is still to come; an entry stays that long, to know what its user was told.
    appends: u32,
    told: bool,
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    own: Option<Own>,
    open: bool,
}

/// An own request that ended without an answer: what its user is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) asker: ClientId,
    pub(super) affair_id: Box<str>,
    pub(super) ack_id: Option<Box<str>>,
}

/// All requests that wait.
#[derive(Debug)]
pub(super) struct Requests {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_asker: HashMap<ClientId, HashMap<Box<str>, u32>, ahash::RandomState>,
    deadlines: BTreeSet<(Instant, u32)>,
    load: HashMap<ClientId, u32, ahash::RandomState>,
    pending_max: usize,
}

impl Requests {
    pub(super) fn new(pending_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            by_asker: HashMap::default(),
            deadlines: BTreeSet::new(),
            load: HashMap::default(),
            pending_max,
        }
    }

    pub(super) fn resize(&mut self, pending_max: usize) {
        self.pending_max = pending_max;
    }

    /// Whether no further request can be held.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() - self.free.len() >= self.pending_max
    }

    /// How many requests wait for a back-end.
    pub(super) fn load(&self, backend: ClientId) -> u32 {
        self.load.get(&backend).copied().unwrap_or(0)
    }

    /// A user of this node asks.
    pub(super) fn submit(&mut self, waiting: Waiting, ack_id: Option<Box<str>>) {
        let before = self.find(waiting.asker, &waiting.affair_id).and_then(|slot| self.remove(slot));
        let appends = before.and_then(|entry| entry.own).map_or(0, |own| own.appends) + 1;
        self.insert(waiting, Some(Own { ack_id, appends, told: false }));
    }

    /// Another node's user asks, and one back-end is to answer.
    pub(super) fn heard(&mut self, waiting: Waiting) {
        if let Some(slot) = self.find(waiting.asker, &waiting.affair_id) {
            self.remove(slot);
        }
        self.insert(waiting, None);
    }

    /// The log took or refused an own request; whether its user is to be told.
    pub(super) fn appended(&mut self, asker: ClientId, affair_id: &str, taken: bool) -> bool {
        let Some(slot) = self.find(asker, affair_id) else { return false };
        let Some(entry) = self.entries[slot as usize].as_mut() else { return false };
        let Some(own) = entry.own.as_mut() else { return false };
        own.appends = own.appends.saturating_sub(1);
        let tell = !own.told;
        let last = own.appends == 0;
        if last && !taken {
            self.close(slot);
        }
        self.remove_if_over(slot);
        tell
    }

    /// Whom an own request, still open, went to.
    pub(super) fn target_mut(&mut self, asker: ClientId, affair_id: &str) -> Option<&mut Target> {
        let slot = self.find(asker, affair_id)?;
        let entry = self.entries[slot as usize].as_mut()?;
        (entry.open && entry.own.is_some()).then_some(&mut entry.waiting.target)
    }

    /// An answer was heard; whether it ended an own request.
    pub(super) fn answered(&mut self, pid: &Pid, asker: ClientId, affair_id: &str) -> bool {
        let Some(slot) = self.find(asker, affair_id) else { return false };
        let Some(entry) = &self.entries[slot as usize] else { return false };
        let ends = entry.open && entry.waiting.pid == *pid;
        let own = ends && entry.own.is_some();
        if ends {
            self.close(slot);
            self.remove_if_over(slot);
        }
        own
    }

    /// Ends what has waited long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        while let Some((deadline, slot)) = self.deadlines.first().copied()
            && deadline <= now
        {
            notices.extend(self.fail_slot(slot));
        }
        notices
    }

    /// Ends what waited for a back-end that is gone, and for no other.
    pub(super) fn backend_lost(&mut self, backend: ClientId) -> Vec<Notice> {
        let mut ended = Vec::new();
        for (slot, entry) in (0..).zip(&mut self.entries) {
            let Some(Entry { waiting, open: true, .. }) = entry else { continue };
            let over = match &mut waiting.target {
                Target::One(one) => *one == backend,
                Target::All(all) => {
                    let before = all.len();
                    all.retain(|cid| *cid != backend);
                    before > 0 && all.is_empty()
                }
            };
            if over {
                ended.push(slot);
            }
        }
        ended.into_iter().filter_map(|slot| self.fail_slot(slot)).collect()
    }

    /// Drops what a connection waits for that is gone.
    pub(super) fn asker_gone(&mut self, asker: ClientId) {
        let slots: Vec<u32> = self.by_asker.get(&asker).into_iter().flat_map(HashMap::values).copied().collect();
        for slot in slots {
            self.remove(slot);
        }
    }

    /// Drops what the connections of a boot of a node wait for.
    pub(super) fn node_gone(&mut self, node: NodeId, boot: Boot) {
        let mut askers: Vec<ClientId> = self.by_asker.keys().copied().collect();
        askers.retain(|asker| asker.node == node && asker.boot == boot);
        askers.into_iter().for_each(|asker| self.asker_gone(asker));
    }

    fn find(&self, asker: ClientId, affair_id: &str) -> Option<u32> {
        self.by_asker.get(&asker)?.get(affair_id).copied()
    }

    fn insert(&mut self, waiting: Waiting, own: Option<Own>) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_asker.entry(waiting.asker).or_default().insert(waiting.affair_id.clone(), slot);
        self.deadlines.insert((waiting.deadline, slot));
        if let Target::One(backend) = waiting.target {
            *self.load.entry(backend).or_default() += 1;
        }
        self.entries[slot as usize] = Some(Entry { waiting, own, open: true });
    }

    fn fail_slot(&mut self, slot: u32) -> Option<Notice> {
        self.entries[slot as usize].as_ref().filter(|entry| entry.open)?;
        self.close(slot);
        let entry = self.entries[slot as usize].as_mut()?;
        let notice = entry.own.as_mut().map(|own| {
            own.told = true;
            let Waiting { asker, affair_id, .. } = &entry.waiting;
            Notice { asker: *asker, affair_id: affair_id.clone(), ack_id: own.ack_id.clone() }
        });
        self.remove_if_over(slot);
        notice
    }

    fn close(&mut self, slot: u32) {
        let Some(Entry { waiting, open, .. }) = &mut self.entries[slot as usize] else { return };
        if !std::mem::take(open) {
            return;
        }
        self.deadlines.remove(&(waiting.deadline, slot));
        if let Target::One(backend) = waiting.target
            && let Some(load) = self.load.get_mut(&backend)
        {
            *load -= 1;
            if *load == 0 {
                self.load.remove(&backend);
            }
        }
    }

    fn remove_if_over(&mut self, slot: u32) {
        let over = |entry: &Entry| !entry.open && entry.own.as_ref().is_none_or(|own| own.appends == 0);
        if self.entries[slot as usize].as_ref().is_some_and(over) {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) -> Option<Entry> {
        self.close(slot);
        let entry = self.entries[slot as usize].take()?;
        self.free.push(slot);
        if let Some(affairs) = self.by_asker.get_mut(&entry.waiting.asker) {
            affairs.remove(&entry.waiting.affair_id);
            if affairs.is_empty() {
                self.by_asker.remove(&entry.waiting.asker);
            }
        }
        Some(entry)
    }
}
