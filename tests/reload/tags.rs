//! New rules for tags hold for those that are there already.

use super::{one_node, reload};
use crate::support::{Client, bounded, eventually, json};

/// The file with other rules before its own.
fn with_rules(text: &str, rules: &str) -> String {
    text.replacen("[[tags]]", &format!("{rules}\n[[tags]]"), 1)
}

#[test]
fn who_may_not_follow_any_more_is_told_and_who_was_subscribed_by_a_back_end_stays() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        let mut ann = Client::user(node, "ann").await;
        ann.subscribe(&["feed.ann", "feed.bob", "open"]).await;
        let mut bob = Client::user(node, "bob").await;
        let mut backend = Client::backend(node, "biz").await;
        let order = json!({"type": "control", "op": "subscribe", "to": {"uids": ["bob"]}, "tags": ["feed.ann"]});
        backend.ask(order).await;
        node.api().publish("feed.ann", json!(1)).await;
        assert_eq!(ann.next().await["payload"], 1);
        assert_eq!(bob.next().await["payload"], 1);

        let rules = "[[tags]]\nmatch = \"feed.*\"\naccess = \"own\"\n";
        reload(node, &with_rules(&cluster.config.text(), rules)).await;
        let told = ann.next().await;
        assert_eq!(told["payload"]["denied"], json!([{"tag": "feed.bob", "err": "denied"}]), "{told}");
        assert_eq!(node.metric("ws_subscriptions_ended_total").await, 1.0);
        for (tag, value) in [("feed.bob", 2), ("feed.ann", 3), ("open", 4)] {
            node.api().publish(tag, json!(value)).await;
        }
        assert_eq!(ann.next().await["payload"], 3, "nothing of feed.bob");
        assert_eq!(ann.next().await["payload"], 4);
        assert_eq!(bob.next().await["payload"], 3, "a back-end has subscribed him");
        let answer = ann.ask(json!({"type": "subscribe", "tags": ["feed.bob"]})).await;
        assert_eq!(answer["payload"]["denied"][0]["err"], "denied", "{answer}");
    });
}

#[test]
fn history_dedup_and_rates_change_for_tags_that_have_values() {
    bounded(async {
        let cluster = one_node().await;
        let node = cluster.a();
        let mut ids = Vec::new();
        for value in 0..5 {
            ids.push(node.api().publish("t.history", json!(value)).await);
        }
        let mut ann = Client::user(node, "ann").await;
        ann.ask(json!({"type": "subscribe", "tags": [{"tag": "t.history", "since": ids[2]}]})).await;
        assert_eq!([ann.next().await["payload"].clone(), ann.next().await["payload"].clone()], [3, 4]);
        ann.subscribe(&["t.dedup", "t.latest"]).await;
        for value in [1, 1] {
            node.api().publish("t.dedup", json!(value)).await;
            assert_eq!(ann.next().await["payload"], value);
        }

        let rules = "[[tags]]\nmatch = \"t.history\"\nhistory = { count = 1, age_s = 600, bytes = 1000 }\n\
                     [[tags]]\nmatch = \"t.dedup\"\ndedup = true\n\
                     [[tags]]\nmatch = \"t.latest\"\nclass = \"latest\"\nmax_hz = 1\n";
        reload(node, &with_rules(&cluster.config.text(), rules)).await;
        node.api().publish("t.dedup", json!(1)).await;
        node.api().publish("t.dedup", json!(2)).await;
        assert_eq!(ann.next().await["payload"], 2, "what equals the last value is passed over");
        for value in 0..4 {
            node.api().publish("t.latest", json!(value)).await;
        }
        assert_eq!(ann.next().await["payload"], 0);
        let merged = ann.next().await;
        assert_eq!((&merged["payload"], &merged["merged"]), (&json!(3), &json!(2)), "{merged}");
        let history = async || {
            let state = node.api().get("/v1/tags/t.history", &[]).await.payload();
            state["history"].as_array().map_or(0, Vec::len)
        };
        eventually("the ring is shorter", async || history().await == 1).await;
        let mut late = Client::user(node, "late").await;
        late.ask(json!({"type": "subscribe", "tags": [{"tag": "t.history", "since": ids[2]}]})).await;
        let snapshot = late.next().await;
        assert_eq!((&snapshot["gap"], &snapshot["payload"]), (&json!(true), &json!(4)), "{snapshot}");

        reload(node, &cluster.config.text()).await;
        for value in 5..8 {
            node.api().publish("t.latest", json!(value)).await;
            assert_eq!(ann.next().await["payload"], value, "every one again");
        }
    });
}
