//! Which node a client should connect to: the one with the fewest connections.
//!
//! The node's thread tells what it heard of every node; the cores ask, once a connection and never for a message, so one
//! lock will do. What was sent to a node since it last said how many connections it has counts as connections too, so that a
//! burst of askers is spread; equals take turns.
//!
//! Invariant: nobody is sent to a node that is not in the last list. Left out: which nodes take connections (`exchange`).

use std::sync::{Arc, PoisonError};

use crate::model::{NodeId, Place};

#[expect(clippy::disallowed_types, reason = "held for a walk over the nodes, once a connection")]
type Lock<T> = std::sync::Mutex<T>;

/// Where clients are sent; shared by all threads.
#[derive(Clone, Debug, Default)]
pub struct Router(Arc<Lock<Table>>);

#[derive(Debug, Default)]
struct Table {
    nodes: Vec<Sent>,
    /// Where the search for the fewest begins, so that equals take turns.
    turn: usize,
}

/// A node, and how many were sent there since it said how many it has.
#[derive(Debug)]
struct Sent {
    place: Place,
    since: u32,
}

impl Router {
    /// A router of a node: nodes whose turn would begin with the same other node would storm it together.
    pub fn new(node: NodeId) -> Self {
        Self(Arc::new(Lock::new(Table { nodes: Vec::new(), turn: node.into() })))
    }

    /// From now on clients are sent to these nodes, and to no other.
    pub fn set(&self, places: Vec<Place>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut table.nodes);
        let since = |place: &Place| {
            let same = before.iter().find(|sent| sent.place.node == place.node && sent.place.beat == place.beat);
            same.map_or(0, |sent| sent.since)
        };
        table.nodes = places.into_iter().map(|place| Sent { since: since(&place), place }).collect();
    }

    /// Where the next client should go; its connections include those that were sent there lately. None: nowhere.
    pub fn choose(&self) -> Option<Place> {
        self.choose_but(None)
    }

    /// The same, with a node to which nobody is sent.
    pub fn choose_but(&self, not: Option<NodeId>) -> Option<Place> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, turn) = (table.nodes.len(), table.turn);
        let wanted = |place: &usize| Some(table.nodes[*place].place.node) != not;
        let places = (0..count).map(|step| turn.wrapping_add(step) % count).filter(wanted);
        let chosen = places.min_by_key(|place| table.nodes[*place].connections())?;
        table.turn = chosen + 1;
        let sent = &mut table.nodes[chosen];
        let place = Place { users: sent.connections(), ..sent.place.clone() };
        sent.since = sent.since.saturating_add(1);
        Some(place)
    }
}

impl Sent {
    fn connections(&self) -> u32 {
        self.place.users.saturating_add(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: NodeId, users: u32, beat: u64) -> Place {
        Place { node, addr: format!("n{node}:1").into(), users, beat }
    }

    fn chosen(router: &Router, times: usize) -> Vec<NodeId> {
        (0..times).filter_map(|_| router.choose()).map(|place| place.node).collect()
    }

    #[test]
    fn a_burst_fills_the_emptiest_first_and_then_spreads() {
        let router = Router::new(1);
        assert_eq!(router.choose(), None);
        router.set(vec![place(1, 2, 1), place(2, 0, 2), place(3, 2, 3)]);
        let nodes = chosen(&router, 8);
        assert_eq!(nodes[..2], [2, 2]);
        let of = |node| nodes.iter().filter(|chosen| **chosen == node).count();
        assert_eq!((of(1), of(2), of(3)), (2, 4, 2), "{nodes:?}");
    }

    #[test]
    fn what_was_sent_counts_until_the_node_speaks_again_and_who_is_gone_gets_nobody() {
        let router = Router::new(1);
        router.set(vec![place(1, 0, 1), place(2, 1, 2)]);
        let sent = chosen(&router, 3);
        assert_eq!(sent.iter().filter(|node| **node == 1).count(), 2, "{sent:?}");
        router.set(vec![place(1, 0, 1), place(2, 1, 2)]);
        assert_eq!(router.choose().map(|place| place.users), Some(2), "nothing new was said");
        router.set(vec![place(1, 3, 9), place(2, 5, 8)]);
        assert_eq!(router.choose().map(|place| (place.node, place.users)), Some((1, 3)));
        router.set(vec![place(2, 5, 8)]);
        assert_eq!(chosen(&router, 3), [2, 2, 2]);
        assert_eq!(router.choose_but(Some(2)), None);
    }

    #[test]
    fn the_endpoint_keeps_scheme_and_query() {
        let at = |addr: &str, query| Place { addr: addr.into(), ..place(1, 0, 0) }.connect_url(query);
        assert_eq!(at("a:1", "x=1&y"), "ws://a:1/ws/connect?x=1&y");
        assert_eq!(at("wss://a/", ""), "wss://a/ws/connect");
    }
}
