//! A tag's last publications.
//!
//! Invariants: each publication's `prev` is the one before it; `trim` and the like never take the last one.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::model::{Published, RecordId, tag_rule::History};

/// What a remembered publication costs besides its payload and affair id: the value, its count and its place.
const OVERHEAD_BYTES: usize = size_of::<Published>() + size_of::<Kept>() + 16;

/// The publications that are kept, oldest first, with what they cost.
#[derive(Debug, Default)]
pub(super) struct Ring {
    kept: VecDeque<Kept>,
    payload_bytes: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    heard_at: Instant,
    published: Arc<Published>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let affair_id = self.published.affair_id.as_ref().map_or(0, |affair_id| affair_id.len());
        OVERHEAD_BYTES + self.published.payload.len() + affair_id
    }
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What all publications cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn last(&self) -> Option<&Arc<Published>> {
        self.kept.back().map(|kept| &kept.published)
    }

    /// The last one and when it was heard.
    pub(super) fn newest(&self) -> Option<(&Arc<Published>, Instant)> {
        self.kept.back().map(|kept| (&kept.published, kept.heard_at))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.kept.iter().map(|kept| &kept.published)
    }

    /// What followed `since`, oldest first, if the ring reaches back so far.
    pub(super) fn after(&self, since: RecordId) -> Option<Vec<Arc<Published>>> {
        let first = match self.kept.iter().rposition(|kept| kept.published.id == since) {
            Some(position) => position + 1,
            None if self.kept.front()?.published.prev == Some(since) => 0,
            None => return None,
        };
        Some(self.iter().skip(first).cloned().collect())
    }

    /// Puts a publication last, alone if it does not follow on what was last; gives what the ring grew by.
    pub(super) fn push(&mut self, published: Arc<Published>, heard_at: Instant) -> usize {
        let kept = Kept { heard_at, published };
        let grown = kept.bytes();
        self.payload_bytes += kept.published.payload.len();
        self.bytes += grown;
        self.kept.push_back(kept);
        grown
    }

    /// Drops what is beyond a bound of the rule; gives the bytes that were freed.
    pub(super) fn trim(&mut self, history: &History, now: Instant) -> usize {
        self.pop_while(|ring| {
            ring.kept.len() > history.count_max
                || ring.payload_bytes > history.bytes_max
                || ring.front_age_exceeds(history, now)
        })
    }

    /// Drops all but the last; gives the bytes that were freed.
    pub(super) fn keep_last(&mut self) -> usize {
        let freed = self.pop_while(|_| true);
        if freed > 0 {
            self.kept.shrink_to_fit();
        }
        freed
    }

    /// Drops the oldest if it is not the last; gives the bytes that were freed.
    pub(super) fn pop_past(&mut self) -> usize {
        let mut once = true;
        self.pop_while(|_| std::mem::take(&mut once))
    }

    /// Drops everything; gives the bytes that were freed.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    fn front_age_exceeds(&self, history: &History, now: Instant) -> bool {
        self.kept.front().is_some_and(|kept| now.saturating_duration_since(kept.heard_at) > history.age_max)
    }

    fn pop_while(&mut self, mut over: impl FnMut(&Self) -> bool) -> usize {
        let before = self.bytes;
        while self.kept.len() > 1
            && over(self)
            && let Some(kept) = self.kept.pop_front()
        {
            self.bytes -= kept.bytes();
            self.payload_bytes -= kept.published.payload.len();
        }
        before - self.bytes
    }
}
