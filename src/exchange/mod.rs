//! One node's state: tags, interest, back-ends, requests, who is online.
//!
//! What cores say and what the log brings goes in, what cores and the log are to get comes out. Every node hears
//! every record, its own included, and does its part of it; what it must not do twice it does when it hears.
//!
//! Invariants: no clock, no socket, no await; the effects of one input are complete and in order when `apply`
//! returns. A core's effects are one FIFO, and so is the log of a shard: that is why a subscriber that follows a
//! tag gets its snapshot and then every later publication, without a gap and without a duplicate.
//! Left out: sessions and their subscriptions (each core's own), and everything about sockets.

mod cores;
mod submissions;

mod heard;

mod keeper;
mod keys;
mod ring;
mod tags;

mod backends;
mod peers;
mod requests;
mod routing;

mod connections;
mod lists;
mod online;
mod presence;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use self::{
    backends::Directory,
    cores::Cores,
    keeper::Keeper,
    keys::{Key, Keys},
    lists::Lists,
    online::Asks,
    peers::Peers,
    presence::{Member, Presence},
    requests::Requests,
    routing::{End, Question},
    submissions::{Answer, Plan, Submissions},
    tags::TagTable,
};
use crate::{
    limits::{OpeningLimits, QueueLimits},
    metrics::{Count, Counters},
    model::{
        AckTo, Boot, ClientId, FromCore, LastValue, NodeId, Pid, Place, Projects, Record, RecordId, Refusal, Reply,
        RetainOutcome, SessionId, Source, TagRules, Ticket, ToCore,
        record::{Beat, BeatPhase, OnlineAsk, OnlineClients, Standing, Taking},
    },
};

/// Parts of online lists that one tick sends.
const PARTS_PER_TICK: usize = 16;

/// What the exchange is told at start.
#[derive(Clone, Debug)]
pub struct ExchangeSettings {
    /// This node.
    pub node: NodeId,
    /// This boot of it.
    pub boot: Boot,
    /// How many cores it has.
    pub cores: u8,
    /// How many shards the log has.
    pub shards: u16,
    /// Whether the queue's store outlives nodes, so that it is worth writing last values there.
    pub retains: bool,
    /// Where clients reach this node, as other nodes tell them; empty: nowhere.
    pub public_addr: String,
    /// What a reload may replace.
    pub rules: ExchangeRules,
}

/// What a reload may replace.
#[derive(Clone, Debug, Default)]
pub struct ExchangeRules {
    /// The way through the queue, and the tables.
    pub limits: QueueLimits,
    /// How many connections a user may have.
    pub opening: OpeningLimits,
    /// What is remembered of which tag.
    pub tags: TagRules,
    /// Where requests go.
    pub projects: Projects,
}

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub mono: Instant,
    /// Unix milliseconds, for what people read.
    pub unix_ms: u64,
}

/// What happens to the exchange.
#[derive(Clone, Debug)]
pub enum Input {
    /// A core says something.
    Core(FromCore),
    /// The log brought a record; each comes once, in the order of its shard.
    Heard {
        /// Its identity.
        id: RecordId,
        /// The record.
        record: Record,
        /// It happened before this node was ready: it is remembered and delivered to nobody.
        warm: bool,
    },
    /// The log took or refused a record; comes exactly once for each [`Effect::Append`].
    Appended {
        /// Who waits for it.
        to: AckTo,
        /// The record's identity.
        result: Result<RecordId, Refusal>,
    },
    /// The log lost records for good, and has counted that.
    Lost {
        /// In this shard; none: in all.
        shard: Option<u16>,
    },
    /// The queue's store had a tag's last value; comes before the log's past of its shard has been heard.
    LastValue(LastValue),
    /// Everything that the log had kept has been heard, in all shards.
    Warmed,
    /// The queue has begun a new epoch somewhere: its store may have lost something.
    NewEpoch,
    /// The queue's store took last values or did not; comes exactly once for each [`Effect::Retain`].
    Retained(RetainOutcome),
    /// Time passes; at least a few times a second.
    Tick,
}

/// What the exchange wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A message for a core's inbox.
    ToCore(u8, ToCore),
    /// A record for the log.
    Append(Record, AckTo),
    /// Tags' last values for the queue's store, perhaps none. The next come when these are answered.
    Retain {
        /// The store refuses what comes with a lower one than it has seen.
        term: u64,
        /// The values.
        values: Vec<LastValue>,
    },
}

/// The exchange of one node.
#[derive(Debug)]
pub struct Exchange {
    node: NodeId,
    boot: Boot,
    cores: Cores,
    shards: u16,
    rules: ExchangeRules,
    counters: Arc<Counters>,
    submissions: Submissions,
    keys: Keys,
    tags: TagTable,
    keeper: Keeper,
    directory: Directory,
    requests: Requests,
    affairs_made_up: u64,
    peers: Peers,
    presence: Presence,
    lists: Lists,
    asks: Asks,
    public_addr: Box<str>,
    taking: Taking,
}

impl Exchange {
    /// An exchange that knows nothing yet.
    pub fn new(settings: ExchangeSettings, counters: Arc<Counters>) -> Self {
        let ExchangeSettings { node, boot, cores, shards, retains, public_addr, rules } = settings;
        let limits = &rules.limits;
        Self {
            node,
            boot,
            cores: Cores::first(cores),
            shards,
            submissions: Submissions::default(),
            keys: Keys::new(limits.idempotency_window, limits.idempotency_keys_max, counters.clone()),
            tags: TagTable::new(limits.tags_max, limits.tag_table_bytes_max, counters.clone()),
            keeper: Keeper::new(node, retains),
            directory: Directory::default(),
            requests: Requests::new(limits.requests_pending_max),
            affairs_made_up: 0,
            peers: Peers::new(node, boot),
            presence: Presence::default(),
            lists: Lists::default(),
            asks: Asks::default(),
            public_addr: public_addr.into(),
            taking: Taking::default(),
            rules,
            counters,
        }
    }

    /// Does what follows from `input` and puts it behind what is in `out`.
    pub fn apply(&mut self, input: Input, now: Now, out: &mut Vec<Effect>) {
        match input {
            Input::Core(message) => self.core_says(message, now.mono, out),
            Input::Heard { id, record, warm: true } => self.warm(id, record, now.mono),
            Input::Heard { id, record, warm: false } => self.heard(id, record, now.mono, out),
            Input::Appended { to, result } => self.appended(to, result, now.mono, out),
            Input::Lost { shard } => self.lost(shard, out),
            Input::LastValue(value) => self.load(value, now),
            Input::Warmed => self.keeper.warmed(),
            Input::NewEpoch => self.tags.save_all(),
            Input::Retained(outcome) => self.retained(outcome, now.mono),
            Input::Tick => self.tick(now, out),
        }
    }

    /// Replaces rules, projects and bounds; what is remembered stays as far as the new bounds allow.
    pub fn reload(&mut self, rules: ExchangeRules) {
        let limits = &rules.limits;
        self.keys.resize(limits.idempotency_window, limits.idempotency_keys_max);
        self.tags.resize(limits.tags_max, limits.tag_table_bytes_max);
        self.requests.resize(limits.requests_pending_max);
        self.rules = rules;
    }

    /// Tells the cluster that this node stops in good order; it gives no sign of life any more.
    pub fn goodbye(&mut self, out: &mut Vec<Effect>) {
        self.peers.stop();
        let (node, boot, backends) = (self.node, self.boot, Vec::new());
        append(out, Record::Beat(Beat { node, boot, phase: BeatPhase::Goodbye, backends, standing: None }));
    }

    /// From now on this node takes new connections or does not; the others are told at once.
    pub fn take_users(&mut self, taking: Taking, out: &mut Vec<Effect>) {
        let changed = std::mem::replace(&mut self.taking, taking) != taking;
        // The first beat says it too.
        if changed && self.peers.has_beaten() {
            self.beat(BeatPhase::Alive, out);
        }
    }

    /// Where a router may send clients at `now`, by the nodes' numbers.
    pub fn places(&self, now: Instant) -> Vec<Place> {
        let takes = |node: NodeId| node != self.node || self.taking == Taking::Yes;
        self.peers.places(now).filter(|place| takes(place.node)).collect()
    }

    /// Changes with every sign of life that is heard: there may be other [`Exchange::places`].
    pub fn beats_heard(&self) -> u64 {
        self.peers.beats_heard()
    }

    fn standing(&self) -> Standing {
        Standing { addr: self.public_addr.clone(), users: self.presence.users(), taking: self.taking }
    }

    fn core_says(&mut self, message: FromCore, now: Instant, out: &mut Vec<Effect>) {
        match message {
            FromCore::Opened { session, pid, role, uid, device, since_unix_ms } => {
                self.opened(Member { pid, uid, device, since_unix_ms, session, role, number: 0 }, out);
            }
            FromCore::Closed { session } => self.closed(session, out),
            FromCore::Follow { session, pid, tag, since, .. } => {
                self.follow(session, &pid, tag, since.as_deref(), now, out);
            }
            FromCore::Unfollow { core, pid, tag } => self.tags.unfollow(core, &pid, &tag),
            FromCore::Submit { ticket, records } => self.submit(ticket, records, now, out),
            FromCore::Request { session, affair_id, ack_id, timeout, payload } => {
                let affair_id = affair_id.unwrap_or_else(|| self.make_up_affair());
                let timeout = timeout.min(self.rules.limits.request_timeout_max);
                self.request(session, Question { affair_id, ack_id, timeout, payload }, now, out);
            }
            FromCore::TagState { ticket, pid, tag } => {
                let rule = self.rules.tags.find(&tag);
                reply(out, ticket, Reply::Tag(self.tags.history(&pid, &tag, rule, now)));
            }
            FromCore::TagValues { ticket, pid, tags } => {
                let values = tags.iter().map(|tag| self.tags.last(&pid, tag).cloned());
                reply(out, ticket, Reply::Values(values.collect()));
            }
            FromCore::Online { ticket, pid, uids, after, limit } => {
                self.ask_online(ticket, (pid, uids, after, limit), now, out);
            }
        }
    }

    fn appended(&mut self, to: AckTo, result: Result<RecordId, Refusal>, now: Instant, out: &mut Vec<Effect>) {
        match to {
            AckTo::Nobody => {}
            AckTo::Submission { ticket, index } => {
                if let Err(refusal) = result
                    && self.asks.refused(ticket)
                {
                    return reply(out, ticket, Reply::Refused(refusal));
                }
                let unheard_until = now + self.rules.limits.pending_timeout;
                let answer = self.submissions.appended((ticket, index), result, &self.keys, unheard_until);
                self.answer(answer, out);
            }
            AckTo::Request { session, affair_id, ack_id } => {
                self.request_appended(session, &affair_id, ack_id.as_deref(), result.err(), out);
            }
        }
    }

    fn lost(&mut self, shard: Option<u16>, out: &mut Vec<Effect>) {
        self.tags.lost(shard, self.shards, |pid, tag, cores| {
            for core in cores.iter() {
                out.push(Effect::ToCore(core, ToCore::Gap { pid: pid.clone(), tag: tag.clone() }));
            }
        });
        self.tags.save_all();
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.tick_at(now.mono, out);
        self.keep_values(now, out);
    }

    fn tick_at(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if let Some(phase) = self.peers.due(now) {
            self.beat(phase, out);
        }
        for (node, boot) in self.peers.expire(now) {
            self.counters.inc(Count::NodesLost);
            tracing::warn!(node, %boot, "node is silent; its back-ends are given up");
            self.node_gone(node, boot, out);
        }
        let late = self.requests.expire(now);
        self.end(late, End::TimedOut, out);
        for answer in self.submissions.expire(now) {
            self.answer(Some(answer), out);
        }
        self.finish_asks(now, out);
        self.send_lists(now, out);
        self.keys.expire(now);
        self.tags.sweep(&self.rules.tags, now);
    }
}

/// Submissions.
impl Exchange {
    fn submit(&mut self, ticket: Ticket, records: Vec<Record>, now: Instant, out: &mut Vec<Effect>) {
        let mut plans = Vec::with_capacity(records.len());
        for (index, record) in (0..).zip(records) {
            let plan = self.plan(&record, now);
            if !matches!(plan, Plan::Repeated(_)) {
                out.push(Effect::Append(record, AckTo::Submission { ticket, index }));
            }
            plans.push(plan);
        }
        let answer = self.submissions.open(ticket, plans);
        self.answer(answer, out);
    }

    /// A key that is known already needs no way through the log.
    fn plan(&mut self, record: &Record, now: Instant) -> Plan {
        let Some(key) = Key::of(record, self.shards) else { return Plan::Append };
        match self.keys.owner_anywhere(&key, now) {
            Some(first) => {
                self.counters.inc(Count::KeysRepeated);
                Plan::Repeated(first)
            }
            None => Plan::AppendKeyed(key),
        }
    }

    fn answer(&self, answer: Option<Answer>, out: &mut Vec<Effect>) {
        let Some(answer) = answer else { return };
        self.counters.add(Count::PushesAccepted, answer.accepted);
        self.counters.add(Count::PushesRefused, answer.refused);
        reply(out, answer.ticket, answer.reply);
    }
}

/// Signs of life and the online list.
impl Exchange {
    fn beat(&self, phase: BeatPhase, out: &mut Vec<Effect>) {
        let backends = self.presence.all_backends();
        let mut backends: Vec<_> = backends.map(|member| (member.pid.clone(), self.cid(member.session))).collect();
        backends.sort_unstable();
        let standing = Some(self.standing());
        append(out, Record::Beat(Beat { node: self.node, boot: self.boot, phase, backends, standing }));
    }

    fn send_lists(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.lists.round_is_due(now) {
            let served = self.presence.pids().filter(|pid| self.directory.serves(pid));
            served.for_each(|pid| self.lists.queue(pid));
        }
        for _ in 0..PARTS_PER_TICK {
            let Some((pid, part)) = self.lists.next_part(&self.presence) else { return };
            let users = part.into_iter().map(|member| self.source(member)).collect();
            append(out, Record::OnlineClients(OnlineClients { pid, users }));
        }
    }

    fn ask_online(
        &mut self,
        ticket: Ticket,
        (pid, uids, after, limit): (Pid, Vec<Box<str>>, Option<Box<str>>, u32),
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let (ask, limit) = match self.asks.open(ticket, limit, now) {
            Ok(opened) => opened,
            Err(refusal) => {
                self.counters.inc(Count::OnlineAsksRefused);
                return reply(out, ticket, Reply::Refused(refusal));
            }
        };
        let (node, boot) = (self.node, self.boot);
        let record = Record::OnlineAsk(OnlineAsk { node, boot, ask, pid, uids, after, limit });
        out.push(Effect::Append(record, AckTo::Submission { ticket, index: 0 }));
    }

    fn finish_asks(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let nodes: Vec<_> = self.peers.nodes().collect();
        for (ticket, answer) in self.asks.finished(now, nodes.iter().copied()) {
            reply(out, ticket, answer);
        }
    }

    fn cid(&self, session: SessionId) -> ClientId {
        ClientId { node: self.node, boot: self.boot, session }
    }

    /// The session that a connection is, if it is one of this boot.
    fn session(&self, cid: ClientId) -> Option<SessionId> {
        (cid.node == self.node && cid.boot == self.boot).then_some(cid.session)
    }

    fn source(&self, member: &Member) -> Source {
        Source { uid: member.uid.clone(), cid: self.cid(member.session), device: member.device.clone() }
    }
}

fn append(out: &mut Vec<Effect>, record: Record) {
    out.push(Effect::Append(record, AckTo::Nobody));
}

fn reply(out: &mut Vec<Effect>, ticket: Ticket, reply: Reply) {
    out.push(Effect::ToCore(ticket.core, ToCore::Reply { ticket, reply }));
}

fn text(out: &mut Vec<Effect>, session: SessionId, text: Bytes) {
    out.push(Effect::ToCore(session.core, ToCore::Text { session, text }));
}

/// A text as `write` writes it.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(256);
    write(&mut out);
    out.into()
}
