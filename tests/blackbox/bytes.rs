//! A payload arrives byte for byte as it was sent, whichever way it came in and however it is delivered.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{Client, Cluster, eventually, json};

everywhere!(
    payloads_pass_byte_for_byte_on_every_way,
    a_request_and_its_answer_pass_byte_for_byte,
    a_snapshot_and_a_resumed_tail_are_byte_for_byte,
    large_payloads_pass,
);

/// JSON texts that a decoder and encoder between the ends would change.
const TRICKY: &[&str] = &[
    "9223372036854775807",
    "18446744073709551615",
    "123456789012345678901234567890",
    "-0",
    "1.0",
    "1e2",
    "1E+400",
    "0.1000000000000000055511151231257827021181583404541015625",
    r#"{ "b" : 1 , "a" : 2 , "b" : 3 }"#,
    "{\"z\":1,\t\"a\":[ 1 ,2,\r\n 3 ]}",
    r#""\u0041\u00e9\ud83d\ude00 \/ \\ \" \b\f\n\r\t""#,
    "\"é 漢字 😀 \u{2028}\u{7f}\"",
    r#"{"payload":{"payload":null},"to":{"all":true},"type":"push"}"#,
    "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    "null",
    "true",
    r#""""#,
    "{}",
];

#[derive(Deserialize)]
struct Delivered<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

async fn expect_bytes(client: &mut Client, sent: &str, way: &str) {
    let text = client.next_text().await;
    let delivered: Delivered = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{way}: {error}: {text}"));
    assert_eq!(delivered.payload.get(), sent, "{way}");
}

async fn payloads_pass_byte_for_byte_on_every_way(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["tricky"]).await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let api = cluster.a().api();
    for payload in TRICKY {
        let pushed = api.post("/ws/push", &format!(r#"{{"uids":["ann"],"data": {payload} }}"#)).await;
        assert_eq!(pushed.status, 200, "{payload}: {}", pushed.text());
        expect_bytes(&mut client, payload, "JSON body").await;
        api.post("/v1/push", &format!(r#"{{"data":{payload},"tags":["tricky"]}}"#)).await.payload();
        expect_bytes(&mut client, payload, "publication").await;
        api.push_query(&[("uids", "ann"), ("data", payload)]).await.payload();
        expect_bytes(&mut client, payload, "query").await;
        api.push_form(&[("uids", "ann"), ("data", payload)]).await.payload();
        expect_bytes(&mut client, payload, "form").await;
        backend.send_text(&format!(r#"{{"to":{{"uids":["ann"]}},"payload":{payload}}}"#)).await;
        expect_bytes(&mut client, payload, "back-end").await;
        if !payload.contains(['\n', '\r']) {
            let (_, answers) = api.batch(&format!("{{\"uids\":[\"ann\"],\"data\":{payload}}}\n")).await;
            assert_eq!(answers[0]["code"], 1, "{answers:?}");
            expect_bytes(&mut client, payload, "batch").await;
        }
    }
}

async fn a_request_and_its_answer_pass_byte_for_byte(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    let mut backend = Client::backend(cluster.b(), "biz").await;
    super::requests::meet(&mut backend, cluster.a()).await;
    for payload in TRICKY {
        client.send_text(&format!(r#"{{"type":"request","affair_id":"q","payload":{payload}}}"#)).await;
        let text = loop {
            let text = backend.next_text().await;
            if text.contains(r#""request""#) {
                break text;
            }
        };
        let delivered: Delivered = serde_json::from_str(&text).expect("JSON");
        assert_eq!(delivered.payload.get(), *payload, "the request");
        let cid = &client.cid;
        let answer = format!(r#"{{"affair_id":"q","to":{{"cids":["{cid}"]}},"payload":{payload}}}"#);
        backend.send_text(&answer).await;
        expect_bytes(&mut client, payload, "the answer").await;
    }
}

async fn a_snapshot_and_a_resumed_tail_are_byte_for_byte(cluster: Cluster) {
    let api = cluster.a().api();
    let mut ids = Vec::new();
    for payload in TRICKY {
        let answer = api.post("/ws/push", &format!(r#"{{"tags":["tricky"],"data":{payload}}}"#)).await.payload();
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    eventually("node b hears the last", async || {
        // As text: not every one of these numbers fits a reader's types.
        let state = cluster.b().api().get("/v1/tags/tricky", &[]).await.text();
        state.contains(&format!("\"id\":\"{}\"", ids.last().expect("one")))
    })
    .await;
    let mut fresh = Client::user(cluster.b(), "ann").await;
    fresh.subscribe(&["tricky"]).await;
    expect_bytes(&mut fresh, TRICKY.last().expect("one"), "snapshot").await;
    let mut resumed = Client::user(cluster.b(), "bob").await;
    resumed.ask(json!({"type": "subscribe", "tags": [{"tag": "tricky", "since": ids[0]}]})).await;
    for payload in &TRICKY[1..] {
        expect_bytes(&mut resumed, payload, "tail").await;
    }
    let state = cluster.b().api().get("/v1/tags/tricky", &[]).await.text();
    for payload in TRICKY {
        assert!(state.contains(payload), "{payload} in {state}");
    }
}

async fn large_payloads_pass(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["large"]).await;
    // Below and above the guidance, around the widths of a frame's length, and near the bound of a body.
    for length in [123, 124, 125, 126, 1458, 1459, 1460, 65_533, 65_534, 65_535, 65_536, 1_000_000] {
        let payload = format!("\"{}\"", "x".repeat(length - 2));
        let pushed = cluster.a().api().post("/ws/push", &format!(r#"{{"tags":["large"],"data":{payload}}}"#)).await;
        assert_eq!(pushed.status, 200, "{length}: {}", pushed.text());
        expect_bytes(&mut client, &payload, "large").await;
    }
}
