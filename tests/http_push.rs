//! The calls that end in the log: every form of a push gives the same record, success is said only after the queue
//! has accepted, refusals are honest, and a batch's bad lines do not hurt the others.
//! Method: signed requests over loopback against the real API, behind which a stand-in for the exchange answers.

mod http_support;

use std::{sync::atomic::Ordering, time::Duration};

use http_support::{
    Client,
    exchange::{FORM, JSON, NDJSON, SECRET, fixture, json_target, payload, query, request, signed, target},
};
use ws_cluster::{
    limits::Limits,
    metrics::Count,
    model::{ControlOp, Record},
};

#[test]
fn every_form_of_a_push_gives_the_same_record() {
    let fixture = fixture(Limits::default());
    let params = [
        ("uids", "ann,b ö&b"),
        ("devices", "web"),
        ("data", r#"{"n": 1e999}"#),
        ("affair_id", "a"),
        ("idempotency_key", "k"),
    ];
    let body = r#"{"uids":["ann","b ö&b"],"devices":"web","data":{"n": 1e999},"affair_id":"a","idempotency_key":"k"}"#;
    let data = r#"{"data":{"n": 1e999}}"#;
    let rest: Vec<_> = params.into_iter().filter(|(name, _)| *name != "data").collect();
    let empty = target(SECRET, "/v1/push", &params, None);
    let form_target = signed(SECRET, "/ws/push", ("1", 60), &[], &params, None);
    let all_in_form = form_target.split_once('?').map(|(_, own)| format!("{own}&{}", query(&params)));
    for (target, kind, body) in [
        (empty.clone(), "", ""),
        (empty, FORM, ""),
        (form_target, FORM, &*query(&params)),
        ("/v1/push".to_owned(), FORM, &*all_in_form.expect("a query")),
        (json_target("/ws/push", body), JSON, body),
        (json_target("/v1/push", body), "application/json; charset=utf-8", body),
        (target(SECRET, "/ws/push", &rest, Some(data)), JSON, data),
    ] {
        let answer = fixture.call("POST", &target, kind, body);
        assert_eq!((answer.status, &*answer.body), (200, r#"{"code":1,"msg":"success","payload":{"id":"a-1"}}"#));
        let records = fixture.submitted();
        let [Record::Push(push)] = &records[..] else { panic!("{records:?}") };
        assert_eq!(push.audience.uids, ["ann", "b ö&b"].map(Box::<str>::from), "{kind} {body}");
        assert_eq!((push.audience.devices.len(), payload(&records[0])), (1, r#"{"n": 1e999}"#));
        assert_eq!((push.affair_id.as_deref(), push.idempotency_key.as_deref()), (Some("a"), Some("k")));
        assert_eq!(push.pid.as_str(), "1");
    }
}

#[test]
fn text_that_is_no_json_becomes_a_json_string() {
    let fixture = fixture(Limits::default());
    for (data, expected) in [("plain \"text\"", r#""plain \"text\"""#), ("[1,", r#""[1,""#), ("12", "12")] {
        let target = target(SECRET, "/ws/push", &[("tags", "a"), ("data", data), ("keep", "true")], None);
        assert_eq!(fixture.call("POST", &target, "", "").status, 200);
        let records = fixture.submitted();
        let Record::Publication(publication) = &records[0] else { panic!("{records:?}") };
        assert_eq!((payload(&records[0]), publication.keep, &*publication.tag), (expected, true, "a"));
    }
}

#[test]
fn success_is_said_only_after_the_queue_has_accepted() {
    let fixture = fixture(Limits::default());
    let body = r#"{"uids":["ann"],"data":"hold"}"#;
    let request = request("POST", &json_target("/ws/push", body), JSON, body);
    let mut client = Client::send(fixture.address, request.as_bytes());
    fixture.submitted();
    assert!(client.is_silent_for(Duration::from_millis(200)));
    fixture.release.store(true, Ordering::Relaxed);
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_refusal_is_a_503_with_its_word_and_a_time() {
    let mut limits = Limits::default();
    limits.http.answer_timeout = Duration::from_millis(300);
    let fixture = fixture(limits);
    for (payload, err) in [
        ("away", "queue_unavailable"),
        ("full", "queue_unavailable"),
        ("stopping", "stopping"),
        ("unknown", "queue_unavailable"),
        ("never", "queue_unavailable"),
    ] {
        let answer = fixture.push(&format!(r#"{{"uids":["ann"],"data":"{payload}"}}"#));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{payload}");
        assert!(answer.body.starts_with(&format!(r#"{{"code":0,"err":"{err}","msg":""#)), "{}", answer.body);
    }
    let mut limits = Limits::default();
    limits.queue.exchange_inbox_max = 0;
    let answer = http_support::exchange::fixture(limits).batch("{\"all\":true,\"data\":1}\n");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.body);
    assert!(answer.body.contains("overloaded"));
}

#[test]
fn a_batch_answers_line_by_line_in_order() {
    let fixture = fixture(Limits::default());
    let lines = concat!(
        r#"{"tags":["a"],"data":1}"#,
        "\r\n",
        "no json\n",
        r#"{"tags":["a"],"data":"away"}"#,
        "\n\n",
        r#"{"data":1}"#,
        "\n",
        r#"{"uids":["ann"],"data":2,"pid":"2"}"#,
        "\n",
        r#"{"uids":["ann"],"data":3,"pid":"1"}"#,
        "\n",
        "\u{feff}{}\n",
        r#"{"all":true,"data":4}"#,
    );
    let answer = fixture.batch(lines);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let starts: Vec<&str> = answer.body.lines().map(|line| line.split(r#","msg""#).next().expect("a part")).collect();
    let bad = |err| format!(r#"{{"code":0,"err":"{err}""#);
    let (good, bad_json, away) = (r#"{"code":1"#, bad("bad_json"), bad("queue_unavailable"));
    let (nobody, forbidden) = (bad("no_audience"), bad("forbidden"));
    assert_eq!(starts, [good, &bad_json, &away, &nobody, &forbidden, good, &bad_json, good]);
    let ids: Vec<_> = answer.body.lines().filter_map(|line| line.split(r#""id":""#).nth(1)).collect();
    assert_eq!(ids, [r#"a-1"}}"#, r#"a-3"}}"#, r#"a-4"}}"#]);
    let records = fixture.submitted();
    let payloads: Vec<&str> = records.iter().map(payload).collect();
    assert_eq!(payloads, ["1", r#""away""#, "3", "4"]);
    assert_eq!(fixture.counters.get(Count::PushesInvalid), 4);
}

#[test]
fn a_batch_of_bad_lines_asks_nobody_and_too_many_lines_are_refused_whole() {
    let mut limits = Limits::default();
    limits.http.batch_lines_max = 3;
    let fixture = fixture(limits);
    let answer = fixture.batch("1\n2\n3\n");
    assert_eq!((answer.status, answer.body.lines().count()), (200, 3));
    assert_eq!(fixture.batch("1\n2\n3\n4\n").status, 413);
    assert_eq!(fixture.batch("\n \r\n").status, 400);
    assert!(fixture.asked_nothing());
}

#[test]
fn a_payload_above_the_guidance_is_accepted_with_a_warning_and_counted() {
    let fixture = fixture(Limits::default());
    let large = format!(r#"{{"uids":["ann"],"data":"{}"}}"#, "x".repeat(1459));
    let answer = fixture.push(&large);
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains(r#"{"id":"a-1","warning":"the payload has 1461 bytes; above 1460"#),
        "{}",
        answer.body
    );
    let exact = format!(r#"{{"uids":["ann"],"data":"{}"}}"#, "x".repeat(1458));
    assert!(!fixture.push(&exact).body.contains("warning"));
    assert_eq!(fixture.batch(&large).body.matches("warning").count(), 1);
    assert_eq!(fixture.counters.get(Count::PayloadsOverGuidance), 2);
}

#[test]
fn a_kick_becomes_a_control() {
    let fixture = fixture(Limits::default());
    let body = r#"{"uids":["ann"],"cids":["7-00000001-0-1-1"]}"#;
    let in_query = target(SECRET, "/v1/kick", &[("tags", "gold,silver")], None);
    let calls = [(json_target("/v1/kick", body), JSON, body), (in_query, "", "")];
    let audiences = calls.map(|(target, kind, body)| {
        let answer = fixture.call("POST", &target, kind, body);
        assert_eq!((answer.status, &*answer.body), (200, r#"{"code":1,"msg":"success","payload":{"id":"a-1"}}"#));
        let records = fixture.submitted();
        let [Record::Control(control)] = &records[..] else { panic!("{records:?}") };
        assert_eq!((control.op, control.pid.as_str()), (ControlOp::Kick, "1"));
        control.audience.clone()
    });
    assert_eq!((audiences[0].uids.len(), audiences[0].cids.len(), audiences[1].tags.len()), (1, 1, 2));
    assert_eq!(fixture.call("POST", &json_target("/v1/kick", "{}"), JSON, "{}").status, 400);
    assert!(fixture.asked_nothing());
}

#[test]
fn what_is_wrong_with_a_push_is_told_honestly() {
    let fixture = fixture(Limits::default());
    for (status, err, body) in [
        (400, "bad_json", "{"),
        (400, "bad_json", "[1]"),
        (400, "bad_json", "\"\u{0}\""),
        (400, "no_payload", r#"{"uids":["ann"]}"#),
        (400, "no_audience", r#"{"data":1}"#),
        (400, "bad_field", r#"{"uids":7,"data":1}"#),
        (400, "bad_field", r#"{"uids":["a,b"],"data":1}"#),
        (400, "bad_field", r#"{"tags":["no spaces"],"data":1}"#),
        (400, "bad_field", r#"{"uids":["ann"],"uids":["bob"],"data":1}"#),
        (400, "too_deep", &*format!(r#"{{"uids":["a"],"data":{}{}}}"#, "[".repeat(40), "]".repeat(40))),
        (413, "audience_too_large", &*format!(r#"{{"data":1,"uids":[{}"a"]}}"#, r#""a","#.repeat(10_000))),
        (403, "forbidden", r#"{"uids":["ann"],"data":1,"pid":"2"}"#),
        (403, "forbidden", r#"{"pid":"x","uids":["ann"],"data":1}"#),
    ] {
        let answer = fixture.push(body);
        let start = body.get(..60).unwrap_or(body);
        assert_eq!(answer.status, status, "{start}: {}", answer.body);
        assert!(answer.body.starts_with(&format!(r#"{{"code":0,"err":"{err}","msg":""#)), "{start}: {}", answer.body);
    }
    assert!(fixture.asked_nothing());
    assert_eq!(fixture.push(r#"{"uids":["ann"],"data":1,"pid":"1"}"#).status, 200, "naming oneself is fine");
    assert_eq!(fixture.call("POST", &json_target("/ws/push/batch", "{}"), JSON, "{}").status, 415);
    assert_eq!(fixture.call("POST", &json_target("/ws/push", "{}"), NDJSON, "{}").status, 415);
}
