//! The node under test: one that runs already, or one that is started for the run and ends with it.
//!
//! Invariant: a node that was started here is gone when its value is, and its folder with it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::{http::HttpClient, machine, procfs, sign::Credentials};

/// How long a node may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The project of a node that is started here, and its secret. It listens on loopback and dies with the run.
const PID: &str = "load";
const SECRET: &str = "a-secret-for-as-long-as-the-run-takes";

/// Which node is driven.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeArgs {
    /// Program of a node to start for this run: one core, embedded queue, loopback, no bound on connections of an address
    #[arg(long, value_name = "PATH")]
    pub node: Option<PathBuf>,
    /// A limit of the started node as its file has it, `key=value`; may be given again
    #[arg(long = "limit", value_name = "KEY=VALUE")]
    pub limits: Vec<String>,
    /// Driver of the started node
    #[arg(long, default_value = "auto")]
    pub driver: String,
    /// CPU that the started node is bound to (by taskset)
    #[arg(long)]
    pub node_cpu: Option<usize>,
    /// CPU that this program is bound to
    #[arg(long)]
    pub cpu: Option<usize>,
    /// WebSocket address of a node that runs already, in place of --node
    #[arg(long, default_value = "ws://127.0.0.1:8812")]
    pub ws: String,
    /// Metrics address of a node that runs already
    #[arg(long, default_value = "http://127.0.0.1:9091")]
    pub metrics: String,
    /// Process id of a node that runs already on this machine
    #[arg(long)]
    pub node_pid: Option<u32>,
    /// Project at a node that runs already
    #[arg(long, default_value = "1")]
    pub pid: String,
    /// Its secret
    #[arg(long, env = "LOADTEST_SECRET", hide_env_values = true, default_value = "")]
    pub secret: String,
}

impl NodeArgs {
    /// The same without bounds on what a run asks for: its own timetables bound that.
    pub fn without_bounds(&self) -> Self {
        let mut args = self.clone();
        for (key, value) in [
            ("accepts_per_second", "1000000"),
            ("backend_messages_per_second", "1000000"),
            ("messages_per_second", "100000"),
            ("messages_burst", "100000"),
        ] {
            if !args.limits.iter().any(|limit| limit.split('=').next() == Some(key)) {
                args.limits.push(format!("{key}={value}"));
            }
        }
        args
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// `host:port` of the WebSocket listener.
    pub ws: String,
    /// What its clients sign with.
    pub credentials: Credentials,
    /// Its process.
    pub process_id: u32,
    metrics: String,
    started: Option<Started>,
}

/// What a started node is of its cluster.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its number.
    pub number: u16,
    /// More of its command line: its queue, say.
    pub flags: Vec<String>,
}

impl Default for Seat {
    /// A node alone.
    fn default() -> Self {
        Self { number: 1, flags: vec!["--queue".to_owned(), "memory".to_owned()] }
    }
}

#[derive(Debug)]
struct Started {
    child: Child,
    folder: PathBuf,
}

impl Node {
    /// The node that `args` ask for, ready. `tags` are rules for one that is started here, as its file has them.
    pub async fn get(args: &NodeArgs, tags: &str) -> Result<Self> {
        if let Some(binary) = &args.node {
            let node = Self::start(binary, args, tags, &Seat::default()).await?;
            if let Some(cpu) = args.cpu {
                machine::bind_to_cpu(cpu)?;
            }
            return Ok(node);
        }
        if let Some(cpu) = args.cpu {
            machine::bind_to_cpu(cpu)?;
        }
        ensure!(!args.secret.is_empty(), "--secret is needed for a node that runs already (or start one with --node)");
        Ok(Self {
            ws: authority(&args.ws, "ws://")?,
            credentials: Credentials::new(&args.pid, &args.secret),
            process_id: args.node_pid.context("--node-pid is needed for a node that runs already")?,
            metrics: authority(&args.metrics, "http://")?,
            started: None,
        })
    }

    /// Starts a node and waits until it is ready.
    pub async fn start(binary: &Path, args: &NodeArgs, tags: &str, seat: &Seat) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("loadtest-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).context("a folder for the node")?;
        let file = folder.join("node.toml");
        fs::write(&file, config(&args.limits, tags)?).context("the node's file")?;
        let child = command(binary, args, seat, (&file, &folder))?.spawn();
        let child = child.with_context(|| format!("starting {}", binary.display()))?;
        let process_id = child.id();
        let mut node = Self {
            ws: String::new(),
            credentials: Credentials::new(PID, SECRET),
            process_id,
            metrics: String::new(),
            started: Some(Started { child, folder }),
        };
        let printed = node.ready().await?;
        node.ws = listening(&printed, "ws")?;
        node.metrics = listening(&printed, "metrics")?;
        Ok(node)
    }

    /// Waits for the line `ready`; all that was printed until then.
    async fn ready(&mut self) -> Result<String> {
        let Some(started) = &mut self.started else { return Ok(String::new()) };
        let log = started.folder.join("log");
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            let printed = fs::read_to_string(&log).unwrap_or_default();
            if printed.lines().any(|line| line == "ready") {
                return Ok(printed);
            }
            if let Some(status) = started.child.try_wait()? {
                bail!("the node ended ({status}):\n{printed}");
            }
            ensure!(Instant::now() < until, "the node is not ready after {READY_TIMEOUT:?}:\n{printed}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The port of its WebSocket listener.
    pub fn ws_port(&self) -> Result<u16> {
        self.ws.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).context("an address without a port")
    }

    /// Its metrics now.
    pub async fn metrics(&self) -> Result<Metrics> {
        let page = HttpClient::new(&self.metrics).get("/metrics").await.context("the node's metrics")?;
        ensure!(page.status == 200, "the node's metrics were answered with {}", page.status);
        Ok(Metrics(String::from_utf8(page.body).context("metrics that are no text")?))
    }

    /// Time on a CPU until now.
    pub fn cpu(&self) -> Result<procfs::CpuTime> {
        procfs::cpu_ns(self.process_id)
    }

    /// Resident bytes now.
    pub fn resident_bytes(&self) -> Result<u64> {
        procfs::resident_bytes(self.process_id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            // It may have ended by itself; nothing of it is kept in either case.
            let _ = started.child.kill();
            let _ = started.child.wait();
            let _ = fs::remove_dir_all(&started.folder);
        }
    }
}

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// The sum over all series of `name` that have `label` (`direction="out"`, or `""` for any).
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of_series = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        let values = self.0.lines().filter(of_series).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

/// `host:port` of a URL without a path.
pub fn authority(url: &str, scheme: &str) -> Result<String> {
    let rest = url.strip_prefix(scheme).with_context(|| format!("{url:?} does not begin with {scheme}"))?;
    let rest = rest.trim_end_matches('/');
    ensure!(rest.contains(':') && !rest.contains(['/', '?', '@']), "{url:?} is not {scheme}host:port");
    Ok(rest.to_owned())
}

fn config(limits: &[String], tags: &str) -> Result<String> {
    let mut text = "[limits]\n".to_owned();
    for default in ["connections_per_address = 0", "accepts_per_second = 5000"] {
        let key = default.split(' ').next().unwrap_or_default();
        if !limits.iter().any(|limit| limit.split('=').next() == Some(key)) {
            let _ = writeln!(text, "{default}");
        }
    }
    for limit in limits {
        let (key, value) = limit.split_once('=').with_context(|| format!("--limit {limit:?} is not KEY=VALUE"))?;
        let bare = value.parse::<f64>().is_ok() || value == "true" || value == "false";
        let _ = if bare { writeln!(text, "{key} = {value}") } else { writeln!(text, "{key} = \"{value}\"") };
    }
    let _ = write!(text, "[[projects]]\npid = \"{PID}\"\nsecrets = [\"{SECRET}\"]\n{tags}");
    Ok(text)
}

fn command(binary: &Path, args: &NodeArgs, seat: &Seat, (file, folder): (&Path, &Path)) -> Result<Command> {
    let mut command = machine::on_cpu(binary, args.node_cpu);
    let log = File::create(folder.join("log")).context("the node's log")?;
    command.args(["--node", &seat.number.to_string(), "--env", "test", "--cores", "1", "--driver", &args.driver]);
    command.args(&seat.flags);
    command.args(["--ws_host", "127.0.0.1", "--http_host", "127.0.0.1", "--ws_port", "0", "--http_port", "0"]);
    command.args(["--metrics_port", "0", "--pprof_port", "off", "--swagger_port", "off", "--config"]).arg(file);
    command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    Ok(command)
}

fn listening(printed: &str, listener: &str) -> Result<String> {
    let start = format!("listening {listener} ");
    let address = printed.lines().find_map(|line| line.strip_prefix(&start));
    Ok(address.with_context(|| format!("the node prints no address of {listener}:\n{printed}"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_cores_and_filtered_by_a_label() {
        let page = "# TYPE a counter\na{core=\"0\",direction=\"out\"} 3\na{core=\"1\",direction=\"out\"} 4\n\
                    a{core=\"0\",direction=\"in\"} 50\nab{core=\"0\",direction=\"out\"} 600\nb 7\n";
        let metrics = Metrics(page.to_owned());
        assert_eq!(metrics.sum("a", "direction=\"out\""), 7.0);
        assert_eq!((metrics.sum("a", ""), metrics.sum("b", ""), metrics.sum("c", "")), (57.0, 7.0, 0.0));
    }

    #[test]
    fn limits_are_written_as_the_file_wants_them() {
        let limits = ["write_timeout=2m".to_owned(), "outbox_frames_max=64".to_owned()];
        let text = config(&limits, "[[tags]]\nmatch = \"a\"\n").expect("a file");
        assert!(text.contains("write_timeout = \"2m\"\noutbox_frames_max = 64\n[[projects]]"), "{text}");
        assert!(config(&["x".to_owned()], "").is_err());
        let other = config(&["accepts_per_second=7".to_owned()], "").expect("a file");
        assert_eq!(other.matches("accepts_per_second").count(), 1, "{other}");
    }

    #[test]
    fn addresses_are_read_from_what_a_node_prints() {
        let printed = "listening ws 127.0.0.1:1\nlistening metrics 127.0.0.1:2\nready\n";
        assert_eq!(listening(printed, "metrics").expect("an address"), "127.0.0.1:2");
        assert!(listening(printed, "http").is_err());
    }
}
