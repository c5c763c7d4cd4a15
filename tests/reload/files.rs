//! No descriptor is left: nobody who is connected is harmed, accepting pauses instead of spinning, and goes on by itself.

use std::{fs, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    Api, Client, Config, Node, PATIENCE, Redis, Setup, Value, bounded, eventually, http, json,
    node::{Driver, Queue},
    redis::Persistence,
};

/// A connection that is kept: a new one could not be accepted.
struct Kept(TcpStream);

impl Kept {
    async fn to(address: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    async fn ask(&mut self, request: &str) -> http::Response {
        self.0.write_all(request.as_bytes()).await.expect("the connection is kept");
        timeout(PATIENCE, http::read(&mut self.0)).await.expect("in time").expect("an answer")
    }

    async fn push(&mut self, api: &Api, body: &Value) -> http::Response {
        let body = body.to_string();
        let target = api.target("/ws/push", &[], Some(body.as_bytes()));
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.ask(&(head + &body)).await
    }

    async fn metric(&mut self, name: &str) -> f64 {
        let page = self.ask("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
        let lines =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Lets a node have no descriptor more than it has, and `more`; its limit as it was.
fn leave(node: &Node, more: usize) {
    let open = fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("its descriptors").count();
    set_limit(node, open + more);
}

fn set_limit(node: &Node, files: usize) {
    let limit = format!("--nofile={files}:");
    let status = std::process::Command::new("prlimit").args(["--pid", &node.pid().to_string(), &limit]).status();
    assert!(status.expect("prlimit (util-linux) is installed").success());
}

async fn nothing_left(driver: Driver) {
    let redis = Redis::start(Persistence::None).await;
    let config = Config::new().flags(&["--pprof_port", "0"]);
    let node = Node::start(200, Queue::Redis(&redis), driver, &config).await;
    let mut ann = Client::user(&node, "ann").await;
    ann.subscribe(&["kline.a"]).await;
    let (mut metrics, mut pushes) = (Kept::to(node.metrics).await, Kept::to(node.http).await);
    let mut profiles = Kept::to(node.pprof).await;
    assert_eq!(metrics.metric("ws_accept_pauses_total").await, 0.0);
    assert_eq!(pushes.push(&node.api(), &json!({"uids": ["ann"], "data": 0})).await.status, 200);
    assert_eq!(profiles.ask("GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    ann.next().await;

    leave(&node, 1);
    let begun = Instant::now();
    let mut waiting = Vec::new();
    for address in [node.ws, node.ws, node.ws, node.ws, node.http, node.http, node.metrics, node.pprof] {
        waiting.push(TcpStream::connect(address).await.expect("the kernel takes it"));
    }
    for number in 1..=20 {
        assert_eq!(pushes.push(&node.api(), &json!({"tags": ["kline.a"], "data": number})).await.status, 200);
        assert_eq!(ann.next().await["payload"], number);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let profile = profiles.ask("GET /debug/pprof/heap HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!((500..600).contains(&profile.status), "a profile needs a descriptor: {}", profile.status);
    // The queue's connections are lost too, and cannot be had again: pushes are refused, everybody stays.
    let cut = redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    assert!(!cut.is_empty());
    ann.settle().await;
    let pauses = metrics.metric("ws_accept_pauses_total").await;
    // Each of the two cores' two listeners and the operators' two pause 100 ms at a time.
    let most = (begun.elapsed().as_secs_f64() * 10.0 + 2.0) * 6.0;
    assert!(pauses >= 1.0 && pauses <= most, "{pauses} pauses, {most} at most");

    set_limit(&node, 4096);
    drop(waiting);
    eventually("pushes are accepted", async || {
        pushes.push(&node.api(), &json!({"tags": ["kline.a"], "data": "on"})).await.status == 200
    })
    .await;
    let _ = ann.next_where(|message| message["payload"] == "on").await;
    Client::user(&node, "bob").await.settle().await;
    assert_eq!(http::get(node.metrics, "/ready").await.status, 200);
    assert_eq!(http::get(node.pprof, "/debug/pprof/heap").await.status, 200);
    ann.settle().await;
}

#[test]
fn who_is_connected_is_not_harmed_when_no_descriptor_is_left() {
    bounded(nothing_left(Setup::ONE.driver));
}

#[test]
fn who_is_connected_is_not_harmed_when_no_descriptor_is_left_on_epoll() {
    bounded(nothing_left(Setup::ONE_EPOLL.driver));
}
