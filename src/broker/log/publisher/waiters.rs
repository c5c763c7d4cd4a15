//! Those who wait for an outcome: how long, and what they are told when there is none.
//!
//! Invariant: everybody is told exactly once.

use std::time::Instant;

use super::{Call, Flying, Publisher, Told, earliest};
use crate::model::{AckTo, Refusal};

impl Publisher {
    /// Answers those who have waited too long, and lets the window go of what is old.
    pub fn expire(&mut self, now: Instant, told: &mut Told) {
        let timeout = self.settings.pending_timeout;
        let is_over = |since: Instant| now.saturating_duration_since(since) >= timeout;
        if let Some(flying) = &mut self.flying {
            while let Some((to, _)) = flying.submitters.get(flying.told).filter(|(_, since)| is_over(*since)) {
                told.refuse(to.clone(), Refusal::Unknown);
                flying.told += 1;
            }
        }
        while self.pending.oldest().is_some_and(is_over) {
            let waiting = self.pending.pop().map(|waiting| waiting.to);
            waiting.into_iter().for_each(|to| told.refuse(to, Refusal::QueueUnavailable));
        }
        self.window.expire(now, &self.settings);
    }

    /// When [`Publisher::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let flying = self.flying.as_ref().and_then(|flying| flying.submitters.get(flying.told));
        let oldest = earliest(flying.map(|(_, since)| *since), self.pending.oldest());
        oldest.map(|since| since + self.settings.pending_timeout)
    }

    /// The node has lost its id: everybody who waits is refused, and nothing is appended until [`Publisher::resume`].
    pub fn suspend(&mut self, told: &mut Told) {
        self.suspended = true;
        if let Some(flying) = self.flying.take() {
            let may_be_stored = flying.unknown || self.call == Some(Call::Batch);
            let refusal = if may_be_stored { Refusal::Unknown } else { Refusal::Stopping };
            flying.submitters.into_iter().skip(flying.told).for_each(|(to, _)| told.refuse(to, refusal));
        }
        while let Some(waiting) = self.pending.pop() {
            told.refuse(waiting.to, Refusal::Stopping);
        }
    }

    /// The node holds its id again: a new origin, because others may have taken it for gone.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.suspended) {
            self.is_open = false;
            self.take_new_origin();
        }
    }

    /// Takes nothing new; what waits is still appended.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nobody waits for an outcome.
    pub fn is_settled(&self) -> bool {
        let all_told = |flying: &Flying| flying.told == flying.submitters.len();
        self.pending.is_empty() && self.flying.as_ref().is_none_or(all_told)
    }
}

impl Told {
    fn refuse(&mut self, to: AckTo, refusal: Refusal) {
        self.refused += 1;
        self.outcomes.push((to, Err(refusal)));
    }
}
