//! Who waits for which records to be in the log.
//!
//! A record without an idempotency key is done when the log has it. One with a key is done when it was *heard*,
//! for only then is it certain whether it or an earlier one with the same key is the push.
//! Invariants: a ticket is answered exactly once, when each of its records has an outcome; what waits is bounded
//! by the log's own buffer (each waiting record is in it, or was put into the log less than `hearing_timeout` ago).

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use super::keys::{Key, Keys};
use crate::model::{RecordId, Refusal, Reply, Ticket};

type Outcome = Result<RecordId, Refusal>;

/// All submissions that wait.
#[derive(Debug, Default)]
pub(super) struct Submissions {
    open: HashMap<Ticket, Submission, ahash::RandomState>,
    /// Keyed records that are in the log and were not heard yet.
    unheard: HashMap<RecordId, (Ticket, u32), ahash::RandomState>,
    /// The same with the end of the wait, in order.
    unheard_until: VecDeque<(Instant, RecordId)>,
}

#[derive(Debug)]
struct Submission {
    places: Vec<Place>,
    missing: usize,
}

#[derive(Debug)]
enum Place {
    /// On its way into the log.
    Sent,
    /// On its way into the log or heard back from it, with a key.
    Keyed(Key),
    Done(Outcome),
}

/// An answer to a ticket, with the records that were accepted and refused.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ticket: Ticket,
    pub(super) reply: Reply,
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

/// What becomes of one submitted record.
#[derive(Debug)]
pub(super) enum Plan {
    /// It is appended.
    Append,
    /// It is appended, and its key decides.
    AppendKeyed(Key),
    /// It was pushed before, with this id.
    Repeated(RecordId),
}

impl Submissions {
    /// Opens a ticket with one plan a record; the answer if nothing is to be waited for.
    pub(super) fn open(&mut self, ticket: Ticket, plans: Vec<Plan>) -> Option<Answer> {
        let places: Vec<Place> = plans
            .into_iter()
            .map(|plan| match plan {
                Plan::Append => Place::Sent,
                Plan::AppendKeyed(key) => Place::Keyed(key),
                Plan::Repeated(id) => Place::Done(Ok(id)),
            })
            .collect();
        let missing = places.iter().filter(|place| !matches!(place, Place::Done(_))).count();
        self.open.insert(ticket, Submission { places, missing });
        self.answer_if_done(ticket)
    }

    /// The log took or refused a record.
    pub(super) fn appended(
        &mut self,
        (ticket, index): (Ticket, u32),
        outcome: Outcome,
        keys: &Keys,
        unheard_until: Instant,
    ) -> Option<Answer> {
        let place = self.open.get(&ticket)?.places.get(index as usize)?;
        let (Place::Keyed(key), Ok(id)) = (place, outcome) else {
            return self.settle(ticket, index, outcome);
        };
        if let Some(first) = keys.owner(key) {
            // Either it is this record and was heard before the acknowledgement came, or this one lies behind it
            // in the log and every node will pass it over.
            return self.settle(ticket, index, Ok(first));
        }
        self.unheard.insert(id, (ticket, index));
        self.unheard_until.push_back((unheard_until, id));
        None
    }

    /// A keyed record was heard; `first` owns its key.
    pub(super) fn heard(&mut self, id: RecordId, first: RecordId) -> Option<Answer> {
        let (ticket, index) = self.unheard.remove(&id)?;
        self.settle(ticket, index, Ok(first))
    }

    /// Gives up on keyed records that the log has and does not bring back.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some((until, id)) = self.unheard_until.front().copied()
            && (until <= now || !self.unheard.contains_key(&id))
        {
            self.unheard_until.pop_front();
            if let Some((ticket, index)) = self.unheard.remove(&id) {
                answers.extend(self.settle(ticket, index, Err(Refusal::Unknown)));
            }
        }
        answers
    }

    fn settle(&mut self, ticket: Ticket, index: u32, outcome: Outcome) -> Option<Answer> {
        let submission = self.open.get_mut(&ticket)?;
        let place = submission.places.get_mut(index as usize)?;
        if !matches!(place, Place::Done(_)) {
            *place = Place::Done(outcome);
            submission.missing -= 1;
        }
        self.answer_if_done(ticket)
    }

    fn answer_if_done(&mut self, ticket: Ticket) -> Option<Answer> {
        if self.open.get(&ticket)?.missing > 0 {
            return None;
        }
        let outcomes: Vec<Outcome> = self.open.remove(&ticket)?.places.into_iter().map(Place::outcome).collect();
        let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        let refused = outcomes.len() as u64 - accepted;
        Some(Answer { ticket, reply: Reply::Submitted(outcomes), accepted, refused })
    }
}

impl Place {
    fn outcome(self) -> Outcome {
        match self {
            Place::Done(outcome) => outcome,
            Place::Sent | Place::Keyed(_) => Err(Refusal::Unknown),
        }
    }
}
