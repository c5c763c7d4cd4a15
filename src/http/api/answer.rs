//! The payloads of the API's answers as JSON text.
//!
//! Invariants: pure; a publication's payload passes byte for byte; every other text is escaped.

use std::fmt::Write as _;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::message::{error_json, json_string},
    model::{Published, RecordId, record::OnlineConnection},
    protocol::crc,
};

/// `{"id":…}`, and a warning when the payload is above the guidance.
pub(super) fn accepted(id: RecordId, payload_bytes: usize, guidance_bytes: usize) -> String {
    if payload_bytes <= guidance_bytes {
        return format!(r#"{{"id":"{id}"}}"#);
    }
    let warning =
        format!("the payload has {payload_bytes} bytes; above {guidance_bytes} it takes more than one segment");
    format!(r#"{{"id":"{id}","warning":"{warning}"}}"#)
}

/// A line of a batch's answer: the shape of a whole answer.
pub(super) fn line(result: Result<String, (&str, &str)>) -> String {
    match result {
        Ok(payload) => format!("{{\"code\":1,\"msg\":\"success\",\"payload\":{payload}}}\n"),
        Err((err, msg)) => error_json(err, msg) + "\n",
    }
}

/// `{"tag","last","history"}`, each publication with the check sum of its payload; `history` is oldest first with the last value included. Nothing without a value.
pub(super) fn tag<P: AsRef<Published>>(tag: &str, history: &[P]) -> Option<Vec<u8>> {
    let last = history.last()?;
    let mut text = format!(r#"{{"tag":{},"last":"#, json_string(tag)).into_bytes();
    publication(&mut text, last.as_ref());
    text.extend_from_slice(br#","history":["#);
    for (index, published) in history.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        publication(&mut text, published.as_ref());
    }
    text.extend_from_slice(b"]}");
    Some(text)
}

fn publication(text: &mut Vec<u8>, published: &Published) {
    let mut head = format!(r#"{{"id":"{}","prev":""#, published.id);
    if let Some(prev) = published.prev {
        let _ = write!(head, "{prev}");
    }
    let _ = write!(head, r#"","crc":{},"payload":"#, crc::of(&published.payload));
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(&published.payload);
    text.push(b'}');
}

/// A page of users.
#[derive(Serialize, ToSchema)]
pub(super) struct OnlinePage<'a> {
    /// Sorted by `uid`.
    users: Vec<OnlineUser<'a>>,
    /// The `cursor` of the next page; `null` on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// A user with its connections.
#[derive(Serialize, ToSchema)]
struct OnlineUser<'a> {
    /// The user.
    uid: &'a str,
    /// At least one.
    #[schema(min_items = 1)]
    connections: Vec<OnlineClient<'a>>,
}

/// A connection of a user.
#[derive(Serialize, ToSchema)]
struct OnlineClient<'a> {
    /// The connection.
    cid: String,
    /// The node that holds it.
    node: u16,
    /// Its kind of device, if it has named one.
    #[schema(required = true)]
    device: Option<&'a str>,
    /// When it was opened, Unix milliseconds.
    since: u64,
}

/// A page of users; `connections` are sorted by uid.
pub(super) fn online(connections: &[OnlineConnection], more: bool) -> String {
    let users = connections.chunk_by(|one, other| one.source.uid == other.source.uid);
    let users = users.map(|connections| OnlineUser {
        uid: &connections[0].source.uid,
        connections: connections.iter().map(online_client).collect(),
    });
    let next = connections.last().filter(|_| more).map(|last| cursor(&last.source.uid));
    // Plain structs of texts and numbers always have a JSON form.
    serde_json::to_string(&OnlinePage { users: users.collect(), next }).unwrap_or_default()
}

fn online_client(connection: &OnlineConnection) -> OnlineClient<'_> {
    OnlineClient {
        cid: connection.source.cid.to_string(),
        node: connection.source.cid.node,
        device: connection.source.device.as_deref(),
        since: connection.since_unix_ms,
    }
}

/// Where the next page starts, as an opaque text.
fn cursor(uid: &str) -> String {
    BASE64URL_NOPAD.encode(uid.as_bytes())
}

/// The uid behind which a page starts.
pub(super) fn read_cursor(text: &str) -> Option<Box<str>> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let uid = String::from_utf8(bytes).ok()?;
    crate::model::ids::is_identity(&uid).then(|| uid.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Boot, ClientId, Pid, SessionId, Source, Tag};

    fn published(seq: u64, prev: Option<u64>, payload: &'static str) -> Arc<Published> {
        let id = |seq| RecordId { origin: 0xa, seq };
        Arc::new(Published {
            id: id(seq),
            prev: prev.map(id),
            pid: Pid::new("1").expect("a pid"),
            tag: Tag::new("kline.x").expect("a tag"),
            keep: false,
            affair_id: None,
            payload: payload.into(),
            stamp: crate::model::Stamp::default(),
        })
    }

    #[test]
    fn a_tag_shows_its_last_value_and_its_history_byte_for_byte() {
        let history = [published(1, None, r#"{"a": 1e400}"#), published(2, Some(1), "[ 1 ]")];
        let text = String::from_utf8(tag("kline.x", &history).expect("a value")).expect("text");
        assert_eq!(
            text,
            r#"{"tag":"kline.x","last":{"id":"a-2","prev":"a-1","crc":2351177909,"payload":[ 1 ]},"history":[{"id":"a-1","prev":"","crc":2370567136,"payload":{"a": 1e400}},{"id":"a-2","prev":"a-1","crc":2351177909,"payload":[ 1 ]}]}"#
        );
        assert_eq!(tag::<Arc<Published>>("kline.x", &[]), None);
    }

    #[test]
    fn connections_are_grouped_by_user_and_the_cursor_reads_back() {
        let connection = |uid: &str, slot, device: Option<&str>| OnlineConnection {
            source: Source {
                uid: uid.into(),
                cid: ClientId { node: 7, boot: Boot(1), session: SessionId { core: 0, slot, generation: 1 } },
                device: device.map(Into::into),
            },
            since_unix_ms: 5,
        };
        let connections = [connection("a\"", 1, None), connection("a\"", 2, Some("web")), connection("b", 3, None)];
        assert_eq!(
            online(&connections, false),
            r#"{"users":[{"uid":"a\"","connections":[{"cid":"7-00000001-0-1-1","node":7,"device":null,"since":5},{"cid":"7-00000001-0-2-1","node":7,"device":"web","since":5}]},{"uid":"b","connections":[{"cid":"7-00000001-0-3-1","node":7,"device":null,"since":5}]}],"next":null}"#
        );
        let page = online(&connections, true);
        let next = page.rsplit('"').nth(1).expect("a cursor");
        assert_eq!(read_cursor(next).as_deref(), Some("b"));
        for bad in ["", "!", "YQ==", "LA", "_w"] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
        assert_eq!(online(&[], false), r#"{"users":[],"next":null}"#);
    }

    #[test]
    fn a_payload_above_the_guidance_is_accepted_with_a_warning() {
        let id = RecordId { origin: 1, seq: 2 };
        assert_eq!(accepted(id, 1460, 1460), r#"{"id":"1-2"}"#);
        assert!(accepted(id, 1461, 1460).contains(r#""warning":"the payload has 1461 bytes"#));
        assert_eq!(
            line(Err(("bad_json", "a \"line\""))),
            "{\"code\":0,\"err\":\"bad_json\",\"msg\":\"a \\\"line\\\"\"}\n"
        );
    }
}
