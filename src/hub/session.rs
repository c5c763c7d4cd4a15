//! One connection's state on its core.

use std::{num::NonZeroU32, rc::Rc};

use crate::{
    model::{Pid, Role},
    protocol::deflate::Deflate,
};

use super::{outbox::Outbox, tags::is_after};

/// Time on a core: tenths of a second since it started (13 years fit). Coarse on purpose: every session keeps several.
pub type Decis = u32;

/// The same time in milliseconds.
pub type Millis = u64;

/// Since when something is so, if it is, in no more room than the time takes.
pub(super) type Since = Option<NonZeroU32>;

/// From `now` on; the core's very first tenth of a second counts as its second.
pub(super) fn since(now: Decis) -> Since {
    NonZeroU32::new(now.max(1))
}

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
    /// What was agreed on about compression, if anything; the shard fills it in.
    pub deflate: Option<Deflate>,
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

/// What a subscription is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The exchange is being asked what comes first.
    Asking,
    /// It gets what is published, at its rate.
    Live,
    /// Its socket takes nothing: it is owed the current value, and publications need not look at it.
    Behind,
}

/// A subscription of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// The tag's slot in the hub.
    pub tag: u32,
    /// Its place in the list of the tag that it stands in; of no meaning while it is asking.
    pub place: u32,
    /// The number of the last publication it was given. Kept up only while it is behind or has a rate of its own;
    /// otherwise it is the tag's.
    pub seen: u32,
    /// Which of the tag's streams it belongs to.
    pub stream: u16,
    /// The interval between updates that it asked for, in milliseconds; 0: none.
    pub asked_ms: u16,
    /// What it is doing.
    pub standing: Standing,
    /// The number behind which publications were lost. Whoever has seen no later one is told of the gap before the next.
    pub gap_at: u32,
    /// Questions to the exchange that are open.
    pub questions: u8,
    pub notes: Notes,
}

/// What is noted of a subscription; a connection has several, so four answers share a byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes(u8);

/// One of the [`Notes`].
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Note {
    /// The word of its gap is queued, behind all that it has been given.
    GapTold = 1,
    /// The newest comes as a snapshot, because it asked for it again.
    Again = 2,
    /// There is a gap before that snapshot.
    AgainGap = 4,
    /// A back-end has subscribed it, whatever the rules say of the user.
    Ordered = 8,
}

impl Notes {
    pub fn has(self, note: Note) -> bool {
        self.0 & note as u8 != 0
    }

    pub fn set(&mut self, note: Note, holds: bool) {
        self.0 = if holds { self.0 | note as u8 } else { self.0 & !(note as u8) };
    }
}

// A connection pays for each of its subscriptions.
const _: () = assert!(size_of::<Membership>() == 24);

impl Membership {
    /// Whether its next value lies behind a gap that it has to be told of.
    pub fn owes_gap(&self) -> bool {
        !self.notes.has(Note::GapTold) && !is_after(self.seen, self.gap_at)
    }

    /// It has got or been told of everything up to a number.
    pub fn pass(&mut self, number: u32) {
        (self.seen, self.gap_at) = (number, number.wrapping_sub(1));
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(super) generation: u32,
    pub(super) project: u32,
    pub(super) member_place: u32,
    pub(super) role: Role,
    pub(super) uid: Box<str>,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) tags: Vec<Membership>,
    pub(super) outbox: Outbox,
    /// How many of its subscriptions are behind.
    pub(super) behind: u32,
    /// Where among its subscriptions the next one that is behind is looked for: they take turns.
    pub(super) behind_cursor: u32,
    /// The kernel took less than it was offered last time.
    pub(super) blocked: bool,
    /// It was blocked, and something has waited ever since.
    pub(super) slow: bool,
    /// When the peer's time is over, once a close frame is queued.
    pub(super) closes_at: Since,
    /// The last push that matched, so that none is delivered twice.
    pub(super) last_push: u32,
    /// In which of the hub's dirty queues it waits for a write.
    pub(super) dirty_express: bool,
    pub(super) dirty_bulk: bool,
    pub(super) last_input: Decis,
    pub(super) ping_sent: bool,
    /// Since when bytes wait without progress.
    pub(super) stuck_since: Since,
    /// Since when a fragmented message is incomplete.
    pub(super) assembling_since: Since,
    pub(super) deflate: Option<Deflate>,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    device: Option<Box<str>>,
    tag_patterns: Option<Rc<[Box<str>]>>,
    expires: Option<Decis>,
}

// An idle connection pays for these.
const _: () = assert!(size_of::<Session>() <= 144);

impl Session {
    pub(super) fn new(new: NewSession, generation: u32, project: u32, now: Decis) -> Self {
        let rare = Rare { device: new.device, tag_patterns: new.tag_patterns, expires: new.expires };
        let is_rare = rare.device.is_some() || rare.tag_patterns.is_some() || rare.expires.is_some();
        Self {
            generation,
            project,
            member_place: 0,
            role: new.role,
            uid: new.uid,
            rare: is_rare.then(|| Box::new(rare)),
            tags: Vec::new(),
            outbox: Outbox::default(),
            behind: 0,
            behind_cursor: 0,
            blocked: false,
            slow: false,
            closes_at: None,
            last_push: 0,
            dirty_express: false,
            dirty_bulk: false,
            last_input: now,
            ping_sent: false,
            stuck_since: None,
            assembling_since: None,
            deflate: new.deflate,
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
        self.rare.as_ref()?.device.as_deref()
    }

    /// The patterns of tags that its token lets it subscribe to.
    pub fn tag_patterns(&self) -> Option<&[Box<str>]> {
        self.rare.as_ref()?.tag_patterns.as_deref()
    }

    /// When its token ends.
    pub(super) fn expires(&self) -> Option<Decis> {
        self.rare.as_ref()?.expires
    }

    pub(super) fn set_expires(&mut self, expires: Option<Decis>) {
        self.rare.get_or_insert_default().expires = expires;
    }

    /// How many tags it is subscribed to.
    pub fn tag_count(&self) -> usize {
        self.tags.len()
    }

    /// What was agreed on about compression, if anything.
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        self.closes_at.map_or(Phase::Open, |deadline| Phase::Closing { deadline: deadline.get() })
    }

    /// Whether something waits to be written.
    pub(super) fn has_waiting(&self) -> bool {
        !self.outbox.is_empty() || self.behind > 0
    }

    pub(super) fn is_open(&self) -> bool {
        self.closes_at.is_none()
    }

    /// The index of its subscription to a tag.
    pub(super) fn membership(&self, tag: u32) -> Option<u32> {
        self.tags.iter().position(|membership| membership.tag == tag).map(super::slot_number)
    }
}
