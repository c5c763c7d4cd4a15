//! Where clients are sent, and what a node says of itself: `/ws/route`, `/ready`.
//!
//! Method: real nodes over Redis that fill, drain, die, lose their lease or their queue; their answers from outside.

use crate::support::{
    Client, Cluster, Config, Connect, Node, Setup, eventually, http, http::Response, raw::upgrade_request, run,
    run_with,
};

async fn routed(node: &Node) -> Response {
    http::get(node.ws, "/ws/route").await
}

/// The node that `node` names.
async fn chosen(node: &Node) -> Option<u64> {
    let answer = routed(node).await;
    (answer.status == 200).then(|| answer.payload()["node"].as_u64()).flatten()
}

async fn ready(node: &Node) -> (u16, String) {
    let answer = http::get(node.http, "/ready").await;
    (answer.status, if answer.status == 200 { String::new() } else { answer.err() })
}

#[test]
fn the_node_with_the_fewest_connections_is_named_and_never_one_that_drains_or_is_gone() {
    let config = Config::new().limit("drain", "\"20s\"").limit("close_timeout", "\"500ms\"");
    run_with(Setup { nodes: 3, ..Setup::TWO }, config, async |mut cluster: Cluster| {
        let ids: Vec<u64> = cluster.nodes.iter().map(|node| node.id.into()).collect();
        let mut clients = Vec::new();
        for (node, count) in [(0, 8), (1, 1), (2, 6)] {
            for number in 0..count {
                clients.push(Client::user(&cluster.nodes[node], &format!("u{node}-{number}")).await);
            }
        }
        for node in &cluster.nodes {
            // What was sent there counts, so that only a node that knows all three names it again and again; and asking often fills
            // the gap until the next report.
            eventually("the emptiest is named", async || {
                let named = [chosen(node).await, chosen(node).await, chosen(node).await];
                let answer = routed(node).await;
                if answer.status != 200 || named.iter().any(|named| *named != Some(ids[1])) {
                    return false;
                }
                let payload = answer.payload();
                let is_emptiest = payload["node"] == ids[1];
                if is_emptiest {
                    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
                    assert_eq!(payload["addr"], cluster.nodes[1].ws.to_string(), "{payload}");
                }
                is_emptiest
            })
            .await;
        }
        a_connect_is_redirected(cluster.a(), &cluster.nodes[1]).await;
        cluster.nodes[1].signal("TERM");
        for node in [&cluster.nodes[0], &cluster.nodes[2]] {
            eventually("the one that drains is not named", async || chosen(node).await != Some(ids[1])).await;
            for _ in 0..10 {
                assert_ne!(chosen(node).await, Some(ids[1]));
            }
        }
        assert_ne!(chosen(&cluster.nodes[1]).await, Some(ids[1]), "not even by itself");
        let killed = cluster.nodes.pop().expect("three nodes");
        killed.signal("KILL");
        eventually("the one that died is not named", async || {
            chosen(cluster.a()).await == Some(ids[0]) && chosen(cluster.a()).await == Some(ids[0])
        })
        .await;
    });
}

/// A burst of askers fills the gaps between the nodes instead of one of them.
#[test]
fn a_burst_is_spread() {
    run(Setup { nodes: 3, ..Setup::TWO }, async |cluster: Cluster| {
        for node in &cluster.nodes {
            eventually("all three are known", async || {
                let mut seen = std::collections::BTreeSet::new();
                for _ in 0..6 {
                    seen.extend(chosen(node).await);
                }
                seen.len() == 3
            })
            .await;
        }
        let mut counts = std::collections::BTreeMap::<u64, usize>::new();
        for _ in 0..30 {
            *counts.entry(chosen(cluster.a()).await.expect("a node")).or_default() += 1;
        }
        // A sign of life in the middle forgets what was sent to its node.
        assert!(counts.len() == 3 && counts.values().all(|count| (4..=18).contains(count)), "{counts:?}");
        assert_eq!(cluster.a().metric("ws_routes_total result=\"no_node\"").await, 0.0);
    });
}

async fn a_connect_is_redirected(asked: &Node, expected: &Node) {
    let target = Connect::user("ann").target();
    let query = target.split_once('?').expect("a query").1;
    let request = upgrade_request(&format!("/ws/route?{query}"), "x");
    let answer = http::raw(asked.ws, request.as_bytes()).await;
    assert_eq!(answer.status, 307, "{}", answer.text());
    let location = answer.header("location").expect("a Location");
    assert_eq!(location, format!("ws://{}/ws/connect?{query}", expected.ws));
    let target = location.strip_prefix(&format!("ws://{}", expected.ws)).expect("the node");
    let there = http::raw(expected.ws, upgrade_request(target, "x").as_bytes()).await;
    assert_eq!(there.status, 101, "the same query connects there");
}

#[test]
fn a_node_alone_names_itself_with_its_public_address() {
    let config = Config::new().flags(&["--public_addr", "wss://ws.example.com"]);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        eventually("it names itself", async || routed(cluster.a()).await.status == 200).await;
        let payload = routed(cluster.a()).await.payload();
        assert_eq!(payload["addr"], "wss://ws.example.com", "{payload}");
        let redirected = http::raw(cluster.a().ws, upgrade_request("/ws/route?pid=1&x=%20", "x").as_bytes()).await;
        assert_eq!(redirected.header("location"), Some("wss://ws.example.com/ws/connect?pid=1&x=%20"));
        let handshakes = cluster.a().metric("ws_handshakes_total result=\"redirected\"").await;
        assert_eq!(handshakes, 1.0);
    });
}

#[test]
fn ready_turns_while_the_queue_stands_still_and_comes_back_by_itself() {
    let config = Config::new().limit("canary_timeout", "\"1s\"");
    run_with(Setup::TWO, config, async |cluster: Cluster| {
        let node = cluster.a();
        eventually("the canary comes back", async || node.metric("ws_queue_round_trip_seconds_count").await >= 1.0)
            .await;
        assert_eq!(ready(node).await, (200, String::new()));
        assert_eq!(node.metric("ws_node_state state=\"ready\"").await, 1.0);
        let mut client = Client::user(node, "ann").await;
        let redis = cluster.redis.as_ref().expect("Redis");
        redis.signal("STOP");
        eventually("not ready", async || ready(node).await == (503, "queue_unavailable".to_owned())).await;
        assert_eq!((node.metric("ws_ready").await, node.metric("ws_node_state state=\"ready\"").await), (0.0, 0.0));
        assert_eq!(node.metric("ws_node_state state=\"queue_unavailable\"").await, 1.0);
        // The others are not heard any more either.
        eventually("nobody is named", async || routed(node).await.status == 503).await;
        let nowhere = routed(node).await;
        assert_eq!((nowhere.status, nowhere.err().as_str()), (503, "no_node"));
        assert!(nowhere.header("retry-after").is_some());
        client.settle().await;
        redis.signal("CONT");
        eventually("ready again", async || ready(node).await.0 == 200).await;
        eventually("named again", async || chosen(node).await.is_some()).await;
        assert_eq!(node.metric("ws_canary_late_shards").await, 0.0);
    });
}

#[test]
fn a_lost_lease_fences_the_node_until_it_has_it_again() {
    run(Setup::TWO, async |cluster: Cluster| {
        let node = cluster.b();
        let redis = cluster.redis.as_ref().expect("Redis");
        let key = format!("ws-cluster:node:{}", node.id);
        // Another boot takes the id, and does not renew it.
        redis.command(&["SET", &key, "00000001|elsewhere", "PX", "5000"]).await;
        eventually("fenced", async || ready(node).await == (503, "fenced".to_owned())).await;
        assert_eq!(node.metric("ws_node_state state=\"fenced\"").await, 1.0);
        let refused = http::raw(node.ws, upgrade_request(&Connect::user("ann").target(), "x").as_bytes()).await;
        assert_eq!((refused.status, refused.err().as_str()), (503, "fenced"));
        assert_eq!(node.api().push(&crate::support::json!({"all": true, "data": 1})).await.status, 503);
        assert_ne!(chosen(node).await, Some(node.id.into()), "it does not name itself");
        eventually("ready again", async || ready(node).await.0 == 200).await;
        Client::user(node, "ann").await.settle().await;
    });
}
