//! One core of a node: a hub, its inbox, and the virtual sockets of its connections.
//!
//! Method: does around the hub what the shard does: hears no faster than it writes, walks the dirty, leaves a blocked
//! socket to a drain, ends a connection when its socket does. A virtual socket takes as many bytes as its kernel has
//! room for; the client takes them from there.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSlice,
    sync::Arc,
    time::Duration,
};

use ws_cluster::{
    hub::{Expired, FollowRefused, Hub, HubSettings, NewSession, Phase},
    limits::Limits,
    metrics::{Count, Counters},
    model::{
        Boot, FollowStart, FromCore, NodeId, Pid, Published, Reply, Role, SessionId, Tag, TagRule, Ticket, ToCore,
        tag_rule::DeliveryClass,
    },
    protocol::message,
};

use super::{
    expected::Expected,
    model::{self, TAGS},
    plant::{Fault, strikes},
};

/// Slices of one write, and writes of one visit.
const SLICES_MAX: usize = 64;
const WRITES_PER_VISIT: usize = 4;
/// Visits to a socket that takes more, before the core hears more.
const VISITS_PER_DRAIN: usize = 16;

/// A connection, as its core has it.
pub struct Conn {
    /// What the kernel has and the client has not read.
    pub kernel: Vec<u8>,
    pub capacity: usize,
    /// The client's end is gone; this one does not know yet.
    pub gone: bool,
    /// A drain owns the writing.
    blocked: bool,
    /// This end is closed for writing, or altogether.
    pub ended: bool,
    pub shut: bool,
    /// By the tag's number.
    pub expected: Vec<Expected>,
    hz_asked: [u32; TAGS],
    /// It has followed a tag of which nothing may be left out.
    pub was_lossless: bool,
    /// Frames that are no values and were queued since it is blocked, and what waited then.
    extras: usize,
    waited: Option<usize>,
}

impl Conn {
    /// Notes how a tag is served from now on.
    fn note_rule(&mut self, number: usize, rule: &TagRule) {
        let merges = rule.class == DeliveryClass::Latest || rule.hz_max > 0 || self.hz_asked[number] > 0;
        self.expected[number].may_merge |= merges;
        self.was_lossless |= !merges && self.expected[number].is_followed();
    }
}

enum Visit {
    Done,
    Blocked,
    More,
}

/// See the module.
pub struct Core {
    pub number: u8,
    pub hub: Hub,
    pub counters: Arc<Counters>,
    limits: Arc<Limits>,
    started: Duration,
    /// How the hub serves tags, and how it is to serve them soon.
    rules: Vec<TagRule>,
    pub new_rules: Option<Vec<TagRule>>,
    pub inbox: VecDeque<ToCore>,
    pub to_exchange: Vec<FromCore>,
    pub replies: Vec<(Ticket, Reply)>,
    pub conns: BTreeMap<SessionId, Conn>,
    /// Messages heard since the last complete walk, and their payloads.
    ahead: (usize, usize),
}

impl Core {
    pub fn new((node, boot): (NodeId, Boot), number: u8, limits: Arc<Limits>, rules: &[TagRule]) -> Self {
        let counters = Arc::<Counters>::default();
        let settings = HubSettings {
            node,
            boot,
            core: number,
            limits: limits.clone(),
            rules: model::tag_rules(rules),
            outboxes_bytes_max: limits.writing.outboxes_bytes_max,
        };
        Self {
            number,
            hub: Hub::new(settings, counters.clone()),
            counters,
            limits,
            started: model::now(),
            rules: rules.to_vec(),
            new_rules: None,
            inbox: VecDeque::new(),
            to_exchange: Vec::new(),
            replies: Vec::new(),
            conns: BTreeMap::new(),
            ahead: (0, 0),
        }
    }

    pub fn set_now(&mut self, now: Duration) {
        let elapsed = (now - self.started).as_millis();
        self.hub.set_now(elapsed.try_into().expect("a short run"));
    }

    /// Takes the rules of a reload.
    pub fn reload(&mut self) {
        let Some(rules) = self.new_rules.take() else { return };
        self.hub.reload(model::tag_rules(&rules));
        self.rules = rules;
        self.conns.values_mut().for_each(|conn| (0..TAGS).for_each(|tag| conn.note_rule(tag, &self.rules[tag])));
    }

    /// Sends the updates that are due.
    pub fn keep_time(&mut self) {
        if self.hub.next_due().is_some() {
            self.hub.release_due();
        }
    }

    pub fn open(&mut self, client: usize, capacity: usize) -> SessionId {
        let uid: Box<str> = format!("u{client}").into();
        let (pid, role) = (model::pid(), Role::User);
        let new = NewSession {
            pid: pid.clone(),
            role,
            uid: uid.clone(),
            device: None,
            tag_patterns: None,
            expires: None,
            deflate: None,
        };
        let session = self.hub.open(new);
        let expected = (0..TAGS).map(|_| Expected::default()).collect();
        let conn = Conn {
            kernel: Vec::new(),
            capacity,
            gone: false,
            blocked: false,
            ended: false,
            shut: false,
            expected,
            hz_asked: [0; TAGS],
            was_lossless: false,
            extras: 0,
            waited: None,
        };
        assert!(self.conns.insert(session, conn).is_none(), "an id is used once");
        self.to_exchange.push(FromCore::Opened { session, pid, role, uid, device: None, since_unix_ms: 0 });
        session
    }

    /// What a client says, as the gateway takes it.
    pub fn subscribe(
        &mut self,
        session: SessionId,
        number: usize,
        since: Option<Box<str>>,
        hz_max: Option<u32>,
    ) -> Result<(), String> {
        let tag = model::tag(number);
        let Some(conn) = self.conns.get_mut(&session) else { return Ok(()) };
        let was_followed = conn.expected[number].is_followed();
        match self.hub.follow(session, &tag, hz_max) {
            Ok(is_new) if is_new == was_followed => return Err(format!("follow said {is_new}")),
            Ok(true) => conn.expected[number].may_merge = false,
            Ok(false) => self.hub.ask_again(session, &tag, hz_max),
            Err(FollowRefused::NoSession) => return Ok(()),
            Err(refused) => return Err(format!("{refused:?}")),
        }
        conn.expected[number].ask();
        conn.hz_asked[number] = hz_max.unwrap_or(0);
        conn.note_rule(number, &self.rules[number]);
        self.to_exchange.push(FromCore::Follow { session, pid: model::pid(), tag, since });
        Ok(())
    }

    pub fn unsubscribe(&mut self, session: SessionId, number: usize, ack_id: &str) {
        let tag = model::tag(number);
        let unused = self.hub.unfollow(session, &tag);
        self.unfollowed(unused);
        if let Some(conn) = self.conns.get_mut(&session) {
            conn.expected[number].end();
            conn.extras += 1;
        }
        let mut text = Vec::new();
        message::done(&mut text, ack_id);
        self.hub.send_text(session, &text);
    }

    pub fn pong(&mut self, session: SessionId) {
        self.hub.heard_from(session, 6, false);
    }

    fn unfollowed(&mut self, unused: Option<Tag>) {
        let core = self.number;
        self.to_exchange.extend(unused.map(|tag| FromCore::Unfollow { core, pid: model::pid(), tag }));
    }

    /// Carries out up to so many messages, as far ahead of the walk as the shard may.
    pub fn hear(&mut self, messages_max: usize) -> Result<(), String> {
        let writing = &self.limits.writing;
        let ahead_max = (writing.outbox_frames_max / 4, writing.outbox_bytes_max / 4);
        for _ in 0..messages_max {
            if !self.hub.has_dirty() {
                self.ahead = (0, 0);
            } else if self.ahead.0 >= ahead_max.0 || self.ahead.1 >= ahead_max.1 {
                return Ok(());
            }
            let Some(message) = self.inbox.pop_front() else { return Ok(()) };
            let (count, bytes, waits) = match message {
                ToCore::Publication(first) => {
                    let run = self.with_next(first, ahead_max.0 / 4);
                    (run.len(), run.iter().map(|published| published.payload.len()).sum(), self.publish(&run)?)
                }
                message => {
                    self.carry_out(message)?;
                    (1, 0, true)
                }
            };
            if waits {
                self.ahead = (self.ahead.0 + count, self.ahead.1 + bytes);
            }
        }
        Ok(())
    }

    /// A publication and those of its tag that come right behind it, at most so many.
    fn with_next(&mut self, first: Arc<Published>, count_max: usize) -> Vec<Arc<Published>> {
        let mut run = vec![first];
        while run.len() < count_max
            && let Some(ToCore::Publication(next)) = self.inbox.front()
            && (&next.pid, &next.tag) == (&run[0].pid, &run[0].tag)
        {
            run.push(next.clone());
            self.inbox.pop_front();
        }
        run
    }

    /// Whether what it queued is there until it is written.
    fn publish(&mut self, run: &[Arc<Published>]) -> Result<bool, String> {
        if strikes(Fault::CoreIsDeaf) {
            return Ok(true);
        }
        if strikes(Fault::CoreHearsTwice) {
            self.publish(run)?;
        }
        let note = |expected: &mut Expected| run.iter().for_each(|published| expected.publish(published));
        let followers = self.followers(&run[0].tag, note);
        let delivery = self.hub.publish_all(run);
        let outcomes = delivery.queued + delivery.merged + delivery.evicted;
        // Who is evicted by one of them is not there for the next.
        let each = if delivery.evicted > 0 { 1 } else { run.len() };
        if delivery.matched < followers * each || delivery.matched != outcomes {
            return Err(format!("{delivery:?} to {followers} followers of {}", run[0].tag));
        }
        Ok(!delivery.conflates)
    }

    fn carry_out(&mut self, message: ToCore) -> Result<(), String> {
        match message {
            ToCore::Publication(published) => drop(self.publish(&[published])?),
            ToCore::Followed { session, pid, tag, start } => self.followed(session, &pid, &tag, start),
            ToCore::Gap { pid, tag } => {
                self.followers(&tag, Expected::gap);
                self.conns.values_mut().for_each(|conn| conn.extras += 1);
                self.hub.announce_gap(&pid, &tag);
            }
            ToCore::Reply { ticket, reply } => self.replies.push((ticket, reply)),
            ToCore::Close { session, code, reason } => self.hub.begin_close(session, code, reason, false),
            other => return Err(format!("nobody asked for {other:?}")),
        }
        Ok(())
    }

    fn followed(&mut self, session: SessionId, pid: &Pid, tag: &Tag, start: FollowStart) {
        let is_open = self.hub.session(session).is_some_and(|session| session.phase() == Phase::Open);
        if let Some(conn) = self.conns.get_mut(&session).filter(|_| is_open) {
            conn.expected[model::number(tag)].answered(&start);
            conn.extras += 1;
        }
        let unused = self.hub.followed(session, pid, tag, start);
        self.unfollowed(unused);
    }

    /// Notes something for each open connection that follows the tag; how many they are.
    fn followers(&mut self, tag: &Tag, note: impl Fn(&mut Expected)) -> usize {
        let (number, mut count) = (model::number(tag), 0);
        for (id, conn) in &mut self.conns {
            let is_open = self.hub.session(*id).is_some_and(|session| session.phase() == Phase::Open);
            if is_open && conn.expected[number].is_joined() {
                note(&mut conn.expected[number]);
                count += 1;
            }
        }
        count
    }

    /// Writes to up to so many sockets that have something waiting.
    pub fn walk(&mut self, visits_max: usize) {
        for _ in 0..visits_max {
            let Some(id) = self.hub.next_dirty() else { return };
            if self.conns.get(&id).is_some_and(|conn| !conn.blocked) {
                self.write(id);
            }
        }
    }

    /// Lets the drains of sockets that take bytes again go on.
    pub fn drain(&mut self) {
        let is_writable = |conn: &&Conn| conn.blocked && (conn.kernel.len() <= conn.capacity / 2 || conn.shut);
        let writable = self.conns.iter().filter(|(_, conn)| is_writable(conn));
        for id in writable.map(|(id, _)| *id).collect::<Vec<_>>() {
            // A socket that takes more is written to until it does not, as by a task that only lets others run.
            (0..VISITS_PER_DRAIN).any(|_| !self.write(id));
        }
    }

    /// Visits a connection; whether its socket would take more.
    fn write(&mut self, id: SessionId) -> bool {
        let visit = self.visit(id);
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        conn.blocked = !matches!(visit, Visit::Done);
        conn.waited = None;
        let is_closing = self.hub.session(id).is_some_and(|session| session.phase() != Phase::Open);
        if !conn.blocked && is_closing && self.hub.is_flushed(id) {
            conn.ended = true;
        }
        matches!(visit, Visit::More)
    }

    fn visit(&mut self, id: SessionId) -> Visit {
        let Some(conn) = self.conns.get_mut(&id) else { return Visit::Done };
        for _ in 0..WRITES_PER_VISIT {
            if let Some(all) = self.hub.only(id)
                && conn.kernel.len() + all.len() <= conn.capacity
            {
                conn.kernel.extend_from_slice(all);
                self.hub.wrote_only(id);
                return Visit::Done;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.hub.gather(id, &mut slices);
            if filled == 0 {
                return Visit::Done;
            }
            let wanted: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let room = conn.capacity.saturating_sub(conn.kernel.len());
            let taken = wanted.min(room);
            let mut left = taken;
            for slice in &slices[..filled] {
                let part = &slice[..slice.len().min(left)];
                conn.kernel.extend_from_slice(part);
                left -= part.len();
            }
            if !self.hub.wrote(id, taken, taken < wanted) {
                return Visit::Done;
            }
            if taken < wanted {
                return Visit::Blocked;
            }
        }
        Visit::More
    }

    /// However long a blocked connection of latest tags waits, nothing but what is no value is queued for it.
    pub fn check_stalled(&mut self) -> Result<(), String> {
        for (id, conn) in &mut self.conns {
            if !conn.blocked || conn.was_lossless || conn.shut {
                (conn.waited, conn.extras) = (None, 0);
                continue;
            }
            let waits = self.hub.waiting(*id);
            match conn.waited {
                // Every tag that it follows may come to be owed.
                Some(waited) if waits > waited + conn.extras + TAGS => {
                    return Err(format!("{waits} items wait for a stalled connection, and {waited} did before"));
                }
                Some(_) => {}
                None => (conn.waited, conn.extras) = (Some(waits), 0),
            }
        }
        Ok(())
    }

    /// Looks after deadlines; takes out the connections whose socket has ended.
    pub fn look_after(&mut self, notices: impl Fn() -> bool) {
        let mut expired = Vec::new();
        self.hub.expire(4, &mut expired);
        for Expired::Shut(id) in expired {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.shut = true;
            }
        }
        let is_over = |conn: &Conn| conn.shut || conn.gone;
        let over = self.conns.iter().filter(|(_, conn)| is_over(conn) && notices());
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
    }

    fn close(&mut self, id: SessionId) {
        if strikes(Fault::ConnectionForgotten) {
            self.conns.remove(&id);
            return;
        }
        if let Some(closed) = self.hub.close(id) {
            closed.unfollowed.into_iter().for_each(|tag| self.unfollowed(Some(tag)));
            self.to_exchange.push(FromCore::Closed { session: id });
        }
        self.conns.remove(&id);
    }

    /// Whether nothing is left to do.
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.to_exchange.is_empty() && !self.hub.has_dirty()
    }

    pub fn outbox_bytes(&self) -> u64 {
        self.counters.get(Count::OutboxBytes)
    }
}
