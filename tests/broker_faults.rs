//! The log over a real Redis that is cut, killed, emptied, stopped: what is acknowledged is heard once by every node,
//! in one order, and nothing else is claimed.
//!
//! Method: two nodes' logs in this thread push numbers while a fault is made in an own Redis process; when all is
//! well again, what submitters were told is compared with what each node heard.

mod broker_support;

use std::{cell::Cell, collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use broker_support::{
    Node,
    proxy::Proxy,
    run,
    server::{Keeps, RedisServer, is_available},
    settings, wait_for,
};
use ws_cluster::{
    broker::{
        Durability,
        log::LogEvent,
        redis::{Redis, RedisSettings, TlsFiles},
    },
    metrics::Count,
    model::Refusal,
};

/// How long the nodes have to come to rest after the last fault.
const SETTLE: Duration = Duration::from_secs(30);

fn redis(url: &str) -> Arc<Redis> {
    redis_with(url, 64 << 20)
}

fn redis_with(url: &str, log_bytes_max: usize) -> Arc<Redis> {
    let settings = RedisSettings { prefix: "ws".to_owned(), log_bytes_max, durability: Durability::Log };
    Arc::new(Redis::start(url, &TlsFiles::default(), settings).expect("a good URL"))
}

/// Two nodes, each with connections of its own.
async fn two_nodes(url: &str) -> [Rc<Node>; 2] {
    let (a, b) = futures_util::join!(Node::ready(redis(url), settings(1, 1)), Node::ready(redis(url), settings(2, 1)));
    [Rc::new(a), Rc::new(b)]
}

/// Both nodes push numbers until told to stop.
struct Load {
    nodes: [Rc<Node>; 2],
    next: Rc<Cell<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(nodes: &[Rc<Node>; 2]) -> Self {
        let (next, pushers) = (Rc::<Cell<u64>>::default(), nodes.clone());
        let shared = next.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                for node in &pushers {
                    for _ in 0..3 {
                        shared.set(shared.get() + 1);
                        let _ = node.push("t", shared.get());
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { nodes: nodes.clone(), next, task }
    }

    /// Stops, waits until every node has heard everything acknowledged, and checks the promise. How many were
    /// acknowledged.
    async fn check(self) -> usize {
        // What is pushed now that all is well shows that the way is open again.
        let quiet = self.next.get();
        wait_for("service after the fault", SETTLE, || {
            self.nodes.iter().all(|node| node.acknowledged().last() > Some(&quiet))
        })
        .await;
        self.task.abort();
        let acknowledged = || -> HashSet<u64> { self.nodes.iter().flat_map(|node| node.acknowledged()).collect() };
        wait_for("every outcome", SETTLE, || self.nodes.iter().all(|node| node.log.is_settled())).await;
        let sets = acknowledged();
        let misses = |node: &Node| -> usize {
            let heard: HashSet<u64> = node.heard().into_iter().collect();
            sets.difference(&heard).count()
        };
        wait_for("everything heard", SETTLE, || self.nodes.iter().all(|node| misses(node) == 0)).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let heard: Vec<_> = self.nodes.iter().map(|node| node.heard()).collect();
        for (node, heard) in self.nodes.iter().zip(&heard) {
            let distinct: HashSet<_> = heard.iter().collect();
            assert_eq!(distinct.len(), heard.len(), "heard twice");
            for number in heard {
                let told = self.nodes.iter().find_map(|node| node.told(*number));
                assert!(!matches!(told, Some(Err(refusal)) if refusal != Refusal::Unknown), "{number}: {told:?}");
            }
            assert_eq!(node.times(|event| matches!(event, LogEvent::Lost { .. })), 0, "a loss was told");
        }
        let sure: Vec<Vec<u64>> =
            heard.iter().map(|heard| heard.iter().copied().filter(|number| sets.contains(number)).collect()).collect();
        assert_eq!(sure[0].len(), sets.len());
        assert_eq!(sure[0], sure[1], "two nodes, two orders");
        sets.len()
    }
}

/// Runs two nodes under load over `server` while `fault` happens.
fn under(keeps: Keeps, fault: impl AsyncFnOnce(&mut RedisServer, &[Rc<Node>; 2])) {
    if !is_available() {
        return;
    }
    run(async {
        let mut server = RedisServer::start(keeps);
        let nodes = two_nodes(&server.url()).await;
        let load = Load::start(&nodes);
        tokio::time::sleep(Duration::from_millis(300)).await;
        fault(&mut server, &nodes).await;
        let acknowledged = load.check().await;
        assert!(acknowledged > 200, "only {acknowledged} were acknowledged");
    });
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[test]
fn connections_that_are_killed_again_and_again_lose_nothing() {
    under(Keeps::Nothing, async |server, nodes| {
        for kind in ["normal", "pubsub"].iter().cycle().take(20) {
            server.cli(&["CLIENT", "KILL", "TYPE", kind]);
            pause(100).await;
        }
        assert_eq!(nodes[0].count(Count::LogEpochs), 0, "a cut is no new epoch");
    });
}

#[test]
fn a_restart_with_its_data_loses_nothing() {
    under(Keeps::Everything, async |server, nodes| {
        for _ in 0..3 {
            server.kill();
            pause(300).await;
            server.launch();
            pause(700).await;
        }
        wait_for("a new epoch", SETTLE, || nodes[0].count(Count::LogEpochs) > 0).await;
    });
}

#[test]
fn a_restart_without_its_data_loses_nothing() {
    under(Keeps::Nothing, async |server, nodes| {
        for _ in 0..3 {
            server.kill();
            pause(300).await;
            server.launch();
            pause(1200).await;
        }
        wait_for("a replay", SETTLE, || nodes.iter().all(|node| node.count(Count::LogReplayed) > 0)).await;
    });
}

#[test]
fn an_emptied_redis_loses_nothing() {
    under(Keeps::Nothing, async |server, _| {
        for _ in 0..3 {
            server.cli(&["FLUSHALL"]);
            pause(1000).await;
        }
    });
}

#[test]
fn a_redis_that_stands_still_and_goes_on_loses_nothing() {
    under(Keeps::Nothing, async |server, nodes| {
        let said = |event: LogEvent| nodes.iter().all(|node| node.times(|said| *said == event) == 1);
        server.signal("STOP");
        pause(5000).await;
        wait_for("down, once", SETTLE, || said(LogEvent::Down)).await;
        server.signal("CONT");
        wait_for("up, once", SETTLE, || said(LogEvent::Up)).await;
    });
}

#[test]
fn a_redis_out_of_memory_refuses_and_recovers() {
    under(Keeps::Nothing, async |server, nodes| {
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        let is_refusal =
            |event: &LogEvent| matches!(event, LogEvent::Appended { result: Err(Refusal::QueueUnavailable), .. });
        wait_for("refusals", SETTLE, || nodes.iter().all(|node| node.times(is_refusal) > 0)).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        pause(1000).await;
    });
}

#[test]
fn lost_answers_and_cut_streams_neither_lose_nor_repeat() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let proxy = Proxy::start(server.port).await;
        let nodes = two_nodes(&proxy.url()).await;
        let load = Load::start(&nodes);
        for _ in 0..20 {
            pause(60).await;
            proxy.swallow_answers(true);
            pause(20).await;
            proxy.cut();
            proxy.swallow_answers(false);
        }
        assert!(load.check().await > 200);
    });
}

#[test]
fn a_promoted_replica_that_missed_writes_is_given_them() {
    if !is_available() {
        return;
    }
    run(async {
        let first = RedisServer::start_with(Keeps::Nothing, &["--repl-diskless-sync-delay", "0"]);
        let port = first.port.to_string();
        let replica = RedisServer::start_with(Keeps::Nothing, &["--replicaof", "127.0.0.1", &port]);
        let proxy = Proxy::start(first.port).await;
        let nodes = two_nodes(&proxy.url()).await;
        let load = Load::start(&nodes);
        let is_up = || replica.cli(&["INFO", "replication"]).contains("master_link_status:up");
        wait_for("the replica", SETTLE, is_up).await;
        replica.cli(&["REPLICAOF", "NO", "ONE"]);
        pause(200).await;
        proxy.turn_to(replica.port);
        proxy.cut();
        let have_replayed = || nodes.iter().all(|node| node.count(Count::LogReplayed) > 0);
        wait_for("what the replica missed", SETTLE, have_replayed).await;
        assert!(load.check().await > 200);
        let epochs = nodes.each_ref().map(|node| node.count(Count::LogEpochs));
        assert_eq!(epochs, [1, 1], "one fail-over, one epoch");
    });
}

#[test]
fn a_stalled_link_loses_nothing() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let proxy = Proxy::start(server.port).await;
        let nodes = two_nodes(&proxy.url()).await;
        let load = Load::start(&nodes);
        for _ in 0..2 {
            pause(300).await;
            proxy.stall(true);
            pause(3500).await;
            proxy.stall(false);
        }
        assert!(load.check().await > 200);
    });
}

/// The negative control: a queue that promises nothing does not pass.
#[cfg(feature = "plain-pubsub")]
#[test]
fn plain_publish_and_subscribe_loses_what_it_acknowledged() {
    use ws_cluster::broker::pubsub::PlainPubSub;
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let queue = || Arc::new(PlainPubSub::start(&server.url(), "ws").expect("a good URL"));
        let nodes =
            [Rc::new(Node::ready(queue(), settings(1, 1)).await), Rc::new(Node::ready(queue(), settings(2, 1)).await)];
        pause(1500).await;
        let load = Load::start(&nodes);
        for _ in 0..20 {
            pause(100).await;
            server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        }
        pause(1000).await;
        load.task.abort();
        pause(1000).await;
        let acknowledged: HashSet<u64> = nodes.iter().flat_map(|node| node.acknowledged()).collect();
        let heard: HashSet<u64> = nodes[0].heard().into_iter().collect();
        assert!(acknowledged.len() > 200);
        assert!(acknowledged.difference(&heard).count() > 0, "the check has gone blind");
    });
}

#[test]
fn a_node_that_joins_under_load_hears_all_of_the_log_once() {
    under(Keeps::Nothing, async |server, nodes| {
        let late = Node::ready(redis(&server.url()), settings(3, 1)).await;
        pause(500).await;
        let all = Node::heard_count;
        wait_for("the same log", SETTLE, || all(&late) > 100 && all(&late).abs_diff(all(&nodes[0])) < 200).await;
        let (warm, live) = (late.heard_as(true), late.heard());
        assert!(!warm.is_empty() && !live.is_empty());
        let both = [warm, live].concat();
        assert_eq!(both, nodes[0].heard()[..both.len()], "its log is the others'");
    });
}

#[test]
fn two_nodes_with_one_id_do_not_both_run_and_a_lost_lease_stops_the_first() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let a = Node::ready(redis(&server.url()), settings(1, 1)).await;
        let b = Node::start(redis(&server.url()), settings(1, 1));
        b.until("a refusal", |event| matches!(event, LogEvent::Failed(why) if why.contains("node 1"))).await;
        server.cli(&["SET", "ws:node:1", "0000beef|another", "PX", "4000"]);
        a.until("the loss", |event| matches!(event, LogEvent::LeaseLost { holder } if holder.contains("beef"))).await;
        assert_eq!(a.push("t", 1), Err(Refusal::Stopping));
        a.until("the lease", |event| *event == LogEvent::LeaseRegained).await;
        a.push("t", 2).expect("taken again");
        a.outcome(2).await.expect("acknowledged");
        server.cli(&["DEL", "ws:node:1"]);
        wait_for("the lease restored", SETTLE, || server.cli(&["EXISTS", "ws:node:1"]) == "1").await;
    });
}

#[test]
fn what_a_stranger_writes_into_the_log_is_passed_over_and_left_behind() {
    under(Keeps::Nothing, async |server, nodes| {
        server.cli(&["XADD", "{ws:0}:log", "*", "who", "knows"]);
        pause(1500).await;
        server.cli(&["PUBLISH", "{ws:0}:live", "nonsense"]);
        server.cli(&["HSET", "{ws:0}:meta", "epoch", "x"]);
        wait_for("it passed over", SETTLE, || nodes.iter().all(|node| node.count(Count::LogPoison) == 1)).await;
    });
}

#[test]
fn a_thread_that_stands_still_beyond_its_lease_catches_up_from_its_cursor() {
    under(Keeps::Nothing, async |_, nodes| {
        stand_still(Duration::from_secs(11));
        pause(500).await;
        assert!(nodes.iter().all(|node| node.times(|event| matches!(event, LogEvent::LeaseLost { .. })) == 0));
    });
}

#[expect(clippy::disallowed_methods, reason = "standing still is what is tested")]
fn stand_still(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_node_that_does_not_take_its_events_loses_none_while_the_log_holds_them() {
    under(Keeps::Nothing, async |_, nodes| {
        nodes[1].pause(true);
        let waits = || nodes[0].heard_count() > 25_000;
        for round in 0..25 {
            (0..1000).for_each(|number| {
                let _ = nodes[0].push("t", 1_000_000_000 + 1000 * round + number);
            });
            pause(50).await;
        }
        wait_for("more than the events' queue holds", SETTLE, waits).await;
        nodes[1].pause(false);
    });
}

#[test]
fn a_node_behind_a_trimmed_log_is_told_of_the_loss_and_goes_on() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let a = Node::ready(redis_with(&server.url(), 1 << 20), settings(1, 1)).await;
        let b = Node::ready(redis_with(&server.url(), 1 << 20), settings(2, 1)).await;
        b.pause(true);
        for number in 0..40_000 {
            // The log holds some 2000 of these: whoever is further behind loses some, and this one must not.
            while number as usize > a.heard_count() + 400 || a.push_padded(number, 500).is_err() {
                pause(1).await;
            }
        }
        let lost = |node: &Node| node.count(Count::LogLost);
        wait_for("all heard by the other", SETTLE, || a.heard_count() == 40_000 || lost(&a) > 0).await;
        assert_eq!(lost(&a), 0, "it was never further behind than the log holds");
        b.pause(false);
        b.until("the loss", |event| matches!(event, LogEvent::Lost { shard: 0 })).await;
        wait_for("the end of the log", SETTLE, || b.heard().last() == Some(&39_999)).await;
        let heard = b.heard();
        assert!(heard.is_sorted() && heard.len() < 40_000 && lost(&b) > 0);
    });
}
