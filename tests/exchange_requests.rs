//! A user's request reaches one back-end of the cluster, and its user is told once if no answer comes.
//! Method: a cluster of exchanges over a log in memory, stepped by hand; texts of back-ends and users are compared.

#[path = "exchange_support/mod.rs"]
mod support;

use std::time::Duration;

use support::{Cluster, answer, pid};
use ws_cluster::{
    exchange::{ExchangeRules, Input},
    limits::{NODE_TIMEOUT, QueueLimits},
    metrics::Count,
    model::{
        Boot, FromCore, Project, Projects, Record, Refusal, SessionId,
        project::RequestRouting,
        record::{BackendChange, Beat, BeatPhase, Presence},
    },
};

const TIMEOUT: Duration = Duration::from_secs(10);

fn to_all() -> ExchangeRules {
    let project =
        Project { pid: pid("p"), secrets: Vec::new(), jwt: None, requests: RequestRouting::All, origins: Vec::new() };
    ExchangeRules { projects: Projects::new([project]), ..ExchangeRules::default() }
}

/// How many requests each back-end has got since it was last looked at.
fn requests(cluster: &mut Cluster, backends: &[(usize, SessionId)]) -> Vec<usize> {
    let mut count = |(node, session): &(usize, SessionId)| {
        let texts = cluster.texts(*node, *session);
        texts.iter().filter(|text| text.starts_with(r#"{"type":"request""#)).count()
    };
    backends.iter().map(&mut count).collect()
}

fn accept_answer(cluster: &mut Cluster, node: usize, user: SessionId, affair_id: &str) {
    let answer = answer(cluster.cid(node, user), affair_id);
    cluster.put(answer);
    cluster.settle();
}

#[test]
fn a_request_reaches_its_back_end_and_is_acknowledged_when_the_log_has_it() {
    let mut cluster = Cluster::new(2);
    let (user, backend) = (cluster.user(0, "p", "u\"1"), cluster.backend(1, "p"));
    cluster.texts(1, backend);
    cluster.ask(0, user, "a", TIMEOUT);
    assert!(cluster.texts(0, user).is_empty());
    cluster.append(0);
    let acks = cluster.texts(0, user);
    assert_eq!(acks, [r#"{"ack_id":"ack","code":1,"msg":"success","payload":{"affair_id":"a"}}"#]);
    cluster.settle();
    let cid = cluster.cid(0, user);
    let source = format!(r#"{{"pid":"p","uid":"u\"1","cid":"{cid}"}}"#);
    let request = format!(r#"{{"type":"request","affair_id":"a","source":{source},"payload":1}}"#);
    assert_eq!(cluster.texts(1, backend), [request]);
    accept_answer(&mut cluster, 0, user, "a");
    cluster.pass(TIMEOUT);
    assert!(cluster.texts(0, user).is_empty());
    assert_eq!((cluster.count(0, Count::Requests), cluster.count(0, Count::RequestsAnswered)), (1, 1));
}

#[test]
fn a_request_without_affair_id_gets_one_and_without_ack_id_no_acknowledgement() {
    let mut cluster = Cluster::new(1);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(0, "p"));
    for _ in 0..2 {
        let payload = bytes::Bytes::from_static(b"1");
        let question = FromCore::Request { session: user, affair_id: None, ack_id: None, timeout: TIMEOUT, payload };
        cluster.core(0, question);
    }
    cluster.settle();
    assert!(cluster.texts(0, user).is_empty());
    let texts = cluster.texts(0, backend);
    let affairs: Vec<&str> = texts.iter().filter_map(|text| text.split('"').nth(7)).collect();
    let [.., first, second] = affairs.as_slice() else { panic!("{texts:?}") };
    assert!(first != second && first.starts_with("r-1-"), "{texts:?}");
}

#[test]
fn the_back_end_with_the_least_pending_in_the_cluster_is_chosen_and_equals_take_turns() {
    let mut cluster = Cluster::new(3);
    let users = [cluster.user(0, "p", "u"), cluster.user(1, "p", "v")];
    let backends: Vec<(usize, SessionId)> = (0..3).map(|node| (node, cluster.backend(node, "p"))).collect();
    for n in 0..6 {
        cluster.ask(n % 2, users[n % 2], &n.to_string(), TIMEOUT);
        cluster.settle();
    }
    assert_eq!(requests(&mut cluster, &backends), [2, 2, 2]);
    let chosen = |cluster: &Cluster, affair: &str| {
        let of = |record: &Record| match record {
            Record::Request(request) if *request.affair_id == *affair => request.backend,
            _ => None,
        };
        cluster.log.iter().find_map(|(_, record)| of(record)).expect("a request")
    };
    let busy = chosen(&cluster, "0");
    let others: Vec<usize> = (0..6).filter(|n| chosen(&cluster, &n.to_string()) != busy).collect();
    for n in others {
        accept_answer(&mut cluster, n % 2, users[n % 2], &n.to_string());
    }
    for n in 6..10 {
        cluster.ask(n % 2, users[n % 2], &n.to_string(), TIMEOUT);
        cluster.settle();
        assert_ne!(chosen(&cluster, &n.to_string()), busy);
    }
    let mut got = requests(&mut cluster, &backends);
    got.sort_unstable();
    assert_eq!(got, [0, 2, 2]);
}

#[test]
fn another_projects_answer_ends_nothing() {
    let mut cluster = Cluster::new(1);
    let user = cluster.user(0, "p", "u");
    cluster.backend(0, "p");
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    let Record::Push(mut foreign) = answer(cluster.cid(0, user), "a") else { panic!("no push") };
    foreign.pid = pid("q");
    cluster.put(Record::Push(foreign));
    cluster.pass(TIMEOUT);
    assert_eq!(cluster.errs(0, user), ["timeout"]);
}

#[test]
fn without_a_back_end_the_user_is_told_at_once() {
    let mut cluster = Cluster::new(1);
    let user = cluster.user(0, "p", "u");
    cluster.backend(0, "q");
    cluster.ask(0, user, "a", TIMEOUT);
    assert!(cluster.nodes[0].outgoing.is_empty());
    let texts = cluster.texts(0, user);
    let told = r#"{"affair_id":"a","ack_id":"ack","code":0,"err":"no_backend","msg":"no back-end of the project is connected"}"#;
    assert_eq!(texts, [told]);
    assert_eq!(cluster.count(0, Count::RequestsNoBackend), 1);
}

#[test]
fn a_timeout_is_told_once_by_the_users_own_node() {
    let mut cluster = Cluster::new(3);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(1, "p"));
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    cluster.pass(TIMEOUT - Duration::from_millis(1));
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    cluster.pass(Duration::from_millis(1));
    assert_eq!(cluster.errs(0, user), ["timeout"]);
    cluster.close(1, backend);
    cluster.pass(TIMEOUT);
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    let counted: Vec<u64> = (0..3).map(|node| cluster.count(node, Count::RequestsTimedOut)).collect();
    assert_eq!(counted, [1, 0, 0]);
}

#[test]
fn a_timeout_is_at_most_the_longest_allowed() {
    let mut cluster = Cluster::new(1);
    let user = cluster.user(0, "p", "u");
    cluster.backend(0, "p");
    cluster.ask(0, user, "a", Duration::MAX);
    cluster.settle();
    cluster.pass(QueueLimits::default().request_timeout_max);
    assert_eq!(cluster.errs(0, user), ["timeout"]);
}

#[test]
fn a_request_that_the_queue_holds_back_times_out_and_is_not_acknowledged_after_that() {
    let mut cluster = Cluster::new(1);
    let user = cluster.user(0, "p", "u");
    cluster.backend(0, "p");
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.now += TIMEOUT;
    cluster.apply(0, Input::Tick);
    assert_eq!(cluster.errs(0, user), ["timeout"]);
    cluster.settle();
    assert!(cluster.texts(0, user).is_empty());
}

#[test]
fn what_the_queue_refuses_is_told_and_counts_for_nobody() {
    let mut cluster = Cluster::new(1);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(0, "p"));
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.refuse(0, Refusal::QueueUnavailable);
    assert_eq!(cluster.errs(0, user), ["queue_unavailable"]);
    cluster.close(0, backend);
    cluster.pass(TIMEOUT);
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
}

#[test]
fn an_answer_that_is_heard_before_the_acknowledgement_does_not_take_it_away() {
    let mut cluster = Cluster::new(1);
    let user = cluster.user(0, "p", "u");
    cluster.backend(0, "p");
    cluster.ask(0, user, "a", TIMEOUT);
    let acks = cluster.append_silently(0);
    accept_answer(&mut cluster, 0, user, "a");
    for (to, id) in acks {
        cluster.apply(0, Input::Appended { to, result: Ok(id) });
    }
    assert_eq!(cluster.texts(0, user).len(), 1);
    cluster.pass(TIMEOUT);
    assert!(cluster.texts(0, user).is_empty());
}

#[test]
fn a_back_end_that_goes_away_is_told_once_by_the_users_own_node() {
    let mut cluster = Cluster::new(3);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(1, "p"));
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    cluster.close(1, backend);
    cluster.settle();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
    cluster.pass(2 * TIMEOUT);
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    let counted: Vec<u64> = (0..3).map(|node| cluster.count(node, Count::RequestsBackendLost)).collect();
    assert_eq!(counted, [1, 0, 0]);
}

#[test]
fn a_back_end_that_goes_between_appending_and_hearing_is_told_too() {
    let mut cluster = Cluster::new(2);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(1, "p"));
    cluster.close(1, backend);
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.append(1);
    cluster.append(0);
    cluster.settle();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
    assert!(cluster.texts(1, backend).iter().all(|text| !text.contains("request")));
}

#[test]
fn a_node_that_does_not_have_the_chosen_back_end_says_so_again() {
    let mut cluster = Cluster::new(2);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(1, "p"));
    cluster.close(1, backend);
    cluster.refuse(1, Refusal::QueueUnavailable);
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.append(0);
    cluster.hear(0);
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    cluster.settle();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
    cluster.ask(0, user, "b", TIMEOUT);
    assert_eq!(cluster.errs(0, user), ["no_backend"]);
}

#[test]
fn to_all_means_every_back_end_and_any_answer_ends_it() {
    let mut cluster = Cluster::with(2, to_all());
    let user = cluster.user(0, "p", "u");
    let backends = [(0, cluster.backend(0, "p")), (1, cluster.backend(1, "p")), (1, cluster.backend(1, "p"))];
    let other = cluster.backend(1, "q");
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    assert_eq!(requests(&mut cluster, &backends), [1, 1, 1]);
    assert!(cluster.texts(1, other).is_empty());
    accept_answer(&mut cluster, 0, user, "a");
    backends.iter().for_each(|(node, backend)| cluster.close(*node, *backend));
    cluster.pass(TIMEOUT);
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    cluster.ask(0, user, "b", TIMEOUT);
    assert_eq!(cluster.errs(0, user), ["no_backend"]);
}

#[test]
fn to_all_is_lost_only_when_all_are_gone() {
    let mut cluster = Cluster::with(2, to_all());
    let user = cluster.user(0, "p", "u");
    let first = cluster.backend(0, "p");
    cluster.ask(0, user, "a", TIMEOUT);
    let late = cluster.open(1, "p", ws_cluster::model::Role::Backend, "late");
    cluster.append(1);
    cluster.append(0);
    cluster.settle();
    cluster.close(0, first);
    cluster.settle();
    assert_eq!(cluster.errs(0, user), Vec::<String>::new());
    cluster.backend(0, "p");
    cluster.close(1, late);
    cluster.settle();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
}

#[test]
fn a_user_who_leaves_is_told_nothing_and_frees_the_back_end_everywhere() {
    let mut cluster = Cluster::new(2);
    let backends = [(0, cluster.backend(0, "p")), (1, cluster.backend(1, "p"))];
    let users = [cluster.user(0, "p", "u"), cluster.user(1, "p", "v")];
    cluster.ask(0, users[0], "a", TIMEOUT);
    cluster.settle();
    let busy = requests(&mut cluster, &backends);
    cluster.close(0, users[0]);
    cluster.settle();
    for affair in ["b", "c"] {
        cluster.ask(1, users[1], affair, TIMEOUT);
        cluster.settle();
    }
    assert_eq!(requests(&mut cluster, &backends), [1, 1], "{busy:?} before");
    cluster.pass(TIMEOUT);
    assert_eq!(cluster.errs(0, users[0]), Vec::<String>::new());
    let gone = |record: &Record| matches!(record, Record::Presence(Presence { online: false, .. }));
    assert!(cluster.log.iter().any(|(_, record)| gone(record)));
}

#[test]
fn more_requests_than_the_bound_are_refused_and_counted() {
    let limits = QueueLimits { requests_pending_max: 2, ..QueueLimits::default() };
    let mut cluster = Cluster::with(2, ExchangeRules { limits, ..ExchangeRules::default() });
    let users = [cluster.user(0, "p", "u"), cluster.user(1, "p", "v")];
    cluster.backend(0, "p");
    for affair in ["a", "b", "c"] {
        cluster.ask(0, users[0], affair, TIMEOUT);
    }
    assert_eq!(cluster.errs(0, users[0]), ["overloaded"]);
    cluster.settle();
    cluster.ask(1, users[1], "d", TIMEOUT);
    assert_eq!(cluster.errs(1, users[1]), ["overloaded"]);
    assert_eq!((cluster.count(0, Count::RequestsOverloaded), cluster.count(1, Count::RequestsOverloaded)), (1, 1));
    cluster.pass(TIMEOUT);
    cluster.ask(1, users[1], "e", TIMEOUT);
    cluster.settle();
    assert_eq!(cluster.errs(1, users[1]), Vec::<String>::new());
}

#[test]
fn only_a_connected_user_asks() {
    let mut cluster = Cluster::new(1);
    let backend = cluster.backend(0, "p");
    cluster.ask(0, backend, "a", TIMEOUT);
    cluster.ask(0, SessionId { slot: 77, ..backend }, "a", TIMEOUT);
    assert!(cluster.nodes[0].outgoing.is_empty());
}

#[test]
fn a_beat_replaces_what_was_known_of_its_node() {
    let mut cluster = Cluster::new(2);
    let (user, backend) = (cluster.user(0, "p", "u"), cluster.backend(1, "p"));
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    let (node, boot, cid) = (2, cluster.nodes[1].boot, cluster.cid(1, backend));
    let beat = |backends| Record::Beat(Beat { node, boot, phase: BeatPhase::Alive, backends, standing: None });
    cluster.put(beat(Vec::new()));
    cluster.settle();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
    let foreign = ws_cluster::model::ClientId { node: 1, ..cid };
    cluster.put(beat(vec![(pid("p"), foreign)]));
    cluster.settle();
    cluster.ask(0, user, "b", TIMEOUT);
    assert_eq!(cluster.errs(0, user), ["no_backend"]);
    cluster.put(beat(vec![(pid("p"), cid)]));
    cluster.settle();
    cluster.texts(1, backend);
    cluster.ask(0, user, "c", TIMEOUT);
    cluster.settle();
    assert_eq!(requests(&mut cluster, &[(1, backend)]), [1]);
}

#[test]
fn another_boot_of_a_node_loses_the_back_ends_of_the_one_before() {
    let mut cluster = Cluster::new(2);
    let user = cluster.user(0, "p", "u");
    cluster.backend(1, "p");
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    let old = cluster.nodes.pop().expect("two nodes");
    let node = cluster.join(old.id, Boot(0x200));
    cluster.tick();
    assert_eq!(cluster.errs(0, user), ["backend_lost"]);
    let cid = ws_cluster::model::ClientId { node: old.id, boot: old.boot, session: user };
    cluster.put(Record::Backend(BackendChange { pid: pid("p"), cid, online: true }));
    cluster.settle();
    cluster.ask(0, user, "b", TIMEOUT);
    assert_eq!(cluster.errs(0, user), ["no_backend"]);
    let backend = cluster.backend(node, "p");
    cluster.ask(0, user, "c", TIMEOUT);
    cluster.settle();
    assert_eq!(requests(&mut cluster, &[(node, backend)]), [1]);
}

#[test]
fn a_node_that_says_goodbye_or_falls_silent_loses_its_back_ends() {
    for goodbye in [true, false] {
        let mut cluster = Cluster::new(3);
        let user = cluster.user(0, "p", "u");
        let timeout = 4 * NODE_TIMEOUT;
        cluster.backend(1, "p");
        cluster.ask(0, user, "a", timeout);
        cluster.settle();
        if goodbye {
            let mut out = Vec::new();
            cluster.nodes[1].exchange.goodbye(&mut out);
            cluster.nodes[1].keep(out);
            cluster.settle();
            assert_eq!(cluster.errs(0, user), ["backend_lost"]);
        }
        cluster.nodes.remove(1);
        cluster.pass(NODE_TIMEOUT - Duration::from_secs(3));
        assert_eq!(cluster.errs(0, user), Vec::<String>::new());
        cluster.pass(Duration::from_secs(3));
        let expected: &[&str] = if goodbye { &[] } else { &["backend_lost"] };
        assert_eq!(cluster.errs(0, user), expected);
        assert_eq!(cluster.count(0, Count::NodesLost), u64::from(!goodbye));
    }
}

#[test]
fn a_queue_that_stalls_makes_no_node_look_dead() {
    let mut cluster = Cluster::new(2);
    let user = cluster.user(0, "p", "u");
    let backend = cluster.backend(1, "p");
    for _ in 0..60 {
        cluster.now += Duration::from_secs(1);
        (0..2).for_each(|node| cluster.apply(node, Input::Tick));
    }
    cluster.settle();
    cluster.pass(Duration::from_secs(1));
    cluster.texts(1, backend);
    cluster.ask(0, user, "a", TIMEOUT);
    cluster.settle();
    assert_eq!(requests(&mut cluster, &[(1, backend)]), [1]);
    assert_eq!(cluster.count(0, Count::NodesLost), 0);
}
