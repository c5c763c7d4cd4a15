//! What the queue's answers mean.
//!
//! Invariant: a batch leaves the flight only when the queue has said what became of it, or surely never got it.

use std::{collections::HashMap, time::Instant};

use super::{Call, Publisher, Told, last_of};
use crate::{
    broker::{Appended, Batch, BrokerError, Kind, Opened, OriginLast, Position, log::pending::Waiting},
    limits::{LOG_RETRY_MAX, LOG_RETRY_MIN},
    model::RecordId,
};

impl Publisher {
    /// The answer to [`super::Step::Open`].
    pub fn opened(&mut self, opened: &Opened, now: Instant, told: &mut Told) {
        self.call = None;
        self.succeed(now);
        let is_new = opened.tail.epoch != self.epoch;
        told.epochs += u64::from(is_new && self.epoch != 0);
        self.seen = self.seen.max(opened.tail);
        (self.epoch, self.sealed) = (opened.tail.epoch, opened.sealed);
        self.is_open = self.epoch == self.seen.epoch;
        self.hold_until = (!opened.grace.is_zero()).then(|| now + opened.grace);
        let lacks_some = self.learn_lasts(&opened.origins);
        self.settle_flying(&opened.origins, now, told);
        // What is kept and already there is passed over quickly.
        self.window.rewind();
        if is_new {
            self.is_broken = false;
        } else if lacks_some {
            self.forked();
        }
        if last_of(&self.lasts, self.origin) >= self.next_seq {
            // The log holds a seq that was never given out: what was thought undone was done.
            self.take_new_origin();
        }
    }

    /// Notes what the log holds; whether it is less than was thought.
    fn learn_lasts(&mut self, origins: &[OriginLast]) -> bool {
        let lasts: HashMap<u64, u64> = origins.iter().map(|last| (last.origin, last.seq)).collect();
        let before = std::mem::replace(&mut self.lasts, lasts);
        self.my_origins().into_iter().any(|origin| last_of(&self.lasts, origin) < last_of(&before, origin))
    }

    /// An epoch was opened: what of the batch on its way?
    fn settle_flying(&mut self, origins: &[OriginLast], now: Instant, told: &mut Told) {
        let Some(flying) = &self.flying else { return };
        let last = origins.iter().find(|last| last.origin == flying.batch.origin);
        match (last, flying.heard) {
            (Some(last), _) if last.seq >= flying.batch.last_seq() => {
                let place = place_of(*last, flying.batch.last_seq());
                self.stored(place, now, told);
            }
            // It was in an epoch that is gone: it belongs to the window, and its turn comes with its place.
            (_, Some(place)) => self.stored(place, now, told),
            _ => {}
        }
    }

    /// The answer to [`super::Step::Append`].
    pub fn appended(&mut self, appended: Appended, now: Instant, told: &mut Told) {
        let Some(call) = self.call.take() else { return };
        self.succeed(now);
        match appended {
            Appended::Stored { position, kind } => self.took(call, position, kind, now, told),
            Appended::Have(last) => self.had(call, last, now, told),
            Appended::Wait(pause) => self.hold_until = Some(now + pause),
            Appended::Fenced | Appended::Gap => self.fence(now),
        }
    }

    fn fence(&mut self, now: Instant) {
        self.is_open = false;
        self.fences += 1;
        if self.fences > 2 {
            // Opened and fenced, again and again: something else is at work; do not join in.
            self.retry_at = Some(now + LOG_RETRY_MIN);
        }
    }

    fn took(&mut self, call: Call, position: Position, kind: Kind, now: Instant, told: &mut Told) {
        self.fences = 0;
        self.seen = self.seen.max(position);
        self.sealed |= kind == Kind::New;
        match call {
            Call::Open | Call::Seal => {}
            Call::Batch => self.stored(position, now, told),
            Call::Replay { origin, first_seq, last_seq } => {
                told.replayed += last_seq + 1 - first_seq;
                let late = (kind == Kind::ReplayedLate).then_some(position);
                self.replayed(origin, last_seq, late, now);
            }
        }
    }

    fn had(&mut self, call: Call, last: OriginLast, now: Instant, told: &mut Told) {
        match call {
            Call::Open | Call::Seal => {}
            Call::Batch => {
                let Some(flying) = &self.flying else { return };
                let place = place_of(last, flying.batch.last_seq());
                self.stored(place, now, told);
            }
            Call::Replay { origin, last_seq, .. } => self.replayed(origin, last_seq, None, now),
        }
    }

    fn replayed(&mut self, origin: u64, last_seq: u64, late: Option<Position>, now: Instant) {
        self.stored_at = Some(now);
        self.lasts.insert(origin, last_seq);
        self.window.replayed(origin, last_seq, late, now);
    }

    /// The batch on its way is in the log.
    fn stored(&mut self, place: Position, now: Instant, told: &mut Told) {
        let Some(flying) = self.flying.take() else { return };
        let Batch { origin, first_seq, .. } = *flying.batch;
        self.stored_at = Some(now);
        self.sealed |= place.epoch == self.epoch;
        let last = self.lasts.entry(origin).or_default();
        if place.epoch == self.epoch {
            *last = (*last).max(flying.batch.last_seq());
        }
        told.appended += flying.batch.bodies.len() as u64;
        let ids = (first_seq..).map(|seq| RecordId { origin, seq });
        let answers = flying.submitters.into_iter().zip(ids).skip(flying.told);
        told.outcomes.extend(answers.map(|((to, _), id)| (to, Ok(id))));
        self.window.keep(flying.batch, place, now, &self.settings);
    }

    /// A call failed.
    pub fn failed(&mut self, error: &BrokerError, now: Instant) {
        let call = self.call.take();
        let is_unknown = matches!(error, BrokerError::Unknown(_));
        if call == Some(Call::Batch) {
            match &mut self.flying {
                Some(flying) if is_unknown => flying.unknown = true,
                Some(flying) if !flying.unknown => self.unform_batch(),
                _ => {}
            }
        }
        self.failing_since.get_or_insert(now);
        self.retry_at = Some(now + self.retry);
        self.retry = (self.retry * 2).min(LOG_RETRY_MAX);
    }

    /// The batch never left: its records wait again, its seqs are free.
    fn unform_batch(&mut self) {
        let Some(flying) = self.flying.take() else { return };
        self.next_seq = flying.batch.first_seq;
        let waiting = flying.batch.bodies.iter().zip(flying.submitters).skip(flying.told);
        let waiting: Vec<_> = waiting.map(|(body, (to, since))| Waiting { body: body.clone(), to, since }).collect();
        self.pending.put_back(waiting.into_iter());
    }

    fn succeed(&mut self, now: Instant) {
        self.answered_at = Some(now);
        self.failing_since = None;
        self.retry_at = None;
        self.retry = LOG_RETRY_MIN;
    }
}

/// The place of the batch that ends with `last_seq`. Of an older one only the epoch is known.
fn place_of(last: OriginLast, last_seq: u64) -> Position {
    let offset = if last.seq == last_seq { last.position.offset } else { 0 };
    Position { epoch: last.position.epoch, offset }
}
