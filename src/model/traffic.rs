//! What cores and the node's exchange say to each other.
//!
//! Invariants: each direction is one FIFO a core; a [`Ticket`] is answered exactly once while its core lives.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    ids::{Pid, RecordId, SessionId, Tag},
    record::{Control, OnlineConnection, Published, Push, Record},
};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `type=1`
    User,
    /// `type=2`
    Backend,
}

/// A core's question to the exchange; the answer comes as [`ToCore::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The core that waits.
    pub core: u8,
    /// Its number for the question; never used twice.
    pub number: u64,
}

/// From the exchange to a core, in order.
#[derive(Clone, Debug)]
pub enum ToCore {
    /// For the local subscribers of its tag.
    Publication(Arc<Published>),
    /// For the local connections that its audience matches.
    Push(Arc<Push>),
    /// For the local connections that its audience matches.
    Control(Arc<Control>),
    /// The answer to [`FromCore::Follow`]: what comes first. Publications behind it in the inbox follow on it.
    Followed {
        /// The session that asked.
        session: SessionId,
        /// Its project.
        pid: Pid,
        /// The tag that it asked for.
        tag: Tag,
        /// What it gets first.
        start: FollowStart,
    },
    /// The queue lost records of this tag: its subscribers are told.
    Gap {
        /// The project.
        pid: Pid,
        /// The tag.
        tag: Tag,
    },
    /// One text message to one connection (a request or presence to a back-end, a notice to a user).
    Text {
        /// The connection.
        session: SessionId,
        /// The JSON text.
        text: Bytes,
    },
    /// Closes one connection.
    Close {
        /// The connection.
        session: SessionId,
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'static str,
    },
    /// The answer to a question of this core.
    Reply {
        /// The question.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// The node stops: close every connection with this code, then end.
    Stop {
        /// The close code.
        code: u16,
    },
}

/// What a new subscriber gets before the stream.
#[derive(Clone, Debug)]
pub enum FollowStart {
    /// Nothing: the tag has no value yet.
    Empty,
    /// The last value; `gap` if the `since` that was asked for is not in the ring.
    Snapshot {
        /// The last value.
        last: Arc<Published>,
        /// A `since` was given and is not known.
        gap: bool,
    },
    /// What followed the `since`, oldest first; may be empty.
    Tail(Vec<Arc<Published>>),
    /// A `since` was given, is not known, and there is no value.
    Gap,
}

/// From a core to the exchange, in order.
#[derive(Clone, Debug)]
pub enum FromCore {
    /// A connection was admitted.
    Opened {
        /// The connection.
        session: SessionId,
        /// Its project.
        pid: Pid,
        /// What it is for.
        role: Role,
        /// Its user; a back-end's name for itself.
        uid: Box<str>,
        /// Its kind of device.
        device: Option<Box<str>>,
        /// Since when, Unix milliseconds.
        since_unix_ms: u64,
    },
    /// A connection is gone.
    Closed {
        /// The connection.
        session: SessionId,
    },
    /// A session subscribes to a tag; answered with [`ToCore::Followed`].
    Follow {
        /// The session.
        session: SessionId,
        /// Its project.
        pid: Pid,
        /// The tag.
        tag: Tag,
        /// The last id that the client holds, as it wrote it.
        since: Option<Box<str>>,
    },
    /// The core has no subscriber of the tag any more.
    Unfollow {
        /// The core.
        core: u8,
        /// The project.
        pid: Pid,
        /// The tag.
        tag: Tag,
    },
    /// Pushes and controls for the log; answered with [`Reply::Submitted`].
    Submit {
        /// Who waits.
        ticket: Ticket,
        /// What is to be appended, in order.
        records: Vec<Record>,
    },
    /// A user's request; the user is answered with [`ToCore::Text`].
    Request {
        /// The asking session.
        session: SessionId,
        /// Names the request; the exchange makes one up if there is none.
        affair_id: Option<Box<str>>,
        /// Echoed in the acknowledgement.
        ack_id: Option<Box<str>>,
        /// How long the user wants to wait.
        timeout: Duration,
        /// JSON text.
        payload: Bytes,
    },
    /// A tag's last value and ring; answered with [`Reply::Tag`].
    TagState {
        /// Who waits.
        ticket: Ticket,
        /// The project.
        pid: Pid,
        /// The tag.
        tag: Tag,
    },
    /// The last values of some tags, at one instant; answered with [`Reply::Values`].
    TagValues {
        /// Who waits.
        ticket: Ticket,
        /// The project.
        pid: Pid,
        /// The tags.
        tags: Vec<Tag>,
    },
    /// Who is online in the whole cluster; answered with [`Reply::Online`].
    Online {
        /// Who waits.
        ticket: Ticket,
        /// The project.
        pid: Pid,
        /// Only these users; empty: all.
        uids: Vec<Box<str>>,
        /// Only users whose uid sorts behind this one.
        after: Option<Box<str>>,
        /// At most so many users.
        limit: u32,
    },
}

/// The exchange's answer to a [`Ticket`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// For each submitted record, in order, its id or why it was refused.
    Submitted(Vec<Result<RecordId, Refusal>>),
    /// The tag's publications, oldest first, the last value included; empty if it has none.
    Tag(Vec<Arc<Published>>),
    /// For each tag, in order, its last value if it has one.
    Values(Vec<Option<Arc<Published>>>),
    /// Connections sorted by uid, at most the limit's users, and whether there are more users.
    Online {
        /// The connections.
        connections: Vec<OnlineConnection>,
        /// Whether users beyond the limit were left out.
        more: bool,
    },
    /// The question could not be answered.
    Refused(Refusal),
}

/// Why something was not taken. Nothing that was refused has been delivered or will be, [`Refusal::Unknown`] aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The queue is away and the wait for it is over.
    QueueUnavailable,
    /// The buffer towards the queue is full.
    QueueFull,
    /// The node is overloaded: its inbox is full.
    Overloaded,
    /// The node stops or is not the holder of its id.
    Stopping,
    /// An append may or may not have been stored: its answer was lost and the wait is over.
    Unknown,
}

impl Refusal {
    /// The stable word of the API (`err`).
    pub fn err(self) -> &'static str {
        match self {
            Refusal::QueueUnavailable | Refusal::QueueFull | Refusal::Unknown => "queue_unavailable",
            Refusal::Overloaded => "overloaded",
            Refusal::Stopping => "stopping",
        }
    }

    /// A sentence for the publisher.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::QueueUnavailable => "the message queue is not available; try again",
            Refusal::QueueFull => "too many pushes wait for the message queue; try again",
            Refusal::Overloaded => "the node is overloaded; try again",
            Refusal::Stopping => "the node is stopping; try another",
            Refusal::Unknown => {
                "the message queue did not confirm in time; the push may have been delivered: try again with an idempotency_key"
            }
        }
    }
}

/// Who is told that a record is in the log; travels with the record through the log's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckTo {
    /// Nobody.
    Nobody,
    /// The record at `index` of a submission.
    Submission {
        /// The submission.
        ticket: Ticket,
        /// The record's place in it.
        index: u32,
    },
    /// The user who made a request.
    Request {
        /// The asking session.
        session: SessionId,
        /// The request.
        affair_id: Box<str>,
        /// Echoed, if given.
        ack_id: Option<Box<str>>,
    },
}
