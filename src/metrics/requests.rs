//! The HTTP requests of one thread: how many and how long, by closed labels.
//!
//! Invariants: written by one thread only, read by anybody; a series is made on its first request; every label
//! value comes from a closed enum, so that a peer cannot grow the table.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The label's text.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

labels!(
    /// The label `method`.
    Method {
        /// GET
        Get => "GET",
        /// HEAD
        Head => "HEAD",
        /// POST
        Post => "POST",
        /// Any other, or a head that could not be read.
        Other => "other",
    }
);

labels!(
    /// The label `url`: the template of a route, never what a peer wrote.
    Url {
        /// The push.
        Push => "/ws/push",
        /// Many pushes in one request.
        PushBatch => "/ws/push/batch",
        /// Who is online.
        Online => "/v1/online",
        /// Closing connections.
        Kick => "/v1/kick",
        /// A tag's publications.
        Tag => "/v1/tags/{tag}",
        /// The WebSocket upgrade.
        Connect => "/ws/connect",
        /// Which node to connect to.
        Route => "/ws/route",
        /// The process lives.
        Live => "/live",
        /// The node takes traffic.
        Ready => "/ready",
        /// The node's state.
        Health => "/health",
        /// The metrics.
        Metrics => "/metrics",
        /// How old pushes are at each stage.
        Latency => "/debug/latency",
        /// The API's description.
        OpenApi => "/openapi.json",
        /// The API's pages.
        Swagger => "/swagger",
        /// What is logged.
        LogLevel => "/admin/log-level",
        /// The configuration, read again.
        Reload => "/admin/reload",
        /// The end of the node in good order.
        Drain => "/admin/drain",
        /// The operators' index.
        Index => "/",
        /// The demo page and what belongs to it.
        Demo => "/demo",
        /// The index of profiles.
        PprofIndex => "/debug/pprof/",
        /// A CPU profile.
        PprofProfile => "/debug/pprof/profile",
        /// A flame graph.
        PprofFlamegraph => "/debug/pprof/flamegraph",
        /// A profile of the heap.
        PprofHeap => "/debug/pprof/heap",
        /// The threads.
        PprofThreads => "/debug/pprof/threads",
        /// The command line.
        PprofCmdline => "/debug/pprof/cmdline",
        /// Names of addresses.
        PprofSymbol => "/debug/pprof/symbol",
        /// Nothing that is served.
        Other => "other",
    }
);

/// Upper bounds of the histogram's buckets in seconds. Rules and dashboards ask for 0.3.
pub const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0];

/// The statuses that have a label of their own; any other is `other`.
pub const CODES: [u16; 22] =
    [101, 200, 302, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 417, 426, 429, 431, 500, 501, 503, 505, 0];

/// All series of one thread.
#[derive(Debug, Default)]
pub struct Requests(OnceLock<Box<[OnceLock<Box<Series>>]>>);

#[derive(Debug, Default)]
struct Series {
    /// Not cumulative; the last one is above every bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

/// One series as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The label `method`.
    pub method: Method,
    /// The label `url`.
    pub url: Url,
    /// The label `code`; 0: other.
    pub code: u16,
    /// Requests a bucket, not cumulative; the last one is above every bound.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// All durations together.
    pub seconds: f64,
}

impl Requests {
    /// Notes an answered request. Only the owning thread calls this.
    pub fn record(&self, method: Method, url: Url, code: u16, took: Duration) {
        let all = self.0.get_or_init(|| (0..SERIES).map(|_| OnceLock::new()).collect());
        let series = all[index(method, url, code)].get_or_init(Box::default);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        add(&series.buckets[bucket], 1);
        add(&series.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Every series that has had a request.
    pub fn read(&self) -> Vec<Reading> {
        let Some(all) = self.0.get() else { return Vec::new() };
        let present = all.iter().enumerate().filter_map(|(index, series)| Some((index, series.get()?)));
        present.map(|(index, series)| series.read(index)).collect()
    }
}

impl Series {
    fn read(&self, index: usize) -> Reading {
        let (rest, code) = (index / CODES.len(), CODES[index % CODES.len()]);
        Reading {
            method: Method::ALL[rest / Url::ALL.len()],
            url: Url::ALL[rest % Url::ALL.len()],
            code,
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
            seconds: self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

const SERIES: usize = Method::ALL.len() * Url::ALL.len() * CODES.len();

fn index(method: Method, url: Url, code: u16) -> usize {
    let code = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
    (method as usize * Url::ALL.len() + url as usize) * CODES.len() + code
}

fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back_under_its_labels_and_in_its_bucket() {
        let requests = Requests::default();
        assert!(requests.read().is_empty());
        requests.record(Method::Post, Url::Kick, 401, Duration::from_millis(300));
        requests.record(Method::Other, Url::Other, 999, Duration::from_secs(60));
        let readings = requests.read();
        let kick = readings.iter().find(|reading| reading.url == Url::Kick).expect("the kick");
        assert_eq!((kick.method, kick.code), (Method::Post, 401));
        let bucket = BUCKETS.iter().position(|bound| *bound == 0.3).expect("rules ask for 0.3");
        assert_eq!((kick.buckets[bucket], kick.buckets.iter().sum::<u64>()), (1, 1));
        assert!((kick.seconds - 0.3).abs() < 1e-9);
        let other = readings.iter().find(|reading| reading.url == Url::Other).expect("the other");
        assert_eq!((other.method, other.code, other.buckets[BUCKETS.len()]), (Method::Other, 0, 1));
    }
}
