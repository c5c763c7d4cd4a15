//! The API's pages and its description: what is served where and to whom, and whose scripts may read the API's answers.
//! Method: the operators' thread and the API over loopback, with raw requests; `tests/pages/` has a browser do it.

mod http_support;

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    time::Duration,
};

use http_support::{
    Answer, ask,
    exchange::{Fixture, JSON, fixture, fixture_with_pages, json_target},
};
use ws_cluster::{
    admin::{Group, Listener, Operators, Order, Pages, Running, Source, start},
    health::Health,
    http::api::openapi,
    limits::{HttpLimits, Limits},
    metrics::Registry,
    model::{Pid, project::Secret},
};

/// Chosen by the test and never listened on.
const API: &str = "127.0.0.1:8912";
const PAGES: &str = "127.0.0.1:9092";

fn operators(groups: Vec<Group>, token: Option<&str>, pages: Pages) -> (SocketAddr, Running) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let running = start(Operators {
        listeners: vec![Listener { source: Source::Own(socket), groups }],
        token: token.map(Secret::new),
        limits: HttpLimits::default(),
        registry: Registry::default(),
        health: Health::new(200),
        pages,
        reload: std::sync::Arc::new(|| Err("nothing to reload here".to_owned())),
        cmdline: vec![],
        heap_profile: false,
        drain: Order::default(),
        drain_time: Duration::from_secs(20),
    });
    (address, running.expect("the thread starts"))
}

fn pages_of(api: &str) -> Pages {
    let demo = (Pid::new("1").expect("a pid"), Secret::new("a \"secret\""));
    Pages { api: Some(api.parse().expect("an address")), exp: Duration::from_secs(300), demo: Some(demo) }
}

fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: node.internal:9092\r\n{headers}\r\n"))
}

#[test]
fn the_checked_in_document_is_the_one_that_is_printed_and_served() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let checked_in = std::fs::read_to_string(file).expect("docs/openapi.json");
    let printed = Command::new(env!("CARGO_BIN_EXE_ws-cluster")).arg("openapi").output().expect("it runs");
    assert!(printed.status.success());
    let is_same = printed.stdout == checked_in.as_bytes();
    assert!(is_same, "docs/openapi.json is not up to date: ws-cluster openapi > docs/openapi.json");
    let (address, running) = operators(vec![Group::Swagger], None, Pages::default());
    let served = get(address, "/openapi.json", "");
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")));
    assert_eq!(served.body, openapi::json());
    assert_eq!(served.body, checked_in);
    running.stop();
}

#[test]
fn everything_that_the_page_asks_for_is_there_and_nothing_else() {
    let (address, running) = operators(vec![Group::Swagger], None, pages_of(API));
    for path in ["/swagger", "/swagger/"] {
        let answer = get(address, path, "");
        assert_eq!((answer.status, answer.header("location")), (302, Some("/swagger/index.html")));
    }
    let page = get(address, "/swagger/index.html", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let quoted = page.body.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
    let files: Vec<&str> = quoted.collect();
    assert_eq!(files, ["swagger-ui.css", "pages.css", "swagger-ui-bundle.js", "signing.js", "swagger-initializer.js"]);
    for file in files {
        let answer = get(address, &format!("/swagger/{file}"), "");
        assert!(answer.status == 200 && answer.body.len() > 200, "{file}");
        let kind = if file.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(answer.header("content-type"), Some(kind), "{file}");
    }
    let config = get(address, "/swagger/config.json", "");
    assert_eq!(
        config.body,
        r#"{"api":"http://127.0.0.1:8912","exp_s":300,"demo":{"pid":"1","secret":"a \"secret\""}}"#
    );
    for path in
        ["/swagger/oauth2-redirect.html", "/swagger/../Cargo.toml", "/swagger/%2e%2e/x", "/swaggers", "/v1/push"]
    {
        assert_eq!(get(address, path, "").status, 404, "{path}");
    }
    assert!(get(address, "/", "").body.contains("/swagger/index.html"));
    running.stop();
}

#[test]
fn the_page_may_run_its_own_scripts_and_talk_to_its_own_node() {
    let policy = |api: &str, host: &str| {
        let (address, running) = operators(vec![Group::Swagger], None, pages_of(api));
        let answer = ask(address, &format!("GET /swagger/index.html HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        running.stop();
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        answer.header("content-security-policy").expect("a policy").to_owned()
    };
    let strict = policy(API, "localhost:9092");
    assert!(strict.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{strict}");
    assert!(strict.contains("connect-src 'self' http://127.0.0.1:8912;"), "{strict}");
    assert!(!strict.contains("unsafe") && !strict.contains('*'), "{strict}");
    // An API on every address is reached under the name that the page was.
    assert!(policy("0.0.0.0:8912", "node.internal:9092").contains("connect-src 'self' http://node.internal:8912;"));
    assert!(policy("[::]:8912", "[::1]:9092").contains("connect-src 'self' http://[::1]:8912;"));
    for host in ["*:9092", "a;script-src", "a'b", "a,b"] {
        let (address, running) = operators(vec![Group::Swagger], None, pages_of("0.0.0.0:8912"));
        let answer = ask(address, &format!("GET /swagger/index.html HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        running.stop();
        let policy = answer.header("content-security-policy").unwrap_or("connect-src 'self' http://127.0.0.1:8912;");
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:8912;"), "{host}: {policy}");
    }
}

#[test]
fn the_pages_are_on_their_own_listener_and_want_the_token_as_a_browser_sends_it() {
    let (address, running) = operators(vec![Group::Metrics], None, pages_of(API));
    for path in ["/swagger", "/swagger/index.html", "/swagger/config.json", "/openapi.json"] {
        assert_eq!(get(address, path, "").status, 404, "{path}");
    }
    running.stop();
    let (address, running) = operators(vec![Group::Swagger, Group::Metrics], Some("a long token"), pages_of(API));
    // anyone:a long token, and anyone:a long toke
    let (good, bad) = ("Basic YW55b25lOmEgbG9uZyB0b2tlbg==", "Basic YW55b25lOmEgbG9uZyB0b2tl");
    let status = |path, given: &str| get(address, path, &format!("Authorization: {given}\r\n")).status;
    for path in ["/swagger/index.html", "/swagger/config.json", "/openapi.json"] {
        let answer = get(address, path, "");
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(r#"basic realm="operators""#)));
        assert!(!answer.body.contains("secret"));
        assert_eq!((status(path, good), status(path, bad), status(path, "Basic !")), (200, 401, 401), "{path}");
        assert_eq!(status(path, "Bearer a long token"), 200, "{path}");
    }
    assert_eq!(status("/metrics", good), 401, "what a browser sends unasked opens the pages alone");
    running.stop();
}

fn call(fixture: &Fixture, method: &str, path: &str, headers: &str) -> Answer {
    ask(fixture.address, &format!("{method} {path} HTTP/1.1\r\nHost: {API}\r\n{headers}\r\n"))
}

#[test]
fn scripts_of_the_nodes_own_pages_may_read_answers_and_no_others() {
    let fixture = fixture_with_pages(Limits::default(), Some(PAGES.parse().expect("an address")));
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
    for (path, status) in [("/health", 200), ("/v1/online", 401), ("/nothing", 404), ("/v1/push", 405)] {
        for (origin, told) in [(PAGES, true), ("localhost:9092", true), ("127.0.0.1:9093", false), ("evil:9092", false)]
        {
            let answer = call(&fixture, "GET", path, &format!("Origin: http://{origin}\r\n"));
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(allowed(&answer), told.then(|| format!("http://{origin}")), "{path} {origin}");
            assert_eq!(answer.header("vary"), Some("origin"), "{path}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
        assert_eq!(allowed(&call(&fixture, "GET", path, "")), None, "{path}");
    }
    let asks = format!("Origin: http://{PAGES}\r\nAccess-Control-Request-Method: POST\r\n");
    let answer = call(&fixture, "OPTIONS", "/ws/push", &asks);
    assert_eq!((answer.status, allowed(&answer)), (200, Some(format!("http://{PAGES}"))));
    assert_eq!(answer.header("access-control-allow-methods"), Some("post"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
    assert_eq!(call(&fixture, "OPTIONS", "/nothing", &asks).status, 404);
    assert_eq!(call(&fixture, "OPTIONS", "/ws/push", &asks.replace("9092", "9093")).status, 405);
    assert!(fixture.asked_nothing(), "a question of the browser pushes nothing");
    let body = r#"{"uids":["ann"],"data":1}"#;
    assert_eq!(fixture.call("POST", &json_target("/ws/push", body), JSON, body).status, 200);
}

#[test]
fn without_pages_nobodys_scripts_may_read_answers() {
    let fixture = fixture(Limits::default());
    let asks = format!("Origin: http://{PAGES}\r\nAccess-Control-Request-Method: POST\r\n");
    for (method, path, status) in [("OPTIONS", "/ws/push", 405), ("GET", "/health", 200)] {
        let answer = call(&fixture, method, path, &asks);
        assert_eq!(answer.status, status);
        assert!(!answer.head.contains("access-control") && answer.header("vary").is_none(), "{}", answer.head);
    }
}

#[test]
fn a_project_that_a_body_names_is_a_text() {
    let fixture = fixture(Limits::default());
    for (body, status) in [
        (r#"{"uids":["ann"],"data":1,"pid":"1"}"#, 200),
        (r#"{"uids":["ann"],"data":1,"pid":null}"#, 200),
        (r#"{"uids":["ann"],"data":1,"pid":"2"}"#, 403),
        (r#"{"uids":["ann"],"data":1,"pid":1}"#, 400),
        (r#"{"uids":["ann"],"data":1,"pid":"1","pid":"2"}"#, 400),
    ] {
        assert_eq!(fixture.call("POST", &json_target("/ws/push", body), JSON, body).status, status, "{body}");
    }
}
