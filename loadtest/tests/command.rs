//! The program as people start it: scenarios against the ideal server, which is this program too.
//!
//! Method: runs of a second, with several processes, and the report read back. Figures are not judged: the machine is shared.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SHORT: [&str; 4] = ["--seconds", "1", "--warmup", "0.1"];

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().expect("the program runs")
}

fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|problem| panic!("{problem}: {told}"))
}

#[test]
fn a_run_of_three_processes_delivers_all_and_writes_a_page() {
    let page = std::env::temp_dir().join(format!("loadtest-command-{}.html", std::process::id()));
    let file = page.to_str().expect("text");
    let arguments =
        ["run", "latency", "--target", "ideal", "--subscribers", "31", "--processes", "3", "--json", "--html", file];
    let output = loadtest(&[&arguments[..], &SHORT[..]].concat());
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    let outcome = &report["outcomes"][0];
    assert_eq!(outcome["curves"][0]["quantiles"]["count"], 31 * 100, "{outcome}");
    let handshakes =
        outcome["curves"].as_array().and_then(|all| all.iter().find(|curve| curve["name"] == "handshakes"));
    assert_eq!(handshakes.expect("a curve")["quantiles"]["count"], 31);
    assert_eq!(outcome["series"][0]["open"], 32, "all processes' and the publisher");
    assert!(outcome["figures"]["cpu_us_per_delivery"].as_f64().is_some_and(|cpu| cpu > 0.0), "{outcome}");
    let written = fs::read_to_string(&page).expect("a page");
    fs::remove_file(&page).expect("removed");
    assert!(written.contains("<svg") && written.contains("ideal"));
}

#[test]
fn a_comparison_takes_turns_and_tells_ratios() {
    let arguments = [
        "compare",
        "fanout",
        "--target",
        "ideal",
        "--target",
        "ideal",
        "--rounds",
        "2",
        "--subscribers",
        "20",
        "--json",
    ];
    let output = loadtest(&[&arguments[..], &["--seconds", "0.3", "--warmup", "0"]].concat());
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(report["outcomes"].as_array().map(Vec::len), Some(4));
    let servers = &report["compared"][0]["servers"];
    assert_eq!((&servers[0][0], &servers[1][2]["count"]), (&"ideal".into(), &2.into()), "{servers}");
    assert_eq!(servers[1][2]["median"], 1.0, "the last against itself");
}

#[test]
fn what_cannot_be_run_is_told_by_status_2_and_a_signal_leaves_nothing_behind() {
    for arguments in
        [&["run", "no-such-scenario"][..], &["run", "latency"], &["compare", "fanout", "--target", "ideal"]]
    {
        let output = loadtest(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("loadtest: "));
    }
    let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["run", "latency", "--target", "ideal", "--subscribers", "5", "--processes", "2", "--seconds", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let children = || {
        let threads = fs::read_dir(format!("/proc/{}/task", run.id())).into_iter().flatten().flatten();
        let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        threads.flat_map(|thread| of_thread(thread).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let mut started: Vec<String> = Vec::new();
    for _ in 0..200 {
        started = children();
        if started.len() == 2 {
            break;
        }
        Command::new("sleep").arg("0.05").status().expect("sleep runs");
    }
    assert_eq!(started.len(), 2, "the server and the other process");
    let pid = i32::try_from(run.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("a signal");
    assert_eq!(run.wait().expect("it ends").code(), Some(2));
    for pid in started {
        assert!(!fs::exists(format!("/proc/{pid}")).expect("a look"), "process {pid} is left");
    }
}
