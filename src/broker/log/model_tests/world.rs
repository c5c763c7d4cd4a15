//! A cluster in one thread and in virtual time: nodes (the pure halves of a shard), a queue, and the net between.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fastrand::Rng;

use crate::{
    broker::{
        Append, Appended, Body, BrokerError, Durability, Entry, Kind, Open, Opened, Position,
        log::{
            publisher::{Publisher, PublisherSettings, Step, Told},
            receiver::{Harvest, Heard, Receiver, Verdict},
        },
        memory::ShardLog,
    },
    model::{AckTo, Pid, Publication, Record, RecordId, Refusal, Stamp, Tag, Ticket},
};

/// What may go wrong in a run, besides lost and late answers, and lost, repeated and reordered live entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// The queue restarts with everything, without its tail, or empty.
    pub(super) loses_data: bool,
    /// The queue falls back without a restart, as when a replica takes over and gives back.
    pub(super) falls_back: bool,
    /// Nodes die and are started again.
    pub(super) nodes_die: bool,
}

#[derive(Clone, Debug)]
enum Request {
    Open(Open),
    Append(Append),
}

#[derive(Clone, Debug)]
enum Reply {
    Opened(Opened),
    Appended(Appended),
    Failed(BrokerError),
}

/// A publisher's call on its way.
#[derive(Debug)]
struct Call {
    request: Request,
    reply: Option<Reply>,
}

/// How far a node's start has come.
#[derive(Debug)]
enum Start {
    Cold,
    Opened(Opened),
    Done,
}

pub(super) struct Node {
    publisher: Publisher,
    receiver: Receiver,
    start: Start,
    call: Option<Call>,
    live: VecDeque<Entry>,
    stalled_until: Instant,
    /// What it heard since it was started, warm or live.
    pub(super) heard: Vec<(RecordId, u64)>,
    pub(super) losses: u32,
    /// Node boots that have died in its place.
    pub(super) boot: u64,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    log: ShardLog,
    run: u64,
    up: bool,
    /// Requests that their senders have given up and that arrive all the same.
    stale: Vec<Request>,
    pub(super) offered: u64,
    /// What submitters were told; none yet: still waiting. The node and boot that took it.
    pub(super) told: HashMap<u64, Vec<Result<RecordId, Refusal>>>,
    pub(super) taken: HashMap<u64, (usize, u64)>,
    /// Records that nodes may hear in different orders: nobody knew that they were stored before, or their publisher
    /// was away until others had gone on.
    pub(super) unordered: HashSet<RecordId>,
    /// The epoch in which a record was last stored, and the last that was sealed.
    stored: HashMap<RecordId, u64>,
    sealed: u64,
    pub(super) healed: bool,
}

fn record(number: u64) -> Body {
    let publication = Publication {
        pid: Pid::new("1").expect("a pid"),
        tag: Tag::new("t").expect("a tag"),
        keep: false,
        affair_id: None,
        idempotency_key: None,
        payload: Bytes::from(number.to_string()),
        stamp: Stamp::default(),
    };
    Body::Value(Record::Publication(publication))
}

fn number(record: &Record) -> u64 {
    match record {
        Record::Publication(publication) => {
            std::str::from_utf8(&publication.payload).expect("text").parse().expect("a number")
        }
        other => panic!("never offered: {other:?}"),
    }
}

fn settings() -> PublisherSettings {
    PublisherSettings {
        pending_bytes_max: 1 << 20,
        pending_timeout: Duration::from_secs(3),
        batch_bytes_max: 2000,
        batch_records_max: 5,
        replay_window: Duration::from_secs(300),
        replay_bytes_max: 1 << 30,
    }
}

impl Node {
    fn new(rng: &mut Rng, now: Instant, boot: u64) -> Self {
        Self {
            publisher: Publisher::new(settings(), Durability::Log, rng.u64(..)),
            receiver: Receiver::new(1 << 30),
            start: Start::Cold,
            call: None,
            live: VecDeque::new(),
            stalled_until: now,
            heard: Vec::new(),
            losses: 0,
            boot,
        }
    }

    fn hand_on(&mut self, harvest: Harvest) {
        for (position, kind, last) in harvest.marks {
            self.publisher.observed(position, kind, last);
        }
        assert!(harvest.poison.is_empty(), "{:?}", harvest.poison);
        for heard in harvest.heard {
            match heard {
                Heard::Record(id, record) => self.heard.push((id, number(&record))),
                Heard::Lost => self.losses += 1,
            }
        }
    }

    pub(super) fn cursor(&self) -> Position {
        self.receiver.cursor()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.publisher.is_settled() && matches!(self.start, Start::Done)
    }
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let (mut rng, now) = (Rng::with_seed(seed), crate::clock::now());
        let nodes = (0..rng.usize(1..=3)).map(|_| Node::new(&mut rng, now, 0)).collect();
        Self {
            rng,
            faults,
            now,
            nodes,
            log: ShardLog::new(1),
            run: 1,
            up: true,
            stale: Vec::new(),
            offered: 0,
            told: HashMap::new(),
            taken: HashMap::new(),
            unordered: HashSet::new(),
            stored: HashMap::new(),
            sealed: 0,
            healed: false,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0
    }

    /// Lets one thing happen.
    pub(super) fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..8));
        if !self.healed && self.chance(60) {
            self.fault();
        }
        if !self.stale.is_empty() && self.up && self.chance(4) {
            let which = self.rng.usize(..self.stale.len());
            let request = self.stale.swap_remove(which);
            self.execute(&request);
        }
        let node = self.rng.usize(..self.nodes.len());
        if self.nodes[node].stalled_until > self.now {
            return;
        }
        match self.rng.u32(0..7) {
            0 if !self.healed => self.offer(node),
            0..=2 => self.publish(node),
            3 => self.hear_live(node),
            4 => self.read(node),
            _ => self.carry(node),
        }
        self.expire(node);
    }

    fn fault(&mut self) {
        let node = self.rng.usize(..self.nodes.len());
        match self.rng.u32(0..6) {
            0 if self.faults.loses_data => {
                self.run += 1;
                self.log = ShardLog::new(self.run * 1000);
            }
            1 if self.faults.loses_data => {
                self.run += 1;
                self.log.lose_tail(self.rng.u64(0..6));
            }
            2 if self.faults.falls_back => self.log.lose_tail(self.rng.u64(0..6)),
            3 => self.up = !self.up,
            4 => self.nodes[node].stalled_until = self.now + Duration::from_millis(self.rng.u64(0..6000)),
            5 if self.faults.nodes_die => {
                let boot = self.nodes[node].boot + 1;
                self.nodes[node] = Node::new(&mut self.rng, self.now, boot);
            }
            _ => self.run += 1,
        }
    }

    fn offer(&mut self, node: usize) {
        self.offered += 1;
        let to = AckTo::Submission { ticket: Ticket { core: 0, number: self.offered }, index: 0 };
        self.taken.insert(self.offered, (node, self.nodes[node].boot));
        if let Err((_, refusal)) = self.nodes[node].publisher.offer(record(self.offered), to, self.now) {
            self.told.entry(self.offered).or_default().push(Err(refusal));
        }
    }

    fn tell(&mut self, told: Told) {
        for (to, result) in told.outcomes {
            let AckTo::Submission { ticket, .. } = to else { panic!("never offered: {to:?}") };
            self.told.entry(ticket.number).or_default().push(result);
        }
    }

    fn expire(&mut self, node: usize) {
        let mut told = Told::default();
        self.nodes[node].publisher.expire(self.now, &mut told);
        self.tell(told);
    }

    /// Asks the publisher for its next step.
    fn publish(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let request = match it.publisher.step(self.now) {
            Step::Open(open) => Request::Open(open),
            Step::Append(append) => Request::Append(append),
            Step::Wait(_) => return,
        };
        assert!(it.call.is_none(), "one call at a time");
        it.call = Some(Call { request, reply: None });
    }

    /// Moves the node's call a step on: to the queue, or its answer back; or it is lost on the way.
    fn carry(&mut self, node: usize) {
        let Some(call) = self.nodes[node].call.take() else { return };
        if let Some(reply) = call.reply {
            return self.answer(node, reply);
        }
        let bad = if self.healed { 100 } else { self.rng.u32(0..12) };
        match bad {
            _ if !self.up => self.answer(node, Reply::Failed(BrokerError::NotDone("away".to_owned()))),
            0 => self.answer(node, Reply::Failed(BrokerError::NotDone("refused".to_owned()))),
            1 => self.answer(node, Reply::Failed(BrokerError::Unknown("lost on the way".to_owned()))),
            2 => {
                self.stale.push(call.request);
                self.answer(node, Reply::Failed(BrokerError::Unknown("late".to_owned())));
            }
            3 => {
                self.execute(&call.request);
                self.answer(node, Reply::Failed(BrokerError::Unknown("the answer was lost".to_owned())));
            }
            _ => {
                let reply = self.execute(&call.request);
                self.nodes[node].call = Some(Call { request: call.request, reply: Some(reply) });
            }
        }
    }

    fn answer(&mut self, node: usize, reply: Reply) {
        let (mut told, publisher) = (Told::default(), &mut self.nodes[node].publisher);
        match reply {
            Reply::Opened(opened) => publisher.opened(&opened, self.now, &mut told),
            Reply::Appended(appended) => publisher.appended(appended, self.now, &mut told),
            Reply::Failed(error) => publisher.failed(&error, self.now),
        }
        self.tell(told);
    }

    fn execute(&mut self, request: &Request) -> Reply {
        let append = match request {
            Request::Open(open) => return Reply::Opened(self.log.open(self.run, open, self.now)),
            Request::Append(append) => append,
        };
        let appended = self.log.append(self.run, append, false, self.now);
        if let Appended::Stored { position, kind } = appended {
            self.note_order(append, kind);
            self.broadcast(position);
        }
        Reply::Appended(appended)
    }

    /// Notes which records cannot be expected in the same order everywhere.
    fn note_order(&mut self, append: &Append, kind: Kind) {
        let origin = append.batch.origin;
        for seq in append.batch.first_seq..=append.batch.last_seq() {
            let id = RecordId { origin, seq };
            let before = self.stored.insert(id, append.epoch);
            let is_late = kind == Kind::ReplayedLate || before.is_some_and(|epoch| epoch < self.sealed);
            if is_late || (kind == Kind::New && before.is_some()) {
                self.unordered.insert(id);
            }
        }
        if kind == Kind::New {
            self.sealed = append.epoch;
        }
    }

    /// The live channel: loses, repeats, reorders.
    fn broadcast(&mut self, position: Position) {
        let Some(entry) = self.log.entries().find(|entry| entry.position == position).cloned() else { return };
        for node in 0..self.nodes.len() {
            if !self.healed && self.chance(5) {
                continue;
            }
            let copies = if self.chance(10) { 2 } else { 1 };
            for _ in 0..copies {
                let live = &mut self.nodes[node].live;
                let at = if self.rng.u32(0..5) == 0 { self.rng.usize(..=live.len()) } else { live.len() };
                live.insert(at, entry.clone());
            }
        }
    }

    fn hear_live(&mut self, node: usize) {
        if !matches!(self.nodes[node].start, Start::Done) {
            return;
        }
        let mut harvest = Harvest::default();
        let it = &mut self.nodes[node];
        let Some(entry) = it.live.pop_front() else { return };
        let verdict = it.receiver.live(entry, &mut harvest);
        it.hand_on(harvest);
        match verdict {
            Verdict::Behind => self.read(node),
            Verdict::Forked => it.publisher.forked(),
            Verdict::Taken | Verdict::Old => {}
        }
    }

    /// One page from the cursor; for a node that starts, the next step of its start.
    fn read(&mut self, node: usize) {
        if !self.up {
            return;
        }
        let entries_max = self.rng.usize(1..8);
        let it = &mut self.nodes[node];
        if matches!(it.start, Start::Cold) {
            let open = it.receiver.open_again(&Opened::default());
            it.start = Start::Opened(self.log.open(self.run, &open, self.now));
            return;
        }
        let entries = self.log.read(it.receiver.cursor(), entries_max);
        let is_end = entries.is_empty();
        let mut harvest = Harvest::default();
        it.receiver.page(entries, &mut harvest);
        it.hand_on(harvest);
        if let Start::Opened(opened) = &it.start
            && is_end
        {
            // As the task does: a log that has become another meanwhile is read again.
            let again = self.log.open(self.run, &it.receiver.open_again(opened), self.now);
            if opened.is_continued_by(&again) {
                let mut harvest = Harvest::default();
                it.receiver.warmed(opened, &again, &mut harvest);
                it.publisher.saw(it.receiver.cursor());
                it.start = Start::Done;
                it.hand_on(harvest);
            } else {
                it.start = Start::Opened(again);
            }
        }
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        (self.healed, self.up) = (true, true);
        let now = self.now;
        self.nodes.iter_mut().for_each(|node| node.stalled_until = now);
    }

    pub(super) fn tail(&self) -> Position {
        self.log.entries().last().map_or(Position::default(), |entry| entry.position)
    }
}
