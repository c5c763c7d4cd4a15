//! Who belongs to which project: all its users, and them by uid.
//!
//! Invariants: nothing here is reachable across projects; a member's place is its index in `members`.

use std::collections::HashMap;

use slab::Slab;
use smallvec::SmallVec;

use crate::model::Pid;

/// The users of one project on this core.
#[derive(Debug)]
pub(super) struct ProjectIndex {
    pid: Pid,
    members: Vec<u32>,
    uids: HashMap<Box<str>, SmallVec<[u32; 2]>, ahash::RandomState>,
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
        let index = ProjectIndex { pid: pid.clone(), members: Vec::new(), uids: HashMap::default() };
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

    /// Slots of one user.
    pub fn of_uid(&self, project: u32, uid: &str) -> &[u32] {
        self.projects[project as usize].uids.get(uid).map_or(&[], |slots| slots)
    }

    /// Adds a user connection; its place among the members.
    pub fn add(&mut self, project: u32, slot: u32, uid: &str) -> u32 {
        let index = &mut self.projects[project as usize];
        match index.uids.get_mut(uid) {
            Some(slots) => slots.push(slot),
            None => {
                index.uids.insert(uid.into(), SmallVec::from_slice(&[slot]));
            }
        }
        index.members.push(slot);
        super::slot_number(index.members.len() - 1)
    }

    /// Removes a user connection; the slot that has moved to its place, if any.
    pub fn remove(&mut self, project: u32, slot: u32, uid: &str, place: u32) -> Option<u32> {
        let index = &mut self.projects[project as usize];
        if let Some(slots) = index.uids.get_mut(uid) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                index.uids.remove(uid);
            }
        }
        debug_assert_eq!(index.members[place as usize], slot, "a member's place is its index");
        index.members.swap_remove(place as usize);
        index.members.get(place as usize).copied()
    }
}
