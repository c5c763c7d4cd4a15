//! Silence, caps, node ids, joining and stopping.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use crate::support::{
    Client, Cluster, Config, Connect, Node, Setup, eventually, http, json,
    node::Driver,
    raw::{Raw, opcode, upgrade_with, whole},
    run, run_with,
};

fn short_silence() -> Config {
    Config::new().limit("heartbeat", "\"1s\"").limit("ping_after", "\"1s\"").limit("pong_timeout", "\"1s\"")
}

async fn silence(cluster: Cluster) {
    let begun = Instant::now();
    let mut silent = Raw::user(cluster.a(), "silent").await;
    let mut answering = Raw::user(cluster.a(), "answering").await;
    let mut hearty = Raw::user(cluster.a(), "hearty").await;
    let watching = async {
        assert_eq!(silent.frame().await.opcode, opcode::PING);
        let closed = silent.closed().await;
        (closed, begun.elapsed())
    };
    let living = async {
        for _ in 0..4 {
            let ping = answering.frame().await;
            assert_eq!(ping.opcode, opcode::PING, "{ping:?}");
            answering.send(&whole(opcode::PONG, &ping.payload)).await;
        }
    };
    let beating = async {
        for _ in 0..9 {
            hearty.send(&whole(opcode::TEXT, br#"{"type":"heart"}"#)).await;
            // Any input counts, so no ping comes between the answers.
            assert_eq!(hearty.frame().await.opcode, opcode::TEXT);
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let (((code, _), waited), (), ()) = tokio::join!(watching, living, beating);
    assert_eq!(code, 4408);
    assert!(waited >= Duration::from_millis(1900) && waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn who_answers_no_ping_is_closed_with_4408() {
    run_with(Setup::ONE, short_silence(), silence);
}

#[test]
fn who_answers_no_ping_is_closed_with_4408_on_epoll() {
    run_with(Setup::ONE_EPOLL, short_silence(), silence);
}

#[test]
fn a_silent_back_end_is_closed_too() {
    run_with(Setup::ONE, short_silence(), async |cluster: Cluster| {
        let mut backend = Raw::connect(cluster.a(), &Connect::backend("biz")).await;
        assert_eq!(backend.closed().await.0, 4408);
    });
}

#[test]
fn a_user_over_the_cap_is_refused_with_4429() {
    let config = Config::new().limit("connections_per_uid", 2);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut first = Client::user(cluster.a(), "ann").await;
        let second = Client::user(cluster.a(), "ann").await;
        let mut third = Connect::user("ann").upgrade(cluster.a()).await;
        assert_eq!(third.closed().await.0, 4429);
        first.settle().await;
        Client::user(cluster.a(), "bob").await.settle().await;
        second.close().await;
        eventually("the place is free again", async || {
            let mut next = Connect::user("ann").upgrade(cluster.a()).await;
            next.next_or_close().await.is_ok()
        })
        .await;
    });
}

#[test]
fn or_the_oldest_makes_room_with_4409() {
    let config = Config::new().limit("connections_per_uid", 2).limit("kick_oldest", true);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut first = Client::user(cluster.a(), "ann").await;
        let mut second = Client::user(cluster.a(), "ann").await;
        let mut third = Client::user(cluster.a(), "ann").await;
        assert_eq!(first.closed().await.0, 4409);
        second.settle().await;
        third.settle().await;
    });
}

#[test]
fn an_address_over_the_cap_is_refused_with_429() {
    let config = Config::new().limit("connections_per_address", 3);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(Client::user(cluster.a(), &format!("u{number}")).await);
        }
        let request = crate::support::raw::upgrade_request(&Connect::user("late").target(), "x");
        let refused = http::raw(cluster.a().ws, request.as_bytes()).await;
        assert_eq!(refused.status, 429, "{}", refused.text());
        clients.pop().expect("three").close().await;
        eventually("the place is free again", async || {
            http::raw(cluster.a().ws, request.as_bytes()).await.status == 101
        })
        .await;
    });
}

#[test]
fn behind_a_trusted_proxy_those_count_for_whom_it_speaks() {
    let config = Config::new().limit("connections_per_address", 1).set("trusted_proxies", "[\"127.0.0.0/8\"]");
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let upgrade = async |named: &str| {
            let headers = format!("X-Forwarded-For: 198.51.100.9, {named}\r\n");
            let request = upgrade_with(&Connect::user("ann").target(), "x", &headers);
            let mut stream = TcpStream::connect(cluster.a().ws).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("a request");
            (http::read(&mut stream).await.expect("an answer").status, stream)
        };
        let (one, two) = (upgrade("203.0.113.1").await, upgrade("203.0.113.2").await);
        assert_eq!((one.0, two.0), (101, 101));
        assert_eq!(upgrade("203.0.113.1").await.0, 429, "what the client itself wrote before does not count");
        assert_eq!(upgrade("127.0.0.9, 203.0.113.3").await.0, 101);
        assert_eq!(upgrade("203.0.113.2, 127.0.0.9").await.0, 429, "a trusted proxy's word is followed further");
    });
}

#[test]
fn a_joining_node_knows_the_tags_before_it_is_ready() {
    run(Setup::TWO, async |cluster: Cluster| {
        let mut ids = Vec::new();
        for value in 0..5 {
            ids.push(cluster.a().api().publish("history", json!(value)).await);
        }
        let third = cluster.another_node().await;
        let mut client = Client::user(&third, "ann").await;
        client.ask(json!({"type": "subscribe", "tags": [{"tag": "history", "since": ids[1]}]})).await;
        for id in &ids[2..] {
            assert_eq!(client.next().await["id"], *id);
        }
        let live = cluster.b().api().publish("history", json!("live")).await;
        assert_eq!(client.next().await["prev"], ids[4]);
        let _ = live;
    });
}

#[test]
fn a_second_node_with_the_same_id_refuses_to_start() {
    run(Setup::TWO, async |cluster: Cluster| {
        let id = cluster.a().id;
        let mut second = Node::launch_any(id, cluster.queue(), Driver::Auto, &cluster.config);
        let status = second.exited().await;
        assert!(status.is_some_and(|status| status != 0), "{status:?}");
        let said = second.printed().join("\n");
        assert!(said.contains(&id.to_string()), "it names the id: {said}");
        Client::user(cluster.a(), "ann").await.settle().await;
        cluster.a().api().push_ok(&json!({"all": true, "data": 1})).await;
    });
}

#[test]
fn the_driver_is_said_once_and_counted() {
    for (setup, name) in [(Setup::ONE, "io_uring"), (Setup::ONE_EPOLL, "epoll")] {
        run(setup, async |cluster: Cluster| {
            let series = "ws_driver{";
            let page = http::get(cluster.a().metrics, "/metrics").await.text();
            let lines = page.lines().filter(|line| line.starts_with(series) && line.contains(name));
            let cores: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            assert_eq!(cores, 2.0, "{page}");
            let said = cluster.a().printed().iter().filter(|line| line.contains(name)).count();
            assert!(said >= 1, "{:?}", cluster.a().printed());
        });
    }
}
