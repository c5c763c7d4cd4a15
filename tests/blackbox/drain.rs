//! The end of a node in good order: told to move, closed when the time is over, nothing lost, no ghost left.
//!
//! Method: a node of two drains in two seconds; every connection's `move` and close is timed from outside.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::requests::meet;
use crate::support::{Client, Cluster, Config, Connect, Node, Setup, Value, eventually, http, json, run, run_with};

/// From the first to the last move: three quarters of the drain without the last closes.
const SPREAD: Duration = Duration::from_millis(1125);

fn short() -> Config {
    Config::new().limit("close_timeout", "\"500ms\"").limit("drain", "\"2s\"").flags(&["--pprof_port", "0"])
}

/// When a connection was told to move, in what time, and when it was closed; from `begun`.
async fn moved(mut client: Client, begun: Instant) -> (Duration, Duration, Duration) {
    let order = client.next_where(|message| message["type"] == "move").await;
    let (told, after) = (begun.elapsed(), after_of(&order));
    let (code, reason) = client.closed_within(Duration::from_secs(15)).await;
    assert_eq!(code, 1012, "{reason}");
    (told, after, begun.elapsed())
}

fn after_of(order: &Value) -> Duration {
    assert_eq!(order["payload"]["addr"], Value::Null, "no address was given to the nodes: {order}");
    Duration::from_millis(order["payload"]["after_ms"].as_u64().unwrap_or_else(|| panic!("{order}")))
}

async fn said(node: &Node, words: &str) -> String {
    let mut line = None;
    eventually(words, async || {
        line = node.printed().into_iter().find(|line| line.contains(words));
        line.is_some()
    })
    .await;
    line.expect("a line")
}

#[test]
fn each_connection_is_told_its_time_and_closed_after_it_and_nothing_is_lost() {
    run_with(Setup::TWO, short(), async |mut cluster: Cluster| {
        let mut there = Client::user(cluster.a(), "there").await;
        let mut clients = Vec::new();
        for number in 0..20 {
            clients.push(Client::user(cluster.b(), &format!("u{number}")).await);
        }
        clients.push(Client::backend(cluster.b(), "biz").await);
        let mut pusher = Client::backend(cluster.b(), "pusher").await;
        let mut obedient = Client::user(cluster.b(), "obedient").await;
        cluster.b().signal("TERM");
        let begun = Instant::now();
        let while_it_drains = async {
            let node = cluster.b();
            let order = obedient.next_where(|message| message["type"] == "move").await;
            assert!(after_of(&order) <= SPREAD, "{order}");
            for listener in [node.ws, node.http, node.metrics] {
                let ready = http::get(listener, "/ready").await;
                assert_eq!((ready.status, ready.err().as_str()), (503, "draining"), "{}", ready.text());
                assert_eq!(http::get(listener, "/live").await.status, 200);
            }
            let request = crate::support::raw::upgrade_request(&Connect::user("late").target(), "x");
            let refused = http::raw(node.ws, request.as_bytes()).await;
            assert_eq!((refused.status, refused.err().as_str()), (503, "draining"));
            assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
            // Pushes are taken, and their connections end.
            let answer = node.api().push(&json!({"uids": ["there"], "data": "http"})).await;
            assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{}", answer.text());
            let push = json!({"type": "push", "to": {"uids": ["there"]}, "payload": "socket"});
            let answer = pusher.ask(push).await;
            assert_eq!(answer["code"], 1, "{answer}");
            // Who goes by itself is not told again.
            obedient.close().await;
        };
        let (timed, ()) =
            tokio::join!(join_all(clients.into_iter().map(|client| moved(client, begun))), while_it_drains);
        let mut afters: Vec<Duration> = timed.iter().map(|(_, after, _)| *after).collect();
        afters.sort_unstable();
        assert!(afters.iter().collect::<BTreeSet<_>>().len() > 15, "not spread: {afters:?}");
        let (first, last) = (afters[0], afters[afters.len() - 1]);
        assert!(last <= SPREAD && last - first >= SPREAD / 2, "not spread over the drain: {afters:?}");
        for (told, after, closed) in &timed {
            assert!(closed >= after, "closed before its time: {closed:?} < {after:?}");
            assert!(told <= closed);
        }
        let payloads = [there.next().await["payload"].clone(), there.next().await["payload"].clone()];
        assert_eq!(payloads, [json!("http"), json!("socket")]);
        let mut stopped = cluster.nodes.pop().expect("two nodes");
        drop(pusher);
        assert_eq!(stopped.exited().await, Some(0), "{}", stopped.printed().join("\n"));
        let report = said(&stopped, "drained and stopped").await;
        assert!(report.contains("moved=23") && report.contains("cut=0"), "{report}");
        let redis = cluster.redis.as_ref().expect("Redis");
        let key = format!("ws-cluster:node:{}", stopped.id);
        assert!(redis.command(&["EXISTS", &key]).await.starts_with(":0"), "the lease is given up");
        let online = cluster.a().api().get("/v1/online", &[]).await.payload();
        let users: Vec<&Value> = online["users"].as_array().expect("a list").iter().map(|user| &user["uid"]).collect();
        assert_eq!(users, [&json!("there")], "ghosts: {online}");
        assert_eq!(cluster.a().metric("ws_nodes_lost_total").await, 0.0, "it said good-bye");
        there.settle().await;
    });
}

#[test]
fn users_of_a_draining_node_are_online_to_the_end_and_its_back_ends_get_no_new_requests() {
    run_with(Setup::TWO, short(), async |cluster: Cluster| {
        let mut leaving = Client::backend(cluster.b(), "leaving").await;
        meet(&mut leaving, cluster.a()).await;
        let mut asker = Client::user(cluster.a(), "asker").await;
        let still = Client::user(cluster.b(), "still").await;
        // One is on its way to the back-end when the drain begins; it is answered.
        asker.ask(json!({"type": "request", "affair_id": "early", "payload": 1})).await;
        asker.ask(json!({"type": "request", "affair_id": "unanswered", "payload": 1})).await;
        for affair in ["early", "unanswered"] {
            leaving.next_where(|message| message["affair_id"] == affair).await;
        }
        let mut staying = Client::backend(cluster.a(), "staying").await;
        meet(&mut staying, cluster.a()).await;
        cluster.b().signal("TERM");
        leaving.next_where(|message| message["type"] == "move").await;
        for number in 0..6 {
            let affair = format!("late{number}");
            asker.ask(json!({"type": "request", "affair_id": affair, "payload": 1})).await;
            staying.next_where(|message| message["affair_id"] == *affair).await;
        }
        let online = cluster.a().api().get("/v1/online", &[("uids", "still")]).await.payload();
        assert_eq!(online["users"][0]["connections"][0]["cid"], still.cid, "{online}");
        let answer = json!({"type": "push", "affair_id": "early", "to": {"cids": [asker.cid]}, "payload": "done"});
        assert_eq!(leaving.ask(answer).await["code"], 1);
        let answered = asker.next_where(|message| message["affair_id"] == "early").await;
        assert_eq!(answered["payload"], "done", "{answered}");
        assert_eq!(leaving.closed().await.0, 1012);
        let told = asker.next_where(|message| message["affair_id"] == "unanswered").await;
        assert_eq!(told["err"], "backend_lost", "{told}");
        drop(still);
    });
}

#[test]
fn a_second_signal_ends_the_node_at_once() {
    let config = Config::new().limit("drain", "\"1h\"");
    run_with(Setup::ONE, config, async |mut cluster: Cluster| {
        let mut client = Client::user(cluster.a(), "ann").await;
        cluster.a().signal("TERM");
        client.next_where(|message| message["type"] == "move").await;
        cluster.a().signal("INT");
        let mut node = cluster.nodes.pop().expect("a node");
        assert_eq!(node.exited().await, Some(1));
    });
}

#[test]
fn an_operator_may_order_the_drain_and_the_first_signal_lets_it_go_on() {
    run_with(Setup::ONE, short(), async |mut cluster: Cluster| {
        let mut client = Client::user(cluster.a(), "ann").await;
        let node = cluster.a();
        let shown = http::get(node.pprof, "/admin/drain").await.payload();
        assert_eq!(shown, json!({"state": "ready", "connections": 1, "drain_ms": 2000}));
        let order = |headers: &str| {
            format!("POST /admin/drain HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
        };
        let from_a_page = http::raw(node.pprof, order("Origin: http://evil.example\r\n").as_bytes()).await;
        assert_eq!(from_a_page.status, 403, "{}", from_a_page.text());
        assert_eq!(http::get(node.http, "/admin/drain").await.status, 404, "not on a public listener");
        assert_eq!(http::get(node.http, "/ready").await.status, 200, "nothing was ordered");
        let ordered = http::raw(node.pprof, order("").as_bytes()).await;
        assert_eq!(ordered.status, 202, "{}", ordered.text());
        assert_eq!(ordered.json()["payload"]["state"], "draining");
        client.next_where(|message| message["type"] == "move").await;
        node.signal("TERM");
        let (code, _) = client.closed().await;
        assert_eq!(code, 1012);
        drop(client);
        let mut node = cluster.nodes.pop().expect("a node");
        assert_eq!(node.exited().await, Some(0), "{}", node.printed().join("\n"));
    });
}

#[test]
fn the_order_wants_the_operators_token_where_there_is_one() {
    let config = short().set("operator_token", "\"an-operators-token-of-24\"");
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let order = |token: &str| format!("POST /admin/drain HTTP/1.1\r\nHost: a\r\n{token}Content-Length: 0\r\n\r\n");
        let node = cluster.a();
        for foreign in ["", "Authorization: Bearer another\r\n"] {
            assert_eq!(http::raw(node.pprof, order(foreign).as_bytes()).await.status, 401);
        }
        assert_eq!(http::get(node.http, "/ready").await.status, 200);
        let token = "Authorization: Bearer an-operators-token-of-24\r\n";
        assert_eq!(http::raw(node.pprof, order(token).as_bytes()).await.status, 202);
        eventually("the node ends", async || {
            timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(node.ws))
                .await
                .is_ok_and(|tried| tried.is_err())
        })
        .await;
    });
}

#[test]
fn a_node_without_connections_ends_at_once() {
    run(Setup::ONE_EPOLL, async |mut cluster: Cluster| {
        cluster.a().signal("INT");
        let mut node = cluster.nodes.pop().expect("a node");
        // The usual drain of 20 s would be over the bound.
        assert_eq!(timeout(Duration::from_secs(15), node.exited()).await.expect("it ends"), Some(0));
    });
}

#[test]
fn where_nodes_have_public_addresses_the_word_to_move_names_one_that_takes_more() {
    let config = short().flags(&["--public_addr", "ws.example.com:8812"]);
    run_with(Setup::TWO, config, async |cluster: Cluster| {
        eventually("the other is known", async || {
            let answer = http::get(cluster.b().ws, "/ws/route").await;
            answer.status == 200 && answer.payload()["node"] == cluster.a().id
        })
        .await;
        let mut client = Client::user(cluster.b(), "ann").await;
        cluster.b().signal("TERM");
        let order = client.next_where(|message| message["type"] == "move").await;
        assert_eq!(order["payload"]["addr"], "ws.example.com:8812", "{order}");
    });
}
