//! The servers that a scenario can be driven against. Each is started for one run, alone on its CPU, and gone when its value is.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::{
    crowd::dialect::Dialect,
    machine,
    node::{Node, NodeArgs},
    procfs,
    scenario::Scenario,
};

/// How long a server may take until it accepts, and until it has ended.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// What tags of a run begin with.
pub const TAG_PREFIX: &str = "load.";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// ws-cluster: started by --node, or the one that runs at --ws
    Ours,
    /// A bare loop of send(2) over the same frames: what the kernel takes on this machine
    Ideal,
    /// Node.js with the package ws
    NodeWs,
    /// uWebSockets, by Python's socketify
    Uws,
    /// nginx with Nchan
    Nchan,
    /// Whatever runs at --url
    Url,
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Ideal => "ideal",
            Self::NodeWs => "node-ws",
            Self::Uws => "uws",
            Self::Nchan => "nchan",
            Self::Url => "url",
        }
    }
}

/// Where servers are found.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Folder of the peers' start scripts
    #[arg(long, default_value = "loadtest/peers")]
    pub peers: PathBuf,
    /// `ws://host:port/path` of a subscriber at any other server; `{tag}` stands for the group's name
    #[arg(long, default_value = "")]
    pub url: String,
    /// Path of its publisher
    #[arg(long, default_value = "/publish/{tag}")]
    pub publish_path: String,
    /// Path where it sends back what comes
    #[arg(long, default_value = "/echo")]
    pub echo_path: String,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Its word.
    pub name: &'static str,
    /// Where it listens.
    pub server: SocketAddr,
    /// How to speak with it.
    pub dialect: Dialect,
    /// Its first process; its CPU time and memory are known then.
    process: Option<u32>,
    /// Ends it when this is dropped.
    _guard: Guard,
}

#[derive(Debug)]
enum Guard {
    Node(#[expect(dead_code, reason = "held for what its end does")] Box<Node>),
    Child(Child),
    Nothing,
}

impl Running {
    /// Starts the server, or finds it.
    pub async fn start(kind: Kind, args: &TargetArgs, scenario: &Scenario) -> Result<Self> {
        // Before it starts: it inherits the limit.
        machine::allow_files((scenario.connections() / scenario.processes()) as u64 + 200)?;
        let running = match kind {
            Kind::Ours => Self::ours(&args.node).await,
            Kind::Url => Self::foreign(args),
            Kind::Ideal => {
                let files = (scenario.connections() + 200).to_string();
                let program = std::env::current_exe().context("this program's own path")?;
                Self::child(kind, args, &program, |port| {
                    vec!["ideal".into(), "--files".into(), files, "--listen".into(), format!("127.0.0.1:{port}")]
                })
                .await
            }
            Kind::NodeWs | Kind::Uws | Kind::Nchan => {
                ensure!(kind != Kind::Nchan || scenario.requests.is_none(), "nchan answers no requests");
                let script = args.peers.join(kind.name()).join("run");
                ensure!(script.exists(), "{} is missing (--peers)", script.display());
                Self::child(kind, args, &script, |port| vec![port.to_string()]).await
            }
        };
        // Only now: what was started must not inherit it.
        if let Some(cpu) = args.node.cpu {
            machine::bind_to_cpu(cpu)?;
        }
        running.with_context(|| format!("starting {}", kind.name()))
    }

    async fn ours(args: &NodeArgs) -> Result<Self> {
        let args = NodeArgs { cpu: None, ..args.without_bounds() };
        let rule = format!("[[tags]]\nmatch = \"{TAG_PREFIX}*\"\nclass = \"lossless\"\n");
        let node = Node::get(&args, &rule).await?;
        let dialect = Dialect::Ours { pid: node.credentials.pid.clone(), secret: node.credentials.secret().to_owned() };
        let (server, process) = (resolve(&node.ws)?, Some(node.process_id));
        Ok(Self { name: Kind::Ours.name(), server, dialect, process, _guard: Guard::Node(Box::new(node)) })
    }

    fn foreign(args: &TargetArgs) -> Result<Self> {
        let rest = args.url.strip_prefix("ws://").context("--url must begin with ws://")?;
        let (authority, path) = rest.split_once('/').context("--url must have a path")?;
        let dialect = Dialect::Paths {
            subscribe: format!("/{path}"),
            publish: args.publish_path.clone(),
            echo: args.echo_path.clone(),
        };
        let server = resolve(authority)?;
        Ok(Self { name: Kind::Url.name(), server, dialect, process: args.node.node_pid, _guard: Guard::Nothing })
    }

    async fn child(
        kind: Kind,
        args: &TargetArgs,
        program: &Path,
        arguments: impl FnOnce(u16) -> Vec<String>,
    ) -> Result<Self> {
        // Closed again before the server opens it; nobody else is asked for this port meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = machine::on_cpu(program, args.node.node_cpu);
        command.args(arguments(port)).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let (server, process) = (SocketAddr::from(([127, 0, 0, 1], port)), child.id());
        let mut guard = Guard::Child(child);
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(server).is_err() {
            if let Guard::Child(child) = &mut guard
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended ({status}) before it listened");
            }
            ensure!(Instant::now() < until, "it does not listen after {START_TIMEOUT:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { name: kind.name(), server, dialect: Self::usual_paths(), process: Some(process), _guard: guard })
    }

    /// One that speaks as the ideal does and that somebody else ends.
    #[cfg(test)]
    pub fn at(server: SocketAddr, dialect: Dialect) -> Self {
        Self { name: "test", server, dialect, process: None, _guard: Guard::Nothing }
    }

    /// Paths as the ideal and the shipped peers have them.
    pub fn usual_paths() -> Dialect {
        Dialect::Paths {
            subscribe: "/subscribe/{tag}".to_owned(),
            publish: "/publish/{tag}".to_owned(),
            echo: "/echo".to_owned(),
        }
    }

    /// CPU seconds of all its processes until now, if it is on this machine.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let processes = procfs::family(self.process?);
        Some(processes.iter().filter_map(|pid| procfs::cpu_ns(*pid).ok()).map(|time| time.process as f64 / 1e9).sum())
    }

    /// Resident bytes of all its processes.
    pub fn resident_bytes(&self) -> Option<u64> {
        let processes = procfs::family(self.process?);
        Some(processes.iter().filter_map(|pid| procfs::resident_bytes(*pid).ok()).sum())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Self::Child(child) = self else { return };
        let ended = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Asked first: one with children of its own ends them.
        let asked = ended.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let until = Instant::now() + END_TIMEOUT;
        while asked && Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
            machine::rest(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The first address of `host:port`.
pub fn resolve(authority: &str) -> Result<SocketAddr> {
    authority.to_socket_addrs().with_context(|| format!("looking up {authority}"))?.next().context("no address")
}

/// What is known of the machine, for a report.
pub fn machine_name() -> String {
    let line = |file: &str, begin: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_default();
        line.trim_start_matches([':', '\t', ' ']).to_owned()
    };
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t").count();
    format!("{} x {}, Linux {}", cpus, line("/proc/cpuinfo", "model name"), line("/proc/sys/kernel/osrelease", ""))
}
