//! Compares what pushers were told with what every subscriber got: lost, duplicated, reordered, broken chains.
//!
//! Pure: pushes and receipts in, a report out. A push that was refused or never answered may have been delivered or
//! not, but not twice and not out of order.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// One push as its pusher knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Who pushed.
    pub pusher: u32,
    /// Its number, counted up by its pusher.
    pub number: u64,
    /// The tag, or another name for the audience.
    pub channel: String,
    /// Whether the pusher was told that it is accepted.
    pub acknowledged: bool,
}

/// What a subscriber got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A push.
    Message {
        /// Who pushed it.
        pusher: u32,
        /// Its number.
        number: u64,
        /// Where it went.
        channel: String,
        /// Its id and its predecessor's, if it is a publication.
        link: Option<(String, String)>,
    },
    /// The server told of a gap in a tag.
    Gap {
        /// The tag.
        channel: String,
    },
    /// The server closed the connection, or it broke.
    Closed {
        /// How.
        how: String,
    },
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pushes that were acknowledged.
    pub acknowledged: usize,
    /// Pushes that were refused or not answered.
    pub unsure: usize,
    /// Deliveries over all subscribers.
    pub delivered: usize,
    /// Acknowledged, and a subscriber that stayed did not get it.
    pub lost: Vec<String>,
    /// Got twice by one subscriber.
    pub duplicated: Vec<String>,
    /// Got behind a later push of the same pusher to the same channel.
    pub reordered: Vec<String>,
    /// A publication whose `prev` is not what the subscriber had, and no gap was told.
    pub broken_chains: Vec<String>,
    /// Got, but never pushed there.
    pub foreign: Vec<String>,
    /// Subscribers that did not stay connected.
    pub closed: Vec<String>,
    /// Subscribers that saw a tag's publications in different orders.
    pub divergent: Vec<String>,
    /// Gaps that were told.
    pub gaps_told: usize,
}

impl Report {
    /// Every breach of the promise; `divergent` aside, which holds only inside one incarnation of the queue.
    pub fn faults(&self) -> usize {
        [&self.lost, &self.duplicated, &self.reordered, &self.broken_chains, &self.foreign, &self.closed]
            .iter()
            .map(|list| list.len())
            .sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unsure, delivered, gaps_told, .. } = self;
        write!(f, "{acknowledged} acknowledged, {unsure} unsure, {delivered} delivered, {gaps_told} gaps told")?;
        let lists = [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("reordered", &self.reordered),
            ("broken chains", &self.broken_chains),
            ("foreign", &self.foreign),
            ("closed", &self.closed),
            ("divergent", &self.divergent),
        ];
        for (name, list) in lists {
            write!(f, ", {} {name}", list.len())?;
            if let Some(first) = list.first() {
                write!(f, " (first: {first}; last: {})", list[list.len() - 1])?;
            }
        }
        Ok(())
    }
}

/// Compares.
pub fn check(pushed: &[Pushed], subscribers: &[Vec<Received>]) -> Report {
    let mut report =
        Report { acknowledged: pushed.iter().filter(|push| push.acknowledged).count(), ..Report::default() };
    report.unsure = pushed.len() - report.acknowledged;
    let known: HashMap<(u32, u64), &Pushed> = pushed.iter().map(|push| ((push.pusher, push.number), push)).collect();
    for (who, received) in subscribers.iter().enumerate() {
        check_one(&mut report, who, &known, received);
    }
    check_order_between(&mut report, subscribers);
    report
}

fn check_one(report: &mut Report, who: usize, known: &HashMap<(u32, u64), &Pushed>, received: &[Received]) {
    let mut seen: HashSet<(u32, u64)> = HashSet::new();
    let mut latest: HashMap<(u32, &str), u64> = HashMap::new();
    let mut chains: HashMap<&str, Option<&str>> = HashMap::new();
    for event in received {
        match event {
            Received::Closed { how } => report.closed.push(format!("subscriber {who}: {how}")),
            Received::Gap { channel } => {
                report.gaps_told += 1;
                chains.insert(channel, None);
            }
            Received::Message { pusher, number, channel, link } => {
                report.delivered += 1;
                let key = (*pusher, *number);
                let name = || format!("{pusher}/{number} to {channel} at subscriber {who}");
                if known.get(&key).is_none_or(|push| push.channel != *channel) {
                    report.foreign.push(name());
                }
                if !seen.insert(key) {
                    report.duplicated.push(name());
                }
                let before = latest.entry((*pusher, channel)).or_insert(*number);
                if *number < *before {
                    report.reordered.push(format!("{} after {before}", name()));
                }
                *before = (*before).max(*number);
                if let Some((id, prev)) = link {
                    let held = chains.insert(channel, Some(id)).flatten();
                    if held.is_some_and(|held| held != prev) {
                        report.broken_chains.push(format!("{}: prev {prev}, held {held:?}", name()));
                    }
                }
            }
        }
    }
    let lost = known.values().filter(|push| push.acknowledged && !seen.contains(&(push.pusher, push.number)));
    let mut lost: Vec<_> = lost.collect();
    lost.sort_by_key(|push| (push.pusher, push.number));
    report.lost.extend(
        lost.iter().map(|push| format!("{}/{} to {} at subscriber {who}", push.pusher, push.number, push.channel)),
    );
}

/// Every pair of pushes to one channel has the same order at all subscribers: compared with the first of them.
fn check_order_between(report: &mut Report, subscribers: &[Vec<Received>]) {
    let keys = |received: &[Received]| {
        let mut keys = Vec::new();
        for event in received {
            if let Received::Message { pusher, number, channel, link: Some(_) } = event {
                keys.push((channel.clone(), (*pusher, *number)));
            }
        }
        keys
    };
    let Some((first, others)) = subscribers.split_first() else { return };
    let place: HashMap<_, usize> = keys(first).into_iter().enumerate().map(|(at, (_, key))| (key, at)).collect();
    for (who, received) in others.iter().enumerate() {
        let mut furthest: HashMap<String, usize> = HashMap::new();
        for (channel, key) in keys(received) {
            let Some(at) = place.get(&key) else { continue };
            let before = furthest.entry(channel.clone()).or_insert(*at);
            if at < before {
                report.divergent.push(format!("{}/{} to {channel} at subscriber {}", key.0, key.1, who + 1));
            }
            *before = (*before).max(*at);
        }
    }
}
