//! A connection from its greeting to its end.

use std::time::Duration;

use crate::support::{Client, Cluster, Connect, http, json, raw, raw::Raw, unix_now};

everywhere!(
    the_greeting_names_node_connection_and_heartbeat,
    a_heart_is_answered_with_the_time_and_its_ack_id,
    a_ping_is_answered_with_its_payload,
    health_answers_on_every_listener,
    the_alias_of_the_path_connects_too,
);

on_one_node!(
    a_close_is_answered_and_then_the_stream_ends,
    a_peer_that_ignores_the_close_is_gone_after_five_seconds,
    text_that_is_no_object_is_answered_with_bad_json,
    an_unknown_type_is_refused_with_its_ack_id,
    frames_sent_together_with_the_handshake_are_read,
    a_message_in_many_pieces_is_one_message,
);

async fn the_greeting_names_node_connection_and_heartbeat(cluster: Cluster) {
    for node in &cluster.nodes {
        let client = Client::user(node, "ann").await;
        let expected = json!({
            "type": "connect",
            "ack_id": "",
            "code": 1,
            "msg": format!("connect to node:{} success", node.id),
            "payload": {"client_id": client.cid, "node": node.id, "heartbeat_ms": 8000},
        });
        assert_eq!(client.greeting, expected);
        let second = Client::user(node, "ann").await;
        assert_ne!(client.cid, second.cid, "a connection has an id of its own");
    }
}

async fn a_heart_is_answered_with_the_time_and_its_ack_id(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.send(json!({"type": "heart", "ack_id": "h1", "payload": {"ping": "2006-01-02 15:04:05"}})).await;
    let answer = client.next().await;
    assert_eq!((&answer["type"], &answer["ack_id"]), (&json!("heart"), &json!("h1")), "{answer}");
    let payload = &answer["payload"];
    assert_eq!(payload["client_id"], client.cid, "{answer}");
    assert_eq!(payload["ack_id"], "h1", "{answer}");
    let pong = payload["pong"].as_str().expect("a time");
    let shape: String = pong.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{pong}");
    let seconds = payload["ts"].as_u64().expect("milliseconds") / 1000;
    assert!(seconds.abs_diff(unix_now()) <= 2, "{answer}");
    client.send(json!({"type": "heart"})).await;
    assert_eq!(client.next().await["type"], "heart", "a heart without ack_id is answered too");
}

async fn a_ping_is_answered_with_its_payload(cluster: Cluster) {
    let mut client = Raw::user(cluster.b(), "ann").await;
    client.send(&raw::whole(raw::opcode::PING, b"are you there")).await;
    client.send(&raw::whole(raw::opcode::PONG, b"unasked")).await;
    client.send(&raw::whole(raw::opcode::PING, b"")).await;
    for expected in [b"are you there".as_slice(), b""] {
        let pong = client.frame().await;
        assert_eq!((pong.opcode, pong.payload.as_slice()), (raw::opcode::PONG, expected));
    }
}

async fn health_answers_on_every_listener(cluster: Cluster) {
    for node in &cluster.nodes {
        for listener in [node.ws, node.http, node.metrics] {
            for path in ["/live", "/ready", "/health"] {
                let answer = http::get(listener, path).await;
                assert_eq!(answer.status, 200, "{path} on {listener}: {}", answer.text());
            }
        }
    }
}

async fn the_alias_of_the_path_connects_too(cluster: Cluster) {
    let mut client = Connect { path: "/connect", ..Connect::user("ann") }.to(cluster.b()).await;
    client.settle().await;
}

async fn a_close_is_answered_and_then_the_stream_ends(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    client.send(&raw::whole(raw::opcode::CLOSE, &[0x03, 0xe8, b'b', b'y', b'e'])).await;
    assert_eq!(client.closed().await.0, 1000);
    client.ended_within(Duration::from_secs(2)).await;

    let mut silent = Raw::user(cluster.a(), "ann").await;
    silent.send(&raw::whole(raw::opcode::CLOSE, &[])).await;
    assert_eq!(silent.frame().await.opcode, raw::opcode::CLOSE);
    silent.ended_within(Duration::from_secs(2)).await;
}

async fn a_peer_that_ignores_the_close_is_gone_after_five_seconds(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    client.send(&raw::whole(raw::opcode::BINARY, b"x")).await;
    assert_eq!(client.closed().await.0, 1003);
    // Neither a close frame nor a FIN from this side: the server ends it alone.
    client.ended_within(Duration::from_secs(8)).await;
}

async fn text_that_is_no_object_is_answered_with_bad_json(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    for bad in ["", "{", "[]", "7", "null", "hello", r#"{"a":1} x"#, r#"{"type":"heart",}"#] {
        client.send_text(bad).await;
        let answer = client.next().await;
        assert_eq!((&answer["code"], &answer["err"]), (&json!(0), &json!("bad_json")), "{bad:?}: {answer}");
        client.settle().await;
    }
}

async fn an_unknown_type_is_refused_with_its_ack_id(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    // A user is no back-end: it may neither push nor control.
    for kind in ["dance", "push", "control"] {
        let answer = client.ask(json!({"type": kind, "to": {"all": true}, "payload": 1, "op": "kick"})).await;
        assert_eq!(answer["code"], 0, "{kind}: {answer}");
        assert!(answer["err"].is_string(), "{kind}: {answer}");
    }
    client.settle().await;
    client.silent().await;
}

async fn frames_sent_together_with_the_handshake_are_read(cluster: Cluster) {
    let early = raw::whole(raw::opcode::TEXT, br#"{"type":"heart","ack_id":"early"}"#);
    let mut client = Raw::upgrade_and(cluster.a(), &Connect::user("ann").target(), &early).await;
    assert!(String::from_utf8_lossy(&client.frame().await.payload).contains("client_id"), "the greeting is first");
    assert!(String::from_utf8_lossy(&client.frame().await.payload).contains("early"));
}

async fn a_message_in_many_pieces_is_one_message(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    client.stream.set_nodelay(true).expect("small segments");
    for byte in raw::whole(raw::opcode::TEXT, r#"{"type":"heart","ack_id":"päng"}"#.as_bytes()) {
        client.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = client.frame().await;
    assert!(String::from_utf8_lossy(&answer.payload).contains("päng"), "{answer:?}");
}
