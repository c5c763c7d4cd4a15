//! Who belongs to which project: all its users, and them by uid.
//!
//! Invariants: nothing here is reachable across projects; a member's place is its index in `members`.

use std::collections::HashMap;

use crate::model::Pid;
use slab::Slab;

/// The users of one project on this core.
#[derive(Debug)]
pub(super) struct ProjectIndex {
    pid: Pid,
    members: Vec<u32>,
    hasher: ahash::RandomState,
    /// By a hash of the uid its first connection, or one of another uid with the same hash; the names themselves are the
    /// sessions'.
    firsts: HashMap<u32, u32, ahash::RandomState>,
    /// The others, where there are any.
    others: HashMap<u32, Vec<u32>, ahash::RandomState>,
}

/// All projects that this core has met.
#[derive(Debug, Default)]
pub(super) struct Projects {
    projects: Slab<ProjectIndex>,
    by_pid: HashMap<Pid, u32, ahash::RandomState>,
}

impl Projects {
    /// The project's number here.
    pub fn intern(&mut self, pid: &Pid) -> u32 {
        if let Some(&project) = self.by_pid.get(pid) {
            return project;
        }
        let index = ProjectIndex {
            pid: pid.clone(),
            members: Vec::new(),
            hasher: ahash::RandomState::new(),
            firsts: HashMap::default(),
            others: HashMap::default(),
        };
        let project = super::slot_number(self.projects.insert(index));
        self.by_pid.insert(pid.clone(), project);
        project
    }

    /// The project's number, if this core has met it.
    pub fn find(&self, pid: &str) -> Option<u32> {
        self.by_pid.get(pid).copied()
    }

    /// The project's name.
    pub fn pid(&self, project: u32) -> &Pid {
        &self.projects[project as usize].pid
    }

    /// Slots of all its users.
    pub fn members(&self, project: u32) -> &[u32] {
        &self.projects[project as usize].members
    }

    /// Slots of one user, and perhaps of users whose name has the same hash.
    pub fn of_uid(&self, project: u32, uid: &str) -> impl Iterator<Item = u32> {
        let index = &self.projects[project as usize];
        let hash = index.hash(uid);
        let others = index.others.get(&hash).into_iter().flatten();
        index.firsts.get(&hash).into_iter().chain(others).copied()
    }

    /// Adds a user connection; its place among the members.
    pub fn add(&mut self, project: u32, slot: u32, uid: &str) -> u32 {
        let index = &mut self.projects[project as usize];
        let hash = index.hash(uid);
        if *index.firsts.entry(hash).or_insert(slot) != slot {
            index.others.entry(hash).or_default().push(slot);
        }
        index.members.push(slot);
        super::slot_number(index.members.len() - 1)
    }

    /// Removes a user connection; the slot that has moved to its place, if any.
    pub fn remove(&mut self, project: u32, slot: u32, uid: &str, place: u32) -> Option<u32> {
        let index = &mut self.projects[project as usize];
        let hash = index.hash(uid);
        index.forget(hash, slot);
        debug_assert_eq!(index.members[place as usize], slot, "a member's place is its index");
        index.members.swap_remove(place as usize);
        index.members.get(place as usize).copied()
    }
}

impl ProjectIndex {
    fn hash(&self, uid: &str) -> u32 {
        self.hasher.hash_one(uid) as u32
    }

    fn forget(&mut self, hash: u32, slot: u32) {
        let Some(others) = self.others.get_mut(&hash) else {
            self.firsts.remove(&hash);
            return;
        };
        if self.firsts.get(&hash) == Some(&slot) {
            self.firsts.extend(others.pop().map(|other| (hash, other)));
        } else {
            others.retain(|other| *other != slot);
        }
        if others.is_empty() {
            self.others.remove(&hash);
        }
    }
}
