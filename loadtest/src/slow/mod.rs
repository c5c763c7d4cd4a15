//! `loadtest slow`: what connections that stop reading cost the others, and what they see when they read again.
//!
//! Method: live subscribers of many tags first alone, then beside as many that stop reading right after they subscribed; one
//! back-end publishes at a steady rate all the time, on a timetable that waits for nobody. At the end the stalled ones read
//! again, a few at a time, until everybody has the last value. Before a reader goes on, the kernel's tables say how many
//! bytes stand between the node and it: what the node writes from then on is told apart from what is old by nature.
//! Invariant: everything is bounded in time and count, and every frame of every reader is checked.

mod phases;
mod reader;
mod report;
mod view;

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::{Instant, interval, sleep},
};

pub use self::{phases::PhaseReport, report::SlowReport};
use self::{
    phases::{Phase, Sample},
    reader::{Reader, Shared},
};
use crate::{
    clock::{Epoch, unix_now},
    machine,
    node::{Metrics, Node, NodeArgs},
    procfs::TcpQueues,
    pulse::{Fed, Ledger, Pulse, Source},
    thin::{Scratch, Thin},
};

/// A process holds about so many sockets.
const READERS_MAX: usize = 19_000;
/// How often a stalled reader shows that it lives. It cannot see a ping, and a node closes who is silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Stalled readers that show it, or read again, together.
const GROUP: usize = 40;

/// Stalled and live subscribers of many tags; memory, latency, and how current a resumed reader is.
#[derive(Args, Clone, Debug)]
pub struct SlowArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Subscribers that stop reading
    #[arg(long, default_value_t = 2000)]
    pub stalled: usize,
    /// Subscribers that read
    #[arg(long, default_value_t = 2000)]
    pub live: usize,
    /// Tags, named `<prefix><number>`
    #[arg(long, default_value_t = 100)]
    pub tags: usize,
    /// What the tags begin with; a node that is started here has a rule for it
    #[arg(long, default_value = "slow.")]
    pub prefix: String,
    /// Delivery class of that rule
    #[arg(long, default_value = "latest")]
    pub class: String,
    /// Tags of each subscriber
    #[arg(long, default_value_t = 1)]
    pub tags_each: usize,
    /// Publications a second, all tags together
    #[arg(long, default_value_t = 2000.0)]
    pub rate: f64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// One publication of so many of a tag is marked keep; 0: none
    #[arg(long, default_value_t = 50)]
    pub keep_every: usize,
    /// Length of each of the two measured phases, in seconds
    #[arg(long, default_value_t = 30.0)]
    pub seconds: f64,
    /// Publishing before the first phase, in seconds: until what the node keeps of the past (the embedded queue's rest) is full
    /// and its memory level
    #[arg(long, default_value_t = 100.0)]
    pub warmup: f64,
    /// From the last stalled subscription to the second phase, in seconds: until their buffers are full
    #[arg(long, default_value_t = 10.0)]
    pub settle: f64,
    /// SO_RCVBUF of the stalled ones (the kernel doubles it); 0 leaves it to the kernel
    #[arg(long, default_value_t = 4096)]
    pub receive_buffer: u32,
    /// Over so many seconds the stalled ones begin to read again
    #[arg(long, default_value_t = 4.0)]
    pub resume_over: f64,
    /// Publishing goes on for so long after the last of them
    #[arg(long, default_value_t = 3.0)]
    pub tail: f64,
    /// The age of the first value behind at most so many bytes of backlog is reported too
    #[arg(long, default_value_t = 65_536)]
    pub backlog: u64,
    /// Longest wait for the last values, in seconds
    #[arg(long, default_value_t = 15.0)]
    pub drain: f64,
    /// Fail also when a figure misses what it is held to, not only when something is wrong
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// A subscriber that does not read.
struct Stalled {
    thin: Option<Thin>,
    port: u16,
    reader: Rc<RefCell<Reader>>,
}

/// Everything that a run leaves behind, for the report.
struct Outcome {
    shared: Rc<Shared>,
    live: Vec<Rc<RefCell<Reader>>>,
    stalled: Vec<Rc<RefCell<Reader>>>,
    fed: Fed,
    metrics: Metrics,
}

/// Runs the scenario inside a `LocalSet`. An error when it could not be run; what it found is in the report.
pub async fn slow(args: &SlowArgs) -> Result<SlowReport> {
    check(args)?;
    machine::allow_files((args.stalled + args.live + 100) as u64)?;
    let rule = format!("[[tags]]\nmatch = \"{}*\"\nclass = \"{}\"\n", args.prefix, args.class);
    let node = Node::get(&args.node, &rule).await?;
    let run = Run { args, shared: Rc::new(shared(args)), node };

    let live = run.connect_live().await?;
    let (stop, stopped) = watch::channel(false);
    let feed = run.start_feed(stopped).await?;
    let readers: Vec<_> = live.iter().map(|(_, reader)| Rc::clone(reader)).collect();
    let mut tasks = Tasks(Vec::new());
    for (thin, reader) in live {
        tasks.0.push(spawn_local(reader::read(thin, reader, Rc::clone(&run.shared))));
    }
    seconds(args.warmup).await;
    run.measure("live only").await?;
    let stalled = Rc::new(RefCell::new(run.connect_stalled().await?));
    tasks.0.push(spawn_local(show_life(Rc::clone(&stalled))));
    seconds(args.settle).await;
    run.measure("with stalled").await?;
    let metrics = run.node.metrics().await?;
    run.resume(&stalled, &mut tasks).await?;
    seconds(args.tail).await;
    stop.send_replace(true);
    let fed = feed.await.context("the publisher panicked")??;
    let stalled: Vec<_> = stalled.borrow().iter().map(|one| Rc::clone(&one.reader)).collect();
    run.drain(readers.iter().chain(&stalled)).await;
    Ok(report::make(args, Outcome { shared: run.shared, live: readers, stalled, fed, metrics }))
}

fn check(args: &SlowArgs) -> Result<()> {
    ensure!(args.rate.is_finite() && args.rate > 0.0, "--rate must be above 0");
    ensure!(
        args.tags > 0 && (1..=args.tags.min(256)).contains(&args.tags_each),
        "--tags-each: 1 to --tags, at most 256"
    );
    ensure!(args.live > 0, "--live must be above 0");
    ensure!(args.stalled + args.live <= READERS_MAX, "more than {READERS_MAX} subscribers");
    let times = [args.seconds, args.warmup, args.settle, args.resume_over, args.tail, args.drain];
    ensure!(times.iter().all(|time| (0.0..=3600.0).contains(time)), "times are 0 to 3600 seconds");
    ensure!(args.seconds >= 1.0, "--seconds must be 1 at least");
    Ok(())
}

fn shared(args: &SlowArgs) -> Shared {
    let pulse = Pulse {
        prefix: args.prefix.clone(),
        tags: args.tags,
        rate: args.rate,
        keep_every: args.keep_every,
        payload_bytes: args.payload,
    };
    Shared {
        pulse: Rc::new(pulse),
        ledger: Rc::new(RefCell::new(Ledger::new(args.tags))),
        epoch: Epoch::begin(),
        scratch: Scratch::default(),
        phases: RefCell::default(),
        findings: RefCell::default(),
        backlog_bytes_given: args.backlog,
    }
}

async fn seconds(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

/// Readers' tasks; they end with the value.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

struct Run<'a> {
    args: &'a SlowArgs,
    shared: Rc<Shared>,
    node: Node,
}

impl Run<'_> {
    async fn connect_live(&self) -> Result<Vec<(Thin, Rc<RefCell<Reader>>)>> {
        let mut all = Vec::with_capacity(self.args.live);
        for number in 0..self.args.live {
            all.push(self.subscribe("live", number, true, 0).await?);
        }
        Ok(all)
    }

    async fn connect_stalled(&self) -> Result<Vec<Stalled>> {
        let mut all = Vec::with_capacity(self.args.stalled);
        for number in 0..self.args.stalled {
            let (thin, reader) = self.subscribe("stalled", number, false, self.args.receive_buffer).await?;
            all.push(Stalled { port: thin.local_port()?, thin: Some(thin), reader });
        }
        Ok(all)
    }

    /// A subscriber of its tags, read up to the answer to its subscription.
    async fn subscribe(
        &self,
        what: &str,
        number: usize,
        is_live: bool,
        receive_buffer: u32,
    ) -> Result<(Thin, Rc<RefCell<Reader>>)> {
        let uid = format!("{what}-{}-{number}", std::process::id());
        let target = self.node.credentials.connect_target(1, &uid, unix_now());
        let thin = Thin::open(&self.node.ws, &target, receive_buffer).await;
        let mut thin = thin.with_context(|| format!("{what} subscriber {number}"))?;
        let (args, pulse) = (self.args, &self.shared.pulse);
        let tags = (0..args.tags_each).map(|nth| (number * args.tags_each + nth) % args.tags);
        let names: Vec<String> = tags.clone().map(|tag| pulse.tag(tag)).collect();
        let reader = Reader::new(tags, is_live);
        let command = serde_json::json!({"type": "subscribe", "ack_id": "subscribe", "tags": names});
        thin.send_texts(&[command.to_string()]).await?;
        loop {
            let text =
                thin.next_text(&self.shared.scratch).await.with_context(|| format!("{what} subscriber {number}"))?;
            let text = crate::thin::Text { at: 0, bytes: text.as_bytes() };
            let frame = text.frame()?;
            if frame.ack_id == "subscribe" {
                ensure!(frame.code == Some(1), "subscribing was refused: {}", frame.err);
                return Ok((thin, reader));
            }
            reader.borrow_mut().take(&text, &self.shared);
        }
    }

    async fn start_feed(&self, stopped: watch::Receiver<bool>) -> Result<JoinHandle<Result<Fed>>> {
        let uid = format!("slow-backend-{}", std::process::id());
        let target = self.node.credentials.connect_target(2, &uid, unix_now());
        let thin = Thin::open(&self.node.ws, &target, 0).await.context("connecting as a back-end")?;
        let (pulse, ledger) = (Rc::clone(&self.shared.pulse), Rc::clone(&self.shared.ledger));
        let start = Instant::now() + Duration::from_millis(100);
        Ok(spawn_local(Source::new(thin, pulse, ledger, self.shared.epoch, start).run(stopped)))
    }

    /// Measures a phase from now on.
    async fn measure(&self, name: &'static str) -> Result<()> {
        let (start, from) = (Instant::now(), self.shared.epoch.now());
        let at = {
            let mut phases = self.shared.phases.borrow_mut();
            phases.push(Phase::begin(name, from, self.node.cpu()?.cores));
            phases.len() - 1
        };
        let mut each = interval(Duration::from_secs(1));
        while start.elapsed().as_secs_f64() < self.args.seconds {
            each.tick().await;
            let outbox = self.node.metrics().await?.sum("ws_outbox_bytes", "") as u64;
            let sample =
                Sample { second: start.elapsed().as_secs_f64(), resident: self.node.resident_bytes()?, outbox };
            self.shared.phases.borrow_mut()[at].samples.push(sample);
        }
        self.shared.phases.borrow_mut()[at].end(self.shared.epoch.now(), self.node.cpu()?.cores);
        Ok(())
    }

    /// The stalled ones read again, a group at a time.
    async fn resume(&self, stalled: &RefCell<Vec<Stalled>>, tasks: &mut Tasks) -> Result<()> {
        let count = stalled.borrow().len();
        let groups = count.div_ceil(GROUP).max(1);
        let mut each = interval(Duration::from_secs_f64((self.args.resume_over / groups as f64).max(0.001)));
        let node_port = self.node.ws_port()?;
        for group in 0..groups {
            each.tick().await;
            let queues = TcpQueues::read()?;
            let at = self.shared.epoch.now();
            for one in stalled.borrow_mut()[group * GROUP..].iter_mut().take(GROUP) {
                let Some(thin) = one.thin.take() else { continue };
                let backlog = queues.backlog(node_port, one.port);
                one.reader.borrow_mut().resume(at, thin.received(), backlog);
                tasks.0.push(spawn_local(reader::read(thin, Rc::clone(&one.reader), Rc::clone(&self.shared))));
            }
        }
        Ok(())
    }

    /// Waits until everybody has the last values, within bounds.
    async fn drain<'a>(&self, readers: impl Iterator<Item = &'a Rc<RefCell<Reader>>> + Clone) {
        let until = Instant::now() + Duration::from_secs_f64(self.args.drain);
        let is_done = |reader: &Rc<RefCell<Reader>>| reader.borrow().is_done(&self.shared.ledger.borrow());
        while Instant::now() < until && !readers.clone().all(is_done) {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Keeps the stalled ones from being taken for dead, a group at a time, for as long as it is polled.
async fn show_life(stalled: Rc<RefCell<Vec<Stalled>>>) {
    let groups = stalled.borrow().len().div_ceil(GROUP).max(1);
    let mut each = interval(SIGN_OF_LIFE / u32::try_from(groups).unwrap_or(u32::MAX));
    for group in (0..groups).cycle() {
        each.tick().await;
        for one in stalled.borrow()[group * GROUP..].iter().take(GROUP) {
            if let Some(thin) = &one.thin {
                thin.sign_of_life();
            }
        }
    }
}
