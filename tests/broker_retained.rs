//! Last values go through the log into the queue's store, and come to a node that starts before the log's past does.
//!
//! Method: several nodes' logs in one thread over the embedded queue, which is made to fail as queues do, and over an own
//! Redis.

mod broker_support;

use std::{sync::Arc, time::Duration};

use broker_support::{
    Node, run,
    server::{Keeps, RedisServer, is_available},
    settings, wait_for,
};
use bytes::Bytes;
use ws_cluster::{
    broker::{
        Broker, Durability, Retain, StoredValue,
        log::LogEvent,
        memory::Memory,
        redis::{Redis, RedisSettings, TlsFiles},
    },
    metrics::Count,
    model::{LastValue, Pid, Published, RecordId, RetainOutcome, Stamp, Tag, record::shard_of},
    protocol::wire,
};

const WAIT: Duration = Duration::from_secs(20);
const SHARDS: u16 = 2;

fn value(tag: &str, seq: u64, bytes: usize) -> LastValue {
    let published = Published {
        id: RecordId { origin: 7, seq },
        prev: seq.checked_sub(1).map(|seq| RecordId { origin: 7, seq }),
        pid: Pid::new("1").expect("a pid"),
        tag: Tag::new(tag).expect("a tag"),
        keep: true,
        affair_id: Some("affair".into()),
        payload: Bytes::from(format!("{seq:>bytes$}")),
        stamp: Stamp::default(),
    };
    LastValue { published: published.into(), at_unix_ms: 1_700_000_000_000 + seq, is_broken: seq.is_multiple_of(2) }
}

fn values(count: u64) -> Vec<LastValue> {
    (0..count).map(|n| value(&format!("t{n}"), n, 1)).collect()
}

/// The last values that the node was told, in the order of their seqs, each once.
fn loaded(node: &Node) -> Vec<LastValue> {
    let said = node.said.borrow();
    let value = |event: &LogEvent| match event {
        LogEvent::LastValue(value) => Some(value.clone()),
        _ => None,
    };
    let mut values: Vec<_> = said.iter().filter_map(value).collect();
    values.sort_unstable_by_key(|value| value.published.id.seq);
    values.dedup();
    values
}

/// Writes, and waits for the outcome.
async fn retain(node: &Node, term: u64, values: Vec<LastValue>) -> RetainOutcome {
    let outcomes = || -> Vec<RetainOutcome> {
        let outcome = |event: &LogEvent| match event {
            LogEvent::Retained(outcome) => Some(*outcome),
            _ => None,
        };
        node.said.borrow().iter().filter_map(outcome).collect()
    };
    let before = outcomes().len();
    node.log.retain(term, values);
    wait_for("an outcome", WAIT, || outcomes().len() > before).await;
    assert_eq!(outcomes().len(), before + 1, "one outcome");
    outcomes()[before]
}

/// What is written comes back to a node that starts, before anything of the log's past.
async fn comes_back(queue: impl Fn() -> Arc<dyn Broker>) {
    let a = Node::ready(queue(), settings(1, SHARDS)).await;
    a.push("t0", 1).expect("taken");
    let values = values(3000);
    for part in values.chunks(1000) {
        assert_eq!(retain(&a, 1, part.to_vec()).await, RetainOutcome::Written);
    }
    assert_eq!(a.count(Count::RetainedWritten), 3000);
    let b = Node::ready(queue(), settings(2, SHARDS)).await;
    assert_eq!(loaded(&b), values);
    let said = b.said.borrow();
    let heard = |event: &LogEvent| matches!(event, LogEvent::Heard { .. });
    let of_shard = |event: &LogEvent| matches!(event, LogEvent::LastValue(value) if shard_of("1", &value.published.tag, SHARDS) == shard_of("1", "t0", SHARDS));
    let (first_heard, last_value) = (said.iter().position(heard), said.iter().rposition(of_shard));
    assert!(first_heard > last_value, "{first_heard:?} {last_value:?}");
}

#[test]
fn what_one_node_retains_comes_to_the_next_over_the_embedded_queue() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        comes_back(move || queue.clone()).await;
    });
}

fn redis(server: &RedisServer) -> Arc<Redis> {
    let settings = RedisSettings { prefix: "ws".to_owned(), log_bytes_max: 64 << 20, durability: Durability::Log };
    Arc::new(Redis::start(&server.url(), &TlsFiles::default(), settings).expect("a good URL"))
}

#[test]
fn what_one_node_retains_comes_to_the_next_over_redis() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        comes_back(|| redis(&server)).await;
    });
}

#[test]
fn what_cannot_be_read_is_counted_and_delays_no_start() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        let good = value("good", 1, 1);
        let shard = shard_of("1", "good", SHARDS);
        let name = |tag: &str| wire::last_value_name(&Pid::new("1").expect("a pid"), &Tag::new(tag).expect("a tag"));
        let elsewhere = (0..).map(|n| format!("t{n}")).find(|tag| shard_of("1", tag, SHARDS) != shard).expect("one");
        let encoded = wire::encode_last_value(&good);
        let stored = |name: Bytes, value: Bytes| StoredValue { name, at_unix_ms: 1, value };
        let values = vec![
            stored(name("good"), encoded.clone()),
            stored(name("bad"), Bytes::from_static(b"\x09 another version")),
            stored(Bytes::from_static(b"no name"), encoded.clone()),
            stored(name(&elsewhere), encoded),
        ];
        let retain = Retain { term: 1, values, values_max: 10, bytes_max: 10_000 };
        queue.retain(shard, retain).await.expect("stored");
        let node = Node::ready(queue, settings(1, SHARDS)).await;
        assert_eq!(loaded(&node), [good]);
        assert_eq!(node.count(Count::RetainedUnreadable), 3);
    });
}

#[test]
fn a_strangers_key_in_redis_delays_no_start() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        server.cli(&["SET", "{ws:0}:last", "what is this"]);
        let node = Node::ready(redis(&server), settings(1, SHARDS)).await;
        assert_eq!(node.count(Count::RetainedUnreadable), 1);
        assert_eq!(retain(&node, 1, values(10)).await, RetainOutcome::Failed);
        server.cli(&["DEL", "{ws:0}:last"]);
        assert_eq!(retain(&node, 1, values(10)).await, RetainOutcome::Written);
    });
}

#[test]
fn a_write_fails_while_the_queue_is_away_and_an_emptied_store_is_noticed() {
    run(async {
        let queue = Arc::new(Memory::faulty(64 << 20));
        let node = Node::ready(queue.clone(), settings(1, SHARDS)).await;
        assert_eq!(retain(&node, 1, Vec::new()).await, RetainOutcome::Written, "empty, and never written to");
        assert_eq!(retain(&node, 1, values(10)).await, RetainOutcome::Written);
        queue.set_away(true);
        assert_eq!(retain(&node, 1, values(10)).await, RetainOutcome::Failed);
        assert_eq!(node.count(Count::RetainFailed), 1);
        queue.set_away(false);
        queue.restart(false);
        node.until("the new epoch", |event| *event == LogEvent::NewEpoch).await;
        assert_eq!(retain(&node, 1, Vec::new()).await, RetainOutcome::Emptied);
        assert_eq!(retain(&node, 1, Vec::new()).await, RetainOutcome::Written, "told once");
        assert_eq!(retain(&node, 1, values(10)).await, RetainOutcome::Written);
    });
}

#[test]
fn a_later_term_supersedes() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        let a = Node::ready(queue.clone(), settings(1, SHARDS)).await;
        let b = Node::ready(queue.clone(), settings(2, SHARDS)).await;
        assert_eq!(retain(&a, 5, values(10)).await, RetainOutcome::Written);
        assert_eq!(retain(&b, 6, values(1)).await, RetainOutcome::Written);
        assert_eq!(retain(&a, 5, Vec::new()).await, RetainOutcome::Superseded(6));
    });
}

#[test]
fn bounds_are_shared_by_the_shards_and_what_is_too_long_goes_nowhere() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        let mut narrow = settings(1, SHARDS);
        (narrow.limits.tags_max, narrow.limits.retained_bytes_max) = (20, 20_000);
        let node = Node::ready(queue.clone(), narrow.clone()).await;
        assert_eq!(retain(&node, 1, values(100)).await, RetainOutcome::Written);
        assert_eq!(node.count(Count::RetainedDropped), 80);
        assert_eq!(retain(&node, 1, vec![value("long", 100, 10_000)]).await, RetainOutcome::Written);
        assert_eq!((node.count(Count::RetainedDropped), node.count(Count::RetainedWritten)), (81, 100));
        let next = Node::ready(queue.clone(), settings(2, SHARDS)).await;
        assert_eq!(loaded(&next).len(), 20);
        narrow.node = 3;
        narrow.limits.retained_bytes_max = 0;
        let off = Node::ready(queue, narrow).await;
        assert_eq!(loaded(&off).len(), 0);
    });
}
