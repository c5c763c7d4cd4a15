//! Who has received what: order, gaps and repeats by connection, and which publications everybody has. Pure.

use std::{collections::VecDeque, ops::Range};

use crate::findings::Findings;

/// One group's receipts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Receivers that must have each publication.
    steady: usize,
    /// The number of the first publication that not all have.
    complete: u64,
    /// Receivers of the publications behind that, in order.
    partly: VecDeque<usize>,
    /// Nobody tells it what was sent: what comes was.
    is_following: bool,
}

/// A number so far beyond what is outstanding is no publication's.
const AHEAD_MAX: usize = 1 << 20;

impl Tally {
    /// Nothing sent, nobody there.
    pub fn new(steady: usize) -> Self {
        Self { steady, ..Self::default() }
    }

    /// The same for a process that does not publish itself.
    pub fn following(steady: usize) -> Self {
        Self { steady, is_following: true, ..Self::default() }
    }

    /// One more was sent.
    pub fn sent(&mut self) {
        self.partly.push_back(0);
        self.settle();
    }

    /// How many publications everybody has.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Receivers that must have each publication.
    pub fn steady(&self) -> usize {
        self.steady
    }

    /// How many publications somebody lacks.
    pub fn outstanding(&self) -> usize {
        self.partly.len()
    }

    /// A steady receiver has this one; false if it was never sent, or everybody had it.
    pub fn came(&mut self, number: u64) -> bool {
        let place = number.checked_sub(self.complete).and_then(|place| usize::try_from(place).ok());
        if let Some(place) =
            place.filter(|place| self.is_following && *place < AHEAD_MAX && *place >= self.partly.len())
        {
            self.partly.resize(place + 1, 0);
        }
        let Some(receivers) = place.and_then(|place| self.partly.get_mut(place)) else { return false };
        *receivers += 1;
        self.settle();
        true
    }

    /// A steady receiver will not get these, which is a finding: nobody waits for them.
    pub fn skipped(&mut self, numbers: Range<u64>) {
        let known = if self.is_following { AHEAD_MAX } else { self.partly.len() };
        let end = numbers.end.min(self.complete + known as u64);
        for number in numbers.start.max(self.complete)..end {
            self.came(number);
        }
    }

    /// A steady receiver is gone: nobody waits for it.
    pub fn leaves(&mut self) {
        self.steady = self.steady.saturating_sub(1);
        self.settle();
    }

    fn settle(&mut self) {
        while self.partly.front().is_some_and(|receivers| *receivers >= self.steady) {
            self.partly.pop_front();
            self.complete += 1;
        }
    }
}

/// The number that a connection expects next, if it has seen one.
pub type Expected = Option<u64>;

/// Checks that a connection sees numbers without gap or repeat; whether this is a new one.
pub fn check(expected: &mut Expected, number: u64, findings: &mut Findings) -> bool {
    let next = expected.unwrap_or(number);
    match number {
        _ if number > next => {
            findings.add_many("lost", number - next, format_args!("{next} to {} never came", number - 1));
        }
        _ if number < next => {
            findings.add("repeated_or_out_of_order", format_args!("{number} came where {next} was due"));
            return false;
        }
        _ => {}
    }
    *expected = Some(number + 1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_complete_when_everybody_has_it() {
        let mut tally = Tally::new(2);
        tally.sent();
        tally.sent();
        assert!(tally.came(0) && tally.came(1) && tally.came(1));
        assert_eq!((tally.complete(), tally.outstanding()), (0, 2), "the first is not complete");
        assert!(tally.came(0));
        assert_eq!((tally.complete(), tally.outstanding()), (2, 0));
        assert!(!tally.came(2) && !tally.came(0), "never sent, and had by all");
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut tally = Tally::new(2);
        tally.sent();
        assert!(tally.came(0));
        tally.leaves();
        assert_eq!(tally.complete(), 1);
    }

    #[test]
    fn what_was_skipped_is_not_waited_for() {
        let mut tally = Tally::new(2);
        (0..3).for_each(|_| tally.sent());
        (0..3).for_each(|number| assert!(tally.came(number)));
        tally.skipped(0..2);
        assert_eq!((tally.complete(), tally.outstanding()), (2, 1));
        tally.skipped(0..u64::MAX);
        assert_eq!(tally.outstanding(), 0);
    }

    #[test]
    fn who_follows_takes_what_comes_for_sent() {
        let mut tally = Tally::following(2);
        assert!(tally.came(1) && tally.came(0) && tally.came(0));
        assert_eq!((tally.complete(), tally.outstanding()), (1, 1));
        assert!(!tally.came(u64::MAX) && !tally.came(0));
        tally.skipped(1..3);
        assert_eq!((tally.complete(), tally.outstanding()), (2, 1));
    }

    #[test]
    fn gaps_and_repeats_are_told() {
        let (mut expected, mut findings) = (None, Findings::default());
        for (number, new) in [(5, true), (6, true), (6, false), (9, true), (7, false), (10, true)] {
            assert_eq!(check(&mut expected, number, &mut findings), new, "{number}");
        }
        assert_eq!((findings.count("lost"), findings.count("repeated_or_out_of_order")), (2, 2));
    }
}
