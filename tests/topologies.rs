//! What is acknowledged arrives once and in order over Redis as exchanges run it: behind sentinels, as a cluster, over
//! TLS as a user who may do no more than he must.
//!
//! Method: as in `faults.rs`, with real sentinels and a real cluster of three masters. A replica that is to be promoted is
//! cut off for a moment before its master is killed, so that it surely lacks what was acknowledged.

mod support;

use std::time::Duration;

use support::{
    Client, Cluster, Config, Node, Redis, RedisCluster, Sentinels, bounded, bounded_by,
    checker::Report,
    eventually, json,
    node::{Driver, Queue},
    redis::{Persistence, free_port},
    scenario::{expect_clean, roomy, seconds, under_load},
    tls::Certificates,
};
use tokio::{sync::Mutex, time::sleep};

/// Scenarios that share a process take turns: each needs the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Longer than a fail-over and what follows take on a busy machine.
fn duration() -> Duration {
    seconds() + Duration::from_secs(3)
}

/// Runs a scenario; its comparison.
fn alone(scenario: impl Future<Output = Report>) -> Report {
    let mut report = Report::default();
    let _alone = ALONE.blocking_lock();
    bounded_by(duration() + Duration::from_secs(70), async { report = scenario.await });
    report
}

/// Kills a master whose replica lacks its last moments: it is stopped and cut off, else it would read them later.
async fn kill_behind(master: &mut Redis, replica: &Redis) {
    replica.signal("STOP");
    master.command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    sleep(Duration::from_millis(400)).await;
    master.kill();
    replica.signal("CONT");
}

async fn replayed(node: &Node) -> f64 {
    node.metric("ws_log_records_total event=\"replayed\"").await
}

#[test]
fn a_fail_over_by_sentinels_loses_nothing_and_the_old_master_is_left_alone() {
    let report = alone(async {
        let mut set = Sentinels::start().await;
        let cluster = Cluster::at(set.url(), 2, roomy()).await;
        under_load("sentinel fail-over", cluster, 2, duration(), async |cluster| {
            sleep(Duration::from_secs(2)).await;
            kill_behind(&mut set.master, &set.replica).await;
            eventually("the replica is promoted", async || set.replica.command(&["ROLE"]).await.contains("master"))
                .await;
            eventually("what it lacked is appended again", async || replayed(cluster.a()).await > 0.0).await;
            // It comes back as a master, empty and writable, until the sentinels tell it otherwise.
            set.master.restart().await;
            sleep(Duration::from_millis(500)).await;
            if set.master.command(&["ROLE"]).await.contains("master") {
                assert!(set.master.command(&["DBSIZE"]).await.starts_with(":0"), "a stale master was written to");
            }
        })
        .await
    });
    expect_clean(&report);
}

#[test]
fn a_cluster_whose_slots_move_and_whose_master_dies_loses_nothing() {
    let report = alone(async {
        let mut redis = RedisCluster::start().await;
        let cluster = Cluster::at(redis.url(), 2, roomy()).await;
        let duration = duration() + Duration::from_secs(2);
        under_load("cluster", cluster, 2, duration, async |cluster| {
            sleep(Duration::from_secs(1)).await;
            // Shard 2 goes from the third master to the first.
            let slot = slot_of(&redis.masters[0], "{ws-cluster:2}:log").await;
            redis.migrate(slot, &redis.masters[2], &redis.masters[0], Duration::from_millis(100)).await;
            let moved = redis.masters[0].command(&["EXISTS", "{ws-cluster:2}:log"]).await;
            assert!(moved.starts_with(":1"), "{moved}");
            sleep(Duration::from_secs(2)).await;
            let epochs = cluster.a().metric("ws_log_epochs_total").await;
            assert!(epochs >= 1.0, "a shard that moved has a new epoch");
            // Shards 0 and 3 are the second master's.
            let RedisCluster { masters, replica } = &mut redis;
            kill_behind(&mut masters[1], replica).await;
            eventually("the replica is promoted", async || replica.command(&["ROLE"]).await.contains("master")).await;
            eventually("what it lacked is appended again", async || replayed(cluster.a()).await > 0.0).await;
            masters[1].restart().await;
        })
        .await
    });
    expect_clean(&report);
}

async fn slot_of(redis: &Redis, key: &str) -> u16 {
    let answer = redis.command(&["CLUSTER", "KEYSLOT", key]).await;
    answer.trim_start_matches(':').trim().parse().expect("a slot")
}

/// What a node's user must be able to do, and no more; `docs/operating.md` shows the same.
const RIGHTS: &[&str] = &[
    "resetkeys",
    "~ws-cluster:*",
    "~{ws-cluster:*",
    "resetchannels",
    "&{ws-cluster:*",
    "-@all",
    // The connections.
    "+ping",
    "+select",
    "+info",
    "+client|id",
    "+subscribe",
    // The log and the leases.
    "+eval",
    "+evalsha",
    "+script|load",
    "+time",
    "+publish",
    "+xadd",
    "+xtrim",
    "+xrange",
    "+xinfo|stream",
    "+exists",
    "+del",
    "+get",
    "+set",
    "+pttl",
    "+hget",
    "+hset",
    "+hsetnx",
    "+hmget",
    "+hdel",
    "+hgetall",
    "+rpush",
    "+lindex",
    "+lpop",
    // Last values.
    "+hlen",
    "+hstrlen",
    "+hscan",
    "+unlink",
    "+zadd",
    "+zcard",
    "+zpopmin",
];

#[test]
fn tls_with_an_own_authority_and_a_user_of_few_rights_carry_pushes() {
    bounded(async {
        let certificates = Certificates::new();
        let port = free_port();
        let [roots, certificate, key] = certificates.server().map(|path| path.to_string_lossy().into_owned());
        let redis = Redis::start_with(
            Persistence::None,
            &[
                ["--tls-port", &port.to_string()],
                ["--tls-ca-cert-file", &roots],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-auth-clients", "yes"],
            ]
            .concat(),
        )
        .await;
        let user = [&["ACL", "SETUSER", "node", "on", ">pass:w@rd"], RIGHTS].concat();
        assert!(redis.command(&user).await.starts_with("+OK"));
        let url = format!("rediss://node:pass%3Aw%40rd@127.0.0.1:{port}/0");
        let [_, certificate, key] = certificates.client().map(|path| path.to_string_lossy().into_owned());
        let files = ["--redis_ca_file", &roots, "--redis_cert_file", &certificate, "--redis_key_file", &key];
        let config = Config::new().flags(&files);
        let cluster = Cluster::at(url, 2, config).await;
        let mut client = Client::user(cluster.b(), "ann").await;
        client.subscribe(&["gold"]).await;
        for value in 0..20 {
            cluster.a().api().publish("gold", json!(value)).await;
            assert_eq!(client.next().await["payload"], value);
        }
        // Last values are written within a second or two, trims and all.
        eventually("last values are stored", async || {
            let keys = redis.command(&["KEYS", "{ws-cluster:*}:last"]).await;
            keys.contains(":last\r\n")
        })
        .await;
        let denied = redis.command(&["ACL", "LOG"]).await;
        assert!(denied.starts_with("*0"), "{denied}");
    });
}

#[test]
fn a_redis_with_another_authority_is_not_trusted() {
    bounded(async {
        let (certificates, others) = (Certificates::new(), Certificates::new());
        let port = free_port();
        let [roots, certificate, key] = certificates.server().map(|path| path.to_string_lossy().into_owned());
        let _redis = Redis::start_with(
            Persistence::None,
            &[
                ["--tls-port", &port.to_string()],
                ["--tls-ca-cert-file", &roots],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-auth-clients", "no"],
            ]
            .concat(),
        )
        .await;
        let url = format!("rediss://127.0.0.1:{port}");
        let wrong = others.roots().to_string_lossy().into_owned();
        let config = Config::new().flags(&["--redis_ca_file", &wrong]);
        let node = Node::launch(200, Queue::RedisAt(&url), Driver::Auto, &config).await;
        eventually("it says why", async || {
            node.printed().iter().any(|line| line.contains("UnknownIssuer") || line.contains("certificate"))
        })
        .await;
        assert!(node.printed().iter().all(|line| !line.starts_with("ready")));
    });
}
