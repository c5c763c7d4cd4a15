//! `POST /admin/reload`: what came of it, told to whoever ordered it, and to nobody's browser.

use super::{done, one_node};
use crate::support::{Node, bounded, http, json};

const TARGET: &str = "/admin/reload";

async fn order(node: &Node) -> http::Response {
    http::request(node.pprof, "POST", TARGET, "text/plain", b"").await
}

#[test]
fn an_operator_is_told_what_was_changed_what_waits_and_what_is_wrong() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        let nothing = order(node).await;
        assert_eq!(nothing.payload(), json!({"changed": [], "restart": [], "warnings": []}));

        let text = cluster.config.text().replace("[limits]", "shards = 7\n[limits]\nmessages_per_second = 51");
        node.write_config(&text.replace("max_hz = 5", "max_hz = 6"));
        let told = order(node).await;
        let expected = json!({"changed": ["messages_per_second", "tags"], "restart": ["shards"], "warnings": []});
        assert_eq!(told.payload(), expected);
        assert_eq!(done(node).await, 2.0);

        node.write_config(&text.replace("max_hz = 5", "max_hz = 5000"));
        let refused = order(node).await;
        assert_eq!((refused.status, refused.err().as_str()), (422, "refused"));
        let text = refused.text();
        assert!(["max_hz", "5000", "node.toml line", "too large"].iter().all(|part| text.contains(part)), "{text}");
        assert_eq!((done(node).await, node.metric("ws_reloads_total result=\"refused\"").await), (2.0, 1.0));
    });
}

#[test]
fn it_is_an_order_and_comes_from_no_page() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        assert_eq!(http::get(node.pprof, TARGET).await.status, 405);
        assert_eq!(http::get(node.metrics, TARGET).await.status, 404);
        let from_a_page = format!(
            "POST {TARGET} HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(http::raw(node.pprof, from_a_page.as_bytes()).await.status, 403);
        assert_eq!(done(node).await, 0.0);
    });
}
