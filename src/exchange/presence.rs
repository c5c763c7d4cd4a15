//! Who is connected to this node, users and back-ends.
//!
//! Invariants: a connection is in its project's list iff it is among the sessions; lists are sorted by uid, a
//! user's connections by session. A connection costs about 130 bytes: one [`Member`] and two references to it.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use crate::model::{Pid, Role, SessionId};

/// One connection.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: Pid,
    pub(super) uid: Box<str>,
    pub(super) device: Option<Box<str>>,
    pub(super) since_unix_ms: u64,
    pub(super) session: SessionId,
    pub(super) role: Role,
    /// Its place among all that were opened on this node: the wall clock ties, and goes back at times.
    pub(super) number: u64,
}

#[derive(Clone, Debug)]
struct ByUid(Arc<Member>);

impl ByUid {
    fn key(&self) -> (&str, SessionId) {
        (&self.0.uid, self.0.session)
    }
}

impl Ord for ByUid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for ByUid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByUid {}

#[derive(Debug, Default)]
struct Project {
    users: BTreeSet<ByUid>,
    backends: Vec<Arc<Member>>,
}

/// Everybody who is connected to this node.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// By core and slot, which are dense.
    sessions: Vec<Vec<Option<Arc<Member>>>>,
    projects: HashMap<Pid, Project, ahash::RandomState>,
    opened: u64,
    users: u32,
}

const FIRST: SessionId = SessionId { core: 0, slot: 0, generation: 0 };
const LAST: SessionId = SessionId { core: u8::MAX, slot: u32::MAX, generation: u32::MAX };

impl Presence {
    /// Takes a connection in and numbers it.
    pub(super) fn open(&mut self, mut member: Member) -> Arc<Member> {
        self.opened += 1;
        member.number = self.opened;
        let interned = self.projects.get_key_value(&member.pid).map(|(pid, _)| pid.clone());
        member.pid = interned.unwrap_or(member.pid);
        let member = Arc::new(member);
        if let Some(before) = self.place(member.session).replace(member.clone()) {
            self.unlist(&before);
        }
        let project = self.projects.entry(member.pid.clone()).or_default();
        match member.role {
            Role::User => {
                project.users.insert(ByUid(member.clone()));
                self.users += 1;
            }
            Role::Backend => project.backends.push(member.clone()),
        }
        member
    }

    /// A connection is gone; who it was.
    pub(super) fn close(&mut self, session: SessionId) -> Option<Arc<Member>> {
        let SessionId { core, slot, .. } = session;
        let place = self.sessions.get_mut(usize::from(core))?.get_mut(slot as usize)?;
        let member = place.take_if(|member| member.session == session)?;
        self.unlist(&member);
        Some(member)
    }

    /// Users' connections.
    pub(super) fn users(&self) -> u32 {
        self.users
    }

    /// Who a session is.
    pub(super) fn get(&self, session: SessionId) -> Option<&Arc<Member>> {
        let SessionId { core, slot, .. } = session;
        let member = self.sessions.get(usize::from(core))?.get(slot as usize)?.as_ref()?;
        (member.session == session).then_some(member)
    }

    /// The project's back-ends on this node.
    pub(super) fn backends(&self, pid: &Pid) -> &[Arc<Member>] {
        self.projects.get(pid).map_or(&[], |project| &project.backends)
    }

    /// Every back-end on this node.
    pub(super) fn all_backends(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.projects.values().flat_map(|project| &project.backends)
    }

    /// Projects with users on this node.
    pub(super) fn pids(&self) -> impl Iterator<Item = &Pid> {
        self.projects.iter().filter(|(_, project)| !project.users.is_empty()).map(|(pid, _)| pid)
    }

    /// A user's connections to this node.
    pub(super) fn connections<'a>(&'a self, pid: &Pid, uid: &'a str) -> impl Iterator<Item = &'a Arc<Member>> {
        let from = Bound::Included(probe(pid, uid, FIRST));
        self.range(pid, from).take_while(move |member| *member.uid == *uid)
    }

    /// The project's user connections behind `after`, in order.
    pub(super) fn users_after(&self, pid: &Pid, after: Option<&Arc<Member>>) -> impl Iterator<Item = &Arc<Member>> {
        self.range(pid, after.map_or(Bound::Unbounded, |member| Bound::Excluded(ByUid(member.clone()))))
    }

    /// The connections of the project's users whose uid sorts behind `uid`, in order.
    pub(super) fn users_behind(&self, pid: &Pid, uid: Option<&str>) -> impl Iterator<Item = &Arc<Member>> {
        self.range(pid, uid.map_or(Bound::Unbounded, |uid| Bound::Excluded(probe(pid, uid, LAST))))
    }

    fn range(&self, pid: &Pid, from: Bound<ByUid>) -> impl Iterator<Item = &Arc<Member>> {
        let users = self.projects.get(pid).map(|project| project.users.range((from, Bound::Unbounded)));
        users.into_iter().flatten().map(|member| &member.0)
    }

    fn place(&mut self, SessionId { core, slot, .. }: SessionId) -> &mut Option<Arc<Member>> {
        let (core, slot) = (usize::from(core), slot as usize);
        if core >= self.sessions.len() {
            self.sessions.resize_with(core + 1, Vec::new);
        }
        let slots = &mut self.sessions[core];
        if slot >= slots.len() {
            slots.resize_with(slot + 1, || None);
        }
        &mut slots[slot]
    }

    fn unlist(&mut self, member: &Arc<Member>) {
        let Some(project) = self.projects.get_mut(&member.pid) else { return };
        match member.role {
            Role::User => {
                project.users.remove(&ByUid(member.clone()));
                self.users -= 1;
            }
            Role::Backend => project.backends.retain(|backend| backend.session != member.session),
        }
        if project.users.is_empty() && project.backends.is_empty() {
            self.projects.remove(&member.pid);
        }
    }
}

/// A place in the order of users.
fn probe(pid: &Pid, uid: &str, session: SessionId) -> ByUid {
    let (pid, uid) = (pid.clone(), uid.into());
    ByUid(Arc::new(Member { pid, uid, device: None, since_unix_ms: 0, session, role: Role::User, number: 0 }))
}
