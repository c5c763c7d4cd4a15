//! What connections are told: JSON texts, written straight into a caller's buffer.
//!
//! Invariants: payloads are copied byte for byte; a publication's text is written without an allocation of its
//! own (it is written once a core, for all its subscribers).

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::json::{self, Object};
use crate::model::{
    ClientId, NodeId, Place, Published, RecordId, Request, Tag,
    record::{OnlineClients, Presence, Source},
};

/// A tag that a subscriber does not get, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedTag {
    /// As asked for, cut to 256 bytes.
    pub tag: Box<str>,
    /// The stable word: `bad_tag`, `too_many_tags`, `denied`, `too_large`.
    pub err: &'static str,
}

/// How a publication reaches a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As it happens, or as what followed a `since`.
    Live {
        /// How many publications before it it stands for too; 0 but for a slow subscriber or one with a rate.
        merged: u32,
    },
    /// As the tag's last value, to a new subscriber.
    Snapshot {
        /// There is a hole before it: the `since` that was asked for is not known.
        gap: bool,
    },
}

/// The first frame of a connection.
pub fn greeting(out: &mut Vec<u8>, node: NodeId, cid: ClientId, heartbeat: Duration) {
    Object::write(out, |frame| {
        frame.text("type", "connect");
        frame.text("ack_id", "");
        frame.number("code", 1);
        frame.id("msg", format_args!("connect to node:{node} success"));
        frame.object("payload", |payload| {
            payload.id("client_id", cid);
            payload.number("node", node.into());
            payload.number("heartbeat_ms", milliseconds(heartbeat));
        });
    });
}

/// The answer to a `heart`. `local` is the node's local time as text, `unix_ms` the same instant.
pub fn heart(out: &mut Vec<u8>, ack_id: Option<&str>, cid: ClientId, local: &str, unix_ms: u64) {
    Object::write(out, |frame| {
        frame.text("type", "heart");
        frame.text_if("ack_id", ack_id);
        frame.number("code", 1);
        frame.text("msg", "");
        frame.object("payload", |payload| {
            payload.text("pong", local);
            payload.id("client_id", cid);
            payload.text("ack_id", ack_id.unwrap_or_default());
            payload.number("ts", unix_ms);
        });
    });
}

/// The answer to what was done. Nobody waits for it without an `ack_id`.
pub fn done(out: &mut Vec<u8>, ack_id: &str) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id);
        frame.number("code", 1);
        frame.text("msg", "success");
    });
}

/// The answer to what was not done; it is sent without an `ack_id` too.
pub fn failed(out: &mut Vec<u8>, ack_id: Option<&str>, err: &str, msg: &str) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id.unwrap_or_default());
        frame.number("code", 0);
        frame.text("msg", msg);
        frame.text("err", err);
    });
}

/// The answer to a `subscribe`; its `code` is 0 only when nothing was granted.
pub fn subscribed(out: &mut Vec<u8>, ack_id: Option<&str>, granted: &[Tag], denied: &[DeniedTag]) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id.unwrap_or_default());
        frame.number("code", u64::from(!granted.is_empty()));
        match denied {
            [first, ..] if granted.is_empty() => {
                frame.text("msg", "no tag was granted");
                frame.text("err", first.err);
            }
            _ => frame.text("msg", "success"),
        }
        frame.object("payload", |payload| {
            payload.array("granted", granted, |out, tag| json::escape_into(out, tag));
            denied_member(payload, denied);
        });
    });
}

fn denied_member(payload: &mut Object<'_>, denied: &[DeniedTag]) {
    payload.array("denied", denied, |out, denied| {
        Object::write(out, |item| {
            item.text("tag", &denied.tag);
            item.text("err", denied.err);
        });
    });
}

/// A tag and its last value's id and check sum, if it has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTag {
    /// The tag.
    pub tag: Tag,
    /// Of one publication.
    pub value: Option<(RecordId, u32)>,
}

/// The answer to a `crc`; its `code` is 0 only when no tag was checked. A tag without a value has an empty `id` and no
/// `crc` (`null`).
pub fn checked(out: &mut Vec<u8>, ack_id: Option<&str>, tags: &[CheckedTag], denied: &[DeniedTag]) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id.unwrap_or_default());
        frame.number("code", u64::from(!tags.is_empty()));
        match denied {
            [first, ..] if tags.is_empty() => {
                frame.text("msg", "no tag was checked");
                frame.text("err", first.err);
            }
            _ => frame.text("msg", "success"),
        }
        frame.object("payload", |payload| {
            payload.array("tags", tags, |out, checked| {
                Object::write(out, |item| {
                    item.text("tag", &checked.tag);
                    match checked.value {
                        Some((id, crc)) => {
                            item.id("id", id);
                            item.number("crc", crc.into());
                        }
                        None => {
                            item.text("id", "");
                            item.raw("crc", b"null");
                        }
                    }
                });
            });
            denied_member(payload, denied);
        });
    });
}

/// The answer to a push that is in the log.
pub fn pushed(out: &mut Vec<u8>, ack_id: &str, id: RecordId, over_guidance: Option<OverGuidance>) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id);
        frame.number("code", 1);
        frame.text("msg", "success");
        frame.object("payload", |payload| push_members(payload, id, over_guidance));
    });
}

/// The payload of the answer to a push that is in the log: `{"id"}`, and a `warning` if there is cause.
pub fn push_payload(out: &mut Vec<u8>, id: RecordId, over_guidance: Option<OverGuidance>) {
    Object::write(out, |payload| push_members(payload, id, over_guidance));
}

/// A payload that is larger than it should be: it takes more than one packet to every receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverGuidance {
    /// The payload's bytes.
    pub bytes: usize,
    /// What they should not be over.
    pub guidance_bytes: usize,
}

impl OverGuidance {
    /// The warning that a payload of `bytes` deserves.
    pub fn of(bytes: usize, guidance_bytes: usize) -> Option<Self> {
        (bytes > guidance_bytes).then_some(Self { bytes, guidance_bytes })
    }
}

fn push_members(payload: &mut Object<'_>, id: RecordId, over_guidance: Option<OverGuidance>) {
    payload.id("id", id);
    if let Some(OverGuidance { bytes, guidance_bytes }) = over_guidance {
        payload.id("warning", format_args!("the payload of {bytes} bytes is above the guidance of {guidance_bytes}"));
    }
}

/// A push that is no publication, as its receivers get it.
pub fn push(out: &mut Vec<u8>, affair_id: Option<&str>, payload: &[u8]) {
    Object::write(out, |frame| {
        frame.text_if("affair_id", affair_id);
        frame.raw("payload", payload);
    });
}

/// A publication, as its tag's subscribers get it.
pub fn publication(out: &mut Vec<u8>, published: &Published, arrival: Arrival) {
    Object::write(out, |frame| {
        frame.text("tag", &published.tag);
        frame.id("id", published.id);
        match published.prev {
            Some(prev) => frame.id("prev", prev),
            None => frame.text("prev", ""),
        }
        match arrival {
            Arrival::Live { merged: 0 } => {}
            Arrival::Live { merged } => frame.number("merged", merged.into()),
            Arrival::Snapshot { gap } => {
                frame.mark_if("snapshot", true);
                frame.mark_if("gap", gap);
            }
        }
        frame.text_if("affair_id", published.affair_id.as_deref());
        frame.raw("payload", &published.payload);
    });
}

/// A tag's publications were lost, and there is no value to say so with.
pub fn gap(out: &mut Vec<u8>, tag: &Tag) {
    Object::write(out, |frame| {
        frame.text("type", "gap");
        frame.text("tag", tag);
    });
}

/// A request is on its way to a back-end; whoever did not name it learns its name.
pub fn requested(out: &mut Vec<u8>, affair_id: &str, ack_id: &str) {
    Object::write(out, |frame| {
        frame.text("ack_id", ack_id);
        frame.number("code", 1);
        frame.text("msg", "success");
        frame.object("payload", |payload| payload.text("affair_id", affair_id));
    });
}

/// What became of a request that no back-end answered.
pub fn notice(out: &mut Vec<u8>, affair_id: &str, ack_id: Option<&str>, err: &str, msg: &str) {
    Object::write(out, |frame| {
        frame.text("affair_id", affair_id);
        frame.text_if("ack_id", ack_id);
        frame.number("code", 0);
        frame.text("err", err);
        frame.text("msg", msg);
    });
}

/// The node stops: the connection should move in this time, to `addr` if it knows no better.
pub fn move_away(out: &mut Vec<u8>, after: Duration, addr: Option<&str>) {
    Object::write(out, |frame| {
        frame.text("type", "move");
        frame.object("payload", |payload| {
            payload.number("after_ms", milliseconds(after));
            payload.text_if("addr", addr);
        });
    });
}

/// Where to connect, as the router answers.
pub fn routed(out: &mut Vec<u8>, place: &Place) {
    Object::write(out, |answer| {
        answer.number("code", 1);
        answer.text("msg", "success");
        answer.object("payload", |payload| {
            payload.number("node", place.node.into());
            payload.text("addr", &place.addr);
            payload.number("connections", place.users.into());
        });
    });
}

/// A user's request, as a back-end gets it.
pub fn request(out: &mut Vec<u8>, request: &Request) {
    Object::write(out, |frame| {
        frame.text("type", "request");
        frame.text("affair_id", &request.affair_id);
        frame.object("source", |source| source_members(source, &request.pid, &request.source));
        frame.raw("payload", &request.payload);
    });
}

/// A user came or went, as back-ends are told.
pub fn presence(out: &mut Vec<u8>, presence: &Presence) {
    Object::write(out, |frame| {
        frame.text("type", if presence.online { "connect" } else { "disconnect" });
        frame.object("source", |source| source_members(source, &presence.pid, &presence.source));
    });
}

/// A part of a node's online users, as back-ends are told.
pub fn online_clients(out: &mut Vec<u8>, online: &OnlineClients) {
    Object::write(out, |frame| {
        frame.text("type", "online_clients");
        frame.object("source", |source| source.text("pid", &online.pid));
        frame.array("payload", &online.users, |out, user| {
            Object::write(out, |item| {
                item.id("cid", user.cid);
                item.text("uid", &user.uid);
                item.text_if("device", user.device.as_deref());
            });
        });
    });
}

fn source_members(object: &mut Object<'_>, pid: &str, source: &Source) {
    object.text("pid", pid);
    object.text("uid", &source.uid);
    object.id("cid", source.cid);
    object.text_if("device", source.device.as_deref());
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
