//! Who has something to be written, in the order in which they are visited.
//!
//! Small fan-outs go first, but the others are not left waiting for ever. Invariant: a session stands in each of the two queues at
//! most once; a slot can change hands while it waits there, and then the flags say whether the new one waits too.

use std::collections::VecDeque;

use slab::Slab;

use crate::prefetch::prefetch_neighbour;

use super::session::Session;

/// Fan-outs to at most so many connections go before larger ones; so does any that is so many times smaller than what waits.
const EXPRESS_FAN_OUT_MAX: usize = 64;
const EXPRESS_TIMES_SMALLER: usize = 8;
/// Visits to those that go before the others, until one of the others has its turn.
const EXPRESS_IN_A_ROW_MAX: usize = 7;

/// So many visits ahead the memory of a session is asked for, and nearer, because the session tells where, that of its queue and
/// socket.
const SESSION_AHEAD: usize = 5;
const NEAR_AHEAD: usize = 2;

/// The two queues of slots.
#[derive(Debug, Default)]
pub(super) struct Walk {
    express: VecDeque<u32>,
    bulk: VecDeque<u32>,
    /// How many have been taken out of either.
    express_taken: u64,
    bulk_taken: u64,
    /// How many the first of them had in a row, at last.
    express_in_a_row: usize,
}

/// A place in the walk over those who have something to be written.
#[derive(Clone, Copy, Debug)]
pub struct WalkMark {
    express: u64,
    bulk: u64,
}

impl Walk {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.express.is_empty() && self.bulk.is_empty()
    }

    /// A session is to be visited.
    pub fn mark(&mut self, slot: u32, session: &mut Session, express: bool) {
        let (flag, queue) = if express {
            (&mut session.dirty_express, &mut self.express)
        } else {
            (&mut session.dirty_bulk, &mut self.bulk)
        };
        if !std::mem::replace(flag, true) {
            queue.push_back(slot);
        }
    }

    /// Whether a fan-out to so many goes before what waits.
    pub fn is_express(&self, fan_out: usize) -> bool {
        fan_out <= EXPRESS_FAN_OUT_MAX || fan_out * EXPRESS_TIMES_SMALLER <= self.bulk.len()
    }

    /// Takes out the next that has something to be written: its slot and generation.
    pub fn next(&mut self, sessions: &mut Slab<Session>) -> Option<(u32, u32)> {
        loop {
            let (slot, express) = self.pop()?;
            let Some(session) = sessions.get_mut(slot as usize) else { continue };
            let flag = if express { &mut session.dirty_express } else { &mut session.dirty_bulk };
            if std::mem::take(flag) && session.has_waiting() {
                let generation = session.generation;
                if let Some(&far) = self.bulk.get(SESSION_AHEAD - 1) {
                    prefetch_neighbour(session, far as isize - slot as isize);
                }
                if let Some(session) = self.upcoming().and_then(|near| sessions.get(near as usize)) {
                    session.outbox.prefetch();
                }
                return Some((slot, generation));
            }
        }
    }

    /// Who of a large fan-out is visited soon, and what belongs to it should be there then.
    pub fn upcoming(&self) -> Option<u32> {
        self.bulk.get(NEAR_AHEAD - 1).copied()
    }

    fn pop(&mut self) -> Option<(u32, bool)> {
        let has_turn = self.express_in_a_row < EXPRESS_IN_A_ROW_MAX || self.bulk.is_empty();
        if has_turn && let Some(slot) = self.express.pop_front() {
            self.express_in_a_row += 1;
            self.express_taken += 1;
            return Some((slot, true));
        }
        self.express_in_a_row = 0;
        let slot = self.bulk.pop_front()?;
        self.bulk_taken += 1;
        Some((slot, false))
    }

    /// Names everything that waits now, for [`Walk::is_walked`].
    pub fn mark_here(&self) -> WalkMark {
        WalkMark {
            express: self.express_taken + self.express.len() as u64,
            bulk: self.bulk_taken + self.bulk.len() as u64,
        }
    }

    /// Whether all who waited at that time have been visited since.
    pub fn is_walked(&self, mark: WalkMark) -> bool {
        self.express_taken >= mark.express && self.bulk_taken >= mark.bulk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::session::NewSession,
        model::{Pid, Role},
    };

    #[test]
    fn sessions_stand_in_a_row_so_that_a_neighbour_is_asked_for_by_its_distance() {
        let mut sessions = Slab::new();
        for _ in 0..3 {
            let new = NewSession {
                pid: Pid::new("502").expect("a pid"),
                role: Role::User,
                uid: "u".into(),
                device: None,
                tag_patterns: None,
                expires: None,
                deflate: None,
            };
            sessions.insert(Session::new(new, 0, 0, 0));
        }
        let at = |slot: usize| std::ptr::from_ref::<Session>(&sessions[slot]).addr();
        assert_eq!([at(1) - at(0), at(2) - at(0)], [size_of::<Session>(), 2 * size_of::<Session>()]);
    }
}
