//! An own Redis for a test: a child process on its own port, in its own directory, ended by its own pid.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// What Redis keeps over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Nothing,
    Everything,
}

pub struct RedisServer {
    pub port: u16,
    keeps: Keeps,
    directory: PathBuf,
    child: Option<Child>,
    more: Vec<String>,
}

/// Whether there is a Redis to test with. Without one, tests say so and pass, unless CI demands it.
pub fn is_available() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "CI needs a redis-server");
    if !found {
        eprintln!("skipped: there is no redis-server");
    }
    found
}

impl RedisServer {
    pub fn start(keeps: Keeps) -> Self {
        Self::start_with(keeps, &[])
    }

    pub fn start_with(keeps: Keeps, more: &[&str]) -> Self {
        // Another process may take the port between our look and Redis's bind: then the next one is tried.
        for _ in 0..10 {
            let port = free_port();
            let directory = std::env::temp_dir().join(format!("ws-redis-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&directory).expect("a directory");
            let more = more.iter().map(|&argument| argument.to_owned()).collect();
            let mut server = Self { port, keeps, directory, child: None, more };
            if server.try_launch() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts the process again on its port, and waits until it has its data.
    pub fn launch(&mut self) {
        let is_back = (0..20).any(|_| self.try_launch());
        assert!(is_back, "redis-server does not come back on port {}", self.port);
    }

    /// Whether the process runs and has its data. Nothing else happens in the test meanwhile.
    #[expect(clippy::disallowed_methods, reason = "a test's thread may sleep")]
    fn try_launch(&mut self) -> bool {
        let aof = if self.keeps == Keeps::Everything { "yes" } else { "no" };
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", aof])
            .args(["--appendfsync", "always", "--dir"])
            .arg(&self.directory)
            .args(&self.more)
            .stdout(Stdio::null())
            .spawn();
        let child = self.child.insert(child.expect("redis-server starts"));
        // The one that answers must be ours: a port that somebody else took is answered by a stranger.
        let own = format!("process_id:{}\r\n", child.id());
        for _ in 0..1000 {
            let is_over = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if is_over {
                break;
            }
            let is_ours = self.try_cli(&["INFO", "server"]).is_some_and(|info| info.contains(&own));
            // While it reads its file it answers `INFO`, and everything else with `LOADING`.
            let info = is_ours.then(|| self.try_cli(&["INFO", "persistence"])).flatten();
            if info.is_some_and(|info| info.contains("\nloading:0")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended by itself cannot be killed.
            let _ = child.kill();
            child.wait().expect("waited for");
        }
    }

    /// Sends the process a signal: `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Runs one command by redis-cli.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).expect("redis-cli answers")
    }

    fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}
