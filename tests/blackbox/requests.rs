//! A user's request: exactly one back-end, the least busy one, and an answer or an honest notice.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{Client, Cluster, Connect, Node, Value, config::ALL_PID, json, unique};

everywhere!(
    a_request_reaches_one_back_end_and_the_answer_comes_back,
    requests_go_to_the_least_busy_back_end,
    without_a_back_end_the_user_is_told_at_once,
    a_request_that_is_not_answered_times_out,
    a_back_end_that_leaves_is_told,
    a_project_may_send_requests_to_all_its_back_ends,
    a_request_without_type_is_a_request,
);

/// Waits until `node` knows this back-end: until it tells it of a user who comes there.
pub async fn meet(backend: &mut Client, node: &Node) {
    meet_in(backend, node, crate::support::config::PID).await;
}

/// The same for a back-end of another project.
pub async fn meet_in(backend: &mut Client, node: &Node, pid: &str) {
    for _ in 0..40 {
        let uid = unique("stranger");
        let stranger = Connect { pid, ..Connect::user(&uid) }.to(node).await;
        let told = |kind: &'static str, uid: String| {
            move |message: &Value| message["type"] == kind && message["source"]["uid"] == *uid
        };
        let came = timeout(Duration::from_millis(250), backend.next_where(told("connect", uid.clone()))).await;
        stranger.close().await;
        if came.is_ok() {
            backend.next_where(told("disconnect", uid)).await;
            return;
        }
    }
    panic!("node {} never told the back-end of a user", node.id);
}

/// The next request that reaches the back-end; presence is passed over.
async fn next_request(backend: &mut Client) -> Value {
    backend.next_where(|message| message["type"] == "request").await
}

async fn a_request_reaches_one_back_end_and_the_answer_comes_back(cluster: Cluster) {
    let mut backends = [Client::backend(cluster.a(), "one").await, Client::backend(cluster.b(), "two").await];
    for backend in &mut backends {
        meet(backend, cluster.a()).await;
        meet(backend, cluster.b()).await;
    }
    let mut client = Connect { device: Some("phone"), ..Connect::user("ann") }.to(cluster.a()).await;
    for number in 0..4 {
        let affair = format!("q{number}");
        let sent = client.ask(json!({"type": "request", "affair_id": affair, "payload": {"buy": number}})).await;
        assert_eq!(sent["code"], 1, "{sent}");
        let [one, two] = &mut backends;
        let (request, backend) = tokio::select! {
            request = next_request(one) => (request, one),
            request = next_request(two) => (request, two),
        };
        let source = json!({"pid": "502", "uid": "ann", "cid": client.cid, "device": "phone"});
        let expected = json!({"type": "request", "affair_id": affair, "source": source, "payload": {"buy": number}});
        assert_eq!(request, expected);
        backend.send(json!({"affair_id": affair, "to": {"cids": [client.cid]}, "payload": {"bought": number}})).await;
        assert_eq!(client.next().await, json!({"affair_id": affair, "payload": {"bought": number}}));
    }
    for backend in &mut backends {
        let more = timeout(crate::support::QUIET, next_request(backend)).await;
        assert!(more.is_err(), "a request came twice: {more:?}");
    }
    client.silent().await;
}

async fn requests_go_to_the_least_busy_back_end(cluster: Cluster) {
    let mut one = Client::backend(cluster.a(), "one").await;
    let mut two = Client::backend(cluster.b(), "two").await;
    for node in [cluster.a(), cluster.b()] {
        meet(&mut one, node).await;
        meet(&mut two, node).await;
    }
    let mut client = Client::user(cluster.b(), "ann").await;
    let (mut at_one, mut at_two) = (0, 0);
    for number in 0..10 {
        client.ask(json!({"type": "request", "affair_id": format!("q{number}"), "payload": 1})).await;
        tokio::select! {
            _ = next_request(&mut one) => at_one += 1,
            _ = next_request(&mut two) => at_two += 1,
        }
        // The other node hears of it at its own pace.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((at_one, at_two), (5, 5), "nobody answers, so they take turns");
    // One answers all of its own: the next five are its.
    for number in 0..10 {
        one.send(json!({"affair_id": format!("q{number}"), "to": {"cids": [client.cid]}, "payload": 1})).await;
    }
    for _ in 0..10 {
        client.next_where(|message| message["payload"] == 1).await;
    }
}

async fn without_a_back_end_the_user_is_told_at_once(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.send(json!({"type": "request", "affair_id": "q", "payload": 1})).await;
    let told = client.next().await;
    assert_eq!((&told["affair_id"], &told["code"], &told["err"]), (&json!("q"), &json!(0), &json!("no_backend")));
    assert!(told["msg"].is_string() && told.get("ack_id").is_none_or(Value::is_null), "{told}");
    client.send(json!({"type": "request", "affair_id": "q2", "ack_id": "a2", "payload": 1})).await;
    let told = client.next().await;
    assert_eq!((&told["affair_id"], &told["ack_id"], &told["err"]), (&json!("q2"), &json!("a2"), &json!("no_backend")));
    client.silent().await;
}

async fn a_request_that_is_not_answered_times_out(cluster: Cluster) {
    let mut backend = Client::backend(cluster.b(), "biz").await;
    meet(&mut backend, cluster.a()).await;
    let mut client = Client::user(cluster.a(), "ann").await;
    let begun = tokio::time::Instant::now();
    client.send(json!({"type": "request", "affair_id": "slow", "timeout_ms": 500, "payload": 1})).await;
    next_request(&mut backend).await;
    let told = client.next().await;
    assert_eq!(
        (&told["affair_id"], &told["code"], &told["err"]),
        (&json!("slow"), &json!(0), &json!("timeout")),
        "{told}"
    );
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(450) && waited < Duration::from_secs(4), "{waited:?}");
    client.silent().await;
}

async fn a_back_end_that_leaves_is_told(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    for (affair, politely) in [("q1", true), ("q2", false)] {
        let mut backend = Client::backend(cluster.b(), "biz").await;
        meet(&mut backend, cluster.a()).await;
        client.send(json!({"type": "request", "affair_id": affair, "payload": 1})).await;
        next_request(&mut backend).await;
        if politely {
            backend.close().await;
        } else {
            drop(backend);
        }
        let told = client.next().await;
        assert_eq!((&told["affair_id"], &told["err"]), (&json!(affair), &json!("backend_lost")), "{told}");
    }
    client.silent().await;
}

async fn a_project_may_send_requests_to_all_its_back_ends(cluster: Cluster) {
    let mut backends = Vec::new();
    for (node, name) in [(cluster.a(), "one"), (cluster.b(), "two"), (cluster.b(), "three")] {
        backends.push(Connect { pid: ALL_PID, ..Connect::backend(name) }.to(node).await);
    }
    for backend in &mut backends {
        meet_in(backend, cluster.a(), ALL_PID).await;
    }
    let mut client = Connect { pid: ALL_PID, ..Connect::user("ann") }.to(cluster.a()).await;
    client.send(json!({"type": "request", "affair_id": "q", "payload": 1})).await;
    for backend in &mut backends {
        assert_eq!(next_request(backend).await["affair_id"], "q");
    }
}

async fn a_request_without_type_is_a_request(cluster: Cluster) {
    let mut backend = Client::backend(cluster.b(), "biz").await;
    meet(&mut backend, cluster.a()).await;
    let mut client = Client::user(cluster.a(), "ann").await;
    client.send(json!({"affair_id": "old", "payload": [1], "unknown": {"field": 1}})).await;
    let request = next_request(&mut backend).await;
    assert_eq!((&request["affair_id"], &request["payload"]), (&json!("old"), &json!([1])), "{request}");
    client.send(json!({"payload": "nameless"})).await;
    let nameless = next_request(&mut backend).await;
    let affair = nameless["affair_id"].as_str().expect("the cluster names it").to_owned();
    backend.send(json!({"affair_id": affair, "to": {"cids": [client.cid]}, "payload": "yes"})).await;
    assert_eq!(client.next().await, json!({"affair_id": affair, "payload": "yes"}));
}
