//! Which sessions of this core follow which tag.
//!
//! Invariants: a membership with a place is in that place of its tag's subscribers; a tag is dropped, and the
//! exchange told, when it has no subscriber and no question about it is open.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use crate::{
    model::{FollowStart, Published, SessionId, Tag, pattern_matches},
    protocol::message,
};

use super::{
    Delivery, EXPRESS_FAN_OUT_MAX, Hub,
    session::{Membership, Session},
    slot_number, text_frame,
};

/// A tag that somebody on this core follows or is about to.
#[derive(Debug)]
struct LocalTag {
    project: u32,
    name: Tag,
    subscribers: Vec<u32>,
    /// Questions to the exchange that are open.
    pending: u32,
}

/// The tags of this core.
#[derive(Debug, Default)]
pub(super) struct Tags {
    tags: Slab<LocalTag>,
    by_name: HashMap<u32, HashMap<Tag, u32, ahash::RandomState>, ahash::RandomState>,
}

impl Tags {
    pub fn find(&self, project: u32, tag: &str) -> Option<u32> {
        self.by_name.get(&project)?.get(tag).copied()
    }

    pub fn subscribers(&self, tag: u32) -> &[u32] {
        &self.tags[tag as usize].subscribers
    }

    fn intern(&mut self, project: u32, name: &Tag) -> u32 {
        if let Some(tag) = self.find(project, name) {
            return tag;
        }
        let local = LocalTag { project, name: name.clone(), subscribers: Vec::new(), pending: 0 };
        let tag = slot_number(self.tags.insert(local));
        self.by_name.entry(project).or_default().insert(name.clone(), tag);
        tag
    }

    /// Forgets a tag that nobody follows; its name, if so.
    fn drop_unused(&mut self, tag: u32) -> Option<Tag> {
        let local = &self.tags[tag as usize];
        if !local.subscribers.is_empty() || local.pending > 0 {
            return None;
        }
        let local = self.tags.remove(tag as usize);
        if let Some(names) = self.by_name.get_mut(&local.project) {
            names.remove(&local.name);
        }
        Some(local.name)
    }
}

/// Why a session may not follow a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowRefused {
    /// The session is gone or closing.
    NoSession,
    /// It follows as many tags as it may.
    TooManyTags,
}

impl Hub {
    /// Notes that a session wants a tag; true if it did not follow it before. Then, or to give a follower what it
    /// missed, the exchange is to be asked, and [`Hub::followed`] takes its answer: see [`Hub::ask_again`].
    pub fn follow(&mut self, id: SessionId, tag: &Tag) -> Result<bool, FollowRefused> {
        let tags_max = self.settings.limits.frames.tags_per_connection;
        let session = self.sessions.get_mut(id.slot as usize).filter(|session| session.generation == id.generation);
        let session = session.filter(|session| session.is_open()).ok_or(FollowRefused::NoSession)?;
        if let Some(known) = self.tags.find(session.project, tag)
            && session.membership(known).is_some()
        {
            return Ok(false);
        }
        if session.tags.len() >= tags_max {
            return Err(FollowRefused::TooManyTags);
        }
        let tag = self.tags.intern(session.project, tag);
        self.tags.tags[tag as usize].pending += 1;
        session.tags.push(Membership { tag, place: None });
        Ok(true)
    }

    /// Notes that the exchange is asked once more for what a follower of a tag gets first.
    pub fn ask_again(&mut self, id: SessionId, tag: &Tag) {
        if let Some(known) = self.tag_of(id, tag) {
            self.tags.tags[known as usize].pending += 1;
        }
    }

    /// Takes the exchange's answer: the session joins the tag's subscribers behind what it gets first. The tag comes
    /// back if nobody follows it any more.
    pub fn followed(&mut self, id: SessionId, pid: &str, tag: &Tag, start: FollowStart) -> Option<Tag> {
        let project = self.projects.find(pid)?;
        let known = self.tags.find(project, tag)?;
        let local = &mut self.tags.tags[known as usize];
        local.pending = local.pending.saturating_sub(1);
        let session = self.sessions.get_mut(id.slot as usize).filter(|session| session.generation == id.generation);
        let membership = session.and_then(|session| session.tags.iter_mut().find(|membership| membership.tag == known));
        let Some(membership) = membership else { return self.tags.drop_unused(known) };
        if membership.place.is_none() {
            membership.place = Some(slot_number(local.subscribers.len()));
            local.subscribers.push(id.slot);
        }
        self.send_start(id, tag, start);
        None
    }

    fn send_start(&mut self, id: SessionId, tag: &Tag, start: FollowStart) {
        match start {
            FollowStart::Empty => {}
            FollowStart::Gap => self.send_gap(id, tag),
            FollowStart::Snapshot { last, gap } => {
                let mut text = Vec::new();
                message::publication(&mut text, &last, message::Arrival::Snapshot { gap });
                self.send_text(id, &text);
            }
            FollowStart::Tail(missed) => self.send_replay(id, missed),
        }
    }

    fn send_gap(&mut self, id: SessionId, tag: &Tag) {
        let mut text = Vec::new();
        message::gap(&mut text, tag);
        self.send_text(id, &text);
    }

    fn send_replay(&mut self, id: SessionId, missed: Vec<Arc<Published>>) {
        if let Some(session) = self.session_mut(id).filter(|session| session.is_open()) {
            session.outbox.push_replay(missed);
            self.mark_dirty(id.slot, true);
        }
    }

    /// Ends a subscription; the tag comes back if nobody on the core follows it any more.
    pub fn unfollow(&mut self, id: SessionId, tag: &Tag) -> Option<Tag> {
        let known = self.tag_of(id, tag)?;
        let session = self.session_mut(id)?;
        let index = session.membership(known)?;
        let membership = session.tags.swap_remove(index);
        self.leave(membership)
    }

    /// The tag's number, if the session follows it.
    fn tag_of(&self, id: SessionId, tag: &str) -> Option<u32> {
        let session = self.session(id)?;
        let known = self.tags.find(session.project, tag)?;
        session.membership(known).map(|_| known)
    }

    /// Takes a membership (already out of its session) out of its tag.
    pub(super) fn leave(&mut self, membership: Membership) -> Option<Tag> {
        let local = &mut self.tags.tags[membership.tag as usize];
        if let Some(place) = membership.place {
            local.subscribers.swap_remove(place as usize);
            if let Some(&moved) = local.subscribers.get(place as usize) {
                self.move_membership(moved, membership.tag, place);
            }
        }
        self.tags.drop_unused(membership.tag)
    }

    fn move_membership(&mut self, slot: u32, tag: u32, place: u32) {
        let memberships = &mut self.sessions[slot as usize].tags;
        if let Some(membership) = memberships.iter_mut().find(|membership| membership.tag == tag) {
            membership.place = Some(place);
        }
    }

    /// Delivers a publication to the local subscribers of its tag.
    pub fn publish(&mut self, published: &Published) -> Delivery {
        let known = self.projects.find(&published.pid).and_then(|project| self.tags.find(project, &published.tag));
        let Some(known) = known else { return Delivery::default() };
        self.deliver_to_subscribers(known, |text| {
            message::publication(text, published, message::Arrival::Live);
        })
    }

    /// Tells the local subscribers of a tag that publications are lost.
    pub fn announce_gap(&mut self, pid: &str, tag: &Tag) -> Delivery {
        let known = self.projects.find(pid).and_then(|project| self.tags.find(project, tag));
        let Some(known) = known else { return Delivery::default() };
        self.deliver_to_subscribers(known, |text| message::gap(text, tag))
    }

    fn deliver_to_subscribers(&mut self, tag: u32, write: impl FnOnce(&mut Vec<u8>)) -> Delivery {
        let mut delivery = Delivery::default();
        let subscribers = std::mem::take(&mut self.tags.tags[tag as usize].subscribers);
        if !subscribers.is_empty() {
            let mut text = std::mem::take(&mut self.scratch);
            text.clear();
            write(&mut text);
            let frame = text_frame(&text);
            self.scratch = text;
            let express = subscribers.len() <= EXPRESS_FAN_OUT_MAX;
            for &slot in &subscribers {
                if self.sessions[slot as usize].is_open() {
                    self.enqueue(slot, &frame, express, &mut delivery);
                }
            }
        }
        // Nothing above joins or leaves a tag, so the list is still the tag's.
        self.tags.tags[tag as usize].subscribers = subscribers;
        debug_assert_eq!(delivery.matched, delivery.queued + delivery.evicted, "each match has one outcome");
        delivery
    }

    /// Whether a session's token lets it subscribe to a tag.
    pub fn token_admits(session: &Session, tag: &str) -> bool {
        session.tag_patterns().is_none_or(|patterns| patterns.iter().any(|pattern| pattern_matches(pattern, tag)))
    }
}
