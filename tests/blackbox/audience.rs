//! To whom a push goes: parts are intersected, inside a part any member matches, and each connection gets it once.

use crate::support::{Client, Cluster, Connect, Value, json};

everywhere!(
    each_part_selects_its_members,
    parts_are_intersected,
    an_empty_part_is_not_given,
    no_part_needs_all,
    all_reaches_every_user_and_no_back_end,
    a_connection_that_matches_twice_gets_it_once,
    every_connection_of_a_user_gets_it,
    a_push_to_several_tags_is_no_publication,
    a_back_end_pushes_over_its_socket,
    affair_id_and_keep_travel_with_a_push,
);

struct People {
    ann_phone: Client,
    ann_web: Client,
    bob_phone: Client,
}

impl People {
    /// Ann on her phone (node a) and in a browser (node b), Bob on his phone (node b); Ann's phone and Bob follow `gold`.
    async fn arrive(cluster: &Cluster) -> Self {
        let at = |uid, device| Connect { device: Some(device), ..Connect::user(uid) };
        let mut ann_phone = at("ann", "phone").to(cluster.a()).await;
        let ann_web = at("ann", "web").to(cluster.b()).await;
        let mut bob_phone = at("bob", "phone").to(cluster.b()).await;
        ann_phone.subscribe(&["gold", "silver"]).await;
        bob_phone.subscribe(&["gold"]).await;
        Self { ann_phone, ann_web, bob_phone }
    }

    /// Pushes through node b and checks who gets it.
    async fn check(&mut self, cluster: &Cluster, to: Value, who: [bool; 3]) {
        let marker = crate::support::unique("push");
        let mut body = to.clone();
        body["data"] = json!({"marker": marker});
        cluster.b().api().push_ok(&body).await;
        // A second push, which all must get, shows that the first has passed those who must not.
        let end = crate::support::unique("end");
        cluster.b().api().push_ok(&json!({"all": true, "data": end})).await;
        let people = [&mut self.ann_phone, &mut self.ann_web, &mut self.bob_phone];
        for (client, expected) in people.into_iter().zip(who) {
            let (mut copies, mut ended) = (0, false);
            // Pushes to different audiences may overtake each other; both come within the patience of `next`.
            while !ended || (copies == 0 && expected) {
                let message = client.next().await;
                copies += u32::from(message["payload"]["marker"] == *marker);
                ended |= message["payload"] == *end;
            }
            assert_eq!(copies, u32::from(expected), "{to} for {}", client.greeting);
        }
    }
}

async fn each_part_selects_its_members(cluster: Cluster) {
    let mut people = People::arrive(&cluster).await;
    people.check(&cluster, json!({"uids": ["ann"]}), [true, true, false]).await;
    people.check(&cluster, json!({"uids": ["ann", "bob", "nobody"]}), [true, true, true]).await;
    people.check(&cluster, json!({"devices": ["phone"]}), [true, false, true]).await;
    people.check(&cluster, json!({"cids": [people.ann_web.cid]}), [false, true, false]).await;
    let both = json!({"cids": [people.ann_phone.cid, people.bob_phone.cid]});
    people.check(&cluster, both, [true, false, true]).await;
    people.check(&cluster, json!({"tags": ["gold", "silver"]}), [true, false, true]).await;
    people.check(&cluster, json!({"tags": ["silver"]}), [true, false, false]).await;
    people.check(&cluster, json!({"uids": ["nobody"]}), [false, false, false]).await;
    people.check(&cluster, json!({"cids": ["1-0-0-0-0", "nonsense"]}), [false, false, false]).await;
    people.check(&cluster, json!({"all": true}), [true, true, true]).await;
}

async fn parts_are_intersected(cluster: Cluster) {
    let mut people = People::arrive(&cluster).await;
    people.check(&cluster, json!({"uids": ["ann"], "devices": ["phone"]}), [true, false, false]).await;
    people.check(&cluster, json!({"uids": ["bob"], "tags": ["silver"]}), [false, false, false]).await;
    people.check(&cluster, json!({"tags": ["gold"], "devices": ["phone", "web"]}), [true, false, true]).await;
    people.check(&cluster, json!({"tags": ["gold"], "uids": ["ann", "bob"], "devices": ["web"]}), [false; 3]).await;
    let own = json!({"uids": ["ann"], "cids": [people.ann_web.cid, people.bob_phone.cid]});
    people.check(&cluster, own, [false, true, false]).await;
    let all_parts = json!({
        "uids": ["bob"], "cids": [people.bob_phone.cid], "tags": ["gold"], "devices": ["phone"],
    });
    people.check(&cluster, all_parts, [false, false, true]).await;
}

async fn an_empty_part_is_not_given(cluster: Cluster) {
    let mut people = People::arrive(&cluster).await;
    let to = json!({"uids": ["ann"], "cids": [], "tags": [], "devices": []});
    people.check(&cluster, to, [true, true, false]).await;
}

async fn no_part_needs_all(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    let parts = [
        json!({}),
        json!({"uids": []}),
        json!({"all": false}),
        json!({"uids": [], "cids": [], "tags": [], "devices": []}),
    ];
    for mut body in parts {
        body["data"] = json!(1);
        let refused = cluster.a().api().push(&body).await;
        assert_eq!(refused.status, 400, "{body}");
        refused.err();
    }
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let answer = backend.ask(json!({"type": "push", "to": {}, "payload": 1})).await;
    assert_eq!(answer["code"], 0, "{answer}");
    assert!(answer["err"].is_string(), "{answer}");
    client.silent().await;
}

async fn all_reaches_every_user_and_no_back_end(cluster: Cluster) {
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(Client::user(&cluster.nodes[number % cluster.nodes.len()], "same").await);
    }
    backend.send(json!({"type": "push", "to": {"all": true}, "payload": "hello"})).await;
    for client in &mut clients {
        assert_eq!(client.next().await, json!({"payload": "hello"}));
        client.silent().await;
    }
    while let Some(Ok(message)) =
        tokio::time::timeout(crate::support::QUIET, futures_util::StreamExt::next(&mut backend.socket))
            .await
            .ok()
            .flatten()
    {
        assert!(!message.to_string().contains("hello"), "a back-end is no user: {message}");
    }
}

async fn a_connection_that_matches_twice_gets_it_once(cluster: Cluster) {
    let mut people = People::arrive(&cluster).await;
    people.check(&cluster, json!({"tags": ["gold", "silver"], "uids": ["ann", "bob"]}), [true, false, true]).await;
    people.check(&cluster, json!({"uids": ["ann", "ann", "ann"]}), [true, true, false]).await;
    let twice = json!({"cids": [people.ann_web.cid, people.ann_web.cid]});
    people.check(&cluster, twice, [false, true, false]).await;
}

async fn every_connection_of_a_user_gets_it(cluster: Cluster) {
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(Client::user(&cluster.nodes[number % cluster.nodes.len()], "ann").await);
    }
    let leaving = clients.pop().expect("eight");
    leaving.close().await;
    cluster.a().api().push_ok(&json!({"uids": ["ann"], "data": [1, 2]})).await;
    for client in &mut clients {
        assert_eq!(client.next().await, json!({"payload": [1, 2]}));
    }
}

async fn a_push_to_several_tags_is_no_publication(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["gold", "silver"]).await;
    let api = cluster.a().api();
    api.push_ok(&json!({"tags": ["gold", "silver"], "data": 1})).await;
    assert_eq!(client.next().await, json!({"payload": 1}));
    api.push_ok(&json!({"tags": ["gold"], "uids": ["ann"], "data": 2})).await;
    assert_eq!(client.next().await, json!({"payload": 2}));
    let id = api.publish("gold", json!(3)).await;
    let publication = client.next().await;
    assert_eq!((&publication["id"], &publication["prev"]), (&json!(id), &json!("")), "{publication}");
}

async fn a_back_end_pushes_over_its_socket(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["gold"]).await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let typed = backend.ask(json!({"type": "push", "to": {"uids": ["ann"]}, "payload": {"n": 1}})).await;
    assert_eq!(typed["code"], 1, "{typed}");
    assert_eq!(client.next().await, json!({"payload": {"n": 1}}));
    let untyped = backend.ask(json!({"to": {"uids": ["ann"]}, "payload": {"n": 2}})).await;
    assert_eq!(untyped["code"], 1, "{untyped}");
    assert_eq!(client.next().await, json!({"payload": {"n": 2}}));
    backend.send(json!({"to": {"tags": ["gold"]}, "payload": "no ack asked"})).await;
    let publication = client.next().await;
    assert_eq!((&publication["tag"], &publication["payload"]), (&json!("gold"), &json!("no ack asked")));
    for bad in [json!({"to": {"uids": ["ann"]}}), json!({"to": 7, "payload": 1}), json!({"payload": 1})] {
        let answer = backend.ask(bad.clone()).await;
        assert_eq!(answer["code"], 0, "{bad}: {answer}");
        assert!(answer["err"].is_string(), "{bad}: {answer}");
    }
    client.silent().await;
}

async fn affair_id_and_keep_travel_with_a_push(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["bars"]).await;
    let api = cluster.a().api();
    api.push_ok(&json!({"uids": ["ann"], "affair_id": "a-7", "data": 1})).await;
    assert_eq!(client.next().await, json!({"affair_id": "a-7", "payload": 1}));
    let id = api.push_ok(&json!({"tags": ["bars"], "affair_id": "bar", "keep": true, "data": 2})).await;
    let expected = json!({"tag": "bars", "id": id, "prev": "", "affair_id": "bar", "payload": 2});
    assert_eq!(client.next().await, expected);
}
