//! The operators' listeners: metrics that the dashboards' queries find, health for probes, a token for the rest.
//! Method: the real thread over loopback, with counters set by the test.

mod http_support;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use http_support::ask;
use ws_cluster::{
    admin::{Group, Listener, Operators, Order, Pages, Running, Source, start},
    health::{Health, State},
    limits::HttpLimits,
    metrics::{
        Count, Registry,
        requests::{Method, Url},
    },
    model::project::Secret,
};

struct Fixture {
    address: SocketAddr,
    registry: Registry,
    health: Arc<Health>,
    running: Running,
}

fn fixture(groups: Vec<Group>, token: Option<&str>) -> Fixture {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let (registry, health) = (Registry::default(), Health::new(200));
    let running = start(Operators {
        listeners: vec![Listener { source: Source::Own(socket), groups }],
        token: token.map(Secret::new),
        limits: HttpLimits::default(),
        registry: registry.clone(),
        health: health.clone(),
        pages: Pages::default(),
        reload: Arc::new(|| Err("nothing to reload here".to_owned())),
        cmdline: ["ws-cluster", "--operator_token", "***"].map(str::to_owned).into(),
        heap_profile: false,
        drain: Order::default(),
        drain_time: Duration::from_secs(20),
    });
    Fixture { address, registry, health, running: running.expect("the thread starts") }
}

fn get(address: SocketAddr, path: &str, header: &str) -> http_support::Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n"))
}

#[test]
fn the_metrics_sum_what_the_threads_counted() {
    let fixture = fixture(vec![Group::Metrics], None);
    for (core, seconds) in [("0", 0.2), ("1", 0.4)] {
        let counters = fixture.registry.register(core);
        counters.set(Count::UserConnections, 7);
        counters.requests().record(Method::Post, Url::Push, 200, Duration::from_secs_f64(seconds));
    }
    let answer = get(fixture.address, "/metrics", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4")));
    for line in [
        r#"ws_connection{core="0",type="user"} 7"#,
        r#"ws_connection{core="1",type="user"} 7"#,
        r#"request_duration_bucket{code="200",method="POST",url="/ws/push",le="0.3"} 1"#,
        r#"request_duration_bucket{code="200",method="POST",url="/ws/push",le="+Inf"} 2"#,
        r#"request_duration_count{code="200",method="POST",url="/ws/push"} 2"#,
        "# TYPE request_duration histogram",
        "# TYPE ws_connection gauge",
        "# TYPE ws_pushes_total counter",
        r#"request_url_total{url="/ws/push"} 2"#,
        "request_total 2",
        "ws_ready 0",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line} is not in\n{}", answer.body);
    }
    assert!(answer.body.contains("ws_build_info{version="));
    let again = get(fixture.address, "/metrics", "");
    let scraped = r#"request_url_total{url="/metrics"} 1"#;
    assert!(again.body.contains(scraped), "a scrape is a request too\n{}", again.body);
    fixture.running.stop();
}

#[test]
fn health_is_open_and_the_rest_wants_the_token() {
    let fixture = fixture(vec![Group::Metrics], Some("a long token"));
    assert_eq!(get(fixture.address, "/ready", "").status, 503);
    fixture.health.set(State::Ready);
    for path in ["/live", "/ready", "/health"] {
        assert_eq!(get(fixture.address, path, "").status, 200, "{path}");
    }
    for header in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer a long toke\r\n",
        "Authorization: Bearer a long tokeN\r\n",
        "Authorization: Basic a long token\r\n",
    ] {
        let answer = get(fixture.address, "/metrics", header);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("bearer")), "{header}");
        assert!(!answer.body.contains("a long token"));
    }
    assert_eq!(get(fixture.address, "/metrics", "Authorization: bearer a long token\r\n").status, 200);
    assert_eq!(get(fixture.address, "/", "Authorization: Bearer a long token\r\n").status, 200);
    fixture.running.stop();
}

#[test]
fn a_listener_serves_its_own_groups_only() {
    let fixture = fixture(vec![Group::Pprof], None);
    let answer = ask(fixture.address, "PUT /admin/log-level HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("get, head, post")));
    let answer =
        ask(fixture.address, "POST /admin/log-level?level=off HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n");
    assert_eq!(answer.status, 403, "any page could do it");
    assert_eq!(get(fixture.address, "/metrics", "").status, 404);
    let index = get(fixture.address, "/", "").body;
    assert!(!index.contains("/metrics") && index.contains("/debug/pprof/"), "{index}");
    let answer = ask(fixture.address, "POST /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("get, head")));
    fixture.running.stop();

    let others = self::fixture(vec![Group::Metrics, Group::Swagger], None);
    for path in ["/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1"] {
        assert_eq!(get(others.address, path, "").status, 404, "{path}");
    }
    assert!(!get(others.address, "/", "").body.contains("pprof"));
    others.running.stop();
}

#[test]
fn profiles_want_the_token() {
    let fixture = fixture(vec![Group::Pprof], Some("a long token"));
    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/threads", "/debug/pprof/symbol"]
    {
        assert_eq!(get(fixture.address, path, "").status, 401, "{path}");
    }
    let page = get(fixture.address, "/debug/pprof/", "Authorization: Bearer a long token\r\n");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for name in ["profile", "flamegraph", "heap", "allocs", "threads", "cmdline", "symbol"] {
        assert!(page.body.contains(&format!("<a href=\"{name}\">")), "{name}: {}", page.body);
    }
    fixture.running.stop();
}

#[test]
fn profiles_say_what_is_wrong_with_a_request() {
    let fixture = fixture(vec![Group::Pprof], None);
    for query in ["seconds=0", "seconds=61", "seconds=x", "seconds=", "seconds=1.5", "seconds=1&seconds=2"] {
        for page in ["profile", "flamegraph", "heap"] {
            let answer = get(fixture.address, &format!("/debug/pprof/{page}?{query}"), "");
            assert_eq!(answer.status, 400, "{page}?{query}: {}", answer.body);
            assert!(
                answer.body.starts_with(r#"{"code":0,"err":"bad_request","msg":"seconds must be"#),
                "{}",
                answer.body
            );
        }
    }
    let answer = get(fixture.address, "/debug/pprof", "");
    assert_eq!((answer.status, answer.header("location")), (301, Some("/debug/pprof/")));
    assert_eq!(get(fixture.address, "/debug/pprof/nothing", "").status, 404);
    let posted = |path: &str| ask(fixture.address, &format!("POST {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(posted("/debug/pprof/profile?seconds=1").status, 405);
    assert_eq!(posted("/debug/pprof/symbol").body, "num_symbols: 1\n");
    assert_eq!(posted(&format!("/debug/pprof/symbol?{}", "0x1+".repeat(1025))).status, 400);
    // The test's own allocator is not jemalloc.
    let heap = get(fixture.address, "/debug/pprof/heap", "");
    assert_eq!((heap.status, heap.body.contains("not_supported")), (501, true), "{}", heap.body);
    fixture.running.stop();
}
