//! Tags: subscribing, snapshots, the chain of ids, resuming, and gaps that are told.

use crate::support::{Client, Cluster, Connect, Node, Value, eventually, json};

everywhere!(
    a_new_subscriber_gets_the_last_value_and_then_updates,
    a_tag_without_a_value_starts_empty_and_its_first_prev_is_empty,
    since_brings_what_followed_and_nothing_twice,
    since_of_the_last_value_brings_nothing,
    an_unknown_since_is_told_with_the_snapshot,
    an_unknown_since_of_an_empty_tag_is_told_with_a_gap,
    a_ring_that_no_longer_reaches_back_is_told,
    unsubscribing_ends_the_stream,
    every_form_of_a_tag_list_is_understood,
    tags_of_the_query_are_subscribed_from_the_start,
    denied_tags_are_named_and_the_others_granted,
    dedup_passes_over_an_equal_payload,
    dedup_holds_over_all_nodes_and_leaves_the_chain_whole,
    dedup_never_passes_over_what_is_to_be_kept,
    subscribing_while_publications_run_leaves_no_gap_and_no_duplicate,
    a_publication_reaches_every_subscriber_on_every_node,
);

on_one_node!(at_most_256_tags_a_connection, the_tag_api_tells_last_and_history);

/// Waits until the node knows this publication as the tag's last.
async fn known(node: &Node, tag: &str, id: &str) {
    eventually("the node hears the publication", async || {
        let state = node.api().get(&format!("/v1/tags/{tag}"), &[]).await;
        state.status == 200 && state.payload()["last"]["id"] == id
    })
    .await;
}

async fn a_new_subscriber_gets_the_last_value_and_then_updates(cluster: Cluster) {
    let api = cluster.a().api();
    let first = api.publish("kline.BTC", json!({"close": 1})).await;
    let second = api.publish("kline.BTC", json!({"close": 2})).await;
    known(cluster.b(), "kline.BTC", &second).await;
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["kline.BTC"]).await;
    let snapshot = client.next().await;
    let expected = json!({"tag": "kline.BTC", "id": second, "prev": first, "snapshot": true, "payload": {"close": 2}});
    assert_eq!(snapshot, expected);
    let third = api.publish("kline.BTC", json!({"close": 3})).await;
    let update = client.next().await;
    assert_eq!(update, json!({"tag": "kline.BTC", "id": third, "prev": second, "payload": {"close": 3}}));
    client.silent().await;
}

async fn a_tag_without_a_value_starts_empty_and_its_first_prev_is_empty(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["fresh"]).await;
    client.silent().await;
    let id = cluster.a().api().publish("fresh", json!(null)).await;
    assert_eq!(client.next().await, json!({"tag": "fresh", "id": id, "prev": "", "payload": null}));
}

/// Publishes 0, 1, … n-1 to a tag through node a, waits until node b knows the last; the ids.
async fn published(cluster: &Cluster, tag: &str, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for value in 0..n {
        ids.push(cluster.a().api().publish(tag, json!(value)).await);
    }
    known(cluster.b(), tag, ids.last().expect("at least one")).await;
    ids
}

fn with_since(tag: &str, since: &str) -> Value {
    json!({"type": "subscribe", "tags": [{"tag": tag, "since": since}]})
}

async fn since_brings_what_followed_and_nothing_twice(cluster: Cluster) {
    let ids = published(&cluster, "resumed", 6).await;
    let mut client = Client::user(cluster.b(), "ann").await;
    assert_eq!(client.ask(with_since("resumed", &ids[1])).await["code"], 1);
    for value in 2..6 {
        let expected = json!({"tag": "resumed", "id": ids[value], "prev": ids[value - 1], "payload": value});
        assert_eq!(client.next().await, expected);
    }
    let id = cluster.a().api().publish("resumed", json!("live")).await;
    let live = client.next().await;
    assert_eq!((&live["id"], &live["prev"]), (&json!(id), &json!(ids[5])), "{live}");
    client.silent().await;
}

async fn since_of_the_last_value_brings_nothing(cluster: Cluster) {
    let ids = published(&cluster, "resumed", 2).await;
    let mut client = Client::user(cluster.b(), "ann").await;
    assert_eq!(client.ask(with_since("resumed", &ids[1])).await["code"], 1);
    client.silent().await;
}

async fn an_unknown_since_is_told_with_the_snapshot(cluster: Cluster) {
    let ids = published(&cluster, "resumed", 2).await;
    for since in ["0-0", "never heard of", "deadbeefdeadbeef-1"] {
        let mut client = Client::user(cluster.b(), "ann").await;
        assert_eq!(client.ask(with_since("resumed", since)).await["code"], 1, "{since}");
        let snapshot = client.next().await;
        assert_eq!((&snapshot["id"], &snapshot["snapshot"]), (&json!(ids[1]), &json!(true)), "{snapshot}");
        assert_eq!(snapshot["gap"], true, "{snapshot}");
        client.silent().await;
    }
}

async fn an_unknown_since_of_an_empty_tag_is_told_with_a_gap(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    assert_eq!(client.ask(with_since("forgotten", "deadbeef-1")).await["code"], 1);
    assert_eq!(client.next().await, json!({"type": "gap", "tag": "forgotten"}));
    client.silent().await;
}

async fn a_ring_that_no_longer_reaches_back_is_told(cluster: Cluster) {
    let ids = published(&cluster, "short.ring", 6).await;
    let mut late = Client::user(cluster.b(), "ann").await;
    assert_eq!(late.ask(with_since("short.ring", &ids[0])).await["code"], 1);
    let snapshot = late.next().await;
    assert_eq!((&snapshot["id"], &snapshot["gap"]), (&json!(ids[5]), &json!(true)), "{snapshot}");
    let mut close_behind = Client::user(cluster.b(), "bob").await;
    assert_eq!(close_behind.ask(with_since("short.ring", &ids[4])).await["code"], 1);
    let tail = close_behind.next().await;
    assert_eq!((&tail["id"], &tail["gap"]), (&json!(ids[5]), &Value::Null), "{tail}");
}

async fn unsubscribing_ends_the_stream(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["one", "two"]).await;
    let answer = client.ask(json!({"type": "unsubscribe", "tags": ["one", "never-had"]})).await;
    assert_eq!(answer["code"], 1, "{answer}");
    cluster.a().api().publish("one", json!(1)).await;
    cluster.a().api().publish("two", json!(2)).await;
    assert_eq!(client.next().await["tag"], "two");
    client.silent().await;
    client.subscribe(&["one"]).await;
    assert_eq!(client.next().await["snapshot"], true, "subscribing again brings the value that was missed");
}

async fn every_form_of_a_tag_list_is_understood(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    let lists = [json!("a,b"), json!(["c", {"tag": "d"}]), json!([{"tag": "e", "max_hz": 0}]), json!("f")];
    for tags in lists {
        let answer = client.ask(json!({"type": "subscribe", "tags": tags})).await;
        assert_eq!(answer["code"], 1, "{tags}: {answer}");
    }
    for tag in ["a", "b", "c", "d", "e", "f"] {
        cluster.a().api().publish(tag, json!(tag)).await;
        assert_eq!(client.next().await["tag"], tag);
    }
}

async fn tags_of_the_query_are_subscribed_from_the_start(cluster: Cluster) {
    let mut client = Connect { tags: Some("early,bird"), ..Connect::user("ann") }.to(cluster.b()).await;
    client.settle().await;
    for tag in ["early", "bird"] {
        let id = cluster.a().api().publish(tag, json!(tag)).await;
        let update = client.next_where(|message| message["id"] == *id).await;
        assert_eq!((&update["tag"], &update["payload"]), (&json!(tag), &json!(tag)), "{update}");
    }
}

async fn denied_tags_are_named_and_the_others_granted(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    let long = "x".repeat(129);
    let wanted = json!(["open", "private.orders", "own.ann", "own.bob", "no spaces", "", long]);
    let answer = client.ask(json!({"type": "subscribe", "tags": wanted})).await;
    assert_eq!(answer["code"], 1, "{answer}");
    assert_eq!(answer["payload"]["granted"], json!(["open", "own.ann"]), "{answer}");
    let denied = answer["payload"]["denied"].as_array().expect("a list");
    assert_eq!(denied.len(), 5, "{answer}");
    assert!(denied.iter().all(|one| one["tag"].is_string() && one["err"].is_string()), "{answer}");
    let nothing = client.ask(json!({"type": "subscribe", "tags": ["private.orders", "own.bob"]})).await;
    assert_eq!(nothing["code"], 0, "{nothing}");
    cluster.a().api().publish("private.orders", json!(1)).await;
    cluster.a().api().publish("own.bob", json!(1)).await;
    client.silent().await;
}

async fn dedup_passes_over_an_equal_payload(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["dedup.x", "plain.x"]).await;
    for value in [1, 1, 2, 2, 1] {
        cluster.a().api().publish("dedup.x", json!(value)).await;
    }
    for value in [1, 2, 1] {
        assert_eq!(client.next().await["payload"], value);
    }
    for _ in 0..2 {
        cluster.a().api().publish("plain.x", json!(7)).await;
        assert_eq!(client.next().await["payload"], 7, "without the rule an equal payload is delivered");
    }
    client.silent().await;
}

async fn dedup_holds_over_all_nodes_and_leaves_the_chain_whole(cluster: Cluster) {
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        let mut client = Client::user(node, "ann").await;
        client.subscribe(&["dedup.x"]).await;
        clients.push(client);
    }
    let (a, b) = (cluster.a().api(), cluster.b().api());
    let first = json!(a.publish("dedup.x", json!({"p": 1})).await);
    let repeated = json!(b.publish("dedup.x", json!({"p": 1})).await);
    assert_ne!(repeated, first, "it is accepted as any other");
    let second = json!(b.publish("dedup.x", json!({"p": 2})).await);
    a.publish("dedup.x", json!({"p": 2})).await;
    // Bytes are compared, and not what they mean.
    let third = a.post("/ws/push", r#"{"tags":["dedup.x"],"data":{"p": 2}}"#).await.payload()["id"].clone();
    let fourth = json!(b.publish("dedup.x", json!({"p": 1})).await);
    let chain = [&first, &second, &third, &fourth];
    for client in &mut clients {
        let mut last = json!("");
        for id in chain {
            let update = client.next().await;
            assert_eq!((&update["id"], &update["prev"]), (id, &last), "{update}");
            last = id.clone();
        }
        client.silent().await;
    }
    for node in &cluster.nodes {
        let state = node.api().get("/v1/tags/dedup.x", &[]).await.payload();
        let ids: Vec<&Value> = state["history"].as_array().expect("a history").iter().map(|one| &one["id"]).collect();
        assert_eq!(ids, chain, "what was passed over is in no history: {state}");
    }
    let mut late = Client::user(cluster.b(), "bob").await;
    late.ask(with_since("dedup.x", second.as_str().expect("an id"))).await;
    assert_eq!(late.next().await["id"], third, "nor in what is resumed");
}

async fn dedup_never_passes_over_what_is_to_be_kept(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["dedup.bar"]).await;
    let publish = async |node: &Node, keep: bool| {
        node.api().push_ok(&json!({"tags": ["dedup.bar"], "data": {"close": 1}, "keep": keep})).await
    };
    let open = publish(cluster.a(), false).await;
    let closed = publish(cluster.b(), true).await;
    for id in [&open, &closed] {
        assert_eq!(client.next().await["id"], *id, "the closed bar says more than the open one, with the same bytes");
    }
    // Now everybody holds it as kept: neither kind says anything new.
    publish(cluster.a(), true).await;
    publish(cluster.b(), false).await;
    client.silent().await;
    let next = cluster.a().api().publish("dedup.bar", json!({"close": 2})).await;
    let update = client.next().await;
    assert_eq!((&update["id"], &update["prev"]), (&json!(next), &json!(closed)), "{update}");
}

async fn subscribing_while_publications_run_leaves_no_gap_and_no_duplicate(cluster: Cluster) {
    const LAST: u64 = 300;
    let api = cluster.a().api();
    api.publish("busy", json!(0)).await;
    let publishing = async {
        for start in (1..=LAST).step_by(10) {
            let line = |value: u64| format!("{}\n", json!({"tags": ["busy"], "data": value}));
            let (_, answers) = api.batch(&(start..start + 10).map(line).collect::<String>()).await;
            assert!(answers.iter().all(|answer| answer["code"] == 1), "{answers:?}");
        }
        api.publish("busy", json!("end")).await
    };
    let subscribing = async {
        let mut clients = Vec::new();
        for number in 0..20 {
            let node = &cluster.nodes[number % cluster.nodes.len()];
            let mut client = Client::user(node, &format!("u{number}")).await;
            client.subscribe(&["busy"]).await;
            clients.push(client);
        }
        clients
    };
    let (end, clients) = tokio::join!(publishing, subscribing);
    for mut client in clients {
        // A node that has not heard of the tag yet starts empty: then the first is an update.
        let mut last = client.next().await;
        while last["id"] != *end {
            let next = client.next().await;
            assert_eq!(next["prev"], last["id"], "{last} then {next}");
            let (before, after) = (last["payload"].as_u64().expect("a number"), next["payload"].as_u64());
            assert!(after.is_none_or(|after| after == before + 1), "{last} then {next}");
            last = next;
        }
    }
}

async fn a_publication_reaches_every_subscriber_on_every_node(cluster: Cluster) {
    let mut clients = Vec::new();
    for number in 0..40 {
        let node = &cluster.nodes[number % cluster.nodes.len()];
        let mut client = Client::user(node, &format!("u{number}")).await;
        client.subscribe(&["wide"]).await;
        clients.push(client);
    }
    for node in &cluster.nodes {
        let id = node.api().publish("wide", json!("to all")).await;
        for client in &mut clients {
            assert_eq!(client.next().await["id"], id);
        }
    }
}

async fn at_most_256_tags_a_connection(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    let names = |range: std::ops::Range<u32>| range.map(|n| format!("t{n}")).collect::<Vec<_>>();
    let answer = client.ask(json!({"type": "subscribe", "tags": names(0..300)})).await;
    assert_eq!(answer["payload"]["granted"], json!(names(0..256)), "{answer}");
    assert_eq!(answer["payload"]["denied"].as_array().map(Vec::len), Some(44), "{answer}");
    client.ask(json!({"type": "unsubscribe", "tags": names(0..10)})).await;
    let again = client.ask(json!({"type": "subscribe", "tags": names(290..300)})).await;
    assert_eq!(again["payload"]["granted"], json!(names(290..300)), "what was given back can be used: {again}");
}

async fn the_tag_api_tells_last_and_history(cluster: Cluster) {
    let ids = published(&cluster, "told", 3).await;
    let state = cluster.a().api().get("/v1/tags/told", &[]).await.payload();
    let expected = json!({
        "tag": "told",
        "last": {"id": ids[2], "prev": ids[1], "crc": 0x1ad5_be0d, "payload": 2},
        "history": [
            {"id": ids[0], "prev": "", "crc": 0xf4db_df21_u32, "payload": 0},
            {"id": ids[1], "prev": ids[0], "crc": 0x83dc_efb7_u32, "payload": 1},
            {"id": ids[2], "prev": ids[1], "crc": 0x1ad5_be0d, "payload": 2},
        ],
    });
    assert_eq!(state, expected);
}
