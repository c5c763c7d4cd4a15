//! Histograms and a row of seconds. Times come in as arguments.

use serde::{Deserialize, Serialize};

use crate::report::{Latency, latency};

/// What is measured. What was meant to happen before it began does not count.
pub struct Measure {
    /// Microseconds of the monotonic clock; the far future while nothing is measured.
    from_us: u64,
    /// From here until here a storm is on.
    storm_us: (u64, u64),
    /// By group, from the intended time to the arrival.
    pub groups: Vec<Latency>,
    /// The first group's while a storm is on.
    pub storm: Latency,
    /// From the intended time of a question to its answer.
    pub requests: Latency,
    /// From the intended time of a publication to the answer that it was accepted, where there is one.
    pub acks: Latency,
    /// From the intended time of opening until a connection is open.
    pub handshakes: Latency,
    /// From the intended time to the sending: the harness's own part.
    pub late: Latency,
    /// Texts that arrived at steady subscribers.
    pub deliveries: u64,
    /// The running second.
    second: Latency,
    second_deliveries: u64,
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the begin of what is measured.
    pub at_s: f64,
    /// Texts that arrived.
    pub deliveries: u64,
    /// The median of their latency, or that of answers where nothing is published.
    pub p50_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// CPU seconds of the server.
    pub server_cpu: f64,
    /// CPU seconds of this harness.
    pub harness_cpu: f64,
    /// Connections that are open.
    pub open: usize,
}

impl Measure {
    /// Nothing yet.
    pub fn new(groups: usize) -> Self {
        Self {
            from_us: u64::MAX,
            storm_us: (u64::MAX, 0),
            groups: std::iter::repeat_with(latency).take(groups).collect(),
            storm: latency(),
            requests: latency(),
            acks: latency(),
            handshakes: latency(),
            late: latency(),
            deliveries: 0,
            second: latency(),
            second_deliveries: 0,
        }
    }

    /// Measures what is meant to happen from `now_us` on. Handshakes are kept when they are what the run is about.
    pub fn begin(&mut self, now_us: u64, keep_handshakes: bool) {
        let handshakes = std::mem::replace(&mut self.handshakes, latency());
        *self = Self::new(self.groups.len());
        self.from_us = now_us;
        if keep_handshakes {
            self.handshakes = handshakes;
        }
    }

    /// A storm begins, or ends.
    pub fn storm(&mut self, from_us: u64, to_us: u64) {
        self.storm_us = (from_us, to_us);
    }

    /// A text arrived at a steady subscriber.
    pub fn delivery(&mut self, group: usize, due_us: u64, now_us: u64) {
        if due_us < self.from_us {
            return;
        }
        let took = now_us.saturating_sub(due_us);
        self.groups[group].saturating_record(took);
        self.second.saturating_record(took);
        self.deliveries += 1;
        self.second_deliveries += 1;
        if group == 0 && due_us >= self.storm_us.0 && due_us < self.storm_us.1 {
            self.storm.saturating_record(took);
        }
    }

    /// A question was answered.
    pub fn request(&mut self, due_us: u64, now_us: u64) {
        if due_us >= self.from_us {
            self.requests.saturating_record(now_us.saturating_sub(due_us));
            self.second.saturating_record(now_us.saturating_sub(due_us));
            self.second_deliveries += 1;
        }
    }

    /// A publication was accepted.
    pub fn accepted(&mut self, due_us: u64, now_us: u64) {
        if due_us >= self.from_us {
            self.acks.saturating_record(now_us.saturating_sub(due_us));
        }
    }

    /// A connection is open.
    pub fn handshake(&mut self, due_us: u64, now_us: u64) {
        if due_us >= self.from_us {
            self.handshakes.saturating_record(now_us.saturating_sub(due_us));
        }
    }

    /// Something that was due then leaves now.
    pub fn leaves(&mut self, due_us: u64, now_us: u64) {
        if due_us >= self.from_us {
            self.late.saturating_record(now_us.saturating_sub(due_us));
        }
    }

    /// The running second ends; the caller adds what it alone knows.
    pub fn end_second(&mut self) -> Second {
        let ms = |quantile| self.second.value_at_quantile(quantile) as f64 / 1000.0;
        let second =
            Second { deliveries: self.second_deliveries, p50_ms: ms(0.5), p99_ms: ms(0.99), ..Second::default() };
        self.second.reset();
        self.second_deliveries = 0;
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_before_the_begin_does_not_count() {
        let mut measure = Measure::new(1);
        measure.delivery(0, 10, 20);
        measure.begin(100, false);
        measure.delivery(0, 99, 120);
        measure.delivery(0, 100, 150);
        assert_eq!((measure.deliveries, measure.groups[0].max()), (1, 50));
        let second = measure.end_second();
        assert_eq!((second.deliveries, second.p99_ms), (1, 0.05));
        assert_eq!(measure.end_second().deliveries, 0);
    }

    #[test]
    fn a_storm_has_a_histogram_of_its_own() {
        let mut measure = Measure::new(2);
        measure.begin(0, false);
        measure.storm(100, 200);
        for due in [50, 100, 199, 200] {
            measure.delivery(0, due, due + due);
        }
        measure.delivery(1, 150, 160);
        assert_eq!((measure.storm.len(), measure.storm.max(), measure.deliveries), (2, 199, 5));
    }
}
