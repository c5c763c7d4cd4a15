//! A cluster in one thread and in virtual time: the queue, nodes, clients, publishers, and what happens to them.
//!
//! Method: every step lets one thing happen, lets time pass, and gives some of the nodes, cores and clients a turn,
//! all drawn from the seed. At the end everything is healed and must come to rest.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use ws_cluster::{
    limits::Limits,
    metrics::Count,
    model::{RecordId, Refusal, Reply, TagRule},
    protocol::frame::close_code,
};

use super::{
    Profile,
    chain::Chain,
    client::{Client, Place, Said},
    model::{self, TAGS},
    node::{Node, State},
    plant::{Fault, strikes},
    queue::Queue,
    trace::{Trace, count},
};

/// Steps in which things happen.
const STEPS: usize = 150;

/// Why a run is wrong.
pub type Wrong = String;

/// See the module.
pub struct World {
    pub(super) rng: Rng,
    pub(super) profile: Profile,
    pub(super) queue: Arc<Queue>,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) clients: Vec<Client>,
    pub(super) limits: Arc<Limits>,
    pub(super) rules: Vec<TagRule>,
    /// The order of the queue, while it is certain.
    pub(super) truth: Vec<Chain>,
    /// What waits for an answer, and what was told.
    pub(super) published: u64,
    pub(super) waiting: HashMap<u64, usize>,
    pub(super) stored: BTreeMap<u64, RecordId>,
    pub(super) told: BTreeMap<u64, Result<RecordId, Refusal>>,
    /// Of each tag the last publication of all.
    pub(super) last: Vec<(usize, RecordId)>,
    pub(super) boots: u32,
    pub(super) healed: bool,
    pub trace: Trace,
}

impl World {
    pub fn new(seed: u64, profile: Profile, keeps_lines: bool) -> Self {
        model::start_clock();
        let mut rng = Rng::with_seed(seed);
        let queue = Queue::new(rng.fork(), rng.u32(6..60));
        let rules = model::rules(&mut rng);
        let limits = model::limits(&mut rng);
        let clients = (0..rng.usize(4..9)).map(|number| Client::new(number, number == 0, &mut rng)).collect();
        let mut world = Self {
            rng,
            profile,
            queue,
            nodes: Vec::new(),
            clients,
            limits,
            rules,
            truth: (0..TAGS).map(|_| Chain::default()).collect(),
            published: 0,
            waiting: HashMap::new(),
            stored: BTreeMap::new(),
            told: BTreeMap::new(),
            last: Vec::new(),
            boots: 0,
            healed: false,
            trace: Trace::new(keeps_lines),
        };
        for _ in 0..world.rng.usize(2..4) {
            world.join_node();
        }
        world
    }

    /// Runs to the end.
    pub async fn run(&mut self) -> Result<(), Wrong> {
        self.until("start", |world| world.nodes.iter().flatten().all(|node| node.state == State::Serves)).await?;
        for _ in 0..self.clients.len() * 3 {
            self.subscribe();
        }
        for _ in 0..STEPS {
            self.happen();
            self.pass().await;
            self.turns()?;
        }
        self.heal();
        self.come_to_rest().await?;
        self.check_clients()?;
        (0..self.clients.len()).for_each(|number| self.drop_connection(number));
        self.turns()?;
        self.check_nodes()
    }

    pub(super) fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(..one_in) == 0
    }

    pub(super) fn any<T>(&mut self, list: &[T]) -> Option<T>
    where
        T: Copy,
    {
        (!list.is_empty()).then(|| list[self.rng.usize(..list.len())])
    }

    pub(super) fn living(&self, serves: bool) -> Vec<usize> {
        let is_wanted = |node: &Node| !serves || node.state == State::Serves;
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.as_ref().is_some_and(is_wanted)).map(|(index, _)| index).collect()
    }

    /// Lets one thing happen.
    fn happen(&mut self) {
        self.recover();
        match self.rng.u8(..100) {
            0..46 => self.publish(),
            46..56 => self.connect(),
            56..66 => self.subscribe(),
            66..69 => self.unsubscribe(),
            69..76 => self.stall(),
            76..79 => self.cut_client(),
            79..82 => self.reload(),
            82..84 => self.cut_node(),
            84..87 => self.fail_queue(),
            87..89 => self.pause_node(),
            89 => self.join_node(),
            90 if self.profile.nodes_die => self.kill_node(),
            _ => {}
        }
    }

    /// Lets time pass: mostly little.
    async fn pass(&mut self) {
        let time = match self.rng.u8(..100) {
            0..55 => 0,
            55..88 => self.rng.u64(1..6),
            88..97 => self.rng.u64(6..120),
            _ => self.rng.u64(120..2500),
        };
        if time == 0 {
            tokio::task::yield_now().await;
            return tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    /// Gives some of all a turn.
    pub(super) fn turns(&mut self) -> Result<(), Wrong> {
        self.learn_truth();
        for index in 0..self.nodes.len() {
            let Some(node) = &mut self.nodes[index] else { continue };
            let rng = &mut self.rng;
            let eager = self.healed || rng.u8(..4) > 0;
            if eager {
                node.turn(if rng.u8(..4) > 0 { 256 } else { rng.usize(1..6) })?;
            }
            for core in &mut node.cores {
                core.set_now(model::now());
                if self.healed || rng.u8(..4) > 0 {
                    core.hear(rng.usize(1..40))?;
                    core.walk(rng.usize(1..10));
                }
                if self.healed || rng.u8(..3) == 0 {
                    core.reload();
                    core.keep_time();
                }
                core.drain();
                core.check_stalled()?;
                let notices = self.healed || rng.u8(..4) == 0;
                core.look_after(|| notices);
                for (ticket, reply) in core.replies.drain(..) {
                    let Reply::Submitted(outcomes) = reply else { return Err(format!("{reply:?} to a push")) };
                    let outcome = spoilt(outcomes[0]);
                    self.told.insert(ticket.number, outcome);
                    self.trace.tell(100 + index, 13, || format!("told of {}: {outcome:?}", ticket.number));
                    if self.waiting.remove(&ticket.number).is_none() {
                        return Err(format!("the publisher of {} is told twice", ticket.number));
                    }
                }
            }
        }
        (0..self.clients.len()).try_for_each(|client| self.read(client))
    }

    fn learn_truth(&mut self) {
        for (id, publication) in self.queue.take_stored() {
            let published = publication.affair_id.as_deref().and_then(|affair| affair.parse().ok());
            self.stored.extend(published.map(|published: u64| (published, id)));
            let number = model::number(&publication.tag);
            self.truth[number].publish(id, &publication, self.rules[number].dedup);
        }
    }

    fn read(&mut self, number: usize) -> Result<(), Wrong> {
        let client = &mut self.clients[number];
        if client.stalled {
            return Ok(());
        }
        let Some(Place { node, core, session }) = client.place else { return Ok(()) };
        let core = self.nodes[node].as_mut().map(|node| &mut node.cores[core]).ok_or("a client of a dead node")?;
        let Some(conn) = core.conns.get_mut(&session) else {
            client.disconnect();
            return Ok(());
        };
        let truth = self.profile.is_certain().then_some(&*self.truth);
        let trace = &mut self.trace;
        let said = client
            .read(conn, truth, |text| trace.note(number, text))
            .map_err(|error| format!("client {number} on node {node}: {error}"))?;
        let mut closed = None;
        for said in said {
            match said {
                Said::Pong => core.pong(session),
                Said::Closed(code) => closed = Some(code),
            }
        }
        closed.map_or(Ok(()), |code| self.closed(number, code))
    }

    fn closed(&mut self, number: usize, code: u16) -> Result<(), Wrong> {
        let client = &self.clients[number];
        // Where outboxes are over their bound together, or kept publications over theirs, nobody is safe.
        let writing = &self.limits.writing;
        let is_safe = writing.outboxes_bytes_max == usize::MAX && writing.kept_bytes_max >= 256 << 10;
        if client.healthy && is_safe {
            return Err(format!("a healthy client is closed with {code}"));
        }
        let Some(Place { node, core, session }) = client.place else { return Ok(()) };
        let core = self.nodes[node].as_ref().map(|node| &node.cores[core]).ok_or("a client of a dead node")?;
        let was_lossless = core.conns.get(&session).is_none_or(|conn| conn.was_lossless);
        let has_lost_kept = core.counters.get(Count::KeptLost) > 0;
        let is_crowded = writing.outboxes_bytes_max < usize::MAX;
        count(match code {
            close_code::SLOW if was_lossless => "a slow client is closed",
            close_code::SLOW if has_lost_kept || is_crowded => "a slow client of latest tags is closed",
            close_code::NO_HEARTBEAT => "a silent client is closed",
            _ => return Err(format!("client {number} is closed with {code}")),
        });
        self.drop_connection(number);
        Ok(())
    }

    /// The client's end goes away; the node notices later.
    pub(super) fn drop_connection(&mut self, number: usize) {
        if let Some(Place { node, core, session }) = self.clients[number].place
            && let Some(node) = &mut self.nodes[node]
            && let Some(conn) = node.cores[core].conns.get_mut(&session)
        {
            conn.gone = true;
        }
        self.clients[number].disconnect();
    }
}

/// What a publisher is told, if nothing is planted.
fn spoilt(outcome: Result<RecordId, Refusal>) -> Result<RecordId, Refusal> {
    match outcome {
        Ok(_) if strikes(Fault::StoredAndRefused) => Err(Refusal::QueueFull),
        Err(_) if strikes(Fault::RefusedAndTold) => Ok(RecordId { origin: 1, seq: 1 }),
        outcome => outcome,
    }
}
