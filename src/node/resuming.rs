//! Subscribers that resume behind something which this node has not heard yet: they wait until it has.
//!
//! A client that moves may hold more than its new node has heard, if that one is some milliseconds behind. Answered at
//! once, it would be told of a gap and get again what it has. So its question waits until the record with the `since` was
//! heard, or a later one of the same origin, but not for long: a `since` of an origin of which nothing was heard may also be
//! long forgotten.
//!
//! Invariants: the questions of one session about one tag keep their order; what waits is bounded, and what is over the bound
//! is asked at once. No clock, no I/O.

use std::{collections::HashMap, time::Instant};

use crate::{
    limits::{LOG_ORIGINS_MAX, RESUME_WAIT_MAX, RESUMES_WAITING_MAX},
    model::{FromCore, RecordId},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resuming {
    /// Of each origin the last record that was heard.
    heard: HashMap<u64, u64, ahash::RandomState>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    question: FromCore,
    since: RecordId,
    until: Instant,
}

impl Resuming {
    /// Takes a core's message; it comes back unless it has to wait.
    pub(super) fn take(&mut self, message: FromCore, now: Instant) -> Option<FromCore> {
        let FromCore::Follow { since, .. } = &message else { return Some(message) };
        let since = since.as_deref().and_then(|since| since.parse().ok());
        let ahead = since.filter(|since| !self.has(*since));
        let before = self.waiting.iter().rev().find(|waiting| is_same(&waiting.question, &message));
        let (since, until) = match (ahead, before) {
            (Some(since), _) => (since, now + RESUME_WAIT_MAX),
            (None, Some(before)) => (before.since, before.until),
            (None, None) => return Some(message),
        };
        if self.waiting.len() >= RESUMES_WAITING_MAX {
            return Some(message);
        }
        self.waiting.push(Waiting { question: message, since, until });
        None
    }

    /// A record was heard, or is known from before.
    pub(super) fn heard(&mut self, id: RecordId) {
        if self.heard.len() >= LOG_ORIGINS_MAX && !self.heard.contains_key(&id.origin) {
            // Whoever resumes behind one of them waits in vain once: better than to remember without end.
            self.heard.clear();
        }
        let last = self.heard.entry(id.origin).or_default();
        *last = id.seq.max(*last);
    }

    /// The questions that wait no longer: answered now, and given up.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<(FromCore, bool)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let heard = &self.heard;
        let has = |since: RecordId| heard.get(&since.origin).is_some_and(|seq| since.seq <= *seq);
        let ready = self.waiting.extract_if(.., |waiting| waiting.until <= now || has(waiting.since));
        ready.map(|waiting| (waiting.question, has(waiting.since))).collect()
    }

    fn has(&self, since: RecordId) -> bool {
        self.heard.get(&since.origin).is_some_and(|seq| since.seq <= *seq)
    }
}

/// Whether two questions are of one session about one tag.
fn is_same(one: &FromCore, other: &FromCore) -> bool {
    match (one, other) {
        (
            FromCore::Follow { session, pid, tag, .. },
            FromCore::Follow { session: of_session, pid: of_pid, tag: of_tag, .. },
        ) => session == of_session && tag == of_tag && pid == of_pid,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pid, SessionId, Tag};

    fn follow(slot: u32, since: Option<&str>) -> FromCore {
        FromCore::Follow {
            session: SessionId { core: 0, slot, generation: 0 },
            pid: Pid::new("p").expect("a pid"),
            tag: Tag::new("t").expect("a tag"),
            since: since.map(Box::from),
        }
    }

    fn slots(ready: Vec<(FromCore, bool)>) -> Vec<(u32, bool)> {
        let slot = |(question, heard)| match question {
            FromCore::Follow { session, .. } => (session.slot, heard),
            other => panic!("{other:?}"),
        };
        ready.into_iter().map(slot).collect()
    }

    #[test]
    fn who_is_ahead_waits_until_the_node_is_there_and_nobody_else_waits() {
        let (mut resuming, now) = (Resuming::default(), crate::clock::now());
        resuming.heard(RecordId { origin: 1, seq: 5 });
        for at_once in [None, Some("1-5"), Some("1-1"), Some("nonsense")] {
            assert!(resuming.take(follow(1, at_once), now).is_some(), "{at_once:?}");
        }
        assert!(resuming.take(follow(2, Some("1-7")), now).is_none());
        assert!(resuming.take(follow(3, Some("2-1")), now).is_none(), "an origin that is not known yet");
        resuming.heard(RecordId { origin: 1, seq: 6 });
        assert!(slots(resuming.ready(now)).is_empty());
        resuming.heard(RecordId { origin: 1, seq: 8 });
        assert_eq!(slots(resuming.ready(now)), [(2, true)]);
        assert_eq!(slots(resuming.ready(now + RESUME_WAIT_MAX)), [(3, false)]);
    }

    #[test]
    fn a_session_asks_about_a_tag_in_its_own_order_and_too_many_do_not_wait() {
        let (mut resuming, now) = (Resuming::default(), crate::clock::now());
        assert!(resuming.take(follow(1, Some("1-7")), now).is_none());
        assert!(resuming.take(follow(1, None), now).is_none(), "behind the one before");
        assert!(resuming.take(follow(2, None), now).is_some());
        resuming.heard(RecordId { origin: 1, seq: 7 });
        assert_eq!(slots(resuming.ready(now)), [(1, true), (1, true)]);
        let many = u32::try_from(RESUMES_WAITING_MAX).expect("a small number");
        let taken = (0..=many).filter(|slot| resuming.take(follow(*slot, Some("9-9")), now).is_none()).count();
        assert_eq!(taken, RESUMES_WAITING_MAX);
    }
}
