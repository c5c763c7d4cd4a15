//! `/v1/online` answers from the whole cluster, page by page.

use std::collections::BTreeSet;

use crate::support::{Client, Cluster, Connect, eventually, json, unix_now};

everywhere!(users_of_all_nodes_are_listed, pages_follow_each_other_without_gap_or_repeat, who_left_is_not_listed);

async fn users_of_all_nodes_are_listed(cluster: Cluster) {
    let phone = Connect { device: Some("phone"), ..Connect::user("ann") }.to(cluster.a()).await;
    let web = Client::user(cluster.b(), "ann").await;
    let bob = Client::user(cluster.b(), "bob").await;
    let _backend = Client::backend(cluster.a(), "not-a-user").await;
    for node in &cluster.nodes {
        let online = node.api().get("/v1/online", &[]).await.payload();
        assert_eq!(online["next"], json!(null), "{online}");
        let users = online["users"].as_array().expect("a list");
        assert_eq!(users.len(), 2, "{online}");
        assert_eq!((&users[0]["uid"], &users[1]["uid"]), (&json!("ann"), &json!("bob")), "{online}");
        let connections = users[0]["connections"].as_array().expect("a list");
        assert_eq!(connections.len(), 2, "{online}");
        let of = |cid: &str| connections.iter().find(|one| one["cid"] == cid).expect("the connection").clone();
        let (of_phone, of_web) = (of(&phone.cid), of(&web.cid));
        assert_eq!((&of_phone["node"], &of_phone["device"]), (&json!(cluster.a().id), &json!("phone")), "{online}");
        assert_eq!(of_web["node"], json!(cluster.b().id), "{online}");
        let since = of_phone["since"].as_u64().expect("a time");
        let seconds = if since > 100_000_000_000 { since / 1000 } else { since };
        assert!(seconds.abs_diff(unix_now()) < 30, "{online}");
        let only = node.api().get("/v1/online", &[("uids", "bob,nobody")]).await.payload();
        assert_eq!(only["users"].as_array().map(Vec::len), Some(1), "{only}");
        assert_eq!(only["users"][0]["connections"][0]["cid"], bob.cid, "{only}");
    }
    let unsigned = crate::support::http::get(cluster.a().http, "/v1/online?pid=502").await;
    assert_eq!(unsigned.status, 401, "{}", unsigned.text());
}

async fn pages_follow_each_other_without_gap_or_repeat(cluster: Cluster) {
    let mut clients = Vec::new();
    for number in 0..23 {
        let node = &cluster.nodes[number % cluster.nodes.len()];
        clients.push(Client::user(node, &format!("u{number:02}")).await);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let mut params = vec![("limit", "5")];
        params.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = cluster.b().api().get("/v1/online", &params).await.payload();
        let users = page["users"].as_array().expect("a list");
        assert!(!users.is_empty() && users.len() <= 5, "{page}");
        seen.extend(users.iter().map(|user| user["uid"].as_str().expect("a uid").to_owned()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let expected: Vec<String> = (0..23).map(|number| format!("u{number:02}")).collect();
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(seen.len(), 23, "nobody twice: {seen:?}");
    assert_eq!(pages, 5);
}

async fn who_left_is_not_listed(cluster: Cluster) {
    let ann = Client::user(cluster.b(), "ann").await;
    let bob = Client::user(cluster.a(), "bob").await;
    ann.close().await;
    drop(bob);
    eventually("both are gone from the list", async || {
        cluster.a().api().get("/v1/online", &[]).await.payload()["users"] == json!([])
    })
    .await;
}
