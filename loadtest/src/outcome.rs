//! What one run of a scenario against one server found, and the names of its figures. Decides nothing but `ok`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    crowd::measure::Second,
    findings::Findings,
    report::{Latency, Quantiles},
    scenario::Scenario,
};

/// The harness took so much of its CPU, or so long to send, that the figures are its own.
const CPU_SHARE_MAX: f64 = 0.95;
const LATE_P99_MS_MAX: f64 = 5.0;
/// Where a curve of latency is told.
const QUANTILES: [f64; 13] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0];

/// A figure's name and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more of it is better.
    pub more_is_better: bool,
}

const fn less(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, more_is_better: false }
}

const fn more(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, more_is_better: true }
}

/// All figures. The server's CPU time and memory are known only of one that runs on this machine.
pub const FIGURES: &[Figure] = &[
    less("cpu_us_per_delivery", "µs of the server's CPU time a delivery"),
    more("deliveries_per_cpu_second", "deliveries a second of the server's CPU time"),
    more("deliveries_per_second", "deliveries/s"),
    more("publications_per_second", "publications/s"),
    less("p50_ms", "ms"),
    less("p99_ms", "ms"),
    less("p999_ms", "ms"),
    less("max_ms", "ms"),
    less("small_p50_ms", "ms, the last group"),
    less("small_p99_ms", "ms, the last group"),
    less("storm_p99_ms", "ms, from the storm until all are back"),
    less("storm_max_ms", "ms, from the storm until all are back"),
    less("storm_back_s", "s until all are back"),
    less("handshake_p50_ms", "ms"),
    less("handshake_p99_ms", "ms"),
    more("handshakes_per_second", "handshakes/s"),
    less("cpu_us_per_handshake", "µs of the server's CPU time a handshake"),
    less("request_p50_ms", "ms"),
    less("request_p99_ms", "ms"),
    less("cpu_us_per_request", "µs of the server's CPU time a request"),
    less("resident_bytes_per_connection", "bytes of the server's memory"),
    less("kernel_bytes_per_connection", "bytes of the kernel's memory, both ends"),
    less("cpu_us_per_connection_second", "µs of the server's CPU time a second"),
    less("cpu_share", "CPUs of the server"),
];

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The server.
    pub target: &'static str,
    /// The scenario.
    pub scenario: Scenario,
    /// Whether every check holds.
    pub ok: bool,
    /// Connections that stood.
    pub connections: usize,
    /// Seconds that were measured, until the last text had arrived.
    pub seconds: f64,
    /// Figures by name, see [`FIGURES`]; those that are not known are not there.
    pub figures: BTreeMap<&'static str, f64>,
    /// Latencies by what they are of.
    pub curves: Vec<Curve>,
    /// The run, second by second.
    pub series: Vec<Second>,
    /// What the harness says of itself.
    pub harness: Harness,
    /// What was wrong.
    pub findings: Findings,
}

/// A latency by its quantiles.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// Of what.
    pub name: String,
    /// The usual quantiles.
    pub quantiles: Quantiles,
    /// `(quantile, milliseconds)`.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// The curve of a histogram in microseconds.
    pub fn of(name: impl Into<String>, latency: &Latency) -> Self {
        let point = |quantile: f64| (quantile, latency.value_at_quantile(quantile) as f64 / 1000.0);
        Self { name: name.into(), quantiles: latency.into(), points: QUANTILES.map(point).to_vec() }
    }
}

/// What the harness says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Harness {
    /// CPUs that it used.
    pub cpu_share: f64,
    /// From the intended time to the sending, 99th percentile.
    pub late_p99_ms: f64,
    /// Why the figures may be the harness's and not the server's.
    pub saturated: Option<String>,
}

impl Harness {
    /// Judges itself. With a window nothing is late, and a CPU that is used up is what is asked for only of the server.
    pub fn judge(cpu_share: f64, late: &Latency, server_share: Option<f64>) -> Self {
        let late_p99_ms = Quantiles::from(late).p99_ms;
        // A busy harness before an idle server measures itself; before a server that is as busy nobody waits for the other.
        let is_bound = cpu_share > CPU_SHARE_MAX && server_share.is_none_or(|share| share < CPU_SHARE_MAX);
        let saturated = if late_p99_ms > LATE_P99_MS_MAX {
            Some(format!("sending was late by {late_p99_ms:.1} ms at the 99th percentile"))
        } else if is_bound {
            Some(format!("the harness used {cpu_share:.2} CPUs and the server less"))
        } else {
            None
        };
        Self { cpu_share, late_p99_ms, saturated }
    }
}

impl Outcome {
    /// A figure's value.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// The outcome as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{} against {}: {} connections, {:.1} s\n",
            self.scenario.name, self.target, self.connections, self.seconds
        );
        for name in &self.scenario.figures {
            let unit = FIGURES.iter().find(|figure| figure.name == name).map_or("", |figure| figure.unit);
            let value = self.figure(name).map_or_else(|| "unknown".to_owned(), number);
            let _ = writeln!(out, "{name:<32}{value:>14}  {unit}");
        }
        self.write_curves(&mut out);
        let Harness { cpu_share, late_p99_ms, saturated } = &self.harness;
        let _ = writeln!(out, "\nharness: {cpu_share:.2} CPUs, late by {late_p99_ms:.2} ms at the 99th percentile");
        if let Some(why) = saturated {
            let _ = writeln!(out, "SATURATED: {why}; the figures may be the harness's own");
        }
        let _ = write!(out, "{}", self.findings);
        let _ = writeln!(out, "result: {}", if self.ok { "every check holds" } else { "FAILED" });
        out
    }

    fn write_curves(&self, out: &mut String) {
        let curves: Vec<&Curve> = self.curves.iter().filter(|curve| curve.quantiles.count > 0).collect();
        if curves.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\n{:<32}{:>12}{:>10}{:>10}{:>10}{:>10}",
            "from the intended time, ms", "count", "p50", "p99", "p99.9", "max"
        );
        for Curve { name, quantiles: q, .. } in curves {
            let _ = writeln!(
                out,
                "{name:<32}{:>12}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                q.count, q.p50_ms, q.p99_ms, q.p999_ms, q.max_ms
            );
        }
    }
}

/// A number with as many digits as it deserves.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::latency;

    #[test]
    fn a_harness_that_is_late_or_busy_before_an_idle_server_says_so() {
        let none = latency();
        assert!(Harness::judge(0.99, &none, Some(0.5)).saturated.is_some());
        assert!(Harness::judge(0.99, &none, Some(0.99)).saturated.is_none());
        assert!(Harness::judge(0.5, &none, Some(0.99)).saturated.is_none());
        let mut late = latency();
        late.record(20_000).expect("in bounds");
        assert!(Harness::judge(0.1, &late, Some(0.1)).saturated.is_some());
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        for (at, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES[..at].iter().all(|other| other.name != figure.name), "{}", figure.name);
        }
        assert_eq!([1234.5, 12.345, 1.2345].map(number), ["1234", "12.3", "1.234"].map(str::to_owned));
    }
}
