//! The load harness of ws-cluster. Each scenario drives real nodes from outside, with clients of its own that share no code
//! with the server, so that one misreading of the protocol cannot hide on both sides.
//!
//! Exit status: 0 every check holds, 1 a check failed, 2 the scenario could not be run.

mod across;
mod bars;
mod bench;
mod check;
mod client;
mod clock;
mod crowd;
mod drive;
#[cfg(test)]
mod fake_node;
mod findings;
mod html;
mod http;
mod ideal;
mod machine;
mod node;
mod outcome;
mod procfs;
mod progress;
mod publisher;
mod pulse;
mod replay;
mod report;
mod saturate;
mod scenario;
mod sign;
mod slow;
mod stall;
mod stats;
mod target;
mod thin;
mod wire;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

#[derive(Parser)]
#[command(name = "loadtest", about = "Drives ws-cluster nodes and checks what they deliver", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Publish recorded OHLCV bars through one node and check every bar at subscribers on all nodes
    Replay(replay::ReplayArgs),
    /// Stalled beside live subscribers: memory, latency, and how current a resumed reader is
    Slow(Box<slow::SlowArgs>),
    /// Deliveries a second of CPU time, publications one at a time against publications that wait
    Saturate(saturate::SaturateArgs),
    /// The ages of what readers see that stop for a while, or sit behind a narrow link
    Stall(stall::StallArgs),
    /// Publications from one node to another over Redis, against one node with its own queue
    Across(Box<across::AcrossArgs>),
    /// A scenario against one server: figures, latencies, plots
    Run(Box<bench::RunArgs>),
    /// A scenario against several servers in turns: medians and ratios
    Compare(Box<bench::CompareArgs>),
    /// List the shipped scenarios of `run` and `compare`
    Scenarios,
    /// Be the least that a server could do: a loop of send(2)
    Ideal(ideal::IdealArgs),
    /// Hold a share of another process's run
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            // Nothing is left to tell a closed standard error.
            let _ = writeln!(io::stderr(), "loadtest: {problem:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<bool> {
    // These two have no runtime to notice a signal: they end by it at once.
    match cli.scenario {
        Scenario::Ideal(args) => ideal::ideal(&args).map(|()| true),
        Scenario::Worker => crowd::worker::work().map(|()| true),
        scenario => drive_one(scenario),
    }
}

fn drive_one(driven: Scenario) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(LocalSet::new().run_until(async {
        tokio::select! {
            ended = scenario(driven) => ended,
            // A node that was started for the run must not outlive it.
            stopped = stopped() => stopped.and_then(|()| bail!("stopped by a signal")),
        }
    }))
}

/// Waits for a signal to stop.
async fn stopped() -> Result<()> {
    let (mut interrupted, mut ended) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupted.recv() => Ok(()),
        _ = ended.recv() => Ok(()),
    }
}

/// Runs a scenario and prints what it found; whether every check holds.
async fn scenario(scenario: Scenario) -> Result<bool> {
    match scenario {
        Scenario::Replay(args) => {
            let report = replay::replay(&args).await?;
            print(&report, args.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Slow(args) => {
            let report = slow::slow(&args).await?;
            print(&report, args.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Saturate(args) => {
            let report = saturate::saturate(&args).await?;
            print(&report, args.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Stall(args) => {
            let report = stall::stall(&args).await?;
            print(&report, args.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Across(args) => {
            let report = across::across(&args).await?;
            print(&report, args.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Run(args) => {
            let report = bench::run(&args).await?;
            print(&report, args.common.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Compare(args) => {
            let report = bench::compare(&args).await?;
            print(&report, args.common.json, || report.table()).map(|()| report.ok)
        }
        Scenario::Scenarios => print(&(), false, bench::scenarios).map(|()| true),
        Scenario::Ideal(_) | Scenario::Worker => unreachable!("they have no runtime"),
    }
}

/// Writes a report to the standard output: one JSON object, or a table.
fn print(report: &impl Serialize, as_json: bool, table: impl FnOnce() -> String) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = if as_json { serde_json::to_string(report)? + "\n" } else { table() };
    out.write_all(text.as_bytes()).context("printing the report")
}
