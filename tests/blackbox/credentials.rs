//! Who may connect: signatures, origins, and how those are answered who may not.

use std::time::Duration;

use crate::support::{
    Cluster, Config, Connect, Setup,
    config::{OLD_SECRET, ORIGIN, ORIGIN_PID, OTHER_SECRET, PID},
    http, raw,
    raw::Raw,
    run_with, unix_now,
};

on_one_node!(
    bad_credentials_are_closed_with_4401_and_nothing_is_read,
    all_refusals_read_the_same,
    the_previous_secret_opens_too,
    a_browser_page_must_come_from_an_allowed_origin,
);

/// Every way to be refused, as targets.
fn refused() -> Vec<(&'static str, String)> {
    let ann = Connect::user("ann");
    let exp = (unix_now() + 60).to_string();
    let bare = |query: &str| format!("/ws/connect?{query}");
    let changed = |from: &str, to: &str| ann.target().replace(from, to);
    vec![
        ("another secret", Connect { secret: Some(OTHER_SECRET), ..ann.clone() }.target()),
        ("stale", Connect { expires_in: -10, ..ann.clone() }.target()),
        ("too far ahead", Connect { expires_in: 2 * 86_400, ..ann.clone() }.target()),
        ("unknown project", Connect { pid: "nobody", secret: Some(OTHER_SECRET), ..ann.clone() }.target()),
        ("another uid", changed("uid=ann", "uid=bob")),
        ("another role", changed("type=1", "type=2")),
        ("another project", changed("pid=502", "pid=503")),
        ("another time", changed("exp=", "exp=1")),
        ("no signature", bare(&format!("pid={PID}&uid=ann&type=1&exp={exp}"))),
        ("an empty signature", bare(&format!("pid={PID}&uid=ann&type=1&exp={exp}&sign="))),
        ("a bad token", bare("token=a.b.c")),
    ]
}

/// Failed credentials out of the way of their own bound.
fn lenient() -> Config {
    Config::new().limit("failed_credentials_per_minute", 1000)
}

#[test]
fn every_kind_of_bad_credentials_is_refused() {
    run_with(Setup::ONE, lenient(), async |cluster: Cluster| {
        for (case, target) in refused() {
            let mut client = Raw::upgrade(cluster.a(), &target).await;
            let close = client.frame().await;
            assert_eq!(close.opcode, raw::opcode::CLOSE, "{case}: {close:?}");
            let (code, reason) = close.close();
            assert_eq!(code, 4401, "{case}: {reason}");
            assert!(!reason.is_empty(), "{case}");
        }
    });
}

#[test]
fn auth_reject_http_answers_before_the_upgrade() {
    run_with(Setup::ONE, lenient().set("auth_reject", "\"http\""), async |cluster: Cluster| {
        for (case, target) in refused() {
            let answer = Raw::refused(cluster.a(), &raw::upgrade_request(&target, "x")).await;
            assert!(matches!(answer.status, 401 | 403), "{case}: {} {}", answer.status, answer.text());
        }
    });
}

#[test]
fn too_many_failures_from_one_address_get_a_plain_429() {
    run_with(Setup::ONE, Config::new().limit("failed_credentials_per_minute", 5), async |cluster: Cluster| {
        let bad = Connect { secret: Some(OTHER_SECRET), ..Connect::user("ann") };
        let request = raw::upgrade_request(&bad.target(), "x");
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(Raw::refused(cluster.a(), &request).await.status);
        }
        let refused = statuses.iter().filter(|status| **status == 429).count();
        // The bound is kept per core, so two cores may let twice as many through.
        assert!((2..=7).contains(&refused), "{statuses:?}");
        assert_eq!(statuses[0], 101, "{statuses:?}");
        assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    });
}

async fn bad_credentials_are_closed_with_4401_and_nothing_is_read(cluster: Cluster) {
    let bad = Connect { secret: Some(OTHER_SECRET), ..Connect::user("ann") };
    // What is sent at once with the request is not read either: no answer but the close comes.
    let heart = raw::whole(raw::opcode::TEXT, br#"{"type":"heart","ack_id":"h"}"#);
    let mut client = Raw::upgrade_and(cluster.a(), &bad.target(), &heart).await;
    assert_eq!(client.frame().await.close().0, 4401);
    client.try_send(&heart).await;
    client.try_send(&raw::whole(raw::opcode::PING, b"?")).await;
    client.ended_within(Duration::from_secs(8)).await;
}

async fn all_refusals_read_the_same(cluster: Cluster) {
    let ann = Connect::user("ann");
    let mut reasons = Vec::new();
    for connect in [
        Connect { secret: Some(OTHER_SECRET), ..ann.clone() },
        Connect { pid: "nobody", secret: Some(OTHER_SECRET), ..ann.clone() },
        Connect { secret: Some(""), ..ann },
    ] {
        reasons.push(Raw::upgrade(cluster.a(), &connect.target()).await.closed().await.1);
    }
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "a reason tells which part was wrong: {reasons:?}");
}

async fn the_previous_secret_opens_too(cluster: Cluster) {
    Connect { secret: Some(OLD_SECRET), ..Connect::user("ann") }.to(cluster.a()).await.settle().await;
}

async fn a_browser_page_must_come_from_an_allowed_origin(cluster: Cluster) {
    let limited = Connect { pid: ORIGIN_PID, ..Connect::user("ann") };
    limited.to(cluster.a()).await.settle().await;
    Connect { origin: Some(ORIGIN), ..limited.clone() }.to(cluster.a()).await.settle().await;
    for origin in ["https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"] {
        let request =
            raw::upgrade_request(&limited.target(), "x").replace("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"));
        assert_eq!(http::raw(cluster.a().ws, request.as_bytes()).await.status, 403, "{origin}");
    }
    // A project without a list takes any origin in test.
    Connect { origin: Some("https://any.example"), ..Connect::user("ann") }.to(cluster.a()).await.settle().await;
}
