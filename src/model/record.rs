//! What travels between nodes through the log.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    audience::Audience,
    ids::{Boot, ClientId, NodeId, Pid, RecordId, Tag},
    stamp::Stamp,
};

/// One entry of the log. Every node hears every record, and does its own part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A push to exactly one tag: gets an id, is remembered, can be resumed.
    Publication(Publication),
    /// A push to any other audience.
    Push(Push),
    /// A back-end or the API subscribes, unsubscribes or kicks connections.
    Control(Control),
    /// A user's request on its way to a back-end.
    Request(Request),
    /// A user came or went, for the project's back-ends.
    Presence(Presence),
    /// A part of a node's online users, for the project's back-ends.
    OnlineClients(OnlineClients),
    /// A back-end connection came or went.
    Backend(BackendChange),
    /// A node's sign of life with its back-ends.
    Beat(Beat),
    /// A node asks all nodes who is online.
    OnlineAsk(OnlineAsk),
    /// One node's answer to that.
    OnlineAnswer(OnlineAnswer),
}

/// A push to exactly one tag, as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The project.
    pub pid: Pid,
    /// The tag.
    pub tag: Tag,
    /// Never merged away (a closed bar).
    pub keep: bool,
    /// Passed on to the subscribers.
    pub affair_id: Option<Box<str>>,
    /// The second push with this key within the window is answered as the first was and not delivered.
    pub idempotency_key: Option<Box<str>>,
    /// JSON text, byte for byte as the publisher wrote it.
    pub payload: Bytes,
    /// When it came to the cluster.
    pub stamp: Stamp,
}

/// A publication with its place in the tag's chain, as every node remembers and delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its identity.
    pub id: RecordId,
    /// The tag's publication before it.
    pub prev: Option<RecordId>,
    /// The project.
    pub pid: Pid,
    /// The tag.
    pub tag: Tag,
    /// Never merged away.
    pub keep: bool,
    /// Passed on to the subscribers.
    pub affair_id: Option<Box<str>>,
    /// JSON text, byte for byte as the publisher wrote it.
    pub payload: Bytes,
    /// When it came to the cluster.
    pub stamp: Stamp,
}

/// A tag's last value as the queue's store keeps it for nodes that start when the log no longer holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastValue {
    /// The publication.
    pub published: Arc<Published>,
    /// When it was heard, Unix milliseconds, by the clock of the node that wrote it.
    pub at_unix_ms: u64,
    /// The log lost records behind it: nothing can be said to follow on it.
    pub is_broken: bool,
}

/// What became of last values on their way into the queue's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainOutcome {
    /// They are there.
    Written,
    /// They are there, but what was there before has gone.
    Emptied,
    /// The store has been written in this later term.
    Superseded(u64),
    /// They are not there, or nobody knows.
    Failed,
}

/// A push to an audience that is not exactly one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The project.
    pub pid: Pid,
    /// To whom.
    pub audience: Audience,
    /// Passed on to the receivers; the answer to a request carries the request's.
    pub affair_id: Option<Box<str>>,
    /// The second push with this key within the window is answered as the first was and not delivered.
    pub idempotency_key: Option<Box<str>>,
    /// JSON text, byte for byte as the publisher wrote it.
    pub payload: Bytes,
    /// When it came to the cluster.
    pub stamp: Stamp,
}

/// What a control does to the connections it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlOp {
    /// Subscribes them to the tags, access rules aside.
    Subscribe,
    /// Unsubscribes them from the tags.
    Unsubscribe,
    /// Closes them (4410).
    Kick,
}

/// An order of a back-end over user connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The project.
    pub pid: Pid,
    /// What to do.
    pub op: ControlOp,
    /// To which connections.
    pub audience: Audience,
    /// With which tags; empty for a kick.
    pub tags: Vec<Tag>,
}

/// Who a user connection is, as back-ends see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The user.
    pub uid: Box<str>,
    /// The connection.
    pub cid: ClientId,
    /// Its kind of device.
    pub device: Option<Box<str>>,
}

/// A user's request to its project's back-ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The project.
    pub pid: Pid,
    /// Who asks.
    pub source: Source,
    /// Names the request; the answer carries the same.
    pub affair_id: Box<str>,
    /// The back-end connection that it goes to; none: to all of the project's.
    pub backend: Option<ClientId>,
    /// After this long without an answer the user is told `timeout`.
    pub timeout: Duration,
    /// JSON text, byte for byte as the user wrote it.
    pub payload: Bytes,
}

/// A user came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The project.
    pub pid: Pid,
    /// Came (true) or went.
    pub online: bool,
    /// Who.
    pub source: Source,
}

/// Some of a node's online users: at most 1000 a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineClients {
    /// The project.
    pub pid: Pid,
    /// Its users on the node.
    pub users: Vec<Source>,
}

/// A back-end connection came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendChange {
    /// The project.
    pub pid: Pid,
    /// The connection.
    pub cid: ClientId,
    /// Came (true) or went.
    pub online: bool,
}

/// A node's sign of life. The directory of back-ends heals itself by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: Boot,
    /// The first beat of a boot asks the others for theirs; the last one says good-bye.
    pub phase: BeatPhase,
    /// Every back-end connection the node holds.
    pub backends: Vec<(Pid, ClientId)>,
    /// What routers must know of it; a node of the version before does not say.
    pub standing: Option<Standing>,
}

/// What a node tells routers of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where clients reach it: host and port, perhaps behind `ws://` or `wss://`.
    pub addr: Box<str>,
    /// Its open user connections.
    pub users: u32,
    /// Whether it takes more.
    pub taking: Taking,
}

/// Whether a node takes new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taking {
    /// It is ready.
    Yes,
    /// It is not ready, and may be later.
    #[default]
    NotNow,
    /// It drains, and ends.
    Leaving,
}

/// Where in its life a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatPhase {
    /// It has just started and wants everybody's beat.
    Hello,
    /// It lives.
    Alive,
    /// It stops in good order: what it held is gone.
    Goodbye,
}

/// A question to all nodes: who of a project is online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineAsk {
    /// Who asks.
    pub node: NodeId,
    /// The asking node's boot.
    pub boot: Boot,
    /// The asker's number for the question.
    pub ask: u64,
    /// The project.
    pub pid: Pid,
    /// Only these users; empty: all.
    pub uids: Vec<Box<str>>,
    /// Only users whose uid sorts behind this one.
    pub after: Option<Box<str>>,
    /// At most so many users.
    pub limit: u32,
}

/// One node's answer: its first users by uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineAnswer {
    /// The node that asked.
    pub to_node: NodeId,
    /// The boot that asked.
    pub to_boot: Boot,
    /// The number of the question.
    pub ask: u64,
    /// Who answers.
    pub node: NodeId,
    /// The answering node's boot.
    pub boot: Boot,
    /// Whether users beyond the limit were left out.
    pub more: bool,
    /// Connections, sorted by uid.
    pub connections: Vec<OnlineConnection>,
}

/// One connection of a user who is online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineConnection {
    /// Who and where.
    pub source: Source,
    /// Since when, Unix milliseconds.
    pub since_unix_ms: u64,
}

impl Record {
    /// The project and the name that choose the record's shard; records with the same pair keep their order.
    pub fn shard_key(&self) -> (&str, &str) {
        fn of_audience<'a>(pid: &'a Pid, audience: &'a Audience) -> (&'a str, &'a str) {
            let tag = audience.tags.first().map(Tag::as_str);
            let name = audience.uids.first().map(|uid| &**uid).or(tag).unwrap_or("");
            (pid, name)
        }
        match self {
            Record::Publication(publication) => (&publication.pid, &publication.tag),
            Record::Push(push) => of_audience(&push.pid, &push.audience),
            Record::Control(control) => of_audience(&control.pid, &control.audience),
            Record::Request(request) => (&request.pid, ""),
            Record::Presence(presence) => (&presence.pid, &presence.source.uid),
            Record::OnlineClients(online) => (&online.pid, ""),
            // In one order: a beat that was sent before a change must not be heard after it.
            Record::Backend(_) | Record::Beat(_) => ("", ""),
            Record::OnlineAsk(ask) => (&ask.pid, ""),
            Record::OnlineAnswer(_) => ("", ""),
        }
    }

    /// The shard of `shards` that the record belongs to (FNV-1a of its [`Record::shard_key`]).
    pub fn shard(&self, shards: u16) -> u16 {
        let (pid, name) = self.shard_key();
        shard_of(pid, name, shards)
    }

    /// The bytes of its payload: of a push or a request; others have none.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Record::Publication(publication) => publication.payload.len(),
            Record::Push(push) => push.payload.len(),
            Record::Request(request) => request.payload.len(),
            _ => 0,
        }
    }

    /// Where its stamp stands, if it is a push.
    pub fn stamp_mut(&mut self) -> Option<&mut Stamp> {
        match self {
            Record::Publication(publication) => Some(&mut publication.stamp),
            Record::Push(push) => Some(&mut push.stamp),
            _ => None,
        }
    }

    /// The key under which a second push is the same push.
    pub fn idempotency_key(&self) -> Option<(&Pid, &str)> {
        match self {
            Record::Publication(Publication { pid, idempotency_key: Some(key), .. })
            | Record::Push(Push { pid, idempotency_key: Some(key), .. }) => Some((pid, key)),
            _ => None,
        }
    }
}

/// The shard of `shards` for a project and a name. The same on every node and in every version:
/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), a zero byte between the two.
pub fn shard_of(pid: &str, name: &str, shards: u16) -> u16 {
    let bytes = pid.bytes().chain([0]).chain(name.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}
