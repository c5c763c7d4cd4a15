//! What is acknowledged arrives once and in order over Redis as exchanges run it: behind sentinels, as a cluster, over
//! TLS as a user who may do no more than he must.
//!
//! Method: as in `faults.rs`, with real sentinels and a real cluster of three masters. A replica that is to be promoted is
//! cut off for a moment before its master goes, so that it surely lacks what was acknowledged. The old master comes back:
//! killed and empty behind sentinels, merely stopped in the cluster.

mod support;

use std::{path::PathBuf, time::Duration};

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
    "+ssubscribe",
    // Where the masters are.
    "+cluster|info",
    "+cluster|slots",
    // Whether replicas have an append, or the disk (`ack`).
    "+wait",
    // The log and the leases.
    "+eval",
    "+evalsha",
    "+script|load",
    "+time",
    "+publish",
    "+spublish",
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

/// What the sentinels let a node's user do.
const RIGHTS_AT_SENTINELS: &[&str] =
    &["-@all", "+ping", "+info", "+client|id", "+sentinel|get-master-addr-by-name", "+sentinel|master"];

/// Makes a user of few rights.
async fn grant(redis: &Redis, rights: &[&str]) {
    let user = [&["ACL", "SETUSER", "node", "on", ">pass:w@rd"], rights].concat();
    let made = redis.command(&user).await;
    assert!(made.starts_with("+OK"), "{made}");
}

/// Asserts that nothing was asked for that the user may not do.
async fn expect_enough_rights(redis: &Redis) {
    let denied = redis.command(&["ACL", "LOG"]).await;
    assert!(denied.starts_with("*0"), "{denied}");
}

/// The same URL, as that user.
fn as_user(url: &str) -> String {
    url.replace("://", "://node:pass%3Aw%40rd@")
}

/// Takes a master away by this signal, in a way that its replica lacks its last moments: it is stopped and cut off, else
/// it would read them later.
async fn lose(master: &Redis, replica: &Redis, by: &str) {
    replica.signal("STOP");
    master.command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    sleep(Duration::from_millis(400)).await;
    master.signal(by);
    replica.signal("CONT");
}

async fn replayed(node: &Node) -> f64 {
    node.metric("ws_log_records_total event=\"replayed\"").await
}

#[test]
fn a_fail_over_by_sentinels_loses_nothing_and_the_old_master_is_left_alone() {
    let report = alone(async {
        let mut set = Sentinels::start().await;
        for redis in [&set.master, &set.replica] {
            grant(redis, RIGHTS).await;
        }
        for sentinel in &set.sentinels {
            grant(sentinel, RIGHTS_AT_SENTINELS).await;
        }
        // One that hangs is passed over: it takes connections and never answers.
        let hung = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let before = format!("://{},", hung.local_addr().expect("its address"));
        let url = set.url().replace("://", &before);
        let url = as_user(&url) + "?sentinelUsername=node&sentinelPassword=pass%3Aw%40rd";
        let cluster = Cluster::at(url, 2, roomy()).await;
        under_load("sentinel fail-over", cluster, 2, duration(), async |cluster| {
            sleep(Duration::from_secs(2)).await;
            lose(&set.master, &set.replica, "KILL").await;
            eventually("the replica is promoted", async || set.replica.command(&["ROLE"]).await.contains("master"))
                .await;
            eventually("what it lacked is appended again", async || replayed(cluster.a()).await > 0.0).await;
            // It comes back as a master, empty and writable, until the sentinels tell it otherwise.
            set.master.restart().await;
            sleep(Duration::from_millis(500)).await;
            if set.master.command(&["ROLE"]).await.contains("master") {
                assert!(set.master.command(&["DBSIZE"]).await.starts_with(":0"), "a stale master was written to");
            }
            for redis in set.sentinels.iter().chain([&set.replica]) {
                expect_enough_rights(redis).await;
            }
        })
        .await
    });
    expect_clean(&report);
}

#[test]
fn a_cluster_whose_slots_move_and_whose_master_is_lost_and_comes_back_loses_nothing() {
    let report = alone(async {
        let redis = RedisCluster::start().await;
        for member in redis.masters.iter().chain([&redis.replica]) {
            grant(member, RIGHTS).await;
        }
        let cluster = Cluster::at(as_user(&redis.url()), 2, roomy()).await;
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
            let RedisCluster { masters, replica } = &redis;
            lose(&masters[1], replica, "STOP").await;
            eventually("the replica is promoted", async || replica.command(&["ROLE"]).await.contains("master")).await;
            eventually("what it lacked is appended again", async || replayed(cluster.a()).await > 0.0).await;
            for member in [&masters[0], &masters[2], replica] {
                expect_enough_rights(member).await;
            }
            // It goes on where it stood, with what was sent to it and for a moment as a master.
            masters[1].signal("CONT");
            eventually("the old master follows", async || masters[1].command(&["ROLE"]).await.contains("slave")).await;
        })
        .await
    });
    expect_clean(&report);
}

async fn slot_of(redis: &Redis, key: &str) -> u16 {
    let answer = redis.command(&["CLUSTER", "KEYSLOT", key]).await;
    answer.trim_start_matches(':').trim().parse().expect("a slot")
}

/// A Redis that takes TLS on the port given, and the flags of a node that it lets in.
async fn over_tls(certificates: &Certificates, tls_port: u16, more: &[&str]) -> (Redis, Config) {
    let texts = |paths: [PathBuf; 3]| paths.map(|path| path.to_string_lossy().into_owned());
    let [roots, certificate, key] = texts(certificates.server());
    let port = tls_port.to_string();
    let tls = [
        ["--tls-port", &port],
        ["--tls-ca-cert-file", &roots],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-auth-clients", "yes"],
    ];
    let redis = Redis::start_with(Persistence::None, &[tls.as_flattened(), more].concat()).await;
    grant(&redis, RIGHTS).await;
    let [_, certificate, key] = texts(certificates.client());
    let files = ["--redis_ca_file", &roots, "--redis_cert_file", &certificate, "--redis_key_file", &key];
    (redis, Config::new().flags(&files))
}

#[test]
fn tls_with_an_own_authority_and_a_user_of_few_rights_carry_pushes() {
    bounded(async {
        let (certificates, port) = (Certificates::new(), free_port());
        let (redis, config) = over_tls(&certificates, port, &[]).await;
        let cluster = Cluster::at(as_user(&format!("rediss://127.0.0.1:{port}/0")), 2, config).await;
        let mut client = Client::user(cluster.b(), "ann").await;
        client.subscribe(&["gold"]).await;
        for value in 0..20 {
            cluster.a().api().publish("gold", json!(value)).await;
            assert_eq!(client.next().await["payload"], value);
        }
        // Last values are written within a second or two.
        eventually("last values are stored", async || {
            redis.command(&["KEYS", "{ws-cluster:*}:last"]).await.contains(":last\r\n")
        })
        .await;
        expect_enough_rights(&redis).await;
    });
}

#[test]
fn a_cluster_over_tls_carries_pushes() {
    bounded(async {
        let (certificates, port) = (Certificates::new(), free_port());
        let clustered =
            ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &free_port().to_string()];
        let (redis, config) = over_tls(&certificates, port, &clustered).await;
        redis.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        let cluster = Cluster::at(as_user(&format!("rediss-cluster://127.0.0.1:{port}")), 2, config).await;
        let mut client = Client::user(cluster.b(), "ann").await;
        client.subscribe(&["gold"]).await;
        cluster.a().api().publish("gold", json!(1)).await;
        assert_eq!(client.next().await["payload"], 1);
        expect_enough_rights(&redis).await;
    });
}

#[test]
fn a_redis_with_another_authority_is_not_trusted() {
    bounded(async {
        let (certificates, others, port) = (Certificates::new(), Certificates::new(), free_port());
        let (_redis, _) = over_tls(&certificates, port, &["--tls-auth-clients", "no"]).await;
        let wrong = others.roots().to_string_lossy().into_owned();
        let config = Config::new().flags(&["--redis_ca_file", &wrong]);
        let url = format!("rediss://127.0.0.1:{port}");
        let node = Node::launch(200, Queue::RedisAt(&url), Driver::Auto, &config).await;
        eventually("it says why", async || node.printed().iter().any(|line| line.contains("InvalidCertificate"))).await;
        assert!(node.printed().iter().all(|line| !line.starts_with("ready")));
    });
}

#[test]
fn without_the_replica_that_ack_asks_for_a_push_is_not_acknowledged() {
    bounded(async {
        let redis = Redis::start_with(Persistence::None, &["--repl-diskless-sync-delay", "0"]).await;
        let config = Config::new().flags(&["--ack", "replica"]).limit("pending_timeout", "\"1s\"");
        let cluster = Cluster::at(redis.url(), 1, config).await;
        let push = json!({"tags": ["gold"], "data": 1});
        let refused = cluster.a().api().push(&push).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        let port = redis.port().to_string();
        let _replica = Redis::start_with(Persistence::None, &["--replicaof", "127.0.0.1", &port]).await;
        eventually("it is acknowledged", async || cluster.a().api().push(&push).await.status == 200).await;
    });
}
