//! Who may call, what is told to who may not, and the calls that only read.
//! Method: signed and mis-signed requests over loopback against the real API, behind which a stand-in for the
//! exchange answers.

mod http_support;

use std::time::Duration;

use http_support::{
    Client,
    exchange::{FORM, JSON, OLD_SECRET, SECRET, fixture, json_target, query, signed, target},
};
use ws_cluster::{
    clock,
    health::State,
    limits::Limits,
    metrics::requests::{Method, Url},
    model::{FromCore, Pid, Role, project::Secret},
    protocol::{jwt, sign::Identity},
};

const BODY: &str = r#"{"uids":["ann"],"data":1}"#;

#[test]
fn bad_credentials_are_401_and_say_nothing_more() {
    let mut limits = Limits::default();
    limits.opening.failed_credentials_per_minute = 0;
    let fixture = fixture(limits);
    let good = json_target("/ws/push", BODY);
    let until = |ahead| signed(SECRET, "/ws/push", ("1", ahead), &[], &[], Some(BODY));
    let cases = [
        target("wrong", "/ws/push", &[], Some(BODY)),
        signed(SECRET, "/ws/push", ("unknown", 60), &[], &[], Some(BODY)),
        good.replace("pid=1", "pid=2"),
        format!("{good}&affair_id=x"),
        good.replace("sign=", "sign=0"),
        good.split("&sign=").next().expect("a part").to_owned(),
        json_target("/ws/push", r#"{"uids":["eve"],"data":1}"#),
        target(SECRET, "/ws/push", &[], None),
        until(-2),
        until(3600),
        "/ws/push".to_owned(),
    ];
    let wrong: Vec<_> = cases.iter().map(|target| fixture.call("POST", target, JSON, BODY)).collect();
    for (target, answer) in cases.iter().zip(&wrong) {
        assert_eq!(answer.status, 401, "{target}: {}", answer.body);
        let sign = target.split("sign=").nth(1).filter(|sign| !sign.is_empty());
        assert!(!answer.body.contains(SECRET) && sign.is_none_or(|sign| !answer.body.contains(sign)));
    }
    assert_eq!(wrong[0].body, wrong[1].body, "an unknown project is answered as a wrong secret");
    assert!(fixture.asked_nothing());
    assert_eq!(fixture.call("POST", &good, JSON, BODY).status, 200);
}

#[test]
fn either_secret_of_a_rotation_signs() {
    let fixture = fixture(Limits::default());
    for secret in [SECRET, OLD_SECRET] {
        let target = target(secret, "/ws/push", &[], Some(BODY));
        assert_eq!(fixture.call("POST", &target, JSON, BODY).status, 200);
    }
}

#[test]
fn a_parameter_given_twice_is_refused() {
    let fixture = fixture(Limits::default());
    let form = [("uids", "ann"), ("data", "1")];
    let target = signed(SECRET, "/ws/push", ("1", 60), &[("uids", "bob")], &form, None);
    assert_eq!(fixture.call("POST", &target, FORM, &query(&form)).status, 400);
    assert!(fixture.asked_nothing());
}

#[test]
fn a_token_of_a_back_end_calls_and_one_of_a_user_may_not() {
    let fixture = fixture(Limits::default());
    for (role, status) in [(Role::Backend, 200), (Role::User, 403)] {
        let identity = Identity {
            pid: Pid::new("1").expect("a pid"),
            role,
            uid: "x".into(),
            device: None,
            tag_patterns: None,
            expires_unix: Some(clock::unix_now().as_secs() + 60),
        };
        let token = jwt::sign_hs256(&Secret::new(SECRET), &identity);
        let answer = fixture.call("POST", &format!("/ws/push?token={token}"), JSON, BODY);
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(!answer.body.contains(&token));
    }
}

#[test]
fn an_address_that_keeps_failing_has_to_wait() {
    let fixture = fixture(Limits::default());
    let bad = target("wrong", "/ws/push", &[], Some(BODY));
    for _ in 0..10 {
        assert_eq!(fixture.call("POST", &bad, JSON, BODY).status, 401);
    }
    let answer = fixture.push(BODY);
    assert_eq!(answer.status, 429, "good ones wait too");
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a time");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(fixture.get("/live", &[]).status, 200, "health is open");
    assert!(fixture.asked_nothing());
}

#[test]
fn paths_and_methods_are_told_apart() {
    let fixture = fixture(Limits::default());
    for (method, target, status, allow) in [
        ("GET", "/", 404, None),
        ("POST", "/ws/push/", 404, None),
        ("GET", "/v1/tags/", 404, None),
        ("GET", "/ws/push", 405, Some("post")),
        ("DELETE", "/ws/push/batch", 405, Some("post")),
        ("POST", "/v1/online", 405, Some("get, head")),
        ("POST", "/v1/tags/a", 405, Some("get, head")),
        ("OPTIONS", "/v1/kick", 405, Some("post")),
    ] {
        let answer = fixture.call(method, target, "", "");
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {target}");
        assert!(answer.body.starts_with(r#"{"code":0,"err":""#), "{}", answer.body);
    }
}

#[test]
fn health_follows_the_node() {
    let fixture = fixture(Limits::default());
    assert_eq!(fixture.call("GET", "/ready", "", "").status, 503);
    fixture.health.set(State::Ready);
    for path in ["/live", "/ready", "/health"] {
        assert_eq!(fixture.call("GET", path, "", "").status, 200);
    }
    assert!(fixture.call("GET", "/health", "", "").body.contains(r#""node":7,"ready":true"#));
}

#[test]
fn a_tag_shows_its_last_value_and_history() {
    let fixture = fixture(Limits::default());
    for path in ["/v1/tags/gold:x/y", "/v1/tags/gold%3Ax%2Fy"] {
        let answer = fixture.get(path, &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let one = r#"{"id":"a-1","prev":"","crc":748731063,"payload":1e999}"#;
        let two = r#"{"id":"a-2","prev":"a-1","crc":2388827884,"payload":[ 2 ]}"#;
        let payload = format!(r#"{{"tag":"gold:x/y","last":{two},"history":[{one},{two}]}}"#);
        assert_eq!(answer.body, format!(r#"{{"code":1,"msg":"success","payload":{payload}}}"#));
    }
    let missing = fixture.get("/v1/tags/silver", &[]);
    assert_eq!((missing.status, missing.body.contains(r#""err":"not_found""#)), (404, true));
    for bad in ["/v1/tags/a%20b", "/v1/tags/%ff", "/v1/tags/%C3%A9"] {
        assert_eq!(fixture.get(bad, &[]).status, 400, "{bad}");
    }
    let unsigned = fixture.call("GET", "/v1/tags/gold:x/y", "", "");
    assert_eq!(unsigned.status, 401);
}

#[test]
fn the_online_list_comes_in_pages() {
    let fixture = fixture(Limits::default());
    let first = fixture.get("/v1/online", &[("limit", "2"), ("uids", "ann,bob,eve")]);
    assert_eq!(first.status, 200, "{}", first.body);
    let connection = r#"{"cid":"7-00000001-0-1-1","node":7,"device":null,"since":1700000000000}"#;
    let user = |uid: &str| format!(r#"{{"uid":"{uid}","connections":[{connection}]}}"#);
    let start = format!(r#"{{"code":1,"msg":"success","payload":{{"users":[{},{}],"next":""#, user("ann"), user("bob"));
    assert!(first.body.starts_with(&start), "{}", first.body);
    let FromCore::Online { pid, uids, after, limit, .. } = fixture.question() else { panic!("no question") };
    assert_eq!((pid.as_str(), uids.len(), after, limit), ("1", 3, None, 2));
    let cursor = first.body.rsplit('"').nth(1).expect("a cursor");
    let second = fixture.get("/v1/online", &[("cursor", cursor)]);
    assert_eq!(
        second.body,
        format!(r#"{{"code":1,"msg":"success","payload":{{"users":[{}],"next":null}}}}"#, user("eve"))
    );
    let FromCore::Online { after, limit, .. } = fixture.question() else { panic!("no question") };
    assert_eq!((after.as_deref(), limit), (Some("bob"), 1000));
    for bad in [("limit", "0"), ("limit", "1001"), ("limit", "x"), ("cursor", "!"), ("uids", "a,,b"), ("uids", ",")] {
        assert_eq!(fixture.get("/v1/online", &[bad]).status, 400, "{bad:?}");
    }
    assert!(fixture.asked_nothing());
}

#[test]
fn requests_are_counted_under_their_template() {
    let fixture = fixture(Limits::default());
    fixture.get("/v1/tags/gold:x/y", &[]);
    fixture.push(BODY);
    fixture.call("POST", "/ws/push", JSON, BODY);
    fixture.call("PATCH", "/etc/passwd", "", "");
    Client::send(fixture.address, b"nonsense\n").answer();
    let readings = fixture.counters.requests().read();
    let count = |method, url, code| {
        let found = readings.iter().find(|found| (found.method, found.url, found.code) == (method, url, code));
        found.map_or(0, |found| found.buckets.iter().sum::<u64>())
    };
    assert_eq!(count(Method::Get, Url::Tag, 200), 1);
    assert_eq!(count(Method::Post, Url::Push, 200), 1);
    assert_eq!(count(Method::Post, Url::Push, 401), 1);
    assert_eq!(count(Method::Other, Url::Other, 404), 1);
    assert_eq!(count(Method::Other, Url::Other, 400), 1);
    assert_eq!(readings.len(), 5);
}

#[test]
fn calls_follow_each_other_on_one_connection() {
    let fixture = fixture(Limits::default());
    let request = http_support::exchange::request("POST", &json_target("/ws/push", BODY), JSON, BODY);
    let mut client = Client::send(fixture.address, request.repeat(20).as_bytes());
    for _ in 0..20 {
        assert_eq!(client.answer().status, 200);
    }
    assert!(client.is_silent_for(Duration::from_millis(50)));
}
