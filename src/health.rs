//! Whether the node lives and takes traffic, and how it says so on every listener.
//!
//! Invariants: one writer a fact, any reader, no lock; the texts hold nothing that a peer wrote.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

/// Where in its life the node is, as far as traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It has not filled its tag table yet.
    Starting,
    /// It takes traffic.
    Ready,
    /// The message queue is away: users stay, pushes are refused.
    QueueUnavailable,
    /// It is no longer the holder of its node id.
    Fenced,
    /// It stops.
    Draining,
}

impl State {
    /// Every state.
    pub const ALL: [State; 5] =
        [State::Starting, State::Ready, State::QueueUnavailable, State::Fenced, State::Draining];

    /// The stable word (`err` of a `/ready` that is not).
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::QueueUnavailable => "queue_unavailable",
            State::Fenced => "fenced",
            State::Draining => "draining",
        }
    }

    fn message(self) -> &'static str {
        match self {
            State::Starting => "the node is starting",
            State::Ready => "the node takes traffic",
            State::QueueUnavailable => "the message queue is not available",
            State::Fenced => "the node does not hold its node id",
            State::Draining => "the node is draining",
        }
    }
}

/// What decides the state of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It stops.
    pub drains: bool,
    /// Its tables are filled.
    pub is_filled: bool,
    /// Another boot holds its node id.
    pub is_fenced: bool,
    /// The queue does not answer.
    pub is_queue_down: bool,
    /// What it sent itself through the queue has not come back in time.
    pub is_canary_late: bool,
}

impl Facts {
    /// The state; what lasts longest comes first.
    pub fn state(self) -> State {
        match self {
            Facts { drains: true, .. } => State::Draining,
            Facts { is_filled: false, .. } => State::Starting,
            Facts { is_fenced: true, .. } => State::Fenced,
            Facts { is_queue_down: true, .. } | Facts { is_canary_late: true, .. } => State::QueueUnavailable,
            _ => State::Ready,
        }
    }
}

/// The node's health, shared by all its threads.
#[derive(Debug)]
pub struct Health {
    /// The node's number (`--node`).
    node: u16,
    live: AtomicBool,
    state: AtomicU8,
}

impl Health {
    /// Of a node that is starting.
    pub fn new(node: u16) -> Arc<Self> {
        Arc::new(Self { node, live: AtomicBool::new(true), state: AtomicU8::new(State::Starting as u8) })
    }

    /// The process is beyond help and ends.
    pub fn set_dead(&self) {
        self.live.store(false, Ordering::Relaxed);
    }

    /// Where the node is in its life.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Where the node is in its life.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Relaxed)) % State::ALL.len()]
    }

    /// Status and JSON body for `/live`, `/ready` and `/health`; nothing for any other path.
    pub fn answer(&self, path: &str) -> Option<(u16, String)> {
        match path {
            "/live" => Some(self.live()),
            "/ready" => Some(self.ready()),
            "/health" => Some((200, self.summary())),
            _ => None,
        }
    }

    fn live(&self) -> (u16, String) {
        if self.live.load(Ordering::Relaxed) {
            return (200, r#"{"code":1,"msg":"success","payload":{"live":true}}"#.to_owned());
        }
        (503, r#"{"code":0,"err":"dead","msg":"the process ends"}"#.to_owned())
    }

    fn ready(&self) -> (u16, String) {
        if !self.live.load(Ordering::Relaxed) {
            return self.live();
        }
        match self.state() {
            State::Ready => (200, r#"{"code":1,"msg":"success","payload":{"ready":true}}"#.to_owned()),
            state => (503, format!(r#"{{"code":0,"err":"{}","msg":"{}"}}"#, state.word(), state.message())),
        }
    }

    fn summary(&self) -> String {
        let (node, state, version) = (self.node, self.state(), env!("CARGO_PKG_VERSION"));
        let (ready, word) = (state == State::Ready, state.word());
        format!(
            r#"{{"code":1,"msg":"success","payload":{{"node":{node},"ready":{ready},"state":"{word}","version":"{version}"}}}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_only_while_every_fact_allows_it() {
        let fine = Facts { is_filled: true, ..Facts::default() };
        assert_eq!(fine.state(), State::Ready);
        assert_eq!(Facts { is_canary_late: true, ..fine }.state(), State::QueueUnavailable);
        assert_eq!(Facts { is_queue_down: true, ..fine }.state(), State::QueueUnavailable);
        assert_eq!(Facts { is_fenced: true, is_queue_down: true, ..fine }.state(), State::Fenced);
        assert_eq!(Facts { is_queue_down: true, ..Facts::default() }.state(), State::Starting);
        assert_eq!(Facts { drains: true, ..Facts::default() }.state(), State::Draining);
    }

    #[test]
    fn ready_follows_the_state_and_says_why_not() {
        let health = Health::new(200);
        assert_eq!(health.answer("/live").expect("a path").0, 200);
        let (status, body) = health.answer("/ready").expect("a path");
        assert_eq!(status, 503);
        assert!(body.contains(r#""err":"starting""#), "{body}");
        for state in State::ALL {
            health.set(state);
            assert_eq!(health.state(), state);
            assert_eq!(health.answer("/ready").expect("a path").0 == 200, state == State::Ready);
            let (status, body) = health.answer("/health").expect("a path");
            assert_eq!(status, 200);
            assert!(body.contains(r#""node":200"#) && body.contains(state.word()), "{body}");
        }
        health.set_dead();
        assert_eq!(health.answer("/live").expect("a path").0, 503);
        assert_eq!(health.answer("/else"), None);
    }
}
