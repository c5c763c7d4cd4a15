//! `loadtest stall`: how old the values are that a reader sees after it stopped for a while, or behind a narrow link.
//!
//! Method: one back-end publishes many tags at a steady rate; each reader follows all of them over an address of its own
//! (a link of its own, when the script in `perf/stall` has shaped them). A reader may stop reading for some seconds. Every value
//! carries the time at which it was meant to leave. Leaves out: checking what comes (`slow` does).

use std::{cell::RefCell, fmt::Write as _, rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_local},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    clock::{Epoch, unix_now},
    node::authority,
    pulse::{Beat, Ledger, Pulse, Source},
    report::{Latency, Quantiles, latency},
    sign::Credentials,
    thin::{Scratch, Text, Thin},
};

/// Readers that stop, or that sit behind a narrow link; the ages of what they see.
#[derive(Args, Clone, Debug)]
pub struct StallArgs {
    /// WebSocket address for a reader; once per reader
    #[arg(long, required = true)]
    pub ws: Vec<String>,
    /// WebSocket address for the publisher: a link that is not shaped
    #[arg(long)]
    pub publish_ws: String,
    /// Project
    #[arg(long)]
    pub pid: String,
    /// The project's secret
    #[arg(long, env = "LOADTEST_SECRET", hide_env_values = true)]
    pub secret: String,
    /// Tags, each followed by every reader
    #[arg(long, default_value_t = 20)]
    pub tags: usize,
    /// What the tags begin with
    #[arg(long, default_value = "stall.")]
    pub prefix: String,
    /// Publications a second, all tags together
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// SO_RCVBUF of the readers; 0 leaves it to the kernel
    #[arg(long, default_value_t = 0)]
    pub receive_buffer: u32,
    /// Reading before the stop, or before the ages count, in seconds
    #[arg(long, default_value_t = 5.0)]
    pub before: f64,
    /// How long the readers stop, in seconds; 0: they never do
    #[arg(long, default_value_t = 5.0)]
    pub stop: f64,
    /// Reading after that, in seconds
    #[arg(long, default_value_t = 10.0)]
    pub after: f64,
    /// A value of at most this age, in milliseconds, is a fresh one
    #[arg(long, default_value_t = 250.0)]
    pub fresh: f64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct StallReport {
    /// Whether every reader was served to the end.
    pub ok: bool,
    /// By reader.
    pub readers: Vec<Seen>,
}

/// What one reader saw after it read again (or after the beginning, if it never stopped).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Age of the first value.
    pub first_ms: Option<f64>,
    /// From reading again to the first fresh value.
    pub until_fresh_ms: Option<f64>,
    /// Bytes before it.
    pub stale_bytes: u64,
    /// Values before it.
    pub stale_values: u64,
    /// All values: their ages.
    pub ages: Quantiles,
    /// Age of the last value.
    pub last_ms: f64,
    /// Publications that were merged away.
    pub merged: u64,
    /// How the connection ended, if it did.
    pub ended: Option<String>,
}

struct Watch {
    seen: Seen,
    ages: Latency,
    /// When it read again, and how far into the stream it was.
    since: Option<(u64, u64)>,
    fresh_ms: f64,
}

impl Watch {
    fn take(&mut self, text: &Text<'_>, now: u64) {
        let Some((since, from)) = self.since else { return };
        let Ok(frame) = text.frame() else { return };
        let beat = frame.payload.and_then(|payload| serde_json::from_str::<Beat>(payload.get()).ok());
        let Some(beat) = beat.filter(|_| !frame.tag.is_empty()) else { return };
        let age = now.saturating_sub(beat.t);
        let age_ms = age as f64 / 1000.0;
        self.ages.saturating_record(age.max(1));
        self.seen.first_ms.get_or_insert(age_ms);
        self.seen.last_ms = age_ms;
        self.seen.merged += frame.merged;
        if self.seen.until_fresh_ms.is_some() {
            return;
        }
        if age_ms <= self.fresh_ms {
            self.seen.until_fresh_ms = Some(now.saturating_sub(since) as f64 / 1000.0);
            self.seen.stale_bytes = text.at.saturating_sub(from);
        } else {
            self.seen.stale_values += 1;
        }
    }
}

/// Runs the scenario inside a `LocalSet`.
pub async fn stall(args: &StallArgs) -> Result<StallReport> {
    let times = [args.before, args.stop, args.after];
    ensure!(times.iter().all(|time| (0.0..=600.0).contains(time)), "times are 0 to 600 seconds");
    ensure!((1..=256).contains(&args.tags) && args.rate > 0.0, "--tags: 1 to 256, --rate above 0");
    let credentials = Credentials::new(&args.pid, &args.secret);
    let pulse = Pulse {
        prefix: args.prefix.clone(),
        tags: args.tags,
        rate: args.rate,
        keep_every: 0,
        payload_bytes: args.payload,
    };
    let (pulse, epoch) = (Rc::new(pulse), Epoch::begin());
    let mut readers = JoinSet::new();
    let mut opened = Vec::new();
    for (number, ws) in args.ws.iter().enumerate() {
        let thin = subscribe(args, &credentials, &pulse, ws, number).await;
        opened.push(thin.with_context(|| format!("reader {number} at {ws}"))?);
    }
    let target = credentials.connect_target(2, "stall-backend", unix_now());
    let publisher = Thin::open(&authority(&args.publish_ws, "ws://")?, &target, 0).await.context("the publisher")?;
    let (stop, stopped) = watch::channel(false);
    let ledger = Rc::new(RefCell::new(Ledger::new(args.tags)));
    let start = Instant::now() + Duration::from_millis(50);
    let feed = spawn_local(Source::new(publisher, pulse, ledger, epoch, start).run(stopped));
    for (number, thin) in opened.into_iter().enumerate() {
        let args = args.clone();
        readers.spawn_local(async move { (number, watch(thin, &args, epoch, start).await) });
    }
    let mut seen = vec![Seen::default(); args.ws.len()];
    while let Some(one) = readers.join_next().await {
        let (number, one) = one.context("a reader panicked")?;
        seen[number] = one;
    }
    stop.send_replace(true);
    let fed = feed.await.context("the publisher panicked")??;
    ensure!(fed.problems.is_empty(), "publications failed: {:?}", fed.problems);
    Ok(StallReport { ok: seen.iter().all(|seen| seen.ended.is_none()), readers: seen })
}

async fn subscribe(
    args: &StallArgs,
    credentials: &Credentials,
    pulse: &Pulse,
    ws: &str,
    number: usize,
) -> Result<Thin> {
    let uid = format!("stall-{}-{number}", std::process::id());
    let target = credentials.connect_target(1, &uid, unix_now());
    let mut thin = Thin::open(&authority(ws, "ws://")?, &target, args.receive_buffer).await?;
    let names: Vec<String> = (0..args.tags).map(|tag| pulse.tag(tag)).collect();
    let command = serde_json::json!({"type": "subscribe", "ack_id": "subscribe", "tags": names});
    thin.send_texts(&[command.to_string()]).await?;
    let scratch = Scratch::default();
    loop {
        let text = thin.next_text(&scratch).await?;
        let frame = crate::client::Frame::parse(&text)?;
        if frame.ack_id == "subscribe" {
            ensure!(frame.code == Some(1), "subscribing was refused: {}", frame.err);
            return Ok(thin);
        }
    }
}

/// Reads, stops, reads again.
async fn watch(mut thin: Thin, args: &StallArgs, epoch: Epoch, start: Instant) -> Seen {
    let scratch = Scratch::default();
    let mut watch = Watch { seen: Seen::default(), ages: latency(), since: None, fresh_ms: args.fresh };
    let seconds = Duration::from_secs_f64;
    let (stops, resumes) = (start + seconds(args.before), start + seconds(args.before + args.stop));
    read_until(&mut thin, &scratch, &mut watch, epoch, stops).await;
    if watch.seen.ended.is_none() {
        sleep_until(resumes).await;
        watch.since = Some((epoch.now(), thin.received()));
        read_until(&mut thin, &scratch, &mut watch, epoch, resumes + seconds(args.after)).await;
    }
    watch.seen.ages = Quantiles::from(&watch.ages);
    watch.seen
}

async fn read_until(thin: &mut Thin, scratch: &Scratch, watch: &mut Watch, epoch: Epoch, until: Instant) {
    loop {
        match timeout_at(until, thin.receive(scratch, |text| watch.take(&text, epoch.now()))).await {
            Ok(Ok(())) => {}
            Ok(Err(ending)) => {
                watch.seen.ended = Some(ending.to_string());
                return;
            }
            Err(_elapsed) => return,
        }
        // A socket that always has bytes would never let the bound be looked at.
        if Instant::now() >= until {
            return;
        }
    }
}

impl StallReport {
    /// The report as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{:>7}{:>14}{:>16}{:>14}{:>14}{:>12}{:>12}{:>12}{:>10}",
            "reader",
            "first ms",
            "until fresh ms",
            "stale bytes",
            "stale values",
            "age p50",
            "age p99",
            "age last",
            "merged"
        );
        for (number, seen) in self.readers.iter().enumerate() {
            let or_never = |ms: Option<f64>| ms.map_or("never".to_owned(), |ms| format!("{ms:.1}"));
            let _ = writeln!(
                out,
                "{number:>7}{:>14}{:>16}{:>14}{:>14}{:>12.1}{:>12.1}{:>12.1}{:>10}  {}",
                or_never(seen.first_ms),
                or_never(seen.until_fresh_ms),
                seen.stale_bytes,
                seen.stale_values,
                seen.ages.p50_ms,
                seen.ages.p99_ms,
                seen.last_ms,
                seen.merged,
                seen.ended.as_deref().unwrap_or_default()
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(watch: &mut Watch, at: u64, t: u64, now: u64) {
        let text = format!(r#"{{"tag":"a","id":"1","prev":"","merged":2,"payload":{{"n":1,"t":{t},"pad":""}}}}"#);
        watch.take(&Text { at, bytes: text.as_bytes() }, now);
    }

    #[test]
    fn what_is_stale_counts_up_to_the_first_fresh_value() {
        let mut watch = Watch { seen: Seen::default(), ages: latency(), since: None, fresh_ms: 250.0 };
        take(&mut watch, 0, 0, 5_000_000);
        assert_eq!(watch.seen.first_ms, None, "before the stop nothing counts");
        watch.since = Some((10_000_000, 1000));
        take(&mut watch, 1000, 5_000_000, 10_001_000);
        take(&mut watch, 1200, 6_000_000, 10_002_000);
        take(&mut watch, 1400, 9_900_000, 10_003_000);
        take(&mut watch, 1600, 1_000_000, 10_004_000);
        let Seen { first_ms, until_fresh_ms, stale_bytes, stale_values, merged, .. } = watch.seen;
        assert_eq!((first_ms, until_fresh_ms), (Some(5001.0), Some(3.0)));
        assert_eq!((stale_bytes, stale_values, merged), (400, 2, 8));
    }
}
