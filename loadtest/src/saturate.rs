//! `loadtest saturate`: what a delivery costs the node when publications come one at a time, and when they wait.
//!
//! Method: all subscribers follow one lossless tag. A window of publications is outstanding, which means not yet received by
//! every subscriber: with a window of 1 each publication is written alone, with a larger one what waits for a socket can
//! leave together. Windows take turns over several rounds in one run against one node, so that what the machine does
//! besides touches all alike; figures are per second of the node's CPU time, which the load's own speed does not bend.
//! Every frame is counted, and one in so many is read in full.

use std::{cell::RefCell, collections::VecDeque, fmt::Write as _, rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    clock::unix_now,
    findings::Findings,
    machine,
    node::{Node, NodeArgs},
    pulse::Beat,
    stats::Spread,
    thin::{Scratch, Text, Thin},
};

/// One frame in so many is read in full.
const READ_EVERY: u64 = 61;
/// Longest wait for what is outstanding.
const PATIENCE: Duration = Duration::from_secs(20);
const TAG: &str = "saturate.x";
/// Deliveries a second of CPU time with publications waiting are held to so many times the rate of single ones.
const RATIO_MIN: f64 = 6.0;

/// Deliveries a second of CPU time: publications one at a time against publications that wait.
#[derive(Args, Clone, Debug)]
pub struct SaturateArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Subscribers, each to the one tag
    #[arg(long, default_value_t = 500)]
    pub subscribers: usize,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// Publications outstanding, with commas; the ratio is that of the last to the first
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    pub windows: Vec<usize>,
    /// Seconds of each window in each round
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Fail also when the ratio misses what it is held to
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct SaturateReport {
    /// Whether nothing was wrong, and with `--strict` the ratio is what it is held to.
    pub ok: bool,
    /// Subscribers.
    pub subscribers: usize,
    /// Bytes of a payload.
    pub payload: usize,
    /// By window.
    pub windows: Vec<WindowReport>,
    /// Deliveries a second of the process's CPU time, last window over first, round by round.
    pub ratio: Spread,
    /// What was wrong.
    pub findings: Findings,
}

/// One window, over all rounds.
#[derive(Debug, Serialize)]
pub struct WindowReport {
    /// Publications outstanding.
    pub window: usize,
    /// Deliveries a second of CPU time of the whole process.
    pub per_cpu_second: Spread,
    /// Deliveries a second of CPU time of the core's thread alone.
    pub per_core_second: Spread,
    /// Deliveries a second of wall time.
    pub per_second: Spread,
    /// Microseconds of the process's CPU time a delivery.
    pub cpu_micros: Spread,
    /// Frames of one write, by the node's own counters.
    pub frames_per_write: Spread,
}

/// One block of one window.
#[derive(Clone, Copy, Debug)]
struct Block {
    deliveries: f64,
    wall: f64,
    process: f64,
    cores: f64,
    frames_per_write: f64,
}

/// Who has received what.
struct Tally {
    subscribers: usize,
    /// Publications that everybody has.
    complete: u64,
    /// Receivers of the publications behind that, in order.
    partly: VecDeque<usize>,
    findings: Findings,
    ended: bool,
}

impl Tally {
    fn sent(&mut self) {
        self.partly.push_back(0);
    }

    /// One more subscriber has the publication of this number; whether more are complete now.
    fn came(&mut self, number: u64) -> bool {
        let place = number.checked_sub(self.complete).and_then(|place| usize::try_from(place).ok());
        let Some(receivers) = place.and_then(|place| self.partly.get_mut(place)) else {
            self.findings.add("more_than_sent", format_args!("number {number}"));
            return false;
        };
        *receivers += 1;
        let before = self.complete;
        while self.partly.front() == Some(&self.subscribers) {
            self.partly.pop_front();
            self.complete += 1;
        }
        self.complete > before
    }
}

struct Shared {
    tally: RefCell<Tally>,
    progress: Notify,
    scratch: Scratch,
}

/// Runs the scenario inside a `LocalSet`.
pub async fn saturate(args: &SaturateArgs) -> Result<SaturateReport> {
    ensure!(args.subscribers > 0 && args.subscribers <= 19_000, "--subscribers: 1 to 19000");
    ensure!(
        !args.windows.is_empty() && args.windows.iter().all(|window| (1..=4096).contains(window)),
        "--windows: 1 to 4096"
    );
    ensure!(args.seconds > 0.0 && args.seconds <= 600.0 && args.rounds > 0, "--seconds and --rounds must be above 0");
    machine::allow_files(args.subscribers as u64 + 100)?;
    let node = Node::get(&args.node, "[[tags]]\nmatch = \"saturate.*\"\nclass = \"lossless\"\n").await?;
    let tally = Tally {
        subscribers: args.subscribers,
        complete: 0,
        partly: VecDeque::new(),
        findings: Findings::default(),
        ended: false,
    };
    let shared = Rc::new(Shared { tally: RefCell::new(tally), progress: Notify::new(), scratch: Scratch::default() });
    let mut tasks = JoinSet::new();
    for number in 0..args.subscribers {
        let thin = subscribe(&node, number, &shared.scratch).await.with_context(|| format!("subscriber {number}"))?;
        tasks.spawn_local(read(thin, Rc::clone(&shared)));
    }
    let target = node.credentials.connect_target(2, "saturate-backend", unix_now());
    let mut publisher = Publisher {
        thin: Thin::open(&node.ws, &target, 0).await.context("connecting as a back-end")?,
        pad: "x".repeat(args.payload.saturating_sub(r#"{"n":123456,"t":0,"pad":""}"#.len())),
        sent: 0,
        shared: Rc::clone(&shared),
        scratch: Scratch::default(),
    };
    // Unmeasured: buffers grow, the tag's ring fills.
    publisher.publish(args.windows[0], Duration::from_millis(500)).await?;
    let mut blocks: Vec<Vec<Block>> = vec![Vec::new(); args.windows.len()];
    for _ in 0..args.rounds {
        for (window, blocks) in args.windows.iter().zip(&mut blocks) {
            blocks.push(block(&node, &mut publisher, *window, args).await?);
        }
    }
    let findings = shared.tally.borrow().findings.clone();
    Ok(report(args, &blocks, findings))
}

async fn subscribe(node: &Node, number: usize, scratch: &Scratch) -> Result<Thin> {
    let uid = format!("saturate-{}-{number}", std::process::id());
    let mut thin = Thin::open(&node.ws, &node.credentials.connect_target(1, &uid, unix_now()), 0).await?;
    thin.send_texts(&[format!(r#"{{"type":"subscribe","ack_id":"s","tags":["{TAG}"]}}"#)]).await?;
    let answer = thin.next_text(scratch).await?;
    let frame = crate::client::Frame::parse(&answer)?;
    ensure!(frame.ack_id == "s" && frame.code == Some(1), "subscribing was answered with {answer}");
    Ok(thin)
}

async fn read(mut thin: Thin, shared: Rc<Shared>) {
    let mut own = 0;
    loop {
        let taken = thin.receive(&shared.scratch, |text| {
            let mut tally = shared.tally.borrow_mut();
            if own % READ_EVERY == 0 && !is_number(&text, own) {
                tally
                    .findings
                    .add("not_the_next", format_args!("number {own} is {}", String::from_utf8_lossy(text.bytes)));
            }
            if tally.came(own) {
                shared.progress.notify_one();
            }
            own += 1;
        });
        if let Err(ending) = taken.await {
            let mut tally = shared.tally.borrow_mut();
            tally.findings.add("connection_ended", format_args!("after {own} frames: {ending}"));
            tally.ended = true;
            shared.progress.notify_one();
            return;
        }
    }
}

fn is_number(text: &Text<'_>, number: u64) -> bool {
    let beat = |payload: &serde_json::value::RawValue| serde_json::from_str::<Beat>(payload.get()).ok();
    let frame = text.frame().ok();
    let beat = frame.as_ref().filter(|frame| frame.tag == TAG).and_then(|frame| frame.payload.and_then(beat));
    beat.is_some_and(|beat| beat.n as u64 == number)
}

struct Publisher {
    thin: Thin,
    pad: String,
    sent: u64,
    shared: Rc<Shared>,
    scratch: Scratch,
}

impl Publisher {
    /// Keeps `window` publications outstanding for so long, then waits until everybody has the last.
    async fn publish(&mut self, window: usize, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.fill(window).await?;
            self.progress().await?;
        }
        while !self.shared.tally.borrow().partly.is_empty() {
            self.progress().await?;
        }
        Ok(())
    }

    async fn fill(&mut self, window: usize) -> Result<()> {
        let mut texts = Vec::new();
        {
            let mut tally = self.shared.tally.borrow_mut();
            while tally.partly.len() < window {
                let (number, pad) = (self.sent, &self.pad);
                texts.push(format!(
                    r#"{{"type":"push","ack_id":"{number}","to":{{"tags":["{TAG}"]}},"payload":{{"n":{number},"t":0,"pad":"{pad}"}}}}"#
                ));
                tally.sent();
                self.sent += 1;
            }
        }
        if texts.is_empty() { Ok(()) } else { self.thin.send_texts(&texts).await }
    }

    /// Waits until more publications are complete; reads the answers meanwhile.
    async fn progress(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut refused = None;
            let ended = tokio::select! {
                () = self.shared.progress.notified() => true,
                read = self.thin.receive(&self.scratch, |text| refused = refused.take().or_else(|| refusal(&text))) => {
                    read.context("the publisher")?;
                    false
                }
                () = tokio::time::sleep_until(until) => anyhow::bail!("no publication was received by all in {PATIENCE:?}"),
            };
            if let Some(refused) = refused {
                anyhow::bail!("a publication was not accepted: {refused}");
            }
            ensure!(!self.shared.tally.borrow().ended, "{}", self.shared.tally.borrow().findings);
            if ended {
                return Ok(());
            }
        }
    }
}

fn refusal(text: &Text<'_>) -> Option<String> {
    let frame = text.frame().ok()?;
    (!frame.ack_id.is_empty() && frame.code != Some(1)).then(|| frame.err.into_owned())
}

async fn block(node: &Node, publisher: &mut Publisher, window: usize, args: &SaturateArgs) -> Result<Block> {
    let metrics = timeout(PATIENCE, node.metrics()).await.context("no metrics in time")??;
    let (cpu, start, sent) = (node.cpu()?, Instant::now(), publisher.sent);
    publisher.publish(window, Duration::from_secs_f64(args.seconds)).await?;
    let (wall, used) = (start.elapsed().as_secs_f64(), node.cpu()?);
    let after = timeout(PATIENCE, node.metrics()).await.context("no metrics in time")??;
    let grown = |name, label| after.sum(name, label) - metrics.sum(name, label);
    Ok(Block {
        deliveries: (publisher.sent - sent) as f64 * args.subscribers as f64,
        wall,
        process: (used.process - cpu.process) as f64 / 1e9,
        cores: (used.cores - cpu.cores) as f64 / 1e9,
        frames_per_write: grown("ws_frames_total", r#"direction="out""#) / grown("ws_writes_total", "").max(1.0),
    })
}

fn report(args: &SaturateArgs, blocks: &[Vec<Block>], findings: Findings) -> SaturateReport {
    let spread = |blocks: &[Block], of: fn(&Block) -> f64| Spread::of(blocks.iter().map(of));
    let windows = args.windows.iter().zip(blocks).map(|(window, blocks)| WindowReport {
        window: *window,
        per_cpu_second: spread(blocks, |block| block.deliveries / block.process),
        per_core_second: spread(blocks, |block| block.deliveries / block.cores),
        per_second: spread(blocks, |block| block.deliveries / block.wall),
        cpu_micros: spread(blocks, |block| block.process * 1e6 / block.deliveries),
        frames_per_write: spread(blocks, |block| block.frames_per_write),
    });
    let rate = |block: &Block| block.deliveries / block.process;
    let rounds = blocks.first().into_iter().flatten().zip(blocks.last().into_iter().flatten());
    let ratio = Spread::of(rounds.map(|(first, last)| rate(last) / rate(first)));
    let ok = findings.total() == 0 && (!args.strict || ratio.median >= RATIO_MIN);
    SaturateReport {
        ok,
        subscribers: args.subscribers,
        payload: args.payload,
        windows: windows.collect(),
        ratio,
        findings,
    }
}

impl SaturateReport {
    /// The report as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "saturate: {} subscribers of one lossless tag, {} B\n", self.subscribers, self.payload);
        let _ = writeln!(
            out,
            "{:>8}{:>30}{:>30}{:>24}{:>22}{:>26}",
            "window", "deliveries/CPU s", "deliveries/core s", "deliveries/s", "CPU µs/delivery", "frames/write"
        );
        for row in &self.windows {
            let rate = |s: &Spread| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max);
            let fine = |s: &Spread| format!("{:.2} ({:.2}-{:.2})", s.median, s.min, s.max);
            let _ = writeln!(
                out,
                "{:>8}{:>30}{:>30}{:>24}{:>22}{:>26}",
                row.window,
                rate(&row.per_cpu_second),
                rate(&row.per_core_second),
                rate(&row.per_second),
                fine(&row.cpu_micros),
                fine(&row.frames_per_write)
            );
        }
        let Spread { count, median, min, max } = self.ratio;
        let _ = writeln!(
            out,
            "\nlast window over first, deliveries a CPU second: {median:.2} ({min:.2} to {max:.2}, {count} rounds); held to {RATIO_MIN}: {}",
            if median >= RATIO_MIN { "yes" } else { "NO" }
        );
        let _ = write!(out, "\n{}", self.findings);
        let _ = writeln!(out, "\nresult: {}", if self.ok { "ok" } else { "FAILED" });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_complete_when_everybody_has_it() {
        let mut tally =
            Tally { subscribers: 2, complete: 0, partly: VecDeque::new(), findings: Findings::default(), ended: false };
        (0..3).for_each(|_| tally.sent());
        assert!(!tally.came(0) && !tally.came(1) && tally.came(0));
        assert_eq!((tally.complete, tally.partly.len()), (1, 2));
        assert!(tally.came(1) && !tally.came(2) && tally.came(2));
        assert_eq!((tally.complete, tally.partly.len()), (3, 0));
        assert!(!tally.came(3) && tally.findings.total() == 1, "nobody can have what was not sent");
    }
}
