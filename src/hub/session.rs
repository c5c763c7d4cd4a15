//! One connection's state on its core.

use std::rc::Rc;

use crate::model::{Pid, Role};

use super::outbox::Outbox;

/// Time on a core: tenths of a second since it started (13 years fit). Coarse on purpose: every session keeps several.
pub type Decis = u32;

/// A connection to be opened.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its project.
    pub pid: Pid,
    /// What it is for.
    pub role: Role,
    /// Its user.
    pub uid: Box<str>,
    /// Its kind of device.
    pub device: Option<Box<str>>,
    /// The patterns of tags that its token lets it subscribe to; none: what the rules say.
    pub tag_patterns: Option<Rc<[Box<str>]>>,
    /// When its token ends.
    pub expires: Option<Decis>,
}

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Served.
    Open,
    /// A close frame is queued or sent; nothing is queued behind it. At the deadline the socket is shut.
    Closing {
        /// When the peer's time is over.
        deadline: Decis,
    },
}

/// A subscription of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// The tag's slot in the hub.
    pub tag: u32,
    /// The session's place among the tag's subscribers; none while the exchange is being asked.
    pub place: Option<u32>,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(super) generation: u32,
    pub(super) project: u32,
    pub(super) member_place: u32,
    pub(super) role: Role,
    pub(super) uid: Box<str>,
    pub(super) device: Option<Box<str>>,
    pub(super) tag_patterns: Option<Rc<[Box<str>]>>,
    pub(super) tags: Vec<Membership>,
    pub(super) outbox: Outbox,
    pub(super) phase: Phase,
    /// The last push that matched, so that none is delivered twice.
    pub(super) last_push: u32,
    /// In which of the hub's dirty queues it waits for a write.
    pub(super) dirty_express: bool,
    pub(super) dirty_bulk: bool,
    pub(super) last_input: Decis,
    pub(super) ping_sent: bool,
    /// Since when bytes wait without progress.
    pub(super) stuck_since: Option<Decis>,
    /// Since when a fragmented message is incomplete.
    pub(super) assembling_since: Option<Decis>,
    pub(super) expires: Option<Decis>,
}

impl Session {
    pub(super) fn new(new: NewSession, generation: u32, project: u32, now: Decis) -> Self {
        Self {
            generation,
            project,
            member_place: 0,
            role: new.role,
            uid: new.uid,
            device: new.device,
            tag_patterns: new.tag_patterns,
            tags: Vec::new(),
            outbox: Outbox::default(),
            phase: Phase::Open,
            last_push: 0,
            dirty_express: false,
            dirty_bulk: false,
            last_input: now,
            ping_sent: false,
            stuck_since: None,
            assembling_since: None,
            expires: new.expires,
        }
    }

    /// What the connection is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its user.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its kind of device.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The patterns of tags that its token lets it subscribe to.
    pub fn tag_patterns(&self) -> Option<&[Box<str>]> {
        self.tag_patterns.as_deref()
    }

    /// How many tags it is subscribed to.
    pub fn tag_count(&self) -> usize {
        self.tags.len()
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn membership(&self, tag: u32) -> Option<usize> {
        self.tags.iter().position(|membership| membership.tag == tag)
    }
}
