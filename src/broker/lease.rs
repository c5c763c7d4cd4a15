//! Whose the node's id is.
//!
//! A lease belongs to one boot and runs out by itself. A node that starts and finds another's lease watches it for
//! as long as it can last: a holder that renews it lives, and the newcomer must not start; one that does not is gone.
//!
//! Invariants: the id counts as held only while the lease that was asked for cannot have run out. No clock, no I/O.

use std::time::{Duration, Instant};

use super::Claimed;

/// What a claim's answer means for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    None,
    /// The node has its id.
    Taken,
    /// Another node lives under this id: do not start. Names it.
    Refused(String),
    /// Another boot took the id: append nothing. Names it.
    Lost(String),
    /// The id is this boot's again.
    Regained,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not held yet: what was seen of the holder.
    Starting { seen: Option<Seen> },
    /// Held until then.
    Held { until: Instant },
    /// Another boot took it.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    holder: String,
    /// When the holder's lease runs out, if it is not renewed.
    until: Instant,
}

/// The lease, as this boot sees it.
#[derive(Clone, Debug)]
pub struct Lease {
    ttl: Duration,
    state: State,
}

/// Clocks and round trips make a lease's end uncertain by this much.
const SLACK: Duration = Duration::from_millis(500);

impl Lease {
    /// Not held yet.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, state: State::Starting { seen: None } }
    }

    /// Whether the id is held at `now`.
    pub fn is_valid(&self, now: Instant) -> bool {
        matches!(self.state, State::Held { until } if now < until)
    }

    /// Whether another's lease stands in the way of the start.
    pub fn watches_a_holder(&self) -> bool {
        matches!(self.state, State::Starting { seen: Some(_) })
    }

    /// Takes the answer to a claim that was sent at `asked` and answered at `now`.
    pub fn answered(&mut self, claimed: Claimed, asked: Instant, now: Instant) -> Change {
        match claimed {
            Claimed::Held => self.held(asked),
            Claimed::Other { holder, left } => self.other(holder, now + left),
        }
    }

    fn held(&mut self, asked: Instant) -> Change {
        let before = std::mem::replace(&mut self.state, State::Held { until: asked + self.ttl });
        match before {
            State::Starting { .. } => Change::Taken,
            State::Held { .. } => Change::None,
            State::Lost => Change::Regained,
        }
    }

    fn other(&mut self, holder: String, until: Instant) -> Change {
        match &self.state {
            State::Lost => Change::None,
            State::Held { .. } => {
                self.state = State::Lost;
                Change::Lost(holder)
            }
            // The same holder's lease lasts longer than it did: it was renewed.
            State::Starting { seen: Some(seen) } if seen.holder == holder && until > seen.until + SLACK => {
                Change::Refused(holder)
            }
            State::Starting { seen: Some(seen) } if seen.holder == holder => Change::None,
            State::Starting { .. } => {
                self.state = State::Starting { seen: Some(Seen { holder, until }) };
                Change::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn other(left_s: u64) -> Claimed {
        Claimed::Other { holder: "aa|host".to_owned(), left: Duration::from_secs(left_s) }
    }

    #[test]
    fn a_dead_holder_is_waited_for_and_a_living_one_refuses_the_newcomer() {
        let start = crate::clock::now();
        let at = |s| start + Duration::from_secs(s);
        let mut lease = Lease::new(TTL);
        assert_eq!(lease.answered(other(7), at(0), at(0)), Change::None);
        assert_eq!(lease.answered(other(6), at(1), at(1)), Change::None);
        let mut patient = lease.clone();
        assert_eq!(patient.answered(Claimed::Held, at(8), at(8)), Change::Taken);
        assert_eq!(lease.answered(other(10), at(2), at(2)), Change::Refused("aa|host".to_owned()));
    }

    #[test]
    fn a_lease_is_valid_until_it_may_have_run_out_and_can_be_lost_and_regained() {
        let start = crate::clock::now();
        let mut lease = Lease::new(TTL);
        assert_eq!(lease.answered(Claimed::Held, start, start + Duration::from_secs(2)), Change::Taken);
        assert!(lease.is_valid(start + Duration::from_secs(9)));
        assert!(!lease.is_valid(start + TTL), "it counts from when it was asked for");
        assert_eq!(lease.answered(other(5), start, start), Change::Lost("aa|host".to_owned()));
        assert!(!lease.is_valid(start));
        assert_eq!(lease.answered(Claimed::Held, start, start), Change::Regained);
    }
}
