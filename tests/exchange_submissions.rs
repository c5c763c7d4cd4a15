//! Who submits records is answered once, when it is certain what became of them; a key makes two pushes one.
//! Method: a cluster of exchanges over a log in memory, stepped by hand, acknowledgements held back where it matters.

#[path = "exchange_support/mod.rs"]
mod support;

use std::time::Duration;

use support::{Cluster, pid, publication, push};
use ws_cluster::{
    exchange::{ExchangeRules, Input},
    limits::QueueLimits,
    metrics::Count,
    model::{AckTo, Audience, Record, RecordId, Refusal, SessionId, ToCore},
};

const USER: SessionId = SessionId { core: 0, slot: 1, generation: 1 };

fn keyed(payload: &str) -> Vec<Record> {
    vec![publication("t", payload, Some("k"))]
}

fn acknowledge(cluster: &mut Cluster, node: usize, acks: Vec<(AckTo, RecordId)>) {
    for (to, id) in acks {
        cluster.apply(node, Input::Appended { to, result: Ok(id) });
    }
}

#[test]
fn a_submission_is_answered_when_each_record_has_its_outcome_in_order() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.submit(0, (0..3).map(|n| publication("t", &n.to_string(), None)).collect());
    let mut acks = cluster.append_silently(0);
    let (to, _) = acks.remove(1);
    cluster.apply(0, Input::Appended { to, result: Err(Refusal::QueueFull) });
    let (second, first) = (acks.remove(1), acks.remove(0));
    acknowledge(&mut cluster, 0, vec![second.clone()]);
    assert!(cluster.reply(0, ticket).is_none());
    acknowledge(&mut cluster, 0, vec![first.clone()]);
    assert_eq!(cluster.submitted(0, ticket), [Ok(first.1), Err(Refusal::QueueFull), Ok(second.1)]);
    assert_eq!((cluster.count(0, Count::PushesAccepted), cluster.count(0, Count::PushesRefused)), (2, 1));
    acknowledge(&mut cluster, 0, vec![second]);
    assert!(cluster.reply(0, ticket).is_none());
}

#[test]
fn nothing_submitted_is_answered_with_nothing() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.submit(0, Vec::new());
    assert_eq!(cluster.submitted(0, ticket), []);
}

#[test]
fn one_key_through_two_nodes_is_delivered_once_and_both_get_the_firsts_id() {
    for heard_first in [false, true] {
        let mut cluster = Cluster::new(3);
        (0..3).for_each(|node| drop(cluster.follow(node, USER, "t", None)));
        let tickets = [cluster.submit(0, keyed("1")), cluster.submit(1, keyed("1"))];
        let acks = [cluster.append_silently(0), cluster.append_silently(1)];
        let first = acks[0][0].1;
        if heard_first {
            (0..3).for_each(|node| cluster.hear(node));
        }
        for (node, acks) in acks.into_iter().enumerate() {
            acknowledge(&mut cluster, node, acks);
            assert_eq!(cluster.reply(node, tickets[node]).is_some(), heard_first);
            if heard_first {
                continue;
            }
            cluster.hear(node);
            assert_eq!(cluster.submitted(node, tickets[node]), [Ok(first)]);
        }
        cluster.settle();
        (0..3).for_each(|node| assert_eq!(cluster.publications(node, 0), [first]));
    }
}

#[test]
fn the_chain_of_a_tag_leaves_out_what_a_key_passed_over() {
    let mut cluster = Cluster::new(1);
    cluster.follow(0, USER, "t", None);
    cluster.submit(0, keyed("1"));
    cluster.submit(0, keyed("1"));
    cluster.submit(0, vec![publication("t", "2", None)]);
    cluster.settle();
    let chain: Vec<_> = cluster.nodes[0].inboxes[0]
        .iter()
        .filter_map(|message| match message {
            ToCore::Publication(published) => Some((published.prev, published.id)),
            _ => None,
        })
        .collect();
    let [(None, first), (Some(prev), _)] = chain.as_slice() else { panic!("{chain:?}") };
    assert_eq!(prev, first);
}

#[test]
fn a_key_that_is_known_is_answered_without_the_queue_whatever_the_audience() {
    let mut cluster = Cluster::new(2);
    let first = cluster.publish(0, publication("t", "1", Some("k")));
    cluster.nodes.iter().for_each(|node| assert!(node.outgoing.is_empty()));
    for name in ["t", "u", "v", "w", "x"] {
        let ticket = cluster.submit(1, vec![publication(name, "1", Some("k"))]);
        assert_eq!(cluster.submitted(1, ticket), [Ok(first)]);
        assert!(cluster.nodes[1].outgoing.is_empty());
    }
    assert_eq!(cluster.count(1, Count::KeysRepeated), 5);
}

#[test]
fn projects_do_not_share_keys() {
    let mut cluster = Cluster::new(1);
    let first = cluster.publish(0, publication("t", "1", Some("k")));
    let Record::Publication(mut other) = publication("t", "1", Some("k")) else { panic!("no publication") };
    other.pid = pid("q");
    assert_ne!(cluster.publish(0, Record::Publication(other)), first);
}

#[test]
fn the_key_of_a_refused_record_stays_free() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.submit(0, keyed("1"));
    cluster.refuse(0, Refusal::QueueUnavailable);
    assert_eq!(cluster.submitted(0, ticket), [Err(Refusal::QueueUnavailable)]);
    let id = cluster.publish(0, publication("t", "1", Some("k")));
    assert_eq!(cluster.log.last().map(|(id, _)| *id), Some(id));
}

#[test]
fn a_keyed_record_that_is_never_heard_is_answered_unknown_after_the_wait() {
    let mut cluster = Cluster::new(1);
    let wait = QueueLimits::default().pending_timeout;
    let ticket = cluster.submit(0, keyed("1"));
    let acks = cluster.append_silently(0);
    acknowledge(&mut cluster, 0, acks);
    cluster.now += wait - Duration::from_millis(1);
    cluster.apply(0, Input::Tick);
    assert!(cluster.reply(0, ticket).is_none());
    cluster.now += Duration::from_millis(1);
    cluster.apply(0, Input::Tick);
    assert_eq!(cluster.submitted(0, ticket), [Err(Refusal::Unknown)]);
    cluster.settle();
    assert!(cluster.reply(0, ticket).is_none());
}

#[test]
fn a_key_is_free_again_after_its_window() {
    let mut cluster = Cluster::new(1);
    let first = cluster.publish(0, publication("t", "1", Some("k")));
    cluster.now += QueueLimits::default().idempotency_window;
    assert_ne!(cluster.publish(0, publication("t", "1", Some("k"))), first);
}

#[test]
fn beyond_the_bound_the_oldest_key_is_forgotten_and_counted() {
    let limits = QueueLimits { idempotency_keys_max: 2, ..QueueLimits::default() };
    let mut cluster = Cluster::with(1, ExchangeRules { limits, ..ExchangeRules::default() });
    let mut publish = |key: &str| cluster.publish(0, publication("t", "1", Some(key)));
    let (a, b, _) = (publish("a"), publish("b"), publish("c"));
    assert_eq!(publish("b"), b);
    assert_ne!(publish("a"), a);
    assert_eq!(cluster.count(0, Count::KeysEvicted), 2);
}

#[test]
fn a_push_goes_to_all_cores_unless_its_connections_are_named() {
    let mut cluster = Cluster::new(2);
    let user = cluster.user(0, "p", "u");
    let cid = cluster.cid(0, user).to_string();
    let stale = format!("1-ffffffff-{:x}-1-1", user.core);
    let mut cores = |audience: Audience| -> Vec<Vec<u8>> {
        (0..2).for_each(|node| drop(cluster.take(node)));
        cluster.put(push(audience, None));
        cluster.settle();
        (0..2).map(|node| cluster.take(node).into_iter().map(|(core, _)| core).collect()).collect()
    };
    let named =
        |cids: &[&str]| Audience { cids: cids.iter().map(|cid| (*cid).into()).collect(), ..Audience::default() };
    assert_eq!(cores(Audience::default()), [[0, 1], [0, 1]]);
    assert_eq!(cores(named(&[&cid, "garbage"])), [vec![user.core], vec![]]);
    assert_eq!(cores(named(&[&stale, "1-00000100-ff-1-1", ""])), [Vec::<u8>::new(), Vec::new()]);
}
