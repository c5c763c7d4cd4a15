//! Nothing ever crosses projects: no id, tag, push, list or request.

use crate::support::{
    Cluster, Connect,
    config::{OTHER_PID, PID},
    json,
};

everywhere!(
    pushes_stay_in_their_project,
    a_tag_of_the_same_name_is_another_tag,
    requests_and_presence_stay_in_their_project,
    lists_and_kicks_stay_in_their_project,
);

fn in_project<'a>(pid: &'a str, uid: &'a str) -> Connect<'a> {
    Connect { pid, device: Some("phone"), ..Connect::user(uid) }
}

async fn pushes_stay_in_their_project(cluster: Cluster) {
    let mut ours = in_project(PID, "ann").to(cluster.a()).await;
    let mut theirs = in_project(OTHER_PID, "ann").to(cluster.b()).await;
    ours.subscribe(&["gold"]).await;
    theirs.subscribe(&["gold"]).await;
    let their_cid = theirs.cid.clone();
    let audiences = [
        json!({"uids": ["ann"]}),
        json!({"tags": ["gold", "x"]}),
        json!({"devices": ["phone"]}),
        json!({"all": true}),
        json!({"cids": [ours.cid, their_cid]}),
    ];
    for (number, to) in audiences.iter().enumerate() {
        let mut body = to.clone();
        body["data"] = json!(number);
        cluster.b().api().push_ok(&body).await;
        assert_eq!(ours.next().await, json!({"payload": number}), "{to}");
    }
    theirs.silent().await;
    let mut backend = Connect { pid: OTHER_PID, ..Connect::backend("biz") }.to(cluster.a()).await;
    for to in audiences {
        backend.send(json!({"to": to, "payload": "theirs"})).await;
        assert_eq!(theirs.next().await, json!({"payload": "theirs"}), "{to}");
    }
    ours.silent().await;
}

async fn a_tag_of_the_same_name_is_another_tag(cluster: Cluster) {
    let mut ours = in_project(PID, "ann").to(cluster.a()).await;
    ours.subscribe(&["gold"]).await;
    let our_id = cluster.b().api().publish("gold", json!("ours")).await;
    assert_eq!(ours.next().await["id"], our_id);
    let mut theirs = in_project(OTHER_PID, "ann").to(cluster.a()).await;
    theirs.subscribe(&["gold"]).await;
    theirs.silent().await;
    let their_id = cluster.b().other_api().publish("gold", json!("theirs")).await;
    let first = theirs.next().await;
    assert_eq!((&first["id"], &first["prev"]), (&json!(their_id), &json!("")), "a chain of its own: {first}");
    ours.silent().await;
    let resumed = theirs.ask(json!({"type": "subscribe", "tags": [{"tag": "gold", "since": our_id}]})).await;
    assert_eq!(resumed["code"], 1, "{resumed}");
    let answer = theirs.next().await;
    assert_eq!(answer["gap"], true, "another project's id is unknown: {answer}");
    let state = cluster.a().other_api().get("/v1/tags/gold", &[]).await.payload();
    assert_eq!(state["last"]["payload"], "theirs", "{state}");
}

async fn requests_and_presence_stay_in_their_project(cluster: Cluster) {
    let mut their_backend = Connect { pid: OTHER_PID, ..Connect::backend("biz") }.to(cluster.b()).await;
    let mut our_backend = Connect::backend("biz").to(cluster.b()).await;
    super::requests::meet(&mut our_backend, cluster.a()).await;
    let mut ours = in_project(PID, "ann").to(cluster.a()).await;
    ours.send(json!({"type": "request", "affair_id": "q", "payload": 1})).await;
    our_backend.next_where(|message| message["type"] == "request").await;
    ours.close().await;
    our_backend.next_where(|message| message["type"] == "disconnect" && message["source"]["uid"] == "ann").await;
    let while_ours = async {
        loop {
            let message = their_backend.next().await;
            // Their own (empty) online list may come; nothing of ours may.
            assert!(!message.to_string().contains("ann"), "{message}");
            assert_ne!(message["type"], "request", "{message}");
        }
    };
    let passed: Result<(), _> = tokio::time::timeout(crate::support::QUIET, while_ours).await;
    assert!(passed.is_err());
}

async fn lists_and_kicks_stay_in_their_project(cluster: Cluster) {
    let mut ours = in_project(PID, "ann").to(cluster.a()).await;
    let mut theirs = in_project(OTHER_PID, "ann").to(cluster.b()).await;
    let online = cluster.b().api().get("/v1/online", &[("uids", "ann")]).await.payload();
    assert_eq!(online["users"][0]["connections"].as_array().map(Vec::len), Some(1), "{online}");
    assert_eq!(online["users"][0]["connections"][0]["cid"], ours.cid, "{online}");
    let kick = cluster.a().other_api().post("/v1/kick", &json!({"uids": ["ann"]}).to_string()).await;
    assert_eq!(kick.status, 200, "{}", kick.text());
    assert_eq!(theirs.closed().await.0, 4410);
    let kick = cluster.a().other_api().post("/v1/kick", &json!({"cids": [ours.cid]}).to_string()).await;
    assert_eq!(kick.status, 200, "{}", kick.text());
    ours.settle().await;
    ours.silent().await;
}
