//! A record that a node sends itself through the log, to see that what it publishes comes back.
//!
//! One shard after the other is tried, and every shard that is late again and again, so that the node sees at once that
//! it works again. The record is an answer to a question that nobody asked: every node of every version passes over it.
//!
//! Invariants: at most one record a shard and interval; a shard is late from the bound after the first record that has
//! not come back until one comes back. No clock, no I/O.

use std::time::{Duration, Instant};

use crate::{
    limits::CANARY_INTERVAL,
    model::{Boot, NodeId, Record, record::OnlineAnswer},
};

/// Set in the numbers of questions that nobody asked; the others count from 1.
const NOBODY_ASKED: u64 = 1 << 63;
/// Where the shard stands in such a number.
const SHARD_SHIFT: u32 = 40;

/// See the module.
#[derive(Debug)]
pub(super) struct Canary {
    home: (NodeId, Boot),
    timeout: Duration,
    shards: Vec<Tried>,
    next_shard: usize,
    next_at: Option<Instant>,
    number: u64,
}

/// What is on its way through a shard.
#[derive(Clone, Debug, Default)]
struct Tried {
    /// The last record, and when it was sent.
    last: Option<(u64, Instant)>,
    /// Since when nothing has come back.
    waits_since: Option<Instant>,
}

impl Canary {
    pub(super) fn new(node: NodeId, boot: Boot, shards: u16, timeout: Duration) -> Self {
        let shards = vec![Tried::default(); usize::from(shards)];
        Self { home: (node, boot), timeout, shards, next_shard: 0, next_at: None, number: 0 }
    }

    /// The records that are to be sent now, each with its shard.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u16, Record)> {
        if self.next_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.next_at = Some(now + CANARY_INTERVAL);
        let turn = self.next_shard;
        self.next_shard = (turn + 1) % self.shards.len().max(1);
        let tried = (0..self.shards.len()).filter(|shard| *shard == turn || self.is_late(*shard, now));
        let tried: Vec<usize> = tried.collect();
        tried.into_iter().filter_map(|shard| self.send(shard, now)).collect()
    }

    fn send(&mut self, shard: usize, now: Instant) -> Option<(u16, Record)> {
        self.number += 1;
        let (number, tried) = (self.number, &mut self.shards[shard]);
        tried.last = Some((number, now));
        tried.waits_since.get_or_insert(now);
        let shard = u16::try_from(shard).ok()?;
        let (node, boot) = self.home;
        let ask = NOBODY_ASKED | u64::from(shard) << SHARD_SHIFT | number;
        let answer =
            OnlineAnswer { to_node: node, to_boot: boot, ask, node, boot, more: false, connections: Vec::new() };
        Some((shard, Record::OnlineAnswer(answer)))
    }

    /// A record was heard. If it is one of these: how long it took, if that is known.
    pub(super) fn heard(&mut self, record: &Record, now: Instant) -> Option<Duration> {
        let Record::OnlineAnswer(answer) = record else { return None };
        if answer.ask & NOBODY_ASKED == 0 || (answer.node, answer.boot) != self.home {
            return None;
        }
        let ask = answer.ask & !NOBODY_ASKED;
        let (shard, number) = (usize::try_from(ask >> SHARD_SHIFT).ok()?, ask & ((1 << SHARD_SHIFT) - 1));
        let tried = self.shards.get_mut(shard)?;
        let (last, sent_at) = tried.last?;
        // Behind an earlier one the last is still on its way.
        tried.waits_since = (number != last).then_some(sent_at);
        (number == last).then(|| now.saturating_duration_since(sent_at))
    }

    /// How many shards bring nothing back.
    pub(super) fn late(&self, now: Instant) -> usize {
        (0..self.shards.len()).filter(|shard| self.is_late(*shard, now)).count()
    }

    fn is_late(&self, shard: usize, now: Instant) -> bool {
        let since = self.shards[shard].waits_since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    #[test]
    fn shards_take_turns_and_what_comes_back_is_timed() {
        let (mut canary, start) = (Canary::new(7, Boot(1), 2, TIMEOUT), crate::clock::now());
        let first = canary.due(start);
        assert_eq!(first.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0]);
        assert!(canary.due(start + CANARY_INTERVAL / 2).is_empty());
        let later = start + Duration::from_millis(3);
        assert_eq!(canary.heard(&first[0].1, later), Some(Duration::from_millis(3)));
        let second = canary.due(start + CANARY_INTERVAL);
        assert_eq!(second[0].0, 1);
        assert_eq!(Canary::new(8, Boot(1), 2, TIMEOUT).heard(&second[0].1, later), None, "another node's");
        assert_eq!(canary.late(start + TIMEOUT), 0);
        assert_eq!(canary.late(start + CANARY_INTERVAL + TIMEOUT), 1);
    }

    #[test]
    fn a_late_shard_is_tried_each_time_and_one_that_comes_back_is_late_no_more() {
        let (mut canary, start) = (Canary::new(7, Boot(1), 3, TIMEOUT), crate::clock::now());
        let at = |s| start + Duration::from_secs(s);
        (0..4).for_each(|s| drop(canary.due(at(s))));
        assert_eq!(canary.late(at(4)), 2);
        let tried = canary.due(at(4));
        let shards: Vec<u16> = tried.iter().map(|(shard, _)| *shard).collect();
        assert_eq!(shards, [0, 1], "the late ones, of which one has its turn");
        for (_, record) in &tried {
            assert!(canary.heard(record, at(4)).is_some());
        }
        assert_eq!(canary.late(at(4)), 0);
        assert_eq!(canary.late(at(5)), 1, "the third waits since the second");
    }
}
