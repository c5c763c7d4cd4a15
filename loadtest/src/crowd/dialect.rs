//! What connections of a kind of server ask for, say and hear: the one place where targets differ on the wire. Pure but for
//! the wall clock in `exp`.

use serde::{Deserialize, Serialize};

use crate::{
    clock::unix_now,
    crowd::{conn::Stage, payload::Mark},
    sign::Credentials,
};

/// Who a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Hears a group's publications; a steady one must hear all.
    Subscriber {
        /// Which group.
        group: usize,
        /// Whether it stays for the whole run.
        steady: bool,
    },
    /// Publishes a group's.
    Publisher {
        /// Which group.
        group: usize,
    },
    /// Asks and waits for answers.
    Requester,
    /// Answers what is asked, where the server does not do so itself.
    Backend,
}

/// How to speak with a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Dialect {
    /// ws-cluster's own protocol, `docs/protocol.md`.
    Ours {
        /// The project.
        pid: String,
        /// Its secret.
        secret: String,
    },
    /// One path a purpose; `{tag}` stands for the group's name. What is published is what subscribers get, and what is sent
    /// to `echo` comes back.
    Paths {
        /// Where subscribers connect.
        subscribe: String,
        /// Where publishers connect.
        publish: String,
        /// Where requesters connect.
        echo: String,
    },
}

/// What a text means while a connection opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is not awaited: what is measured has begun to come.
    Early,
    /// It is what was awaited; this is to be sent, and the stage becomes this.
    Next(Option<String>, Stage),
    /// It says no.
    Refused,
}

/// What a back-end or publisher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A publication was accepted; when it was meant to leave.
    Accepted(Option<u64>),
    /// A publication was refused.
    Refused,
    /// A request, and its answer.
    Asked(String),
    /// Nothing that matters here.
    Nothing,
}

impl Dialect {
    /// Path and query of an upgrade. `uid` names the connection.
    pub fn target(&self, who: Who, tag: &str, uid: &str) -> String {
        match (self, who) {
            (Self::Ours { pid, secret }, who) => {
                let kind = if matches!(who, Who::Publisher { .. } | Who::Backend) { 2 } else { 1 };
                Credentials::new(pid, secret).connect_target(kind, uid, unix_now())
            }
            (Self::Paths { subscribe, .. }, Who::Subscriber { .. }) => subscribe.replace("{tag}", tag),
            (Self::Paths { publish, .. }, Who::Publisher { .. }) => publish.replace("{tag}", tag),
            (Self::Paths { echo, .. }, _) => echo.replace("{tag}", tag),
        }
    }

    /// The stage behind an accepted upgrade.
    pub fn first_stage(&self) -> Stage {
        match self {
            Self::Ours { .. } => Stage::Opening(0),
            Self::Paths { .. } => Stage::Live,
        }
    }

    /// What a text means at this step of the opening of one who asks for `tags`.
    pub fn opening(&self, step: u8, who: Who, tags: &[String], text: &[u8]) -> Opened {
        let has = |piece: &str| contains(text, piece.as_bytes());
        match step {
            _ if has(r#""code":0"#) => Opened::Refused,
            0 if has(r#""type":"connect""#) => match who {
                Who::Subscriber { .. } if !tags.is_empty() => {
                    let tags = tags.join("\",\"");
                    let command = format!(r#"{{"type":"subscribe","ack_id":"s","tags":["{tags}"]}}"#);
                    Opened::Next(Some(command), Stage::Opening(1))
                }
                _ => Opened::Next(None, Stage::Live),
            },
            1 if has(r#""ack_id":"s""#) => Opened::Next(None, Stage::Live),
            _ => Opened::Early,
        }
    }

    /// Whether publications are answered one by one.
    pub fn answers_publications(&self) -> bool {
        matches!(self, Self::Ours { .. })
    }

    /// Whether requests need a back-end of ours that answers.
    pub fn needs_backend(&self) -> bool {
        matches!(self, Self::Ours { .. })
    }

    /// The text that publishes `mark` to `tag`.
    pub fn publication(&self, tag: &str, mark: Mark, payload_bytes: usize) -> String {
        let payload = mark.payload(payload_bytes);
        match self {
            Self::Ours { .. } => {
                let due_us = mark.due_us;
                format!(r#"{{"type":"push","ack_id":"{due_us}","to":{{"tags":["{tag}"]}},"payload":{payload}}}"#)
            }
            Self::Paths { .. } => payload,
        }
    }

    /// The text that asks for an answer.
    pub fn request(&self, mark: Mark, payload_bytes: usize) -> String {
        let payload = mark.payload(payload_bytes);
        match self {
            Self::Ours { .. } => {
                format!(r#"{{"type":"request","affair_id":"{}","payload":{payload}}}"#, mark.number)
            }
            Self::Paths { .. } => payload,
        }
    }

    /// What a publisher or back-end of ours makes of a text.
    pub fn told(&self, text: &[u8]) -> Told {
        let Self::Ours { .. } = self else { return Told::Nothing };
        let Ok(text) = std::str::from_utf8(text) else { return Told::Nothing };
        match serde_json::from_str::<Heard<'_>>(text) {
            Ok(Heard {
                kind: Some("request"),
                affair_id: Some(affair),
                source: Some(source),
                payload: Some(payload),
                ..
            }) => {
                let (cid, payload) = (source.cid, payload.get());
                Told::Asked(format!(
                    r#"{{"type":"push","affair_id":"{affair}","to":{{"cids":["{cid}"]}},"payload":{payload}}}"#
                ))
            }
            Ok(Heard { code: Some(1), kind: None, ack_id, .. }) => {
                Told::Accepted(ack_id.and_then(|due_us| due_us.parse().ok()))
            }
            Ok(Heard { code: Some(_), .. }) => Told::Refused,
            _ => Told::Nothing,
        }
    }
}

#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    code: Option<i64>,
    ack_id: Option<&'a str>,
    affair_id: Option<&'a str>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    #[serde(borrow)]
    payload: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    cid: &'a str,
}

fn contains(text: &[u8], piece: &[u8]) -> bool {
    text.windows(piece.len()).any(|window| window == piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIBER: Who = Who::Subscriber { group: 0, steady: true };

    fn ours() -> Dialect {
        Dialect::Ours { pid: "1".into(), secret: "s".into() }
    }

    #[test]
    fn a_subscriber_of_ours_waits_for_greeting_and_grant() {
        let greeting = br#"{"type":"connect","ack_id":"","code":1,"msg":"","payload":{}}"#;
        let tags = ["a.b".to_owned(), "c".to_owned()];
        let Opened::Next(Some(command), Stage::Opening(1)) = ours().opening(0, SUBSCRIBER, &tags, greeting) else {
            panic!("no subscription")
        };
        assert_eq!(command, r#"{"type":"subscribe","ack_id":"s","tags":["a.b","c"]}"#);
        let publication = br#"{"tag":"a.b","id":"1","prev":"","payload":{"n":1,"t":2}}"#;
        assert_eq!(ours().opening(1, SUBSCRIBER, &tags, publication), Opened::Early);
        let granted = br#"{"ack_id":"s","code":1,"msg":"success","payload":{"granted":["a.b"],"denied":[]}}"#;
        assert_eq!(ours().opening(1, SUBSCRIBER, &tags, granted), Opened::Next(None, Stage::Live));
        let denied = br#"{"ack_id":"s","code":0,"msg":"no tag was granted"}"#;
        assert_eq!(ours().opening(1, SUBSCRIBER, &tags, denied), Opened::Refused);
        assert_eq!(ours().opening(0, Who::Backend, &[], greeting), Opened::Next(None, Stage::Live));
        assert_eq!(ours().opening(0, SUBSCRIBER, &[], greeting), Opened::Next(None, Stage::Live));
    }

    #[test]
    fn a_back_end_answers_who_asked_and_counts_answers() {
        let request =
            br#"{"type":"request","affair_id":"7","source":{"pid":"1","uid":"u","cid":"c-1"},"payload":{"n":7}}"#;
        let answer = r#"{"type":"push","affair_id":"7","to":{"cids":["c-1"]},"payload":{"n":7}}"#;
        assert_eq!(ours().told(request), Told::Asked(answer.into()));
        assert_eq!(ours().told(br#"{"ack_id":"7","code":1,"msg":"","payload":{"id":"1"}}"#), Told::Accepted(Some(7)));
        assert_eq!(ours().told(br#"{"ack_id":"1","code":0,"msg":"","err":"x"}"#), Told::Refused);
        assert_eq!(ours().told(br#"{"type":"online_clients","payload":[]}"#), Told::Nothing);
    }

    #[test]
    fn peers_are_told_apart_by_their_paths() {
        let peer =
            Dialect::Paths { subscribe: "/sub/{tag}".into(), publish: "/pub/{tag}".into(), echo: "/echo".into() };
        assert_eq!(peer.target(SUBSCRIBER, "t", "u"), "/sub/t");
        assert_eq!(peer.target(Who::Publisher { group: 0 }, "t", "u"), "/pub/t");
        assert_eq!(peer.target(Who::Requester, "t", "u"), "/echo");
        let mark = Mark { number: 1, due_us: 2 };
        assert_eq!(peer.publication("t", mark, 50), mark.payload(50));
        assert_eq!(peer.publication("t", mark, 50).len(), 50);
    }
}
