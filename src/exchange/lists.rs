//! When which part of the online list goes to a project's back-ends.
//!
//! Invariants: a project is queued at most once; a round goes through its users in order, some parts at a time, so
//! that a large node does not stop for its list.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::presence::{Member, Presence};
use crate::{
    limits::{ONLINE_CLIENTS_MAX, ONLINE_INTERVAL},
    model::Pid,
};

/// Which lists are to be sent.
#[derive(Debug, Default)]
pub(super) struct Lists {
    queued: BTreeSet<Pid>,
    under_way: Option<(Pid, Arc<Member>)>,
    next_round_at: Option<Instant>,
}

impl Lists {
    /// Sends the project's list as soon as can be.
    pub(super) fn queue(&mut self, pid: &Pid) {
        self.queued.insert(pid.clone());
    }

    /// Whether it is time for a round of all projects.
    pub(super) fn round_is_due(&mut self, now: Instant) -> bool {
        let due = self.next_round_at.is_none_or(|at| at <= now);
        if due {
            self.next_round_at = Some(now + ONLINE_INTERVAL);
        }
        due
    }

    /// The next part, never empty.
    pub(super) fn next_part<'a>(&mut self, presence: &'a Presence) -> Option<(Pid, Vec<&'a Arc<Member>>)> {
        loop {
            let (pid, after) = match self.under_way.take() {
                Some((pid, last)) => (pid, Some(last)),
                None => (self.queued.pop_first()?, None),
            };
            let part: Vec<_> = presence.users_after(&pid, after.as_ref()).take(ONLINE_CLIENTS_MAX).collect();
            let Some(last) = part.last() else { continue };
            if part.len() == ONLINE_CLIENTS_MAX {
                self.under_way = Some((pid.clone(), Arc::clone(last)));
            }
            return Some((pid, part));
        }
    }
}
