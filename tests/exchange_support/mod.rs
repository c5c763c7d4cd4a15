//! A cluster of exchanges over a log in memory, with the time and every step in the test's hands.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ws_cluster::{
    clock,
    exchange::{Effect, Exchange, ExchangeRules, ExchangeSettings, Input, Now},
    metrics::{Count, Counters},
    model::{
        AckTo, Audience, Boot, ClientId, FollowStart, FromCore, LastValue, NodeId, Pid, Publication, Push, Record,
        RecordId, Refusal, Reply, Role, SessionId, Stamp, Tag, Ticket, ToCore,
    },
};

pub const CORES: u8 = 2;
pub const SHARDS: u16 = 4;

/// One node: its exchange, what its cores got, and what it wants in the log.
pub struct Node {
    pub id: NodeId,
    pub boot: Boot,
    pub exchange: Exchange,
    pub counters: Arc<Counters>,
    pub inboxes: Vec<VecDeque<ToCore>>,
    pub outgoing: VecDeque<(Record, AckTo)>,
    /// What it wants in the queue's store; at most one batch until it is answered.
    pub retaining: VecDeque<(u64, Vec<LastValue>)>,
    /// How much of the log it has heard.
    pub cursor: usize,
}

/// Nodes that hear one log.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub log: Vec<(RecordId, Record)>,
    pub rules: ExchangeRules,
    pub now: Instant,
    start: Instant,
    seq: u64,
    tickets: u64,
    opened: u32,
}

impl Cluster {
    pub fn new(nodes: usize) -> Self {
        Self::with(nodes, ExchangeRules::default())
    }

    pub fn with(nodes: usize, rules: ExchangeRules) -> Self {
        Self::starting(clock::now(), nodes, rules)
    }

    pub fn starting(now: Instant, nodes: usize, rules: ExchangeRules) -> Self {
        let mut cluster =
            Self { nodes: Vec::new(), log: Vec::new(), rules, now, start: now, seq: 0, tickets: 0, opened: 0 };
        for id in 1..=nodes {
            cluster.join(NodeId::try_from(id).expect("few nodes"), Boot(0x100));
        }
        cluster.tick();
        cluster
    }

    /// Starts a node at the end of the log; its index.
    pub fn join(&mut self, id: NodeId, boot: Boot) -> usize {
        let counters = Arc::<Counters>::default();
        let settings = ExchangeSettings {
            node: id,
            boot,
            cores: CORES,
            shards: SHARDS,
            retains: true,
            public_addr: String::new(),
            rules: self.rules.clone(),
        };
        let exchange = Exchange::new(settings, counters.clone());
        let inboxes = vec![VecDeque::new(); usize::from(CORES)];
        let (outgoing, retaining, cursor) = (VecDeque::new(), VecDeque::new(), self.log.len());
        self.nodes.push(Node { id, boot, exchange, counters, inboxes, outgoing, retaining, cursor });
        self.nodes.len() - 1
    }

    /// One input to one node; its effects are kept, not yet followed.
    pub fn apply(&mut self, node: usize, input: Input) {
        let mut out = Vec::new();
        let now = Now { mono: self.now, unix_ms: self.unix_ms() };
        self.nodes[node].exchange.apply(input, now, &mut out);
        self.nodes[node].keep(out);
    }

    /// The wall clock.
    pub fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from((self.now - self.start).as_millis()).expect("a short test")
    }

    pub fn core(&mut self, node: usize, message: FromCore) {
        self.apply(node, Input::Core(message));
    }

    /// Puts what the node wants into the log, and tells it.
    pub fn append(&mut self, node: usize) {
        while let Some((record, to)) = self.nodes[node].outgoing.pop_front() {
            let id = self.put(record);
            self.apply(node, Input::Appended { to, result: Ok(id) });
        }
    }

    /// Puts what the node wants into the log; the acknowledgements are given back.
    pub fn append_silently(&mut self, node: usize) -> Vec<(AckTo, RecordId)> {
        let outgoing = std::mem::take(&mut self.nodes[node].outgoing);
        outgoing.into_iter().map(|(record, to)| (to, self.put(record))).collect()
    }

    pub fn put(&mut self, record: Record) -> RecordId {
        self.seq += 1;
        let id = RecordId { origin: 7, seq: self.seq };
        self.log.push((id, record));
        id
    }

    /// The log refuses what the node wants.
    pub fn refuse(&mut self, node: usize, refusal: Refusal) {
        while let Some((_, to)) = self.nodes[node].outgoing.pop_front() {
            self.apply(node, Input::Appended { to, result: Err(refusal) });
        }
    }

    /// The node hears the log to its end.
    pub fn hear(&mut self, node: usize) {
        while let Some((id, record)) = self.log.get(self.nodes[node].cursor).cloned() {
            self.nodes[node].cursor += 1;
            self.apply(node, Input::Heard { id, record, warm: false });
        }
    }

    /// Appends and hears until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            (0..self.nodes.len()).for_each(|node| self.append(node));
            (0..self.nodes.len()).for_each(|node| self.hear(node));
            if self.nodes.iter().all(|node| node.outgoing.is_empty() && node.cursor == self.log.len()) {
                return;
            }
        }
    }

    pub fn tick(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.apply(node, Input::Tick));
        self.settle();
    }

    /// Lets time pass in steps of a second, everything working.
    pub fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(1));
            left -= step;
            self.now += step;
            self.tick();
        }
    }

    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket { core: 0, number: self.tickets }
    }

    /// Opens a connection on some core, without letting the log work.
    pub fn open(&mut self, node: usize, pid: &str, role: Role, uid: &str) -> SessionId {
        self.opened += 1;
        let core = u8::try_from(self.opened % u32::from(CORES)).expect("few cores");
        let session = SessionId { core, slot: self.opened, generation: 1 };
        let (uid, since_unix_ms) = (uid.into(), self.unix_ms());
        let opened = FromCore::Opened { session, pid: self::pid(pid), role, uid, device: None, since_unix_ms };
        self.core(node, opened);
        session
    }

    pub fn user(&mut self, node: usize, pid: &str, uid: &str) -> SessionId {
        let session = self.open(node, pid, Role::User, uid);
        self.settle();
        session
    }

    pub fn backend(&mut self, node: usize, pid: &str) -> SessionId {
        let session = self.open(node, pid, Role::Backend, "backend");
        self.settle();
        session
    }

    pub fn close(&mut self, node: usize, session: SessionId) {
        self.core(node, FromCore::Closed { session });
    }

    pub fn cid(&self, node: usize, session: SessionId) -> ClientId {
        ClientId { node: self.nodes[node].id, boot: self.nodes[node].boot, session }
    }

    /// A user asks; the log does not work yet.
    pub fn ask(&mut self, node: usize, session: SessionId, affair_id: &str, timeout: Duration) {
        let (affair_id, ack_id) = (Some(affair_id.into()), Some("ack".into()));
        let payload = Bytes::from_static(b"1");
        self.core(node, FromCore::Request { session, affair_id, ack_id, timeout, payload });
    }

    pub fn submit(&mut self, node: usize, records: Vec<Record>) -> Ticket {
        let ticket = self.ticket();
        self.core(node, FromCore::Submit { ticket, records });
        ticket
    }

    /// Publishes and lets everything settle; the id.
    pub fn publish(&mut self, node: usize, record: Record) -> RecordId {
        let ticket = self.submit(node, vec![record]);
        self.settle();
        self.submitted(node, ticket)[0].expect("accepted")
    }

    pub fn follow(&mut self, node: usize, session: SessionId, tag: &str, since: Option<&str>) -> FollowStart {
        let (tag, since) = (self::tag(tag), since.map(Into::into));
        self.core(node, FromCore::Follow { session, pid: pid("p"), tag, since });
        match self.nodes[node].inboxes[usize::from(session.core)].pop_back() {
            Some(ToCore::Followed { start, .. }) => start,
            other => panic!("not followed but {other:?}"),
        }
    }

    /// The answer to a ticket, which must be there exactly once.
    pub fn reply(&mut self, node: usize, ticket: Ticket) -> Option<Reply> {
        let inbox = &mut self.nodes[node].inboxes[usize::from(ticket.core)];
        let mut replies = Vec::new();
        inbox.retain(|message| match message {
            ToCore::Reply { ticket: of, reply } if *of == ticket => {
                replies.push(reply.clone());
                false
            }
            _ => true,
        });
        assert!(replies.len() < 2, "{ticket:?} was answered {} times", replies.len());
        replies.pop()
    }

    pub fn submitted(&mut self, node: usize, ticket: Ticket) -> Vec<Result<RecordId, Refusal>> {
        match self.reply(node, ticket) {
            Some(Reply::Submitted(outcomes)) => outcomes,
            other => panic!("not submitted but {other:?}"),
        }
    }

    /// Takes the texts that a connection got.
    pub fn texts(&mut self, node: usize, session: SessionId) -> Vec<String> {
        let mut texts = Vec::new();
        self.nodes[node].inboxes[usize::from(session.core)].retain(|message| match message {
            ToCore::Text { session: to, text } if *to == session => {
                texts.push(String::from_utf8(text.to_vec()).expect("text"));
                false
            }
            _ => true,
        });
        texts
    }

    /// Takes the `err` words of the notices that a user got.
    pub fn errs(&mut self, node: usize, session: SessionId) -> Vec<String> {
        let texts = self.texts(node, session).into_iter();
        texts.filter_map(|text| Some(text.split_once(r#""err":""#)?.1.split('"').next()?.to_owned())).collect()
    }

    /// Takes the ids of the publications that a core got.
    pub fn publications(&mut self, node: usize, core: u8) -> Vec<RecordId> {
        let mut ids = Vec::new();
        self.nodes[node].inboxes[usize::from(core)].retain(|message| match message {
            ToCore::Publication(published) => {
                ids.push(published.id);
                false
            }
            _ => true,
        });
        ids
    }

    /// Takes everything that the cores of a node got.
    pub fn take(&mut self, node: usize) -> Vec<(u8, ToCore)> {
        let inboxes = (0..).zip(&mut self.nodes[node].inboxes);
        inboxes.flat_map(|(core, inbox)| inbox.drain(..).map(move |message| (core, message))).collect()
    }

    pub fn count(&self, node: usize, count: Count) -> u64 {
        self.nodes[node].counters.get(count)
    }
}

impl Node {
    pub fn keep(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ToCore(core, message) => self.inboxes[usize::from(core)].push_back(message),
                Effect::Append(record, to) => self.outgoing.push_back((record, to)),
                Effect::Retain { term, values } => self.retaining.push_back((term, values)),
            }
        }
    }
}

pub fn pid(text: &str) -> Pid {
    Pid::new(text).expect("a pid")
}

pub fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

pub fn publication(tag: &str, payload: &str, key: Option<&str>) -> Record {
    Record::Publication(Publication {
        pid: pid("p"),
        tag: self::tag(tag),
        keep: false,
        affair_id: None,
        idempotency_key: key.map(Into::into),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        stamp: Stamp::default(),
    })
}

pub fn push(audience: Audience, affair_id: Option<&str>) -> Record {
    Record::Push(Push {
        pid: pid("p"),
        audience,
        affair_id: affair_id.map(Into::into),
        idempotency_key: None,
        payload: Bytes::from_static(b"{}"),
        stamp: Stamp::default(),
    })
}

/// What a back-end sends to answer a user's request.
pub fn answer(to: ClientId, affair_id: &str) -> Record {
    push(Audience { cids: vec![to.to_string().into()], ..Audience::default() }, Some(affair_id))
}

/// Ids of what a subscriber gets first.
pub fn ids(start: &FollowStart) -> Vec<RecordId> {
    match start {
        FollowStart::Empty | FollowStart::Gap => Vec::new(),
        FollowStart::Snapshot { last, .. } => vec![last.id],
        FollowStart::Tail(tail) => tail.iter().map(|published| published.id).collect(),
    }
}
