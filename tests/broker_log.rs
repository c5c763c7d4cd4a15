//! The log over the embedded queue: what is acknowledged is heard once by every node, in one order.
//!
//! Method: several nodes' logs in one thread over one queue, which is made to fail as queues do.

mod broker_support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker_support::{Node, run, settings, wait_for};
use bytes::Bytes;
use ws_cluster::{
    broker::{
        Append, Appended, Broker, Claim, Claimed, Entry, Live, Open, Opened, Pending, Position, Retain, Retained,
        RetainedPage, log::LogEvent, memory::Memory,
    },
    metrics::Count,
    model::{Boot, NodeId, Refusal},
};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn what_one_node_appends_every_node_hears_in_one_order() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        let a = Node::ready(queue.clone(), settings(1, 1)).await;
        let b = Node::ready(queue, settings(2, 1)).await;
        for number in 0..2000 {
            (if number % 2 == 0 { &a } else { &b }).push("t", number).expect("taken");
        }
        wait_for("all heard", WAIT, || a.heard().len() == 2000 && b.heard().len() == 2000).await;
        assert_eq!(a.heard_ids(), b.heard_ids());
        wait_for("all told", WAIT, || a.acknowledged().len() == 1000).await;
        assert_eq!(a.acknowledged(), (0..2000).step_by(2).collect::<Vec<_>>());
    });
}

#[test]
fn a_joining_node_hears_the_retained_log_as_warm_and_then_live_without_a_gap() {
    run(async {
        let queue = Arc::new(Memory::new(64 << 20));
        let a = Node::ready(queue.clone(), settings(1, 2)).await;
        let pushing = async {
            for number in 0..300 {
                a.push(&format!("t{}", number % 7), number).expect("taken");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let joining = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Node::ready(queue, settings(2, 2)).await
        };
        let ((), b) = tokio::join!(pushing, joining);
        wait_for("all heard", WAIT, || b.heard_ids().len() == 300).await;
        let mut numbers = [b.heard_as(true), b.heard()].concat();
        assert!(!b.heard_as(true).is_empty() && !b.heard().is_empty());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    });
}

#[test]
fn lost_replies_neither_lose_nor_duplicate() {
    run(async {
        let queue = Arc::new(Memory::faulty(64 << 20));
        let a = Node::ready(queue.clone(), settings(1, 1)).await;
        for number in 0..100 {
            queue.lose_replies(u32::from(number % 3 == 0));
            a.push("t", number).expect("taken");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        wait_for("all told", WAIT, || a.acknowledged().len() == 100).await;
        wait_for("all heard", WAIT, || a.heard_count() >= 100).await;
        assert_eq!(a.heard(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_queue_that_comes_back_empty_is_given_again_what_it_had_acknowledged() {
    run(async {
        let queue = Arc::new(Memory::faulty(64 << 20));
        let a = Node::ready(queue.clone(), settings(1, 1)).await;
        let b = Node::ready(queue.clone(), settings(2, 1)).await;
        for number in 0..50 {
            (if number % 2 == 0 { &a } else { &b }).push("t", number).expect("taken");
        }
        wait_for("all heard", WAIT, || a.heard().len() == 50 && b.heard().len() == 50).await;
        queue.restart(false);
        for number in 50..100 {
            (if number % 2 == 0 { &a } else { &b }).push("t", number).expect("taken");
        }
        wait_for("all heard", WAIT, || a.heard().len() == 100 && b.heard().len() == 100).await;
        let late = Node::ready(queue, settings(3, 1)).await;
        wait_for("the replay", WAIT, || late.heard_ids().len() == 100).await;
        assert_eq!(late.heard_ids(), a.heard_ids(), "the old order is kept");
        assert_eq!(a.heard_ids(), b.heard_ids());
        assert_eq!(a.count(Count::LogReplayed) + b.count(Count::LogReplayed), 50);
        assert_eq!(a.times(|event| matches!(event, LogEvent::Lost { .. })), 0);
    });
}

#[test]
fn a_queue_that_is_away_refuses_when_the_wait_is_over_and_says_down_and_up() {
    run(async {
        let queue = Arc::new(Memory::faulty(64 << 20));
        let mut short = settings(1, 1);
        short.limits.pending_timeout = Duration::from_millis(700);
        let a = Node::ready(queue.clone(), short).await;
        queue.set_away(true);
        a.push("t", 1).expect("it waits");
        assert_eq!(a.outcome(1).await, Err(Refusal::QueueUnavailable));
        a.until("down", |event| *event == LogEvent::Down).await;
        wait_for("refusal at once", WAIT, || a.push("t", 2) == Err(Refusal::QueueUnavailable)).await;
        queue.set_away(false);
        a.until("up", |event| *event == LogEvent::Up).await;
        a.push("t", 3).expect("taken");
        assert!(a.outcome(3).await.is_ok());
        wait_for("it heard", WAIT, || a.heard_count() > 0).await;
        assert_eq!(a.heard(), [3]);
    });
}

#[test]
fn a_second_node_with_the_same_id_refuses_to_start_and_names_the_first() {
    run(async {
        let queue = Arc::new(Memory::new(1 << 20));
        let a = Node::ready(queue.clone(), settings(1, 1)).await;
        let b = Node::start(queue.clone(), settings(1, 1));
        b.until("a refusal", |event| matches!(event, LogEvent::Failed(why) if why.contains("node 1"))).await;
        a.log.close().await;
        let c = Node::ready(queue, settings(1, 1)).await;
        c.push("t", 1).expect("taken");
        assert!(c.outcome(1).await.is_ok());
    });
}

#[test]
fn a_node_with_another_number_of_shards_refuses_to_start() {
    run(async {
        let queue = Arc::new(Memory::new(1 << 20));
        let _a = Node::ready(queue.clone(), settings(1, 2)).await;
        let b = Node::start(queue, settings(2, 3));
        b.until("a refusal", |event| matches!(event, LogEvent::Failed(why) if why.contains("2 shards"))).await;
    });
}

#[expect(clippy::disallowed_types, reason = "held to take a value out, by a test")]
type Once = std::sync::Mutex<Option<Live>>;

/// A queue whose first live channel never brings anything.
struct Deaf {
    queue: Memory,
    subscriptions: AtomicUsize,
    /// The first one's other end.
    _silent: tokio::sync::mpsc::Sender<ws_cluster::broker::News>,
    first: Once,
}

impl Broker for Deaf {
    fn join(&self, shards: u16) -> Pending<'_, ()> {
        self.queue.join(shards)
    }
    fn open(&self, shard: u16, open: Open) -> Pending<'_, Opened> {
        self.queue.open(shard, open)
    }
    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended> {
        self.queue.append(shard, append)
    }
    fn read(&self, shard: u16, after: Position, entries_max: usize) -> Pending<'_, Vec<Entry>> {
        self.queue.read(shard, after, entries_max)
    }
    fn subscribe(&self, shard: u16) -> Pending<'_, Live> {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        match self.first.lock().expect("no panic").take() {
            Some(live) => Box::pin(std::future::ready(Ok(live))),
            None => self.queue.subscribe(shard),
        }
    }
    fn retain(&self, shard: u16, retain: Retain) -> Pending<'_, Retained> {
        self.queue.retain(shard, retain)
    }
    fn retained(&self, shard: u16, cursor: Option<Bytes>, values_max: usize) -> Pending<'_, RetainedPage> {
        self.queue.retained(shard, cursor, values_max)
    }
    fn claim(&self, claim: Claim) -> Pending<'_, Claimed> {
        self.queue.claim(claim)
    }
    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()> {
        self.queue.release(node, boot)
    }
    fn keeps_data(&self) -> bool {
        self.queue.keeps_data()
    }
    fn takes_values(&self) -> bool {
        self.queue.takes_values()
    }
}

#[test]
fn a_live_channel_that_brings_nothing_is_asked_for_anew() {
    run(async {
        let (silent, news) = tokio::sync::mpsc::channel(1);
        let first = Once::new(Some(Live::news(news)));
        let queue =
            Arc::new(Deaf { queue: Memory::new(64 << 20), subscriptions: AtomicUsize::new(0), _silent: silent, first });
        let a = Node::ready(queue.clone(), settings(1, 1)).await;
        let pushed = std::cell::Cell::new(0);
        wait_for("a second subscription", WAIT, || {
            a.push("t", pushed.get()).expect("taken");
            pushed.set(pushed.get() + 1);
            queue.subscriptions.load(Ordering::Relaxed) > 1
        })
        .await;
        wait_for("all heard", WAIT, || a.heard_count() as u64 == pushed.get()).await;
        assert_eq!(a.heard(), (0..pushed.get()).collect::<Vec<_>>());
    });
}
