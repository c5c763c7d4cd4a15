//! What those get who do not get every publication: the slow ones of `latest` tags, and who asked for a rate.
//!
//! Method: such a subscription holds no queue. It remembers the number of the last publication it was given; when its
//! socket takes bytes again, or its rate allows, it gets the tag's kept publications since then, in order, and the
//! newest, each with the number of those it stands for (`merged`).
//! Invariants: what is owed costs the connection nothing, however long it takes; a kept publication is never merged
//! away: one that is given up for its bound of bytes closes (4008) those who were owed it.

use std::{cmp::Reverse, collections::HashSet};

use crate::{
    metrics::Count,
    model::{Published, TagRules},
    protocol::message,
};

use super::{
    Delivery, Hub,
    outbox::ValueOf,
    session::{Membership, Millis, Note, Standing},
    stamped::{Frame, Piece},
    tags::{Subscriber, is_after},
    text_frame,
};

/// How far a subscription was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It has everything.
    Current,
    /// The bytes are used up.
    More,
    /// A kept publication that it is owed is gone.
    Hole,
}

/// Those who are behind.
impl Hub {
    /// A live subscription, out of its list, gives up its turn: it has got everything up to `seen`.
    pub(super) fn fall_behind(&mut self, subscriber: Subscriber, seen: u32) {
        self.membership_mut(subscriber).seen = seen;
        self.enlist(subscriber, Standing::Behind);
        let session = &mut self.sessions[subscriber.slot as usize];
        session.behind += 1;
        // Whoever waits for the socket of a blocked one writes on; anybody else is to be visited.
        if !session.blocked {
            self.mark_dirty(subscriber.slot, false);
        }
        self.counters.add(Count::SubscriptionsBehind, 1);
    }

    /// A subscription that is behind owes nothing any more, or its rate will see to it.
    fn catch_up(&mut self, subscriber: Subscriber) {
        let gone = self.membership_of(subscriber);
        self.take_from_list(&gone);
        self.enlist(subscriber, Standing::Live);
        let session = &mut self.sessions[subscriber.slot as usize];
        session.behind -= 1;
        if !self.tags.get(gone.tag).conflates(gone.stream) {
            // From now on it gets every publication, and the tag remembers none for it.
            session.outbox.settle(gone.tag);
        }
        self.counters.sub(Count::SubscriptionsBehind, 1);
    }

    /// What a subscription is owed comes another way: by a replay.
    pub(super) fn forgive(&mut self, subscriber: Subscriber) {
        let Membership { tag, standing, .. } = self.membership_of(subscriber);
        let number = self.tags.get(tag).number;
        let membership = self.membership_mut(subscriber);
        membership.pass(number);
        membership.notes.set(Note::Again, false);
        membership.notes.set(Note::AgainGap, false);
        if standing == Standing::Behind {
            self.catch_up(subscriber);
        }
    }

    /// Takes the values that wait for a slow session out of its outbox: it is owed the current ones instead.
    pub(super) fn conflate(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let before = session.outbox.bytes();
        let mut taken = Vec::new();
        let thinned = session.outbox.take_values(|value| {
            if !taken.iter().any(|other: &ValueOf| other.tag == value.tag) {
                taken.push(value);
            }
        });
        self.outboxes_bytes -= before - session.outbox.bytes();
        self.counters.add(Count::Merged, thinned as u64);
        for value in taken {
            let session = &self.sessions[slot as usize];
            let Some(membership) = session.membership(value.tag) else { continue };
            let subscriber = Subscriber { slot, membership };
            let gone = self.membership_of(subscriber);
            match gone.standing {
                Standing::Live => {
                    self.take_from_list(&gone);
                    self.fall_behind(subscriber, value.before());
                }
                // It was being brought up to date: that much less has been given.
                Standing::Behind => self.membership_mut(subscriber).seen = value.before(),
                Standing::Asking => continue,
            }
            // A gap that was told behind them is told again, before what comes in their place.
            self.membership_mut(subscriber).notes.set(Note::GapTold, false);
        }
    }

    pub(super) fn conflate_overfull(&mut self) {
        while let Some(slot) = self.overfull.pop() {
            self.conflate(slot);
        }
    }

    /// Queues current values for a session whose socket takes bytes, up to about `bytes_max`.
    pub(super) fn bring_up(&mut self, slot: u32, bytes_max: usize) {
        while let Some(session) = self.sessions.get_mut(slot as usize)
            && session.behind > 0
            && session.is_open()
            && session.outbox.bytes() < bytes_max
        {
            let count = super::slot_number(session.tags.len());
            let turn = |step: u32| (session.behind_cursor + step) % count;
            let next = (0..count).map(turn).find(|index| session.tags[*index as usize].standing == Standing::Behind);
            let Some(membership) = next else { return };
            let subscriber = Subscriber { slot, membership };
            if self.waits_for_its_rate(subscriber) {
                self.catch_up(subscriber);
                continue;
            }
            match self.bring(subscriber, bytes_max, false) {
                Progress::Current => {
                    self.catch_up(subscriber);
                    self.sessions[slot as usize].behind_cursor = membership + 1;
                }
                Progress::More => return,
                Progress::Hole => return self.evict_owed(slot),
            }
        }
    }

    /// Queues what a subscription is owed, until about `bytes_max` wait; `together` says that others are brought the same.
    fn bring(&mut self, subscriber: Subscriber, bytes_max: usize, together: bool) -> Progress {
        let Membership { tag, seen, .. } = self.membership_of(subscriber);
        if self.tags.get(tag).kept.has_lost_after(seen) {
            return Progress::Hole;
        }
        loop {
            let owed = self.membership_of(subscriber);
            let (seen, again) = (owed.seen, owed.notes.has(Note::Again));
            let local = self.tags.get(tag);
            let is_owed = |number: u32| number != seen || again;
            let newest = || Some((local.number, local.newest.as_ref()?)).filter(|(number, _)| is_owed(*number));
            let Some((number, published)) = local.kept.after(seen).or_else(newest) else { break };
            if self.sessions[subscriber.slot as usize].outbox.bytes() >= bytes_max {
                return Progress::More;
            }
            let (published, is_snapshot) = (published.clone(), again && number == local.number);
            let merged = number.wrapping_sub(seen).wrapping_sub(1);
            // Nothing comes in the place of a snapshot that was asked for.
            let value = ValueOf { tag, number, merged, firm: published.keep || is_snapshot };
            let piece = if is_snapshot {
                let membership = self.membership_mut(subscriber);
                membership.notes.set(Note::Again, false);
                membership.notes.set(Note::AgainGap, false);
                let (mut text, gap) = (Vec::new(), owed.notes.has(Note::AgainGap));
                message::publication(&mut text, &published, message::Arrival::Snapshot { gap });
                Piece::from(text_frame(&text))
            } else {
                self.counters.add(Count::Merged, u64::from(merged));
                self.encode_merged(subscriber.slot, value, &published, together)
            };
            // In one piece with the value: where that gives way, its gap is told with the next.
            let piece = if owed.owes_gap() {
                Frame::new([&*self.gap_frame(tag), &*piece.frame].concat(), piece.frame.born()).into()
            } else {
                piece
            };
            let membership = self.membership_mut(subscriber);
            membership.seen = number;
            if is_after(number, membership.gap_at) {
                membership.notes.set(Note::GapTold, false);
            }
            self.outboxes_bytes += piece.bytes as usize;
            self.sessions[subscriber.slot as usize].outbox.push_value(piece, value);
        }
        if self.membership_of(subscriber).owes_gap() {
            self.membership_mut(subscriber).notes.set(Note::GapTold, true);
            let frame = self.gap_frame(tag);
            self.outboxes_bytes += frame.len();
            self.sessions[subscriber.slot as usize].outbox.push(frame);
        }
        Progress::Current
    }

    pub(super) fn gap_frame(&self, tag: u32) -> Frame {
        let mut text = Vec::new();
        message::gap(&mut text, &self.tags.get(tag).name);
        text_frame(&text)
    }

    /// A value's frame for a session; those who have missed the same share it.
    ///
    /// Who catches up has mostly missed what nobody else has: only from the second one on, or for a whole stream
    /// (`together`), is it compressed.
    fn encode_merged(&mut self, slot: u32, value: ValueOf, published: &Published, together: bool) -> Piece {
        let ValueOf { tag, number, merged, .. } = value;
        let local = self.tags.get_mut(tag);
        let known = local.encoded.take().filter(|(of, stands_for, _)| (*of, *stands_for) == (number, merged));
        let (may_deflate, is_shared) = (local.deflate, together || known.is_some());
        let live = message::Arrival::Live { merged };
        let (_, _, mut encoded) = known.unwrap_or_else(|| {
            let encoded =
                self.encode(may_deflate, &published.stamp, |text| message::publication(text, published, live));
            (number, merged, encoded)
        });
        let frame = if is_shared { self.frame_for(slot, &mut encoded) } else { encoded.plain() };
        self.tags.get_mut(tag).encoded = Some((number, merged, encoded));
        frame
    }
}

/// Those with a rate.
impl Hub {
    /// When the next update of a rate is due.
    pub fn next_due(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((due, ..))| *due)
    }

    /// Sends the updates that are due.
    pub fn release_due(&mut self) {
        while let Some(&Reverse((due, tag, stream))) = self.due.peek()
            && due <= self.now_ms
        {
            self.due.pop();
            // The slot may have passed to another tag, the stream to another rate: then nothing waits, or for longer.
            let found = self.tags.if_there(tag).and_then(|local| local.streams.get(usize::from(stream)));
            if found.is_some_and(|stream| stream.armed && stream.due == due) {
                self.release(tag, usize::from(stream));
            }
        }
        self.conflate_overfull();
    }

    /// A publication for the members of a stream: now, if they may have it, or when it is due.
    pub(super) fn publish_at_rate(&mut self, tag: u32, stream: usize, delivery: &mut Delivery) {
        let members = &self.tags.get(tag).streams[stream];
        let count = members.live.len();
        if count == 0 {
            return;
        }
        delivery.matched += count;
        if self.now_ms < members.due {
            delivery.merged += count;
            self.arm(tag, stream);
        } else {
            let (queued, evicted) = self.release(tag, stream);
            (delivery.queued, delivery.evicted) = (delivery.queued + queued, delivery.evicted + evicted);
            delivery.merged += count - queued - evicted;
        }
    }

    fn arm(&mut self, tag: u32, stream: usize) {
        let members = &mut self.tags.get_mut(tag).streams[stream];
        if !std::mem::replace(&mut members.armed, true) {
            self.due.push(Reverse((members.due, tag, super::slot_number(stream) as u16)));
        }
    }

    /// Brings the members of a stream up to date; how many of them took it, and how many are being closed.
    fn release(&mut self, tag: u32, stream: usize) -> (usize, usize) {
        let now_ms = self.now_ms;
        let members = &mut self.tags.get_mut(tag).streams[stream];
        members.armed = false;
        members.due = now_ms + Millis::from(members.interval_ms);
        let mut live = std::mem::take(&mut members.live);
        let bytes_max = self.settings.limits.writing.write_bytes_max;
        let express = self.walk.is_express(live.len());
        let (mut place, mut queued, mut evicted) = (0, 0, 0);
        while let Some(&subscriber) = live.get(place) {
            let session = &self.sessions[subscriber.slot as usize];
            if !session.is_open() {
                place += 1;
                continue;
            }
            let progress = if session.blocked { Progress::More } else { self.bring(subscriber, bytes_max, true) };
            match progress {
                Progress::Current => {
                    self.mark_dirty(subscriber.slot, express);
                    (place, queued) = (place + 1, queued + 1);
                }
                Progress::More => {
                    // The rest is brought when its socket takes bytes.
                    live.swap_remove(place);
                    self.note_moved(&live, place);
                    let seen = self.membership_of(subscriber).seen;
                    self.fall_behind(subscriber, seen);
                }
                // Waiting for another turn would not bring back what is gone.
                Progress::Hole => {
                    self.evict_owed(subscriber.slot);
                    (place, evicted) = (place + 1, evicted + 1);
                }
            }
        }
        self.tags.get_mut(tag).streams[stream].live = live;
        (queued, evicted)
    }

    /// Closes a connection that is owed a kept publication which is gone.
    fn evict_owed(&mut self, slot: u32) {
        self.counters.inc(Count::KeptLost);
        self.evict_slow(slot);
    }

    fn waits_for_its_rate(&mut self, subscriber: Subscriber) -> bool {
        let Membership { tag, stream, .. } = self.membership_of(subscriber);
        let stream = usize::from(stream);
        let waits = stream > 0 && self.now_ms < self.tags.get(tag).streams[stream].due;
        if waits {
            self.arm(tag, stream);
        }
        waits
    }

    /// Moves a subscription to the stream of its rate, after that, or the rule's, has changed.
    pub(super) fn change_stream(&mut self, subscriber: Subscriber) {
        let Membership { tag, stream, asked_ms, standing, .. } = self.membership_of(subscriber);
        let local = self.tags.get_mut(tag);
        let wanted = local.join_stream(asked_ms);
        local.streams[usize::from(stream)].members -= 1;
        if wanted == stream {
            return;
        }
        if standing != Standing::Live {
            self.membership_mut(subscriber).stream = wanted;
            return;
        }
        let (number, conflates) = (local.number, local.conflates(wanted));
        let gone = self.membership_of(subscriber);
        self.take_from_list(&gone);
        if !conflates {
            self.sessions[subscriber.slot as usize].outbox.settle(tag);
        }
        let membership = self.membership_mut(subscriber);
        membership.stream = wanted;
        let seen = if stream == 0 { number } else { membership.seen };
        membership.seen = seen;
        if seen == number {
            self.enlist(subscriber, Standing::Live);
        } else {
            self.fall_behind(subscriber, seen);
        }
    }

    /// Replaces the rules of tags; what was queued by the old ones stays. However many tags change, the sessions are gone
    /// through once.
    pub fn reload(&mut self, rules: TagRules) {
        self.rules = rules;
        let (mut reclassed, mut rerated) = (HashSet::new(), HashSet::new());
        for tag in self.tags.slots() {
            let local = self.tags.get_mut(tag);
            let rule = self.rules.find(&local.name);
            if std::mem::replace(&mut local.class, rule.class) != rule.class {
                reclassed.insert(tag);
            }
            if std::mem::replace(&mut local.deflate, rule.deflate) != rule.deflate {
                local.encoded = None;
            }
            if std::mem::replace(&mut local.hz_max, rule.hz_max) != rule.hz_max {
                rerated.insert(tag);
            }
        }
        if !reclassed.is_empty() {
            // What a tag does not remember any more must not give way.
            self.sessions.iter_mut().for_each(|(_, session)| session.outbox.settle_all(|tag| reclassed.contains(&tag)));
        }
        if !rerated.is_empty() {
            self.members_of(&rerated).into_iter().for_each(|subscriber| self.change_stream(subscriber));
        }
    }

    /// All subscriptions of some tags, those included that are asking.
    fn members_of(&self, tags: &HashSet<u32>) -> Vec<Subscriber> {
        let of_session = |(slot, session): (usize, &super::Session)| {
            let of_tags = (0..).zip(&session.tags).filter(|(_, membership)| tags.contains(&membership.tag));
            let slot = super::slot_number(slot);
            of_tags.map(|(membership, _)| Subscriber { slot, membership }).collect::<Vec<_>>()
        };
        self.sessions.iter().flat_map(of_session).collect()
    }
}
