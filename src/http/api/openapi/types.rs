//! Bodies, queries and payloads.
//!
//! Invariant: what is written or read by hand elsewhere has its mirror here and is compared with it by the tests; what
//! serde writes is described by its own type (`answer::OnlinePage`).
#![allow(dead_code, reason = "most of these types are never made: their schemas are used")]

#[cfg(test)]
use serde::Deserialize;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::words::{Flag, Name, NameList, Names, PageSize, Payload, Short, TagList, Tags, shown};

/// A push: the parts of its audience that are given are intersected, and exactly one tag alone makes it a publication,
/// which gets an `id` that subscribers see, is remembered and can be resumed.
#[derive(ToSchema)]
#[schema(example = json!({"tags": ["demo"], "data": {"hello": 1}}))]
pub(super) struct Push {
    /// Users.
    #[schema(required = false)]
    uids: Names,
    /// Connections.
    #[schema(required = false)]
    cids: Names,
    /// Whoever is subscribed to one of these tags.
    #[schema(required = false)]
    tags: Tags,
    /// Kinds of device.
    #[schema(required = false)]
    devices: Names,
    /// What is delivered. It must be given, here or in the query.
    #[schema(required = false)]
    data: Payload,
    /// The whole project; only without any other part of an audience.
    all: Option<bool>,
    /// Never merged away for a subscriber that is behind, as a closed bar must not be.
    keep: Option<bool>,
    /// Comes with the message.
    affair_id: Option<Short>,
    /// The second push with this key within its window, through whichever node, is answered as the first was, and
    /// delivered once.
    idempotency_key: Option<Short>,
    /// The project; it must be the one that signed.
    pid: Option<Name>,
}

/// A push in a query or form.
#[derive(ToSchema)]
#[schema(example = json!({"tags": "demo", "data": "{\"hello\":1}"}))]
pub(super) struct PushForm {
    /// Users.
    #[schema(required = false)]
    uids: NameList,
    /// Connections.
    #[schema(required = false)]
    cids: NameList,
    #[schema(required = false, schema_with = demo_tags)]
    tags: TagList,
    /// Kinds of device.
    #[schema(required = false)]
    devices: NameList,
    /// What is delivered: JSON as it stands, other text as a JSON string. It must be given, in the query or in the body.
    #[schema(required = false, example = r#"{"hello":1}"#)]
    data: String,
    /// The whole project; only without any other part of an audience.
    #[schema(required = false)]
    all: Flag,
    /// Never merged away for a subscriber that is behind, as a closed bar must not be.
    #[schema(required = false)]
    keep: Flag,
    /// Comes with the message.
    #[schema(required = false)]
    affair_id: Short,
    /// The second push with this key within its window is answered as the first was, and delivered once.
    #[schema(required = false)]
    idempotency_key: Short,
}

fn demo_tags() -> RefOr<Schema> {
    shown::<TagList>("demo", "Whoever is subscribed to one of these tags.")
}

/// Which connections are closed (4410).
#[derive(ToSchema)]
#[schema(example = json!({"uids": ["nobody"]}))]
pub(super) struct Kick {
    /// Users.
    #[schema(required = false)]
    uids: Names,
    /// Connections.
    #[schema(required = false)]
    cids: Names,
    /// Whoever is subscribed to one of these tags.
    #[schema(required = false)]
    tags: Tags,
    /// Kinds of device.
    #[schema(required = false)]
    devices: Names,
    /// The whole project; only without any other part of an audience.
    all: Option<bool>,
    /// The project; it must be the one that signed.
    pid: Option<Name>,
}

/// Which connections are closed, in a query or form.
#[derive(ToSchema)]
#[schema(example = json!({"uids": "nobody"}))]
pub(super) struct KickForm {
    #[schema(required = false, schema_with = no_users)]
    uids: NameList,
    /// Connections.
    #[schema(required = false)]
    cids: NameList,
    /// Whoever is subscribed to one of these tags.
    #[schema(required = false)]
    tags: TagList,
    /// Kinds of device.
    #[schema(required = false)]
    devices: NameList,
    /// The whole project; only without any other part of an audience.
    #[schema(required = false)]
    all: Flag,
}

fn no_users() -> RefOr<Schema> {
    shown::<NameList>("nobody", "Users.")
}

/// What proves who calls; always in the query.
#[derive(ToSchema)]
pub(super) struct Signing {
    /// The project. Not needed beside `token`.
    #[schema(required = false)]
    pid: Name,
    /// Unix seconds after which the call is void; at most `sign_horizon_push` (ten minutes) ahead.
    #[schema(required = false)]
    exp: u64,
    /// Lower-case hex HMAC-SHA256 over all other parameters and the body.
    #[schema(required = false, pattern = "^[0-9a-f]{64}$")]
    sign: String,
    /// A back-end's JWT in place of `pid`, `exp` and `sign`.
    #[schema(required = false)]
    token: String,
}

/// Which users, and from where on.
#[derive(ToSchema)]
pub(super) struct OnlineQuery {
    /// Only these users.
    #[schema(required = false)]
    uids: NameList,
    /// `next` of the page before.
    #[schema(required = false)]
    cursor: String,
    /// Users on a page.
    #[schema(required = false)]
    limit: PageSize,
}

/// What the queue has accepted.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
#[schema(example = json!({"id": "5f3a9c21-7"}))]
pub(super) struct Accepted {
    /// Its place among all pushes: opaque text. Subscribers see the `id` of a publication.
    pub(super) id: String,
    /// That the payload is above the guidance of 1460 bytes.
    #[schema(nullable = false)]
    pub(super) warning: Option<String>,
}

/// A tag as this node knows it.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
pub(super) struct TagState {
    /// The tag.
    pub(super) tag: String,
    /// Its last publication.
    pub(super) last: Publication,
    /// As many of its last publications as its rule has remembered: oldest first, `last` included.
    #[schema(min_items = 1)]
    pub(super) history: Vec<Publication>,
}

/// A publication that a tag remembers.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
#[schema(example = json!({"id": "5f3a9c21-7", "prev": "5f3a9c21-6", "crc": 1_262_834_139, "payload": {"hello": 1}}))]
pub(super) struct Publication {
    /// Its place among all pushes: opaque text.
    pub(super) id: String,
    /// The `id` of the tag's publication before it; empty for its first.
    pub(super) prev: String,
    /// CRC-32 (zlib's) of the payload's bytes.
    #[schema(value_type = u64, maximum = 4_294_967_295_u64)]
    pub(super) crc: u32,
    /// What was pushed, byte for byte.
    #[schema(value_type = Payload)]
    pub(super) payload: serde_json::Value,
}

/// The process runs.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
pub(super) struct LiveState {
    /// Always true.
    #[schema(example = true)]
    pub(super) live: bool,
}

/// The node takes traffic.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
pub(super) struct ReadyState {
    /// Always true.
    #[schema(example = true)]
    pub(super) ready: bool,
}

/// What the node says of itself.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
pub(super) struct NodeState {
    /// The node's number.
    #[schema(example = 200)]
    pub(super) node: u16,
    /// Whether it takes traffic.
    pub(super) ready: bool,
    /// Where it is in its life.
    pub(super) state: StateWord,
    /// The version that runs.
    #[schema(example = "0.1.0")]
    pub(super) version: String,
}

/// Where a node is in its life.
#[derive(Debug, PartialEq, ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(rename_all = "snake_case"))]
#[schema(rename_all = "snake_case")]
pub(super) enum StateWord {
    /// It fills its tag table.
    Starting,
    /// It takes traffic.
    Ready,
    /// The message queue is away: users stay, pushes are refused.
    QueueUnavailable,
    /// Another process holds its node id.
    Fenced,
    /// It stops.
    Draining,
}

/// An answer to what was not done.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Deserialize), serde(deny_unknown_fields))]
#[schema(example = json!({"code": 0, "err": "no_audience", "msg": "uids, cids, tags or devices must be given, or \"all\":true for the whole project"}))]
pub(super) struct Error {
    /// 0: not done.
    #[schema(minimum = 0, maximum = 0)]
    pub(super) code: u8,
    /// A stable word.
    pub(super) err: String,
    /// What was wrong, and what would be right.
    pub(super) msg: String,
}
