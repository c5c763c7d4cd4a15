//! Which last values the queue's store may lack, on the node that writes them there.
//!
//! Publishing notes a slot; a round gives out what was noted before it began, so that a tag which changes all the time
//! is written once a round. Beside that a walk through the whole table goes on as far as there is room: after the
//! node took the task over, or when the store may have lost something.
//!
//! Invariants: a slot waits once however often it changes; what was given out and not written waits again; no step
//! takes long. Left out: when a round begins ([`super::super::keeper`]).

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{TagTable, entry};
use crate::{
    limits::{RETAIN_BYTES_MAX, RETAIN_VALUES_MAX},
    model::Published,
};

/// Slots that one call looks at, so that an empty stretch of the table costs little.
const STEP_SLOTS: usize = 4096;

/// A value that is to be written.
#[derive(Debug)]
pub(in crate::exchange) struct Unwritten {
    pub(in crate::exchange) published: Arc<Published>,
    pub(in crate::exchange) heard_at: Instant,
    pub(in crate::exchange) is_broken: bool,
}

/// Slots by number; a slot's tag may be another by the time its turn comes, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// Those that changed, the longest-waiting first.
    changed: VecDeque<u32>,
    is_waiting: Vec<bool>,
    /// How many of them belong to the round under way.
    round: usize,
    /// Where the walk through everything goes on.
    walk: Option<u32>,
    /// What was given out last, until it is known to be written.
    given: Vec<u32>,
}

impl Unsaved {
    pub(super) fn changed(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.is_waiting.len() {
            self.is_waiting.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_waiting[at], true) {
            self.changed.push_back(slot);
        }
    }

    /// The next slot to look at, of a table with `slots`. Every fourth is the walk's, should the rounds never end.
    fn next(&mut self, nth: usize, slots: usize) -> Option<u32> {
        match nth % 4 {
            3 => self.next_of_walk(slots).or_else(|| self.next_of_round()),
            _ => self.next_of_round().or_else(|| self.next_of_walk(slots)),
        }
    }

    fn next_of_round(&mut self) -> Option<u32> {
        self.round = self.round.checked_sub(1)?;
        self.changed.pop_front()
    }

    /// What waits in the rounds' queue anyway is passed over.
    fn next_of_walk(&mut self, slots: usize) -> Option<u32> {
        let first = self.walk?;
        let end = u32::try_from(slots).unwrap_or(u32::MAX).min(first.saturating_add(STEP_SLOTS as u32));
        let is_free = |slot: &u32| !self.is_waiting.get(*slot as usize).is_some_and(|is_waiting| *is_waiting);
        let found = (first..end).find(is_free);
        let next = found.map_or(end, |found| found + 1);
        self.walk = ((next as usize) < slots).then_some(next);
        found
    }

    /// What was given out waits no more.
    fn done(&mut self) {
        for slot in &self.given {
            if let Some(is_waiting) = self.is_waiting.get_mut(*slot as usize) {
                *is_waiting = false;
            }
        }
    }
}

impl TagTable {
    /// Whether last values are to be written by this node. When it begins, all of them.
    pub(in crate::exchange) fn set_saving(&mut self, is_saving: bool) {
        self.unsaved = is_saving.then(Unsaved::default);
        self.save_all();
    }

    /// The store may lack anything: all is to be written.
    pub(in crate::exchange) fn save_all(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.walk = Some(0);
        }
    }

    /// Whether everything of the last round was given out.
    pub(in crate::exchange) fn round_is_over(&self) -> bool {
        self.unsaved.as_ref().is_none_or(|unsaved| unsaved.round == 0)
    }

    /// A round begins with what has changed by now.
    pub(in crate::exchange) fn begin_round(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.round = unsaved.changed.len();
        }
    }

    /// What is to be written now: some values, or none.
    pub(in crate::exchange) fn next_unsaved(&mut self) -> Vec<Unwritten> {
        let (mut values, mut bytes) = (Vec::new(), 0);
        let Some(unsaved) = &mut self.unsaved else { return values };
        unsaved.given.clear();
        for nth in 0..STEP_SLOTS {
            if values.len() >= RETAIN_VALUES_MAX || bytes >= RETAIN_BYTES_MAX {
                break;
            }
            let Some(slot) = unsaved.next(nth, self.entries.len()) else { break };
            unsaved.given.push(slot);
            let Some(entry) = entry(&mut self.entries, slot) else { continue };
            let Some((published, heard_at)) = entry.ring.newest() else { continue };
            bytes += published.payload.len();
            values.push(Unwritten { published: published.clone(), heard_at, is_broken: entry.broken });
        }
        unsaved.done();
        values
    }

    /// What was given out last has not been written, or nobody knows.
    pub(in crate::exchange) fn unsaved_again(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            for slot in std::mem::take(&mut unsaved.given) {
                unsaved.changed(slot);
            }
        }
    }
}
