//! The processes of one turn: Redis, perhaps its replica, and the nodes. All end with this value.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::{AcrossArgs, Queue};
use crate::{
    machine,
    node::{Node, NodeArgs, Seat},
    procfs,
    target::TAG_PREFIX,
};

/// How long Redis may take until it answers, and an answer until it is whole.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer of Redis that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// See the module. Fields are dropped in this order: the nodes go before their queue.
#[derive(Debug)]
pub struct Cluster {
    /// Which queue it has.
    pub queue: Queue,
    /// Takes the pushes.
    pub taking: Node,
    /// Has the subscribers; none: the same one.
    pub holding: Option<Node>,
    /// Its replica goes first.
    _replica: Option<Redis>,
    redis: Option<Redis>,
}

/// CPU microseconds of everything until now, and what Redis has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// The core of the node that takes the pushes, and all else of it.
    pub taking: (f64, f64),
    /// The same of the node with the subscribers.
    pub holding: (f64, f64),
    /// Redis.
    pub redis: f64,
    /// Appends, and the time in their script.
    pub appends: f64,
    /// See above.
    pub script: f64,
}

impl Cluster {
    /// Starts all and waits until they are ready.
    pub async fn start(queue: Queue, args: &AcrossArgs) -> Result<Self> {
        let binary = args.node.node.as_deref().context("--node")?;
        let of = |cpu| NodeArgs { cpu: None, node_cpu: cpu, ..args.node.without_bounds() };
        let (first, other) = (of(args.node.node_cpu), of(args.other_cpu.or(args.node.node_cpu)));
        let rule = format!("[[tags]]\nmatch = \"{TAG_PREFIX}*\"\nclass = \"lossless\"\n");
        let seat = |number, queue: &[&str]| Seat {
            number,
            flags: queue.iter().map(|flag| (*flag).to_owned()).chain(args.flags.iter().cloned()).collect(),
        };
        if queue == Queue::Memory {
            let taking = Node::start(binary, &first, &rule, &seat(1, &["--queue", "memory"])).await?;
            return Ok(Self { queue, taking, holding: None, _replica: None, redis: None });
        }
        let redis = Redis::start(args, None).await?;
        let replica = match queue {
            Queue::Replica => Some(Redis::start(args, Some(redis.address)).await?),
            _ => None,
        };
        let url = format!("redis://{}/0", redis.address);
        let ack = if queue == Queue::Replica { "replica" } else { "log" };
        let flags = ["--queue", "redis", "--redis_url", &url, "--ack", ack];
        let taking = Node::start(binary, &first, &rule, &seat(1, &flags)).await?;
        let holding = Some(Node::start(binary, &other, &rule, &seat(2, &flags)).await?);
        Ok(Self { queue, taking, holding, _replica: replica, redis: Some(redis) })
    }

    /// See [`Clocks`].
    pub fn clocks(&self) -> Result<Clocks> {
        let of = |node: &Node| -> Result<(f64, f64)> {
            let cpu = node.cpu()?;
            Ok((cpu.cores as f64 / 1e3, (cpu.process - cpu.cores) as f64 / 1e3))
        };
        let mut clocks = Clocks { taking: of(&self.taking)?, ..Clocks::default() };
        if let Some(holding) = &self.holding {
            clocks.holding = of(holding)?;
        }
        if let Some(redis) = &self.redis {
            clocks.redis = procfs::cpu_ns(redis.child.id())?.process as f64 / 1e3;
            (clocks.appends, clocks.script) = scripts(&redis.ask("INFO commandstats")?);
        }
        Ok(clocks)
    }
}

/// A Redis that is started for a turn and keeps nothing.
#[derive(Debug)]
struct Redis {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Redis {
    async fn start(args: &AcrossArgs, master: Option<SocketAddr>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("loadtest-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).context("a folder for Redis")?;
        // Closed again before Redis opens it; nobody else is asked for this port meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = machine::on_cpu(&args.redis_server, args.redis_cpu.or(args.node.node_cpu));
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--client-output-buffer-limit", "pubsub 256mb 64mb 60", "--repl-diskless-sync-delay", "0"]);
        command.arg("--dir").arg(&folder);
        if let Some(master) = master {
            command.arg("--replicaof").arg(master.ip().to_string()).arg(master.port().to_string());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.with_context(|| format!("starting {}", args.redis_server.display()))?;
        let mut redis = Self { child, address, folder };
        let until = Instant::now() + START_TIMEOUT;
        // A replica answers before it has joined its master.
        let ready =
            |answer: String| answer.contains(if master.is_some() { "master_link_status:up" } else { "role:master" });
        while !redis.ask("INFO replication").is_ok_and(ready) {
            if let Some(status) = redis.child.try_wait()? {
                bail!("Redis ended ({status})");
            }
            ensure!(Instant::now() < until, "Redis does not answer after {START_TIMEOUT:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(redis)
    }

    /// Asks for a text over a connection of its own.
    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).context("connecting to Redis")?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX as u64).read_to_string(&mut answer).context("the answer of Redis")?;
        Ok(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; nothing of it is kept in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How often EVALSHA was called, and how many microseconds it took.
fn scripts(commandstats: &str) -> (f64, f64) {
    let line = commandstats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
    let value = |name: &str| {
        let text = line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    (value("calls"), value("usec"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_read_from_what_redis_counts() {
        let text = "# Commandstats\r\ncmdstat_eval:calls=1,usec=2\r\ncmdstat_evalsha:calls=40,usec=900,usec_per_call=22.50\r\n";
        assert_eq!(scripts(text), (40.0, 900.0));
        assert_eq!(scripts(""), (0.0, 0.0));
    }
}
