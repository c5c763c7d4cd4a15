//! A connection that falls behind is told and closed (4008), never silently skipped, and delays nobody else.

use std::time::Duration;

use crate::support::{Client, Cluster, Config, Connect, Setup, json, raw::Raw, run_with};

on_one_node!(a_slow_consumer_is_closed_with_4008_and_its_stream_has_no_hole);

async fn a_slow_consumer_is_closed_with_4008_and_its_stream_has_no_hole(cluster: Cluster) {
    const PUBLICATIONS: usize = 400;
    let mut slow = Client::user(cluster.a(), "slow").await;
    let mut fast = Client::user(cluster.a(), "fast").await;
    slow.subscribe(&["heavy"]).await;
    fast.subscribe(&["heavy"]).await;
    let filler = "x".repeat(60_000);
    let publishing = async {
        for number in 0..PUBLICATIONS {
            cluster.a().api().publish("heavy", json!({"n": number, "filler": filler})).await;
        }
    };
    let reading = async {
        for number in 0..PUBLICATIONS {
            assert_eq!(fast.next().await["payload"]["n"], number, "the other subscriber misses nothing");
        }
    };
    // The slow one does not read while 24 MB are published, far beyond its outbox and the kernel's buffers.
    tokio::join!(publishing, reading);
    assert_eq!(cluster.a().metric("ws_slow_consumers_total").await, 1.0);
    let (mut expected, mut last) = (0, json!(""));
    loop {
        use futures_util::StreamExt;
        use tokio_tungstenite::tungstenite::Message;
        match tokio::time::timeout(crate::support::PATIENCE, slow.socket.next()).await.expect("an end") {
            Some(Ok(Message::Text(text))) => {
                let message: crate::support::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!((&message["payload"]["n"], &message["prev"]), (&json!(expected), &last), "a hole");
                last = message["id"].clone();
                expected += 1;
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(u16::from(frame.code), 4008, "{frame:?}");
                break;
            }
            // A reset is honest too, when the kernel had no room for the close frame; a clean end is not.
            Some(Err(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(expected < PUBLICATIONS, "it cannot have got everything");
    // It resumes where it was.
    let mut again = Client::user(cluster.a(), "slow").await;
    let answer = again.ask(json!({"type": "subscribe", "tags": [{"tag": "heavy", "since": last}]})).await;
    assert_eq!(answer["code"], 1, "{answer}");
    let first = again.next().await;
    assert!(first["prev"] == last || first["gap"] == true, "what is missing is there or told");
}

#[test]
fn without_progress_a_connection_is_reset() {
    let config = Config::new().limit("write_timeout", "\"1s\"");
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut stuck = Raw::connect(cluster.a(), &Connect { tags: Some("heavy"), ..Connect::user("stuck") }).await;
        let filler = "x".repeat(500_000);
        // More than the kernel takes for a reader that sleeps, less than the outbox's bound at any time.
        for _ in 0..20 {
            cluster.a().api().publish("heavy", json!(filler)).await;
            if cluster.a().metric("ws_outbox_bytes").await > 0.0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(cluster.a().metric("ws_connection").await, 0.0, "the stuck connection is gone");
        stuck.try_send(b"x").await;
    });
}
