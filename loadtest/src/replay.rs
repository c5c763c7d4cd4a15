//! `loadtest replay`: real bars go in through one node, subscribers on every given node check each of them.
//!
//! Passes only if every push was accepted and every subscriber saw every publication once, in order, with an unbroken
//! chain and the very bytes that were pushed. Bounded in time and count.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    bars::{self, Plan, PlanSettings},
    check::{Expected, FaultKind, Faults, Observer, Outcome, Received},
    client::{Frame, Session},
    clock::unix_now,
    node::authority,
    publisher::{Published, Target, Via, micros_since, publish},
    report::{Latency, NodeReport, Pushes, Quantiles, Report, Run, by_name, latency},
    sign::Credentials,
};

/// Real daily bars, shipped so that a run needs no file (data/README.md).
const SHIPPED_BARS: &str = include_str!("../data/stocks.csv");
/// Tags of one `subscribe` command.
const TAGS_PER_COMMAND_MAX: usize = 64;
/// Tags that a connection may hold.
const TAGS_MAX: usize = 256;
/// All subscribers together: a process holds about so many sockets.
const SUBSCRIBERS_MAX: usize = 10_000;
/// From the last subscription to the first push.
const SETTLE: Duration = Duration::from_millis(300);
/// How long to listen for repeats after everything has come.
const TAIL: Duration = Duration::from_millis(300);

/// Publishes recorded bars through one node and checks every bar at subscribers on all nodes.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// WebSocket address of a node; give it once per node
    #[arg(long, default_value = "ws://127.0.0.1:8812")]
    pub ws: Vec<String>,
    /// HTTP API of the node that takes the pushes
    #[arg(long, default_value = "http://127.0.0.1:8912")]
    pub http: String,
    /// Project
    #[arg(long, default_value = "1")]
    pub pid: String,
    /// The project's secret
    #[arg(long, env = "LOADTEST_SECRET", hide_env_values = true)]
    pub secret: String,
    /// CSV file with bars: date, open, high, low, close, volume, and perhaps symbol [default: real daily bars of five stocks]
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// What the tags begin with: `<prefix><symbol>.<interval>`
    #[arg(long, default_value = "kline.")]
    pub tags: String,
    /// Symbols to take of the file, with commas [default: all]
    #[arg(long, value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Interval of the bars
    #[arg(long, default_value = "1d")]
    pub interval: String,
    /// Bars a second, all symbols together; each bar is up to five updates
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Most bars to replay, 0 for all
    #[arg(long, default_value_t = 0)]
    pub bars: usize,
    /// Subscribers per node, each to all tags
    #[arg(long, default_value_t = 4)]
    pub subscribers: usize,
    /// Which way the pushes take
    #[arg(long, value_enum, default_value = "http")]
    pub via: Via,
    /// Longest run that is begun, in seconds
    #[arg(long, default_value_t = 600)]
    pub seconds_max: u64,
    /// How long to wait for what is still to come after the last push, in seconds
    #[arg(long, default_value_t = 10)]
    pub drain: u64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Runs the scenario. An error when it could not be run at all; what it found is in the report.
pub async fn replay(args: &ReplayArgs) -> Result<Report> {
    let plan = Arc::new(make_plan(args)?);
    let expected = Arc::new(Expected::new(&plan)?);
    let nodes = args.ws.iter().map(|url| authority(url, "ws://")).collect::<Result<Vec<_>>>()?;
    ensure!(nodes.len() * args.subscribers <= SUBSCRIBERS_MAX, "more than {SUBSCRIBERS_MAX} subscribers");
    let credentials = Credentials::new(&args.pid, &args.secret);
    let subscribed = subscribe_all(args, &nodes, &credentials, &plan, &expected).await?;
    sleep(SETTLE).await;

    let start = Instant::now() + Duration::from_millis(50);
    let length = plan.updates.last().map_or(Duration::ZERO, |last| last.due);
    let target = Target {
        via: args.via,
        http: authority(&args.http, "http://")?,
        ws: nodes[0].clone(),
        credentials,
        start,
        // A node that takes twice the time will not get better by waiting.
        deadline: start + 2 * length + Duration::from_secs(30),
    };
    let received = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = watch::channel(false);
    let watchers: Vec<(usize, JoinHandle<Watched>)> = subscribed
        .into_iter()
        .map(|(node, watcher)| (node, tokio::spawn(watcher.run(start, Arc::clone(&received), stopped.clone()))))
        .collect();
    let published = publish(&plan, &target).await?;
    let seconds = start.elapsed().as_secs_f64();
    let pushes = count_pushes(&published);
    let all = pushes.accepted * watchers.len() as u64;
    await_rest(&received, all, Duration::from_secs(args.drain)).await;
    stop.send_replace(true);
    let (nodes, faults) = collect(args, &nodes, watchers, &published.outcomes).await?;
    let through = if args.via == Via::Backend { target.ws } else { target.http };
    let run = Run {
        scenario: "replay",
        bars: plan.bars,
        updates: plan.updates.len(),
        tags: plan.tags.len(),
        rate: args.rate,
        via: args.via.name(),
        through,
        seconds,
    };
    Ok(Report {
        ok: faults.total() == 0 && pushes.accepted == plan.updates.len() as u64,
        run,
        pushes,
        late: Quantiles::from(&published.late),
        ack: Quantiles::from(&published.ack),
        nodes,
        faults: by_name(&faults),
        examples: faults.examples,
    })
}

fn make_plan(args: &ReplayArgs) -> Result<Plan> {
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be above 0");
    ensure!(args.subscribers > 0, "--subscribers must be above 0");
    let well_named = bars::is_tag_part(&args.interval) && (args.tags.is_empty() || bars::is_tag_part(&args.tags));
    ensure!(well_named, "--tags and --interval may hold A-Z a-z 0-9 _ . : @ / -");
    let mut recorded = match &args.file {
        None => bars::read(SHIPPED_BARS, ""),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("bars");
            bars::read(&text, name).with_context(|| format!("reading {}", path.display()))
        }
    }?;
    recorded.retain(|bar| args.symbols.is_empty() || args.symbols.contains(&bar.symbol));
    ensure!(!recorded.is_empty(), "no bars of these symbols");
    let settings = PlanSettings { prefix: &args.tags, interval: &args.interval, rate: args.rate, bars_max: args.bars };
    let plan = bars::plan(&recorded, &settings);
    ensure!(plan.tags.len() <= TAGS_MAX, "{} tags, a connection holds {TAGS_MAX}", plan.tags.len());
    let seconds = plan.bars as f64 / args.rate;
    ensure!(
        seconds <= args.seconds_max as f64,
        "the run would take {seconds:.0} s: raise --rate or --seconds-max, or lower --bars"
    );
    Ok(plan)
}

async fn subscribe_all(
    args: &ReplayArgs,
    nodes: &[String],
    credentials: &Credentials,
    plan: &Plan,
    expected: &Arc<Expected>,
) -> Result<Vec<(usize, Watcher)>> {
    let mut watchers = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        for number in 0..args.subscribers {
            // One uid each: a uid may hold only a few connections.
            let uid = format!("replay-{}-{at}-{number}", std::process::id());
            let connect = credentials.connect_target(1, &uid, unix_now());
            let opened = Watcher::open(node, &connect, plan, expected).await;
            watchers.push((at, opened.with_context(|| format!("subscriber {number} of {node}"))?));
        }
    }
    Ok(watchers)
}

fn count_pushes(published: &Published) -> Pushes {
    let mut pushes = Pushes { reasons: published.refusals.clone(), ..Pushes::default() };
    for outcome in published.outcomes.iter().flatten() {
        match outcome {
            Outcome::Accepted(_) => pushes.accepted += 1,
            Outcome::Refused => pushes.refused += 1,
            Outcome::Unknown => pushes.unknown += 1,
            Outcome::Unsent => pushes.unsent += 1,
        }
    }
    pushes
}

/// Waits until all has come, and then a little for what should not come.
async fn await_rest(received: &AtomicU64, all: u64, longest: Duration) {
    let end = Instant::now() + longest;
    while received.load(Ordering::Relaxed) < all && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(TAIL).await;
}

async fn collect(
    args: &ReplayArgs,
    nodes: &[String],
    watchers: Vec<(usize, JoinHandle<Watched>)>,
    outcomes: &[Vec<Outcome>],
) -> Result<(Vec<NodeReport>, Faults)> {
    let mut faults = Faults::default();
    let mut latencies: Vec<Latency> = nodes.iter().map(|_| latency()).collect();
    for (node, watcher) in watchers {
        let watched = watcher.await.context("a subscriber panicked")?;
        latencies[node].add(&watched.latency).context("joining histograms")?;
        faults.merge(&watched.observer.finish(outcomes));
    }
    let report = |(node, latency): (&String, &Latency)| NodeReport {
        node: node.clone(),
        subscribers: args.subscribers,
        delivered: latency.len(),
        latency: Quantiles::from(latency),
    };
    Ok((nodes.iter().zip(&latencies).map(report).collect(), faults))
}

/// One subscriber with its socket.
struct Watcher {
    session: Session,
    observer: Observer,
    latency: Latency,
}

/// What a subscriber saw.
struct Watched {
    observer: Observer,
    latency: Latency,
}

impl Watcher {
    async fn open(node: &str, connect: &str, plan: &Plan, expected: &Arc<Expected>) -> Result<Self> {
        let session = Session::connect(node, connect).await?;
        let mut watcher = Self { session, observer: Observer::new(Arc::clone(expected)), latency: latency() };
        for tags in plan.tags.chunks(TAGS_PER_COMMAND_MAX) {
            for early in watcher.session.subscribe(tags).await? {
                watcher.take(&early);
            }
        }
        Ok(watcher)
    }

    async fn run(mut self, start: Instant, received: Arc<AtomicU64>, mut stop: watch::Receiver<bool>) -> Watched {
        loop {
            let text = tokio::select! {
                text = self.session.next_text() => text,
                _ = stop.changed() => break,
            };
            match text {
                Ok(text) => {
                    if let Some(due) = self.take(&text) {
                        self.latency.saturating_record(micros_since(start + due));
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(problem) => {
                    self.observer.faults.add(FaultKind::Disconnected, format_args!("{problem:#}"));
                    return Watched { observer: self.observer, latency: self.latency };
                }
            }
        }
        self.session.close().await;
        Watched { observer: self.observer, latency: self.latency }
    }

    /// Shows a text to the observer; the answer is the intended time of a publication that is new here.
    fn take(&mut self, text: &Utf8Bytes) -> Option<Duration> {
        let frame = match Frame::parse(text) {
            Ok(frame) => frame,
            Err(problem) => {
                self.observer.faults.add(FaultKind::Altered, format_args!("{problem:#}"));
                return None;
            }
        };
        if frame.kind == "gap" {
            self.observer.gap(&frame.tag);
            return None;
        }
        if frame.tag.is_empty() {
            return None;
        }
        self.observer.observe(&Received {
            tag: &frame.tag,
            id: &frame.id,
            prev: frame.prev.as_deref(),
            payload: frame.payload.map_or("", |payload| payload.get()),
            snapshot: frame.snapshot,
            gap: frame.gap,
            merged: frame.merged,
        })
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
