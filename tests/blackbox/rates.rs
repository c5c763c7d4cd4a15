//! Rates: who sends too much is slowed and then closed (1008); who stays below is never bothered.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Config, Setup, json,
    raw::{Raw, opcode, whole},
    run_with,
};

on_one_node!(a_burst_within_the_bound_is_served, ten_bad_messages_in_a_row_are_closed, a_flood_of_pings_is_closed);

async fn a_burst_within_the_bound_is_served(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    for number in 0..100 {
        client.send(json!({"type": "heart", "ack_id": number.to_string()})).await;
    }
    for number in 0..100 {
        assert_eq!(client.next().await["ack_id"], number.to_string());
    }
}

async fn ten_bad_messages_in_a_row_are_closed(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    for _ in 0..3 {
        for _ in 0..9 {
            client.send_text("no json").await;
            assert_eq!(client.next().await["err"], "bad_json");
        }
        client.settle().await;
    }
    for _ in 0..10 {
        client.send_text("no json").await;
    }
    assert_eq!(client.closed().await.0, 1008);
}

async fn a_flood_of_pings_is_closed(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    for _ in 0..200 {
        client.try_send(&whole(opcode::PING, b"x").repeat(5)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.closed().await.0, 1008);
}

#[test]
fn a_user_over_the_message_rate_is_closed() {
    let config = Config::new().limit("messages_per_second", 5).limit("messages_burst", 10);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let heart = whole(opcode::TEXT, br#"{"type":"heart"}"#);
        let mut steady = Raw::user(cluster.a(), "steady").await;
        let mut flood = Raw::user(cluster.a(), "flood").await;
        let flooding = async {
            // Far beyond what a pause of one second could even out.
            for _ in 0..100 {
                flood.try_send(&heart).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            flood.closed().await
        };
        let keeping = async {
            for _ in 0..8 {
                steady.send(&heart).await;
                assert_eq!(steady.frame().await.opcode, opcode::TEXT);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        let ((code, reason), ()) = tokio::join!(flooding, keeping);
        assert_eq!(code, 1008, "{reason}");
    });
}

#[test]
fn a_user_over_the_byte_rate_is_closed() {
    let config = Config::new().limit("bytes_per_second", 10_000);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut client = Raw::user(cluster.a(), "ann").await;
        let mut text = br#"{"type":"heart","pad":""#.to_vec();
        text.resize(8_000, b'x');
        text.extend(br#""}"#);
        for _ in 0..20 {
            client.try_send(&whole(opcode::TEXT, &text)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.closed().await.0, 1008);
    });
}

#[test]
fn a_back_end_is_not_held_to_a_users_rate() {
    let config = Config::new().limit("messages_per_second", 5).limit("messages_burst", 10);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let mut client = Client::user(cluster.a(), "ann").await;
        let mut backend = Client::backend(cluster.a(), "biz").await;
        for number in 0..2000 {
            backend.send(json!({"to": {"uids": ["ann"]}, "payload": number})).await;
        }
        for number in 0..2000 {
            assert_eq!(client.next().await["payload"], number);
        }
    });
}
