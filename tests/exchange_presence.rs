//! Who is online: what back-ends are told, what `/v1/online` answers across nodes, and how many connections a user has.
//! Method: a cluster of exchanges over a log in memory, stepped by hand.

#[path = "exchange_support/mod.rs"]
mod support;

use std::{collections::BTreeMap, time::Duration};

use support::{Cluster, pid};
use ws_cluster::{
    exchange::{ExchangeRules, Input},
    limits::{ONLINE_ASK_TIMEOUT, ONLINE_ASKS_MAX, ONLINE_INTERVAL, OpeningLimits},
    metrics::Count,
    model::{FromCore, NodeId, Record, Refusal, Reply, Role, SessionId, Ticket, ToCore},
};

type Users = Vec<(String, Vec<NodeId>)>;

fn ask(cluster: &mut Cluster, uids: &[&str], after: Option<&str>, limit: u32) -> Ticket {
    let ticket = cluster.ticket();
    let uids = uids.iter().map(|uid| (*uid).into()).collect();
    cluster.core(0, FromCore::Online { ticket, pid: pid("p"), uids, after: after.map(Into::into), limit });
    ticket
}

/// The users of an answer with the nodes of their connections, and whether there are more.
fn answered(cluster: &mut Cluster, ticket: Ticket) -> (Users, bool) {
    let Some(Reply::Online { connections, more }) = cluster.reply(0, ticket) else { panic!("no online answer") };
    let sorted = connections.is_sorted_by_key(|connection| (connection.source.uid.clone(), connection.source.cid));
    assert!(sorted, "{connections:?}");
    let mut users = BTreeMap::<String, Vec<NodeId>>::new();
    for connection in connections {
        users.entry(connection.source.uid.into()).or_default().push(connection.source.cid.node);
    }
    (users.into_iter().collect(), more)
}

fn online(cluster: &mut Cluster, uids: &[&str], after: Option<&str>, limit: u32) -> (Users, bool) {
    let ticket = ask(cluster, uids, after, limit);
    cluster.settle();
    answered(cluster, ticket)
}

fn users(expected: &[(&str, &[NodeId])]) -> Users {
    expected.iter().map(|(uid, nodes)| ((*uid).to_owned(), nodes.to_vec())).collect()
}

#[test]
fn coming_and_going_is_told_to_the_projects_back_ends_on_every_node() {
    let mut cluster = Cluster::new(2);
    let backends = [(0, cluster.backend(0, "p")), (1, cluster.backend(1, "p"))];
    let other = cluster.backend(1, "q");
    let user = cluster.user(0, "p", "u");
    let source = format!(r#"{{"pid":"p","uid":"u","cid":"{}"}}"#, cluster.cid(0, user));
    cluster.close(0, user);
    cluster.settle();
    cluster.close(0, user);
    cluster.settle();
    for (node, backend) in backends {
        let told = ["connect", "disconnect"].map(|word| format!(r#"{{"type":"{word}","source":{source}}}"#));
        assert_eq!(cluster.texts(node, backend), told);
    }
    assert!(cluster.texts(1, other).is_empty());
}

#[test]
fn without_a_back_end_nothing_of_users_goes_through_the_log() {
    let mut cluster = Cluster::new(1);
    let before = cluster.log.len();
    let user = cluster.user(0, "p", "u");
    cluster.close(0, user);
    cluster.settle();
    assert_eq!(cluster.log.len(), before);
}

#[test]
fn a_new_back_end_gets_the_online_list_at_once_and_then_each_interval() {
    let mut cluster = Cluster::new(2);
    let user = cluster.user(0, "p", "u");
    cluster.pass(Duration::from_secs(1));
    let backend = cluster.backend(1, "p");
    cluster.tick();
    let list = format!(
        r#"{{"type":"online_clients","source":{{"pid":"p"}},"payload":[{{"cid":"{}","uid":"u"}}]}}"#,
        cluster.cid(0, user)
    );
    assert_eq!(cluster.texts(1, backend), vec![list.clone()]);
    cluster.pass(3 * ONLINE_INTERVAL);
    assert_eq!(cluster.texts(1, backend), vec![list; 3]);
}

#[test]
fn a_long_list_goes_in_parts_of_a_thousand_and_names_everybody_once() {
    let mut cluster = Cluster::with(1, ExchangeRules { opening: unbounded(), ..ExchangeRules::default() });
    let sessions: Vec<SessionId> =
        (0..2500).map(|n| cluster.open(0, "p", Role::User, &format!("u{}", n % 900))).collect();
    cluster.backend(0, "p");
    cluster.tick();
    let parts = cluster.log.iter().filter_map(|(_, record)| match record {
        Record::OnlineClients(part) => Some(&part.users),
        _ => None,
    });
    assert_eq!(parts.clone().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    let mut listed: Vec<_> = parts.flatten().map(|user| user.cid.session).collect();
    listed.sort_unstable();
    let mut expected = sessions;
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

fn unbounded() -> OpeningLimits {
    OpeningLimits { connections_per_uid: 0, ..OpeningLimits::default() }
}

#[test]
fn the_online_list_is_merged_from_all_nodes_sorted_by_uid() {
    let mut cluster = Cluster::new(3);
    for (node, uid) in [(0, "b"), (1, "a"), (2, "b"), (2, "c"), (0, "b")] {
        cluster.user(node, "p", uid);
    }
    cluster.user(0, "q", "x");
    let all = users(&[("a", &[2]), ("b", &[1, 1, 3]), ("c", &[3])]);
    assert_eq!(online(&mut cluster, &[], None, 10), (all.clone(), false));
    assert_eq!(online(&mut cluster, &[], None, 3), (all, false));
    let some = users(&[("b", &[1, 1, 3]), ("c", &[3])]);
    assert_eq!(online(&mut cluster, &["c", "b", "x", "b"], None, 10), (some.clone(), false));
    assert_eq!(online(&mut cluster, &["a", "b", "c"], Some("a"), 10), (some, false));
}

#[test]
fn pages_by_cursor_show_every_user_once_however_they_spread_over_nodes() {
    let seed = std::env::var("WS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::with(3, ExchangeRules { opening: unbounded(), ..ExchangeRules::default() });
    let mut expected = BTreeMap::<String, Vec<NodeId>>::new();
    for _ in 0..120 {
        let (node, uid) = (random.usize(..3), format!("u{}", random.u32(..40)));
        cluster.user(node, "p", &uid);
        expected.entry(uid).or_default().push(NodeId::try_from(node + 1).expect("few nodes"));
    }
    expected.values_mut().for_each(|nodes| nodes.sort_unstable());
    for limit in [1, 2, 7, 39, 40, 41] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = online(&mut cluster, &[], after.as_deref(), limit);
            assert!(page.len() <= limit as usize && !(page.is_empty() && more));
            after = page.last().map(|(uid, _)| uid.clone());
            seen.extend(page);
            assert_eq!(more, seen.len() < expected.len(), "limit {limit}");
            if !more {
                break;
            }
        }
        assert_eq!(seen, expected.clone().into_iter().collect::<Users>(), "limit {limit}");
    }
}

#[test]
fn a_node_that_answers_less_than_was_asked_for_hides_nobody() {
    let mut cluster = Cluster::with(2, ExchangeRules { opening: unbounded(), ..ExchangeRules::default() });
    for n in 0..3 {
        for _ in 0..3000 {
            cluster.open(1, "p", Role::User, &format!("m{n}"));
        }
        cluster.open(0, "p", Role::User, &format!("m{n}x"));
    }
    cluster.settle();
    let uids = |page: &(Users, bool)| page.0.iter().map(|(uid, nodes)| (uid.clone(), nodes.len())).collect::<Vec<_>>();
    let first = online(&mut cluster, &[], None, 1000);
    assert!(first.1);
    assert_eq!(uids(&first), [("m0".into(), 3000), ("m0x".into(), 1), ("m1".into(), 3000)]);
    let second = online(&mut cluster, &[], Some("m1"), 1000);
    assert_eq!(uids(&second), [("m1x".into(), 1), ("m2".into(), 3000), ("m2x".into(), 1)]);
    assert!(!second.1);
}

#[test]
fn a_node_that_does_not_answer_is_waited_for_and_then_left_out() {
    let mut cluster = Cluster::new(3);
    for node in 0..3 {
        cluster.user(node, "p", &format!("u{node}"));
    }
    let silent = cluster.nodes.pop().expect("three nodes");
    let ticket = ask(&mut cluster, &[], None, 10);
    cluster.settle();
    assert!(cluster.reply(0, ticket).is_none());
    cluster.now += ONLINE_ASK_TIMEOUT;
    cluster.apply(0, Input::Tick);
    assert_eq!(answered(&mut cluster, ticket), (users(&[("u0", &[1]), ("u1", &[2])]), false));
    cluster.nodes.push(silent);
    cluster.settle();
    assert!(cluster.reply(0, ticket).is_none());
}

#[test]
fn a_question_that_the_queue_refuses_or_does_not_bring_back_is_refused() {
    let mut cluster = Cluster::new(1);
    let ticket = ask(&mut cluster, &[], None, 10);
    cluster.refuse(0, Refusal::QueueFull);
    assert!(matches!(cluster.reply(0, ticket), Some(Reply::Refused(Refusal::QueueFull))));
    let ticket = ask(&mut cluster, &[], None, 10);
    cluster.append_silently(0);
    cluster.now += ONLINE_ASK_TIMEOUT;
    cluster.apply(0, Input::Tick);
    assert!(matches!(cluster.reply(0, ticket), Some(Reply::Refused(Refusal::QueueUnavailable))));
}

#[test]
fn more_questions_than_the_bound_are_refused_and_counted() {
    let mut cluster = Cluster::new(1);
    let tickets: Vec<Ticket> = (0..=ONLINE_ASKS_MAX).map(|_| ask(&mut cluster, &[], None, 1)).collect();
    let last = *tickets.last().expect("some");
    assert!(matches!(cluster.reply(0, last), Some(Reply::Refused(Refusal::Overloaded))));
    assert_eq!(cluster.count(0, Count::OnlineAsksRefused), 1);
    cluster.settle();
    for ticket in &tickets[..ONLINE_ASKS_MAX] {
        assert_eq!(answered(&mut cluster, *ticket), (Users::new(), false));
    }
}

#[test]
fn one_connection_too_many_of_a_user_is_closed_the_new_or_the_oldest() {
    for kick_oldest in [false, true] {
        let opening = OpeningLimits { connections_per_uid: 2, kick_oldest, ..OpeningLimits::default() };
        let mut cluster = Cluster::with(1, ExchangeRules { opening, ..ExchangeRules::default() });
        cluster.open(0, "q", Role::User, "u");
        // All in one millisecond, and on different cores.
        let sessions: Vec<SessionId> = (0..4).map(|_| cluster.open(0, "p", Role::User, "u")).collect();
        let mut closed: Vec<(SessionId, u16)> = Vec::new();
        for (core, message) in cluster.take(0) {
            let ToCore::Close { session, code, .. } = message else { panic!("{message:?}") };
            assert_eq!(core, session.core);
            closed.push((session, code));
        }
        closed.sort_unstable();
        closed.dedup();
        let expected = if kick_oldest { (&sessions[..2], 4409) } else { (&sessions[2..], 4429) };
        let mut expected: Vec<_> = expected.0.iter().map(|session| (*session, expected.1)).collect();
        expected.sort_unstable();
        assert_eq!(closed, expected);
        closed.iter().for_each(|(session, _)| cluster.close(0, *session));
        assert_eq!(online(&mut cluster, &[], None, 10), (users(&[("u", &[1, 1])]), false));
    }
}

#[test]
fn a_node_that_has_just_started_learns_the_others_back_ends_from_their_answer_to_its_hello() {
    let mut cluster = Cluster::new(1);
    let backend = cluster.backend(0, "p");
    let node = cluster.join(9, later_boot());
    let user = cluster.open(node, "p", Role::User, "u");
    cluster.apply(node, Input::Tick);
    cluster.settle();
    cluster.texts(0, backend);
    cluster.ask(node, user, "a", Duration::from_secs(1));
    cluster.settle();
    assert_eq!(cluster.texts(0, backend).len(), 1);
}

fn later_boot() -> ws_cluster::model::Boot {
    ws_cluster::model::Boot(0x900)
}
