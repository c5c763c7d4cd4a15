//! A client proves what it holds: `crc` answers with the check sum of a tag's last value and the id that it belongs to.
//!
//! Method: the check sums of the answers are compared with the bytes that were published, summed up here bit by bit.

use crate::support::{
    Client, Cluster, Connect, Value,
    config::{PID, SECRET},
    eventually, json,
    raw::{Raw, opcode, whole},
    token::{claims, hs256},
};

everywhere!(
    a_check_sum_is_that_of_the_payload_as_it_was_published,
    the_tag_api_tells_the_same_check_sums,
    a_check_speaks_of_the_publication_that_came_last_before_it,
    who_may_not_subscribe_may_not_check,
    whom_a_back_end_lets_in_may_check,
);

on_one_node!(what_is_too_much_for_one_message_is_denied_by_name, checks_that_wait_are_bounded,);

/// CRC-32 of IEEE 802.3 by its definition.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn the_judge_of_these_tests_knows_the_check_value_of_the_standard() {
    // What `zlib.crc32(b"123456789")` says in Python, and every catalogue of check sums.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

/// Publishes a JSON text to a tag through node a and waits until node b has heard it; its id.
async fn publish_text(cluster: &Cluster, tag: &str, payload: &str) -> String {
    let body = format!(r#"{{"tags":["{tag}"],"data":{payload}}}"#);
    let id = cluster.a().api().post("/ws/push", &body).await.payload()["id"].as_str().expect("an id").to_owned();
    eventually("node b hears the publication", async || {
        // As text: not every payload's numbers fit a reader's types.
        let state = cluster.b().api().get(&format!("/v1/tags/{tag}"), &[]).await.text();
        state.contains(&format!(r#""last":{{"id":"{id}""#))
    })
    .await;
    id
}

async fn check(client: &mut Client, tags: Value) -> Value {
    client.ask(json!({"type": "crc", "tags": tags})).await
}

const PAYLOADS: &[&str] =
    &["1", "1E+400", r#"{ "b" : 1 , "a" : 2 , "b" : 3 }"#, r#""\u0041\ud83d\ude00""#, "\"é 漢字 😀\"", "null", "[]"];

async fn a_check_sum_is_that_of_the_payload_as_it_was_published(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    for payload in PAYLOADS {
        let id = publish_text(&cluster, "book", payload).await;
        let expected = json!({"tags": [{"tag": "book", "id": id, "crc": crc32(payload.as_bytes())}], "denied": []});
        let answer = check(&mut client, json!(["book"])).await;
        assert_eq!((&answer["code"], &answer["msg"]), (&json!(1), &json!("success")), "{payload}: {answer}");
        assert_eq!(answer["payload"], expected, "{payload}");
    }
    let large = format!("\"{}\"", "x".repeat(200_000));
    let id = publish_text(&cluster, "large", &large).await;
    let answer = check(&mut client, json!("large,never.published,book")).await;
    let tags = &answer["payload"]["tags"];
    assert_eq!(tags[0], json!({"tag": "large", "id": id, "crc": crc32(large.as_bytes())}));
    assert_eq!(tags[1], json!({"tag": "never.published", "id": "", "crc": null}), "a tag without a value: {answer}");
    assert_eq!(tags[2]["crc"], crc32(PAYLOADS.last().expect("one").as_bytes()));
    // Asking is no subscribing, and a project sees its own tags alone.
    publish_text(&cluster, "book", "2").await;
    client.silent().await;
    let other = Connect { pid: "503", ..Connect::user("ann") };
    let answer = check(&mut other.to(cluster.b()).await, json!(["book"])).await;
    assert_eq!(answer["payload"]["tags"], json!([{"tag": "book", "id": "", "crc": null}]), "{answer}");
}

async fn the_tag_api_tells_the_same_check_sums(cluster: Cluster) {
    for payload in PAYLOADS {
        publish_text(&cluster, "told", payload).await;
    }
    let state = cluster.b().api().get("/v1/tags/told", &[]).await.text();
    let of = |payload: &str| format!(r#""crc":{},"payload":{payload}}}"#, crc32(payload.as_bytes()));
    for payload in PAYLOADS {
        assert!(state.contains(&of(payload)), "{payload} in {state}");
    }
    let last = of(PAYLOADS.last().expect("one"));
    assert!(state.contains(&format!(r#"{last},"history":["#)), "{last} in {state}");
}

async fn a_check_speaks_of_the_publication_that_came_last_before_it(cluster: Cluster) {
    const CHECKS: usize = 40;
    let mut client = Client::user(cluster.b(), "ann").await;
    publish_text(&cluster, "busy", "0").await;
    client.subscribe(&["busy"]).await;
    let api = cluster.a().api();
    let publishing = async {
        for n in (0_u64..).step_by(10) {
            let line = |n: u64| format!("{}\n", json!({"tags": ["busy"], "data": {"n": n}}));
            api.batch(&(n..n + 10).map(line).collect::<String>()).await;
        }
    };
    let checking = async {
        let (mut held, mut proven) = (Value::Null, 0);
        while proven < CHECKS {
            client.send(json!({"type": "crc", "tags": ["busy"], "ack_id": "proof"})).await;
            loop {
                let message = client.next().await;
                if message["tag"] == "busy" {
                    held = message;
                    continue;
                }
                let expected = crc32(held["payload"].to_string().as_bytes());
                let expected = json!([{"tag": "busy", "id": held["id"], "crc": expected}]);
                assert_eq!(message["payload"]["tags"], expected, "held: {held}");
                proven += 1;
                break;
            }
            // Below the rate that a connection may speak at.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = publishing => {}
        () = checking => {}
    }
}

/// What was denied, with its word.
fn denied(answer: &Value) -> Vec<(&str, &str)> {
    let list = answer["payload"]["denied"].as_array().unwrap_or_else(|| panic!("no list: {answer}"));
    list.iter().map(|one| (one["tag"].as_str().expect("a tag"), one["err"].as_str().expect("a word"))).collect()
}

async fn who_may_not_subscribe_may_not_check(cluster: Cluster) {
    for tag in ["open", "private.orders", "own.ann", "own.bob"] {
        publish_text(&cluster, tag, "1").await;
    }
    let mut ann = Client::user(cluster.b(), "ann").await;
    let wanted = json!(["open", "private.orders", "own.ann", "own.bob", "no spaces"]);
    let answer = check(&mut ann, wanted).await;
    assert_eq!(answer["code"], 1, "{answer}");
    let mut refused = denied(&answer);
    refused.sort_unstable();
    assert_eq!(refused, [("no spaces", "bad_tag"), ("own.bob", "denied"), ("private.orders", "denied")], "{answer}");
    let names: Vec<&Value> =
        answer["payload"]["tags"].as_array().expect("tags").iter().map(|one| &one["tag"]).collect();
    assert_eq!(names, ["open", "own.ann"], "{answer}");
    let nothing = check(&mut ann, json!(["private.orders"])).await;
    assert_eq!((&nothing["code"], &nothing["err"]), (&json!(0), &json!("denied")), "{nothing}");
    assert!(!nothing.to_string().contains("crc"), "{nothing}");
    // A token narrows it further.
    let mut narrow = claims(PID, "ann", 60);
    narrow["tags"] = json!(["kline.*"]);
    let token = hs256(SECRET, &narrow);
    let mut narrow = Connect::token(&token).to(cluster.b()).await;
    let answer = check(&mut narrow, json!(["open", "kline.x"])).await;
    assert_eq!(denied(&answer), [("open", "denied")], "{answer}");
}

async fn whom_a_back_end_lets_in_may_check(cluster: Cluster) {
    let id = publish_text(&cluster, "private.vip", "7").await;
    let mut ann = Client::user(cluster.b(), "ann").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    assert_eq!(check(&mut ann, json!(["private.vip"])).await["code"], 0);
    let to = json!({"uids": ["ann"]});
    backend.ask(json!({"type": "control", "op": "subscribe", "to": to, "tags": ["private.vip"]})).await;
    assert_eq!(ann.next().await["id"], id);
    let answer = check(&mut ann, json!(["private.vip"])).await;
    assert_eq!(answer["payload"]["tags"], json!([{"tag": "private.vip", "id": id, "crc": crc32(b"7")}]), "{answer}");
}

async fn what_is_too_much_for_one_message_is_denied_by_name(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let answer = check(&mut client, json!(names)).await;
    assert_eq!(answer["payload"]["tags"].as_array().map(Vec::len), Some(256), "{answer}");
    assert_eq!(denied(&answer).first(), Some(&("t256", "too_many_tags")), "{answer}");
    let large = format!("\"{}\"", "x".repeat(700_000));
    for tag in ["large.1", "large.2"] {
        publish_text(&cluster, tag, &large).await;
    }
    let answer = check(&mut client, json!(["large.1", "large.2"])).await;
    assert_eq!(answer["payload"]["tags"][0]["crc"], crc32(large.as_bytes()), "{answer}");
    assert_eq!(denied(&answer), [("large.2", "too_large")], "{answer}");
    let alone = check(&mut client, json!(["large.2"])).await;
    assert_eq!(alone["payload"]["tags"][0]["crc"], crc32(large.as_bytes()), "{alone}");
    for bad in [json!({"type": "crc"}), json!({"type": "crc", "tags": []}), json!({"type": "crc", "tags": [7]})] {
        assert_eq!(client.ask(bad.clone()).await["err"], "bad_field", "{bad}");
    }
}

async fn checks_that_wait_are_bounded(cluster: Cluster) {
    const AT_ONCE: usize = 30;
    publish_text(&cluster, "book", "1").await;
    let mut raw = Raw::user(cluster.a(), "ann").await;
    let message = |n: usize| json!({"type": "crc", "tags": ["book"], "ack_id": n.to_string()}).to_string();
    let burst: Vec<u8> = (0..AT_ONCE).flat_map(|n| whole(opcode::TEXT, message(n).as_bytes())).collect();
    raw.send(&burst).await;
    let mut answers: Vec<Value> = Vec::new();
    while answers.len() < AT_ONCE {
        answers.push(serde_json::from_slice(&raw.frame().await.payload).expect("JSON"));
    }
    let refused = answers.iter().filter(|answer| answer["err"] == "too_many_checks").count();
    let checked = answers.iter().filter(|answer| answer["payload"]["tags"][0]["crc"] == crc32(b"1")).count();
    assert_eq!(refused + checked, AT_ONCE, "{answers:?}");
    assert!(refused > 0 && checked >= 4, "{refused} refused, {checked} checked");
    let mut numbers: Vec<usize> =
        answers.iter().map(|answer| answer["ack_id"].as_str().expect("echoed").parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..AT_ONCE).collect::<Vec<_>>(), "each is answered once");
    // The places are free again, and who gives no ack_id is answered all the same.
    raw.send(&whole(opcode::TEXT, br#"{"type":"crc","tags":"book"}"#)).await;
    let answer: Value = serde_json::from_slice(&raw.frame().await.payload).expect("JSON");
    assert_eq!((&answer["code"], &answer["ack_id"]), (&json!(1), &json!("")), "{answer}");
}
