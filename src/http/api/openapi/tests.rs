//! The document says what the handlers do.
//! Method: what is written by hand is read back into the mirrors, which take nothing else; each documented member of a
//! body is given a value that cannot be right, and the fault must name it; each path must lead to its route.

use std::{collections::BTreeSet, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{types::*, *};
use crate::{
    health::{Health, State},
    http::message::{Fault, Response, error_json},
    limits::FrameLimits,
    model::{Pid, Published, RecordId, Refusal, Stamp},
    protocol::{fault::Fault as ProtocolFault, push},
};

const ID: RecordId = RecordId { origin: 0xa, seq: 7 };

fn read<T: DeserializeOwned>(text: impl AsRef<[u8]>) -> T {
    let text = text.as_ref();
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

fn document() -> Value {
    read(json())
}

#[test]
fn answers_written_by_hand_are_those_of_the_mirrors() {
    let accepted: Accepted = read(answer::accepted(ID, 10, 1460));
    assert_eq!((accepted.id, accepted.warning), (ID.to_string(), None));
    let warned: Accepted = read(answer::accepted(ID, 2000, 1460));
    assert!(warned.warning.is_some());
    let published = Arc::new(Published {
        id: ID,
        prev: None,
        pid: Pid::new("1").expect("a pid"),
        tag: crate::model::Tag::new("gold").expect("a tag"),
        keep: false,
        affair_id: None,
        payload: r#"{"a":1}"#.into(),
        stamp: Stamp::default(),
    });
    let state: TagState = read(answer::tag("gold", &[published]).expect("a value"));
    assert_eq!((&*state.tag, state.history.len(), &*state.last.prev), ("gold", 1, ""));
    assert_eq!((state.last.id, state.last.payload), (ID.to_string(), json!({"a": 1})));
    assert_eq!(state.last.crc, state.history[0].crc);
    let error: Error = read(error_json("bad_json", "a \"reason\""));
    assert_eq!((error.code, &*error.err, &*error.msg), (0, "bad_json", "a \"reason\""));
}

#[test]
fn health_is_that_of_the_mirrors_in_every_state() {
    let health = Health::new(200);
    let payload = |path: &str| -> Value {
        let (_, body) = health.answer(path).expect("a path");
        read::<Value>(body)["payload"].take()
    };
    let live: LiveState = serde_json::from_value(payload("/live")).expect("the mirror");
    assert!(live.live);
    for (state, word) in [
        (State::Starting, StateWord::Starting),
        (State::Ready, StateWord::Ready),
        (State::QueueUnavailable, StateWord::QueueUnavailable),
        (State::Fenced, StateWord::Fenced),
        (State::Draining, StateWord::Draining),
    ] {
        health.set(state);
        let node: NodeState = serde_json::from_value(payload("/health")).expect("the mirror");
        assert_eq!((node.node, node.ready, node.state), (200, state == State::Ready, word));
        assert_eq!(node.version, env!("CARGO_PKG_VERSION"));
    }
    health.set(State::Ready);
    let ready: ReadyState = serde_json::from_value(payload("/ready")).expect("the mirror");
    assert!(ready.ready);
}

/// The members of a documented type.
fn members(name: &str) -> Vec<String> {
    let document = document();
    let properties = document["components"]["schemas"][name]["properties"].as_object().cloned();
    properties.expect("an object").into_iter().map(|(member, _)| member).collect()
}

#[test]
fn every_documented_member_of_a_body_is_read() {
    let (pid, limits) = (Pid::new("1").expect("a pid"), FrameLimits::default());
    let wrong = |member: &str| json!({"tags": ["t"], "data": 1, member: {"not": "right"}}).to_string();
    let names =
        |fault: Result<_, ProtocolFault>, member: &str| fault.expect_err(member).to_string().starts_with(member);
    for member in members("Push").iter().filter(|member| !["data", "pid"].contains(&member.as_str())) {
        assert!(names(push::from_json(&pid, wrong(member).as_bytes(), &limits).map(drop), member), "{member}");
    }
    for member in members("Kick").iter().filter(|member| **member != "pid") {
        assert!(names(push::kick_from_json(&pid, wrong(member).as_bytes(), &limits).map(drop), member), "{member}");
    }
    let long = "x,".repeat(300);
    for member in members("PushForm").iter().filter(|member| **member != "data") {
        let param = |name: &str| match name {
            name if name == member => Some(&*long),
            "data" => Some("1"),
            _ => None,
        };
        assert!(names(push::from_params(&pid, param, &limits).map(drop), member), "{member}");
    }
}

#[test]
fn every_path_leads_to_the_route_that_is_described() {
    let document = document();
    let paths: BTreeSet<&String> = document["paths"].as_object().expect("an object").keys().collect();
    assert_eq!(paths.len(), PATHS.len());
    for (path, route) in PATHS {
        assert_eq!(Route::of(&path.replace("{tag}", "gold")), Some(route), "{path}");
        let item = document["paths"][path].as_object().expect("described");
        let methods: Vec<String> = item.keys().map(|method| method.to_uppercase()).collect();
        assert_eq!(methods, [route.methods().split(',').next().expect("a method")], "{path}");
    }
}

#[test]
fn the_words_of_faults_are_documented_under_their_status() {
    let document = document();
    let text = |status: u16| -> String {
        let all = document["components"]["responses"].as_object().expect("an object").values();
        let operation = &document["paths"]["/v1/tags/{tag}"]["get"]["responses"];
        let name = operation[status.to_string()]["$ref"].as_str().expect("a shared answer");
        assert!(all.count() >= 15);
        let name = name.rsplit('/').next().expect("a name");
        document["components"]["responses"][name]["description"].as_str().expect("a text").to_owned()
    };
    let protocol = [
        ProtocolFault::NoObject,
        ProtocolFault::TooDeep { depth_max: 1 },
        ProtocolFault::BadField { field: "", rule: "" },
        ProtocolFault::NoAudience,
        ProtocolFault::NoPayload,
        ProtocolFault::TooLarge { bytes: 1, bytes_max: 0 },
        ProtocolFault::TooManyMembers { members_max: 0 },
    ];
    let mut faults: Vec<Fault> = protocol.into_iter().map(super::super::call::bad_request_of).collect();
    let refusals =
        [Refusal::QueueUnavailable, Refusal::QueueFull, Refusal::Overloaded, Refusal::Stopping, Refusal::Unknown];
    faults.extend(refusals.into_iter().map(super::super::refused));
    faults.extend([
        Fault::OVERLOADED,
        Fault::bad_request(""),
        super::super::TOO_MANY_FAILURES,
        super::super::MISPLACED_REPLY,
    ]);
    for fault in faults {
        assert!(text(fault.status.as_u16()).contains(&format!("`{}`", fault.err)), "{fault:?}");
        let retries = Response::from(fault.clone()).headers.iter().any(|(name, _)| name == "retry-after");
        assert_eq!(retries, fault.status == 503, "{fault:?}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = Vec::new();
    gather(&document, &mut references);
    assert!(references.len() > 100);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn gather<'v>(value: &'v Value, references: &mut Vec<&'v str>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| gather(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, references)),
        _ => {}
    }
}
