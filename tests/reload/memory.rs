//! Memory gets short: new connections are refused, then the largest outbox is cut, the others lose nothing, and it ends.
//!
//! Method: users who do not read fill their outboxes; the node's bound is set so that it starts at about half of it. One of
//! them gets ten times as much as each of the others, so it must be the one that is cut.

use std::fs;

use super::{done, reload};
use crate::support::{
    Client, Cluster, Config, Connect, Node, Setup, bounded, eventually, http, json,
    raw::{Raw, opcode, upgrade_request},
};

const OTHERS: usize = 4;
/// What the big one gets, for each push to one of the others.
const SHARE_OF_BIG: usize = 10;
const PAYLOAD_BYTES: usize = 60_000;
/// What the node uses at the start, in percent of what it may.
const BEGIN_PERCENT: usize = 55;

fn roomy() -> Config {
    Config::new()
        .limit("outbox_bytes_max", "\"64MiB\"")
        .limit("outboxes_bytes_max", "\"1GiB\"")
        .limit("write_timeout", "\"5m\"")
        .limit("ping_after", "\"5m\"")
}

fn resident_bytes(node: &Node) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("its status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    kib.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") * 1024
}

async fn pressure(node: &Node) -> f64 {
    node.metric("ws_memory_pressure").await
}

async fn cut(node: &Node) -> f64 {
    node.metric("ws_memory_relief_total event=\"cut\"").await
}

async fn connects(node: &Node) -> http::Response {
    let request = upgrade_request(&Connect::user("new").target(), "a");
    http::raw(node.ws, request.as_bytes()).await
}

/// Pushes in rounds to those who do not read until the condition holds; how many each of the others got.
async fn fill(node: &Node, mut rounds: usize, mut until: impl AsyncFnMut() -> bool) -> usize {
    let filler = "x".repeat(PAYLOAD_BYTES);
    while !until().await {
        assert!(rounds < 2000, "so much is in use: {}", node.metric("ws_memory_used_bytes").await);
        let push = |uid: String| json!({"uids": [uid], "data": {"n": rounds, "filler": filler}});
        for _ in 0..SHARE_OF_BIG {
            node.api().push_ok(&push("big".to_owned())).await;
        }
        for other in 0..OTHERS {
            node.api().push_ok(&push(format!("other{other}"))).await;
        }
        rounds += 1;
    }
    rounds
}

async fn gets_everything(mut other: Raw, rounds: usize) {
    for round in 0..rounds {
        let frame = other.frame().await;
        assert_eq!(frame.opcode, opcode::TEXT, "{:?}", frame.payload.get(..40));
        let text = String::from_utf8_lossy(&frame.payload);
        assert!(
            text.contains(&format!("\"n\":{round}}}")),
            "{} in place of {round}",
            &text[text.len().saturating_sub(40)..]
        );
    }
}

#[test]
fn the_largest_outbox_is_cut_when_memory_is_nearly_used_up_and_everybody_else_loses_nothing() {
    bounded(async {
        let cluster = Cluster::start(Setup::ONE, roomy()).await;
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        let mut big = Raw::user(node, "big").await;
        let mut others = Vec::new();
        for other in 0..OTHERS {
            others.push(Raw::user(node, &format!("other{other}")).await);
        }
        assert_eq!(pressure(node).await, 0.0);
        let bytes_max = resident_bytes(node) * 100 / BEGIN_PERCENT;
        reload(node, &roomy().limit("memory_max_bytes", bytes_max).text()).await;
        assert_eq!(done(node).await, 1.0);
        eventually("the bound", async || node.metric("ws_memory_limit_bytes").await == bytes_max as f64).await;

        let rounds = fill(node, 0, async || pressure(node).await >= 1.0).await;
        let refused = connects(node).await;
        assert_eq!((refused.status, refused.err().as_str()), (503, "overloaded"), "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        assert!(node.metric("ws_memory_relief_total event=\"refused\"").await >= 1.0);
        assert_eq!(http::get(node.ws, "/health").await.status, 200);
        let routed = async || http::get(node.ws, "/ws/route").await.status;
        eventually("nobody is routed here", async || routed().await == 503).await;
        node.api().push_ok(&json!({"uids": ["ann"], "data": "goes on"})).await;
        assert_eq!(ann.next().await["payload"], "goes on");
        assert_eq!(cut(node).await, 0.0);

        let rounds = fill(node, rounds, async || cut(node).await >= 1.0).await;
        eventually("it was enough", async || pressure(node).await < 2.0).await;
        assert_eq!(cut(node).await, 1.0, "the largest alone");
        // It reads what the kernel had, and then its close, or a reset if there was no room for that.
        let mut code = None;
        while let Some(frame) = big.try_frame().await {
            if frame.opcode == opcode::CLOSE {
                code = Some(frame.close().0);
            }
        }
        assert!(code.is_none_or(|code| code == 4008), "{code:?}");
        ann.settle().await;

        for other in others {
            gets_everything(other, rounds).await;
        }
        eventually("new ones are taken again", async || connects(node).await.status == 101).await;
        assert_eq!(pressure(node).await, 0.0);
        eventually("and routed here", async || routed().await == 200).await;
        ann.settle().await;
    });
}
