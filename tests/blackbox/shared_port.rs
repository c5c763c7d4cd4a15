//! Operators' endpoints on a port that users and back-ends have too: each request reaches whom it is for.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    process::{Child, Command},
};

use crate::support::{Api, Connect, bounded, eventually, http, json, node::run_to_end};

const TOKEN: &str = "operators-token-of-this-test";
/// The demo project, which `--env test` has.
const PID: &str = "1";
const SECRET: &str = "demo-secret-known-to-everyone";

/// A node of its own: its ports are not the usual ones.
struct Shared {
    address: SocketAddr,
    _process: Child,
}

impl Shared {
    /// Starts one whose `groups` are all on one port; the others are off.
    async fn start(driver: &str, groups: &[&str]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ws-cluster"));
        command.args(["--env", "test", "--cores", "2", "--driver", driver, "--operator_token", TOKEN]);
        for group in ["ws", "http", "metrics", "pprof", "swagger"] {
            let port = if groups.contains(&group) { address.port().to_string() } else { "off".to_owned() };
            command.args([format!("--{group}_port"), port]);
        }
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = quiet.spawn().expect("the node's binary");
        eventually("the node is ready", async || {
            let ready = http::try_raw(address, b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Self { address, _process: process }
    }

    async fn get(&self, path: &str, token: &str) -> http::Response {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        http::raw(self.address, head.as_bytes()).await
    }
}

/// Everything on one port, one request after another on one connection, as a proxy sends them.
async fn everything_on_one_port(driver: &str) {
    let node = Shared::start(driver, &["ws", "http", "metrics", "pprof", "swagger"]).await;
    let user = Connect { pid: PID, secret: Some(SECRET), ..Connect::user("alice") };
    let mut user = user.try_upgrade(node.address).await.expect("it connects");
    assert_eq!(user.next().await["type"], "connect");
    let api = Api::new(node.address, PID, SECRET);
    api.push_ok(&json!({"uids": ["alice"], "data": 1})).await;
    assert_eq!(user.next().await["payload"], 1);

    assert_eq!(node.get("/metrics", "wrong").await.status, 401);
    let metrics = node.get("/metrics", TOKEN).await;
    assert!(metrics.status == 200 && metrics.text().contains("ws_connection{"), "{}", metrics.text());
    assert_eq!(node.get("/debug/pprof/cmdline", TOKEN).await.status, 200);
    assert_eq!(node.get("/swagger/index.html", TOKEN).await.status, 200);
    assert_eq!(node.get("/nothing", TOKEN).await.status, 404);

    let mut stream = TcpStream::connect(node.address).await.expect("a connection");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a request");
    assert_eq!(http::read(&mut stream).await.expect("an answer").header("connection"), None);
    let operators = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(operators.as_bytes()).await.expect("a request");
    let metrics = http::read(&mut stream).await.expect("an answer");
    assert_eq!((metrics.status, metrics.header("connection")), (200, Some("close")), "the next may not be theirs");
    user.settle().await;
}

#[test]
fn everything_shares_a_port() {
    bounded(everything_on_one_port("auto"));
}

#[test]
fn everything_shares_a_port_on_epoll() {
    bounded(everything_on_one_port("epoll"));
}

#[test]
fn operators_share_a_port_with_users_alone() {
    bounded(async {
        let node = Shared::start("auto", &["ws", "metrics"]).await;
        let user = Connect { pid: PID, secret: Some(SECRET), ..Connect::user("alice") };
        let mut user = user.try_upgrade(node.address).await.expect("it connects");
        assert_eq!(user.next().await["type"], "connect");
        assert_eq!(node.get("/metrics", TOKEN).await.status, 200);
        assert_eq!(node.get("/debug/pprof/", TOKEN).await.status, 404);
        assert_eq!(node.get("/ws/push", TOKEN).await.status, 404);
    });
}

#[test]
fn without_a_token_operators_do_not_share_what_others_reach() {
    bounded(async {
        let (status, _, error) = run_to_end(&["check", "--metrics_port", "8912"]).await;
        assert_eq!(status, Some(64), "{error}");
        assert!(error.contains("metrics_port") && error.contains("operator_token"), "{error}");
        let (status, _, error) = run_to_end(&["check", "--metrics_port", "8912", "--http_host", "127.0.0.1"]).await;
        assert_eq!(status, Some(0), "{error}");
    });
}
