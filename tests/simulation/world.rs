//! A cluster in one thread and in virtual time: the queue, nodes, clients, publishers, and what happens to them.
//!
//! Method: every step lets one thing happen, lets time pass, and gives some of the nodes, cores and clients a turn,
//! all drawn from the seed. At the end everything is healed and must come to rest.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use ws_cluster::{
    limits::Limits,
    metrics::Count,
    model::{Boot, FromCore, Publication, Record, RecordId, Refusal, Reply, TagRule, Ticket},
    protocol::frame::close_code,
};

use super::{
    Profile,
    chain::Chain,
    client::{Client, Place, Said},
    model::{self, TAGS},
    node::{Birth, Node, State},
    plant::{Fault, strikes},
    queue::{Link, Queue},
    trace::{Trace, count},
};

/// Steps in which things happen.
const STEPS: usize = 150;
/// Nodes that live at once.
const NODES_MAX: usize = 4;
/// Steps in which everything must come to rest.
const STEPS_TO_REST: usize = 3_000;

/// Why a run is wrong.
pub type Wrong = String;

/// See the module.
pub struct World {
    rng: Rng,
    profile: Profile,
    queue: Arc<Queue>,
    nodes: Vec<Option<Node>>,
    clients: Vec<Client>,
    limits: Arc<Limits>,
    rules: Vec<TagRule>,
    /// The order of the queue, while it is certain.
    truth: Vec<Chain>,
    /// What waits for an answer, and what was told.
    published: u64,
    waiting: HashMap<u64, usize>,
    /// The tags of what was published, and the ids under which it was stored.
    tags: BTreeMap<u64, usize>,
    stored: BTreeMap<u64, RecordId>,
    told: HashMap<u64, Result<RecordId, Refusal>>,
    /// Of each tag the last publication of all.
    last: Vec<(usize, RecordId)>,
    boots: u32,
    healed: bool,
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
            tags: BTreeMap::new(),
            stored: BTreeMap::new(),
            told: HashMap::new(),
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

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(..one_in) == 0
    }

    fn any<T>(&mut self, list: &[T]) -> Option<T>
    where
        T: Copy,
    {
        (!list.is_empty()).then(|| list[self.rng.usize(..list.len())])
    }

    fn living(&self, serves: bool) -> Vec<usize> {
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
    fn turns(&mut self) -> Result<(), Wrong> {
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
    fn drop_connection(&mut self, number: usize) {
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

/// What may happen.
impl World {
    fn publish(&mut self) {
        let nodes = self.living(false);
        let Some(node) = self.any(&nodes) else { return };
        let tag = self.rng.usize(..TAGS);
        let count = if self.chance(16) { self.rng.usize(8..30) } else { self.rng.usize(1..4) };
        for _ in 0..count {
            let repeats = self.rules[tag].dedup;
            self.publish_one(node, tag, repeats);
        }
    }

    fn publish_one(&mut self, index: usize, tag: usize, repeats: bool) {
        let number = self.published;
        self.published += 1;
        let keep = self.chance(6);
        let bytes = match self.rng.u8(..10) {
            0 => self.rng.usize(100..1400),
            1..3 => self.rng.usize(20..100),
            _ => 0,
        };
        let payload = match repeats {
            true => self.rng.u8(..3).to_string(),
            false => format!(r#"["{:>bytes$}",{number}]"#, ""),
        };
        let publication = Publication {
            pid: model::pid(),
            tag: model::tag(tag),
            keep,
            affair_id: Some(number.to_string().into()),
            idempotency_key: None,
            payload: Bytes::from(payload),
        };
        let Some(node) = &mut self.nodes[index] else { return };
        let core = self.rng.usize(..node.cores.len());
        let ticket = Ticket { core: node.cores[core].number, number };
        let records = vec![Record::Publication(publication)];
        node.cores[core].to_exchange.push(FromCore::Submit { ticket, records });
        self.waiting.insert(number, index);
        self.tags.insert(number, tag);
    }

    fn connect(&mut self) {
        let away: Vec<usize> =
            self.clients.iter().filter(|client| client.place.is_none()).map(|it| it.number).collect();
        if let Some(client) = self.any(&away) {
            self.connect_client(client);
        }
    }

    /// Connects a client to some node, and subscribes to what it wants.
    fn connect_client(&mut self, number: usize) {
        let nodes = self.living(true);
        let Some(index) = self.any(&nodes) else { return };
        let Some(node) = &mut self.nodes[index] else { return };
        let core = self.rng.usize(..node.cores.len());
        let client = &mut self.clients[number];
        let capacity = if client.healthy { usize::MAX } else { self.rng.usize(150..2500) };
        let place = Place { node: index, core, session: node.cores[core].open(number, capacity) };
        client.connect(place);
        self.trace.tell(number, 1, || format!("connects to node {index} core {core}"));
        for tag in 0..TAGS {
            if !self.profile.is_certain() {
                self.clients[number].tags[tag].forget_seen();
            }
            let anew = !self.healed && self.chance(8);
            if self.clients[number].tags[tag].wanted {
                self.ask(number, tag, anew);
            }
        }
    }

    fn subscribe(&mut self) {
        let connected: Vec<usize> =
            self.clients.iter().filter(|client| client.place.is_some()).map(|client| client.number).collect();
        let Some(client) = self.any(&connected) else { return };
        let tag = self.rng.usize(..TAGS);
        let held = &self.clients[client].tags[tag];
        if !held.ending && !held.wanted {
            self.ask(client, tag, true);
        }
    }

    fn ask(&mut self, number: usize, tag: usize, anew: bool) {
        let client = &mut self.clients[number];
        let Some(Place { node, core, session }) = client.place else { return };
        let Some(node) = &mut self.nodes[node] else { return };
        client.tags[tag].begin(anew);
        let since = client.tags[tag].last.map(|last| last.to_string().into());
        let hz_max = if client.healthy { None } else { model::hz(&mut self.rng, 4) };
        self.trace.tell(number, 2, || format!("subscribes to {tag} since {since:?} at {hz_max:?}"));
        let asked = node.cores[core].subscribe(session, tag, since, hz_max);
        assert_eq!(asked, Ok(()), "client {number} subscribes to {tag}");
    }

    fn unsubscribe(&mut self) {
        let number = self.rng.usize(..self.clients.len());
        let tag = self.rng.usize(..TAGS);
        let client = &mut self.clients[number];
        let held = &mut client.tags[tag];
        let Some(Place { node, core, session }) = client.place else { return };
        let Some(node) = &mut self.nodes[node] else { return };
        let Some(conn) = node.cores[core].conns.get(&session) else { return };
        if !held.wanted || held.ending || conn.expected[tag].is_asked() {
            return;
        }
        held.ending = true;
        self.trace.tell(number, 3, || format!("unsubscribes from {tag}"));
        node.cores[core].unsubscribe(session, tag, &tag.to_string());
    }

    fn stall(&mut self) {
        let number = self.rng.usize(1..self.clients.len());
        let client = &mut self.clients[number];
        client.stalled = !client.stalled && client.place.is_some();
        let stalled = client.stalled;
        self.trace.tell(number, 4, || format!("stalled: {stalled}"));
    }

    fn cut_client(&mut self) {
        let number = self.rng.usize(1..self.clients.len());
        count("a client is cut");
        self.trace.tell(number, 5, || "is cut".to_owned());
        self.drop_connection(number);
    }

    fn reload(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        let Some(node) = &mut self.nodes[index] else { return };
        let mut rules = node.rules.clone();
        model::change(&mut rules, &mut self.rng);
        self.trace.tell(100 + index, 6, || "reloads".to_owned());
        node.reload(rules);
    }

    /// What is away comes back sooner or later.
    fn recover(&mut self) {
        if self.chance(12) {
            self.queue.memory.set_away(false);
        }
        for index in self.living(false) {
            if self.chance(30)
                && let Some(node) = &self.nodes[index]
                && node.link.is_cut()
            {
                node.link.set_cut(false);
                self.trace.tell(100 + index, 14, || "is back".to_owned());
            }
        }
    }

    fn cut_node(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        self.trace.tell(100 + index, 7, || "is cut off".to_owned());
        if let Some(node) = &self.nodes[index] {
            node.link.set_cut(true);
        }
    }

    fn fail_queue(&mut self) {
        let what = self.rng.u8(..6);
        self.trace.tell(200, 8, || format!("fails: {what}"));
        let starting = self.nodes.iter_mut().flatten().filter(|node| node.state == State::Starting);
        starting.for_each(|node| node.starts_in_trouble = true);
        match what {
            0 => self.queue.memory.set_away(true),
            2 if self.profile.queue_forgets => self.queue.memory.restart(false),
            3 if self.profile.queue_forgets => {
                self.queue.memory.lose_tail(self.rng.u64(1..5));
                self.queue.memory.restart(true);
            }
            4 if self.profile.queue_falls_back => self.queue.memory.lose_tail(self.rng.u64(1..5)),
            _ => self.queue.memory.restart(true),
        }
    }

    fn pause_node(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        let until = model::now() + Duration::from_millis(self.rng.u64(1..3000));
        self.trace.tell(100 + index, 9, || "pauses".to_owned());
        if let Some(node) = &mut self.nodes[index] {
            node.paused_until = until;
        }
    }

    fn join_node(&mut self) {
        if self.living(false).len() >= NODES_MAX {
            return;
        }
        self.boots += 1;
        let birth = Birth {
            number: 100 + u16::try_from(self.boots).expect("few boots"),
            boot: Boot(self.boots),
            seed: self.rng.u64(..),
            cores: self.rng.u8(1..4),
            limits: self.limits.clone(),
            rules: self.rules.clone(),
        };
        let index = self.nodes.len();
        self.trace.tell(100 + index, 10, || format!("joins with {} cores", birth.cores));
        let link = Link::new(self.queue.clone(), self.rng.bool());
        self.nodes.push(Some(Node::start(birth, link)));
    }

    fn kill_node(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes).filter(|_| nodes.len() > 1) else { return };
        count("a node dies");
        self.trace.tell(100 + index, 11, || "dies".to_owned());
        self.nodes[index] = None;
        self.waiting.retain(|_, node| *node != index);
        for client in &mut self.clients {
            if client.place.is_some_and(|place| place.node == index) {
                client.disconnect();
            }
        }
    }
}

/// The end of a run.
impl World {
    /// From now on nothing goes wrong any more, and every tag gets a last value.
    fn heal(&mut self) {
        self.trace.tell(200, 12, || "all is healed".to_owned());
        self.healed = true;
        self.queue.heal();
        for node in self.nodes.iter_mut().flatten() {
            node.link.set_cut(false);
            node.paused_until = Duration::ZERO;
        }
        self.clients.iter_mut().for_each(|client| client.stalled = false);
    }

    /// Lets all come to rest, then publishes a last value of each tag and lets that come everywhere.
    async fn come_to_rest(&mut self) -> Result<(), Wrong> {
        self.until("rest", |world| world.is_quiet()).await?;
        self.publish_last().await?;
        self.until("last values", |world| world.is_quiet() && world.have_come()).await?;
        // What was late is still on its way.
        self.linger().await?;
        self.until("rest", |world| world.is_quiet()).await
    }

    async fn linger(&mut self) -> Result<(), Wrong> {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(800)).await;
            self.turns()?;
        }
        Ok(())
    }

    /// Publishes a last value of each tag. A node that was cut off may think for a while that the queue is away.
    async fn publish_last(&mut self) -> Result<(), Wrong> {
        let node = self.living(true)[0];
        let mut missing: Vec<usize> = (0..TAGS).collect();
        for _ in 0..30 {
            let first = self.published;
            missing.iter().for_each(|tag| self.publish_one(node, *tag, false));
            self.until("answers", |world| world.waiting.is_empty()).await?;
            let told = |number| self.told.get(&number).copied().and_then(Result::ok);
            let ids: Vec<_> = (first..).map(told).zip(&missing).map(|(id, tag)| (*tag, id)).collect();
            self.last.extend(ids.iter().filter_map(|(tag, id)| Some((*tag, (*id)?))));
            missing = ids.into_iter().filter(|(_, id)| id.is_none()).map(|(tag, _)| tag).collect();
            if missing.is_empty() {
                return Ok(());
            }
            self.linger().await?;
        }
        Err("the queue takes nothing".to_owned())
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), Wrong> {
        for step in 0..STEPS_TO_REST {
            tokio::time::sleep(Duration::from_millis(if step < 40 { 5 } else { 50 })).await;
            self.turns()?;
            for number in 0..self.clients.len() {
                if self.clients[number].place.is_none() {
                    self.connect_client(number);
                }
            }
            if is_so(self) {
                return Ok(());
            }
        }
        let node = |(index, node): (usize, &Option<Node>)| {
            node.as_ref().map(|node| format!("node {index} {:?} {}", node.state, node.is_quiet()))
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().filter_map(node).collect();
        let unread = self.clients.iter().filter(|client| !self.has_read(client));
        let unread: Vec<String> = unread.map(|client| self.unread(client)).collect();
        let waiting = self.waiting.len();
        Err(format!("no {what}: {nodes:?}, not read: {unread:?}, {waiting} wait to be told"))
    }

    /// Whether every node has the last value of each tag.
    fn have_come(&self) -> bool {
        let mut nodes = self.nodes.iter().flatten();
        nodes.all(|node| self.last.iter().all(|(tag, id)| node.chains[*tag].find(*id).is_some()))
    }

    fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.nodes.iter().flatten().all(|node| node.is_quiet() && node.state == State::Serves)
            && self.clients.iter().all(|client| self.has_read(client))
    }

    /// What the client has not read.
    fn unread(&self, client: &Client) -> String {
        let conn = |place: Place| Some((self.nodes[place.node].as_ref()?, place));
        let Some((node, Place { core, session, .. })) = client.place.and_then(conn) else {
            return format!("client {} is away", client.number);
        };
        let Some(conn) = node.cores[core].conns.get(&session) else { return "its connection is gone".to_owned() };
        let waits = node.cores[core].hub.waiting(session);
        let unread: Vec<_> = conn.expected.iter().enumerate().filter(|(_, expected)| !expected.is_read()).collect();
        format!("client {} at {core}: {} bytes, {waits} wait, {unread:?}", client.number, conn.kernel.len())
    }

    /// Whether the client has read all that was to come.
    fn has_read(&self, client: &Client) -> bool {
        let conn =
            client.place.and_then(|place| self.nodes[place.node].as_ref()?.cores[place.core].conns.get(&place.session));
        conn.is_some_and(|conn| conn.kernel.is_empty() && conn.expected.iter().all(|expected| expected.is_read()))
    }

    fn check_nodes(&self) -> Result<(), Wrong> {
        self.check_refused()?;
        let nodes = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.as_ref()?)));
        for (index, node) in nodes {
            self.check_node(node).map_err(|error| format!("node {index}: {error}"))?;
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), Wrong> {
        self.clients.iter().try_for_each(|client| self.check_client(client))
    }

    fn check_node(&self, node: &Node) -> Result<(), Wrong> {
        (0..node.losses).for_each(|_| count("a loss is told"));
        for core in &node.cores {
            if core.outbox_bytes() != 0 || !core.hub.is_empty() {
                return Err(format!("{} bytes wait when everybody is gone", core.outbox_bytes()));
            }
        }
        if self.profile.is_certain() {
            for (number, (chain, truth)) in node.chains.iter().zip(&self.truth).enumerate() {
                if chain.links != truth.links {
                    return Err(format!(
                        "of tag {number} it has heard {} and not {}",
                        chain.links.len(),
                        truth.links.len()
                    ));
                }
            }
        }
        if self.profile.loses_nothing() {
            // What a node has read of a log that is gone before it serves anybody it may take for lost.
            if node.losses > 0 && !node.starts_in_trouble {
                return Err("a loss is told and nothing was lost".to_owned());
            }
            return self.check_acknowledged(node);
        }
        Ok(())
    }

    /// The node has heard everything that was acknowledged.
    fn check_acknowledged(&self, node: &Node) -> Result<(), Wrong> {
        let heard: HashSet<RecordId> =
            node.chains.iter().flat_map(|chain| chain.links.iter().map(|link| link.id)).collect();
        let acknowledged = |number: &u64| self.told.get(number).copied().and_then(Result::ok);
        let missing = |(number, tag): (&u64, &usize)| {
            let id = acknowledged(number)?;
            (!self.rules[*tag].dedup && !heard.contains(&id)).then_some((*number, id))
        };
        match self.tags.iter().find_map(missing) {
            Some((number, id)) => Err(format!("{number} was acknowledged as {id} and not heard")),
            None => Ok(()),
        }
    }

    /// Nothing is heard that was surely refused.
    fn check_refused(&self) -> Result<(), Wrong> {
        for outcome in self.told.values() {
            count(match outcome {
                Ok(_) => "a push is acknowledged",
                Err(Refusal::Unknown) => "the outcome of a push is unknown",
                Err(_) => "a push is refused",
            });
        }
        for (number, id) in &self.stored {
            match self.told.get(number) {
                Some(Err(refusal)) if *refusal != Refusal::Unknown => {
                    return Err(format!("{number} was refused with {refusal:?} and stored as {id}"));
                }
                Some(Ok(told)) if told != id => return Err(format!("{number} is stored as {id} and told as {told}")),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_client(&self, client: &Client) -> Result<(), Wrong> {
        let Some(place) = client.place else { return Err(format!("client {} is away", client.number)) };
        let Some(node) = &self.nodes[place.node] else { return Err("its node is dead".to_owned()) };
        for (number, held) in client.tags.iter().enumerate().filter(|(_, held)| held.wanted) {
            let last = node.chains[number].links.last().map(|link| link.id);
            if held.last != last {
                return Err(format!("client {} ends tag {number} at {:?} and not {last:?}", client.number, held.last));
            }
        }
        Ok(())
    }
}
