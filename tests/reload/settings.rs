//! Projects, limits and what is wrong: nobody is dropped who may stay, and a bad file changes nothing.

use std::time::Duration;

use super::{done, one_node, reload};
use crate::support::{
    Api, Client, Cluster, Config, Connect, Load, Setup, bounded,
    config::{OLD_SECRET, OTHER_PID, PID, SHARED_SECRET},
    eventually, json,
    raw::{Raw, opcode, whole},
    run,
};

const NEW_PID: &str = "900";
const THIRD_SECRET: &str = "the-secret-of-502-that-comes-next";

fn other_projects(config: &Config) -> String {
    let new = format!("[[projects]]\npid = \"{NEW_PID}\"\nsecrets = [\"{SHARED_SECRET}\"]\n");
    // The neighbour's place is taken by somebody new, and the usual project's second secret by another.
    let text = config.text().replace(&format!("pid = \"{OTHER_PID}\""), "pid = \"901\"");
    new + &text.replace(OLD_SECRET, THIRD_SECRET)
}

/// Keys of the top level stand before all tables.
fn with_top(line: &str, text: &str) -> String {
    format!("{line}\n{text}")
}

#[test]
fn projects_come_and_go_and_everybody_else_stays() {
    run(Setup::TWO, async |cluster: Cluster| {
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        ann.subscribe(&["kline.a"]).await;
        let mut gone = Connect { pid: OTHER_PID, ..Connect::user("ann") }.to(node).await;
        assert_eq!(node.api_of(NEW_PID).push(&json!({"all": true, "data": 1})).await.status, 401);
        let refused = Connect { pid: NEW_PID, ..Connect::user("eve") }.upgrade(node).await.closed().await;
        assert_eq!(refused.0, 4401);
        let mut by_old = Connect { secret: Some(OLD_SECRET), ..Connect::user("by_old") }.to(node).await;

        reload(node, &other_projects(&cluster.config)).await;
        let (code, reason) = gone.closed().await;
        assert_eq!((code, reason.as_str()), (4401, "the project is not served any more"));
        assert_eq!(node.metric("ws_closes_total reason=\"project_removed\"").await, 1.0);
        assert_eq!(node.other_api().push(&json!({"all": true, "data": 1})).await.status, 401);
        let by = |secret| Api::new(node.http, PID, secret);
        assert_eq!(by(OLD_SECRET).push(&json!({"uids": ["by_old"], "data": 1})).await.status, 401);
        by(THIRD_SECRET).push_ok(&json!({"uids": ["by_old"], "data": "stays"})).await;
        assert_eq!(by_old.next().await["payload"], "stays", "a secret's end ends no connection");
        let mut new = Connect { pid: NEW_PID, ..Connect::user("eve") }.to(node).await;
        node.api_of(NEW_PID).push_ok(&json!({"uids": ["eve"], "data": "to eve"})).await;
        assert_eq!(new.next().await["payload"], "to eve");
        cluster.b().api().publish("kline.a", json!("still here")).await;
        assert_eq!(ann.next().await["payload"], "still here");
        // The other node has not heard of it yet: it knows the old project, and only that.
        assert_eq!(cluster.b().api_of(NEW_PID).push(&json!({"all": true, "data": 1})).await.status, 401);
        let mut neighbour = Connect { pid: OTHER_PID, ..Connect::user("ann") }.to(cluster.b()).await;
        neighbour.settle().await;
        assert!(node.metric("ws_reload_success_timestamp_seconds").await > 1.7e9);
    });
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_and_what_must_wait_is_named() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        node.write_config(&with_top("bogus = 1", &other_projects(&cluster.config)));
        node.signal("HUP");
        let refused = async || node.metric("ws_reloads_total result=\"refused\"").await;
        eventually("the refusal", async || refused().await > 0.0).await;
        let said =
            async || node.printed().iter().any(|line| line.contains("bogus") && line.contains("node.toml line 1"));
        eventually("the reason", said).await;
        assert_eq!(done(node).await, 0.0);
        node.other_api().push_ok(&json!({"all": true, "data": "as before"})).await;
        ann.settle().await;

        reload(node, &with_top("shards = 7\nlog_level = \"debug\"", &other_projects(&cluster.config))).await;
        let waits = async || {
            let named = |line: &String| line.contains("shards") && line.contains("waits for a restart");
            node.printed().iter().any(named)
        };
        eventually("the warning", waits).await;
        let level = async || node.printed().iter().any(|line| line.contains("the log level was changed by a reload"));
        eventually("the level", level).await;
        assert_eq!(node.other_api().push(&json!({"all": true, "data": 1})).await.status, 401, "the rest is applied");
        ann.settle().await;
    });
}

#[test]
fn limits_hold_from_then_on_for_those_who_are_there() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        let mut long = Raw::user(node, "long").await;
        let half = vec![b'x'; 1500];
        long.send(&crate::support::raw::frame(opcode::TEXT, Some([1, 2, 3, 4]), &half)).await;
        ann.subscribe(&["a"]).await;
        node.api().push_ok(&json!({"uids": ["ann"], "data": "x".repeat(3000)})).await;
        ann.next().await;

        let limits = Config::new()
            .limit("tags_per_connection", 1)
            .limit("user_message_bytes_max", 1024)
            .limit("connections_per_uid", 1)
            .limit("http_body_bytes_max", 1024)
            .limit("payload_guidance_bytes", 10);
        reload(node, &limits.text()).await;
        let answer = ann.ask(json!({"type": "subscribe", "tags": ["b"]})).await;
        assert_eq!(answer["payload"]["denied"][0]["err"], "too_many_tags", "{answer}");
        assert_eq!(Connect::user("ann").upgrade(node).await.closed().await.0, 4429);
        // A message that had begun is over the new bound already.
        long.send(&crate::support::raw::frame(0x80, Some([1, 2, 3, 4]), b"x")).await;
        assert_eq!(long.closed().await.0, 1009);
        let mut late = Raw::user(node, "late").await;
        late.send(&whole(opcode::TEXT, &[b'x'; 1025])).await;
        assert_eq!(late.closed().await.0, 1009);
        assert_eq!(node.api().push(&json!({"all": true, "data": "x".repeat(3000)})).await.status, 413);
        let answer = node.api().push(&json!({"uids": ["ann"], "data": "more than ten bytes"})).await;
        assert!(answer.text().contains("warning"), "{}", answer.text());
        ann.next().await;
        drop((long, late));

        reload(node, &cluster.config.text()).await;
        ann.subscribe(&["b"]).await;
        Client::user(node, "ann").await.settle().await;
    });
}

#[test]
fn requests_go_where_the_project_says_now() {
    run(Setup::ONE_EPOLL, async |cluster: Cluster| {
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        let mut backends = [Client::backend(node, "one").await, Client::backend(node, "two").await];
        let request = |number: u32| json!({"type": "request", "affair_id": number.to_string(), "payload": {}});
        // That there is a back-end is known when the log has said so, which may be after its connect was answered.
        let mut number = 2;
        while node.metric("ws_requests_total result=\"sent\"").await < 1.0 {
            ann.send(request(number)).await;
            ann.settle().await;
            number += 1;
        }

        let text = cluster.config.text().replacen("jwt = { algorithm = \"HS256\" }", "requests = \"all\"", 1);
        reload(node, &text).await;
        ann.send(request(1)).await;
        for backend in &mut backends {
            backend.next_where(|message| message["affair_id"] == "1").await;
        }
    });
}

#[test]
fn reloads_under_load_lose_nothing() {
    run(Setup::TWO, async |cluster: Cluster| {
        let load = Load::connect(&cluster.nodes, 2, 2, 1000).await;
        let other = other_projects(&cluster.config).replace("history = { count = 2", "history = { count = 3");
        let reloading = async {
            for round in 0..10 {
                for node in &cluster.nodes {
                    let text = if round % 2 == 0 { other.clone() } else { cluster.config.text() };
                    node.write_config(&text);
                    node.signal("HUP");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let (report, ()) = tokio::join!(load.run(Duration::from_secs(3)), reloading);
        assert!(done(cluster.a()).await >= 3.0, "reloads went through while it ran");
        assert_eq!(report.faults(), 0, "{report}");
        assert!(report.acknowledged > 500, "{report}");
    });
}
