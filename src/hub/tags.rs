//! The tags that this core has subscribers for: who follows them at which rate, and what those are owed who do not
//! get every publication.
//!
//! Invariants: a subscription that is live or behind stands in exactly one list of its tag, at its `place`; a
//! publication visits the live ones only, so that who is behind costs nothing; what is remembered for them is the
//! tag's (its newest and its kept publications), not theirs.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use slab::Slab;
use smallvec::{SmallVec, smallvec};

use crate::model::{Published, SessionId, Tag, TagRule, tag_rule::DeliveryClass};

use super::{
    encoded::Encoded,
    session::{Membership, Millis, Notes, Standing},
    slot_number,
};

/// Values that may wait for one connection; with more it is behind.
pub(super) const VALUES_AHEAD_MAX: usize = 64;

/// What a kept publication costs besides its payload: itself, its place, the counts of both, and what an allocator adds.
const KEPT_OVERHEAD_BYTES: usize = size_of::<Published>() + size_of::<(u32, Arc<Published>)>() + 64;

/// A subscription, as its tag knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    /// The session's slot.
    pub slot: u32,
    /// The subscription's index among the session's.
    pub membership: u32,
}

/// Subscribers of a tag that get it at the same rate, and together.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Between two updates; 0: every publication.
    pub interval_ms: u16,
    /// The next update comes no earlier.
    pub due: Millis,
    /// An update waits for that time.
    pub armed: bool,
    /// Subscriptions that belong to it, whatever they are doing.
    pub members: u32,
    /// The live ones.
    pub live: Vec<Subscriber>,
}

/// Kept publications that somebody may still be owed, with their numbers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    items: VecDeque<(u32, Arc<Published>)>,
    bytes: usize,
    /// The newest one that was given up while somebody was owed it.
    lost: Option<u32>,
}

/// A tag that somebody on this core follows or is about to.
#[derive(Debug)]
pub(super) struct LocalTag {
    pub project: u32,
    pub name: Tag,
    pub class: DeliveryClass,
    /// The rule's rate; 0: every publication.
    pub hz_max: u32,
    /// The rule's word on compression.
    pub deflate: bool,
    /// Counts the publications heard here; wraps.
    pub number: u32,
    /// The newest publication, while some subscription may get it later.
    pub newest: Option<Arc<Published>>,
    pub kept: Kept,
    /// By rate; the first is for every publication.
    pub streams: SmallVec<[Stream; 1]>,
    pub behind: Vec<Subscriber>,
    /// Questions to the exchange that are open.
    pub pending: u32,
    /// Sessions whose subscription ended before its answer came: that one, the next, is for nobody. Bounded by `pending`.
    pub void: Vec<SessionId>,
    /// The last value encoded for somebody who did not get every publication: its number, what it stands for.
    pub encoded: Option<(u32, u32, Encoded)>,
}

/// The tags of this core.
#[derive(Debug, Default)]
pub(super) struct Tags {
    tags: Slab<LocalTag>,
    by_name: HashMap<u32, HashMap<Tag, u32, ahash::RandomState>, ahash::RandomState>,
}

impl Tags {
    pub fn find(&self, project: u32, tag: &str) -> Option<u32> {
        self.by_name.get(&project)?.get(tag).copied()
    }

    pub fn get(&self, tag: u32) -> &LocalTag {
        &self.tags[tag as usize]
    }

    pub fn get_mut(&mut self, tag: u32) -> &mut LocalTag {
        &mut self.tags[tag as usize]
    }

    /// The tag, if it is still there.
    pub fn if_there(&mut self, tag: u32) -> Option<&mut LocalTag> {
        self.tags.get_mut(tag as usize)
    }

    /// Every tag's slot.
    pub fn slots(&self) -> Vec<u32> {
        self.tags.iter().map(|(slot, _)| slot_number(slot)).collect()
    }

    pub fn intern(&mut self, project: u32, name: &Tag, rule: &TagRule) -> u32 {
        if let Some(tag) = self.find(project, name) {
            return tag;
        }
        let local = LocalTag {
            project,
            name: name.clone(),
            class: rule.class,
            hz_max: rule.hz_max,
            deflate: rule.deflate,
            number: 0,
            newest: None,
            kept: Kept::default(),
            streams: smallvec![Stream::default()],
            behind: Vec::new(),
            pending: 0,
            void: Vec::new(),
            encoded: None,
        };
        let tag = slot_number(self.tags.insert(local));
        self.by_name.entry(project).or_default().insert(name.clone(), tag);
        tag
    }

    /// Forgets a tag that nobody follows; it, if so.
    pub fn drop_unused(&mut self, tag: u32) -> Option<LocalTag> {
        if self.tags[tag as usize].is_used() {
            return None;
        }
        let local = self.tags.remove(tag as usize);
        if let Some(names) = self.by_name.get_mut(&local.project) {
            names.remove(&local.name);
        }
        Some(local)
    }
}

impl LocalTag {
    /// Counts an answer of the exchange; whether the subscription that asked for it still waits.
    pub fn answered(&mut self, id: SessionId) -> bool {
        self.pending = self.pending.saturating_sub(1);
        let void = self.void.iter().position(|other| *other == id);
        void.map(|place| self.void.swap_remove(place)).is_none()
    }

    fn is_used(&self) -> bool {
        self.pending > 0 || !self.behind.is_empty() || self.streams.iter().any(|stream| !stream.live.is_empty())
    }

    /// Everybody whom a push to the tag's audience means.
    pub fn subscribers(&self) -> impl Iterator<Item = Subscriber> {
        self.streams.iter().flat_map(|stream| &stream.live).chain(&self.behind).copied()
    }

    /// The list that a subscription stands in.
    pub fn list_of(&mut self, standing: Standing, stream: u16) -> &mut Vec<Subscriber> {
        match standing {
            Standing::Behind => &mut self.behind,
            Standing::Live | Standing::Asking => &mut self.streams[usize::from(stream)].live,
        }
    }

    /// Whether publications may be merged away for the members of a stream.
    pub fn conflates(&self, stream: u16) -> bool {
        self.class == DeliveryClass::Latest || stream > 0
    }

    pub fn has_rates(&self) -> bool {
        self.streams[1..].iter().any(|stream| stream.members > 0)
    }

    /// Counts a publication in, and remembers it as far as somebody may get it later; the bytes that the kept ones
    /// grew and shrank by. `queued` is the number of the last one that outboxes may know: those of one delivery are queued
    /// when all of them are remembered.
    pub fn remember(&mut self, published: &Arc<Published>, queued: u32, kept_bytes_max: usize) -> (usize, usize) {
        self.number = self.number.wrapping_add(1);
        if self.class == DeliveryClass::Lossless && self.behind.is_empty() && !self.has_rates() {
            (self.newest, self.encoded) = (None, None);
            return (0, self.kept.clear());
        }
        let is_owed = !self.behind.is_empty() || self.streams.iter().any(|stream| stream.armed);
        self.newest = Some(published.clone());
        let grown = if published.keep { self.kept.push(self.number, published) } else { 0 };
        let shrunk = if is_owed { self.kept.hold_to(kept_bytes_max) } else { self.kept.forget_queued_long_ago(queued) };
        (grown, shrunk)
    }

    /// The stream of a rate: the rule's or what was asked for, whichever is slower. It counts one member more.
    pub fn join_stream(&mut self, asked_ms: u16) -> u16 {
        let interval_ms = interval_ms(self.hz_max).max(asked_ms);
        let stream = self.stream_at(interval_ms);
        self.streams[stream].members += 1;
        u16::try_from(stream).unwrap_or(0)
    }

    fn stream_at(&mut self, interval_ms: u16) -> usize {
        if interval_ms == 0 {
            return 0;
        }
        let known = self.streams.iter().position(|stream| stream.interval_ms == interval_ms);
        let fresh = Stream { interval_ms, ..Stream::default() };
        if let Some(stream) = known {
            return stream;
        }
        // There are at most as many intervals as milliseconds in a second.
        match self.streams[1..].iter().position(|stream| stream.members == 0) {
            Some(free) => {
                self.streams[free + 1] = fresh;
                free + 1
            }
            None => {
                self.streams.push(fresh);
                self.streams.len() - 1
            }
        }
    }
}

/// The time between updates of a rate, in milliseconds; 0: every publication.
pub(super) fn interval_ms(hz_max: u32) -> u16 {
    match hz_max {
        0 | 1000.. => 0,
        _ => u16::try_from(1000_u32.div_ceil(hz_max)).unwrap_or(1000),
    }
}

impl Kept {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first one behind a number.
    pub fn after(&self, seen: u32) -> Option<(u32, &Arc<Published>)> {
        let next = self.items.partition_point(|(number, _)| !is_after(*number, seen));
        self.items.get(next).map(|(number, published)| (*number, published))
    }

    /// Whether one was given up that somebody who has `seen` no later one is owed.
    pub fn has_lost_after(&self, seen: u32) -> bool {
        self.lost.is_some_and(|lost| is_after(lost, seen))
    }

    fn push(&mut self, number: u32, published: &Arc<Published>) -> usize {
        self.items.push_back((number, published.clone()));
        let grown = KEPT_OVERHEAD_BYTES + published.payload.len();
        self.bytes += grown;
        grown
    }

    fn pop(&mut self) -> usize {
        let Some((_, published)) = self.items.pop_front() else { return 0 };
        let freed = KEPT_OVERHEAD_BYTES + published.payload.len();
        self.bytes -= freed;
        freed
    }

    /// Gives up the oldest over a bound of bytes.
    fn hold_to(&mut self, bytes_max: usize) -> usize {
        let mut freed = 0;
        while self.bytes > bytes_max
            && let Some(&(number, _)) = self.items.front()
        {
            self.lost = Some(number);
            freed += self.pop();
        }
        freed
    }

    /// While nobody is behind, only what may still wait in an outbox can come to be owed again.
    fn forget_queued_long_ago(&mut self, queued: u32) -> usize {
        let horizon = queued.wrapping_sub(slot_number(VALUES_AHEAD_MAX));
        let mut freed = 0;
        while self.items.front().is_some_and(|(number, _)| !is_after(*number, horizon)) {
            freed += self.pop();
        }
        self.lost = self.lost.filter(|lost| is_after(*lost, horizon));
        freed
    }

    fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }
}

/// Whether a number, which may have wrapped, comes behind another.
pub(super) fn is_after(number: u32, other: u32) -> bool {
    number != other && number.wrapping_sub(other) < 1 << 31
}

impl Membership {
    /// One that waits for the exchange's answer.
    pub fn asking(tag: u32, stream: u16, asked_ms: u16) -> Self {
        Self {
            tag,
            place: 0,
            seen: 0,
            stream,
            asked_ms,
            standing: Standing::Asking,
            gap_at: u32::MAX,
            questions: 1,
            notes: Notes::default(),
        }
    }
}
