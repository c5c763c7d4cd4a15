//! Tags of class `latest`, and rates: the slow see current values and every kept one, and pay nothing to anybody.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::support::{Client, Cluster, Config, Connect, Setup, Value, eventually, json, raw::Raw, run_with};

everywhere!(
    who_reads_gets_every_publication,
    a_rule_s_rate_merges_what_is_between_and_ends_on_the_newest,
    a_subscription_s_rate_is_its_own,
    kept_publications_pass_a_rate_in_order,
);

on_one_node!(
    who_stalls_holds_no_queue_and_ends_on_the_newest,
    too_many_kept_publications_for_a_stalled_reader_close_it,
);

/// What a client makes of a tag's frames: `merged` must count what `prev` says is missing.
#[derive(Debug, Default)]
struct Chain {
    /// The last of each tag: its id and its `n`.
    last: BTreeMap<String, (String, u64)>,
    merged: u64,
    kept: Vec<u64>,
}

impl Chain {
    fn take(&mut self, message: &Value) {
        let tag = message["tag"].as_str().expect("a tag").to_owned();
        let n = message["payload"]["n"].as_u64().expect("a number");
        let merged = message["merged"].as_u64().unwrap_or(0);
        if let Some((id, before)) = self.last.get(&tag) {
            assert_eq!(n, before + merged + 1, "merged counts what was left out: {before}, then {}", short(message));
            assert_eq!(merged == 0, message["prev"] == *id, "prev is the publication before it: {}", short(message));
        }
        self.merged += merged;
        if message["payload"]["closed"] == true {
            self.kept.push(n);
        }
        self.last.insert(tag, (message["id"].as_str().expect("an id").to_owned(), n));
    }
}

fn short(message: &Value) -> String {
    message.to_string().chars().take(200).collect()
}

fn text(frame: &[u8]) -> Value {
    serde_json::from_slice(frame).expect("JSON")
}

async fn publish(cluster: &Cluster, tag: &str, n: u64, keep: bool, filler: &str) -> String {
    let data = json!({"n": n, "closed": keep, "filler": filler});
    cluster.a().api().push_ok(&json!({"tags": [tag], "data": data, "keep": keep})).await
}

/// Publishes 1, 2, … to a tag in one request, so that they come faster than any rate.
async fn publish_at_once(cluster: &Cluster, tag: &str, count: u64, keep: impl Fn(u64) -> bool) {
    let line = |n| json!({"tags": [tag], "data": {"n": n, "closed": keep(n)}, "keep": keep(n)}).to_string();
    let lines: Vec<String> = (1..=count).map(line).collect();
    let (response, answers) = cluster.a().api().batch(&lines.join("\n")).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert!(answers.iter().all(|answer| answer["code"] == 1), "{answers:?}");
}

async fn who_reads_gets_every_publication(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["latest.a"]).await;
    for n in 1..=50 {
        let id = publish(&cluster, "latest.a", n, false, "").await;
        let update = client.next().await;
        assert_eq!((&update["id"], &update["payload"]["n"]), (&json!(id), &json!(n)));
        assert_eq!(update.get("merged"), None, "{update}");
    }
}

async fn a_rule_s_rate_merges_what_is_between_and_ends_on_the_newest(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["rated.a"]).await;
    let begun = Instant::now();
    let (mut chain, mut updates) = (Chain::default(), 0);
    publish_at_once(&cluster, "rated.a", 30, |_| false).await;
    while chain.last.get("rated.a").is_none_or(|(_, n)| *n < 30) {
        chain.take(&client.next().await);
        updates += 1;
    }
    client.silent().await;
    // However slow the machine is, there were no more than five a second.
    assert!(f64::from(updates) <= begun.elapsed().as_secs_f64() * 5.0 + 1.0, "{updates} in {:?}", begun.elapsed());
    assert_eq!(u64::from(updates as u32) + chain.merged, 30);
}

async fn a_subscription_s_rate_is_its_own(cluster: Cluster) {
    let mut slow = Client::user(cluster.b(), "slow").await;
    let mut fast = Client::user(cluster.b(), "fast").await;
    let answer = slow.ask(json!({"type": "subscribe", "tags": [{"tag": "plain", "max_hz": 2}]})).await;
    assert_eq!(answer["code"], 1, "{answer}");
    fast.subscribe(&["plain"]).await;
    publish_at_once(&cluster, "plain", 20, |_| false).await;
    let mut all = Chain::default();
    for n in 1..=20 {
        let update = fast.next().await;
        assert_eq!(update["payload"]["n"], n);
        all.take(&update);
    }
    assert_eq!(all.merged, 0, "the other subscriber has asked for no rate");
    let mut chain = Chain::default();
    while chain.last.get("plain").is_none_or(|(_, n)| *n < 20) {
        chain.take(&slow.next().await);
    }
    assert!(chain.merged > 0, "{chain:?}");
    // Asked for again without a rate, it gets every publication.
    slow.subscribe(&["plain"]).await;
    assert_eq!(slow.next().await["snapshot"], true);
    for n in 21..=25 {
        publish(&cluster, "plain", n, false, "").await;
        assert_eq!(slow.next().await["payload"]["n"], n);
    }
}

async fn kept_publications_pass_a_rate_in_order(cluster: Cluster) {
    let mut client = Client::user(cluster.b(), "ann").await;
    client.subscribe(&["rated.b"]).await;
    publish_at_once(&cluster, "rated.b", 40, |n| n % 10 == 0).await;
    let mut chain = Chain::default();
    while chain.last.get("rated.b").is_none_or(|(_, n)| *n < 40) {
        chain.take(&client.next().await);
    }
    assert_eq!(chain.kept, [10, 20, 30, 40]);
    assert!(chain.merged > 0, "{chain:?}");
}

/// Publishes far more than the kernel holds for a reader that sleeps, with a kept one now and then.
async fn flood(cluster: &Cluster, tags: &[&str], rounds: u64) {
    for n in 1..=rounds {
        flood_once(cluster, tags, n).await;
    }
}

/// One round of it; the kept ones.
async fn flood_once(cluster: &Cluster, tags: &[&str], n: u64) -> Vec<u64> {
    let keep = n.is_multiple_of(25);
    let filler = if keep { String::new() } else { "x".repeat(60_000) };
    for tag in tags {
        publish(cluster, tag, n, keep, &filler).await;
    }
    if n.is_multiple_of(20) {
        let waiting = cluster.a().metric("ws_outbox_bytes").await;
        assert!(waiting < 400_000.0, "a stalled reader holds {waiting} bytes after {n} rounds");
    }
    if keep { vec![n; tags.len()] } else { Vec::new() }
}

async fn who_stalls_holds_no_queue_and_ends_on_the_newest(cluster: Cluster) {
    const ROUNDS: u64 = 150;
    let tags = ["latest.a", "latest.b", "latest.c"];
    let mut stalled =
        Raw::connect(cluster.a(), &Connect { tags: Some("latest.a,latest.b,latest.c"), ..Connect::user("s") }).await;
    let mut live = Client::user(cluster.a(), "live").await;
    live.subscribe(&["latest.live"]).await;
    let reading = async {
        let mut chain = Chain::default();
        while chain.last.get("latest.live").is_none_or(|(_, n)| *n < ROUNDS) {
            chain.take(&live.next().await);
        }
        assert_eq!(chain.merged, 0, "who reads misses nothing");
    };
    let publishing = async {
        let mut kept = Vec::new();
        for n in 1..=ROUNDS {
            publish(&cluster, "latest.live", n, false, "").await;
            kept.extend(flood_once(&cluster, &tags, n).await);
        }
        kept
    };
    let (mut kept, ()) = tokio::join!(publishing, reading);
    assert!(cluster.a().metric("ws_subscriptions_behind").await >= 1.0, "it stalled");
    let mut chain = Chain::default();
    while tags.iter().any(|tag| chain.last.get(*tag).is_none_or(|(_, n)| *n < ROUNDS)) {
        chain.take(&text(&stalled.frame().await.payload));
    }
    kept.sort_unstable();
    chain.kept.sort_unstable();
    assert_eq!(chain.kept, kept, "kept publications are never merged away");
    assert!(chain.merged > 0, "27 MB were published");
    eventually("nobody is behind", async || cluster.a().metric("ws_subscriptions_behind").await == 0.0).await;
    assert_eq!(cluster.a().metric("ws_slow_consumers_total").await, 0.0);
}

#[test]
fn who_stalls_is_not_reset_for_waiting() {
    let config = Config::new().limit("write_timeout", "\"1s\"").limit("unacknowledged_timeout", "\"2s\"");
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let latest = Connect { tags: Some("latest.a"), ..Connect::user("s") };
        let mut stalled = Raw::connect(cluster.a(), &latest).await;
        flood(&cluster, &["latest.a"], 140).await;
        // Longer than both timeouts, with which whoever has to be given something is reset.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let id = publish(&cluster, "latest.a", 141, false, "").await;
        let newest = async {
            loop {
                let message = text(&stalled.frame().await.payload);
                if message["id"] == id {
                    return message;
                }
            }
        };
        assert_eq!(newest.await["payload"]["n"], 141);
    });
}

async fn too_many_kept_publications_for_a_stalled_reader_close_it(cluster: Cluster) {
    let mut stalled = Raw::connect(cluster.a(), &Connect { tags: Some("latest.a"), ..Connect::user("s") }).await;
    flood(&cluster, &["latest.a"], 140).await;
    let filler = "x".repeat(50_000);
    for n in 141..=150 {
        publish(&cluster, "latest.a", n, true, &filler).await;
    }
    let (mut chain, mut closed) = (Chain::default(), None);
    while let Some(frame) = stalled.try_frame().await {
        match frame.opcode {
            crate::support::raw::opcode::TEXT => chain.take(&text(&frame.payload)),
            _ => closed = Some(frame.close().0),
        }
    }
    assert_eq!(closed, Some(4008), "it is told, and nothing is skipped");
    assert_eq!(cluster.a().metric("ws_kept_lost_total").await, 1.0);
}
