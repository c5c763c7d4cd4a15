//! One real node: its process, what it printed, where it listens.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::{
    Api, Config, PATIENCE, Redis,
    config::{OTHER_PID, PID, secret_of},
    unique,
};

#[expect(clippy::disallowed_types, reason = "a test's log, held for a push")]
type Lines = Arc<std::sync::Mutex<Vec<String>>>;

/// How the cores talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Whatever the node finds: io_uring where the kernel allows it.
    Auto,
    /// epoll, forced.
    Epoll,
}

/// What carries pushes between the nodes.
#[derive(Clone, Copy, Debug)]
pub enum Queue<'a> {
    /// The embedded one.
    Memory,
    /// Redis.
    Redis(&'a Redis),
    /// Redis, by this address.
    RedisAt(&'a str),
    /// A queue that promises nothing (feature `plain-pubsub`).
    PlainPubSub(&'a Redis),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// The WebSocket listener.
    pub ws: SocketAddr,
    /// The HTTP API.
    pub http: SocketAddr,
    /// Metrics.
    pub metrics: SocketAddr,
    /// Profiles and orders, if the test asked for `--pprof_port 0`; else nowhere.
    pub pprof: SocketAddr,
    process: Child,
    lines: Lines,
    folder: PathBuf,
}

impl Node {
    /// Starts a node and waits until it says `ready`.
    pub async fn start(id: u16, queue: Queue<'_>, driver: Driver, config: &Config) -> Self {
        let node = Self::launch(id, queue, driver, config).await;
        node.wait_for_line("ready").await;
        node
    }

    /// Starts a node and waits until it has printed its addresses; it may not be ready.
    pub async fn launch(id: u16, queue: Queue<'_>, driver: Driver, config: &Config) -> Self {
        let mut node = Self::launch_any(id, queue, driver, config);
        node.ws = node.address("ws").await;
        node.http = node.address("http").await;
        node.metrics = node.address("metrics").await;
        if config.extra_flags().iter().any(|flag| flag == "--pprof_port") {
            node.pprof = node.address("pprof").await;
        }
        node
    }

    /// Starts a node that may refuse to start; its addresses are not known.
    pub fn launch_any(id: u16, queue: Queue<'_>, driver: Driver, config: &Config) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("node"));
        std::fs::create_dir_all(&folder).expect("a folder for the node");
        let file = folder.join("node.toml");
        std::fs::write(&file, config.text()).expect("the node's file");
        let (process, lines) = spawn(&arguments(id, queue, driver, &file, config), &folder);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { id, ws: nowhere, http: nowhere, metrics: nowhere, pprof: nowhere, process, lines, folder }
    }

    /// The API as the tests' usual project.
    pub fn api(&self) -> Api {
        self.api_of(PID)
    }

    /// The API as the neighbour.
    pub fn other_api(&self) -> Api {
        self.api_of(OTHER_PID)
    }

    /// The API as any project.
    pub fn api_of(&self, pid: &str) -> Api {
        Api::new(self.http, pid, secret_of(pid))
    }

    /// Its process's id.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("a running node")
    }

    /// Writes its configuration file anew, for a reload.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.folder.join("node.toml"), text).expect("the node's file");
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`, `KILL`).
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end of the process; its exit status.
    pub async fn exited(&mut self) -> Option<i32> {
        let ended = timeout(PATIENCE * 3, self.process.wait()).await.expect("the node ends").expect("its status");
        ended.code()
    }

    /// What it has printed and logged so far.
    pub fn printed(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a line of the output starts with `start`; the line.
    pub async fn wait_for_line(&self, start: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.printed().into_iter().find(|line| line.starts_with(start)) {
                return line;
            }
            assert!(Instant::now() < until, "node {}: no line {start:?} in:\n{}", self.id, self.printed().join("\n"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where one of its listeners is, by the word that it prints.
    pub async fn address(&self, listener: &str) -> SocketAddr {
        let start = format!("listening {listener} ");
        let line = self.wait_for_line(&start).await;
        line[start.len()..].trim().parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// One value of the metrics page: the sum over all cores (and other labels) of `name`, or of `name` with one
    /// label: `ws_log_records_total event="replayed"`.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = super::http::get(self.metrics, "/metrics").await.text();
        let (name, label) = series.split_once(' ').unwrap_or((series, ""));
        let of_series = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        let values = page.lines().filter(of_series).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        if std::thread::panicking() {
            let printed = self.printed();
            let tail = printed.len().saturating_sub(60);
            eprintln!("---- node {} printed:\n{}", self.id, printed[tail..].join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn arguments(id: u16, queue: Queue<'_>, driver: Driver, file: &Path, config: &Config) -> Vec<String> {
    let id = id.to_string();
    let file = file.to_string_lossy();
    let mut arguments: Vec<String> = ["--node", &id, "--env", "test", "--config", &file]
        .iter()
        .chain(&["--ws_host", "127.0.0.1", "--http_host", "127.0.0.1"])
        .chain(&["--ws_port", "0", "--http_port", "0", "--metrics_port", "0"])
        .map(|argument| (*argument).to_owned())
        .collect();
    for port in ["--pprof_port", "--swagger_port"] {
        if !config.extra_flags().iter().any(|flag| flag == port) {
            arguments.extend([port.to_owned(), "off".to_owned()]);
        }
    }
    match queue {
        Queue::Memory => arguments.extend(["--queue".into(), "memory".into()]),
        Queue::Redis(redis) => arguments.extend(["--queue".into(), "redis".into(), "--redis_url".into(), redis.url()]),
        Queue::RedisAt(url) => {
            arguments.extend(["--queue".into(), "redis".into(), "--redis_url".into(), url.to_owned()]);
        }
        Queue::PlainPubSub(redis) => {
            arguments.extend(["--queue".into(), "pubsub".into(), "--redis_url".into(), redis.url()]);
        }
    }
    if driver == Driver::Epoll {
        arguments.extend(["--driver".into(), "epoll".into()]);
    }
    if !config.extra_flags().iter().any(|flag| flag == "--cores") {
        arguments.extend(["--cores".into(), "2".into()]);
    }
    arguments.extend_from_slice(config.extra_flags());
    arguments
}

fn spawn(arguments: &[String], folder: &Path) -> (Child, Lines) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_ws-cluster"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the node's binary");
    let lines = Lines::default();
    tokio::spawn(collect(process.stdout.take().expect("stdout"), lines.clone()));
    tokio::spawn(collect(process.stderr.take().expect("stderr"), lines.clone()));
    (process, lines)
}

async fn collect(output: impl AsyncRead + Unpin, lines: Lines) {
    let mut reader = BufReader::new(output).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Runs the program with these arguments to its end: exit status, stdout, stderr.
pub async fn run_to_end(arguments: &[&str]) -> (Option<i32>, String, String) {
    let running = Command::new(env!("CARGO_BIN_EXE_ws-cluster")).args(arguments).kill_on_drop(true).output();
    let output = timeout(PATIENCE, running).await.expect("it ends").expect("the node's binary");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Sends a signal by name to one process.
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}
