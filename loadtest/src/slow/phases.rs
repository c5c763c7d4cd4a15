//! The parts of a run, and what is measured in each: latencies by the time at which a publication was meant to leave, and
//! the node's memory second by second.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    report::{Latency, Quantiles, latency},
    stats::{Spread, Trend},
};

/// Latencies are also kept apart by such parts of a phase: their spread says how much a quantile is worth.
const PART_MICROS: u64 = 5_000_000;

/// One measured part of a run.
#[derive(Debug)]
pub struct Phase {
    name: &'static str,
    from: u64,
    to: u64,
    parts: Vec<Latency>,
    /// The node, each second.
    pub samples: Vec<Sample>,
    /// Cores' time on a CPU at the beginning and at the end, in nanoseconds.
    pub cpu: (u64, u64),
}

/// The node at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Seconds since the phase began.
    pub second: f64,
    /// Resident bytes.
    pub resident: u64,
    /// Bytes that wait in outboxes.
    pub outbox: u64,
}

impl Phase {
    /// A phase that begins at `from` (microseconds of the epoch) and goes on.
    pub fn begin(name: &'static str, from: u64, cores_cpu: u64) -> Self {
        Self { name, from, to: u64::MAX, parts: Vec::new(), samples: Vec::new(), cpu: (cores_cpu, cores_cpu) }
    }

    /// Ends it.
    pub fn end(&mut self, to: u64, cores_cpu: u64) {
        (self.to, self.cpu.1) = (to, cores_cpu);
    }

    /// Whether a publication that was meant to leave at `due` belongs to it.
    pub fn holds(&self, due: u64) -> bool {
        (self.from..self.to).contains(&due)
    }

    /// Counts the arrival of a publication of this phase.
    pub fn arrived(&mut self, due: u64, now: u64) {
        let part = usize::try_from((due - self.from) / PART_MICROS).unwrap_or(usize::MAX).min(1000);
        if self.parts.len() <= part {
            self.parts.resize_with(part + 1, latency);
        }
        self.parts[part].saturating_record(now.saturating_sub(due).max(1));
    }

    /// What it came to.
    pub fn report(&self) -> PhaseReport {
        let mut all: Histogram<u64> = latency();
        for part in &self.parts {
            // Same bounds: cannot fail.
            let _ = all.add(part);
        }
        let seconds = self.to.saturating_sub(self.from) as f64 / 1e6;
        // A part that is cut off by the phase's end has too few values for a p99.
        let full = self.parts.iter().filter(|part| part.len() * 2 * self.parts.len() as u64 >= all.len());
        let points = |of: fn(&Sample) -> u64| self.samples.iter().map(|s| (s.second, of(s) as f64)).collect::<Vec<_>>();
        PhaseReport {
            name: self.name,
            seconds,
            latency: Quantiles::from(&all),
            p99_of_parts_ms: Spread::of(full.map(|part| part.value_at_quantile(0.99) as f64 / 1000.0)),
            resident: Trend::of(&points(|sample| sample.resident)),
            outbox: Trend::of(&points(|sample| sample.outbox)),
            core_busy: self.cpu.1.saturating_sub(self.cpu.0) as f64 / 1e9 / seconds,
            samples: self.samples.clone(),
        }
    }
}

/// A phase in numbers.
#[derive(Debug, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub seconds: f64,
    /// From the intended time to the arrival at a live subscriber.
    pub latency: Quantiles,
    /// The p99 of each five seconds.
    pub p99_of_parts_ms: Spread,
    /// Resident bytes of the node.
    pub resident: Trend,
    /// Bytes in its outboxes.
    pub outbox: Trend,
    /// Share of one CPU that its cores used.
    pub core_busy: f64,
    /// Second by second.
    pub samples: Vec<Sample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_belongs_to_the_phase_in_which_it_was_meant_to_leave() {
        let mut phase = Phase::begin("x", 1000, 5);
        assert!(!phase.holds(999) && phase.holds(1000));
        phase.arrived(1000, 3000);
        phase.arrived(6_001_000, 6_002_000);
        phase.end(10_001_000, 5_000_000_005);
        assert!(phase.holds(10_000_999) && !phase.holds(10_001_000));
        let report = phase.report();
        assert_eq!((report.latency.count, report.p99_of_parts_ms.count), (2, 2));
        assert!((report.core_busy - 0.5).abs() < 1e-9 && (report.seconds - 10.0).abs() < 1e-9);
    }
}
