//! What users and back-ends may write, and what each mistake is called.
//! Method: whole messages as clients write them, with the odd ones JSON allows.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    limits::FrameLimits,
    model::{ControlOp, Pid, Record, Tag},
};

fn limits() -> FrameLimits {
    FrameLimits::default()
}

fn user(text: &str) -> UserCommand<'_> {
    parse_user(text, &limits()).command.unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn user_err(text: &str) -> &'static str {
    parse_user(text, &limits()).command.map_or_else(Fault::err, |command| panic!("{text}: {command:?}"))
}

fn pid() -> Pid {
    Pid::new("502").unwrap()
}

fn record(text: &str) -> Record {
    match parse_backend(text, &pid(), &limits()).command {
        Ok(BackendCommand::Submit(record)) => record,
        other => panic!("{text}: {other:?}"),
    }
}

fn backend_err(text: &str) -> &'static str {
    parse_backend(text, &pid(), &limits()).command.map_or_else(Fault::err, |command| panic!("{text}: {command:?}"))
}

fn payload_of(text: &str) -> &str {
    match user(text) {
        UserCommand::Request { payload, .. } => payload,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_payload_is_the_very_bytes_that_were_written() {
    for payload in [
        "18446744073709551617",
        "-0.10e+09",
        "1e999",
        r#"{"b":1, "a" :2,"b":3}"#,
        r#""\u00e9\ud834\udd1e\/\ud800""#,
        "[ 1 ,\t2\n]",
        "\"é→𝄞\"",
        "null",
        r#"{"type":"heart","ack_id":"inner"}"#,
    ] {
        for envelope in [
            format!(r#"{{"type":"request","payload":{payload}}}"#),
            format!(" {{ \"payload\" : {payload} , \"type\":\"request\", \"more\":[{{}}] }} "),
        ] {
            assert_eq!(payload_of(&envelope), payload, "{envelope}");
        }
        let push = format!(r#"{{"to":{{"uids":["a"]}},"payload": {payload} }}"#);
        let Record::Push(push) = record(&push) else { panic!("{push} is no push") };
        assert_eq!(push.payload, payload.as_bytes());
    }
}

#[test]
fn a_message_without_type_is_a_request() {
    let text = r#"{"affair_id":"a1","ack_id":"k","payload":{"x":1},"timeout_ms":1500}"#;
    let parsed = parse_user(text, &limits());
    assert_eq!(parsed.ack_id.as_deref(), Some("k"));
    let timeout = Some(Duration::from_millis(1500));
    let expected = UserCommand::Request { affair_id: Some("a1".into()), payload: r#"{"x":1}"#, timeout };
    assert_eq!(parsed.command, Ok(expected));
    for text in ["{}", r#"{"type":null}"#, r#"{"type":""}"#, r#"{"type":"request"}"#] {
        assert_eq!(payload_of(text), "null", "{text}");
    }
}

#[test]
fn names_of_members_and_types_may_be_escaped() {
    assert_eq!(user(r#"{"\u0074ype":"h\u0065art"}"#), UserCommand::Heart);
    assert_eq!(parse_user(r#"{"ack_id":"\"\n","type":"heart"}"#, &limits()).ack_id.as_deref(), Some("\"\n"));
}

#[test]
fn tags_come_as_array_of_either_kind_or_as_list() {
    let request = |tag: &str, since: Option<&str>, hz_max| {
        let since = since.map(Box::from);
        TagRequest { tag: Tag::new(tag).unwrap(), since, hz_max }
    };
    let tags = |text: &str| match user(text) {
        UserCommand::Subscribe { tags, denied } if denied.is_empty() => tags,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        tags(
            r#"{"type":"subscribe","tags":["a",{"tag":"b","since":"1-2","max_hz":5,"x":0},{"tag":"c","since":null}]}"#
        ),
        [request("a", None, None), request("b", Some("1-2"), Some(5)), request("c", None, None)]
    );
    assert_eq!(tags(r#"{"type":"subscribe","tags":"a, b,,c"}"#).len(), 3);
    assert_eq!(tags(r#"{"type":"subscribe","tags":[{"tag":"b","since":""}]}"#), [request("b", None, None)]);
    let expected = UserCommand::Unsubscribe { tags: vec![Tag::new("a").unwrap(), Tag::new("b").unwrap()] };
    assert_eq!(user(r#"{"type":"unsubscribe","tags":["a","no tag",{"tag":"b"}]}"#), expected);
    assert_eq!(user(r#"{"type":"unsubscribe","tags":"a,b"}"#), expected);
}

#[test]
fn a_name_that_is_no_tag_is_denied_alone() {
    let long = "x".repeat(5000);
    let text = format!(r#"{{"type":"subscribe","tags":["good","no tag","","{long}"]}}"#);
    let UserCommand::Subscribe { tags, denied } = user(&text) else { panic!() };
    assert_eq!(tags.len(), 1);
    let denied: Vec<_> = denied.iter().map(|denied| (denied.tag.len(), denied.err)).collect();
    assert_eq!(denied, [(6, "bad_tag"), (0, "bad_tag"), (256, "bad_tag")]);
}

#[test]
fn more_tags_than_a_connection_may_have_are_denied() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let text = format!(r#"{{"type":"subscribe","tags":"{}"}}"#, names.join(","));
    let UserCommand::Subscribe { tags, denied } = user(&text) else { panic!() };
    assert_eq!((tags.len(), denied.len(), denied[0].err), (256, 44, "too_many_tags"));
}

#[test]
fn a_check_is_of_tags_in_every_form_of_a_list() {
    let tags = |text: &str| match user(text) {
        UserCommand::Crc { tags, denied } if denied.is_empty() => tags,
        other => panic!("{text}: {other:?}"),
    };
    let expected = [Tag::new("a").unwrap(), Tag::new("b").unwrap()];
    for list in [r#"["a","b"]"#, r#""a, b""#, r#"["a",{"tag":"b","since":"1-2"}]"#] {
        assert_eq!(tags(&format!(r#"{{"type":"crc","tags":{list}}}"#)), expected, "{list}");
    }
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let UserCommand::Crc { tags, denied } = user(&format!(r#"{{"type":"crc","tags":"no tag,{}"}}"#, names.join(",")))
    else {
        panic!()
    };
    assert_eq!((tags.len(), denied.len()), (256, 45));
    assert_eq!((denied[0].err, denied[1].err), ("bad_tag", "too_many_tags"));
}

#[test]
fn each_mistake_of_a_user_has_its_word() {
    for (text, err) in [
        ("", "bad_json"),
        ("5", "bad_json"),
        (r#"["heart"]"#, "bad_json"),
        (r#"{"type":"heart""#, "bad_json"),
        (r#"{"type":"heart"} x"#, "bad_json"),
        ("{type:'heart'}", "bad_json"),
        (r#"{"payload":01}"#, "bad_json"),
        (r#"{"type":"push"}"#, "bad_type"),
        (r#"{"type":5}"#, "bad_field"),
        (r#"{"type":"heart","type":"heart"}"#, "bad_field"),
        (r#"{"type":"subscribe"}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":[]}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":""}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":[1]}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":[["a"]]}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":[{"since":"a"}]}"#, "bad_field"),
        (r#"{"type":"subscribe","tags":[{"tag":"a","max_hz":-1}]}"#, "bad_field"),
        (r#"{"type":"unsubscribe","tags":[]}"#, "bad_field"),
        (r#"{"type":"unsubscribe","tags":{}}"#, "bad_field"),
        (r#"{"type":"crc"}"#, "bad_field"),
        (r#"{"type":"crc","tags":[]}"#, "bad_field"),
        (r#"{"type":"refresh"}"#, "bad_field"),
        (r#"{"timeout_ms":"5"}"#, "bad_field"),
        (r#"{"timeout_ms":-5}"#, "bad_field"),
        (r#"{"ack_id":7}"#, "bad_field"),
    ] {
        assert_eq!(user_err(text), err, "{text}");
    }
    let long = format!(r#"{{"affair_id":"{}"}}"#, "x".repeat(257));
    assert_eq!(user_err(&long), "bad_field");
}

#[test]
fn a_mistake_is_answered_under_its_ack_id() {
    let parsed = parse_user(r#"{"type":"subscribe","tags":5,"ack_id":"k"}"#, &limits());
    assert_eq!((parsed.ack_id.as_deref(), parsed.command.is_err()), (Some("k"), true));
    assert_eq!(parse_user(r#"{"type":"heart","ack_id":""}"#, &limits()).ack_id, None);
}

#[test]
fn nesting_is_bounded_before_anything_recurses() {
    let nested = |depth: usize| format!(r#"{{"payload":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(payload_of(&nested(32)).len(), 62);
    assert_eq!(user_err(&nested(33)), "too_deep");
    assert_eq!(user_err(&format!(r#"{{"payload":{}"#, "[".repeat(60_000))), "too_deep");
}

#[test]
fn a_push_with_one_tag_is_a_publication_and_any_other_is_not() {
    let Record::Publication(publication) = record(
        r#"{"type":"push","to":{"tags":["kline.BTC"],"uids":[],"pid":"66"},"keep":true,"affair_id":"a","idempotency_key":"i","payload":1}"#,
    ) else {
        panic!("no publication")
    };
    assert_eq!((&*publication.pid, &*publication.tag, publication.keep), ("502", "kline.BTC", true));
    assert_eq!((publication.affair_id.as_deref(), publication.idempotency_key.as_deref()), (Some("a"), Some("i")));
    for text in [
        r#"{"to":{"tags":["a","b"]},"payload":1}"#,
        r#"{"to":{"tags":["a"],"uids":["u"]},"payload":1}"#,
        r#"{"to":{"tags":"a","devices":"ios"},"payload":1}"#,
        r#"{"to":{"all":true},"payload":1}"#,
    ] {
        assert!(matches!(record(text), Record::Push(_)), "{text}");
    }
}

#[test]
fn the_parts_of_an_audience_come_as_arrays_or_lists() {
    let Record::Push(push) = record(r#"{"to":{"uids":"a,b","cids":["c"],"tags":null,"devices":[]},"payload":null}"#)
    else {
        panic!("no push")
    };
    assert_eq!((push.audience.uids.len(), push.audience.cids.len(), push.audience.len()), (2, 1, 3));
    assert_eq!(push.payload, "null");
}

#[test]
fn each_mistake_of_a_back_end_has_its_word() {
    for (text, err) in [
        (r#"{"payload":1}"#, "no_audience"),
        (r#"{"to":{},"payload":1}"#, "no_audience"),
        (r#"{"to":{"uids":[],"tags":""},"payload":1}"#, "no_audience"),
        (r#"{"to":{"all":false},"payload":1}"#, "no_audience"),
        (r#"{"to":{"uids":["a"]}}"#, "no_payload"),
        (r#"{"to":{"uids":["a"],"all":true},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":[""]},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":","},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":["a,b"]},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":[7]},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":"a","tags":["no tag"]},"payload":1}"#, "bad_field"),
        (r#"{"to":["a"],"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":"a","uids":"b"},"payload":1}"#, "bad_field"),
        (r#"{"to":{"uids":"a"},"keep":1,"payload":1}"#, "bad_field"),
        (r#"{"type":"request"}"#, "bad_type"),
        (r#"{"type":"control","to":{"uids":"a"}}"#, "bad_field"),
        (r#"{"type":"control","op":"subscribe","to":{"uids":"a"}}"#, "bad_field"),
        (r#"{"type":"control","op":"subscribe","to":{"uids":"a"},"tags":["no tag"]}"#, "bad_field"),
        (r#"{"type":"control","op":"kick"}"#, "no_audience"),
    ] {
        assert_eq!(backend_err(text), err, "{text}");
    }
}

#[test]
fn bounds_of_payload_and_audience_hold_at_their_number() {
    let tight = FrameLimits { push_bytes_max: 10, audience_max: 3, ..limits() };
    let err = |text: &str| parse_backend(text, &pid(), &tight).command.err().map(Fault::err);
    assert_eq!(err(r#"{"to":{"uids":"a"},"payload":1234567890}"#), None);
    assert_eq!(err(r#"{"to":{"uids":"a"},"payload":12345678901}"#), Some("too_large"));
    assert_eq!(err(r#"{"to":{"uids":"a,b","cids":["c"]},"payload":1}"#), None);
    assert_eq!(err(r#"{"to":{"uids":"a,b","cids":["c","d"]},"payload":1}"#), Some("audience_too_large"));
}

#[test]
fn controls_are_read() {
    let Record::Control(control) = record(r#"{"type":"control","op":"subscribe","to":{"uids":["a"]},"tags":"x,y"}"#)
    else {
        panic!("no control")
    };
    assert_eq!((control.op, control.tags.len(), control.audience.uids.len()), (ControlOp::Subscribe, 2, 1));
    let Record::Control(kick) = record(r#"{"type":"control","op":"kick","to":{"all":true},"tags":["ignored"]}"#) else {
        panic!("no control")
    };
    assert!(kick.op == ControlOp::Kick && kick.tags.is_empty() && kick.audience.is_everyone());
    let heart = parse_backend(r#"{"type":"heart","ack_id":"h"}"#, &pid(), &limits());
    assert!(matches!(heart.command, Ok(BackendCommand::Heart)));
}

#[test]
fn payloads_and_tokens_do_not_show_in_debug() {
    let shown = format!("{:?}", user(r#"{"payload":"secret"}"#))
        + &format!("{:?}", user(r#"{"type":"refresh","token":"secret"}"#));
    assert!(!shown.contains("secret"), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = parse_user(&text, &limits());
        let _ = parse_backend(&text, &pid(), &limits());
    }

    #[test]
    fn any_pieces_of_a_message_are_read_or_refused(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
        let text = pieces.concat();
        let _ = parse_user(&text, &limits());
        let _ = parse_backend(&text, &pid(), &limits());
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "1e9",
    "\"type\":",
    "\"tags\":",
    "\"to\":",
    "\"uids\":",
    "\"payload\":",
    "\"subscribe\"",
    "\"push\"",
    "\"control\"",
    "\"a,b\"",
    "{\"tag\":\"a\"}",
    " ",
    "\u{0}",
    "é",
];
