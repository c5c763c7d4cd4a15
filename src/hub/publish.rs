//! A publication on its way to the local subscribers of its tag.
//!
//! Invariant: matched = queued + merged + evicted after each delivery; who is behind is not visited.

use std::sync::Arc;

use crate::{
    model::{Published, Stamp, Tag},
    protocol::{frame::OpCode, message},
};

use super::{
    Delivery, EXPRESS_FAN_OUT_MAX, Hub,
    encoded::Encoded,
    outbox::ValueOf,
    session::Standing,
    stamped::{Born, Frame},
    tags::{Subscriber, VALUES_AHEAD_MAX},
};

/// What waits for a connection that keeps up, while the core's outboxes are over their bound together.
const VALUES_AHEAD_CROWDED_MAX: usize = 4;

impl Hub {
    /// Delivers a publication to the local subscribers of its tag: queued, or owed to those who are behind or whose
    /// rate it would exceed.
    pub fn publish(&mut self, published: &Arc<Published>) -> Delivery {
        let mut delivery = Delivery::default();
        let known = self.projects.find(&published.pid).and_then(|project| self.tags.find(project, &published.tag));
        let Some(known) = known else { return delivery };
        let kept_bytes_max = self.kept_bytes_max();
        let local = self.tags.get_mut(known);
        let (grown, shrunk) = local.remember(published, kept_bytes_max);
        self.outboxes_bytes = self.outboxes_bytes + grown - shrunk;
        let local = self.tags.get(known);
        (delivery.matched, delivery.merged) = (local.behind.len(), local.behind.len());
        delivery.conflates = local.conflates(0);
        let streams = local.streams.len();
        if delivery.conflates {
            self.publish_values(known, published, &mut delivery);
        } else {
            self.publish_frames(known, published, &mut delivery);
        }
        for stream in 1..streams {
            self.publish_at_rate(known, stream, &mut delivery);
        }
        self.conflate_overfull();
        debug_assert_eq!(
            delivery.matched,
            delivery.queued + delivery.merged + delivery.evicted,
            "each match has one outcome"
        );
        delivery
    }

    /// Tells the local subscribers of a tag that publications are lost.
    pub fn announce_gap(&mut self, pid: &str, tag: &Tag) -> Delivery {
        let mut delivery = Delivery::default();
        let known = self.projects.find(pid).and_then(|project| self.tags.find(project, tag));
        let Some(known) = known else { return delivery };
        let frame = self.gap_frame(known);
        let subscribers: Vec<Subscriber> = self.tags.get(known).subscribers().collect();
        let number = self.tags.get(known).number;
        for subscriber in subscribers {
            let membership = self.membership_mut(subscriber);
            let is_behind = membership.standing == Standing::Behind;
            let is_owed = is_behind || (membership.stream > 0 && membership.seen != number);
            (membership.gap_at, membership.gap_told) = (number, !is_owed);
            if is_owed {
                (delivery.matched, delivery.merged) = (delivery.matched + 1, delivery.merged + 1);
            } else if self.sessions[subscriber.slot as usize].is_open() {
                self.enqueue(subscriber.slot, frame.clone(), true, &mut delivery);
            }
        }
        delivery
    }

    /// Encodes the text that `write` appends to its argument.
    pub(super) fn encode(&mut self, may_deflate: bool, stamp: &Stamp, write: impl FnOnce(&mut Vec<u8>)) -> Encoded {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        write(&mut text);
        let encoded = Encoded::new(OpCode::Text, &text, may_deflate, Born::new(stamp.received_us, self.wall_us));
        self.scratch = text;
        encoded
    }

    fn encode_live(&mut self, tag: u32, published: &Published) -> Encoded {
        let may_deflate = self.tags.get(tag).deflate;
        let live = message::Arrival::Live { merged: 0 };
        self.encode(may_deflate, &published.stamp, |text| message::publication(text, published, live))
    }

    /// To those who get every publication in order.
    fn publish_frames(&mut self, tag: u32, published: &Published, delivery: &mut Delivery) {
        let live = std::mem::take(&mut self.tags.get_mut(tag).streams[0].live);
        if !live.is_empty() {
            let mut encoded = self.encode_live(tag, published);
            let express = live.len() <= EXPRESS_FAN_OUT_MAX;
            for subscriber in &live {
                if self.sessions[subscriber.slot as usize].is_open() {
                    let frame = self.frame_for(subscriber.slot, &mut encoded);
                    self.enqueue(subscriber.slot, frame, express, delivery);
                }
            }
        }
        // Nothing above joins or leaves a tag, so the list is still the tag's.
        self.tags.get_mut(tag).streams[0].live = live;
    }

    /// To those who get every publication as long as their sockets take it.
    fn publish_values(&mut self, tag: u32, published: &Published, delivery: &mut Delivery) {
        let local = self.tags.get_mut(tag);
        let number = local.number;
        let mut live = std::mem::take(&mut local.streams[0].live);
        if !live.is_empty() {
            let mut encoded = self.encode_live(tag, published);
            let express = live.len() <= EXPRESS_FAN_OUT_MAX;
            let mut place = 0;
            while let Some(&subscriber) = live.get(place) {
                let session = &self.sessions[subscriber.slot as usize];
                if session.is_open() && session.blocked {
                    live.swap_remove(place);
                    self.note_moved(&live, place);
                    self.fall_behind(subscriber, number.wrapping_sub(1));
                    (delivery.matched, delivery.merged) = (delivery.matched + 1, delivery.merged + 1);
                    continue;
                }
                if session.is_open() {
                    let value = ValueOf { tag, number, merged: 0, firm: false };
                    let frame = self.frame_for(subscriber.slot, &mut encoded);
                    self.enqueue_value(subscriber.slot, frame, value, express);
                    (delivery.matched, delivery.queued) = (delivery.matched + 1, delivery.queued + 1);
                }
                place += 1;
            }
        }
        self.tags.get_mut(tag).streams[0].live = live;
    }

    /// The list has got another subscription at `place`.
    pub(super) fn note_moved(&mut self, list: &[Subscriber], place: usize) {
        if let Some(&moved) = list.get(place) {
            self.membership_mut(moved).place = super::slot_number(place);
        }
    }

    /// Queues a value; an outbox with more of them than a full write is conflated when the delivery is over.
    pub(super) fn enqueue_value(&mut self, slot: u32, frame: Frame, value: ValueOf, express: bool) {
        let writing = &self.settings.limits.writing;
        let crowded = self.outboxes_bytes > self.settings.outboxes_bytes_max;
        let ahead_max = if crowded { VALUES_AHEAD_CROWDED_MAX } else { VALUES_AHEAD_MAX };
        self.outboxes_bytes += frame.len();
        let outbox = &mut self.sessions[slot as usize].outbox;
        outbox.push_value(frame, value);
        if outbox.len() > ahead_max || outbox.bytes() > writing.write_bytes_max {
            self.overfull.push(slot);
        }
        self.mark_dirty(slot, express);
    }

    fn kept_bytes_max(&self) -> usize {
        let bytes_max = self.settings.limits.writing.kept_bytes_max;
        let crowded = self.outboxes_bytes > self.settings.outboxes_bytes_max;
        if crowded { bytes_max / 16 } else { bytes_max }
    }
}
