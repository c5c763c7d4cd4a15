//! A scenario of the fault tests: two thousand pushes a second, something that befalls the cluster, and the comparison.

use std::time::Duration;

use super::{Cluster, Config, Load, checker::Report};

/// How long is pushed.
pub fn seconds() -> Duration {
    let seconds = std::env::var("WS_FAULTS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6).max(6))
}

/// A third of it.
pub fn third() -> Duration {
    seconds() / 3
}

/// The promise is to connections that stay up: what a stalled node owes them fits their outbox.
pub fn roomy() -> Config {
    // Several logs, so that a fault can befall some of them.
    Config::new().flags(&["--shards", "4"]).limit("outbox_frames_max", 1_000_000).limit("outbox_bytes_max", 256 << 20)
}

/// Pushes through all nodes while `fault` happens; the comparison, printed.
pub async fn under_load(
    name: &str,
    mut cluster: Cluster,
    watched: usize,
    duration: Duration,
    fault: impl AsyncFnOnce(&mut Cluster),
) -> Report {
    let load = Load::connect(&cluster.nodes, watched, 3, 2000).await;
    let (report, ()) = tokio::join!(load.run(duration), fault(&mut cluster));
    eprintln!("{name}: {report}");
    for node in &cluster.nodes[..watched] {
        let log = async |event: &str| node.metric(&format!("ws_log_records_total event=\"{event}\"")).await;
        let (replayed, duplicate) = (log("replayed").await, log("duplicate").await);
        let epochs = node.metric("ws_log_epochs_total").await;
        let (catch_ups, losses) =
            (node.metric("ws_log_catch_ups_total").await, node.metric("ws_log_losses_total").await);
        let id = node.id;
        eprintln!(
            "{name}: node {id}: {epochs} epochs, {replayed} replayed, {duplicate} duplicate, {catch_ups} catch-ups, {losses} losses"
        );
    }
    report
}

/// Asserts that the promise was kept, and for enough pushes to show it.
pub fn expect_clean(report: &Report) {
    assert_eq!(report.faults(), 0, "{report}");
    // A run in which little was accepted shows little.
    let least = 500 * usize::try_from(seconds().as_secs()).expect("a small number") / 2;
    assert!(report.acknowledged > least, "{report}");
}
