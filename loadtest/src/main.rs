//! The load harness of ws-cluster. Each scenario drives real nodes from outside, with clients of its own that share no code
//! with the server, so that one misreading of the protocol cannot hide on both sides.
//!
//! Exit status: 0 every check holds, 1 a check failed, 2 the scenario could not be run.

mod bars;
mod check;
mod client;
mod clock;
#[cfg(test)]
mod fake_node;
mod http;
mod publisher;
mod replay;
mod report;
mod sign;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let Scenario::Replay(args) = cli.scenario;
    let report = runtime.block_on(replay::replay(&args))?;
    report.print(args.json).context("printing the report")?;
    Ok(report.ok)
}
