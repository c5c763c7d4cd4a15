//! The push API: every form of a push, honest refusals, and idempotency.

use crate::support::{Client, Cluster, Value, http, json, sign};

everywhere!(
    a_push_can_be_json_query_or_form,
    a_batch_gives_one_answer_a_line,
    a_repeated_idempotency_key_is_answered_as_the_first_and_delivered_once,
    pushes_through_every_node_arrive_in_the_order_of_each_publisher,
);

on_one_node!(
    every_answer_has_an_honest_status_and_the_shape,
    a_wrong_or_stale_signature_is_401,
    a_changed_parameter_or_body_breaks_the_signature,
    the_previous_secret_signs_too,
    a_body_over_the_bound_is_413,
    every_way_of_pushing_warns_of_a_payload_above_the_guidance,
);

async fn a_push_can_be_json_query_or_form(cluster: Cluster) {
    let uid = "a+b c&d=é";
    let mut client = Client::user(cluster.b(), uid).await;
    let api = cluster.a().api();
    api.push_ok(&json!({"uids": [uid], "data": {"as": "json"}})).await;
    assert_eq!(client.next().await, json!({"payload": {"as": "json"}}));
    api.push_query(&[("uids", &format!("x,{uid}")), ("data", r#"{"as": "query"}"#), ("affair_id", "q")])
        .await
        .payload();
    assert_eq!(client.next().await, json!({"affair_id": "q", "payload": {"as": "query"}}));
    api.push_form(&[("uids", uid), ("data", "plain & text + 100% \u{e9}"), ("affair_id", "f")]).await.payload();
    assert_eq!(client.next().await, json!({"affair_id": "f", "payload": "plain & text + 100% \u{e9}"}));
    api.push_form(&[("all", "true"), ("data", "[1]")]).await.payload();
    assert_eq!(client.next().await, json!({"payload": [1]}));
    client.subscribe(&["forms"]).await;
    api.push_query(&[("tags", "forms"), ("data", "12345678901234567890"), ("keep", "true")]).await.payload();
    assert_eq!(client.next().await["tag"], "forms");
}

async fn a_batch_gives_one_answer_a_line(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["batched"]).await;
    let lines = concat!(
        r#"{"tags":["batched"],"data":1}"#,
        "\n",
        r#"{"tags":["batched"]}"#,
        "\n",
        "no json\n",
        r#"{"data":1}"#,
        "\n",
        r#"{"tags":["batched"],"data":2,"affair_id":"two"}"#,
        "\r\n",
        r#"{"uids":["ann"],"data":3}"#,
    );
    let (response, answers) = cluster.a().api().batch(lines).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let codes: Vec<&Value> = answers.iter().map(|answer| &answer["code"]).collect();
    assert_eq!(codes, [1, 0, 0, 0, 1, 1], "{answers:?}");
    for (answer, code) in answers.iter().zip(codes) {
        let named = if *code == 1 { &answer["payload"]["id"] } else { &answer["err"] };
        assert!(named.is_string(), "{answer}");
    }
    let mut got = [client.next().await, client.next().await, client.next().await];
    got.sort_by_key(|message| message["payload"].as_u64());
    assert_eq!(got[0]["id"], answers[0]["payload"]["id"]);
    assert_eq!((&got[1]["id"], &got[1]["prev"]), (&answers[4]["payload"]["id"], &got[0]["id"]));
    assert_eq!(got[1]["affair_id"], "two");
    assert_eq!(got[2], json!({"payload": 3}));
}

async fn a_repeated_idempotency_key_is_answered_as_the_first_and_delivered_once(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["once"]).await;
    for to in [json!({"tags": ["once"]}), json!({"uids": ["ann"]})] {
        let key = crate::support::unique("key");
        let body = |value: u64| {
            let mut body = to.clone();
            body["idempotency_key"] = json!(key);
            body["data"] = json!(value);
            body
        };
        let first = cluster.a().api().push_ok(&body(1)).await;
        assert_eq!(cluster.b().api().push_ok(&body(2)).await, first, "through the other node");
        assert_eq!(cluster.a().api().push_ok(&body(3)).await, first, "through the same node");
        assert_eq!(client.next().await["payload"], 1);
    }
    // At the same time through all nodes: one wins, all are told its id.
    let key = crate::support::unique("race");
    let body = json!({"uids": ["ann"], "data": "race", "idempotency_key": key});
    let (api_a, api_b) = (cluster.a().api(), cluster.b().api());
    let (one, two, three, four) =
        tokio::join!(api_a.push_ok(&body), api_b.push_ok(&body), api_a.push_ok(&body), api_b.push_ok(&body));
    assert!(one == two && two == three && three == four, "{one} {two} {three} {four}");
    assert_eq!(client.next().await["payload"], "race");
    client.silent().await;
    // A key belongs to its project.
    let elsewhere = cluster.a().other_api().push_ok(&body).await;
    assert_ne!(elsewhere, one);
}

async fn pushes_through_every_node_arrive_in_the_order_of_each_publisher(cluster: Cluster) {
    const EACH: u64 = 200;
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["ordered"]).await;
    let publishing = cluster.nodes.iter().map(async |node| {
        for start in (0..EACH).step_by(20) {
            let line = |n: u64| format!("{}\n", json!({"tags": ["ordered"], "data": {"from": node.id, "n": n}}));
            let (response, _) = node.api().batch(&(start..start + 20).map(line).collect::<String>()).await;
            assert_eq!(response.status, 200);
        }
    });
    let nodes = cluster.nodes.len();
    let receiving = async {
        let mut next = std::collections::HashMap::new();
        let mut last = json!("");
        for _ in 0..EACH as usize * nodes {
            let message = client.next().await;
            assert_eq!(message["prev"], last, "{message}");
            last = message["id"].clone();
            let from = message["payload"]["from"].as_u64().expect("a node");
            let expected = next.entry(from).or_insert(0);
            assert_eq!(message["payload"]["n"], *expected, "{message}");
            *expected += 1;
        }
    };
    tokio::join!(futures_util::future::join_all(publishing), receiving);
    client.silent().await;
}

async fn every_answer_has_an_honest_status_and_the_shape(cluster: Cluster) {
    let api = cluster.a().api();
    let address = api.address;
    let good = r#"{"uids":["ann"],"data":1}"#;
    let target = api.target("/ws/push", &[], Some(good.as_bytes()));
    let json_type = "application/json";
    let cases = [
        (http::request(address, "POST", "/nothing/here", json_type, good.as_bytes()).await, 404),
        (http::get(address, &api.target("/ws/push", &[], None)).await, 405),
        (http::request(address, "DELETE", &target, json_type, b"").await, 405),
        (http::request(address, "POST", &target, "image/png", good.as_bytes()).await, 415),
        (api.post("/ws/push", "{").await, 400),
        (api.post("/ws/push", "[1]").await, 400),
        (api.post("/ws/push", r#"{"uids":["ann"]}"#).await, 400),
        (api.post("/ws/push", r#"{"uids":"ann\u0000","data":1}"#).await, 400),
        (api.post("/ws/push", r#"{"uids":7,"data":1}"#).await, 400),
        (api.post("/ws/push", r#"{"tags":["no spaces"],"data":1}"#).await, 400),
        (api.push_query(&[("data", "1")]).await, 400),
        (http::request(address, "POST", "/ws/push?pid=502", json_type, good.as_bytes()).await, 401),
    ];
    for (number, (answer, status)) in cases.into_iter().enumerate() {
        assert_eq!(answer.status, status, "case {number}: {}", answer.text());
        answer.err();
        assert!(
            answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")),
            "case {number}"
        );
    }
    let not_allowed = http::request(address, "PUT", &target, json_type, b"").await;
    assert!(not_allowed.header("allow").is_some_and(|allow| allow.contains("POST")), "{:?}", not_allowed.headers);
}

async fn a_wrong_or_stale_signature_is_401(cluster: Cluster) {
    let body = json!({"all": true, "data": 1});
    let mut client = Client::user(cluster.a(), "ann").await;
    let good = cluster.a().api();
    let cases = [
        crate::support::Api { secret: "wrong".to_owned(), ..good.clone() },
        crate::support::Api { expires_in: -5, ..good.clone() },
        crate::support::Api { expires_in: 3600, ..good.clone() },
        crate::support::Api { pid: "unknown".to_owned(), ..good.clone() },
        crate::support::Api { pid: "503".to_owned(), ..good.clone() },
    ];
    for api in cases {
        let refused = api.push(&body).await;
        assert_eq!(refused.status, 401, "{api:?}: {}", refused.text());
        refused.err();
    }
    client.silent().await;
    good.push_ok(&body).await;
    assert_eq!(client.next().await["payload"], 1);
}

async fn a_changed_parameter_or_body_breaks_the_signature(cluster: Cluster) {
    let api = cluster.a().api();
    let body = r#"{"uids":["ann"],"data":1}"#;
    let target = api.target("/ws/push", &[], Some(body.as_bytes()));
    let changed =
        http::request(api.address, "POST", &target, "application/json", b"{\"uids\":[\"bob\"],\"data\":1}").await;
    assert_eq!(changed.status, 401, "another body: {}", changed.text());
    let added =
        http::request(api.address, "POST", &format!("{target}&affair_id=x"), "application/json", body.as_bytes()).await;
    assert_eq!(added.status, 401, "another parameter: {}", added.text());
    let query = api.target("/ws/push", &[("uids", "ann"), ("data", "1")], None);
    let moved = http::request(api.address, "POST", &query.replace("data=1", "data=2"), "text/plain", b"").await;
    assert_eq!(moved.status, 401, "another value: {}", moved.text());
    // A value that looks like another parameter stays a value.
    let posing = api.push_query(&[("uids", "ann&tags=all"), ("data", "1")]).await;
    assert_eq!(posing.status, 200, "{}", posing.text());
    assert!(query.contains(&sign::percent("ann")));
}

async fn the_previous_secret_signs_too(cluster: Cluster) {
    let old = crate::support::config::OLD_SECRET.to_owned();
    crate::support::Api { secret: old, ..cluster.a().api() }.push_ok(&json!({"all": true, "data": 1})).await;
}

async fn a_body_over_the_bound_is_413(cluster: Cluster) {
    let body = format!(r#"{{"all":true,"data":"{}"}}"#, "x".repeat(1 << 20));
    let refused = cluster.a().api().post("/ws/push", &body).await;
    assert_eq!(refused.status, 413, "{}", refused.text());
    refused.err();
    // The declared length alone decides.
    let request = format!(
        "{} /ws/push?pid=502 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n",
        "POST"
    );
    assert_eq!(http::raw(cluster.a().http, request.as_bytes()).await.status, 413);
}

async fn every_way_of_pushing_warns_of_a_payload_above_the_guidance(cluster: Cluster) {
    let (api, node) = (cluster.a().api(), cluster.a());
    let mut client = Client::user(node, "ann").await;
    let mut backend = Client::backend(node, "biz").await;
    let counted = async || node.metric("ws_payloads_over_guidance_total").await;
    // JSON, query and form; a tag as well as a user.
    for bytes in [1460, 1461] {
        let before = counted().await;
        let text = "x".repeat(bytes - 2);
        let line = |data: &str| json!({"uids": ["ann"], "data": data}).to_string();
        let mut answers = vec![api.post("/ws/push", &line(&text)).await.payload()];
        answers.push(api.push(&json!({"tags": ["wide"], "data": text})).await.payload());
        answers.push(api.push_query(&[("uids", "ann"), ("data", &text)]).await.payload());
        answers.push(api.push_form(&[("uids", "ann"), ("data", &text)]).await.payload());
        let (_, batch) = api.batch(&[line("small"), line(&text), line("small")].join("\n")).await;
        answers.push(batch[1]["payload"].clone());
        for small in [&batch[0], &batch[2]] {
            assert_eq!(small["payload"]["warning"], Value::Null, "the other lines are told nothing: {small}");
        }
        let message = json!({"type": "push", "to": {"uids": ["ann"]}, "payload": text});
        answers.push(backend.ask(message).await["payload"].clone());
        for (way, answer) in answers.iter().enumerate() {
            assert!(answer["id"].is_string(), "way {way}: {answer}");
            let warning = answer["warning"].as_str();
            match bytes {
                1460 => assert_eq!(warning, None, "way {way}: at the guidance there is nothing to say"),
                _ => assert!(
                    warning.is_some_and(|text| text.contains("1461") && text.contains("1460")),
                    "{way}: {answer}"
                ),
            }
        }
        let expected = if bytes > 1460 { answers.len() as f64 } else { 0.0 };
        assert_eq!(counted().await - before, expected, "each is counted once");
        for _ in 0..answers.len() - 1 + 2 {
            assert!(client.next().await["payload"].as_str().is_some_and(|text| text.len() < bytes), "all are sent");
        }
    }
    client.silent().await;
}
