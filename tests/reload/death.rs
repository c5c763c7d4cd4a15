//! A core that dies takes the process with it, which says so first; the node comes back with its number.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

use crate::support::{
    Client, Config, Node, PATIENCE, Redis, bounded, http,
    node::{Driver, Queue},
    redis::Persistence,
};

const LIVE: &[u8] = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_dead_core_is_seen_at_live_ends_the_process_and_gives_its_place_back() {
    bounded(async {
        // It listens and never answers, so that the last words take as long as they may.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dsn = format!("\"http://key@{}/7\"", silent.local_addr().expect("an address"));
        let redis = Redis::start(Persistence::None).await;
        let config = Config::new().set("sentry_dsn", &dsn);
        let mut node = Node::start(200, Queue::Redis(&redis), Driver::Auto, &config).await;
        let mut ann = Client::user(&node, "ann").await;
        let mut probe = tokio::net::TcpStream::connect(node.metrics).await.expect("a connection");
        ann.send_text("!panic-core now").await;
        let mut dead = None;
        while probe.write_all(LIVE).await.is_ok() {
            let Ok(answer) = timeout(PATIENCE, http::read(&mut probe)).await.expect("an answer or the end") else {
                break;
            };
            if answer.status == 503 {
                dead = Some(answer.text());
            }
        }
        assert_eq!(node.exited().await, Some(101));
        assert!(dead.as_ref().is_some_and(|text| text.contains("\"dead\"")), "{dead:?}");
        // Its lease has to run out first.
        let again = Node::launch(200, Queue::Redis(&redis), Driver::Auto, &Config::new()).await;
        let is_ready = async || again.printed().iter().any(|line| line == "ready");
        let coming_back = async {
            while !is_ready().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(3 * PATIENCE, coming_back).await.expect("the number is free again");
        Client::user(&again, "ann").await.settle().await;
    });
}
