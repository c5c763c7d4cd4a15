//! The metrics page: every thread's counters and request histograms in Prometheus' text format.
//!
//! Invariants: counters keep their own labels and get `core`; request metrics are summed over the threads, so that
//! the queries of the Go service's dashboards answer as they did; nothing is registered anywhere else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::StatusCode;
use prometheus::{
    TEXT_FORMAT, TextEncoder,
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    latency::{self, ROUND_TRIPS, STAGES},
    pprof,
};
use crate::{
    health::{Health, State},
    http::{Fault, Response},
    metrics::{
        Count, Counters, Registry,
        requests::{BUCKETS, Reading},
    },
};

/// Renders the page.
pub(super) struct Scrape(prometheus::Registry);

const FAILED: Fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics could not be written");

impl Scrape {
    pub(super) fn new(registry: Registry, health: Arc<Health>) -> Self {
        let prometheus = prometheus::Registry::new();
        if let Err(error) = prometheus.register(Box::new(Threads::new(registry, health))) {
            tracing::error!(%error, "failed to register the metrics");
        }
        Self(prometheus)
    }

    pub(super) fn response(&self) -> Response {
        match TextEncoder::new().encode_to_string(&self.0.gather()) {
            Ok(page) => Response::new(StatusCode::OK, TEXT_FORMAT, page),
            Err(error) => {
                tracing::error!(%error, "failed to write the metrics");
                FAILED.into()
            }
        }
    }
}

/// Reads all threads' slots when asked.
struct Threads {
    registry: Registry,
    health: Arc<Health>,
    descriptions: Vec<Desc>,
}

const DURATION: (&str, &str) = ("request_duration", "Seconds from a request's head to its answer.");
const TOTAL: (&str, &str) = ("request_total", "HTTP requests.");
const BY_URL: (&str, &str) = ("request_url_total", "HTTP requests by route.");
const READY: (&str, &str) = ("ws_ready", "Whether the node takes traffic.");
const STATE: (&str, &str) = ("ws_node_state", "The node's state: one of them is 1.");
const MEMORY: (&str, &str) = ("ws_memory_bytes", "The allocator's memory: asked for, in pages in use, held.");
const BUILD: (&str, &str) = ("ws_build_info", "The version that runs.");

impl Threads {
    fn new(registry: Registry, health: Arc<Health>) -> Self {
        let counts: BTreeMap<_, _> = Count::ALL.iter().map(|count| (count.describe().0, count.describe().2)).collect();
        let names =
            counts.into_iter().chain([DURATION, TOTAL, BY_URL, STAGES, ROUND_TRIPS, READY, STATE, MEMORY, BUILD]);
        let describe = |(name, help): (&str, &str)| Desc::new(name.to_owned(), help.to_owned(), vec![], HashMap::new());
        Self { registry, health, descriptions: names.filter_map(|name| describe(name).ok()).collect() }
    }
}

impl Collector for Threads {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let threads = self.registry.threads();
        let mut families = counters(&threads);
        families.extend(requests(&threads));
        let ready = u64::from(self.health.state() == State::Ready);
        families.push(family(STAGES, MetricType::HISTOGRAM, latency::metrics(&self.registry)));
        families.push(family(ROUND_TRIPS, MetricType::HISTOGRAM, vec![latency::round_trips(&self.registry)]));
        families.push(family(READY, MetricType::GAUGE, vec![gauge(vec![], ready)]));
        families.push(family(STATE, MetricType::GAUGE, states(self.health.state())));
        families.extend(pprof::memory().map(memory));
        let version = label("version", env!("CARGO_PKG_VERSION"));
        families.push(family(BUILD, MetricType::GAUGE, vec![gauge(vec![version], 1)]));
        families
    }
}

fn states(now: State) -> Vec<Metric> {
    State::ALL.iter().map(|state| gauge(vec![label("state", state.word())], u64::from(*state == now))).collect()
}

fn counters(threads: &[(String, Arc<Counters>)]) -> Vec<MetricFamily> {
    let mut families: BTreeMap<&str, MetricFamily> = BTreeMap::new();
    for count in Count::ALL {
        let (name, labels, help) = count.describe();
        // By Prometheus' convention what only grows is named so; everything else is a gauge.
        let grows = name.ends_with("_total");
        let kind = if grows { MetricType::COUNTER } else { MetricType::GAUGE };
        let family = families.entry(name).or_insert_with(|| family((name, help), kind, vec![]));
        for (core, counters) in threads {
            let labels = [label("core", core)].into_iter().chain(own_labels(labels)).collect();
            let value = counters.get(*count);
            family.mut_metric().push(if grows { counter(labels, value) } else { gauge(labels, value) });
        }
    }
    families.into_values().collect()
}

/// `name="value"` pairs as a [`Count`] describes them.
fn own_labels(text: &str) -> impl Iterator<Item = LabelPair> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| label(name.trim(), value.trim().trim_matches('"')))
}

fn requests(threads: &[(String, Arc<Counters>)]) -> [MetricFamily; 3] {
    let mut series: BTreeMap<(&str, &str, u16), Reading> = BTreeMap::new();
    for reading in threads.iter().flat_map(|(_, counters)| counters.requests().read()) {
        let key = (reading.method.text(), reading.url.text(), reading.code);
        series.entry(key).and_modify(|sum| add(sum, &reading)).or_insert(reading);
    }
    let mut by_url: BTreeMap<&str, u64> = BTreeMap::new();
    for reading in series.values() {
        *by_url.entry(reading.url.text()).or_default() += reading.buckets.iter().sum::<u64>();
    }
    let total = by_url.values().sum();
    let by_url = by_url.into_iter().map(|(url, value)| counter(vec![label("url", url)], value)).collect();
    [
        family(DURATION, MetricType::HISTOGRAM, series.values().map(histogram).collect()),
        family(TOTAL, MetricType::COUNTER, vec![counter(vec![], total)]),
        family(BY_URL, MetricType::COUNTER, by_url),
    ]
}

fn memory(memory: pprof::Memory) -> MetricFamily {
    let kinds = [("allocated", memory.allocated), ("active", memory.active), ("resident", memory.resident)];
    let gauges = kinds.map(|(kind, bytes)| gauge(vec![label("kind", kind)], bytes));
    family(MEMORY, MetricType::GAUGE, gauges.into())
}

fn add(sum: &mut Reading, reading: &Reading) {
    sum.seconds += reading.seconds;
    for (sum, bucket) in sum.buckets.iter_mut().zip(reading.buckets) {
        *sum += bucket;
    }
}

fn histogram(reading: &Reading) -> Metric {
    let mut cumulative = 0;
    let buckets = BUCKETS.iter().zip(reading.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(reading.buckets.iter().sum());
    histogram.set_sample_sum(reading.seconds);
    let code = match reading.code {
        0 => "other".to_owned(),
        code => code.to_string(),
    };
    let labels = vec![label("code", &code), label("method", reading.method.text()), label("url", reading.url.text())];
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus' values are floats; counts above 2^53 lose their last digit"
)]
fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as i64 as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
