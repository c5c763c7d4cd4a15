//! Who goes when something must: connections of a project that is gone, subscriptions that new rules deny, and the largest
//! outboxes when memory is short.
//!
//! Invariant: whoever goes is told: a connection by its close code, the end of a subscription by the caller.

use std::{cmp::Reverse, collections::HashSet};

use crate::{
    metrics::Count,
    model::{SessionId, Tag, tag_rule::Access},
};

use super::{
    Hub,
    session::{Note, Session},
    slot_number,
};

impl Hub {
    /// Notes that a back-end has subscribed a session to a tag: rules about users do not end that.
    pub fn mark_ordered(&mut self, id: SessionId, tag: &Tag) {
        let Some(session) = self.session(id) else { return };
        let known = self.tags.find(session.project, tag).and_then(|known| session.membership(known));
        if let Some(index) = known {
            self.sessions[id.slot as usize].tags[index as usize].notes.set(Note::Ordered, true);
        }
    }

    /// Subscriptions of users' own that the rules in effect do not admit.
    pub fn denied(&self) -> Vec<(SessionId, Vec<Tag>)> {
        let is_guarded = |tag: &u32| self.rules.find(&self.tags.get(*tag).name).access != Access::Public;
        let guarded: HashSet<u32, ahash::RandomState> = self.tags.slots().into_iter().filter(is_guarded).collect();
        if guarded.is_empty() {
            return Vec::new();
        }
        let open = self.sessions.iter().filter(|(_, session)| session.is_open());
        let denied = open.map(|(slot, session)| (self.id_of(slot, session), self.denied_to(session, &guarded)));
        denied.filter(|(_, tags)| !tags.is_empty()).collect()
    }

    fn denied_to(&self, session: &Session, guarded: &HashSet<u32, ahash::RandomState>) -> Vec<Tag> {
        let own = session
            .tags
            .iter()
            .filter(|membership| !membership.notes.has(Note::Ordered) && guarded.contains(&membership.tag));
        let names = own.map(|membership| &self.tags.get(membership.tag).name);
        names.filter(|name| !self.rules.find(name).admits(name, &session.uid)).cloned().collect()
    }

    /// Open sessions of projects that `is_served` does not know.
    pub fn of_projects_gone(&self, is_served: impl Fn(&str) -> bool) -> Vec<SessionId> {
        let gone = |(slot, session): (usize, &Session)| {
            let is_gone = session.is_open() && !is_served(self.projects.pid(session.project));
            is_gone.then(|| self.id_of(slot, session))
        };
        self.sessions.iter().filter_map(gone).collect()
    }

    /// The sessions for which most bytes wait, at least `bytes_min` each and at most `count`, the largest first.
    pub fn largest_outboxes(&self, count: usize, bytes_min: usize) -> Vec<(usize, SessionId)> {
        let waiting = self.sessions.iter().filter(|(_, session)| session.is_open());
        let waiting = waiting.map(|(slot, session)| (session.outbox.bytes(), self.id_of(slot, session)));
        let mut largest: Vec<_> = waiting.filter(|(bytes, _)| *bytes >= bytes_min).collect();
        if largest.len() > count {
            largest.select_nth_unstable_by_key(count, |(bytes, _)| Reverse(*bytes));
            largest.truncate(count);
        }
        largest.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        largest
    }

    /// Gives up what waits for a session, which is told and closed (4008): memory is short.
    pub fn cut_largest(&mut self, id: SessionId) {
        if self.session(id).is_some_and(Session::is_open) {
            self.counters.inc(Count::MemoryCut);
            self.evict_slow(id.slot);
        }
    }

    fn id_of(&self, slot: usize, session: &Session) -> SessionId {
        SessionId { core: self.settings.core, slot: slot_number(slot), generation: session.generation }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        hub::{HubSettings, NewSession, text_frame},
        limits::Limits,
        metrics::Counters,
        model::{Boot, Pid, Role, TagRule, TagRules},
    };

    fn hub() -> Hub {
        let (limits, rules) = (Arc::new(Limits::default()), TagRules::default());
        let settings = HubSettings { node: 1, boot: Boot(1), core: 0, limits, rules, outboxes_bytes_max: 1 << 30 };
        Hub::new(settings, Arc::<Counters>::default())
    }

    fn open(hub: &mut Hub, pid: &str, uid: &str) -> SessionId {
        hub.open(NewSession {
            pid: Pid::new(pid).expect("a pid"),
            role: Role::User,
            uid: uid.into(),
            device: None,
            tag_patterns: None,
            expires: None,
            deflate: None,
        })
    }

    #[test]
    fn the_largest_outboxes_are_named_first_and_cut_once() {
        let mut hub = hub();
        let ids: Vec<SessionId> = (0..5).map(|uid| open(&mut hub, "1", &uid.to_string())).collect();
        for (id, bytes) in ids.iter().zip([3000, 500, 9000, 7000, 100]) {
            hub.send(*id, text_frame(&vec![b'x'; bytes]));
        }
        let named = |hub: &Hub, count| -> Vec<SessionId> {
            hub.largest_outboxes(count, 400).into_iter().map(|(_, id)| id).collect()
        };
        assert_eq!(named(&hub, 2), [ids[2], ids[3]]);
        assert_eq!(named(&hub, 9), [ids[2], ids[3], ids[0], ids[1]]);
        hub.cut_largest(ids[2]);
        hub.cut_largest(ids[2]);
        assert_eq!(hub.counters.get(Count::MemoryCut), 1);
        assert_eq!(named(&hub, 1), [ids[3]]);
    }

    #[test]
    fn only_own_subscriptions_that_the_rules_deny_are_named() {
        let mut hub = hub();
        let (ann, bob) = (open(&mut hub, "1", "ann"), open(&mut hub, "1", "bob"));
        let tag = |name: &str| Tag::new(name).expect("a tag");
        for (id, name) in [(ann, "own.ann"), (ann, "own.bob"), (bob, "own.ann"), (bob, "open")] {
            hub.follow(id, &tag(name), None).expect("it may");
        }
        assert!(hub.denied().is_empty());
        let rule = TagRule { pattern: "own.*".into(), access: Access::Own, ..TagRule::default() };
        hub.reload(TagRules::new(vec![rule]));
        assert_eq!(hub.denied(), [(ann, vec![tag("own.bob")]), (bob, vec![tag("own.ann")])]);
        hub.mark_ordered(bob, &tag("own.ann"));
        assert_eq!(hub.denied(), [(ann, vec![tag("own.bob")])]);
        open(&mut hub, "2", "eve");
        assert_eq!(hub.of_projects_gone(|pid| pid == "2"), [ann, bob]);
    }
}
