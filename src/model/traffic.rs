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
    /// The node drains: tell every connection when to move, and close those that are still there then.
    Drain(MovePlan),
    /// The node stops: close every connection with this code, then end.
    Stop {
        /// The close code.
        code: u16,
    },
}

/// When the connections of a core whose node drains are to move: evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovePlan {
    /// From the first to the last.
    pub spread: Duration,
    /// From a connection's time to the close that follows.
    pub margin: Duration,
    /// Where the core's connections lie between those of the others, in thousandths of their distance.
    pub phase: u32,
}

impl MovePlan {
    /// Plans a drain whose last connection has `close_timeout` for its close, of which a short drain leaves it half.
    pub fn new(drain: Duration, close_timeout: Duration, margin_max: Duration) -> Self {
        let last_close = drain - close_timeout.min(drain / 2);
        let margin = margin_max.min(last_close / 4);
        Self { spread: last_close - margin, margin, phase: 500 }
    }

    /// The same for one core of `cores`.
    #[must_use]
    pub fn of_core(self, core: usize, cores: usize) -> Self {
        let phase = (2 * core + 1) * 500 / cores.max(1);
        Self { phase: u32::try_from(phase).unwrap_or(500), ..self }
    }

    /// When the connection that is number `place` of `count` moves, from the beginning.
    pub fn after(self, place: usize, count: usize) -> Duration {
        let thousandths = place as u128 * 1000 + u128::from(self.phase);
        let micros = self.spread.as_micros() * thousandths / (count.max(1) as u128 * 1000);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(self.spread)
    }

    /// When the last connection is closed, from the beginning.
    pub fn last_close(self) -> Duration {
        self.spread + self.margin
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_spread_evenly_over_all_cores_and_the_last_close_leaves_time_to_end() {
        let s = Duration::from_secs;
        let plan = MovePlan::new(s(20), s(5), s(2));
        assert_eq!((plan.spread, plan.margin, plan.last_close()), (s(13), s(2), s(15)));
        let mut all: Vec<Duration> =
            (0..2).flat_map(|core| (0..500).map(move |place| plan.of_core(core, 2).after(place, 500))).collect();
        all.sort_unstable();
        let gaps = all.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap >= Duration::from_micros(12_999) && gap <= Duration::from_micros(13_001)));
        assert!(all[0] < Duration::from_millis(10) && all[999] > Duration::from_millis(12_990) && all[999] <= s(13));
        let short = MovePlan::new(s(2), s(2), s(2));
        assert_eq!((short.last_close(), short.margin), (s(1), Duration::from_millis(250)));
    }
}
