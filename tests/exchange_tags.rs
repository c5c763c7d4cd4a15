//! What a subscriber of a tag gets: first what is known, then the stream, without a gap and without a duplicate.
//! Method: a cluster of exchanges over a log in memory, stepped by hand; what the cores get is compared.

#[path = "exchange_support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use support::{Cluster, SHARDS, ids, pid, publication, tag};
use ws_cluster::{
    exchange::{ExchangeRules, Input},
    limits::QueueLimits,
    metrics::Count,
    model::{
        FollowStart, FromCore, Published, Record, RecordId, Reply, SessionId, TagRule, TagRules, ToCore, record,
        tag_rule::History,
    },
};

fn session(core: u8) -> SessionId {
    SessionId { core, slot: 1, generation: 1 }
}

fn history(cluster: &mut Cluster, node: usize, name: &str) -> Vec<Arc<Published>> {
    let ticket = cluster.ticket();
    cluster.core(node, FromCore::TagState { ticket, pid: pid("p"), tag: tag(name) });
    match cluster.reply(node, ticket) {
        Some(Reply::Tag(history)) => history,
        other => panic!("no tag state but {other:?}"),
    }
}

fn with_rule(rule: TagRule, limits: QueueLimits) -> ExchangeRules {
    ExchangeRules { tags: TagRules::new(vec![rule]), limits, ..ExchangeRules::default() }
}

#[test]
fn a_subscriber_gets_the_last_value_and_then_each_publication_on_its_core_only() {
    let mut cluster = Cluster::new(2);
    assert!(matches!(cluster.follow(0, session(0), "t", None), FollowStart::Empty));
    let first = cluster.publish(1, publication("t", "1", None));
    let start = cluster.follow(0, session(1), "t", None);
    assert!(matches!(&start, FollowStart::Snapshot { last, gap: false } if last.id == first));
    let second = cluster.publish(0, publication("t", "2", None));
    assert_eq!(cluster.publications(0, 0), [first, second]);
    assert_eq!(cluster.publications(0, 1), [second]);
    assert_eq!(cluster.publications(1, 0), []);
}

#[test]
fn the_last_values_of_many_tags_are_told_at_one_instant_between_the_publications() {
    let mut cluster = Cluster::new(1);
    cluster.follow(0, session(0), "a", None);
    let first = cluster.publish(0, publication("a", "1", None));
    let ticket = cluster.ticket();
    let tags = ["none", "a", "a"].map(tag).to_vec();
    cluster.core(0, FromCore::TagValues { ticket, pid: pid("p"), tags });
    let second = cluster.publish(0, publication("a", "2", None));
    let got: Vec<ToCore> = cluster.take(0).into_iter().map(|(_, got)| got).collect();
    let [ToCore::Publication(one), ToCore::Reply { reply: Reply::Values(values), .. }, ToCore::Publication(two)] =
        got.as_slice()
    else {
        panic!("{got:?}")
    };
    assert_eq!((one.id, two.id), (first, second));
    let ids: Vec<_> = values.iter().map(|value| value.as_ref().map(|published| published.id)).collect();
    assert_eq!(ids, [None, Some(first), Some(first)]);
    let ticket = cluster.ticket();
    cluster.core(0, FromCore::TagValues { ticket, pid: pid("another"), tags: vec![tag("a")] });
    assert!(matches!(cluster.reply(0, ticket), Some(Reply::Values(values)) if values == [None]));
}

#[test]
fn the_stream_follows_the_start_in_the_same_inbox() {
    let mut cluster = Cluster::new(1);
    cluster.publish(0, publication("t", "1", None));
    cluster.submit(0, vec![publication("t", "2", None)]);
    cluster.core(0, FromCore::Follow { session: session(1), pid: pid("p"), tag: tag("t"), since: None });
    cluster.settle();
    let got: Vec<ToCore> = cluster.take(0).into_iter().filter(|(core, _)| *core == 1).map(|(_, got)| got).collect();
    let [ToCore::Followed { start, .. }, ToCore::Publication(next)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(next.prev, ids(start).last().copied());
}

#[test]
fn since_gives_what_followed_it_and_nothing_twice() {
    let mut cluster = Cluster::new(2);
    let all: Vec<RecordId> = (0..5).map(|n| cluster.publish(n % 2, publication("t", &n.to_string(), None))).collect();
    for node in 0..2 {
        for (n, since) in all.iter().enumerate() {
            let start = cluster.follow(node, session(0), "t", Some(&since.to_string()));
            assert!(matches!(start, FollowStart::Tail(_)));
            assert_eq!(ids(&start), all[n + 1..]);
        }
    }
}

#[test]
fn an_unknown_or_malformed_since_is_a_gap_with_the_last_value_or_a_bare_gap() {
    let mut cluster = Cluster::new(1);
    for since in ["7-ffff", "no id", "", "1-2-3"] {
        assert!(matches!(cluster.follow(0, session(0), "t", Some(since)), FollowStart::Gap), "{since}");
    }
    let last = cluster.publish(0, publication("t", "1", None));
    for since in ["7-ffff", "no id", "", "1-2-3"] {
        let start = cluster.follow(0, session(0), "t", Some(since));
        assert!(matches!(&start, FollowStart::Snapshot { last: got, gap: true } if got.id == last), "{since}");
    }
}

#[test]
fn a_ring_reaches_back_as_far_as_its_rule_and_one_further_by_prev() {
    let history = History { count_max: 3, ..History::default() };
    let rule = TagRule { pattern: "*".into(), history, ..TagRule::default() };
    let mut cluster = Cluster::with(1, with_rule(rule, QueueLimits::default()));
    let all: Vec<RecordId> = (0..6).map(|n| cluster.publish(0, publication("t", &n.to_string(), None))).collect();
    let since = |n: usize| all[n].to_string();
    assert_eq!(self::history(&mut cluster, 0, "t").len(), 3);
    assert_eq!(ids(&cluster.follow(0, session(0), "t", Some(&since(2)))), all[3..]);
    let start = cluster.follow(0, session(0), "t", Some(&since(1)));
    assert!(matches!(start, FollowStart::Snapshot { gap: true, .. }));
}

#[test]
fn age_and_bytes_bound_a_ring_and_the_last_value_stays() {
    let history = History { count_max: 100, age_max: Duration::from_secs(10), bytes_max: 10 };
    let rule = TagRule { pattern: "*".into(), history, ..TagRule::default() };
    let mut cluster = Cluster::with(1, with_rule(rule, QueueLimits::default()));
    for payload in ["1111", "2222", "3333", "4444"] {
        cluster.publish(0, publication("t", payload, None));
    }
    let payloads = |cluster: &mut Cluster| -> Vec<String> {
        let history = self::history(cluster, 0, "t").into_iter();
        history.map(|published| String::from_utf8_lossy(&published.payload).into_owned()).collect()
    };
    assert_eq!(payloads(&mut cluster), ["3333", "4444"]);
    cluster.now += Duration::from_secs(11);
    assert_eq!(payloads(&mut cluster), ["4444"]);
    cluster.publish(0, publication("t", "123456789012345", None));
    assert_eq!(payloads(&mut cluster), ["123456789012345"]);
}

#[test]
fn dedup_passes_over_an_equal_payload_but_not_the_keep_that_closes_it() {
    let rule = TagRule { pattern: "bar.*".into(), dedup: true, ..TagRule::default() };
    let mut cluster = Cluster::with(1, with_rule(rule, QueueLimits::default()));
    cluster.follow(0, session(0), "bar.1", None);
    cluster.follow(0, session(0), "other", None);
    let kept = |payload: &str| match publication("bar.1", payload, None) {
        Record::Publication(publication) => {
            Record::Publication(ws_cluster::model::Publication { keep: true, ..publication })
        }
        other => other,
    };
    let first = cluster.publish(0, publication("bar.1", "1", None));
    let repeat = cluster.publish(0, publication("bar.1", "1", None));
    let closed = cluster.publish(0, kept("1"));
    cluster.publish(0, kept("1"));
    cluster.publish(0, publication("bar.1", "1", None));
    let second = cluster.publish(0, publication("bar.1", "2", None));
    assert_ne!(first, repeat);
    let chain: Vec<_> = history(&mut cluster, 0, "bar.1").iter().map(|got| (got.prev, got.id)).collect();
    assert_eq!(chain, [(None, first), (Some(first), closed), (Some(closed), second)]);
    assert_eq!(cluster.publications(0, 0), [first, closed, second]);
    let others =
        [cluster.publish(0, publication("other", "1", None)), cluster.publish(0, publication("other", "1", None))];
    assert_eq!(cluster.publications(0, 0), others);
}

#[test]
fn a_remembered_payload_does_not_hold_the_batch_it_came_in() {
    let mut cluster = Cluster::new(1);
    let batch = bytes::Bytes::from(vec![b'1'; 1000]);
    let Record::Publication(mut record) = publication("t", "", None) else { panic!("no publication") };
    record.payload = batch.slice(10..20);
    cluster.publish(0, Record::Publication(record));
    cluster.log.clear();
    cluster.nodes[0].cursor = 0;
    assert!(batch.is_unique(), "the ring holds a slice of the batch");
    assert_eq!(history(&mut cluster, 0, "t")[0].payload, batch.slice(10..20));
}

#[test]
fn an_unfollowed_tag_sends_nothing_and_is_still_remembered() {
    let mut cluster = Cluster::new(1);
    cluster.follow(0, session(0), "t", None);
    cluster.core(0, FromCore::Unfollow { core: 0, pid: pid("p"), tag: tag("t") });
    let last = cluster.publish(0, publication("t", "1", None));
    assert_eq!(cluster.publications(0, 0), []);
    assert_eq!(ids(&cluster.follow(0, session(0), "t", None)), [last]);
}

#[test]
fn projects_do_not_share_tags() {
    let mut cluster = Cluster::new(1);
    cluster.publish(0, publication("t", "1", None));
    cluster.core(0, FromCore::Follow { session: session(0), pid: pid("q"), tag: tag("t"), since: None });
    let got = cluster.take(0);
    assert!(matches!(got.as_slice(), [(0, ToCore::Followed { start: FollowStart::Empty, .. })]), "{got:?}");
    cluster.publish(0, publication("t", "2", None));
    assert_eq!(cluster.publications(0, 0), []);
}

#[test]
fn a_loss_is_told_to_the_followers_of_its_shard_and_nothing_is_resumed_across_it() {
    let mut cluster = Cluster::new(1);
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    let last: Vec<RecordId> = names
        .iter()
        .map(|name| {
            cluster.publish(0, publication(name, "0", None));
            cluster.follow(0, session(1), name, None);
            cluster.publish(0, publication(name, "1", None))
        })
        .collect();
    cluster.take(0);
    let lost = record::shard_of("p", &names[0], SHARDS);
    cluster.apply(0, Input::Lost { shard: Some(lost) });
    let mut told: Vec<String> = Vec::new();
    for (core, message) in cluster.take(0) {
        let ToCore::Gap { tag, .. } = message else { panic!("{message:?}") };
        assert_eq!(core, 1);
        told.push(tag.to_string());
    }
    let of_shard = |name: &&String| record::shard_of("p", name, SHARDS) == lost;
    assert_eq!(told, names.iter().filter(of_shard).cloned().collect::<Vec<_>>());
    for (name, last) in names.iter().zip(last) {
        let start = cluster.follow(0, session(0), name, Some(&last.to_string()));
        if of_shard(&name) {
            assert!(matches!(start, FollowStart::Snapshot { gap: true, .. }), "{start:?}");
            let next = cluster.publish(0, publication(name, "2", None));
            let history = history(&mut cluster, 0, name);
            assert_eq!(history.iter().map(|got| (got.prev, got.id)).collect::<Vec<_>>(), [(None, next)]);
            let start = cluster.follow(0, session(0), name, Some(&last.to_string()));
            assert!(matches!(start, FollowStart::Snapshot { gap: true, .. }), "{start:?}");
        } else {
            assert!(matches!(start, FollowStart::Tail(tail) if tail.is_empty()));
        }
    }
}

#[test]
fn a_full_table_drops_the_unfollowed_tag_that_was_published_longest_ago() {
    let limits = QueueLimits { tags_max: 3, ..QueueLimits::default() };
    let mut cluster = Cluster::with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    for name in ["followed", "a", "b"] {
        cluster.publish(0, publication(name, "1", None));
    }
    cluster.follow(0, session(0), "followed", None);
    cluster.publish(0, publication("a", "2", None));
    cluster.publish(0, publication("c", "1", None));
    let known = |cluster: &mut Cluster, name: &str| !history(cluster, 0, name).is_empty();
    let left: Vec<&str> = ["followed", "a", "b", "c"].into_iter().filter(|name| known(&mut cluster, name)).collect();
    assert_eq!(left, ["followed", "a", "c"]);
    assert_eq!((cluster.count(0, Count::TagsEvicted), cluster.count(0, Count::Tags)), (1, 3));
}

#[test]
fn a_table_full_of_followed_tags_turns_a_further_subscriber_away_and_harms_nobody() {
    let limits = QueueLimits { tags_max: 2, ..QueueLimits::default() };
    let mut cluster = Cluster::with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    cluster.follow(0, session(0), "a", None);
    cluster.follow(0, session(0), "b", None);
    cluster.core(0, FromCore::Follow { session: session(1), pid: pid("p"), tag: tag("c"), since: None });
    assert!(matches!(cluster.take(0).as_slice(), [(1, ToCore::Close { code: 1013, .. })]));
    cluster.publish(0, publication("c", "1", None));
    assert!(history(&mut cluster, 0, "c").is_empty());
    let published = cluster.publish(0, publication("a", "1", None));
    assert_eq!(cluster.publications(0, 0), [published]);
    assert_eq!((cluster.count(0, Count::TagsRefused), cluster.count(0, Count::TagsEvicted)), (1, 1));
    cluster.core(0, FromCore::Unfollow { core: 0, pid: pid("p"), tag: tag("b") });
    assert!(matches!(cluster.follow(0, session(1), "c", None), FollowStart::Empty));
}

#[test]
fn bytes_over_the_bound_cost_unfollowed_tags_first_then_the_past_and_never_the_chain() {
    let limits = QueueLimits { tag_table_bytes_max: 20_000, ..QueueLimits::default() };
    let mut cluster = Cluster::with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    let payload = "1".repeat(1000);
    cluster.publish(0, publication("unfollowed", &payload, None));
    cluster.follow(0, session(0), "a", None);
    cluster.follow(0, session(0), "b", None);
    let published: Vec<RecordId> = (0..40).map(|_| cluster.publish(0, publication("a", &payload, None))).collect();
    assert!(history(&mut cluster, 0, "unfollowed").is_empty());
    let ring = history(&mut cluster, 0, "a");
    assert!((10..20).contains(&ring.len()), "{}", ring.len());
    assert_eq!(cluster.publications(0, 0), published);
    let first = cluster.publish(0, publication("b", &payload, None));
    assert_eq!(history(&mut cluster, 0, "b")[0].id, first);
    assert_eq!(history(&mut cluster, 0, "a").last().map(|last| last.id), published.last().copied());
    let huge = cluster.publish(0, publication("b", &"1".repeat(30_000), None));
    assert!(history(&mut cluster, 0, "b").is_empty());
    let next = cluster.publish(0, publication("b", "1", None));
    assert_eq!(
        history(&mut cluster, 0, "b").iter().map(|got| (got.prev, got.id)).collect::<Vec<_>>(),
        [(Some(huge), next)]
    );
}

#[test]
fn what_is_heard_while_warming_is_remembered_and_goes_to_nobody() {
    let mut cluster = Cluster::new(1);
    cluster.follow(0, session(0), "t", None);
    let ids: Vec<RecordId> = (0..3)
        .map(|n| {
            let record = publication("t", &n.to_string(), Some("k").filter(|_| n > 0));
            let id = RecordId { origin: 9, seq: n + 1 };
            cluster.apply(0, Input::Heard { id, record, warm: true });
            id
        })
        .collect();
    assert!(cluster.take(0).is_empty());
    let history: Vec<RecordId> = history(&mut cluster, 0, "t").iter().map(|published| published.id).collect();
    assert_eq!(history, ids[..2]);
    let ticket = cluster.submit(0, vec![publication("t", "again", Some("k"))]);
    assert_eq!(cluster.submitted(0, ticket), [Ok(ids[1])]);
}

#[test]
fn a_reload_changes_rules_and_bounds_in_place() {
    let mut cluster = Cluster::new(1);
    for n in 0..5 {
        cluster.publish(0, publication("t", &n.to_string(), None));
        cluster.publish(0, publication(&format!("u{n}"), "1", None));
    }
    let history_rule = History { count_max: 2, ..History::default() };
    let rule = TagRule { pattern: "t".into(), history: history_rule, ..TagRule::default() };
    let limits = QueueLimits { tags_max: 3, ..QueueLimits::default() };
    cluster.nodes[0].exchange.reload(with_rule(rule, limits));
    assert_eq!(cluster.count(0, Count::Tags), 3);
    let left = ["t", "u0", "u1", "u2", "u3", "u4"].map(|name| history(&mut cluster, 0, name).len());
    assert_eq!(left, [2, 0, 0, 0, 1, 1]);
    for n in 0..5 {
        cluster.publish(0, publication("t", &n.to_string(), None));
    }
    assert_eq!(history(&mut cluster, 0, "t").len(), 2);
}
