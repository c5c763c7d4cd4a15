//! How old pushes are at each stage of their way, for the scrape and as a page of text.
//!
//! Invariant: both are sums of the same histograms, so they agree.

use std::fmt::Write;

use http::StatusCode;
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric};

use crate::{
    http::Response,
    metrics::{
        Registry,
        latency::{Ages, Stage},
    },
};

use super::scrape::label;

/// The metric's name and help text.
pub(super) const STAGES: (&str, &str) = (
    "ws_stage_latency_seconds",
    "Age of pushes at each stage of their way, counted from when the node they came to had read them; at written, one for each receiver.",
);

/// The same of the queue.
pub(super) const ROUND_TRIPS: (&str, &str) =
    ("ws_queue_round_trip_seconds", "From sending a record through the queue to hearing it, of the node's own canary.");

/// The buckets' bounds are powers of two, in microseconds, from the first to the last of these: there a cell begins.
const BOUNDS_LOG2: std::ops::RangeInclusive<u32> = 5..=24;

/// Quantiles of the page.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// One histogram a stage.
pub(super) fn metrics(registry: &Registry) -> Vec<Metric> {
    let one = |stage: &Stage| metric(vec![label("stage", stage.text())], &ages(registry, *stage));
    Stage::ALL.iter().map(one).collect()
}

/// The histogram of the queue's round trips.
pub(super) fn round_trips(registry: &Registry) -> Metric {
    let mut sum = Ages::EMPTY;
    registry.threads().iter().for_each(|(_, counters)| sum.add(&counters.latency().read_round_trips()));
    metric(Vec::new(), &sum)
}

/// `GET /debug/latency`: since the node's start, in milliseconds.
pub(super) fn page(registry: &Registry) -> Response {
    let mut page =
        "age of pushes in ms since the node they came to had read them; every figure is at most 12 % too large\n\
                    stage          count       mean"
            .to_owned();
    for (name, _) in QUANTILES {
        let _ = write!(page, " {name:>10}");
    }
    page.push('\n');
    for stage in Stage::ALL {
        let ages = ages(registry, *stage);
        let mean_us = ages.sum_us as f64 / ages.count().max(1) as f64;
        let _ = write!(page, "{:<8} {:>11} {:>10.3}", stage.text(), ages.count(), mean_us / 1e3);
        for (_, part) in QUANTILES {
            let _ = write!(page, " {:>10.3}", ages.quantile_us(part) as f64 / 1e3);
        }
        page.push('\n');
    }
    Response::new(StatusCode::OK, "text/plain; charset=utf-8", page)
}

fn ages(registry: &Registry, stage: Stage) -> Ages {
    let mut sum = Ages::EMPTY;
    registry.threads().iter().for_each(|(_, counters)| sum.add(&counters.latency().read(stage)));
    sum
}

fn metric(labels: Vec<LabelPair>, ages: &Ages) -> Metric {
    let bucket = |log2: u32| {
        let bound_us = 1_u64 << log2;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound_us as f64 / 1e6);
        bucket.set_cumulative_count(ages.below(bound_us));
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(BOUNDS_LOG2.map(bucket).collect());
    histogram.set_sample_count(ages.count());
    histogram.set_sample_sum(ages.sum_us as f64 / 1e6);
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_scrape_tell_the_same() {
        let registry = Registry::default();
        for core in ["0", "1"] {
            let counters = registry.register(core);
            (0..500).for_each(|_| counters.latency().record(Stage::Written, 900));
        }
        let written = metrics(&registry).pop().expect("a stage");
        let histogram = written.get_histogram();
        assert_eq!(histogram.get_sample_count(), 1000);
        let at = |bound: f64| {
            let bucket = histogram.get_bucket().iter().find(|bucket| (bucket.upper_bound() - bound).abs() < 1e-9);
            bucket.expect("a bound").cumulative_count()
        };
        assert_eq!((at(0.000_512), at(0.001_024)), (0, 1000));
        let page = String::from_utf8(page(&registry).body.to_vec()).expect("text");
        let line = page.lines().find(|line| line.starts_with("written")).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..4], ["written", "1000", "0.900", "0.959"]);
    }
}
