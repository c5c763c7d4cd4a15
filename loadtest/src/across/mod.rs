//! `loadtest across`: publications from one node to another over Redis, beside one node with its embedded queue.
//!
//! Method: one node takes the pushes of several back-ends, another has the subscribers; both hear everything over a Redis that
//! is started for the turn. Publications leave on a timetable that does not wait, one tag after the other, and count from their
//! intended time. Queues take turns over several rounds, each with processes of its own; what Redis and the two hops add is the
//! difference of a round's neighbours. Every subscriber checks that each number comes once and in order.

mod cluster;
mod pump;
mod report;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

pub use self::report::AcrossReport;
use self::{cluster::Cluster, pump::pump, report::Turn};
use crate::{machine, node::NodeArgs};

const RATE_MAX: f64 = 1_000_000.0;
const TAGS_MAX: usize = 10_000;

/// What carries the publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Queue {
    /// One node with its embedded queue: takes the pushes and has the subscribers
    Memory,
    /// Two nodes over one Redis
    Redis,
    /// The same; a push is answered when a replica has it too
    Replica,
}

impl Queue {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Replica => "replica",
        }
    }
}

/// Publications from one node to another.
#[derive(Args, Clone, Debug)]
pub struct AcrossArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Queues that take turns; what the others add is counted from the first
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Queue::Memory, Queue::Redis])]
    pub queues: Vec<Queue>,
    /// Program of Redis
    #[arg(long, default_value = "redis-server", value_name = "PATH")]
    pub redis_server: PathBuf,
    /// CPU that Redis is bound to; that of the nodes, if it is not given
    #[arg(long)]
    pub redis_cpu: Option<usize>,
    /// CPU that the node with the subscribers is bound to; that of the other node, if it is not given
    #[arg(long)]
    pub other_cpu: Option<usize>,
    /// More of the nodes' command lines, `--name=value`; may be given again
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub flags: Vec<String>,
    /// Publications a second
    #[arg(long, default_value_t = 20_000.0)]
    pub rate: f64,
    /// Tags, which take turns
    #[arg(long, default_value_t = 200)]
    pub tags: usize,
    /// Subscribers of each tag
    #[arg(long, default_value_t = 1)]
    pub subscribers: usize,
    /// Back-end connections; each has some of the tags
    #[arg(long, default_value_t = 8)]
    pub publishers: usize,
    /// Milliseconds between two writes of a back-end, which sends what has become due; 0: each publication at once
    #[arg(long, default_value_t = 1.0)]
    pub every: f64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// Measured seconds of a turn
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds before that, when buffers grow
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// How often each queue has its turn
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// The harness never sleeps, so that nobody has to wake it
    #[arg(long)]
    pub spin: bool,
    /// Fail also when a figure misses what it is held to, or the harness was late
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

impl AcrossArgs {
    fn check(&self) -> Result<()> {
        ensure!(self.node.node.is_some(), "--node is needed: the nodes are started for the run");
        ensure!(!self.queues.is_empty() && (1..=100).contains(&self.rounds), "--queues and --rounds must be given");
        ensure!(self.rate > 0.0 && self.rate <= RATE_MAX, "--rate: above 0, at most {RATE_MAX}");
        ensure!(
            (1..=TAGS_MAX).contains(&self.tags) && self.subscribers > 0,
            "--tags: 1 to {TAGS_MAX}, --subscribers: 1"
        );
        ensure!((1..=self.tags).contains(&self.publishers), "--publishers: 1 to the number of tags");
        ensure!(self.seconds > 0.0 && self.seconds <= 600.0, "--seconds: above 0, at most 600");
        ensure!((0.0..=1000.0).contains(&self.every), "--every: 0 to 1000");
        ensure!((0.0..=600.0).contains(&self.warmup), "--warmup: 0 to 600");
        Ok(())
    }
}

/// Runs all turns.
pub async fn across(args: &AcrossArgs) -> Result<AcrossReport> {
    args.check()?;
    machine::allow_files((args.tags * args.subscribers + args.publishers) as u64 + 200)?;
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); args.queues.len()];
    for round in 0..args.rounds {
        // Each round begins with another one, so that none always comes after a rest.
        for turn in 0..args.queues.len() {
            let at = (round + turn) % args.queues.len();
            let queue = args.queues[at];
            turns[at].push(once(queue, args).await.with_context(|| format!("{}, round {round}", queue.name()))?);
        }
    }
    Ok(AcrossReport::new(args, turns))
}

async fn once(queue: Queue, args: &AcrossArgs) -> Result<Turn> {
    let cluster = Cluster::start(queue, args).await?;
    let (args, stopped) = (args.clone(), Arc::new(AtomicBool::new(false)));
    let _stop = StopOnDrop(Arc::clone(&stopped));
    let driving = tokio::task::spawn_blocking(move || {
        // Only this thread: what is started for the next turn must not inherit it.
        args.node.cpu.map_or(Ok(()), machine::bind_to_cpu)?;
        pump(&cluster, &args, &stopped)
    });
    driving.await.context("the run panicked")?
}

/// Ends a run whose caller is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
