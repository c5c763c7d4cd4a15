//! A crowd: thousands of connections of one process, held by one thread, opened on a timetable, every text of theirs checked.
//!
//! Invariants: one buffer for all that read; a text is checked in the turn in which it came; nobody waits for one connection.

mod conn;
pub mod dialect;
pub mod measure;
pub mod payload;
pub mod poller;
mod state;
mod tally;
pub mod worker;

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use self::state::{GroupState, State};
use self::{
    conn::{Conn, KEY, Stage},
    dialect::Who,
    poller::{NAME_MAX, Poller, Ready},
    state::Facts,
};
use crate::{clock::monotonic_us, wire::Ending};

/// Bytes received at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Most connections that are begun in one turn: what is due meanwhile would be late.
const BEGUN_A_TURN_MAX: usize = 8;
/// Connections of one source address. The kernel has some 28,000 ports for each, keeps those of ended connections for a
/// minute, and takes milliseconds to find one when most are taken.
const PER_SOURCE: usize = 4000;
/// Source addresses of one run.
const SOURCES_MAX: usize = 250;

/// One connection and what is known of it.
struct Peer {
    conn: Conn,
    facts: Facts,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    peer: Option<Box<Peer>>,
}

/// A connection that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Who it is.
    pub who: Who,
    /// When, or 0: as soon as it may.
    pub due_us: u64,
}

/// Where a crowd goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The server.
    pub server: SocketAddr,
    /// Where publishers go, if elsewhere: to another node of a cluster.
    pub publishing: Option<SocketAddr>,
    /// Addresses that connections come from in turn; empty: whichever the kernel takes.
    pub sources: Vec<Ipv4Addr>,
    /// What connections are named after.
    pub run: String,
}

impl Place {
    /// Addresses of the loopback for so many connections, when that is where the server is. Each `run` has others, so that
    /// none waits for the ports of the one before.
    pub fn sources(server: SocketAddr, connections: usize, run: u32) -> Vec<Ipv4Addr> {
        let count = (connections / PER_SOURCE + 1).min(SOURCES_MAX);
        let is_loopback = server.is_ipv4() && server.ip().is_loopback();
        let [.., high, low] = run.to_be_bytes();
        let address = |at: usize| Ipv4Addr::new(127, high | 1, low, 1 + at as u8);
        if is_loopback && count > 1 { (0..count).map(address).collect() } else { Vec::new() }
    }
}

/// See the module.
pub struct Crowd {
    place: Place,
    poller: Poller,
    buffer: Vec<u8>,
    ready: Vec<Ready>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    wanted: VecDeque<Wanted>,
    at_once: usize,
    accept: String,
    begun: usize,
    /// Those of the first group who stay are read before all others.
    reads_the_first_ahead: bool,
    /// What texts are checked against.
    pub state: State,
}

impl Crowd {
    /// Nobody yet. At most `at_once` are being opened at a time.
    pub fn new(place: Place, state: State, at_once: usize) -> Result<Self> {
        Ok(Self {
            place,
            poller: Poller::new().context("a poller")?,
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            wanted: VecDeque::new(),
            at_once,
            accept: derive_accept_key(KEY.as_bytes()),
            begun: 0,
            reads_the_first_ahead: false,
            state,
        })
    }

    /// Never sleeps (see [`Poller::spin`]).
    pub fn spin(&mut self) {
        self.poller.spin();
    }

    /// From now on those of the first group who stay are read before all others, so that what they are measured to wait is the
    /// server's doing and not the thousands' who are read in the same thread.
    pub fn read_the_first_ahead(&mut self) {
        self.reads_the_first_ahead = true;
    }

    /// Microseconds in which it would have slept.
    pub fn spun_us(&self) -> u64 {
        self.poller.spun_us()
    }

    /// Ends a turn also when there is something in this pipe, which has a number of its own.
    pub fn watch(&self, pipe: &OwnedFd, number: u64) -> io::Result<()> {
        // Beyond all names of connections.
        self.poller.add(pipe, NAME_MAX - number, false)
    }

    /// One more is to be opened.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    /// How many are neither open nor given up.
    pub fn still_opening(&self) -> usize {
        self.wanted.len() + self.state.opening
    }

    /// When the next one is to be opened, if that needs no other to be open first.
    pub fn next_due_us(&self) -> Option<u64> {
        self.wanted.front().filter(|_| self.state.opening < self.at_once).map(|wanted| wanted.due_us)
    }

    /// Opens one at once; its name.
    pub fn open(&mut self, who: Who, due_us: u64) -> io::Result<u64> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let name = u64::from(self.slots[index as usize].generation) << 32 | u64::from(index);
        let source = if self.place.sources.is_empty() {
            Ipv4Addr::UNSPECIFIED
        } else {
            self.place.sources[self.begun % self.place.sources.len()]
        };
        let uid = format!("{}-{}", self.place.run, self.begun);
        self.begun += 1;
        let target = self.state.target(who, &uid);
        let elsewhere = self.place.publishing.filter(|_| matches!(who, Who::Publisher { .. }));
        let server = elsewhere.unwrap_or(self.place.server);
        let opened = Conn::open(&self.poller, name, server, source, &target);
        match opened {
            Ok(conn) => {
                self.state.opening += 1;
                let facts = self.state.facts(who, due_us);
                self.slots[index as usize].peer = Some(Box::new(Peer { conn, facts }));
                Ok(name)
            }
            Err(problem) => {
                self.free.push(index);
                Err(problem)
            }
        }
    }

    /// Ends a connection without a word. Nothing of it is a finding.
    pub fn drop_it(&mut self, name: u64) {
        if let Some(peer) = self.take(name) {
            self.gone(name, &peer.facts, peer.conn.stage);
        }
    }

    /// Bytes that wait for a connection's socket.
    pub fn unsent(&self, name: u64) -> usize {
        self.peek(name).map_or(0, |peer| peer.conn.unsent())
    }

    /// Sends texts over a connection in one write; nothing if it is gone, which is a finding by itself.
    pub fn send(&mut self, name: u64, texts: &[String]) {
        let Some(mut peer) = self.take(name) else { return };
        let sent = peer.conn.send_texts(&self.poller, name, texts.iter().map(String::as_str));
        self.put_back(name, peer, sent);
    }

    /// Opens what is due, waits until `until_us` at the longest, and takes what came.
    pub fn turn(&mut self, until_us: u64) -> Result<()> {
        let more = self.open_due();
        let until_us = if more { 0 } else { until_us };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poller.wait(until_us, &mut ready).context("waiting for sockets")?;
        for ready in &ready {
            self.serve(*ready);
        }
        self.ready = ready;
        Ok(())
    }

    /// Opens what is due; whether more could be opened at once.
    fn open_due(&mut self) -> bool {
        for _ in 0..BEGUN_A_TURN_MAX {
            let now = monotonic_us();
            if self.state.opening >= self.at_once {
                return false;
            }
            let Some(wanted) = self.wanted.front().copied().filter(|wanted| wanted.due_us <= now) else { return false };
            self.wanted.pop_front();
            let due_us = if wanted.due_us == 0 { now } else { wanted.due_us };
            match self.open(wanted.who, due_us) {
                Ok(name) => self.state.named(wanted.who, name),
                Err(problem) => {
                    self.state.findings.add("not_opened", &problem);
                    self.state.never_there(wanted.who);
                }
            }
        }
        true
    }

    fn serve(&mut self, ready: Ready) {
        let Some(mut peer) = self.take(ready.name) else { return };
        let served = self.serve_peer(&mut peer, ready);
        self.put_back(ready.name, peer, served);
    }

    fn serve_peer(&mut self, peer: &mut Peer, ready: Ready) -> Result<(), Ending> {
        let Self { poller, buffer, state, accept, reads_the_first_ahead, .. } = self;
        let Peer { conn, facts } = peer;
        let was = conn.stage;
        if ready.writable {
            conn.flush(poller, ready.name)?;
        }
        let mut read = Ok(());
        if ready.readable {
            let first = state.first_stage();
            let now = monotonic_us();
            read = conn.read(poller, ready.name, buffer, (accept, first), |conn, text| {
                let replies = state.text(conn, facts, text, now)?;
                replies.map_or(Ok(()), |reply| conn.send_texts(poller, ready.name, [reply.as_str()]))
            });
        }
        if was != Stage::Live && conn.stage == Stage::Live {
            state.opened(facts, monotonic_us());
            if *reads_the_first_ahead && matches!(facts.who, Who::Subscriber { group: 0, steady: true }) {
                conn.put_ahead(poller, ready.name).map_err(|problem| Ending::Reset(problem.kind()))?;
            }
        }
        read
    }

    fn put_back(&mut self, name: u64, peer: Box<Peer>, outcome: Result<(), Ending>) {
        match outcome {
            Ok(()) => self.slots[name as u32 as usize].peer = Some(peer),
            Err(ending) => {
                let what = if peer.conn.stage == Stage::Live { "connection_ended" } else { "not_opened" };
                self.state.findings.add(what, format_args!("{:?}: {ending}", peer.facts.who));
                self.gone(name, &peer.facts, peer.conn.stage);
            }
        }
    }

    fn gone(&mut self, name: u64, facts: &Facts, stage: Stage) {
        let slot = &mut self.slots[name as u32 as usize];
        slot.generation = slot.generation.wrapping_add(1) & 0x7FFF_FFFF;
        self.free.push(name as u32);
        self.state.left(facts, stage);
    }

    fn peek(&self, name: u64) -> Option<&Peer> {
        let slot = self.slots.get(name as u32 as usize)?;
        slot.peer.as_deref().filter(|_| u64::from(slot.generation) == name >> 32)
    }

    fn take(&mut self, name: u64) -> Option<Box<Peer>> {
        let slot = self.slots.get_mut(name as u32 as usize)?;
        if u64::from(slot.generation) == name >> 32 { slot.peer.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn many_connections_to_the_loopback_come_from_addresses_of_their_own() {
        let server = SocketAddr::from(([127, 0, 0, 1], 80));
        assert!(
            Place::sources(server, 100, 7).is_empty()
                && Place::sources(([10, 0, 0, 1], 80).into(), 90_000, 7).is_empty()
        );
        let (one, other) = (Place::sources(server, 90_000, 7), Place::sources(server, 90_000, 8));
        let all: HashSet<_> = one.iter().chain(&other).collect();
        assert_eq!((one.len(), all.len()), (23, 46));
        assert!(all.iter().all(|address| address.is_loopback() && address.octets()[1] != 0));
        assert_eq!(Place::sources(server, 10_000_000, 0).len(), SOURCES_MAX);
    }
}
