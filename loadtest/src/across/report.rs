//! What the turns found, side by side.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{AcrossArgs, Queue, cluster::Clocks};
use crate::{findings::Findings, outcome::number, report::Quantiles, stats::Spread, target::machine_name};

/// What is held: milliseconds that Redis may add to the median, and its microseconds of CPU time a publication.
const ADDED_P50_MS_MAX: f64 = 1.0;
const REDIS_US_MAX: f64 = 8.0;
/// A harness that sent later than this measured itself.
const LATE_P99_MS_MAX: f64 = 5.0;

/// Figures in the order in which they are shown, and what they are.
const FIGURES: [(&str, &str); 19] = [
    ("p50_ms", "ms from the intended time to the arrival"),
    ("p99_ms", ""),
    ("p999_ms", ""),
    ("max_ms", ""),
    ("ack_p50_ms", "ms from the intended time to the answer"),
    ("ack_p99_ms", ""),
    ("late_p99_ms", "ms from the intended time to the sending: the harness's own"),
    ("per_second", "publications/s that arrived"),
    ("redis_us", "CPU µs of Redis a publication"),
    ("script_us", "µs in the script an append"),
    ("records_per_append", "publications an append"),
    ("taking_core_us", "CPU µs a publication: core of the node that takes"),
    ("taking_node_us", "its other threads: exchange and log"),
    ("holding_core_us", "core of the node that delivers"),
    ("holding_node_us", "its other threads"),
    ("redis_share", "CPUs of Redis"),
    ("taking_share", "CPUs of the node that takes"),
    ("holding_share", "CPUs of the node that delivers"),
    ("harness_share", "CPUs of the harness"),
];

/// One queue's turn in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Which queue.
    pub queue: &'static str,
    /// Publications that were sent.
    pub publications: u64,
    /// Until the last had arrived.
    pub seconds: f64,
    /// By name.
    pub figures: BTreeMap<&'static str, f64>,
    /// What was wrong.
    pub findings: Findings,
}

impl Turn {
    /// A turn without figures.
    pub fn new(queue: Queue, publications: u64, seconds: f64, findings: Findings) -> Self {
        let figures = BTreeMap::from([("per_second", publications as f64 / seconds)]);
        Self { queue: queue.name(), publications, seconds, figures, findings }
    }

    /// Adds the latencies: of arrivals, of answers, of the sending.
    pub fn of_latency(&mut self, arrival: Quantiles, ack: Quantiles, late: Quantiles) {
        self.figures.extend([
            ("p50_ms", arrival.p50_ms),
            ("p99_ms", arrival.p99_ms),
            ("p999_ms", arrival.p999_ms),
            ("max_ms", arrival.max_ms),
            ("ack_p50_ms", ack.p50_ms),
            ("ack_p99_ms", ack.p99_ms),
            ("late_p99_ms", late.p99_ms),
        ]);
    }

    /// Adds what the processes used between two looks.
    pub fn of_clocks(&mut self, (before, after): (Clocks, Clocks), harness: f64, is_cluster: bool) {
        let (publications, us) = (self.publications as f64, self.seconds * 1e6);
        let core = |of: fn(&Clocks) -> f64| of(&after) - of(&before);
        let taking = (core(|clocks| clocks.taking.0), core(|clocks| clocks.taking.1));
        let holding = (core(|clocks| clocks.holding.0), core(|clocks| clocks.holding.1));
        self.figures.extend([
            ("taking_core_us", taking.0 / publications),
            ("taking_node_us", taking.1 / publications),
            ("taking_share", (taking.0 + taking.1) / us),
            ("harness_share", harness),
        ]);
        if is_cluster {
            let (redis, appends) = (core(|clocks| clocks.redis), core(|clocks| clocks.appends).max(1.0));
            self.figures.extend([
                ("holding_core_us", holding.0 / publications),
                ("holding_node_us", holding.1 / publications),
                ("holding_share", (holding.0 + holding.1) / us),
                ("redis_us", redis / publications),
                ("redis_share", redis / us),
                ("records_per_append", publications / appends),
                ("script_us", core(|clocks| clocks.script) / appends),
            ]);
        }
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct AcrossReport {
    /// Whether nothing was wrong; with `--strict` also whether every figure is what it is held to.
    pub ok: bool,
    /// The machine.
    pub machine: String,
    /// Publications a second that were asked for.
    pub rate: f64,
    /// Tags.
    pub tags: usize,
    /// Subscribers of each.
    pub subscribers: usize,
    /// Back-ends.
    pub publishers: usize,
    /// Bytes of a payload.
    pub payload: usize,
    /// By queue, the turns in their order.
    pub turns: Vec<Vec<Turn>>,
    /// By queue and figure, over all rounds.
    pub figures: Vec<BTreeMap<&'static str, Spread>>,
    /// Milliseconds that a queue adds to the median of the first one, round by round.
    pub added_p50_ms: Vec<Spread>,
    /// Why the figures may be the harness's own.
    pub saturated: Option<String>,
}

impl AcrossReport {
    /// The report of these turns.
    pub fn new(args: &AcrossArgs, turns: Vec<Vec<Turn>>) -> Self {
        let spread = |turns: &[Turn], name| Spread::of(turns.iter().filter_map(|turn| turn.figure(name)));
        let of_queue = |turns: &Vec<Turn>| {
            let spreads = FIGURES.iter().map(|(name, _)| (*name, spread(turns, name)));
            spreads.filter(|(_, spread)| spread.count > 0).collect()
        };
        let added = |own: &Vec<Turn>| {
            let pairs = own.iter().zip(&turns[0]);
            Spread::of(pairs.filter_map(|(own, first)| Some(own.figure("p50_ms")? - first.figure("p50_ms")?)))
        };
        let figures: Vec<BTreeMap<_, _>> = turns.iter().map(of_queue).collect();
        let late = figures.iter().filter_map(|figures| figures.get("late_p99_ms")).map(|late| late.median);
        let latest = late.fold(0.0, f64::max);
        let saturated = (latest > LATE_P99_MS_MAX).then(|| format!("sent {latest:.1} ms late at the 99th percentile"));
        let added_p50_ms: Vec<Spread> = turns.iter().map(added).collect();
        let mut report = Self {
            ok: turns.iter().flatten().all(|turn| turn.findings.total() == 0),
            machine: machine_name(),
            rate: args.rate,
            tags: args.tags,
            subscribers: args.subscribers,
            publishers: args.publishers,
            payload: args.payload,
            figures,
            added_p50_ms,
            turns,
            saturated,
        };
        report.ok &= !args.strict || (report.misses().is_empty() && report.saturated.is_none());
        report
    }

    /// What a figure is held to and misses, in words.
    fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        for (at, figures) in self.figures.iter().enumerate() {
            let name = self.turns[at].first().map_or("", |turn| turn.queue);
            let (added, redis) = (self.added_p50_ms[at].median, figures.get("redis_us").map_or(0.0, |us| us.median));
            if added >= ADDED_P50_MS_MAX {
                misses.push(format!("{name} adds {added:.3} ms, held below {ADDED_P50_MS_MAX} ms"));
            }
            if redis > REDIS_US_MAX {
                misses.push(format!("{name}: Redis takes {redis:.2} µs a publication, held to {REDIS_US_MAX} µs"));
            }
        }
        misses
    }

    /// The report as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let rounds = self.turns.first().map_or(0, Vec::len);
        let Self { rate, tags, subscribers, publishers, payload, machine, .. } = self;
        let _ = writeln!(
            out,
            "across: {rate} publications/s of {payload} B, {tags} tags with {subscribers} subscribers each, {publishers} back-ends; {rounds} rounds in turns, {machine}\n"
        );
        let _ = write!(out, "{:<20}", "median (least to most)");
        for turns in &self.turns {
            let _ = write!(out, "{:>30}", turns.first().map_or("", |turn| turn.queue));
        }
        out.push('\n');
        let cell = |spread: Option<&Spread>| {
            spread.map_or("-".to_owned(), |s| format!("{} ({} to {})", number(s.median), number(s.min), number(s.max)))
        };
        for (name, about) in FIGURES {
            let _ = write!(out, "{name:<20}");
            for figures in &self.figures {
                let _ = write!(out, "{:>30}", cell(figures.get(name)));
            }
            let _ = writeln!(out, "  {about}");
        }
        let _ = write!(out, "{:<20}", "added p50_ms");
        for added in &self.added_p50_ms {
            let _ = write!(out, "{:>30}", cell(Some(added)));
        }
        let _ = writeln!(out, "  ms above the first, round by round\n");
        self.misses().iter().for_each(|miss| out.extend([miss, "\n"]));
        if let Some(why) = &self.saturated {
            let _ = writeln!(out, "SATURATED: {why}; the figures may be the harness's own");
        }
        for turn in self.turns.iter().flatten().filter(|turn| turn.findings.total() > 0) {
            let _ = write!(out, "{}: {}", turn.queue, turn.findings);
        }
        let _ = writeln!(out, "result: {}", if self.ok { "every check holds" } else { "FAILED" });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_publication_and_by_second() {
        let mut turn = Turn::new(Queue::Redis, 1000, 2.0, Findings::default());
        let after = Clocks { taking: (3e3, 5e3), redis: 8e3, appends: 100.0, script: 2e3, ..Clocks::default() };
        turn.of_clocks((Clocks::default(), after), 0.5, true);
        let figure = |name| turn.figure(name).expect(name);
        assert_eq!((figure("per_second"), figure("redis_us"), figure("records_per_append")), (500.0, 8.0, 10.0));
        assert_eq!((figure("taking_core_us"), figure("taking_node_us"), figure("script_us")), (3.0, 5.0, 20.0));
        assert_eq!(figure("redis_share"), 0.004);
    }
}
