//! The age of pushes is told for every stage of their way, and agrees with what receivers see.
//! Method: receivers note the wall clock of each arrival; what follows from the order of the stages is asserted, and no time.

use crate::support::{Client, Cluster, Config, Node, Setup, eventually, json, run_with};

const PUSHES: u32 = 40;

async fn count(node: &Node, stage: &str) -> f64 {
    node.metric(&format!("ws_stage_latency_seconds_count stage=\"{stage}\"")).await
}

/// The mean age at a stage, in seconds.
async fn mean(node: &Node, stage: &str) -> f64 {
    node.metric(&format!("ws_stage_latency_seconds_sum stage=\"{stage}\"")).await / count(node, stage).await
}

#[expect(clippy::disallowed_methods, reason = "a test is its own clock")]
fn unix_seconds() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs_f64()
}

async fn every_stage_is_told(cluster: Cluster) {
    let (near, far) = (cluster.a(), cluster.b());
    let mut receivers = Vec::new();
    for number in 0..6 {
        let mut receiver = Client::user(far, &format!("u{number}")).await;
        receiver.subscribe(&["gold"]).await;
        receivers.push(receiver);
    }
    let mut backend = Client::backend(near, "biz").await;
    let mut seen = 0.0;
    for number in 0..PUSHES {
        let sent = unix_seconds();
        match number % 2 {
            0 => drop(near.api().publish("gold", json!(number)).await),
            _ => drop(backend.ask(json!({"to": {"tags": ["gold"]}, "payload": number})).await),
        }
        for receiver in &mut receivers {
            assert_eq!(receiver.next().await["payload"], number);
            seen += unix_seconds() - sent;
        }
    }
    let (pushes, deliveries) = (f64::from(PUSHES), f64::from(PUSHES) * receivers.len() as f64);
    eventually("all is booked", async || count(far, "written").await >= deliveries).await;
    assert_eq!(count(near, "queued").await, pushes);
    assert_eq!((count(near, "heard").await, count(far, "heard").await), (pushes, pushes));
    assert_eq!(count(far, "written").await, deliveries, "once for each receiver, and nothing for answers");
    let cores = count(far, "core").await;
    assert!(cores == pushes || cores == 2.0 * pushes, "once on each core with receivers: {cores}");

    let ages = (mean(far, "heard").await, mean(far, "core").await, mean(far, "written").await);
    assert!(ages.0 > 0.0 && ages.0 <= ages.1, "{ages:?}");
    let end_to_end = seen / deliveries;
    assert!(ages.2 <= end_to_end, "written after {} s, and read after {end_to_end} s", ages.2);
}

#[test]
fn every_stage_is_told_on_one_node() {
    run_with(Setup::ONE, Config::new(), every_stage_is_told);
}

#[test]
fn every_stage_is_told_on_two_nodes() {
    run_with(Setup::TWO, Config::new(), every_stage_is_told);
}

#[test]
fn it_can_be_left_out() {
    run_with(Setup::ONE, Config::new().flags(&["--stage_latency", "false"]), async |cluster: Cluster| {
        let mut receiver = Client::user(cluster.a(), "ann").await;
        receiver.subscribe(&["gold"]).await;
        cluster.a().api().publish("gold", json!(1)).await;
        receiver.next().await;
        for stage in ["queued", "heard", "core", "written"] {
            assert_eq!(count(cluster.a(), stage).await, 0.0, "{stage}");
        }
    });
}
