//! Back-ends hear who comes and goes, and every ten seconds who is there.

use std::time::Duration;

use tokio::time::timeout;

use super::requests::meet;
use crate::support::{Client, Cluster, Connect, Setup, Value, json, run};

everywhere!(a_back_end_hears_who_comes_and_goes);

async fn a_back_end_hears_who_comes_and_goes(cluster: Cluster) {
    let mut backends = [Client::backend(cluster.a(), "one").await, Client::backend(cluster.b(), "two").await];
    for backend in &mut backends {
        meet(backend, cluster.a()).await;
        meet(backend, cluster.b()).await;
    }
    let ann = Connect { device: Some("phone"), ..Connect::user("ann") }.to(cluster.a()).await;
    let bob = Client::user(cluster.b(), "bob").await;
    let (ann_cid, bob_cid) = (ann.cid.clone(), bob.cid.clone());
    let of = |uid: &'static str| move |message: &Value| message["source"]["uid"] == uid;
    for backend in &mut backends {
        let source = json!({"pid": "502", "uid": "ann", "cid": ann_cid, "device": "phone"});
        assert_eq!(backend.next_where(of("ann")).await, json!({"type": "connect", "source": source}));
    }
    ann.close().await;
    for backend in &mut backends {
        let gone = backend.next_where(of("ann")).await;
        assert_eq!((&gone["type"], &gone["source"]["cid"]), (&json!("disconnect"), &json!(ann_cid)), "{gone}");
    }
    // Vanishing without a word counts too.
    drop(bob);
    for backend in &mut backends {
        let gone = backend.next_where(|message| message["type"] == "disconnect").await;
        assert_eq!(gone["source"], json!({"pid": "502", "uid": "bob", "cid": bob_cid}), "{gone}");
    }
}

/// Collects what the lists of all nodes say until each of `cids` has been named.
async fn listed(backend: &mut Client, cids: &[&str]) -> Vec<Value> {
    let mut users: Vec<Value> = Vec::new();
    while !cids.iter().all(|cid| users.iter().any(|user| user["cid"] == *cid)) {
        let list = backend.next_where(|message| message["type"] == "online_clients").await;
        assert_eq!(list["source"], json!({"pid": "502"}), "{list}");
        let payload = list["payload"].as_array().expect("a list");
        assert!(payload.len() <= 1000, "{} users in one message", payload.len());
        users.extend(payload.iter().cloned());
    }
    users
}

#[test]
fn every_ten_seconds_each_node_sends_its_online_users() {
    run(Setup::TWO, async |cluster: Cluster| {
        let ann = Connect { device: Some("phone"), ..Connect::user("ann") }.to(cluster.a()).await;
        let bob = Client::user(cluster.b(), "bob").await;
        let mut backend = Client::backend(cluster.a(), "biz").await;
        // Two rounds, to see that it goes on.
        for _ in 0..2 {
            let receiving = async {
                loop {
                    match timeout(Duration::from_secs(9), listed(&mut backend, &[&ann.cid, &bob.cid])).await {
                        Ok(users) => break users,
                        Err(_) => backend.settle().await,
                    }
                }
            };
            let users = timeout(Duration::from_secs(25), receiving).await.expect("a list every ten seconds");
            let expected = json!({"cid": ann.cid, "uid": "ann", "device": "phone"});
            assert!(users.contains(&expected), "{users:?}");
            assert!(users.contains(&json!({"cid": bob.cid, "uid": "bob"})), "{users:?}");
        }
    });
}
