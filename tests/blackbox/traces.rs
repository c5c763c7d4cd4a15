//! One push is one trace, from the way in through the log to the sockets of every node.
//! Method: two nodes export to a collector of the test's own, which decodes what comes with the protocol's own types.

use crate::support::{
    Client, Cluster, Config, Redis, Setup, bounded,
    collector::{Collector, Span},
    config::SECRET,
    eventually, http, json,
    redis::Persistence,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Two nodes over a Redis, which trace one push in so many.
async fn traced(collector: &Collector, one_in: &str) -> Cluster {
    let flags = ["--otlp_endpoint", &collector.endpoint, "--trace_one_in", one_in];
    Cluster::over(Redis::start(Persistence::None).await, 2, Config::new().flags(&flags)).await
}

/// Publishes to `gold` at the first node with a `traceparent`.
async fn publish_with(cluster: &Cluster, traceparent: &str) {
    let body = json!({"tags": ["gold"], "data": "never-in-a-trace"}).to_string();
    let target = cluster.a().api().target("/ws/push", &[], Some(body.as_bytes()));
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\ntraceparent: \
         {traceparent}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(
        http::raw(cluster.a().http, head.as_bytes()).await.payload()["id"].as_str().map(str::is_empty),
        Some(false)
    );
}

async fn spans_of(collector: &Collector, trace_id: &str, wanted: usize) -> Vec<Span> {
    let of_trace = || collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect::<Vec<_>>();
    eventually("the spans are exported", async || of_trace().len() >= wanted).await;
    of_trace()
}

fn find<'s>(spans: &'s [Span], name: &str, node: &str) -> &'s Span {
    let found = spans.iter().find(|span| span.name == name && span.node == node);
    found.unwrap_or_else(|| panic!("no {name} of node {node} in {spans:#?}"))
}

fn attribute<'s>(span: &'s Span, name: &str) -> Option<&'s str> {
    span.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_push_over_http_is_one_trace_on_two_nodes() {
    bounded(async {
        let collector = Collector::start().await;
        let cluster = traced(&collector, "1000000").await;
        // The first push of all is drawn.
        cluster.a().api().publish("other", json!(0)).await;
        let mut there = Client::user(cluster.b(), "ann").await;
        there.subscribe(&["gold"]).await;
        publish_with(&cluster, &format!("00-{TRACE}-{PARENT}-01")).await;
        assert_eq!(there.next().await["payload"], "never-in-a-trace");

        let spans = spans_of(&collector, TRACE, 4).await;
        let (push, near, far) = (find(&spans, "push", "200"), find(&spans, "log", "200"), find(&spans, "log", "201"));
        let deliver = find(&spans, "deliver", "201");
        assert_eq!(push.parent_id, PARENT);
        assert_eq!((near.parent_id.as_str(), far.parent_id.as_str()), (push.span_id.as_str(), push.span_id.as_str()));
        assert_eq!(deliver.parent_id, far.span_id);
        assert_eq!(spans.len(), 4, "the first node has no receiver: {spans:#?}");
        assert_eq!(attribute(push, "way"), Some("http"));
        assert_eq!(attribute(deliver, "messaging.destination.name"), Some("gold"));
        assert!(spans.iter().all(|span| span.times.0 <= span.times.1 && push.times.0 <= span.times.0), "{spans:#?}");
        // Both nodes have one clock here.
        assert!(far.times.1 <= deliver.times.0 && near.times.0 == push.times.0, "{spans:#?}");
        let told = format!("{:?}", collector.spans());
        assert!(!told.contains("never-in-a-trace") && !told.contains(SECRET) && !told.contains("sign="), "{told}");
    });
}

#[test]
fn a_push_over_a_back_ends_socket_is_drawn_and_traced() {
    bounded(async {
        let collector = Collector::start().await;
        let cluster = traced(&collector, "1").await;
        let mut user = Client::user(cluster.b(), "ann").await;
        let mut backend = Client::backend(cluster.a(), "biz").await;
        for number in 0..2 {
            backend.ask(json!({"to": {"uids": ["ann"]}, "payload": number})).await;
            assert_eq!(user.next().await["payload"], number);
        }
        let from_socket = |span: &Span| span.name == "push" && attribute(span, "way") == Some("socket");
        let pushes = || collector.spans().into_iter().filter(from_socket).collect::<Vec<_>>();
        eventually("both pushes are exported", async || pushes().len() == 2).await;
        let pushes = pushes();
        assert_ne!(pushes[0].trace_id, pushes[1].trace_id);
        for push in pushes {
            assert!(push.parent_id.is_empty(), "{push:?}");
            // A user may be on any core, so each of both nodes has its part.
            let spans = spans_of(&collector, &push.trace_id, 7).await;
            assert_eq!(find(&spans, "deliver", "201").parent_id, find(&spans, "log", "201").span_id);
        }
    });
}

#[test]
fn what_its_caller_does_not_sample_has_no_trace() {
    bounded(async {
        let collector = Collector::start().await;
        let cluster = traced(&collector, "1").await;
        publish_with(&cluster, &format!("00-{TRACE}-{PARENT}-00")).await;
        cluster.a().api().publish("gold", json!(1)).await;
        eventually("the other push is exported", async || !collector.spans().is_empty()).await;
        assert!(collector.spans().iter().all(|span| span.trace_id != TRACE), "{:?}", collector.spans());
    });
}

#[test]
fn the_last_spans_are_exported_when_a_node_stops_and_counted() {
    bounded(async {
        let collector = Collector::start().await;
        let flags = ["--otlp_endpoint", &collector.endpoint, "--trace_one_in", "1"];
        let mut cluster = Cluster::start(Setup::ONE, Config::new().flags(&flags)).await;
        for number in 0..20 {
            cluster.a().api().publish("gold", json!(number)).await;
        }
        assert_eq!(cluster.a().metric("ws_trace_spans_total event=\"ended\"").await, 40.0);
        cluster.a().signal("TERM");
        let mut stopped = cluster.nodes.pop().expect("a node");
        assert_eq!(stopped.exited().await, Some(0), "{}", stopped.printed().join("\n"));
        let (pushes, heard) = (collector.spans().into_iter()).partition::<Vec<_>, _>(|span| span.name == "push");
        assert_eq!((pushes.len(), heard.len()), (20, 20));
    });
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let flags = ["--otlp_endpoint", "http://127.0.0.1:1/v1/traces", "--trace_one_in", "1"];
    crate::support::run_with(Setup::ONE, Config::new().flags(&flags), async |cluster: Cluster| {
        let mut user = Client::user(cluster.a(), "ann").await;
        user.subscribe(&["gold"]).await;
        for number in 0..600 {
            cluster.a().api().publish("gold", json!(number)).await;
            assert_eq!(user.next().await["payload"], number);
        }
        eventually("failures are counted", async || {
            cluster.a().metric("ws_trace_spans_total event=\"failed\"").await > 0.0
        })
        .await;
    });
}
