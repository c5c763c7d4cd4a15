//! A tag's last value outlives the log's window: it is in the queue's store, and a starting node finds it there.

use crate::support::{Client, Cluster, Config, Node, Redis, bounded, eventually, json, redis::Persistence};

/// The field of the tests' project's tag `quiet`.
const QUIET: &str = "502\0quiet";

/// A log of one shard that soon forgets.
fn forgetful() -> Config {
    Config::new().flags(&["--shards", "1"]).limit("log_bytes_max", 1 << 20)
}

async fn over_redis(nodes: u16, config: Config) -> Cluster {
    Cluster::over(Redis::start(Persistence::None).await, nodes, config).await
}

fn redis(cluster: &Cluster) -> &Redis {
    cluster.redis.as_ref().expect("a Redis")
}

/// Waits until the store has the tag.
async fn stored(cluster: &Cluster) {
    eventually("the last value is in the store", async || {
        redis(cluster).command(&["HEXISTS", "{ws-cluster:0}:last", QUIET]).await.starts_with(":1")
    })
    .await;
}

/// Publishes to another tag until the log begins behind what it holds now.
async fn flood(cluster: &Cluster) {
    let answer = redis(cluster).command(&["HGET", "{ws-cluster:0}:meta", "offset"]).await;
    let offset: u64 = answer.lines().nth(1).and_then(|text| text.parse().ok()).expect("the log's offset");
    let line = format!("{}\n", json!({"tags": ["loud"], "data": "x".repeat(1200)}));
    eventually("the log is trimmed", async || {
        let (_, answers) = cluster.a().api().batch(&line.repeat(500)).await;
        assert!(answers.iter().all(|answer| answer["code"] == 1), "{answers:?}");
        let first = redis(cluster).command(&["XRANGE", "{ws-cluster:0}:log", "-", "+", "COUNT", "1"]).await;
        let id = first.lines().find(|line| line.contains('-')).expect("an entry");
        id.split_once('-').and_then(|(_, first)| first.parse::<u64>().ok()).is_some_and(|first| first > offset)
    })
    .await;
}

/// On each node a subscriber that holds `last` gets nothing, and then the next publication, which follows on it.
async fn chain_goes_on(nodes: &[&Node], last: &str) {
    let mut clients = Vec::new();
    for node in nodes {
        let mut client = Client::user(node, "ann").await;
        let subscribe = json!({"type": "subscribe", "tags": [{"tag": "quiet", "since": last}]});
        assert_eq!(client.ask(subscribe).await["code"], 1);
        client.silent().await;
        clients.push(client);
    }
    let next = nodes[0].api().publish("quiet", json!("next")).await;
    for client in &mut clients {
        assert_eq!(client.next().await, json!({"tag": "quiet", "id": next, "prev": last, "payload": "next"}));
    }
}

async fn has_snapshot(node: &Node, id: &str, prev: &str) {
    let mut client = Client::user(node, "bob").await;
    client.subscribe(&["quiet"]).await;
    let expected = json!({"tag": "quiet", "id": id, "prev": prev, "snapshot": true, "payload": "second"});
    assert_eq!(client.next().await, expected);
}

#[test]
fn a_node_that_starts_knows_a_tag_that_the_log_has_let_go_of() {
    bounded(async {
        let cluster = over_redis(1, forgetful()).await;
        let first = cluster.a().api().publish("quiet", json!("first")).await;
        let second = cluster.a().api().publish("quiet", json!("second")).await;
        stored(&cluster).await;
        flood(&cluster).await;
        let late = cluster.another_node().await;
        has_snapshot(&late, &second, &first).await;
        assert!(late.metric("ws_retained_values_total event=\"loaded\"").await >= 1.0);
        chain_goes_on(&[cluster.a(), &late], &second).await;
    });
}

#[test]
fn nodes_that_were_all_down_know_it_too() {
    bounded(async {
        let mut cluster = over_redis(1, forgetful()).await;
        let first = cluster.a().api().publish("quiet", json!("first")).await;
        let second = cluster.a().api().publish("quiet", json!("second")).await;
        stored(&cluster).await;
        flood(&cluster).await;
        cluster.nodes[0].signal("KILL");
        cluster.nodes[0].exited().await;
        let next = cluster.another_node().await;
        has_snapshot(&next, &second, &first).await;
        chain_goes_on(&[&next], &second).await;
    });
}

#[test]
fn a_redis_that_comes_back_empty_is_given_the_last_values_again() {
    bounded(async {
        let mut cluster = over_redis(2, forgetful()).await;
        let first = cluster.a().api().publish("quiet", json!("first")).await;
        let second = cluster.b().api().publish("quiet", json!("second")).await;
        stored(&cluster).await;
        cluster.redis.as_mut().expect("a Redis").restart().await;
        stored(&cluster).await;
        flood(&cluster).await;
        let third = cluster.another_node().await;
        has_snapshot(&third, &second, &first).await;
        chain_goes_on(&[cluster.a(), cluster.b(), &third], &second).await;
    });
}
