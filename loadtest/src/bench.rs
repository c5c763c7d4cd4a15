//! `loadtest run` and `loadtest compare`: scenarios against servers, and what they say side by side.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::{
    drive::drive,
    outcome::{FIGURES, Outcome, number},
    scenario::{Changes, SHIPPED, Scenario},
    stats::Spread,
    target::{Kind, Running, TargetArgs, machine_name},
};

/// A scenario against one server.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Name of a shipped scenario (see `loadtest scenarios`), or a file
    pub scenario: String,
    /// Which server
    #[arg(long, value_enum, default_value = "ours")]
    pub target: Kind,
    #[command(flatten)]
    pub common: Common,
}

/// A scenario against two servers or more, in turns.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Name of a shipped scenario (see `loadtest scenarios`), or a file
    pub scenario: String,
    /// Which servers; may be given again. The last is what the others are divided by
    #[arg(long = "target", value_enum, default_values_t = [Kind::Ours, Kind::Ideal])]
    pub targets: Vec<Kind>,
    /// How often each has its turn
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    #[command(flatten)]
    pub common: Common,
}

/// What both take.
#[derive(Args, Clone, Debug)]
pub struct Common {
    #[command(flatten)]
    pub changes: Changes,
    #[command(flatten)]
    pub at: TargetArgs,
    /// Numbers of subscribers of the first group, with commas: all of it for each
    #[arg(long, value_delimiter = ',')]
    pub sweep: Vec<usize>,
    /// Fail also when the harness was saturated
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots there, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What was run, on which machine.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    /// Whether every check of every run holds; with `--strict` also whether the harness was never saturated.
    pub ok: bool,
    /// The machine.
    pub machine: String,
    /// The runs in their order.
    pub outcomes: Vec<Outcome>,
    /// Figures of a comparison, in the scenario's order; empty for single runs.
    pub compared: Vec<Compared>,
}

/// One figure of all servers.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// Connections that stood.
    pub connections: usize,
    /// Its name.
    pub figure: &'static str,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// By server: the figure over all rounds, and its ratio to the last server's, round by round.
    pub servers: Vec<(&'static str, Spread, Spread)>,
}

/// Runs a scenario, or a row of them.
pub async fn run(args: &RunArgs) -> Result<BenchReport> {
    let mut outcomes = Vec::new();
    for scenario in scenarios_of(&args.scenario, &args.common)? {
        outcomes.push(once(args.target, &args.common.at, &scenario).await?);
    }
    report(outcomes, Vec::new(), &args.common)
}

/// Runs servers in turns. Each round begins with another one, so that none always comes after a rest.
pub async fn compare(args: &CompareArgs) -> Result<BenchReport> {
    ensure!(args.targets.len() >= 2, "--target must be given twice at least");
    ensure!((1..=100).contains(&args.rounds), "--rounds: 1 to 100");
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for scenario in scenarios_of(&args.scenario, &args.common)? {
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); args.targets.len()];
        for round in 0..args.rounds {
            for turn in 0..args.targets.len() {
                let at = (round + turn) % args.targets.len();
                outcomes[at].push(once(args.targets[at], &args.common.at, &scenario).await?);
            }
        }
        figures.extend(compared(&scenario, &outcomes));
        all.extend(outcomes.into_iter().flatten());
    }
    report(all, figures, &args.common)
}

/// The scenario, once for each size that is asked for.
fn scenarios_of(name: &str, common: &Common) -> Result<Vec<Scenario>> {
    let sizes = match common.sweep.is_empty() {
        true => vec![common.changes.subscribers],
        false => common.sweep.iter().copied().map(Some).collect(),
    };
    sizes
        .into_iter()
        .map(|subscribers| Scenario::load(name, &Changes { subscribers, ..common.changes.clone() }))
        .collect()
}

async fn once(kind: Kind, at: &TargetArgs, scenario: &Scenario) -> Result<Outcome> {
    let target = Running::start(kind, at, scenario).await?;
    let (scenario, stopped) = (scenario.clone(), Arc::new(AtomicBool::new(false)));
    let _stop = StopOnDrop(Arc::clone(&stopped));
    let driving = tokio::task::spawn_blocking(move || drive(&scenario, &target, &stopped));
    driving.await.context("the run panicked")?
}

/// Ends a run whose caller is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn report(outcomes: Vec<Outcome>, compared: Vec<Compared>, common: &Common) -> Result<BenchReport> {
    let is_good = |outcome: &Outcome| outcome.ok && !(common.strict && outcome.harness.saturated.is_some());
    let ok = outcomes.iter().all(is_good);
    let report = BenchReport { ok, machine: machine_name(), outcomes, compared };
    if let Some(file) = &common.html {
        fs::write(file, crate::html::page(&report)).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(report)
}

fn compared(scenario: &Scenario, outcomes: &[Vec<Outcome>]) -> Vec<Compared> {
    let figures = scenario.figures.iter().filter_map(|name| FIGURES.iter().find(|figure| figure.name == name));
    let of_figure = |figure: &'static crate::outcome::Figure| {
        let base = outcomes.last()?;
        let server = |rounds: &Vec<Outcome>| {
            let values = rounds.iter().filter_map(|outcome| outcome.figure(figure.name));
            let pairs = rounds.iter().zip(base);
            let ratios = pairs.filter_map(|(own, base)| Some(own.figure(figure.name)? / base.figure(figure.name)?));
            let name = rounds.first().map_or("", |outcome| outcome.target);
            (name, Spread::of(values), Spread::of(ratios.filter(|ratio| ratio.is_finite())))
        };
        let servers = outcomes.iter().map(server).collect();
        Some(Compared {
            connections: scenario.connections(),
            figure: figure.name,
            more_is_better: figure.more_is_better,
            servers,
        })
    };
    figures.filter_map(of_figure).collect()
}

impl BenchReport {
    /// The report as people read it.
    pub fn table(&self) -> String {
        if self.compared.is_empty() {
            return self.outcomes.iter().map(Outcome::table).collect::<Vec<_>>().join("\n");
        }
        let mut out = String::new();
        let first = &self.outcomes[0];
        let rounds = self.compared[0].servers[0].1.count;
        let base = self.compared[0].servers.last().map_or("", |server| server.0);
        let scenario = &first.scenario;
        let _ = writeln!(out, "{}: {rounds} rounds in turns, {}\n", scenario.name, self.machine);
        let _ = writeln!(
            out,
            "{:<30}{:>12}  {:<8}{:>34}{:>28}",
            "median (least to most)",
            "connections",
            "server",
            "figure",
            format!("against {base}")
        );
        for Compared { connections, figure, servers, .. } in &self.compared {
            for (server, values, ratios) in servers {
                let spread = |s: &Spread| match s.count {
                    0 => "unknown".to_owned(),
                    _ => format!("{} ({} to {})", number(s.median), number(s.min), number(s.max)),
                };
                let _ = writeln!(
                    out,
                    "{figure:<30}{connections:>12}  {server:<8}{:>34}{:>28}",
                    spread(values),
                    spread(ratios)
                );
            }
        }
        for Outcome { target, harness, findings, ok, .. } in &self.outcomes {
            if let Some(why) = &harness.saturated {
                let _ = writeln!(out, "\nSATURATED against {target}: {why}");
            }
            if !ok {
                let _ = write!(out, "\n{target}: {findings}");
            }
        }
        let _ = writeln!(out, "\nresult: {}", if self.ok { "every check holds" } else { "FAILED" });
        out
    }
}

/// The shipped scenarios in a line each.
pub fn scenarios() -> String {
    let line = |(name, text): &(&str, &str)| {
        let about = Scenario::parse(text).map(|scenario| scenario.about).unwrap_or_default();
        format!("{name:<12}{about}\n")
    };
    SHIPPED.iter().map(line).collect()
}
