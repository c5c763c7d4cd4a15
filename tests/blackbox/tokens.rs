//! JSON Web Tokens in place of signatures: algorithms, claims, refreshing, and their end.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Config, Connect, Node, Setup,
    config::{EDDSA_PID, ES256_PID, OLD_SECRET, OTHER_PID, OTHER_SECRET, PID, SECRET, SHARED_SECRET},
    json,
    raw::Raw,
    run_with,
    token::{claims, eddsa, es256, hs256, unsigned},
    unix_now,
};

on_one_node!(
    each_algorithm_opens_its_project,
    a_token_names_device_and_allowed_tags,
    a_session_ends_with_its_token,
    a_refreshed_session_goes_on,
    only_the_same_identity_can_refresh,
    a_back_end_may_come_with_a_token,
);

async fn opens(node: &Node, token: &str) {
    Connect::token(token).to(node).await.settle().await;
}

async fn each_algorithm_opens_its_project(cluster: Cluster) {
    let node = cluster.a();
    opens(node, &hs256(SECRET, &claims(PID, "ann", 60))).await;
    opens(node, &hs256(OLD_SECRET, &claims(PID, "ann", 60))).await;
    opens(node, &es256(&claims(ES256_PID, "ann", 60))).await;
    opens(node, &eddsa(&claims(EDDSA_PID, "ann", 60))).await;
}

#[test]
fn no_other_token_opens_anything() {
    run_with(Setup::ONE, Config::new().limit("failed_credentials_per_minute", 1000), async |cluster: Cluster| {
        let ann = claims(PID, "ann", 60);
        let without = |claim: &str| {
            let mut fewer = ann.clone();
            fewer.as_object_mut().expect("claims").remove(claim);
            hs256(SECRET, &fewer)
        };
        let good = hs256(SECRET, &ann);
        let (head, signature) = good.rsplit_once('.').expect("three parts");
        let other_body = hs256(SECRET, &claims(PID, "bob", 60));
        let swapped = format!("{}.{signature}", other_body.rsplit_once('.').expect("three parts").0);
        let bad = [
            ("another secret", hs256(OTHER_SECRET, &ann)),
            ("no signature wanted", unsigned(&ann)),
            ("an empty signature", format!("{head}.")),
            ("a swapped body", swapped),
            ("expired", hs256(SECRET, &claims(PID, "ann", -10))),
            ("no project", without("pid")),
            ("no user", without("uid")),
            ("no role", without("type")),
            ("no end", without("exp")),
            ("a project without tokens", hs256(OTHER_SECRET, &claims(OTHER_PID, "ann", 60))),
            ("an unknown project", hs256(SECRET, &claims("nobody", "ann", 60))),
            // The public key of ES256 must not pass as a shared secret, nor one algorithm for another.
            ("HS256 where ES256 is configured", hs256(SHARED_SECRET, &claims(ES256_PID, "ann", 60))),
            ("EdDSA where ES256 is configured", eddsa(&claims(ES256_PID, "ann", 60))),
            ("ES256 where EdDSA is configured", es256(&claims(EDDSA_PID, "ann", 60))),
            ("ES256 where HS256 is configured", es256(&ann)),
            ("one part", "abc".to_owned()),
            ("four parts", format!("{good}.x")),
        ];
        for (case, token) in bad {
            let (code, reason) = Raw::upgrade(cluster.a(), &Connect::token(&token).target()).await.closed().await;
            assert_eq!(code, 4401, "{case}: {reason}");
        }
        opens(cluster.a(), &good).await;
    });
}

async fn a_token_names_device_and_allowed_tags(cluster: Cluster) {
    let mut narrow = claims(PID, "ann", 60);
    narrow["device"] = json!("phone");
    narrow["tags"] = json!(["kline.*", "news"]);
    let token = hs256(SECRET, &narrow);
    let mut client = Connect::token(&token).to(cluster.a()).await;
    let answer = client.ask(json!({"type": "subscribe", "tags": ["kline.BTC", "news", "newspaper", "trades"]})).await;
    assert_eq!(answer["payload"]["granted"], json!(["kline.BTC", "news"]), "{answer}");
    assert_eq!(answer["payload"]["denied"].as_array().map(Vec::len), Some(2), "{answer}");
    cluster.a().api().push_ok(&json!({"devices": ["phone"], "data": 1})).await;
    assert_eq!(client.next().await, json!({"payload": 1}));
}

async fn a_session_ends_with_its_token(cluster: Cluster) {
    let short = Connect::token(&hs256(SECRET, &claims(PID, "ann", 2))).to(cluster.a()).await;
    let mut signed = Connect { expires_in: 2, ..Connect::user("bob") }.to(cluster.a()).await;
    let mut short = short;
    let (code, _) = short.closed_within(Duration::from_secs(6)).await;
    assert_eq!(code, 4401);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A signature guards only the connecting.
    signed.settle().await;
}

async fn refresh(client: &mut Client, token: &str) -> bool {
    let answer = client.ask(json!({"type": "refresh", "token": token})).await;
    assert!(answer["code"] == 1 || answer["err"].is_string(), "{answer}");
    answer["code"] == 1
}

async fn a_refreshed_session_goes_on(cluster: Cluster) {
    let mut client = Connect::token(&hs256(SECRET, &claims(PID, "ann", 3))).to(cluster.a()).await;
    assert!(refresh(&mut client, &hs256(SECRET, &claims(PID, "ann", 6))).await);
    let begun = unix_now();
    tokio::time::sleep(Duration::from_millis(4200)).await;
    client.settle().await;
    assert_eq!(client.closed_within(Duration::from_secs(8)).await.0, 4401, "the new end counts");
    assert!(unix_now() - begun >= 5);
}

async fn only_the_same_identity_can_refresh(cluster: Cluster) {
    let mut client = Connect::token(&hs256(SECRET, &claims(PID, "ann", 60))).to(cluster.a()).await;
    let mut backend = claims(PID, "ann", 60);
    backend["type"] = json!(2);
    for other in [claims(PID, "bob", 90), claims(OTHER_PID, "ann", 90), claims(PID, "ann", -5), backend] {
        assert!(!refresh(&mut client, &hs256(SECRET, &other)).await, "{other}");
    }
    assert!(!refresh(&mut client, "nonsense").await);
    assert!(refresh(&mut client, &hs256(SECRET, &claims(PID, "ann", 90))).await);
}

async fn a_back_end_may_come_with_a_token(cluster: Cluster) {
    let mut claims = claims(PID, "biz", 60);
    claims["type"] = json!(2);
    let token = hs256(SECRET, &claims);
    let mut client = Client::user(cluster.a(), "ann").await;
    let mut backend = Connect::token(&token).to(cluster.a()).await;
    backend.send(json!({"to": {"uids": ["ann"]}, "payload": "from a token"})).await;
    assert_eq!(client.next().await["payload"], "from a token");
}
