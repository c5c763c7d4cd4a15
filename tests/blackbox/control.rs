//! What a back-end orders: subscribe, unsubscribe, kick; and the same kick over HTTP.

use crate::support::{Client, Cluster, Connect, eventually, json};

everywhere!(
    a_back_end_subscribes_and_unsubscribes_connections,
    a_back_end_kicks,
    the_api_kicks,
    a_bad_order_is_refused,
);

async fn a_back_end_subscribes_and_unsubscribes_connections(cluster: Cluster) {
    let mut ann = Client::user(cluster.b(), "ann").await;
    let mut bob = Client::user(cluster.b(), "bob").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let api = cluster.a().api();
    let first = api.publish("private.vip", json!(1)).await;
    let order = |op: &str| json!({"type": "control", "op": op, "to": {"uids": ["ann"]}, "tags": ["private.vip"]});
    let done = backend.ask(order("subscribe")).await;
    assert_eq!(done["code"], 1, "{done}");
    let snapshot = ann.next().await;
    assert_eq!((&snapshot["tag"], &snapshot["id"]), (&json!("private.vip"), &json!(first)), "{snapshot}");
    let second = api.publish("private.vip", json!(2)).await;
    assert_eq!(ann.next().await["id"], second, "a private tag is open to whom the back-end lets in");
    let done = backend.ask(order("unsubscribe")).await;
    assert_eq!(done["code"], 1, "{done}");
    eventually("the order is carried out", async || {
        let marker = api.publish("private.vip", json!(3)).await;
        let next =
            tokio::time::timeout(crate::support::QUIET, ann.next_where(|message| message["id"] == *marker)).await;
        next.is_err()
    })
    .await;
    bob.silent().await;
}

async fn a_back_end_kicks(cluster: Cluster) {
    let mut ann_phone = Connect { device: Some("phone"), ..Connect::user("ann") }.to(cluster.a()).await;
    let mut ann_web = Connect { device: Some("web"), ..Connect::user("ann") }.to(cluster.b()).await;
    let mut bob = Client::user(cluster.b(), "bob").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let order = json!({"type": "control", "op": "kick", "to": {"uids": ["ann"], "devices": ["phone"]}});
    assert_eq!(backend.ask(order).await["code"], 1);
    assert_eq!(ann_phone.closed().await.0, 4410);
    ann_web.silent().await;
    assert_eq!(backend.ask(json!({"type": "control", "op": "kick", "to": {"cids": [ann_web.cid]}})).await["code"], 1);
    assert_eq!(ann_web.closed().await.0, 4410);
    bob.settle().await;
    // A kick of everybody closes users, not the back-ends who order it.
    assert_eq!(backend.ask(json!({"type": "control", "op": "kick", "to": {"all": true}})).await["code"], 1);
    assert_eq!(bob.closed().await.0, 4410);
    assert_eq!(backend.ask(json!({"type": "heart"})).await["type"], "heart");
}

async fn the_api_kicks(cluster: Cluster) {
    let mut ann = Client::user(cluster.b(), "ann").await;
    let mut bob = Client::user(cluster.b(), "bob").await;
    cluster.a().api().post("/v1/kick", r#"{"uids":["ann"]}"#).await.payload();
    assert_eq!(ann.closed().await.0, 4410);
    bob.settle().await;
    let nobody = cluster.a().api().post("/v1/kick", "{}").await;
    assert_eq!(nobody.status, 400, "everybody must be asked for: {}", nobody.text());
    bob.silent().await;
}

async fn a_bad_order_is_refused(cluster: Cluster) {
    let mut ann = Client::user(cluster.b(), "ann").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let bad = [
        json!({"type": "control", "op": "dance", "to": {"uids": ["ann"]}}),
        json!({"type": "control", "op": "kick", "to": {}}),
        json!({"type": "control", "op": "kick"}),
        json!({"type": "control", "op": "subscribe", "to": {"uids": ["ann"]}, "tags": []}),
        json!({"type": "control", "op": "subscribe", "to": {"uids": ["ann"]}, "tags": ["no spaces"]}),
        json!({"type": "dance"}),
    ];
    for order in bad {
        let answer = backend.ask(order.clone()).await;
        assert_eq!(answer["code"], 0, "{order}: {answer}");
        assert!(answer["err"].is_string(), "{order}: {answer}");
    }
    ann.silent().await;
}
