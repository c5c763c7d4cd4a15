//! A replay passes against a correct node by every way in, and fails when the node spoils one publication.
//!
//! Method: a fake node in the same process, 60 real bars of two symbols at 2,000 bars a second, two subscribers on each of two
//! addresses.

use clap::Parser;

use super::*;
use crate::fake_node::{FakeNode, Spoil};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    replay: ReplayArgs,
}

async fn run(spoil: Spoil, via: &str) -> Report {
    let node = FakeNode::start(spoil).await;
    let line = [
        "x",
        "--ws",
        &node.ws,
        "--ws",
        &node.ws,
        "--http",
        &node.http,
        "--secret",
        "s",
        "--symbols",
        "IBM,MSFT",
        "--bars",
        "60",
        "--rate",
        "2000",
        "--subscribers",
        "2",
        "--drain",
        "1",
        "--via",
        via,
    ];
    let report = replay(&Line::try_parse_from(line).expect("good arguments").replay).await.expect("a run");
    let verdict = if report.ok { "every check holds" } else { "FAILED" };
    assert!(report.table().ends_with(&format!("result: {verdict}\n")), "{}", report.table());
    report
}

fn faults(report: &Report) -> Vec<(&str, u64)> {
    report.faults.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (*name, *count)).collect()
}

#[tokio::test]
async fn a_correct_node_passes_by_every_way_in() {
    for via in ["http", "batch", "backend"] {
        let report = run(Spoil::Nothing, via).await;
        assert!(report.ok, "{via}: {report:?}");
        assert_eq!(report.pushes.accepted, report.run.updates as u64);
        for node in &report.nodes {
            assert_eq!(node.delivered, 2 * report.run.updates as u64);
            assert_eq!(node.latency.count, node.delivered);
        }
    }
}

#[tokio::test]
async fn a_second_run_over_the_same_bars_is_not_confused_by_the_first_ones_last_value() {
    let node = FakeNode::start(Spoil::Nothing).await;
    for _ in 0..2 {
        let line = [
            "x",
            "--ws",
            &node.ws,
            "--http",
            &node.http,
            "--secret",
            "s",
            "--symbols",
            "IBM",
            "--bars",
            "10",
            "--rate",
            "1000",
            "--via",
            "backend",
        ];
        let report = replay(&Line::try_parse_from(line).expect("good arguments").replay).await.expect("a run");
        assert!(report.ok, "{report:?}");
    }
}

#[tokio::test]
async fn each_spoiled_publication_fails_the_run_at_all_four_subscribers() {
    let cases = [
        (Spoil::Lose, vec![("chain_broken", 4), ("lost", 4)]),
        (Spoil::Duplicate, vec![("duplicated", 4)]),
        (Spoil::Swap, vec![("chain_broken", 12), ("reordered", 4)]),
        (Spoil::Alter, vec![("altered", 4), ("lost", 4)]),
        (Spoil::WrongAnswer, vec![("id_differs", 4)]),
    ];
    for (spoil, expected) in cases {
        let report = run(spoil, "batch").await;
        assert!(!report.ok, "{spoil:?}");
        assert_eq!(faults(&report), expected, "{spoil:?}: {:?}", report.examples);
    }
}

#[tokio::test]
async fn a_refused_push_fails_the_run_by_every_way_in() {
    for via in ["http", "batch", "backend"] {
        let report = run(Spoil::Refuse, via).await;
        assert!(!report.ok);
        assert_eq!(report.pushes.refused, 1);
        assert_eq!(report.pushes.reasons["queue_unavailable"], 1);
        assert_eq!(faults(&report), [], "{via}");
    }
}

#[tokio::test]
async fn a_node_that_stops_answering_ends_the_run_instead_of_hanging_it() {
    let report = run(Spoil::Hang, "http").await;
    assert!(!report.ok);
    assert!(report.pushes.unknown > 0 && report.pushes.unsent > 0, "{:?}", report.pushes);
}

#[tokio::test]
async fn unreachable_bounds_and_addresses_are_refused_before_the_run() {
    let refused = async |line: &[&str]| {
        let line = [&["x", "--secret", "s"], line].concat();
        let args = Line::try_parse_from(line).expect("good arguments").replay;
        format!("{:#}", replay(&args).await.expect_err("refused"))
    };
    assert!(refused(&["--rate", "0.01"]).await.contains("raise --rate"));
    assert!(refused(&["--symbols", "NONE"]).await.contains("no bars"));
    assert!(refused(&["--ws", "wss://127.0.0.1:1"]).await.contains("does not begin with ws://"));
    assert!(refused(&["--file", "/nowhere.csv"]).await.contains("reading /nowhere.csv"));
}
