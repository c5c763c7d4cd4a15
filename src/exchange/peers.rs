//! Which nodes live, by their signs of life.
//!
//! Invariants: of a node one boot lives; a boot that was replaced or said good-bye does not come back; silence of
//! others is judged only while this node hears itself, so that a stalled queue makes nobody look dead.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::{
    limits::{BEAT_INTERVAL, NODE_TIMEOUT, ROUTE_SILENCE_MAX},
    model::{
        Boot, NodeId, Place,
        record::{BeatPhase, Standing, Taking},
    },
};

/// A node of which only the past was heard, and not a sign for so long, has been gone before.
const FORMER_TIMEOUT: Duration = BEAT_INTERVAL.saturating_mul(3);

#[derive(Debug)]
struct Peer {
    boot: Boot,
    heard_at: Instant,
    /// Heard as it happened, not only in what the log had kept.
    live: bool,
    /// What it last said of itself to routers, and with which sign of life.
    standing: Option<(Standing, u64)>,
}

/// The nodes of the cluster, this one included.
#[derive(Debug)]
pub(super) struct Peers {
    home: (NodeId, Boot),
    nodes: BTreeMap<NodeId, Peer>,
    /// Of each node the last boot that is over.
    over: HashMap<NodeId, Boot>,
    own_heard_at: Option<Instant>,
    next_beat_at: Option<Instant>,
    stopping: bool,
    beats_heard: u64,
}

/// What a sign of life says about a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The beat is that of the living boot, and what it lists is true.
    pub(super) counts: bool,
    /// A boot that is gone.
    pub(super) gone: Option<Boot>,
}

impl Peers {
    pub(super) fn new(node: NodeId, boot: Boot) -> Self {
        Self {
            home: (node, boot),
            nodes: BTreeMap::new(),
            over: HashMap::new(),
            own_heard_at: None,
            next_beat_at: None,
            stopping: false,
            beats_heard: 0,
        }
    }

    /// The beat that is due now, if one is; the first is a hello.
    pub(super) fn due(&mut self, now: Instant) -> Option<BeatPhase> {
        if self.stopping || self.next_beat_at.is_some_and(|at| now < at) {
            return None;
        }
        let first = self.next_beat_at.replace(now + BEAT_INTERVAL).is_none();
        Some(if first { BeatPhase::Hello } else { BeatPhase::Alive })
    }

    /// No beat is due any more.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether this node has given a sign of life and will give more.
    pub(super) fn has_beaten(&self) -> bool {
        self.next_beat_at.is_some() && !self.stopping
    }

    /// Whether this node still gives signs of life.
    pub(super) fn beats(&self) -> bool {
        !self.stopping
    }

    /// A node's sign of life was heard; `live`: as it happened.
    pub(super) fn heard(&mut self, node: NodeId, boot: Boot, phase: BeatPhase, live: bool, now: Instant) -> Heard {
        if self.is_over(node, boot) {
            return Heard::default();
        }
        if (node, boot) == self.home && live {
            self.heard_self(now);
        }
        if phase == BeatPhase::Goodbye {
            self.beats_heard += 1;
            return Heard { counts: false, gone: self.end(node, boot) };
        }
        let gone = self.replaced_by(node, boot);
        let live = live || self.nodes.get(&node).is_some_and(|peer| peer.live);
        let standing = self.nodes.get_mut(&node).filter(|peer| peer.boot == boot).and_then(|peer| peer.standing.take());
        self.nodes.insert(node, Peer { boot, heard_at: now, live, standing });
        Heard { counts: true, gone }
    }

    /// Something else of a boot was heard. Whether that boot lives; of a node not known before it does.
    pub(super) fn lives(&mut self, node: NodeId, boot: Boot, live: bool, now: Instant) -> bool {
        if self.is_over(node, boot) {
            return false;
        }
        let peer = self.nodes.entry(node).or_insert(Peer { boot, heard_at: now, live, standing: None });
        peer.live |= live && peer.boot == boot;
        peer.boot == boot
    }

    /// A living boot's standing was heard as it happened; that of the log's past is too old to route by.
    pub(super) fn stands(&mut self, node: NodeId, standing: Option<Standing>) {
        self.beats_heard += 1;
        if let Some(peer) = self.nodes.get_mut(&node) {
            peer.standing = standing.map(|standing| (standing, self.beats_heard));
        }
    }

    /// How many signs of life were heard.
    pub(super) fn beats_heard(&self) -> u64 {
        self.beats_heard
    }

    /// The nodes that take connections, as they were heard lately.
    pub(super) fn places(&self, now: Instant) -> impl Iterator<Item = Place> {
        let recent = move |peer: &Peer| now.saturating_duration_since(peer.heard_at) < ROUTE_SILENCE_MAX;
        let heard = self.nodes.iter().filter(move |(_, peer)| recent(peer));
        heard.filter_map(|(node, peer)| {
            let (standing, beat) = peer.standing.as_ref()?;
            let takes = standing.taking == Taking::Yes && !standing.addr.is_empty();
            takes.then(|| Place { node: *node, addr: standing.addr.clone(), users: standing.users, beat: *beat })
        })
    }

    /// Whether the node has said that it drains.
    pub(super) fn is_leaving(&self, node: NodeId) -> bool {
        let standing = self.nodes.get(&node).and_then(|peer| peer.standing.as_ref());
        standing.is_some_and(|(standing, _)| standing.taking == Taking::Leaving)
    }

    /// Whether the node was heard as it happened.
    pub(super) fn is_live(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|peer| peer.live)
    }

    /// The living nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, Boot)> {
        self.nodes.iter().map(|(node, peer)| (*node, peer.boot))
    }

    /// Whether this node, which has heard itself, has the lowest id of those that live.
    pub(super) fn is_lowest(&self) -> bool {
        self.beats() && self.own_heard_at.is_some() && self.nodes.range(..self.home.0).next().is_none()
    }

    /// The nodes that were silent for too long; they may come back.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(NodeId, Boot)> {
        if self.own_heard_at.is_none_or(|at| now.saturating_duration_since(at) > 3 * BEAT_INTERVAL) {
            return Vec::new();
        }
        let home = self.home;
        let silent = |node: &NodeId, peer: &mut Peer| {
            let patience = if peer.live { NODE_TIMEOUT } else { FORMER_TIMEOUT };
            (*node, peer.boot) != home && now.saturating_duration_since(peer.heard_at) >= patience
        };
        self.nodes.extract_if(.., silent).map(|(node, peer)| (node, peer.boot)).collect()
    }

    /// After a silence of this node's own beats the silence of all others begins anew: it was the queue's.
    fn heard_self(&mut self, now: Instant) {
        let stalled = |at: Instant| now.saturating_duration_since(at) > 3 * BEAT_INTERVAL;
        if self.own_heard_at.replace(now).is_some_and(stalled) {
            self.nodes.values_mut().for_each(|peer| peer.heard_at = now);
        }
    }

    fn is_over(&self, node: NodeId, boot: Boot) -> bool {
        let not_this_boot = node == self.home.0 && boot != self.home.1;
        not_this_boot || self.over.get(&node) == Some(&boot)
    }

    fn end(&mut self, node: NodeId, boot: Boot) -> Option<Boot> {
        self.over.insert(node, boot);
        let lived = self.nodes.get(&node).is_some_and(|peer| peer.boot == boot);
        lived.then(|| self.nodes.remove(&node)).flatten().map(|peer| peer.boot)
    }

    fn replaced_by(&mut self, node: NodeId, boot: Boot) -> Option<Boot> {
        let before = self.nodes.get(&node).map(|peer| peer.boot).filter(|before| *before != boot)?;
        self.over.insert(node, before);
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Boot = Boot(1);
    const NEW: Boot = Boot(2);

    fn beat(peers: &mut Peers, node: NodeId, boot: Boot, now: Instant) -> Heard {
        peers.heard(node, boot, BeatPhase::Alive, true, now)
    }

    #[test]
    fn a_boot_that_was_replaced_does_not_come_back() {
        let (mut peers, now) = (Peers::new(1, Boot(9)), crate::clock::now());
        assert_eq!(beat(&mut peers, 2, OLD, now), Heard { counts: true, gone: None });
        assert_eq!(beat(&mut peers, 2, NEW, now), Heard { counts: true, gone: Some(OLD) });
        assert_eq!(beat(&mut peers, 2, OLD, now), Heard { counts: false, gone: None });
        assert!(peers.lives(2, NEW, true, now) && !peers.lives(2, OLD, true, now));
    }

    #[test]
    fn silence_counts_only_while_the_node_hears_itself() {
        let (mut peers, start) = (Peers::new(1, Boot(9)), crate::clock::now());
        beat(&mut peers, 1, Boot(9), start);
        beat(&mut peers, 2, OLD, start);
        let later = start + 10 * NODE_TIMEOUT;
        assert_eq!(peers.expire(later), []);
        beat(&mut peers, 1, Boot(9), later);
        assert_eq!(peers.expire(later), []);
        let silent = later + NODE_TIMEOUT;
        beat(&mut peers, 1, Boot(9), silent - Duration::from_secs(10));
        beat(&mut peers, 1, Boot(9), silent - Duration::from_secs(5));
        assert_eq!(peers.expire(silent), [(2, OLD)]);
        assert_eq!(peers.nodes().collect::<Vec<_>>(), [(1, Boot(9))]);
    }

    #[test]
    fn clients_are_sent_only_to_nodes_that_take_them_and_were_heard_lately() {
        let (mut peers, start) = (Peers::new(1, Boot(9)), crate::clock::now());
        let standing = |addr: &str, taking| Some(Standing { addr: addr.into(), users: 4, taking });
        for (node, standing) in [
            (2, standing("b:1", Taking::Yes)),
            (3, standing("c:1", Taking::NotNow)),
            (4, standing("d:1", Taking::Leaving)),
            (5, standing("", Taking::Yes)),
            (6, None),
        ] {
            beat(&mut peers, node, OLD, start);
            peers.stands(node, standing);
        }
        let nodes = |peers: &Peers, now| peers.places(now).map(|place| place.node).collect::<Vec<_>>();
        assert_eq!(nodes(&peers, start), [2]);
        assert!(peers.is_leaving(4) && !peers.is_leaving(3) && !peers.is_leaving(6));
        let before = peers.places(start).next().expect("a place");
        assert_eq!((&*before.addr, before.users), ("b:1", 4));
        assert!(nodes(&peers, start + ROUTE_SILENCE_MAX).is_empty());
        let later = start + ROUTE_SILENCE_MAX;
        beat(&mut peers, 2, OLD, later);
        peers.stands(2, standing("b:1", Taking::Yes));
        assert_ne!(peers.places(later).next().expect("a place").beat, before.beat);
        beat(&mut peers, 2, NEW, later);
        assert!(nodes(&peers, later).is_empty(), "another boot speaks for itself");
    }
}
