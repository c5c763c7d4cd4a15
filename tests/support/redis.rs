//! A Redis of the test's own: private port, own folder, and the faults that can befall it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, node::signal, unique};

/// Whether what it holds survives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It comes back empty.
    None,
    /// An append-only file, written through at every command.
    AppendOnly,
}

/// A running Redis, or a sentinel, which answers the same way.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// Starts one on a free port.
    pub async fn start(persistence: Persistence) -> Self {
        Self::start_with(persistence, &[]).await
    }

    /// The same with more on its command line.
    pub async fn start_with(persistence: Persistence, more: &[&str]) -> Self {
        // Another process may take the port between our look and Redis's bind: then the next one is tried.
        for _ in 0..10 {
            let mut redis = Self::prepared(free_port());
            redis.give(&arguments(persistence));
            redis.give(more);
            if redis.launch().await {
                return redis;
            }
        }
        panic!("redis-server does not start; `make test` installs it");
    }

    /// One that will listen on this port, has a folder of its own, and is not started.
    pub fn prepared(port: u16) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("redis"));
        std::fs::create_dir_all(&folder).expect("a folder for Redis");
        Self { port, folder, arguments: Vec::new(), process: None }
    }

    /// Adds to its command line.
    pub fn give(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Writes a file into its folder; where it is.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file for Redis");
        path.to_string_lossy().into_owned()
    }

    /// `redis://127.0.0.1:port/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running Redis").id()
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port and folder: with its data, if it persists.
    pub async fn restart(&mut self) {
        self.kill();
        for _ in 0..20 {
            if self.launch().await {
                return;
            }
        }
        panic!("redis-server does not come back on port {}", self.port);
    }

    /// Sends a signal by name (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Starts the process and waits until it has its data; whether it runs.
    pub async fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.folder.join("log")).expect("a log for Redis");
        let spawned = Command::new("redis-server")
            .args(&self.arguments)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        let mut process = spawned.expect("redis-server is not installed; `make test` installs it");
        // The one that answers must be ours: a port that somebody else took is answered by a stranger.
        let own = format!("process_id:{}\r\n", process.id());
        for _ in 0..1000 {
            if matches!(process.try_wait(), Ok(Some(_))) {
                return false;
            }
            let is_ours = self.try_command(&["INFO", "server"]).await.is_ok_and(|info| info.contains(&own));
            if is_ours && self.has_loaded().await {
                self.process = Some(process);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    /// While it reads its file it answers `INFO`, and everything else with `LOADING`. A sentinel has no such file.
    async fn has_loaded(&self) -> bool {
        self.try_command(&["INFO", "persistence"]).await.is_ok_and(|info| !info.contains("\nloading:1"))
    }

    /// Runs one command; the first bytes of its answer as they came.
    pub async fn command(&self, words: &[&str]) -> String {
        self.try_command(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same, for a Redis that may be away.
    pub async fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            let mut request = format!("*{}\r\n", words.len());
            words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
            stream.write_all(request.as_bytes()).await?;
            let mut answer = vec![0; 64 << 10];
            let n = stream.read(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
        };
        timeout(PATIENCE, exchange).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What makes it persist, or not.
pub fn arguments(persistence: Persistence) -> [&'static str; 8] {
    let append_only = if persistence == Persistence::AppendOnly { "yes" } else { "no" };
    ["--save", "", "--appendonly", append_only, "--appendfsync", "always", "--enable-debug-command", "yes"]
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}
