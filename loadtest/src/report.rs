//! What a run found, as a table for people or one JSON object for programs. Decides nothing.

use std::{collections::BTreeMap, fmt::Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::check::{FaultKind, Faults};

/// Microseconds, three digits exact, up to a minute.
pub type Latency = Histogram<u64>;

/// An empty latency histogram.
pub fn latency() -> Latency {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds")
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether every check held.
    pub ok: bool,
    /// What was published and how.
    pub run: Run,
    /// What the pushes were answered.
    pub pushes: Pushes,
    /// From the intended time to the sending of the push.
    pub late: Quantiles,
    /// From the intended time to the answer of the push.
    pub ack: Quantiles,
    /// From the intended time to the arrival at a subscriber, by node.
    pub nodes: Vec<NodeReport>,
    /// Faults by kind; all must be 0.
    pub faults: BTreeMap<&'static str, u64>,
    /// The first faults in words.
    pub examples: Vec<String>,
}

/// What was published and how.
#[derive(Debug, Serialize)]
pub struct Run {
    /// The scenario.
    pub scenario: &'static str,
    /// Recorded bars.
    pub bars: usize,
    /// Publications that they became.
    pub updates: usize,
    /// Tags they went to.
    pub tags: usize,
    /// Bars a second that were asked for.
    pub rate: f64,
    /// The way in.
    pub via: &'static str,
    /// The node's address of that way.
    pub through: String,
    /// How long publishing took, in seconds.
    pub seconds: f64,
}

/// What the pushes were answered.
#[derive(Debug, Default, Serialize)]
pub struct Pushes {
    /// In the queue.
    pub accepted: u64,
    /// Not in the queue.
    pub refused: u64,
    /// Sent, with no answer.
    pub unknown: u64,
    /// Not sent before the end.
    pub unsent: u64,
    /// Refusals and failures by their word.
    pub reasons: BTreeMap<String, u64>,
}

/// One node's subscribers.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// `host:port`.
    pub node: String,
    /// How many connections subscribed.
    pub subscribers: usize,
    /// Publications that arrived at them, repeats not counted.
    pub delivered: u64,
    /// From the intended time to the arrival.
    pub latency: Quantiles,
}

/// A histogram's quantiles in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The 99.9th percentile.
    pub p999_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

impl From<&Latency> for Quantiles {
    fn from(histogram: &Latency) -> Self {
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            p999_ms: ms(histogram.value_at_quantile(0.999)),
            max_ms: ms(histogram.max()),
        }
    }
}

/// Faults by their name.
pub fn by_name(faults: &Faults) -> BTreeMap<&'static str, u64> {
    FaultKind::ALL.map(|kind| (kind.name(), faults.count(kind))).into()
}

impl Report {
    /// The report as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let Run { scenario, bars, updates, tags, rate, via, through, seconds } = &self.run;
        let _ = writeln!(
            out,
            "{scenario}: {bars} bars as {updates} updates of {tags} tags, {rate} bars/s, {via} through {through}, {seconds:.1} s\n"
        );
        self.write_pushes(&mut out);
        self.write_latencies(&mut out);
        self.write_checks(&mut out);
        let _ = writeln!(out, "\nresult: {}", if self.ok { "every check holds" } else { "FAILED" });
        out
    }

    fn write_pushes(&self, out: &mut String) {
        let Pushes { accepted, refused, unknown, unsent, reasons } = &self.pushes;
        let _ = writeln!(out, "pushes   accepted {accepted}, refused {refused}, unknown {unknown}, unsent {unsent}");
        for (reason, count) in reasons {
            let _ = writeln!(out, "         {count} x {reason}");
        }
    }

    fn write_latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<36}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "from the intended time, ms", "count", "p50", "p99", "p99.9", "max"
        );
        let mut line = |name: &str, q: &Quantiles| {
            let Quantiles { count, p50_ms, p99_ms, p999_ms, max_ms } = q;
            let _ = writeln!(out, "{name:<36}{count:>10}{p50_ms:>10.2}{p99_ms:>10.2}{p999_ms:>10.2}{max_ms:>10.2}");
        };
        line("push sent", &self.late);
        line("push answered", &self.ack);
        for node in &self.nodes {
            line(&format!("at {} ({} subscribers)", node.node, node.subscribers), &node.latency);
        }
    }

    fn write_checks(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<36}{:>10}", "faults at the subscribers", "count");
        for (name, count) in &self.faults {
            let _ = writeln!(out, "{name:<36}{count:>10}{}", if *count > 0 { "  FAILED" } else { "" });
        }
        for example in &self.examples {
            let _ = writeln!(out, "  {example}");
        }
    }
}
