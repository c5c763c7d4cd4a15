//! What a real node logs: its last line too, at the level that an operator asks for, and nothing that is secret.

mod support;

use std::{path::PathBuf, time::Duration};

use support::{Cluster, Config, Connect, Node, Setup, Value, eventually, http, run_with, unique};

/// A file in a folder of the test's own, which goes with its value.
struct LogFile(PathBuf);

impl LogFile {
    fn new() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("log"));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder.join("ws-cluster.log"))
    }

    fn config(&self) -> Config {
        let path = self.0.to_string_lossy().into_owned();
        Config::new().limit("drain", "\"1s\"").limit("close_timeout", "\"1s\"").flags(&["--log_file", &path])
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// The messages of JSON lines; every line must be one.
    fn messages(&self) -> Vec<String> {
        let text = self.text();
        assert!(text.is_empty() || text.ends_with('\n'), "the end is torn: {text}");
        let read =
            |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) };
        text.lines().map(|line| read(line)["fields"]["message"].as_str().expect("a message").to_owned()).collect()
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

async fn stop(mut cluster: Cluster) -> (Option<i32>, Node) {
    cluster.a().signal("TERM");
    let mut node = cluster.nodes.pop().expect("a node");
    (node.exited().await, node)
}

#[test]
fn the_last_line_of_a_node_that_was_told_to_stop_is_in_the_file() {
    let log = LogFile::new();
    let config = log.config().flags(&["--log_format", "json", "--log_targets", "ws_cluster::node::start=warn"]);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let node = cluster.a().id.to_string();
        assert_eq!(cluster.a().metric("ws_log_lines_dropped_total").await, 0.0);
        assert!(cluster.a().metric("ws_log_lines_total level=\"info\"").await >= 1.0);
        let (status, stopped) = stop(cluster).await;
        assert_eq!(status, Some(0));
        let messages = log.messages();
        assert_eq!(messages.last().map(String::as_str), Some("drained and stopped"), "{messages:?}");
        assert!(messages.iter().any(|message| message.starts_with("draining")), "{messages:?}");
        assert!(
            !messages.iter().any(|message| message == "the cores run"),
            "that module's level is warn: {messages:?}"
        );
        assert!(log.text().lines().all(|line| line.contains(&format!("\"node\":{node},"))), "{}", log.text());
        assert!(!stopped.printed().iter().any(|line| line.contains("draining")), "lines go to one place");
    });
}

#[test]
fn the_standard_error_has_the_last_line_too() {
    run_with(
        Setup::ONE,
        Config::new().limit("drain", "\"1s\"").limit("close_timeout", "\"1s\""),
        async |cluster: Cluster| {
            let (status, stopped) = stop(cluster).await;
            assert_eq!(status, Some(0));
            eventually("the last line", async || {
                stopped.printed().iter().any(|line| line.contains(" INFO drained and stopped "))
            })
            .await;
        },
    );
}

#[test]
fn the_level_changes_while_the_node_runs_and_a_typo_changes_nothing() {
    let log = LogFile::new();
    let config = log.config().flags(&["--log_level", "error", "--log_format", "json", "--pprof_port", "0"]);
    run_with(Setup::ONE, config, async |cluster: Cluster| {
        let pprof = cluster.a().pprof;
        let level = async || http::get(pprof, "/admin/log-level").await.payload()["level"].clone();
        let order = async |query: &str| {
            http::request(pprof, "POST", &format!("/admin/log-level{query}"), "text/plain", b"").await
        };
        assert_eq!(level().await, "error");
        assert_eq!(log.messages(), [] as [&str; 0], "nothing is wrong, so nothing is logged");
        for bad in
            ["", "?level=", "?level=debgu", "?level=info,x", "?levle=info", "?level=info&level=off", "?level=trace"]
        {
            let answer = order(bad).await;
            assert_eq!((answer.status, answer.err().as_str()), (400, "bad_request"), "{bad}");
        }
        assert_eq!(level().await, "error");
        // What an operator's browser is made to fetch changes nothing.
        http::get(pprof, "/admin/log-level?level=debug").await;
        assert_eq!(level().await, "error");
        assert_eq!(http::get(cluster.a().metrics, "/admin/log-level").await.status, 404, "on the pprof listener alone");
        let answer = order("?level=info,ws_cluster::hub%3Doff").await.payload();
        assert_eq!((&answer["level"], &answer["before"]), (&"info,ws_cluster::hub=off".into(), &"error".into()));
        let form = http::request(
            pprof,
            "POST",
            "/admin/log-level",
            "application/x-www-form-urlencoded",
            b"level=info,ws_cluster::node::stop=error",
        );
        assert_eq!(form.await.payload()["level"], "info,ws_cluster::node::stop=error");
        eventually("two changes are logged", async || log.messages().len() == 2).await;
        assert_eq!(order("?level=info").await.status, 200);
        let (status, _) = stop(cluster).await;
        assert_eq!(status, Some(0));
        assert_eq!(log.messages().last().map(String::as_str), Some("drained and stopped"));
    });
}

#[test]
fn the_log_is_moved_away_and_goes_on_and_no_secret_is_in_it() {
    let log = LogFile::new();
    run_with(
        Setup::ONE,
        log.config().flags(&["--log_level", "debug", "--pprof_port", "0"]),
        async |cluster: Cluster| {
            let node = cluster.a();
            let target = Connect::user("ann").target();
            let mut client = Connect::user("ann").to(node).await;
            client.settle().await;
            let away = log.0.with_extension("moved");
            std::fs::rename(&log.0, &away).expect("moved");
            tokio::time::sleep(Duration::from_millis(1100)).await;
            // The panic that a client orders is the worst that there is to say of its bytes.
            client.send_text("!panic-connection the hush of the payload").await;
            assert_eq!(client.closed_within(support::PATIENCE).await.0, 1011);
            eventually("the panic is logged", async || log.text().contains("panicked: ")).await;
            let text = std::fs::read_to_string(&away).expect("the old file") + &log.text();
            let sign = target.rsplit_once("sign=").expect("a sign").1;
            for secret in ["hush", sign, support::config::SECRET] {
                assert!(!text.contains(secret), "{secret} in:\n{text}");
            }
            assert!(log.text().contains("src/shard/gateway/plant.rs:"), "it says where: {}", log.text());
        },
    );
}

#[test]
fn a_log_file_that_cannot_be_had_ends_the_start_by_name() {
    support::bounded(async {
        let (status, _, error) = support::node::run_to_end(&["--ws_port", "0", "--log_file", "/dev/null/x.log"]).await;
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains("log_file /dev/null/x.log: "), "{error}");
        for (key, value) in [("--log_targets", "debgu"), ("--log_file", "logs/"), ("--sentry_dsn", "https://hidden@/1")]
        {
            let (status, _, error) = support::node::run_to_end(&[key, value]).await;
            assert_eq!(status, Some(64), "{error}");
            assert!(error.contains(&key[2..]) && !error.contains("hidden"), "{error}");
        }
    });
}
