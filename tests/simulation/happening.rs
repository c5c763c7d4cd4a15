//! What may happen to a cluster: publications, clients that come, stall and go, reloads, and faults.

use std::time::Duration;

use bytes::Bytes;
use ws_cluster::model::{Boot, FromCore, Publication, Record, RecordId, Stamp, Ticket};

use super::{
    client::Place,
    model::{self, TAGS},
    node::{Birth, Node, State},
    queue::Link,
    trace::count,
    world::World,
};

const ASKS_AGAIN: bool = false;
/// Nodes that live at once.
const NODES_MAX: usize = 4;

impl World {
    pub(super) fn publish(&mut self) {
        let nodes = self.living(false);
        let Some(node) = self.any(&nodes) else { return };
        let tag = self.rng.usize(..TAGS);
        let count = if self.chance(16) { self.rng.usize(8..30) } else { self.rng.usize(1..4) };
        for _ in 0..count {
            let repeats = self.rules[tag].dedup;
            self.publish_one(node, tag, repeats);
        }
    }

    pub(super) fn publish_one(&mut self, index: usize, tag: usize, repeats: bool) {
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
            stamp: Stamp::default(),
        };
        let Some(node) = &mut self.nodes[index] else { return };
        let core = self.rng.usize(..node.cores.len());
        let ticket = Ticket { core: node.cores[core].number, number };
        let records = vec![Record::Publication(publication)];
        node.cores[core].to_exchange.push(FromCore::Submit { ticket, records });
        self.waiting.insert(number, index);
    }

    pub(super) fn connect(&mut self) {
        let away: Vec<usize> =
            self.clients.iter().filter(|client| client.place.is_none()).map(|it| it.number).collect();
        if let Some(client) = self.any(&away) {
            self.connect_client(client);
        }
    }

    /// Connects a client to some node, and subscribes to what it wants.
    pub(super) fn connect_client(&mut self, number: usize) {
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

    pub(super) fn subscribe(&mut self) {
        let connected: Vec<usize> =
            self.clients.iter().filter(|client| client.place.is_some()).map(|client| client.number).collect();
        let Some(client) = self.any(&connected) else { return };
        let tag = self.rng.usize(..TAGS);
        let held = &self.clients[client].tags[tag];
        let (wanted, ending) = (held.wanted, held.ending);
        if !ending && !wanted {
            self.ask(client, tag, true);
        } else if !ending && ASKS_AGAIN && self.chance(4) {
            // Who follows already and asks again gets the value, or what it says that it missed, once more.
            let since = self.clients[client].tags[tag].ask_again().filter(|_| self.rng.bool());
            self.ask_since(client, tag, since);
        }
    }

    pub(super) fn ask(&mut self, number: usize, tag: usize, anew: bool) {
        self.clients[number].tags[tag].begin(anew);
        let since = self.clients[number].tags[tag].last;
        self.ask_since(number, tag, since);
    }

    fn ask_since(&mut self, number: usize, tag: usize, since: Option<RecordId>) {
        let client = &mut self.clients[number];
        let Some(Place { node, core, session }) = client.place else { return };
        let Some(node) = &mut self.nodes[node] else { return };
        let since = since.map(|since| since.to_string().into());
        let hz_max = if client.healthy { None } else { model::hz(&mut self.rng, 4) };
        self.trace.tell(number, 2, || format!("subscribes to {tag} since {since:?} at {hz_max:?}"));
        let asked = node.cores[core].subscribe(session, tag, since, hz_max);
        assert_eq!(asked, Ok(()), "client {number} subscribes to {tag}");
    }

    pub(super) fn unsubscribe(&mut self) {
        let number = self.rng.usize(..self.clients.len());
        let tag = self.rng.usize(..TAGS);
        let client = &mut self.clients[number];
        let held = &mut client.tags[tag];
        let Some(Place { node, core, session }) = client.place else { return };
        let Some(node) = &mut self.nodes[node] else { return };
        if !held.wanted || held.ending || !node.cores[core].conns.contains_key(&session) {
            return;
        }
        held.ending = true;
        self.trace.tell(number, 3, || format!("unsubscribes from {tag}"));
        node.cores[core].unsubscribe(session, tag, &tag.to_string());
    }

    pub(super) fn stall(&mut self) {
        let number = self.rng.usize(1..self.clients.len());
        let client = &mut self.clients[number];
        client.stalled = !client.stalled && client.place.is_some();
        let stalled = client.stalled;
        self.trace.tell(number, 4, || format!("stalled: {stalled}"));
    }

    pub(super) fn cut_client(&mut self) {
        let number = self.rng.usize(1..self.clients.len());
        count("a client is cut");
        self.trace.tell(number, 5, || "is cut".to_owned());
        self.drop_connection(number);
    }

    pub(super) fn reload(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        let Some(node) = &mut self.nodes[index] else { return };
        let mut rules = node.rules.clone();
        model::change(&mut rules, &mut self.rng);
        self.trace.tell(100 + index, 6, || "reloads".to_owned());
        node.reload(rules);
    }

    /// What is away comes back sooner or later.
    pub(super) fn recover(&mut self) {
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

    pub(super) fn cut_node(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        self.trace.tell(100 + index, 7, || "is cut off".to_owned());
        if let Some(node) = &self.nodes[index] {
            node.link.set_cut(true);
        }
    }

    pub(super) fn fail_queue(&mut self) {
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
            4 | 5 if self.profile.queue_falls_back => self.queue.memory.lose_tail(self.rng.u64(1..9)),
            _ => self.queue.memory.restart(true),
        }
    }

    pub(super) fn pause_node(&mut self) {
        let nodes = self.living(false);
        let Some(index) = self.any(&nodes) else { return };
        let until = model::now() + Duration::from_millis(self.rng.u64(1..3000));
        self.trace.tell(100 + index, 9, || "pauses".to_owned());
        if let Some(node) = &mut self.nodes[index] {
            node.paused_until = until;
        }
    }

    pub(super) fn join_node(&mut self) {
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

    pub(super) fn kill_node(&mut self) {
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
