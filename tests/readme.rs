//! What the README shows works as it is shown.
//!
//! Method: its blocks are taken out of the file and run: the printed URL and command are pasted, the shell block is given free
//! ports and the binaries under test, the configuration is checked. The Chinese README must show the same blocks.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use futures_util::StreamExt;

const SERVER: &str = env!("CARGO_BIN_EXE_ws-cluster");
const PATIENCE: Duration = Duration::from_secs(20);

fn readme(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the README")
}

/// The fenced blocks of a language, in order.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// A process that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server on ports of its own; its lines as they come.
fn start(arguments: &[&str]) -> (Running, mpsc::Receiver<String>) {
    let ports =
        ["--ws_port", "0", "--http_port", "0", "--metrics_port", "0", "--pprof_port", "0", "--swagger_port", "off"];
    let command = Command::new(SERVER).args(ports).args(arguments).stdout(Stdio::piped()).spawn();
    let mut process = Running(command.expect("the server starts"));
    let output = process.0.stdout.take().expect("its output");
    let (lines, received) = mpsc::sync_channel(100);
    thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    (process, received)
}

#[test]
fn what_a_new_node_prints_can_be_pasted() {
    let (_node, lines) = start(&[]);
    let (mut url, mut command) = (None, None);
    while url.is_none() || command.is_none() {
        let line = lines.recv_timeout(PATIENCE).expect("a URL and a command are printed");
        let line = line.trim();
        url = url.or_else(|| line.starts_with("ws://").then(|| line.to_owned()));
        command = command.or_else(|| line.starts_with("curl ").then(|| line.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut socket, _) = tokio_tungstenite::connect_async(url.expect("a URL")).await.expect("it connects");
        let mut next = async || {
            let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time");
            message.expect("an open connection").expect("a frame").into_text().expect("text").to_string()
        };
        assert!(next().await.contains(r#""type":"connect""#));
        let pushed = Command::new("sh").args(["-c", &command.expect("a command")]).output().expect("curl runs");
        let answer = String::from_utf8_lossy(&pushed.stdout).into_owned();
        assert!(answer.contains(r#""code":1"#), "{answer} {}", String::from_utf8_lossy(&pushed.stderr));
        assert!(next().await.ends_with(r#""payload":{"hello":1}}"#));
    });
}

#[test]
fn two_nodes_replay_real_bars() {
    let text = readme("README.md");
    let shown = blocks(&text, "sh").into_iter().find(|block| block.contains("loadtest replay")).expect("the block");
    let (_build, rest) = shown.split_once('\n').expect("a first line that builds");
    let mut script = rest.to_owned();
    for port in ["8812", "8813", "8912", "8913", "9091", "9092", "6390"] {
        assert!(script.contains(port), "the block names port {port}");
        script = script.replace(port, &free_port().to_string());
    }
    // As the tests were built, so that nothing is built again: alone, or without tests, a package has other features of what they share.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--tests", "--bins"]);
    if cfg!(feature = "plain-pubsub") {
        build.args(["--features", "plain-pubsub"]);
    }
    assert!(build.status().expect("cargo runs").success());
    let binaries = Path::new(SERVER).parent().expect("a folder").display().to_string();
    let script =
        format!("set -e\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\nexport PATH={binaries}:$PATH\n{script}");
    let mut bash = Running(
        Command::new("bash")
            .args(["-c", &script])
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash runs"),
    );
    let mut output = String::new();
    bash.0.stdout.take().expect("its output").read_to_string(&mut output).expect("text");
    assert!(bash.0.wait().expect("an end").success(), "{output}");
    assert!(output.contains("every check holds"), "{output}");
}

#[test]
fn the_configuration_is_a_good_one() {
    let text = readme("README.md");
    let shown = blocks(&text, "toml");
    assert_eq!(shown.len(), 1);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme.toml");
    fs::write(&file, shown[0]).expect("a file");
    let checked =
        Command::new(SERVER).args(["check", "--env", "prod", "--config"]).arg(&file).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_chinese_readme_shows_the_same_commands() {
    let (english, chinese) = (readme("README.md"), readme("README.zh.md"));
    assert_eq!(blocks(&english, "sh"), blocks(&chinese, "sh"));
    for document in [&english, &chinese] {
        for linked in ["docs/ARCHITECTURE.md", "docs/config.md", "CONTRIBUTING.md"] {
            assert!(document.contains(linked) && Path::new(env!("CARGO_MANIFEST_DIR")).join(linked).exists());
        }
    }
}
