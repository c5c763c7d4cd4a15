//! How a session's subscriptions begin, change and end.
//!
//! Method: a subscription is asked for at the exchange; with its answer the session joins the tag behind what it gets
//! first. Invariant: the exchange is told when nobody follows a tag any more and no question about it is open.

use std::sync::Arc;

use crate::{
    metrics::Count,
    model::{FollowStart, Published, SessionId, Tag, pattern_matches},
    protocol::message,
};

use super::{
    Hub,
    session::{Membership, Note, Session, Standing},
    slot_number,
    tags::{Subscriber, interval_ms},
};

/// Why a session may not follow a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowRefused {
    /// The session is gone or closing.
    NoSession,
    /// It follows as many tags as it may.
    TooManyTags,
}

impl Hub {
    /// Notes that a session wants a tag, at most `hz_max` updates a second; true if it did not follow it before. Then,
    /// or to give a follower what it missed, the exchange is to be asked, and [`Hub::followed`] takes its answer: see
    /// [`Hub::ask_again`].
    pub fn follow(&mut self, id: SessionId, tag: &Tag, hz_max: Option<u32>) -> Result<bool, FollowRefused> {
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
        let known = self.tags.intern(session.project, tag, self.rules.find(tag));
        let local = self.tags.get_mut(known);
        local.pending += 1;
        let asked_ms = interval_ms(hz_max.unwrap_or(0));
        session.tags.push(Membership::asking(known, local.join_stream(asked_ms), asked_ms));
        Ok(true)
    }

    /// Notes that the exchange is asked once more for what a follower of a tag gets first, which then follows at most
    /// at `hz_max`.
    pub fn ask_again(&mut self, id: SessionId, tag: &Tag, hz_max: Option<u32>) {
        if let Some((known, membership)) = self.membership(id, tag) {
            self.tags.get_mut(known).pending += 1;
            let asking = &mut self.sessions[id.slot as usize].tags[membership as usize];
            asking.asked_ms = interval_ms(hz_max.unwrap_or(0));
            asking.questions = asking.questions.saturating_add(1);
            self.change_stream(Subscriber { slot: id.slot, membership });
        }
    }

    /// Takes the exchange's answer: the session joins the tag's subscribers behind what it gets first. The tag comes
    /// back if nobody follows it any more.
    pub fn followed(&mut self, id: SessionId, pid: &str, tag: &Tag, start: FollowStart) -> Option<Tag> {
        let project = self.projects.find(pid)?;
        let known = self.tags.find(project, tag)?;
        let local = self.tags.get_mut(known);
        let (is_awaited, number) = (local.answered(id), local.number);
        let membership = self.session(id).filter(|_| is_awaited).and_then(|session| session.membership(known));
        let Some(membership) = membership else { return self.drop_unused(known) };
        let subscriber = Subscriber { slot: id.slot, membership };
        let asking = self.membership_mut(subscriber);
        asking.questions = asking.questions.saturating_sub(1);
        if asking.standing == Standing::Asking {
            asking.pass(number);
            self.enlist(subscriber, Standing::Live);
        }
        self.send_start(id, subscriber, tag, start);
        None
    }

    fn send_start(&mut self, id: SessionId, subscriber: Subscriber, tag: &Tag, start: FollowStart) {
        let Membership { tag: known, standing, stream, seen, .. } = self.membership_of(subscriber);
        let local = self.tags.get(known);
        // It is owed something already, and gets that first: the newest in its turn, as the snapshot it asked for.
        let is_owed = standing == Standing::Behind || (stream > 0 && seen != local.number);
        let conflates = local.conflates(stream);
        // What is queued comes before the start and does not come again.
        self.sessions[id.slot as usize].outbox.settle(known);
        match start {
            FollowStart::Empty => {}
            FollowStart::Gap => self.send_gap(id, tag),
            FollowStart::Snapshot { gap, .. } if is_owed => {
                let membership = self.membership_mut(subscriber);
                membership.notes.set(Note::Again, true);
                let gap = gap || membership.notes.has(Note::AgainGap);
                membership.notes.set(Note::AgainGap, gap);
            }
            FollowStart::Snapshot { last, gap } => {
                let mut text = Vec::new();
                message::publication(&mut text, &last, message::Arrival::Snapshot { gap });
                self.send_text(id, &text);
            }
            FollowStart::Tail(missed) => {
                if is_owed {
                    self.forgive(subscriber);
                }
                self.send_replay(id, missed, conflates);
            }
        }
    }

    fn send_gap(&mut self, id: SessionId, tag: &Tag) {
        let mut text = Vec::new();
        message::gap(&mut text, tag);
        self.send_text(id, &text);
    }

    fn send_replay(&mut self, id: SessionId, missed: Vec<Arc<Published>>, conflates: bool) {
        if let Some(session) = self.session_mut(id).filter(|session| session.is_open()) {
            session.outbox.push_replay(missed, conflates);
            self.mark_dirty(id.slot, true);
        }
    }

    /// Ends a subscription; the tag comes back if nobody on the core follows it any more.
    pub fn unfollow(&mut self, id: SessionId, tag: &Tag) -> Option<Tag> {
        let (known, index) = self.membership(id, tag)?;
        let gone = self.membership_of(Subscriber { slot: id.slot, membership: index });
        self.delist(&gone);
        let void = std::iter::repeat_n(id, gone.questions.into());
        self.tags.get_mut(known).void.extend(void);
        let session = &mut self.sessions[id.slot as usize];
        session.tags.swap_remove(index as usize);
        session.outbox.settle(known);
        session.behind -= u32::from(gone.standing == Standing::Behind);
        // The last one has moved into its place.
        if let Some(moved) = session.tags.get(index as usize).copied()
            && moved.standing != Standing::Asking
        {
            let list = self.tags.get_mut(moved.tag).list_of(moved.standing, moved.stream);
            list[moved.place as usize].membership = index;
        }
        self.drop_unused(known)
    }

    /// Takes all memberships out of a session that is being closed; the tags that nobody follows any more.
    pub(super) fn leave_all(&mut self, slot: u32) -> Vec<Tag> {
        let count = self.sessions[slot as usize].tags.len();
        let mut unfollowed = Vec::new();
        for membership in 0..slot_number(count) {
            let gone = self.membership_of(Subscriber { slot, membership });
            self.delist(&gone);
            unfollowed.extend(self.drop_unused(gone.tag));
        }
        let session = &mut self.sessions[slot as usize];
        (session.tags, session.behind) = (Vec::new(), 0);
        unfollowed
    }

    /// The tag's slot and the subscription's index, if the session follows it.
    fn membership(&self, id: SessionId, tag: &str) -> Option<(u32, u32)> {
        let session = self.session(id)?;
        let known = self.tags.find(session.project, tag)?;
        session.membership(known).map(|index| (known, index))
    }

    fn drop_unused(&mut self, tag: u32) -> Option<Tag> {
        let local = self.tags.drop_unused(tag)?;
        self.outboxes_bytes -= local.kept.bytes();
        self.counters.set(Count::OutboxBytes, self.outboxes_bytes as u64);
        Some(local.name)
    }

    /// Takes a subscription that is over out of its tag.
    fn delist(&mut self, gone: &Membership) {
        let local = self.tags.get_mut(gone.tag);
        local.streams[usize::from(gone.stream)].members -= 1;
        if gone.standing != Standing::Asking {
            self.take_from_list(gone);
        }
    }

    pub(super) fn take_from_list(&mut self, gone: &Membership) {
        let list = self.tags.get_mut(gone.tag).list_of(gone.standing, gone.stream);
        list.swap_remove(gone.place as usize);
        if let Some(&moved) = list.get(gone.place as usize) {
            self.membership_mut(moved).place = gone.place;
        }
    }

    /// Puts a subscription into the list of its standing; it must be in none.
    pub(super) fn enlist(&mut self, subscriber: Subscriber, standing: Standing) {
        let membership = &mut self.sessions[subscriber.slot as usize].tags[subscriber.membership as usize];
        let list = self.tags.get_mut(membership.tag).list_of(standing, membership.stream);
        membership.standing = standing;
        membership.place = slot_number(list.len());
        list.push(subscriber);
    }

    pub(super) fn membership_of(&self, subscriber: Subscriber) -> Membership {
        self.sessions[subscriber.slot as usize].tags[subscriber.membership as usize]
    }

    pub(super) fn membership_mut(&mut self, subscriber: Subscriber) -> &mut Membership {
        &mut self.sessions[subscriber.slot as usize].tags[subscriber.membership as usize]
    }

    /// Whether a session is subscribed to a tag, or about to be.
    pub fn follows(&self, id: SessionId, tag: &Tag) -> bool {
        self.membership(id, tag).is_some()
    }

    /// Whether a session's token lets it subscribe to a tag.
    pub fn token_admits(session: &Session, tag: &str) -> bool {
        session.tag_patterns().is_none_or(|patterns| patterns.iter().any(|pattern| pattern_matches(pattern, tag)))
    }
}
