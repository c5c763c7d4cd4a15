//! Errors and panics of a real node reach Sentry with release, node and stack, and without a secret.
//!
//! Method: the test is the endpoint: a small HTTP server that takes envelopes (`POST /api/7/envelope/`) and keeps their
//! events. Nodes panic on order (a feature of test builds), with words in the message that no event may have.

mod support;

use std::{net::SocketAddr, sync::Arc};

use support::{Client, Cluster, Config, Connect, Setup, Value, config::SECRET, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const KEY: &str = "a1b2c3hidden";

#[expect(clippy::disallowed_types, reason = "the test's own list, held for a push")]
type Kept = Arc<std::sync::Mutex<Vec<String>>>;

/// An endpoint that speaks Sentry's protocol as far as a client needs it.
struct Endpoint {
    address: SocketAddr,
    envelopes: Kept,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, envelopes) = (listener.local_addr().expect("an address"), Kept::default());
        let kept = envelopes.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, kept.clone()));
            }
        });
        Self { address, envelopes }
    }

    fn config(&self) -> Config {
        let dsn = format!("\"http://{KEY}@{}/7\"", self.address);
        Config::new().limit("drain", "\"1s\"").limit("close_timeout", "\"1s\"").set("sentry_dsn", &dsn)
    }

    /// All requests as they came, heads included.
    fn text(&self) -> String {
        self.envelopes.lock().expect("no test panics with it").join("\n")
    }

    /// The events that have come: an envelope is lines, of which the event is the third.
    fn events(&self) -> Vec<Value> {
        let envelopes = self.envelopes.lock().expect("no test panics with it");
        let bodies = envelopes.iter().filter_map(|request| request.split_once("\r\n\r\n"));
        bodies.filter_map(|(_, body)| serde_json::from_str(body.lines().nth(2)?).ok()).collect()
    }

    /// Waits for an event with this text in its exception.
    async fn event(&self, text: &str) -> Value {
        eventually(text, async || self.find(text).is_some()).await;
        self.find(text).expect("it was there")
    }

    fn find(&self, text: &str) -> Option<Value> {
        self.events().into_iter().find(|event| value(event).contains(text))
    }
}

/// Keeps what one connection sends; each request is answered as Sentry does.
async fn serve(mut stream: TcpStream, kept: Kept) {
    let (mut received, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        while let Some(length) = request_length(&received) {
            let request: Vec<u8> = received.drain(..length).collect();
            kept.lock().expect("no test panics with it").push(String::from_utf8_lossy(&request).into_owned());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => received.extend_from_slice(&buffer[..n]),
        }
    }
}

/// The length of the first request, when all of it is there.
fn request_length(received: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(received) else { return None };
    assert_eq!((head.method, head.path), (Some("POST"), Some("/api/7/envelope/")));
    let body = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body: usize = body.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).expect("a length");
    (received.len() >= length + body).then_some(length + body)
}

fn value(event: &Value) -> &str {
    event["exception"]["values"][0]["value"].as_str().unwrap_or_default()
}

/// What every event of node 200's core has, and a stack that begins in `file`.
fn check(event: &Value, file: &str) {
    assert_eq!(event["release"], concat!("ws-cluster@", env!("CARGO_PKG_VERSION")), "{event}");
    assert_eq!((&event["environment"], &event["server_name"]), (&"test".into(), &"node-200".into()), "{event}");
    let tags = &event["tags"];
    assert_eq!(tags["node"], "200", "{event}");
    let core = tags["core"].as_str().expect("a core");
    assert_eq!(tags["thread"], format!("core-{core}"), "{event}");
    let frames = event["exception"]["values"][0]["stacktrace"]["frames"].as_array().expect("a stack");
    let names: Vec<&str> = frames.iter().filter_map(|frame| frame["function"].as_str()).collect();
    let innermost = frames.last().expect("frames");
    assert_eq!(innermost["filename"], file, "{names:#?}");
    assert!(innermost["lineno"].as_u64().is_some_and(|line| line > 0), "{innermost}");
    assert_eq!(innermost["in_app"], true, "{innermost}");
    assert!(frames.len() > 10, "{names:#?}");
}

async fn panicking(cluster: &Cluster, order: &str) -> Client {
    let mut client = Connect::user("ann").to(cluster.a()).await;
    client.send_text(&format!("{order} hush {SECRET} sign=hush")).await;
    client
}

fn no_secret_in(text: &str) {
    assert!(!text.is_empty());
    for secret in ["hush", SECRET, "the-secret-of", "query_string", "\"request\"", "\"user\"", "breadcrumbs"] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
}

#[test]
fn a_panic_of_a_connection_is_reported_and_costs_that_connection_alone() {
    support::bounded(async {
        let endpoint = Endpoint::start().await;
        let cluster = Cluster::start(Setup::ONE, endpoint.config()).await;
        let mut other = Client::user(cluster.a(), "bob").await;
        let mut client = panicking(&cluster, "!panic-connection").await;
        assert_eq!(client.closed().await.0, 1011);
        let event = endpoint.event("panicked: ").await;
        check(&event, "src/shard/gateway/plant.rs");
        assert_eq!((&event["level"], &event["exception"]["values"][0]["type"]), (&"fatal".into(), &"panic".into()));
        assert!(
            event["extra"]["at"].as_str().is_some_and(|at| at.starts_with("src/shard/gateway/plant.rs:")),
            "{event}"
        );
        let event = endpoint.event("a connection ended by a panic").await;
        check(&event, "src/shard/connection.rs");
        assert_ne!(event["level"], "fatal", "error is the level without a word");
        no_secret_in(&endpoint.text());
        other.settle().await;
        assert_eq!(cluster.a().metric("ws_error_reports_total result=\"sent\"").await, 2.0);
    });
}

#[test]
fn a_panic_of_a_core_is_reported_and_logged_before_the_process_ends() {
    support::bounded(async {
        let endpoint = Endpoint::start().await;
        let mut cluster = Cluster::start(Setup::ONE, endpoint.config()).await;
        let _client = panicking(&cluster, "!panic-core").await;
        let mut node = cluster.nodes.pop().expect("a node");
        assert_eq!(node.exited().await, Some(101));
        // It has ended: what has not come by now never will.
        check(&endpoint.find("panicked: ").expect("the panic"), "src/shard/gateway/plant.rs");
        let ended = endpoint.find("a core has ended").expect("what became of it");
        assert_eq!(ended["extra"]["panicked"], "true", "{ended}");
        no_secret_in(&endpoint.text());
        let logged = async || node.printed().iter().any(|line| line.contains("a core has ended"));
        eventually("the last line", logged).await;
        no_secret_in(&node.printed().join("\n").replace(&endpoint.address.to_string(), ""));
    });
}

#[test]
fn what_is_over_the_rate_is_counted_and_told_with_the_next_report() {
    support::bounded(async {
        let endpoint = Endpoint::start().await;
        // One more each two seconds.
        let cluster = Cluster::start(Setup::ONE, endpoint.config().limit("sentry_events_per_minute", 30)).await;
        for _ in 0..20 {
            panicking(&cluster, "!panic-connection").await.closed().await;
        }
        let over = cluster.a().metric("ws_error_reports_total result=\"over_rate\"").await;
        let sent = async || cluster.a().metric("ws_error_reports_total result=\"sent\"").await;
        assert!(over > 0.0, "forty reports against a burst of twenty");
        eventually("the others are sent", async || sent().await + over >= 40.0).await;
        let told = |event: &Value| event["extra"]["reports_turned_away_before"].as_u64();
        while endpoint.events().iter().filter_map(told).sum::<u64>() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            panicking(&cluster, "!panic-connection").await.closed().await;
        }
        let told: u64 = endpoint.events().iter().filter_map(told).sum();
        let over = cluster.a().metric("ws_error_reports_total result=\"over_rate\"").await;
        assert!(told >= 1 && told as f64 <= over, "{told} told of {over}");
    });
}

#[test]
fn an_endpoint_that_does_not_answer_holds_up_neither_the_node_nor_its_end() {
    support::bounded(async {
        // It listens, and nobody ever accepts.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = Endpoint { address: silent.local_addr().expect("an address"), envelopes: Kept::default() };
        let mut cluster = Cluster::start(Setup::ONE, endpoint.config()).await;
        panicking(&cluster, "!panic-connection").await.closed().await;
        Client::user(cluster.a(), "bob").await.settle().await;
        cluster.a().signal("TERM");
        let mut node = cluster.nodes.pop().expect("a node");
        assert_eq!(node.exited().await, Some(0));
        let said = async || node.printed().iter().any(|line| line.contains("not every report"));
        eventually("it says so", said).await;
    });
}

#[test]
fn a_secret_that_came_with_a_reload_is_in_no_report_either() {
    const NEW_SECRET: &str = "brand-new-for-502-after-a-reload";
    support::bounded(async {
        let endpoint = Endpoint::start().await;
        let cluster = Cluster::start(Setup::ONE, endpoint.config()).await;
        let (node, new) = (cluster.a(), endpoint.config().text().replace(SECRET, NEW_SECRET));
        node.write_config(&new);
        node.signal("HUP");
        let done = async || node.metric("ws_reloads_total result=\"done\"").await;
        eventually("the reload", async || done().await == 1.0).await;
        // Somebody puts it in the wrong place, and what is refused is quoted.
        node.write_config(&format!("log_format = \"{NEW_SECRET}\"\n{new}"));
        node.signal("HUP");
        let event = endpoint.event("the reload is refused").await;
        assert!(value(&event).contains("log_format = \"***\""), "{event}");
        assert!(!endpoint.text().contains(NEW_SECRET));
    });
}
