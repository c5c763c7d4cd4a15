//! What is acknowledged arrives once and in order, whatever befalls the queue, a link or a node.
//!
//! Method: two nodes over a real Redis, two thousand pushes a second through both (back-end connections and HTTP
//! batches), subscribers on both that stay connected; a fault in the middle; then what the pushers were told is
//! compared with what every subscriber got. The same comparison must fail on a plain pub/sub queue, or it proves
//! nothing. `WS_FAULTS_SECONDS` is how long is pushed (6 by default; `make faults` takes 20).
//!
//! Where each fault is made (here, unless another file is named; `broker_faults.rs` does it to logs without nodes):
//!
//! | fault | test |
//! |---|---|
//! | connections killed in a loop | `cutting_every_connection_each_second_…`, `cutting_only_the_subscriptions_…` |
//! | Redis stopped (SIGSTOP), asleep (DEBUG SLEEP) | `a_stopped_redis_…`, `a_sleeping_redis_…` |
//! | Redis killed, back empty, with its file, twice | `redis_killed_and_back_empty_…`, `…_with_its_data_…`, `…_at_once_again_…` |
//! | the same while a node stands still | `redis_killed_while_a_node_is_stopped_…` |
//! | a replica promoted that lacks writes | `topologies.rs` (both), `broker_faults.rs::a_promoted_replica_…` |
//! | Sentinel fail-over; the old master comes back writable | `topologies.rs::a_fail_over_by_sentinels_…` |
//! | slot migration; loss of a cluster's master that comes back | `topologies.rs::a_cluster_whose_slots_move_…` |
//! | output buffer overrun | `a_subscription_that_redis_ends_for_its_backlog_…` |
//! | a subscriber that lags | `a_node_that_is_stopped_for_three_seconds_…`, `broker_faults.rs::a_node_that_does_not_take_its_events_…` |
//! | a live channel that goes deaf | `broker_log.rs::a_live_channel_that_brings_nothing_…` |
//! | replies lost | `lost_replies_…`, `broker_log.rs::lost_replies_…` |
//! | links stalled, cut | `a_node_whose_link_stalls_…`, `a_node_that_is_cut_off_…` |
//! | publishing nodes killed | `what_killed_nodes_acknowledged_…`; at every step: `simulation`, the log's model tests |
//! | a node with clients killed, which resume elsewhere | `clients_of_a_killed_node_resume_at_another` |
//! | FLUSHALL; out of memory | `a_flushed_redis_…`; `a_redis_out_of_memory_…` |
//! | two nodes with one id; a lease lost | `cluster.rs::…same_id_refuses_to_start`, `broker_faults.rs::two_nodes_with_one_id_…`; `…longer_than_its_lease_…` |
//! | the log trimmed past a node | `what_the_log_no_longer_holds_is_told_as_a_gap` |
//! | strangers' writes into the log | `broker_faults.rs::what_a_stranger_writes_…` |

mod support;

use std::time::Duration;

use support::{
    Client, Cluster, Config, Node, Redis, Setup, bounded, bounded_by,
    checker::{Pushed, Received, Report, check},
    eventually, http, json,
    node::{Driver, Queue},
    proxy::Link,
    redis::Persistence,
    run_with,
    scenario::{expect_clean, roomy, seconds, third, under_load},
};
use tokio::{sync::Mutex, time::sleep};

/// Scenarios that share a process take turns: each needs the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A run: what the nodes are, how long is pushed, and whose subscribers count.
struct Run {
    name: &'static str,
    persistence: Persistence,
    config: Config,
    /// The nodes reach Redis through a proxy: `Some(true)` all, `Some(false)` the last.
    proxied: Option<bool>,
    duration: Duration,
    nodes: u16,
    /// Subscribers are on the first so many nodes.
    watched: usize,
}

impl Run {
    fn new(name: &'static str) -> Self {
        let (persistence, config, duration) = (Persistence::None, roomy(), seconds());
        Self { name, persistence, config, proxied: None, duration, nodes: 2, watched: 2 }
    }

    /// Pushes at the nodes while `fault` happens; the comparison.
    fn with(self, fault: impl AsyncFnOnce(&mut Cluster)) -> Report {
        let mut report = Report::default();
        let _alone = ALONE.blocking_lock();
        bounded_by(self.duration + Duration::from_secs(60), async {
            let redis = Redis::start(self.persistence).await;
            let cluster = match self.proxied {
                None => Cluster::over(redis, self.nodes, self.config).await,
                Some(all) => Cluster::through_proxy(redis, self.nodes, all, self.config).await,
            };
            report = under_load(self.name, cluster, self.watched, self.duration, fault).await;
        });
        report
    }
}

/// A Redis that keeps its data.
fn on_file(name: &'static str) -> Run {
    Run { persistence: Persistence::AppendOnly, ..Run::new(name) }
}

#[test]
fn without_a_fault_everything_arrives_and_in_one_order() {
    let report = Run::new("no fault").with(async |_| {});
    expect_clean(&report);
    assert_eq!(report.unsure, 0, "{report}");
    assert!(report.divergent.is_empty(), "{report}");
    assert_eq!(report.gaps_told, 0, "{report}");
}

#[test]
fn redis_killed_and_back_empty_loses_nothing() {
    let report = Run::new("killed, back empty").with(async |cluster| {
        sleep(third()).await;
        let redis = cluster.redis.as_mut().expect("Redis");
        redis.kill();
        sleep(Duration::from_secs(1)).await;
        redis.restart().await;
    });
    expect_clean(&report);
}

#[test]
fn redis_killed_and_back_with_its_data_loses_nothing() {
    let report = on_file("killed, back with its file").with(async |cluster| {
        sleep(third()).await;
        let redis = cluster.redis.as_mut().expect("Redis");
        redis.kill();
        sleep(Duration::from_secs(1)).await;
        redis.restart().await;
    });
    expect_clean(&report);
}

#[test]
fn redis_killed_at_once_again_loses_nothing() {
    let report = Run::new("killed twice").with(async |cluster| {
        sleep(third()).await;
        let redis = cluster.redis.as_mut().expect("Redis");
        redis.restart().await;
        sleep(Duration::from_millis(700)).await;
        redis.restart().await;
    });
    expect_clean(&report);
}

#[test]
fn cutting_every_connection_each_second_loses_nothing() {
    let report = Run::new("connections cut").with(async |cluster| {
        let redis = cluster.redis.as_ref().expect("Redis");
        for _ in 0..seconds().as_secs() - 1 {
            sleep(Duration::from_secs(1)).await;
            redis.command(&["CLIENT", "KILL", "SKIPME", "yes"]).await;
        }
    });
    expect_clean(&report);
    assert!(report.divergent.is_empty(), "{report}");
}

#[test]
fn cutting_only_the_subscriptions_loses_nothing() {
    let report = Run::new("subscriptions cut").with(async |cluster| {
        let redis = cluster.redis.as_ref().expect("Redis");
        for _ in 0..(seconds().as_secs() - 1) * 2 {
            sleep(Duration::from_millis(500)).await;
            redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
    });
    expect_clean(&report);
    assert!(report.divergent.is_empty(), "{report}");
}

#[test]
fn a_node_that_is_stopped_for_three_seconds_catches_up() {
    let report = Run::new("node stopped").with(async |cluster| {
        sleep(third() / 2).await;
        cluster.b().signal("STOP");
        sleep(Duration::from_secs(3)).await;
        cluster.b().signal("CONT");
    });
    expect_clean(&report);
}

#[test]
fn a_stopped_redis_delays_and_loses_nothing() {
    let report = Run::new("Redis stopped").with(async |cluster| {
        sleep(third() / 2).await;
        let redis = cluster.redis.as_ref().expect("Redis");
        redis.signal("STOP");
        sleep(Duration::from_secs(2)).await;
        redis.signal("CONT");
    });
    expect_clean(&report);
}

#[test]
fn a_sleeping_redis_delays_and_loses_nothing() {
    let report = Run::new("Redis asleep").with(async |cluster| {
        sleep(third() / 2).await;
        cluster.redis.as_ref().expect("Redis").command(&["DEBUG", "SLEEP", "2"]).await;
    });
    expect_clean(&report);
}

#[test]
fn a_flushed_redis_loses_nothing() {
    let report = Run::new("flushed").with(async |cluster| {
        sleep(third()).await;
        cluster.redis.as_ref().expect("Redis").command(&["FLUSHALL"]).await;
    });
    expect_clean(&report);
}

#[test]
fn redis_killed_while_a_node_is_stopped_loses_nothing() {
    let report = on_file("Redis killed while a node is stopped").with(async |cluster| {
        sleep(third() / 2).await;
        cluster.b().signal("STOP");
        sleep(Duration::from_millis(500)).await;
        cluster.redis.as_mut().expect("Redis").restart().await;
        sleep(Duration::from_secs(1)).await;
        cluster.b().signal("CONT");
    });
    expect_clean(&report);
}

#[test]
fn lost_replies_make_no_duplicate_and_no_loss() {
    let report = Run { proxied: Some(true), ..Run::new("replies lost") }.with(async |cluster| {
        let proxy = cluster.proxy.as_ref().expect("a proxy");
        for _ in 0..seconds().as_secs() - 2 {
            sleep(Duration::from_millis(700)).await;
            // What is appended now is appended, and nobody is told.
            proxy.turn(Link::Deaf);
            sleep(Duration::from_millis(200)).await;
            proxy.turn(Link::Cut);
            sleep(Duration::from_millis(100)).await;
            proxy.turn(Link::Good);
        }
        assert!(proxy.swallowed() > 10, "hardly an answer was lost: {}", proxy.swallowed());
    });
    expect_clean(&report);
    assert!(report.divergent.is_empty(), "{report}");
}

#[test]
fn a_node_whose_link_stalls_catches_up() {
    let report = Run { proxied: Some(false), ..Run::new("one link stalled") }.with(async |cluster| {
        sleep(third() / 2).await;
        let proxy = cluster.proxy.as_ref().expect("a proxy");
        proxy.turn(Link::Stalled);
        sleep(Duration::from_millis(2500)).await;
        proxy.turn(Link::Good);
    });
    expect_clean(&report);
}

#[test]
fn a_node_that_is_cut_off_catches_up() {
    let report = Run { proxied: Some(false), ..Run::new("one node cut off") }.with(async |cluster| {
        sleep(third() / 2).await;
        let proxy = cluster.proxy.as_ref().expect("a proxy");
        proxy.turn(Link::Cut);
        sleep(Duration::from_secs(2)).await;
        proxy.turn(Link::Good);
    });
    expect_clean(&report);
}

#[test]
fn a_subscription_that_redis_ends_for_its_backlog_loses_nothing() {
    let report = Run::new("output buffer overrun").with(async |cluster| {
        let redis = cluster.redis.as_ref().expect("Redis");
        redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 32768 1"]).await;
        sleep(third() / 2).await;
        cluster.b().signal("STOP");
        sleep(Duration::from_secs(2)).await;
        cluster.b().signal("CONT");
    });
    expect_clean(&report);
}

#[test]
fn a_redis_out_of_memory_refuses_and_loses_nothing() {
    let report = Run::new("out of memory").with(async |cluster| {
        sleep(third()).await;
        let redis = cluster.redis.as_ref().expect("Redis");
        redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
        sleep(Duration::from_secs(1)).await;
        redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    });
    expect_clean(&report);
}

#[test]
fn a_node_that_is_stopped_for_longer_than_its_lease_comes_back_and_catches_up() {
    let run = Run { duration: seconds().max(Duration::from_secs(16)), ..Run::new("lease lost") };
    let report = run.with(async |cluster| {
        sleep(Duration::from_secs(1)).await;
        cluster.b().signal("STOP");
        sleep(Duration::from_secs(12)).await;
        cluster.b().signal("CONT");
    });
    expect_clean(&report);
}

#[test]
fn what_killed_nodes_acknowledged_arrives_at_the_others() {
    let report = Run { nodes: 4, watched: 1, ..Run::new("pushing nodes killed") }.with(async |cluster| {
        sleep(third() / 2).await;
        for node in &cluster.nodes[1..] {
            // Wherever it happens to be.
            sleep(Duration::from_millis(fastrand::u64(300..900))).await;
            node.signal("KILL");
        }
    });
    expect_clean(&report);
    assert!(report.unsure > 0, "the pushers of the killed nodes were not refused: {report}");
}

#[test]
fn what_the_log_no_longer_holds_is_told_as_a_gap() {
    let config = roomy().limit("log_bytes_max", 1 << 20);
    let report = Run { config, ..Run::new("log trimmed past a node") }.with(async |cluster| {
        // Else Redis would hold for the stopped node what the log no longer does.
        let redis = cluster.redis.as_ref().expect("Redis");
        redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 32768 1"]).await;
        sleep(Duration::from_millis(500)).await;
        cluster.b().signal("STOP");
        let filler = "x".repeat(200_000);
        for number in 0..250 {
            cluster.a().api().publish(&format!("filler{number}"), json!(filler)).await;
        }
        cluster.b().signal("CONT");
    });
    assert!(!report.lost.is_empty(), "the log was not trimmed, so nothing was shown: {report}");
    assert!(report.gaps_told > 0 && report.broken_chains.is_empty(), "a hole that nobody was told of: {report}");
    assert!(report.duplicated.is_empty() && report.reordered.is_empty() && report.closed.is_empty(), "{report}");
}

#[test]
fn clients_of_a_killed_node_resume_at_another() {
    run_with(Setup::TWO, Config::new(), async |cluster: Cluster| {
        let mut client = Client::user(cluster.b(), "ann").await;
        client.subscribe(&["gold"]).await;
        let api = cluster.a().api();
        for value in 0..5 {
            api.publish("gold", json!(value)).await;
        }
        let mut last = client.next_where(|message| message["payload"] == 4).await["id"].clone();
        cluster.b().signal("KILL");
        for value in 5..20 {
            api.publish("gold", json!(value)).await;
        }
        let mut client = Client::user(cluster.a(), "ann").await;
        client.ask(json!({"type": "subscribe", "tags": [{"tag": "gold", "since": last}]})).await;
        for value in 5..20 {
            let message = client.next().await;
            assert_eq!((&message["payload"], &message["prev"]), (&json!(value), &last), "{message}");
            last = message["id"].clone();
        }
    });
}

#[test]
fn without_redis_pushes_are_503_and_connections_stay_until_it_is_back() {
    run_with(Setup::TWO, Config::new(), async |mut cluster: Cluster| {
        let mut here = Client::user(cluster.a(), "ann").await;
        let mut there = Client::user(cluster.b(), "ann").await;
        there.subscribe(&["gold"]).await;
        let before = cluster.a().api().publish("gold", json!(1)).await;
        assert_eq!(there.next().await["id"], before);
        cluster.redis.as_mut().expect("Redis").kill();
        let refused = cluster.a().api().push(&json!({"uids": ["ann"], "data": "void"})).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.err(), "queue_unavailable");
        assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
        here.settle().await;
        there.settle().await;
        eventually("the node is not ready", async || http::get(cluster.a().metrics, "/ready").await.status == 503)
            .await;
        assert_eq!(http::get(cluster.a().metrics, "/live").await.status, 200);
        Client::user(cluster.b(), "bob").await.settle().await;
        cluster.redis.as_mut().expect("Redis").restart().await;
        eventually("pushes are accepted again", async || {
            cluster.a().api().push(&json!({"uids": ["ann"], "data": "again"})).await.status == 200
        })
        .await;
        for client in [&mut here, &mut there] {
            // The refused push may have waited and been delivered after all, but once and before.
            client.next_where(|message| message["payload"] == "again").await;
        }
        eventually("the node is ready", async || http::get(cluster.a().metrics, "/ready").await.status == 200).await;
        let after = cluster.b().api().publish("gold", json!(2)).await;
        let update = there.next_where(|message| message["id"] == *after).await;
        assert_eq!(update["prev"], before, "{update}");
    });
}

#[test]
fn a_node_waits_for_a_queue_that_is_down_at_its_start() {
    bounded(async {
        let mut redis = Redis::start(Persistence::None).await;
        redis.kill();
        let node = Node::launch(200, Queue::Redis(&redis), Driver::Auto, &Config::new()).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(http::get(node.metrics, "/ready").await.status, 503);
        assert_eq!(http::get(node.metrics, "/live").await.status, 200);
        redis.restart().await;
        node.wait_for_line("ready").await;
        let mut client = Client::user(&node, "ann").await;
        node.api().push_ok(&json!({"uids": ["ann"], "data": 1})).await;
        assert_eq!(client.next().await["payload"], 1);
    });
}

/// The control: where the promise is not kept, the comparison must say so.
#[cfg(feature = "plain-pubsub")]
#[test]
fn a_plain_pubsub_queue_fails_the_comparison() {
    let mut report = Report::default();
    let _alone = ALONE.blocking_lock();
    bounded_by(seconds() + Duration::from_secs(60), async {
        let redis = Redis::start(Persistence::None).await;
        let mut cluster = Cluster::over(redis, 0, roomy()).await;
        for id in [200, 201] {
            let queue = Queue::PlainPubSub(cluster.redis.as_ref().expect("Redis"));
            let node = Node::start(id, queue, Driver::Auto, &cluster.config).await;
            cluster.nodes.push(node);
        }
        report = under_load("plain pub/sub, connections cut", cluster, 2, seconds(), async |cluster| {
            let redis = cluster.redis.as_ref().expect("Redis");
            for _ in 0..seconds().as_secs() - 1 {
                sleep(Duration::from_secs(1)).await;
                redis.command(&["CLIENT", "KILL", "SKIPME", "yes"]).await;
            }
        })
        .await;
    });
    assert!(!report.lost.is_empty(), "the comparison is blind: {report}");
}

#[test]
fn the_redis_of_these_tests_forgets_or_remembers_as_told() {
    bounded(async {
        for (persistence, kept) in [(Persistence::None, "$-1"), (Persistence::AppendOnly, "$5")] {
            // Enough keys, each read so slowly (100 us) that it answers `INFO` while it still reads its file.
            let mut redis = Redis::start_with(persistence, &["--key-load-delay", "100"]).await;
            redis.command(&["EVAL", "for i = 1, 3000 do redis.call('set', i, i) end", "0"]).await;
            redis.command(&["SET", "key", "value"]).await;
            redis.restart().await;
            let answer = redis.command(&["GET", "key"]).await;
            assert!(answer.starts_with(kept), "{persistence:?}: {answer}");
            redis.signal("STOP");
            let asleep = tokio::time::timeout(Duration::from_millis(200), redis.command(&["PING"])).await;
            assert!(asleep.is_err(), "a stopped Redis answers nothing");
            redis.signal("CONT");
            redis.command(&["PING"]).await;
            let address = redis.address();
            drop(redis);
            assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it ends with its value");
        }
    });
}

fn pushed(number: u64, acknowledged: bool) -> Pushed {
    Pushed { pusher: 1, number, channel: "t".to_owned(), acknowledged }
}

fn received(numbers: &[u64]) -> Vec<Received> {
    let link = |at: usize| {
        let before = if at == 0 { String::new() } else { format!("id{}", numbers[at - 1]) };
        Some((format!("id{}", numbers[at]), before))
    };
    let message =
        |at: usize| Received::Message { pusher: 1, number: numbers[at], channel: "t".to_owned(), link: link(at) };
    (0..numbers.len()).map(message).collect()
}

#[test]
fn the_comparison_sees_each_kind_of_fault() {
    let all: Vec<Pushed> = (0..5).map(|number| pushed(number, true)).collect();
    let faults = |subscribers: &[Vec<Received>]| check(&all, subscribers);
    let clean = received(&[0, 1, 2, 3, 4]);
    assert_eq!(faults(&[clean.clone(), clean.clone()]).faults(), 0);
    let lost = faults(&[clean.clone(), received(&[0, 1, 3, 4])]);
    assert_eq!((lost.lost.len(), lost.faults()), (1, 1), "{lost}");
    let twice = faults(&[received(&[0, 1, 2, 2, 3, 4])]);
    assert_eq!(twice.duplicated.len(), 1, "{twice}");
    let reordered = faults(&[received(&[0, 2, 1, 3, 4]), clean.clone()]);
    assert_eq!((reordered.reordered.len(), reordered.divergent.len()), (1, 1), "{reordered}");
    let foreign = faults(&[received(&[0, 1, 2, 3, 4, 9])]);
    assert_eq!(foreign.foreign.len(), 1, "{foreign}");
    let mut hole = clean.clone();
    hole.remove(2);
    let broken = faults(&[hole.clone()]);
    assert_eq!((broken.broken_chains.len(), broken.lost.len()), (1, 1), "{broken}");
    hole.insert(2, Received::Gap { channel: "t".to_owned() });
    let told = faults(&[hole]);
    assert_eq!((told.broken_chains.len(), told.gaps_told, told.lost.len()), (0, 1, 1), "{told}");
    let mut closed = clean;
    closed.push(Received::Closed { how: "4008".to_owned() });
    assert_eq!(faults(&[closed]).closed.len(), 1);
    // What was not acknowledged may have been delivered or not.
    let unsure: Vec<Pushed> = (0..5).map(|number| pushed(number, number != 2)).collect();
    assert_eq!(check(&unsure, &[received(&[0, 1, 3, 4]), received(&[0, 1, 2, 3, 4])]).faults(), 0);
}
