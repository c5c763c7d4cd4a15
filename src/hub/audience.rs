//! Who an audience means on this core, and the delivery to them.
//!
//! Method: the narrowest part that is given yields candidates, the other parts are asked of each candidate; a push
//! number kept in the session makes sure that none is served twice.

use std::collections::HashSet;

use crate::{
    model::{Audience, ClientId, Push, Role, SessionId},
    protocol::message,
};

use super::{Delivery, Hub, session::Session};

/// The parts of an audience that are asked of each candidate.
struct Filter<'a> {
    uids: Option<HashSet<&'a str, ahash::RandomState>>,
    tags: Option<HashSet<u32, ahash::RandomState>>,
    devices: &'a [Box<str>],
}

impl Filter<'_> {
    fn admits(&self, session: &Session) -> bool {
        self.uids.as_ref().is_none_or(|uids| uids.contains(&*session.uid))
            && self
                .tags
                .as_ref()
                .is_none_or(|tags| session.tags.iter().any(|membership| tags.contains(&membership.tag)))
            && (self.devices.is_empty()
                || session.device().is_some_and(|device| self.devices.iter().any(|wanted| **wanted == *device)))
    }
}

impl Hub {
    /// Delivers a push to the local users whom its audience matches, once to each.
    pub fn push(&mut self, push: &Push) -> Delivery {
        let mut delivery = Delivery::default();
        let matched = self.matching(&push.pid, &push.audience);
        if matched.is_empty() {
            return delivery;
        }
        let mut encoded =
            self.encode(true, &push.stamp, |text| message::push(text, push.affair_id.as_deref(), &push.payload));
        let express = self.walk.is_express(matched.len());
        for id in matched {
            let frame = self.frame_for(id.slot, &mut encoded);
            self.enqueue(id.slot, frame, express, &mut delivery);
        }
        debug_assert_eq!(delivery.matched, delivery.queued + delivery.evicted, "each match has one outcome");
        delivery
    }

    /// The open user sessions of a project that an audience matches, each once.
    pub fn matching(&mut self, pid: &str, audience: &Audience) -> Vec<SessionId> {
        let Some(project) = self.projects.find(pid) else { return Vec::new() };
        let (mut candidates, filter) = self.candidates(project, audience);
        self.push_number = self.push_number.wrapping_add(1);
        let (core, push_number) = (self.settings.core, self.push_number);
        candidates.retain(|&slot| {
            let session = &mut self.sessions[slot as usize];
            let fresh = session.last_push != push_number;
            let is_user = session.role == Role::User;
            let matches = fresh && is_user && session.is_open() && filter.admits(session);
            if matches {
                session.last_push = push_number;
            }
            matches
        });
        let id = |slot| SessionId { core, slot, generation: self.sessions[slot as usize].generation };
        candidates.into_iter().map(id).collect()
    }

    /// Slots of the narrowest part, and the filter of the others.
    fn candidates<'a>(&self, project: u32, audience: &'a Audience) -> (Vec<u32>, Filter<'a>) {
        let uids = || Some(audience.uids.iter().map(|uid| &**uid).collect()).filter(|_| !audience.uids.is_empty());
        let known_tags = || audience.tags.iter().filter_map(|tag| self.tags.find(project, tag));
        let tags = || Some(known_tags().collect()).filter(|_| !audience.tags.is_empty());
        let devices = &audience.devices;
        if !audience.cids.is_empty() {
            let slots = audience.cids.iter().filter_map(|cid| self.slot_of(project, cid)).collect();
            (slots, Filter { uids: uids(), tags: tags(), devices })
        } else if !audience.uids.is_empty() {
            let is_of = |slot: &u32, uid: &str| *self.sessions[*slot as usize].uid == *uid;
            let of_uid = |uid| self.projects.of_uid(project, uid).filter(move |slot| is_of(slot, uid));
            let slots = audience.uids.iter().flat_map(|uid| of_uid(uid)).collect();
            (slots, Filter { uids: None, tags: tags(), devices })
        } else if !audience.tags.is_empty() {
            let slots = known_tags()
                .flat_map(|tag| self.tags.get(tag).subscribers())
                .map(|subscriber| subscriber.slot)
                .collect();
            (slots, Filter { uids: None, tags: None, devices })
        } else {
            (self.projects.members(project).to_vec(), Filter { uids: None, tags: None, devices })
        }
    }

    /// The slot of a user connection of the project, by its id as text.
    fn slot_of(&self, project: u32, cid: &str) -> Option<u32> {
        let ClientId { node, boot, session } = cid.parse().ok()?;
        let here = (node, boot, session.core) == (self.settings.node, self.settings.boot, self.settings.core);
        let found = self.session(session).filter(|_| here)?;
        (found.project == project && found.role == Role::User).then_some(session.slot)
    }
}
