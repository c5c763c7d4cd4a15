//! One core's state: who is connected to it, and what waits to be sent to them.
//!
//! Invariants: a session is in its project's indexes iff it is in the slab; a tag is in the table iff somebody
//! subscribes to it or the exchange is being asked for it; matched = queued + merged + evicted after each delivery.
//! Leaves out: sockets, clocks, other cores.

mod session;

mod index;
mod tags;

mod follow;
mod publish;

mod audience;

mod conflation;
mod encoded;
mod outbox;
mod replay;
mod stamped;
mod walk;

mod expiry;
mod relief;

use std::{cmp::Reverse, collections::BinaryHeap, io::IoSlice, sync::Arc, time::Duration};

use slab::Slab;

pub use expiry::Expired;
pub use follow::FollowRefused;
pub use outbox::{Outbox, OutboxFull};
pub use session::{Decis, Millis, NewSession, Phase, Session};
pub use stamped::Frame;

use crate::{
    limits::Limits,
    metrics::{Count, Counters, latency::Stage},
    model::{Boot, ClientId, NodeId, Pid, Role, SessionId, Tag, TagRules},
    protocol::{frame, frame::OpCode},
};
use encoded::{Compressor, Encoded};
use index::Projects;
use stamped::{Born, Piece};
use walk::Walk;
pub use walk::WalkMark;

/// From the moment a connection is found too slow to the end of its socket.
const SLOW_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a hub is told at start.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The node's number.
    pub node: NodeId,
    /// The node's boot.
    pub boot: Boot,
    /// The core's number.
    pub core: u8,
    /// The node's bounds.
    pub limits: Arc<Limits>,
    /// How tags are served.
    pub rules: TagRules,
    /// Bytes that may wait for all connections of the core together.
    pub outboxes_bytes_max: usize,
}

/// What a delivery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Connections that the audience matched.
    pub matched: usize,
    /// Those that got the frame queued.
    pub queued: usize,
    /// Those that get a later publication in its place: they are behind, or over their rate.
    pub merged: usize,
    /// Those that were behind their bound and are being closed.
    pub evicted: usize,
    /// Whether publications give way to later ones, so that it needs no bound on what is delivered ahead of the sockets.
    pub conflates: bool,
}

/// A session that was closed, for those who need to know.
#[derive(Debug)]
pub struct Closed {
    /// What it was for.
    pub role: Role,
    /// Its project.
    pub pid: Pid,
    /// Its user.
    pub uid: Box<str>,
    /// Tags that nobody on the core follows any more.
    pub unfollowed: Vec<Tag>,
}

/// One core's connections.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    counters: Arc<Counters>,
    sessions: Slab<Session>,
    /// The next generation of each slot, for slots that have been used.
    generations: Vec<u32>,
    projects: Projects,
    rules: TagRules,
    tags: tags::Tags,
    /// When which stream of which tag has its next update.
    due: BinaryHeap<Reverse<(Millis, u32, u16)>>,
    /// Sessions with more values waiting than a full write, until the delivery is over.
    overfull: Vec<u32>,
    /// What waits in outboxes, and the kept publications that somebody is owed.
    outboxes_bytes: usize,
    /// The number of the last push, to deliver it at most once to each.
    push_number: u32,
    walk: Walk,
    /// Where the next look for expired sessions begins.
    expiry_cursor: usize,
    expiry_round: u32,
    /// The time as last told.
    now: Decis,
    now_ms: Millis,
    /// The wall clock as last told, Unix microseconds; 0: never.
    wall_us: u64,
    scratch: Vec<u8>,
    compressor: Compressor,
}

impl Hub {
    /// An empty hub.
    pub fn new(settings: HubSettings, counters: Arc<Counters>) -> Self {
        Self {
            rules: settings.rules.clone(),
            compressor: Compressor::new(&settings.limits.compression, counters.clone()),
            settings,
            counters,
            sessions: Slab::new(),
            generations: Vec::new(),
            projects: Projects::default(),
            tags: tags::Tags::default(),
            due: BinaryHeap::new(),
            overfull: Vec::new(),
            outboxes_bytes: 0,
            push_number: 0,
            walk: Walk::default(),
            expiry_cursor: 0,
            expiry_round: 0,
            now: 0,
            now_ms: 0,
            wall_us: 0,
            scratch: Vec::new(),
        }
    }

    /// Replaces the bounds; what waits already and is beyond them stays.
    pub fn set_limits(&mut self, limits: Arc<Limits>, outboxes_bytes_max: usize) {
        if self.settings.limits.compression != limits.compression {
            self.compressor = Compressor::new(&limits.compression, self.counters.clone());
        }
        (self.settings.limits, self.settings.outboxes_bytes_max) = (limits, outboxes_bytes_max);
    }

    /// Tells the time; everything until the next call happens then.
    pub fn set_now(&mut self, now: Millis) {
        (self.now, self.now_ms) = (Decis::try_from(now / 100).unwrap_or(Decis::MAX), now);
    }

    /// Tells the wall clock, which only says how old things are (Unix microseconds).
    pub fn set_wall_us(&mut self, wall_us: u64) {
        self.wall_us = wall_us;
    }

    /// Takes a connection in.
    pub fn open(&mut self, new: NewSession) -> SessionId {
        let (pid, role, deflate) = (new.pid.clone(), new.role, new.deflate);
        let project = self.projects.intern(&pid);
        let entry = self.sessions.vacant_entry();
        let slot = entry.key();
        if slot >= self.generations.len() {
            self.generations.resize(slot + 1, 0);
        }
        let generation = self.generations[slot];
        let session = entry.insert(Session::new(new, generation, project, self.now));
        let slot = slot_number(slot);
        if role == Role::User {
            session.member_place = self.projects.add(project, slot, &session.uid);
        }
        self.counters.inc(gauge_of(role));
        self.counters.add(Count::DeflateConnections, deflate.is_some().into());
        SessionId { core: self.settings.core, slot, generation }
    }

    /// Takes a connection out: it is in no index afterwards, and its id finds nobody.
    pub fn close(&mut self, id: SessionId) -> Option<Closed> {
        let behind = self.session(id)?.behind;
        self.counters.sub(Count::SubscriptionsBehind, behind.into());
        let unfollowed = self.leave_all(id.slot);
        let session = self.sessions.remove(id.slot as usize);
        self.generations[id.slot as usize] = id.generation.wrapping_add(1);
        let pid = self.projects.pid(session.project).clone();
        if session.role == Role::User {
            let moved = self.projects.remove(session.project, id.slot, &session.uid, session.member_place);
            if let Some(moved) = moved {
                self.sessions[moved as usize].member_place = session.member_place;
            }
        }
        self.outboxes_bytes -= session.outbox.bytes();
        self.counters.set(Count::OutboxBytes, self.outboxes_bytes as u64);
        self.counters.add(Count::DroppedClosed, session.outbox.len() as u64);
        self.counters.sub(gauge_of(session.role), 1);
        self.counters.sub(Count::DeflateConnections, session.deflate.is_some().into());
        Some(Closed { role: session.role, pid, uid: session.uid, unfollowed })
    }

    /// The session named `id`, if it is still the one.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.slot as usize).filter(|session| session.generation == id.generation)
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize).filter(|session| session.generation == id.generation)
    }

    /// The session's project.
    pub fn pid(&self, id: SessionId) -> Option<&Pid> {
        self.session(id).map(|session| self.projects.pid(session.project))
    }

    /// The id of the session as clients see it.
    pub fn client_id(&self, id: SessionId) -> ClientId {
        ClientId { node: self.settings.node, boot: self.settings.boot, session: id }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many slots there are to look at.
    pub fn slots(&self) -> usize {
        self.generations.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Every session's id.
    pub fn ids(&self) -> Vec<SessionId> {
        let core = self.settings.core;
        let id = |(slot, session): (usize, &Session)| SessionId {
            core,
            slot: slot_number(slot),
            generation: session.generation,
        };
        self.sessions.iter().map(id).collect()
    }

    /// Queues a frame for one session, ahead of large fan-outs.
    pub fn send(&mut self, id: SessionId, frame: Frame) -> Delivery {
        self.send_piece(id, frame.into())
    }

    fn send_piece(&mut self, id: SessionId, piece: Piece) -> Delivery {
        let mut delivery = Delivery::default();
        if self.session(id).is_some_and(Session::is_open) {
            self.enqueue(id.slot, piece, true, &mut delivery);
        }
        delivery
    }

    /// Queues a message for one session, compressed if it has agreed on that and it is worth it.
    pub fn send_message(&mut self, id: SessionId, opcode: OpCode, payload: &[u8]) -> Delivery {
        if self.session(id).is_none() {
            return Delivery::default();
        }
        let frame = self.frame_for(id.slot, &mut Encoded::new(opcode, payload, true, Born::default()));
        self.send_piece(id, frame)
    }

    /// Queues a text message for one session, plain: an answer is short, and nobody shares its frame.
    pub fn send_text(&mut self, id: SessionId, text: &[u8]) -> Delivery {
        self.send(id, text_frame(text))
    }

    /// Queues bytes for a session whatever waits: an answer to its handshake, a pong.
    pub fn send_first(&mut self, id: SessionId, bytes: Frame) {
        if self.session(id).is_none_or(|session| !session.is_open()) {
            return;
        }
        self.push_unbounded(id.slot, bytes);
    }

    /// Queues a close frame behind what waits (or in place of it: `cut`), after which nothing is queued any more.
    pub fn begin_close(&mut self, id: SessionId, code: u16, reason: &str, cut: bool) {
        if self.session(id).is_none_or(|session| !session.is_open()) {
            return;
        }
        if cut {
            self.cut(id.slot);
        }
        let close_timeout = decis(self.settings.limits.life.close_timeout);
        self.push_unbounded(id.slot, frame::close(code, reason).into());
        self.sessions[id.slot as usize].closes_at = session::since(self.now + close_timeout);
    }

    /// Whether a session may have something to be written.
    pub fn has_dirty(&self) -> bool {
        !self.walk.is_empty()
    }

    /// Names everything that waits to be written now, for [`Hub::is_walked`].
    pub fn walk_mark(&self) -> WalkMark {
        self.walk.mark_here()
    }

    /// Whether all sessions that had something to be written at that time have been visited since.
    pub fn is_walked(&self, mark: WalkMark) -> bool {
        self.walk.is_walked(mark)
    }

    /// The next session that has something to be written: small fan-outs first, but the others are not left waiting for ever.
    pub fn next_dirty(&mut self) -> Option<SessionId> {
        let (slot, generation) = self.walk.next(&mut self.sessions)?;
        Some(SessionId { core: self.settings.core, slot, generation })
    }

    /// The slot of one who is visited soon: what its visit needs is worth asking for now.
    pub fn upcoming(&self) -> Option<u32> {
        self.walk.upcoming()
    }

    /// All that is to be written to a session, if that waits in one piece of which nothing is taken yet; [`Hub::wrote_only`] then
    /// tells that it is. Otherwise [`Hub::gather`] has it.
    pub fn only(&self, id: SessionId) -> Option<&[u8]> {
        self.session(id).filter(|session| session.behind == 0)?.outbox.only()
    }

    /// The session's socket took all of what [`Hub::only`] has just given: what [`Hub::wrote`] does, for what most writes are.
    pub fn wrote_only(&mut self, id: SessionId) {
        let session = &mut self.sessions[id.slot as usize];
        let (latency, wall_us) = (self.counters.latency(), self.wall_us);
        let taken = session.outbox.take_only(|born| {
            born.age_us(wall_us).into_iter().for_each(|age_us| latency.record(Stage::Written, age_us));
        });
        let Some(Piece { bytes, frames, .. }) = taken else { return };
        (session.blocked, session.slow, session.stuck_since) = (false, false, None);
        self.outboxes_bytes -= bytes as usize;
        self.count_write(u64::from(frames), u64::from(bytes));
    }

    fn count_write(&self, frames: u64, bytes: u64) {
        self.counters.inc(Count::Writes);
        self.counters.add(Count::FramesOut, frames);
        self.counters.add(Count::BytesOut, bytes);
        self.counters.set(Count::OutboxBytes, self.outboxes_bytes as u64);
    }

    /// Fills `slices` with what is to be written next to a session; how many, 0 if nothing waits.
    pub fn gather<'a>(&'a mut self, id: SessionId, slices: &mut [IoSlice<'a>]) -> usize {
        let writing = &self.settings.limits.writing;
        let bytes_max = writing.write_bytes_max;
        let Some(session) = self.sessions.get_mut(id.slot as usize) else { return 0 };
        if session.generation != id.generation {
            return 0;
        }
        let before = session.outbox.bytes();
        session.outbox.prepare();
        self.outboxes_bytes += session.outbox.bytes() - before;
        if session.behind > 0 && !session.outbox.has_replay() {
            // What a slow socket is given ages in the kernel, so it is given no more than the kernel may hold unsent.
            let values_max = if session.slow { writing.slow_write_bytes() } else { bytes_max };
            self.bring_up(id.slot, values_max);
        }
        let session = &mut self.sessions[id.slot as usize];
        if !session.has_waiting() {
            // What it was blocked with is gone: a subscription that ended, an update that waits for its rate.
            (session.blocked, session.slow) = (false, false);
        }
        session.outbox.gather(slices, bytes_max)
    }

    /// How many pieces wait for a session, about: more than that may come of values that it is owed.
    pub fn waiting(&self, id: SessionId) -> usize {
        self.session(id).map_or(0, |session| session.outbox.pieces() + session.behind as usize)
    }

    /// Takes off what a session's socket took, and notes whether that was less than it was offered; whether more waits.
    pub fn wrote(&mut self, id: SessionId, bytes: usize, blocked: bool) -> bool {
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.generation == id.generation) else {
            return false;
        };
        let before = session.outbox.bytes();
        let (latency, wall_us, mut frames) = (self.counters.latency(), self.wall_us, 0);
        session.outbox.advance(bytes, |born| {
            frames += 1;
            born.age_us(wall_us).into_iter().for_each(|age_us| latency.record(Stage::Written, age_us));
        });
        self.outboxes_bytes -= before - session.outbox.bytes();
        session.blocked = blocked;
        session.slow = (session.slow || blocked) && session.has_waiting();
        // Who only waits for current values may take its time: nothing is kept for it, and silence closes the dead.
        session.stuck_since = match (session.outbox.has_more_than_values(), bytes, session.stuck_since) {
            (false, ..) => None,
            (true, 0, Some(since)) => Some(since),
            _ => session::since(self.now),
        };
        let waits = session.has_waiting();
        if blocked {
            self.conflate(id.slot);
        }
        self.count_write(frames, bytes as u64);
        waits
    }

    /// Whether a session has subscriptions for which it may take its time: they hold no queue.
    pub fn may_take_its_time(&self, id: SessionId) -> bool {
        let conflates = |membership: &session::Membership| self.tags.get(membership.tag).conflates(membership.stream);
        self.session(id).is_some_and(|session| session.tags.iter().any(conflates))
    }

    /// Whether a session's outbox is half full, and not because its socket takes nothing.
    pub fn is_filling(&self, id: SessionId) -> bool {
        let writing = &self.settings.limits.writing;
        self.session(id).is_some_and(|Session { outbox, blocked, .. }| {
            !blocked && (outbox.len() > writing.outbox_frames_max / 2 || outbox.bytes() > writing.outbox_bytes_max / 2)
        })
    }

    /// Whether a closing session has nothing left to write.
    pub fn is_flushed(&self, id: SessionId) -> bool {
        self.session(id).is_none_or(|session| session.outbox.is_empty())
    }

    /// The frame of a message for one of those who get it.
    fn frame_for(&mut self, slot: u32, encoded: &mut Encoded) -> Piece {
        encoded.frame(self.sessions[slot as usize].deflate, &mut self.compressor)
    }

    fn enqueue(&mut self, slot: u32, piece: Piece, express: bool, delivery: &mut Delivery) {
        let (bytes, count) = (piece.bytes as usize, piece.frames as usize);
        delivery.matched += count;
        let limits = &self.settings.limits.writing;
        // Over the core's share of memory everybody keeps a sixteenth of the bound, so that only the slow are cut.
        let crowded = self.outboxes_bytes + bytes > self.settings.outboxes_bytes_max;
        let bytes_max = if crowded { limits.outbox_bytes_max / 16 } else { limits.outbox_bytes_max };
        let session = &mut self.sessions[slot as usize];
        match session.outbox.offer(piece, bytes_max, limits.outbox_frames_max) {
            Ok(()) => {
                self.outboxes_bytes += bytes;
                delivery.queued += count;
                self.walk.mark(slot, session, express);
            }
            Err(OutboxFull) => {
                delivery.evicted += count;
                self.evict_slow(slot);
            }
        }
    }

    fn push_unbounded(&mut self, slot: u32, frame: Frame) {
        self.outboxes_bytes += frame.len();
        self.sessions[slot as usize].outbox.push(frame);
        self.mark_dirty(slot, true);
    }

    fn mark_dirty(&mut self, slot: u32, express: bool) {
        self.walk.mark(slot, &mut self.sessions[slot as usize], express);
    }

    fn cut(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let before = session.outbox.bytes();
        let dropped = session.outbox.cut();
        self.outboxes_bytes -= before - session.outbox.bytes();
        self.counters.add(Count::DroppedSlow, dropped as u64);
    }

    /// A lossless connection over its bound: told and closed, never silently skipped.
    fn evict_slow(&mut self, slot: u32) {
        self.counters.inc(Count::SlowConsumers);
        self.cut(slot);
        let reason = "too slow; reconnect and resume with since";
        self.push_unbounded(slot, frame::close(frame::close_code::SLOW, reason).into());
        // One second and no more: what is queued in the kernel goes out or it does not.
        self.sessions[slot as usize].closes_at = session::since(self.now + decis(SLOW_CLOSE_TIMEOUT));
    }
}

/// A text frame of `text`.
pub fn text_frame(text: &[u8]) -> Frame {
    frame::encode(OpCode::Text, text).into()
}

/// A duration in the hub's time, rounded up.
pub fn decis(duration: Duration) -> Decis {
    Decis::try_from(duration.as_millis().div_ceil(100)).unwrap_or(Decis::MAX)
}

fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

fn gauge_of(role: Role) -> Count {
    match role {
        Role::User => Count::UserConnections,
        Role::Backend => Count::BackendConnections,
    }
}
