//! Last values in the queue's store: which node writes them, when, and what a starting node takes from there.
//!
//! The living node with the lowest id is the *keeper*. It writes what has changed, each tag once an interval, and when
//! it becomes the keeper, after a loss or a new epoch of the queue, everything it knows.
//!
//! Every batch carries the keeper's *term*, and the store refuses a lower one than it has seen. Who is refused and still
//! is the keeper begins a higher term and writes everything anew. So a node that took itself for the keeper, or was one
//! and lags, leaves nothing old behind: whoever is the keeper looks once an interval, with or without something to
//! write, finds the other's term, and repairs.
//!
//! Invariants: one batch is on its way at a time; a batch that was not written is written again; a node that is not
//! the keeper notes nothing. Left out: what has changed ([`super::tags`]), and how it is stored (the broker's).

use std::time::{Duration, Instant};

use super::{Effect, Exchange, Now};
use crate::{
    limits::RETAIN_INTERVAL,
    metrics::Count,
    model::{LastValue, NodeId, RetainOutcome},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    /// There is a store that is worth it.
    retains: bool,
    /// The log's past has been heard: before that, what this node knows may be older than what the store has.
    is_warm: bool,
    /// This node writes.
    keeps: bool,
    node: NodeId,
    /// A number and the node, so that no two nodes have the same.
    term: u64,
    /// A batch is on its way.
    is_writing: bool,
    next_round_at: Option<Instant>,
    /// After a failure: nothing before this.
    pause_until: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(node: NodeId, retains: bool) -> Self {
        Self {
            retains,
            is_warm: false,
            keeps: false,
            node,
            term: 0,
            is_writing: false,
            next_round_at: None,
            pause_until: None,
        }
    }

    pub(super) fn warmed(&mut self) {
        self.is_warm = true;
    }

    fn round_is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_round_at.is_none_or(|at| at <= now);
        if is_due {
            self.next_round_at = Some(now + RETAIN_INTERVAL);
        }
        is_due
    }

    /// Begins a term above `seen`.
    fn begin_term(&mut self, seen: u64) {
        let number = (self.term.max(seen) >> NodeId::BITS) + 1;
        self.term = number << NodeId::BITS | u64::from(self.node);
    }
}

impl Exchange {
    /// Takes in what the store had of a tag.
    pub(super) fn load(&mut self, value: LastValue, now: Now) {
        // A clock that ran ahead when it was written makes it no older than now.
        let age = Duration::from_millis(now.unix_ms.saturating_sub(value.at_unix_ms));
        let value = LastValue { at_unix_ms: value.at_unix_ms.min(now.unix_ms), ..value };
        if self.tags.load(value, now.mono.checked_sub(age).unwrap_or(now.mono)) {
            self.counters.inc(Count::RetainedLoaded);
        }
    }

    /// Writes what is to be written, if this node is the keeper.
    pub(super) fn keep_values(&mut self, now: Now, out: &mut Vec<Effect>) {
        let keeper = &mut self.keeper;
        let is_wanted = keeper.retains && self.rules.limits.retained_bytes_max > 0;
        let keeps = is_wanted && keeper.is_warm && self.peers.is_lowest();
        if std::mem::replace(&mut keeper.keeps, keeps) != keeps {
            tracing::info!(keeps, "whether this node is the keeper of tags' last values");
            keeper.begin_term(0);
            self.tags.set_saving(keeps);
        }
        if !keeps || keeper.is_writing || keeper.pause_until.is_some_and(|until| now.mono < until) {
            return;
        }
        let begins = self.tags.round_is_over() && keeper.round_is_due(now.mono);
        if begins {
            self.tags.begin_round();
        }
        let values = self.tags.next_unsaved();
        if values.is_empty() && !begins {
            return;
        }
        keeper.is_writing = true;
        let unix_ms = |heard_at: Instant| {
            let age = now.mono.saturating_duration_since(heard_at);
            now.unix_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        };
        let values = values.into_iter().map(|value| LastValue {
            at_unix_ms: unix_ms(value.heard_at),
            published: value.published,
            is_broken: value.is_broken,
        });
        out.push(Effect::Retain { term: keeper.term, values: values.collect() });
    }

    /// The store has answered.
    pub(super) fn retained(&mut self, outcome: RetainOutcome, now: Instant) {
        let keeper = &mut self.keeper;
        keeper.is_writing = false;
        match outcome {
            RetainOutcome::Written => {}
            RetainOutcome::Emptied => self.tags.save_all(),
            RetainOutcome::Superseded(term) => {
                // The other may write for a moment yet; no race of terms meanwhile.
                keeper.pause_until = Some(now + RETAIN_INTERVAL);
                keeper.begin_term(term);
                self.tags.set_saving(keeper.keeps);
            }
            RetainOutcome::Failed => {
                keeper.pause_until = Some(now + RETAIN_INTERVAL);
                self.tags.unsaved_again();
            }
        }
    }
}
