//! From counts and clocks to figures.

use std::collections::BTreeMap;

use super::{Before, Drive, Measured, Took};
use crate::{procfs, report::Quantiles};

type Of = fn(&Quantiles) -> f64;

impl Drive<'_> {
    pub(super) fn figures(&self, before: &Before, opened: &Took, measured: &Measured) -> BTreeMap<&'static str, f64> {
        let mut figures = BTreeMap::new();
        self.of_deliveries(&mut figures, measured);
        self.of_latency(&mut figures, measured);
        self.of_connections(&mut figures, before, opened, measured);
        figures.retain(|_, value| value.is_finite());
        figures
    }

    fn of_deliveries(&self, figures: &mut BTreeMap<&'static str, f64>, measured: &Measured) {
        let Took { seconds, server, .. } = measured.took;
        let deliveries = self.crowd.state.measure.deliveries as f64;
        if deliveries > 0.0 {
            figures.insert("deliveries_per_second", deliveries / seconds);
            figures.insert("publications_per_second", measured.publications as f64 / seconds);
        }
        let Some(cpu) = server else { return };
        figures.insert("cpu_share", cpu / seconds);
        if deliveries > 0.0 && cpu > 0.0 {
            figures.insert("cpu_us_per_delivery", cpu * 1e6 / deliveries);
            figures.insert("deliveries_per_cpu_second", deliveries / cpu);
        }
        if measured.requests > 0 {
            figures.insert("cpu_us_per_request", cpu * 1e6 / measured.requests as f64);
        }
    }

    fn of_latency(&self, figures: &mut BTreeMap<&'static str, f64>, measured: &Measured) {
        let measure = &self.crowd.state.measure;
        let mut add = |quantiles: Quantiles, names: &[(&'static str, Of)]| {
            if quantiles.count > 0 {
                figures.extend(names.iter().map(|(name, of)| (*name, of(&quantiles))));
            }
        };
        if let Some(first) = measure.groups.first() {
            add(
                first.into(),
                &[
                    ("p50_ms", |q| q.p50_ms),
                    ("p99_ms", |q| q.p99_ms),
                    ("p999_ms", |q| q.p999_ms),
                    ("max_ms", |q| q.max_ms),
                ],
            );
        }
        if let [_, .., last] = &measure.groups[..] {
            add(last.into(), &[("small_p50_ms", |q| q.p50_ms), ("small_p99_ms", |q| q.p99_ms)]);
        }
        add((&measure.storm).into(), &[("storm_p99_ms", |q| q.p99_ms), ("storm_max_ms", |q| q.max_ms)]);
        add((&measure.requests).into(), &[("request_p50_ms", |q| q.p50_ms), ("request_p99_ms", |q| q.p99_ms)]);
        add((&measure.handshakes).into(), &[("handshake_p50_ms", |q| q.p50_ms), ("handshake_p99_ms", |q| q.p99_ms)]);
        figures.extend(measured.storm_back_s.map(|seconds| ("storm_back_s", seconds)));
    }

    fn of_connections(
        &self,
        figures: &mut BTreeMap<&'static str, f64>,
        before: &Before,
        opened: &Took,
        measured: &Measured,
    ) {
        let connections = self.scenario.connections() as f64;
        figures.insert("handshakes_per_second", connections / opened.seconds);
        if let Some(cpu) = opened.server {
            figures.insert("cpu_us_per_handshake", cpu * 1e6 / connections);
        }
        let mut grown = |name, before: Option<u64>, now: Option<u64>| {
            let grown = now.zip(before).map(|(now, before)| now as f64 - before as f64);
            figures.extend(grown.map(|grown| (name, grown / connections)));
        };
        grown("resident_bytes_per_connection", before.resident, self.target.resident_bytes());
        grown("kernel_bytes_per_connection", before.kernel, procfs::kernel_bytes().ok());
        if let (true, Some(cpu)) = (self.feeds.is_empty(), measured.took.server) {
            figures.insert("cpu_us_per_connection_second", cpu * 1e6 / connections / measured.took.seconds);
        }
    }
}
