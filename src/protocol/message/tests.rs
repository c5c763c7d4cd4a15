//! Every text a connection can be told, byte for byte.

use bytes::Bytes;

use super::*;
use crate::model::{Boot, Pid, SessionId, Stamp};

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(crate::protocol::json::is_valid(text.as_bytes()), "{text}");
    text
}

fn cid() -> ClientId {
    let session = SessionId { core: 0, slot: 0x1a, generation: 3 };
    ClientId { node: 200, boot: Boot(0x5f3a_9c21), session }
}

fn source(device: Option<&str>) -> Source {
    Source { uid: "u\"1".into(), cid: cid(), device: device.map(Box::from) }
}

fn published(prev: Option<RecordId>) -> Published {
    Published {
        id: RecordId { origin: 0xc81f, seq: 0x2a },
        prev,
        pid: Pid::new("1").unwrap(),
        tag: Tag::new("kline.BTC").unwrap(),
        keep: false,
        affair_id: None,
        payload: Bytes::from_static(br#" {"p":18446744073709551617, "p":"\u00e9\/"}"#),
        stamp: Stamp::default(),
    }
}

#[test]
fn the_greeting_is_that_of_the_go_service_with_more_in_its_payload() {
    assert_eq!(
        text(|out| greeting(out, 200, cid(), Duration::from_secs(8))),
        r#"{"type":"connect","ack_id":"","code":1,"msg":"connect to node:200 success","payload":{"client_id":"200-5f3a9c21-0-1a-3","node":200,"heartbeat_ms":8000}}"#
    );
}

#[test]
fn a_heart_is_answered_with_time_and_connection() {
    assert_eq!(
        text(|out| heart(out, Some("k"), cid(), "2006-01-02 15:04:05", 7)),
        r#"{"type":"heart","ack_id":"k","code":1,"msg":"","payload":{"pong":"2006-01-02 15:04:05","client_id":"200-5f3a9c21-0-1a-3","ack_id":"k","ts":7}}"#
    );
    assert!(text(|out| heart(out, None, cid(), "", 7)).starts_with(r#"{"type":"heart","code":1,"#));
}

#[test]
fn answers_carry_their_ack_id() {
    assert_eq!(text(|out| done(out, "k\n")), r#"{"ack_id":"k\n","code":1,"msg":"success"}"#);
    assert_eq!(
        text(|out| failed(out, None, "bad_json", "no")),
        r#"{"ack_id":"","code":0,"msg":"no","err":"bad_json"}"#
    );
}

#[test]
fn a_subscribe_fails_only_when_nothing_was_granted() {
    let granted = [Tag::new("a").unwrap(), Tag::new("b").unwrap()];
    let denied = [DeniedTag { tag: "no \"tag".into(), err: "bad_tag" }];
    assert_eq!(
        text(|out| subscribed(out, Some("k"), &granted, &denied)),
        r#"{"ack_id":"k","code":1,"msg":"success","payload":{"granted":["a","b"],"denied":[{"tag":"no \"tag","err":"bad_tag"}]}}"#
    );
    assert_eq!(
        text(|out| subscribed(out, Some("k"), &[], &denied)),
        r#"{"ack_id":"k","code":0,"msg":"no tag was granted","err":"bad_tag","payload":{"granted":[],"denied":[{"tag":"no \"tag","err":"bad_tag"}]}}"#
    );
}

#[test]
fn a_check_tells_id_and_check_sum_and_fails_only_when_no_tag_was_checked() {
    let tag = |name| Tag::new(name).unwrap();
    let value = Some((RecordId { origin: 255, seq: 16 }, u32::MAX));
    let tags = [CheckedTag { tag: tag("a"), value }, CheckedTag { tag: tag("b"), value: None }];
    let denied = [DeniedTag { tag: "c".into(), err: "denied" }];
    assert_eq!(
        text(|out| checked(out, Some("k"), &tags, &denied)),
        r#"{"ack_id":"k","code":1,"msg":"success","payload":{"tags":[{"tag":"a","id":"ff-10","crc":4294967295},{"tag":"b","id":"","crc":null}],"denied":[{"tag":"c","err":"denied"}]}}"#
    );
    assert_eq!(
        text(|out| checked(out, None, &[], &denied)),
        r#"{"ack_id":"","code":0,"msg":"no tag was checked","err":"denied","payload":{"tags":[],"denied":[{"tag":"c","err":"denied"}]}}"#
    );
}

#[test]
fn a_push_is_answered_with_its_id_and_a_warning_if_it_is_large() {
    let id = RecordId { origin: 255, seq: 16 };
    assert_eq!(
        text(|out| pushed(out, "k", id, None)),
        r#"{"ack_id":"k","code":1,"msg":"success","payload":{"id":"ff-10"}}"#
    );
    assert_eq!(OverGuidance::of(1460, 1460), None);
    assert_eq!(
        text(|out| push_payload(out, id, OverGuidance::of(1461, 1460))),
        r#"{"id":"ff-10","warning":"the payload of 1461 bytes is above the guidance of 1460"}"#
    );
}

#[test]
fn payloads_come_out_byte_for_byte() {
    let payload = published(None).payload;
    let raw = std::str::from_utf8(&payload).unwrap();
    assert_eq!(text(|out| push(out, None, &payload)), format!(r#"{{"payload":{raw}}}"#));
    assert_eq!(text(|out| push(out, Some("a"), b"1")), r#"{"affair_id":"a","payload":1}"#);
    assert_eq!(
        text(|out| publication(out, &published(None), Arrival::Live { merged: 0 })),
        format!(r#"{{"tag":"kline.BTC","id":"c81f-2a","prev":"","payload":{raw}}}"#)
    );
}

#[test]
fn a_publication_says_how_it_arrives() {
    let mut known = published(Some(RecordId { origin: 1, seq: 2 }));
    known.payload = Bytes::from_static(b"1");
    known.affair_id = Some("f".into());
    assert_eq!(
        text(|out| publication(out, &known, Arrival::Snapshot { gap: false })),
        r#"{"tag":"kline.BTC","id":"c81f-2a","prev":"1-2","snapshot":true,"affair_id":"f","payload":1}"#
    );
    assert_eq!(
        text(|out| publication(out, &known, Arrival::Snapshot { gap: true })),
        r#"{"tag":"kline.BTC","id":"c81f-2a","prev":"1-2","snapshot":true,"gap":true,"affair_id":"f","payload":1}"#
    );
    assert_eq!(text(|out| gap(out, &known.tag)), r#"{"type":"gap","tag":"kline.BTC"}"#);
}

#[test]
fn back_ends_are_told_who_asks_comes_and_goes() {
    let pid = Pid::new("1").unwrap();
    let asked = Request {
        pid: pid.clone(),
        source: source(Some("ios")),
        affair_id: "a".into(),
        backend: None,
        timeout: Duration::ZERO,
        payload: Bytes::from_static(b"[ 1]"),
    };
    assert_eq!(
        text(|out| request(out, &asked)),
        r#"{"type":"request","affair_id":"a","source":{"pid":"1","uid":"u\"1","cid":"200-5f3a9c21-0-1a-3","device":"ios"},"payload":[ 1]}"#
    );
    let came = Presence { pid: pid.clone(), online: true, source: source(None) };
    assert_eq!(
        text(|out| presence(out, &came)),
        r#"{"type":"connect","source":{"pid":"1","uid":"u\"1","cid":"200-5f3a9c21-0-1a-3"}}"#
    );
    let went = Presence { online: false, ..came };
    assert!(text(|out| presence(out, &went)).starts_with(r#"{"type":"disconnect","#));
    let online = OnlineClients { pid, users: vec![source(None), source(Some("web"))] };
    assert_eq!(
        text(|out| online_clients(out, &online)),
        r#"{"type":"online_clients","source":{"pid":"1"},"payload":[{"cid":"200-5f3a9c21-0-1a-3","uid":"u\"1"},{"cid":"200-5f3a9c21-0-1a-3","uid":"u\"1","device":"web"}]}"#
    );
}

#[test]
fn notices_name_the_request() {
    assert_eq!(
        text(|out| notice(out, "a", None, "timeout", "late")),
        r#"{"affair_id":"a","code":0,"err":"timeout","msg":"late"}"#
    );
    assert!(text(|out| notice(out, "a", Some("k"), "timeout", "late")).contains(r#""ack_id":"k","#));
    let after = Duration::from_millis(250);
    assert_eq!(text(|out| move_away(out, after, None)), r#"{"type":"move","payload":{"after_ms":250}}"#);
    assert_eq!(
        text(|out| move_away(out, after, Some("a:1"))),
        r#"{"type":"move","payload":{"after_ms":250,"addr":"a:1"}}"#
    );
    let place = Place { node: 7, addr: "a:1".into(), users: 3, beat: 1 };
    assert_eq!(
        text(|out| routed(out, &place)),
        r#"{"code":1,"msg":"success","payload":{"node":7,"addr":"a:1","connections":3}}"#
    );
}
