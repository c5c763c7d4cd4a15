//! Publications from one node to another, as people start it: with the node that was built beside this program, and a Redis.
//!
//! Method: half a second of each queue, and the report read back. Figures are not judged: the machine is shared.

use std::{path::Path, process::Command};

use serde_json::Value;

#[test]
fn every_publication_goes_from_one_node_to_another_and_is_counted_at_redis() {
    let loadtest = Path::new(env!("CARGO_BIN_EXE_loadtest"));
    let node = loadtest.with_file_name("ws-cluster");
    assert!(node.exists(), "the server is not built: cargo build --bin ws-cluster");
    let output = Command::new(loadtest)
        .args(["across", "--rounds", "1", "--rate", "400", "--tags", "10", "--publishers", "3", "--seconds", "0.5"])
        .args(["--warmup", "0.1", "--subscribers", "2", "--json", "--node"])
        .arg(&node)
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|problem| panic!("{problem}: {told}"));
    assert!(output.status.success(), "{report}");
    let (memory, redis) = (&report["turns"][0][0], &report["turns"][1][0]);
    for (turn, name) in [(memory, "memory"), (redis, "redis")] {
        assert_eq!((&turn["queue"], &turn["publications"]), (&name.into(), &200.into()), "{turn}");
        assert!(turn["figures"]["p50_ms"].as_f64().is_some_and(|p50| p50 > 0.0), "{turn}");
    }
    let figure = |name: &str| redis["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {redis}"));
    assert!(figure("redis_us") > 0.0 && figure("records_per_append") > 0.0 && figure("holding_node_us") > 0.0);
    assert!(memory["figures"]["redis_us"].is_null(), "{memory}");
}

#[test]
fn without_a_node_or_its_redis_nothing_is_run() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).arg("across").args(arguments).output();
        output.expect("the program runs").status.code()
    };
    assert_eq!(run(&[]), Some(2));
    assert_eq!(run(&["--node", "/no/such/node", "--queues", "memory"]), Some(2));
    assert_eq!(run(&["--node", "/no/such/node", "--queues", "redis", "--redis-server", "/no/such/redis"]), Some(2));
}
