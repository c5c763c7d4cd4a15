//! Who may subscribe to which tag: rules (`public`, `private`, `own`), tokens that narrow them, back-ends that open a tag.
//!
//! Method: what is granted is also delivered, and what is denied is not, whatever is published.

use crate::support::{
    Client, Cluster, Connect, Value,
    config::{PID, SECRET},
    json,
    token::{claims, hs256},
};

everywhere!(
    rules_hold_for_a_signed_session,
    a_token_narrows_what_the_rules_allow_and_never_widens_it,
    a_back_end_opens_a_private_tag_to_whom_it_names,
);

on_one_node!(
    a_token_without_patterns_is_held_to_the_rules_alone,
    a_token_with_no_pattern_at_all_opens_nothing,
    a_refresh_does_not_change_what_may_be_subscribed_to,
    tags_of_the_connect_are_held_to_the_same,
);

/// A user with a token that lets it subscribe to these patterns.
async fn with_patterns(cluster: &Cluster, uid: &str, patterns: &[&str]) -> Client {
    Connect::token(&token(uid, patterns)).to(cluster.b()).await
}

fn token(uid: &str, patterns: &[&str]) -> String {
    let mut claims = claims(PID, uid, 60);
    claims["tags"] = json!(patterns);
    hs256(SECRET, &claims)
}

/// Subscribes to all of `tags`; only `granted` are granted, the others denied by name with `denied`.
async fn subscribes(client: &mut Client, tags: &[&str], granted: &[&str]) {
    let answer = client.ask(json!({"type": "subscribe", "tags": tags})).await;
    expect(&answer, tags, granted);
}

fn expect(answer: &Value, tags: &[&str], granted: &[&str]) {
    assert_eq!(answer["payload"]["granted"], json!(granted), "{answer}");
    let denied = tags.iter().filter(|tag| !granted.contains(tag)).map(|tag| json!({"tag": tag, "err": "denied"}));
    assert_eq!(answer["payload"]["denied"], denied.collect::<Value>(), "{answer}");
    assert_eq!(answer["code"], u8::from(!granted.is_empty()), "{answer}");
    assert_eq!(answer["err"], if granted.is_empty() { json!("denied") } else { Value::Null }, "{answer}");
}

/// Publishes to all of `tags`; the client gets those of `granted`, in order, and nothing else.
async fn delivers(cluster: &Cluster, client: &mut Client, tags: &[&str], granted: &[&str]) {
    for tag in tags {
        cluster.a().api().publish(tag, json!(tag)).await;
    }
    let mut got = Vec::new();
    for _ in granted {
        got.push(client.next().await["payload"].as_str().expect("a tag's name").to_owned());
    }
    // Different tags may take different ways through the log.
    got.sort_unstable();
    let mut expected = granted.to_vec();
    expected.sort_unstable();
    assert_eq!(got, expected);
    client.silent().await;
}

const TAGS: &[&str] = &["open", "kline.BTC", "private.orders", "own.ann", "own.bob", "own.ann2", "own.an", "own."];

async fn rules_hold_for_a_signed_session(cluster: Cluster) {
    let mut ann = Client::user(cluster.b(), "ann").await;
    let granted = &["open", "kline.BTC", "own.ann"];
    subscribes(&mut ann, TAGS, granted).await;
    delivers(&cluster, &mut ann, TAGS, granted).await;
    let mut bob = Client::user(cluster.b(), "bob").await;
    subscribes(&mut bob, &["own.ann"], &[]).await;
    subscribes(&mut bob, &["own.bob"], &["own.bob"]).await;
    assert_eq!(bob.next().await["payload"], "own.bob", "the snapshot of the own tag");
    bob.silent().await;
}

async fn a_token_narrows_what_the_rules_allow_and_never_widens_it(cluster: Cluster) {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["kline.*"], &["kline.BTC"]),
        (&["kline.BTC", "open*"], &["open", "kline.BTC"]),
        (&["kline"], &[]),
        // Its own project cannot give away by a token what a rule keeps to itself.
        (&["private.*", "private.orders"], &[]),
        (&["own.*"], &["own.ann"]),
        (&["*"], &["open", "kline.BTC", "own.ann"]),
    ];
    for (patterns, granted) in cases {
        let mut ann = with_patterns(&cluster, "ann", patterns).await;
        subscribes(&mut ann, TAGS, granted).await;
        ann.close().await;
    }
    let mut ann = with_patterns(&cluster, "ann", &["kline.*", "own.*"]).await;
    let granted = &["kline.BTC", "own.ann"];
    subscribes(&mut ann, TAGS, granted).await;
    delivers(&cluster, &mut ann, TAGS, granted).await;
}

async fn a_back_end_opens_a_private_tag_to_whom_it_names(cluster: Cluster) {
    let mut ann = with_patterns(&cluster, "ann", &["kline.*"]).await;
    let mut bob = Client::user(cluster.b(), "bob").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let tags = &["private.vip", "own.bob", "open"];
    subscribes(&mut ann, tags, &[]).await;
    for tag in tags {
        cluster.a().api().publish(tag, json!(1)).await;
    }
    let order = json!({"type": "control", "op": "subscribe", "to": {"uids": ["ann"]}, "tags": tags});
    assert_eq!(backend.ask(order).await["code"], 1);
    for _ in tags {
        assert_eq!(ann.next().await["payload"], 1, "the value shows that the order is carried out");
    }
    delivers(&cluster, &mut ann, tags, tags).await;
    // It was let in by the order and not by the rules: once out, it cannot come back by itself.
    assert_eq!(ann.ask(json!({"type": "unsubscribe", "tags": ["private.vip"]})).await["code"], 1);
    subscribes(&mut ann, &["private.vip"], &[]).await;
    delivers(&cluster, &mut ann, &["private.vip"], &[]).await;
    bob.silent().await;
}

async fn a_token_without_patterns_is_held_to_the_rules_alone(cluster: Cluster) {
    let mut ann = Connect::token(&hs256(SECRET, &claims(PID, "ann", 60))).to(cluster.a()).await;
    subscribes(&mut ann, TAGS, &["open", "kline.BTC", "own.ann"]).await;
}

async fn a_token_with_no_pattern_at_all_opens_nothing(cluster: Cluster) {
    let mut ann = with_patterns(&cluster, "ann", &[]).await;
    subscribes(&mut ann, TAGS, &[]).await;
    delivers(&cluster, &mut ann, &["open", "own.ann"], &[]).await;
}

async fn a_refresh_does_not_change_what_may_be_subscribed_to(cluster: Cluster) {
    let mut ann = with_patterns(&cluster, "ann", &["kline.*"]).await;
    let wider = ann.ask(json!({"type": "refresh", "token": token("ann", &["*"])})).await;
    assert_eq!(wider["code"], 1, "{wider}");
    subscribes(&mut ann, &["open", "kline.BTC"], &["kline.BTC"]).await;
}

async fn tags_of_the_connect_are_held_to_the_same(cluster: Cluster) {
    let token = token("ann", &["kline.*", "own.*"]);
    let tags = &["open", "kline.BTC", "private.orders", "own.ann", "own.bob"];
    let list = tags.join(",");
    let mut ann = Connect { tags: Some(&list), ..Connect::token(&token) }.to(cluster.a()).await;
    let granted = &["kline.BTC", "own.ann"];
    expect(&ann.next().await, tags, granted);
    delivers(&cluster, &mut ann, tags, granted).await;
}
