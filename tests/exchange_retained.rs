//! Last values outlive the log's window: the keeper writes them into the queue's store, a starting node reads them.
//! Method: a cluster of exchanges over a log and a store in memory, stepped by hand; then seeded runs in which nodes
//! come and go, hear at their own pace, and the store fails and is emptied. `WS_SEED` replays one, `WS_SEEDS` makes more.

#[path = "exchange_support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use support::{Cluster, ids, pid, publication, tag};
use ws_cluster::{
    exchange::{ExchangeRules, Input},
    limits::{NODE_TIMEOUT, QueueLimits, RETAIN_BYTES_MAX, RETAIN_INTERVAL, RETAIN_VALUES_MAX},
    metrics::Count,
    model::{
        Boot, FollowStart, FromCore, LastValue, Published, Record, RecordId, Reply, RetainOutcome, SessionId, Stamp,
        ToCore,
    },
};

const SESSION: SessionId = SessionId { core: 0, slot: 1, generation: 1 };

/// The queue's store.
type Store = BTreeMap<String, LastValue>;

/// Nodes that have heard the log's past, and themselves.
fn warm(nodes: usize) -> Cluster {
    warm_with(nodes, ExchangeRules::default())
}

fn warm_with(nodes: usize, rules: ExchangeRules) -> Cluster {
    let mut cluster = Cluster::with(nodes, rules);
    (0..nodes).for_each(|node| cluster.apply(node, Input::Warmed));
    cluster
}

/// What a node gives out at a tick, without an answer yet.
fn given(cluster: &mut Cluster, node: usize) -> Vec<LastValue> {
    cluster.tick();
    let Some((_, batch)) = cluster.nodes[node].retaining.pop_front() else { return Vec::new() };
    assert!(cluster.nodes[node].retaining.is_empty(), "two batches on their way");
    if batch.is_empty() {
        answer(cluster, node, RetainOutcome::Written);
    }
    batch
}

fn answer(cluster: &mut Cluster, node: usize, outcome: RetainOutcome) {
    cluster.apply(node, Input::Retained(outcome));
}

/// Lets the keepers write until they have nothing more; the most values of a batch.
fn save(cluster: &mut Cluster, store: &mut Store) -> usize {
    let mut most = 0;
    for _ in 0..200 {
        cluster.now += Duration::from_millis(100);
        cluster.tick();
        for node in 0..cluster.nodes.len() {
            let Some((_, batch)) = cluster.nodes[node].retaining.pop_front() else { continue };
            most = most.max(batch.len());
            store.extend(batch.into_iter().map(|value| (value.published.tag.to_string(), value)));
            answer(cluster, node, RetainOutcome::Written);
        }
    }
    most
}

/// A tag's publications and their `prev`, as a node has them.
fn history(cluster: &mut Cluster, node: usize, name: &str) -> Vec<(RecordId, Option<RecordId>)> {
    let ticket = cluster.ticket();
    cluster.core(node, FromCore::TagState { ticket, pid: pid("p"), tag: tag(name) });
    let Some(Reply::Tag(history)) = cluster.reply(node, ticket) else { panic!("no tag state") };
    history.iter().map(|published| (published.id, published.prev)).collect()
}

fn tags(batch: &[LastValue]) -> Vec<String> {
    let mut tags: Vec<_> = batch.iter().map(|value| value.published.tag.to_string()).collect();
    tags.sort_unstable();
    tags
}

/// Starts a node that finds this store and a log of which only the end is left.
fn start(cluster: &mut Cluster, id: u16, store: &Store, kept: usize) -> usize {
    let node = cluster.join(id, Boot(1));
    cluster.nodes[node].cursor = cluster.log.len() - kept;
    store.values().for_each(|value| cluster.apply(node, Input::LastValue(value.clone())));
    let past = cluster.log[cluster.nodes[node].cursor..].to_vec();
    for (id, record) in past {
        cluster.nodes[node].cursor += 1;
        cluster.apply(node, Input::Heard { id, record, warm: true });
    }
    cluster.apply(node, Input::Warmed);
    node
}

#[test]
fn only_the_lowest_living_node_writes_and_its_successor_writes_everything() {
    let (mut cluster, mut store) = (warm(3), Store::new());
    for name in ["a", "b", "c"] {
        cluster.publish(1, publication(name, "1", None));
    }
    assert_eq!(tags(&given(&mut cluster, 0)), ["a", "b", "c"]);
    answer(&mut cluster, 0, RetainOutcome::Written);
    assert_eq!(save(&mut cluster, &mut store), 0, "nobody else writes, and nothing twice");
    let mut out = Vec::new();
    cluster.nodes[0].exchange.goodbye(&mut out);
    cluster.nodes[0].keep(out);
    cluster.settle();
    assert_eq!(tags(&given(&mut cluster, 1)), ["a", "b", "c"]);
    answer(&mut cluster, 1, RetainOutcome::Written);
    assert_eq!(save(&mut cluster, &mut store), 0);
}

#[test]
fn a_silent_keeper_is_followed_by_the_next() {
    let mut cluster = warm(2);
    cluster.publish(1, publication("a", "1", None));
    assert_eq!(tags(&given(&mut cluster, 0)), ["a"]);
    let dead = cluster.nodes.remove(0);
    cluster.now += NODE_TIMEOUT - Duration::from_secs(1);
    assert!(given(&mut cluster, 0).is_empty(), "a pause is no death");
    let mut seen = Vec::new();
    for _ in 0..NODE_TIMEOUT.as_secs() * 2 {
        cluster.now += Duration::from_secs(1);
        seen.extend(tags(&given(&mut cluster, 0)));
    }
    assert_eq!(seen, ["a"]);
    drop(dead);
}

#[test]
fn a_tag_that_changes_all_the_time_is_written_once_an_interval_with_its_last_value() {
    let mut cluster = warm(1);
    let mut written: Vec<(Duration, RecordId)> = Vec::new();
    let start = cluster.now;
    for step in 0..100 {
        let newest = cluster.publish(0, publication("hot", &step.to_string(), None));
        cluster.now += Duration::from_millis(50);
        for value in given(&mut cluster, 0) {
            assert_eq!(value.published.id, newest, "an old value");
            written.push((cluster.now - start, value.published.id));
            answer(&mut cluster, 0, RetainOutcome::Written);
        }
    }
    assert!(written.len() >= 4, "{written:?}");
    assert!(written.windows(2).all(|pair| pair[1].0 - pair[0].0 >= RETAIN_INTERVAL), "{written:?}");
}

#[test]
fn a_write_that_failed_is_made_again_with_what_is_the_last_value_then() {
    let mut cluster = warm(1);
    cluster.publish(0, publication("a", "1", None));
    cluster.publish(0, publication("b", "1", None));
    assert_eq!(given(&mut cluster, 0).len(), 2);
    let second = cluster.publish(0, publication("a", "2", None));
    assert!(given(&mut cluster, 0).is_empty(), "one batch on its way");
    answer(&mut cluster, 0, RetainOutcome::Failed);
    assert!(given(&mut cluster, 0).is_empty(), "a store that failed is left alone for a while");
    cluster.now += RETAIN_INTERVAL;
    let again = given(&mut cluster, 0);
    assert_eq!(tags(&again), ["a", "b"]);
    assert!(again.iter().any(|value| value.published.id == second));
}

#[test]
fn everything_is_written_again_after_a_new_epoch_a_loss_and_a_store_that_was_empty() {
    let (mut cluster, mut store) = (warm(2), Store::new());
    for name in ["a", "b", "c"] {
        cluster.publish(0, publication(name, "1", None));
    }
    save(&mut cluster, &mut store);
    let emptied = Input::Retained(RetainOutcome::Emptied);
    for input in [Input::NewEpoch, Input::Lost { shard: Some(0) }, emptied] {
        store.clear();
        cluster.apply(0, input.clone());
        cluster.apply(1, input);
        save(&mut cluster, &mut store);
        assert_eq!(store.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

#[test]
fn who_is_superseded_writes_everything_in_a_higher_term_if_it_still_is_the_keeper() {
    let (mut cluster, mut store) = (warm(2), Store::new());
    for name in ["a", "b", "c"] {
        cluster.publish(0, publication(name, "1", None));
    }
    save(&mut cluster, &mut store);
    cluster.now += RETAIN_INTERVAL;
    cluster.tick();
    let (term, looks) = cluster.nodes[0].retaining.pop_front().expect("the keeper looks even if nothing has changed");
    assert!(looks.is_empty());
    let other = term | 0xffff;
    answer(&mut cluster, 0, RetainOutcome::Superseded(other));
    cluster.now += RETAIN_INTERVAL;
    cluster.tick();
    let (higher, everything) = cluster.nodes[0].retaining.pop_front().expect("a batch");
    assert!(higher > other && tags(&everything) == ["a", "b", "c"]);
    cluster.pass(RETAIN_INTERVAL * 3);
    assert!(cluster.nodes[1].retaining.is_empty(), "the other was no keeper");
}

#[test]
fn batches_are_bound_in_values_and_in_bytes() {
    let mut cluster = warm(1);
    for n in 0..RETAIN_VALUES_MAX * 2 + 10 {
        cluster.publish(0, publication(&format!("t{n}"), "1", None));
    }
    let large = format!("\"{}\"", "x".repeat(RETAIN_BYTES_MAX / 3));
    let mut store = Store::new();
    assert_eq!(save(&mut cluster, &mut store), RETAIN_VALUES_MAX);
    assert_eq!(store.len(), RETAIN_VALUES_MAX * 2 + 10);
    for n in 0..5 {
        cluster.publish(0, publication(&format!("large{n}"), &large, None));
    }
    cluster.now += RETAIN_INTERVAL;
    assert_eq!(given(&mut cluster, 0).len(), 3, "the one that reaches the bound is the last");
}

#[test]
fn nothing_is_written_where_it_is_off_or_where_the_past_has_not_been_heard() {
    let mut cold = Cluster::new(1);
    cold.publish(0, publication("a", "1", None));
    assert!(given(&mut cold, 0).is_empty());
    cold.apply(0, Input::Warmed);
    assert_eq!(given(&mut cold, 0).len(), 1);
    let limits = QueueLimits { retained_bytes_max: 0, ..QueueLimits::default() };
    let mut off = warm_with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    off.publish(0, publication("a", "1", None));
    assert!(given(&mut off, 0).is_empty());
}

#[test]
fn a_starting_node_knows_what_the_log_no_longer_holds_and_its_chain_goes_on() {
    let (mut cluster, mut store) = (warm(1), Store::new());
    let first = cluster.publish(0, publication("a", "1", None));
    let second = cluster.publish(0, publication("a", "2", None));
    cluster.publish(0, publication("empty", "1", None));
    save(&mut cluster, &mut store);
    let node = start(&mut cluster, 2, &store, 0);
    let snapshot = cluster.follow(node, SESSION, "a", None);
    let FollowStart::Snapshot { last, gap: false } = snapshot else { panic!("{snapshot:?}") };
    assert_eq!((last.id, last.prev, &last.payload), (second, Some(first), &Bytes::from_static(b"2")));
    let resumed = cluster.follow(node, SESSION, "a", Some(&second.to_string()));
    assert!(matches!(&resumed, FollowStart::Tail(tail) if tail.is_empty()), "{resumed:?}");
    assert_eq!(ids(&cluster.follow(node, SESSION, "a", Some(&first.to_string()))), [second]);
    cluster.follow(0, SESSION, "a", None);
    let third = cluster.publish(node, publication("a", "3", None));
    for node in [0, node] {
        let published = cluster.take(node).into_iter().find_map(|(_, message)| match message {
            ToCore::Publication(published) => Some(published),
            _ => None,
        });
        assert_eq!(published.map(|published| (published.id, published.prev)), Some((third, Some(second))));
    }
    assert_eq!(cluster.count(node, Count::RetainedLoaded), 2);
    assert_eq!(cluster.count(node, Count::Tags), 2);
}

#[test]
fn what_the_log_holds_stands_above_what_the_store_has() {
    let (mut cluster, mut store) = (warm(1), Store::new());
    let [first, second, third] = ["1", "2", "3"].map(|text| cluster.publish(0, publication("a", text, None)));
    save(&mut cluster, &mut store);
    let fourth = cluster.publish(0, publication("a", "4", None));
    let last = |cluster: &mut Cluster, node, since: RecordId| {
        ids(&cluster.follow(node, SESSION, "a", Some(&since.to_string())))
    };
    let from = |id: RecordId, cluster: &Cluster| {
        cluster.log.len() - cluster.log.iter().position(|(logged, _)| *logged == id).expect("in the log")
    };
    // The store has the third. The log begins before it, at it, behind it.
    let kept = from(second, &cluster);
    let before = start(&mut cluster, 2, &store, kept);
    assert_eq!(last(&mut cluster, before, second), [third, fourth]);
    assert_eq!(history(&mut cluster, before, "a"), [(second, None), (third, Some(second)), (fourth, Some(third))]);
    assert_eq!(last(&mut cluster, before, first), [fourth], "a gap is told: nobody knows that it was the first");
    let kept = from(third, &cluster);
    let at = start(&mut cluster, 3, &store, kept);
    assert_eq!(last(&mut cluster, at, second), [third, fourth], "the store tells what was before the third");
    let kept = from(fourth, &cluster);
    let behind = start(&mut cluster, 4, &store, kept);
    assert_eq!(last(&mut cluster, behind, fourth), []);
}

#[test]
fn a_replay_that_comes_late_does_not_bring_an_old_value_back() {
    let (mut cluster, mut store) = (warm(1), Store::new());
    let first = cluster.publish(0, publication("a", "1", None));
    let second = cluster.publish(0, publication("a", "2", None));
    save(&mut cluster, &mut store);
    let node = start(&mut cluster, 2, &store, 0);
    cluster.follow(node, SESSION, "a", None);
    for (id, text) in [(first, "1"), (second, "2")] {
        cluster.apply(node, Input::Heard { id, record: publication("a", text, None), warm: false });
    }
    assert_eq!(cluster.publications(node, 0), []);
    let third = cluster.publish(0, publication("a", "3", None));
    assert_eq!(ids(&cluster.follow(node, SESSION, "a", Some(&second.to_string()))), [third]);
}

#[test]
fn a_value_behind_which_something_was_lost_is_a_gap_on_every_node() {
    let (mut cluster, mut store) = (warm(1), Store::new());
    let first = cluster.publish(0, publication("a", "1", None));
    cluster.apply(0, Input::Lost { shard: None });
    save(&mut cluster, &mut store);
    let node = start(&mut cluster, 2, &store, 0);
    for node in [0, node] {
        let start = cluster.follow(node, SESSION, "a", Some(&first.to_string()));
        assert!(matches!(&start, FollowStart::Snapshot { last, gap: true } if last.id == first), "{start:?}");
    }
}

/// The last value of `name` as some store has it.
fn stored(name: &str, seq: u64, at_unix_ms: u64) -> LastValue {
    let Record::Publication(publication) = publication(name, "1", None) else { unreachable!() };
    let published = Published {
        id: RecordId { origin: 9, seq },
        prev: None,
        pid: publication.pid,
        tag: publication.tag,
        keep: false,
        affair_id: None,
        payload: publication.payload,
        stamp: Stamp::default(),
    };
    LastValue { published: published.into(), at_unix_ms, is_broken: false }
}

#[test]
fn a_full_table_takes_of_the_store_what_was_published_last() {
    let limits = QueueLimits { tags_max: 3, ..QueueLimits::default() };
    let mut cluster = Cluster::with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    for (name, at) in [("c", 30), ("a", 10), ("e", 50), ("b", 20), ("d", 40)] {
        cluster.apply(0, Input::LastValue(stored(name, at, at)));
    }
    cluster.apply(
        0,
        Input::Heard { id: RecordId { origin: 1, seq: 1 }, record: publication("log", "1", None), warm: true },
    );
    let known = |cluster: &mut Cluster, name: &str| !history(cluster, 0, name).is_empty();
    let all = ["a", "b", "c", "d", "e", "log"].map(|name| known(&mut cluster, name));
    assert_eq!(all, [false, false, false, true, true, true]);
    cluster.apply(0, Input::LastValue(stored("late", 60, u64::MAX)));
    assert!(known(&mut cluster, "log") && known(&mut cluster, "late"), "a clock that ran ahead is no reason to stay");
}

const TAGS: u64 = 6;

/// A cluster of which any part may lag, fail or go, and the queue below it.
struct World {
    cluster: Cluster,
    store: Store,
    /// The highest that the store has seen, and who has put something there.
    term: u64,
    writers: BTreeSet<u16>,
    /// The log begins here.
    trimmed: usize,
    next_id: u16,
}

impl World {
    fn new() -> Self {
        let (cluster, store, writers) = (Cluster::new(0), Store::new(), BTreeSet::new());
        let mut world = Self { cluster, store, term: 0, writers, trimmed: 0, next_id: 500 };
        world.join(250);
        world
    }

    fn join(&mut self, id: u16) {
        let kept = self.cluster.log.len() - self.trimmed;
        start(&mut self.cluster, id, &self.store, kept);
    }

    /// Of every tag that was ever published, its last publication and that one's place in the log.
    fn newest(&self) -> BTreeMap<String, (RecordId, usize)> {
        let newest = |(at, (id, record)): (usize, &(RecordId, Record))| match record {
            Record::Publication(publication) => Some((publication.tag.to_string(), (*id, at))),
            _ => None,
        };
        self.cluster.log.iter().enumerate().filter_map(newest).collect()
    }

    /// The ids of a tag's publications, in order.
    fn published(&self, name: &str) -> Vec<RecordId> {
        let of_tag = |record: &Record| matches!(record, Record::Publication(publication) if &*publication.tag == name);
        self.cluster.log.iter().filter(|(_, record)| of_tag(record)).map(|(id, _)| *id).collect()
    }

    fn is_stored(&self, name: &str, id: RecordId) -> bool {
        self.store.get(name).is_some_and(|value| value.published.id == id)
    }

    /// Whether a node that starts now learns everything. Otherwise the others must not go, nor the log be trimmed.
    fn is_whole(&self, trimmed: usize) -> bool {
        self.newest().iter().all(|(name, (id, at))| *at >= trimmed || self.is_stored(name, *id))
    }

    fn hear_one(&mut self, node: usize) {
        let Some((id, record)) = self.cluster.log.get(self.cluster.nodes[node].cursor).cloned() else { return };
        self.cluster.nodes[node].cursor += 1;
        self.cluster.apply(node, Input::Heard { id, record, warm: false });
    }

    /// The store answers a node, or fails it, with or without having done what was asked.
    fn answer(&mut self, node: usize, fails: bool, does: bool) {
        let Some((term, batch)) = self.cluster.nodes[node].retaining.pop_front() else { return };
        let id = self.cluster.nodes[node].id;
        let mut outcome = RetainOutcome::Written;
        if term < self.term {
            outcome = RetainOutcome::Superseded(self.term);
        } else if does {
            self.term = term;
            if self.store.is_empty() && self.writers.remove(&id) {
                outcome = RetainOutcome::Emptied;
            }
            if !batch.is_empty() {
                self.writers.insert(id);
            }
            self.store.extend(batch.into_iter().map(|value| (value.published.tag.to_string(), value)));
        }
        let outcome = if fails { RetainOutcome::Failed } else { outcome };
        self.cluster.apply(node, Input::Retained(outcome));
    }

    fn step(&mut self, random: &mut Rng) {
        self.cluster.now += Duration::from_millis(random.u64(..80));
        let nodes = self.cluster.nodes.len();
        let node = random.usize(..nodes);
        match random.u32(..1000) {
            0..300 => (0..random.usize(..6)).for_each(|_| self.hear_one(node)),
            300..600 => {
                self.cluster.apply(node, Input::Tick);
                self.cluster.append_silently(node);
            }
            600..800 => {
                let name = format!("t{}", random.u64(..TAGS));
                self.cluster.put(publication(&name, &random.u32(..).to_string(), None));
                let (id, _) = self.cluster.log.last_mut().expect("just put");
                id.origin = random.u64(1..4);
            }
            800..970 => {
                let fails = random.u8(..5) == 0;
                self.answer(node, fails, !fails || random.bool());
            }
            970..980 if nodes < 4 && self.is_whole(self.trimmed) => {
                // Now below, now above the others.
                self.next_id += 1;
                let id = if random.bool() { self.next_id } else { 1000 - self.next_id };
                self.join(id);
            }
            980..988 if nodes > 1 && self.is_whole(self.trimmed) => drop(self.cluster.nodes.remove(node)),
            988..990 => {
                self.store.clear();
                self.term = 0;
                (0..nodes).for_each(|node| self.cluster.apply(node, Input::NewEpoch));
            }
            990..992 => self.store.clear(),
            992..1000 => {
                let upto = random.usize(self.trimmed..=self.cluster.log.len());
                if self.is_whole(upto) {
                    self.trimmed = upto;
                }
            }
            _ => {}
        }
    }

    /// All goes well for so long that a silent keeper has been followed, and all is heard and written.
    fn settle(&mut self) {
        for _ in 0..NODE_TIMEOUT.as_millis() * 2 / 500 {
            self.cluster.now += Duration::from_millis(500);
            self.cluster.tick();
            (0..self.cluster.nodes.len()).for_each(|node| self.answer(node, false, true));
        }
    }
}

#[test]
fn whatever_happens_the_store_ends_with_every_last_value_and_a_node_that_starts_goes_on_as_the_others() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let random = || (0..number("WS_SEEDS").unwrap_or(60)).map(|_| fastrand::u64(..)).collect();
    let seeds: Vec<u64> = number("WS_SEED").map_or_else(random, |seed| vec![seed]);
    for seed in seeds {
        eprintln!("WS_SEED={seed}");
        let (mut random, mut world) = (Rng::with_seed(seed), World::new());
        for _ in 0..1500 {
            world.step(&mut random);
        }
        world.settle();
        let newest = world.newest();
        for (name, (id, _)) in &newest {
            assert!(world.is_stored(name, *id), "{name}: {:?} is stored, not {id}", world.store.get(name));
        }
        world.trimmed = world.cluster.log.len();
        world.join(999);
        world.cluster.nodes.iter_mut().for_each(|node| node.inboxes.iter_mut().for_each(|inbox| inbox.clear()));
        for (name, (id, _)) in &newest {
            let all = world.published(name);
            for node in 0..world.cluster.nodes.len() {
                let history = history(&mut world.cluster, node, name);
                let ids: Vec<_> = history.iter().map(|(id, _)| *id).collect();
                assert!(!ids.is_empty() && all.ends_with(&ids), "{name} on node {node}: {history:?} of {all:?}");
                assert!(
                    history.windows(2).all(|pair| pair[1].1 == Some(pair[0].0)),
                    "{name} on node {node}: {history:?}"
                );
                let start = world.cluster.follow(node, SESSION, name, Some(&id.to_string()));
                assert!(matches!(&start, FollowStart::Tail(tail) if tail.is_empty()), "{name}: {start:?}");
            }
            world.cluster.put(publication(name, "\"next\"", None));
            for node in 0..world.cluster.nodes.len() {
                world.cluster.hear(node);
                let next = world.cluster.take(node).into_iter().find_map(|(_, message)| match message {
                    ToCore::Publication(published) => published.prev,
                    _ => None,
                });
                assert_eq!(next, Some(*id), "{name} on node {node}");
            }
        }
    }
}
