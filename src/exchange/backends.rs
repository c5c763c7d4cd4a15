//! Where each project's back-ends are in the cluster.
//!
//! Invariants: a project is in the directory iff it has a back-end; each list is sorted, so that every node
//! walks it in the same order. Left out: how the directory learns (`peers` judges signs of life).

use std::collections::BTreeMap;

use crate::model::{Boot, ClientId, NodeId, Pid};

/// Every project's back-end connections.
#[derive(Debug, Default)]
pub(super) struct Directory {
    projects: BTreeMap<Pid, Backends>,
}

#[derive(Debug, Default)]
struct Backends {
    list: Vec<ClientId>,
    /// Where the search for the least pending begins, so that equals take turns.
    turn: usize,
}

impl Directory {
    /// A back-end came; whether it is new.
    pub(super) fn add(&mut self, pid: &Pid, cid: ClientId) -> bool {
        let backends = self.projects.entry(pid.clone()).or_default();
        match backends.list.binary_search(&cid) {
            Ok(_) => false,
            Err(place) => {
                backends.list.insert(place, cid);
                true
            }
        }
    }

    /// A back-end went; whether it was known.
    pub(super) fn remove(&mut self, pid: &Pid, cid: ClientId) -> bool {
        let Some(backends) = self.projects.get_mut(pid) else { return false };
        let Ok(place) = backends.list.binary_search(&cid) else { return false };
        backends.list.remove(place);
        if backends.list.is_empty() {
            self.projects.remove(pid);
        }
        true
    }

    /// Whether the project has a back-end anywhere.
    pub(super) fn serves(&self, pid: &Pid) -> bool {
        self.projects.contains_key(pid)
    }

    /// Whether this back-end is there.
    pub(super) fn contains(&self, pid: &Pid, cid: ClientId) -> bool {
        self.of(pid).binary_search(&cid).is_ok()
    }

    /// The project's back-ends, sorted.
    pub(super) fn of(&self, pid: &Pid) -> &[ClientId] {
        self.projects.get(pid).map_or(&[], |backends| &backends.list)
    }

    /// All back-ends that a boot of a node holds.
    pub(super) fn at(&self, node: NodeId, boot: Boot) -> Vec<(Pid, ClientId)> {
        let here = |cid: &&ClientId| cid.node == node && cid.boot == boot;
        self.projects
            .iter()
            .flat_map(|(pid, backends)| backends.list.iter().filter(here).map(|cid| (pid.clone(), *cid)))
            .collect()
    }

    /// The project's back-end of the least `weight`; equals take turns.
    pub(super) fn choose<W: Ord>(&mut self, pid: &Pid, weight: impl Fn(ClientId) -> W) -> Option<ClientId> {
        let backends = self.projects.get_mut(pid)?;
        let count = backends.list.len();
        let places = (0..count).map(|step| (backends.turn + step) % count);
        let place = places.min_by_key(|place| weight(backends.list[*place]))?;
        backends.turn = (place + 1) % count;
        Some(backends.list[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;

    fn cid(slot: u32) -> ClientId {
        ClientId { node: 1, boot: Boot(1), session: SessionId { core: 0, slot, generation: 0 } }
    }

    #[test]
    fn the_least_weight_is_chosen_and_equals_take_turns() {
        let pid = Pid::new("p").expect("a pid");
        let mut directory = Directory::default();
        assert_eq!(directory.choose(&pid, |_| 0), None);
        for slot in 0..3 {
            assert!(directory.add(&pid, cid(slot)) && !directory.add(&pid, cid(slot)));
        }
        let turns: Vec<_> = (0..4).map(|_| directory.choose(&pid, |_| 0)).collect();
        assert_eq!(turns, [0, 1, 2, 0].map(|slot| Some(cid(slot))));
        assert_eq!(directory.choose(&pid, |cid| 10 - cid.session.slot), Some(cid(2)));
    }
}
