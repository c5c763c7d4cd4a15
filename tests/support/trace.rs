//! `strace` on a running node: what it asks of the kernel, thread by thread.

use std::{collections::HashMap, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::{Node, PATIENCE, node::signal, unique};

/// A tracer that is attached.
#[derive(Debug)]
pub struct Trace {
    strace: Child,
    /// What it says besides its output; unread, it would stand still when the pipe is full.
    said: tokio::io::Lines<BufReader<ChildStderr>>,
    folder: PathBuf,
}

/// One call: `name(arguments) = result`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The call.
    pub name: String,
    /// As strace shows them.
    pub arguments: String,
    /// What it returned; -1 for an error, 0 for what is no number.
    pub result: i64,
}

impl Trace {
    /// Attaches to all threads of a node and waits until it is so; none where the machine forbids tracing.
    pub async fn of(node: &Node, arguments: &[&str]) -> Option<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("trace"));
        std::fs::create_dir_all(&folder).expect("a folder for the trace");
        let mut strace = Command::new("strace")
            .args(arguments)
            .arg("-o")
            .arg(folder.join("calls"))
            .args(["-p", &node.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("strace is not installed; `make test` installs it");
        let mut said = BufReader::new(strace.stderr.take().expect("its stderr")).lines();
        let line = timeout(PATIENCE, said.next_line()).await.expect("a word of strace").expect("text");
        let trace = Self { strace, said, folder };
        match line {
            Some(line) if line.contains("attached") => Some(trace),
            refusal => {
                eprintln!("SKIPPED: ptrace is forbidden here: {refusal:?}");
                None
            }
        }
    }

    /// Detaches, and waits for the whole output.
    async fn end(&mut self) {
        signal(self.strace.id().expect("it runs"), "INT");
        let ending = async {
            while let Ok(Some(_)) = self.said.next_line().await {}
            self.strace.wait().await
        };
        timeout(PATIENCE, ending).await.expect("strace ends").expect("its status");
    }

    /// How often each call was made (`-c`).
    pub async fn counts(mut self) -> HashMap<String, u64> {
        self.end().await;
        // `% time, seconds, usecs/call, calls, [errors], syscall`
        let row = |line: &str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
        };
        std::fs::read_to_string(self.folder.join("calls")).expect("a table").lines().filter_map(row).collect()
    }

    /// The calls of each thread in their order (`-ff`).
    pub async fn threads(mut self) -> Vec<Vec<Call>> {
        self.end().await;
        let files = std::fs::read_dir(&self.folder).expect("its files").map(|file| file.expect("a file").path());
        let calls = |file| {
            let text: String = std::fs::read_to_string(file).expect("text");
            text.lines().filter_map(call).collect()
        };
        files.map(calls).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn call(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let result = result.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    Some(Call { name: name.to_owned(), arguments: arguments.trim_end().trim_end_matches(')').to_owned(), result })
}

impl Call {
    /// The descriptor that it is about.
    pub fn descriptor(&self) -> &str {
        self.arguments.split(',').next().unwrap_or_default()
    }

    /// Whether the thread may have slept in it.
    pub fn waits(&self) -> bool {
        self.name == "io_uring_enter" || self.name.starts_with("epoll_") && self.name != "epoll_ctl"
    }

    /// Whether it writes to a socket.
    pub fn is_write(&self) -> bool {
        matches!(&*self.name, "sendto" | "sendmsg")
    }
}
