//! A publication on its way to the local subscribers of its tag.
//!
//! Invariant: matched = queued + merged + evicted after each delivery; who is behind is not visited.

use std::sync::Arc;

use crate::{
    model::{Published, Stamp, Tag},
    protocol::{frame, frame::OpCode, message},
};

use super::{
    Delivery, Hub,
    encoded::Encoded,
    outbox::ValueOf,
    session::{Note, Standing},
    stamped::{Born, Frame, Piece},
    tags::{Subscriber, VALUES_AHEAD_MAX},
};

/// What waits for a connection that keeps up, while the core's outboxes are over their bound together.
const VALUES_AHEAD_CROWDED_MAX: usize = 4;

/// Publications that are delivered together: frames and bytes of payload.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES_MAX: usize = 32 << 10;

/// Publications of one tag that follow each other, as those get them who get every one.
struct Run<'a> {
    published: &'a [Arc<Published>],
    /// Of a single one.
    single: Option<Encoded>,
    /// Of several: all in a row, and one by one for those who are sent compressed frames.
    together: Option<Piece>,
    apart: Vec<Encoded>,
}

/// A run's frames for one subscriber.
enum Frames<'a> {
    Together(Piece),
    Apart(&'a mut [Encoded]),
}

impl Hub {
    /// Delivers a publication to the local subscribers of its tag: queued, or owed to those who are behind or whose
    /// rate it would exceed.
    pub fn publish(&mut self, published: &Arc<Published>) -> Delivery {
        self.publish_all(std::slice::from_ref(published))
    }

    /// Delivers publications of one tag that follow each other, as if one by one.
    ///
    /// Why: a subscriber is visited once for as many as fit together, and holds one reference for them all.
    pub fn publish_all(&mut self, published: &[Arc<Published>]) -> Delivery {
        let mut delivery = Delivery::default();
        let mut rest = published;
        while let Some(first) = rest.first() {
            let known = self.projects.find(&first.pid).and_then(|project| self.tags.find(project, &first.tag));
            let Some(known) = known else { break };
            let (run, behind) = rest.split_at(self.together(known, rest));
            self.publish_run(known, run, &mut delivery);
            rest = behind;
        }
        debug_assert_eq!(
            delivery.matched,
            delivery.queued + delivery.merged + delivery.evicted,
            "each match has one outcome"
        );
        delivery
    }

    /// How many of them are delivered together, one at least.
    fn together(&self, tag: u32, published: &[Arc<Published>]) -> usize {
        // Each has to be looked at apart where some get only a few of them.
        if self.tags.get(tag).has_rates() {
            return 1;
        }
        let mut bytes = 0;
        let fits = |published: &&Arc<Published>| {
            bytes += published.payload.len();
            bytes <= TOGETHER_BYTES_MAX
        };
        published.iter().take(TOGETHER_MAX).take_while(fits).count().max(1)
    }

    fn publish_run(&mut self, tag: u32, published: &[Arc<Published>], delivery: &mut Delivery) {
        let kept_bytes_max = self.kept_bytes_max();
        let local = self.tags.get_mut(tag);
        let queued = local.number;
        for published in published {
            let (grown, shrunk) = local.remember(published, queued, kept_bytes_max);
            self.outboxes_bytes = self.outboxes_bytes + grown - shrunk;
        }
        let owed = local.behind.len() * published.len();
        (delivery.matched, delivery.merged) = (delivery.matched + owed, delivery.merged + owed);
        delivery.conflates = local.conflates(0);
        let streams = local.streams.len();
        if delivery.conflates {
            self.publish_values(tag, published, delivery);
        } else {
            self.publish_frames(tag, published, delivery);
        }
        for stream in 1..streams {
            self.publish_at_rate(tag, stream, delivery);
        }
        self.conflate_overfull();
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
            membership.gap_at = number;
            membership.notes.set(Note::GapTold, !is_owed);
            if is_owed {
                (delivery.matched, delivery.merged) = (delivery.matched + 1, delivery.merged + 1);
            } else if self.sessions[subscriber.slot as usize].is_open() {
                self.enqueue(subscriber.slot, frame.clone().into(), true, &mut delivery);
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

    fn encode_run<'a>(&mut self, tag: u32, published: &'a [Arc<Published>]) -> Run<'a> {
        let mut run = Run { published, single: None, together: None, apart: Vec::new() };
        match published {
            [single] => run.single = Some(self.encode_live(tag, single)),
            _ => run.together = Some(self.encode_together(published)),
        }
        run
    }

    /// All of them in a row.
    fn encode_together(&mut self, published: &[Arc<Published>]) -> Piece {
        let mut text = std::mem::take(&mut self.scratch);
        let (mut bytes, mut parts) = (Vec::new(), Vec::with_capacity(published.len()));
        for published in published {
            text.clear();
            message::publication(&mut text, published, message::Arrival::Live { merged: 0 });
            frame::encode_into(&mut bytes, OpCode::Text, &text);
            parts.push((super::slot_number(bytes.len()), Born::new(published.stamp.received_us, self.wall_us)));
        }
        self.scratch = text;
        Frame::several(bytes, &parts).into()
    }

    /// The frames of a run for one of those who get it: one for all, or one for each.
    fn frames_for<'a>(&mut self, slot: u32, tag: u32, run: &'a mut Run<'_>) -> Frames<'a> {
        if let Some(single) = &mut run.single {
            return Frames::Together(self.frame_for(slot, single));
        }
        let deflates = self.tags.get(tag).deflate && self.sessions[slot as usize].deflate.is_some();
        match &run.together {
            Some(together) if !deflates => Frames::Together(together.clone()),
            _ => {
                if run.apart.is_empty() {
                    run.apart = run.published.iter().map(|published| self.encode_live(tag, published)).collect();
                }
                Frames::Apart(&mut run.apart)
            }
        }
    }

    /// To those who get every publication in order.
    fn publish_frames(&mut self, tag: u32, published: &[Arc<Published>], delivery: &mut Delivery) {
        let live = std::mem::take(&mut self.tags.get_mut(tag).streams[0].live);
        if !live.is_empty() {
            let mut run = self.encode_run(tag, published);
            let express = self.walk.is_express(live.len());
            for &Subscriber { slot, .. } in &live {
                if !self.sessions[slot as usize].is_open() {
                    continue;
                }
                match self.frames_for(slot, tag, &mut run) {
                    Frames::Together(frame) => self.enqueue(slot, frame, express, delivery),
                    Frames::Apart(apart) => {
                        for encoded in apart {
                            if self.sessions[slot as usize].is_open() {
                                let frame = self.frame_for(slot, encoded);
                                self.enqueue(slot, frame, express, delivery);
                            }
                        }
                    }
                }
            }
        }
        // Nothing above joins or leaves a tag, so the list is still the tag's.
        self.tags.get_mut(tag).streams[0].live = live;
    }

    /// To those who get every publication as long as their sockets take it.
    fn publish_values(&mut self, tag: u32, published: &[Arc<Published>], delivery: &mut Delivery) {
        let local = self.tags.get_mut(tag);
        let (number, count) = (local.number, super::slot_number(published.len()));
        let mut live = std::mem::take(&mut local.streams[0].live);
        if !live.is_empty() {
            let mut run = self.encode_run(tag, published);
            let express = self.walk.is_express(live.len());
            let mut place = 0;
            while let Some(&subscriber) = live.get(place) {
                let slot = subscriber.slot;
                let session = &self.sessions[slot as usize];
                if session.is_open() && session.blocked {
                    live.swap_remove(place);
                    self.note_moved(&live, place);
                    self.fall_behind(subscriber, number.wrapping_sub(count));
                    delivery.matched += published.len();
                    delivery.merged += published.len();
                    continue;
                }
                if session.is_open() {
                    let value = |number, merged| ValueOf { tag, number, merged, firm: false };
                    match self.frames_for(slot, tag, &mut run) {
                        Frames::Together(frame) => self.enqueue_value(slot, frame, value(number, count - 1), express),
                        Frames::Apart(apart) => {
                            for (behind, encoded) in (0..count).rev().zip(apart) {
                                let frame = self.frame_for(slot, encoded);
                                self.enqueue_value(slot, frame, value(number.wrapping_sub(behind), 0), express);
                            }
                        }
                    }
                    delivery.matched += published.len();
                    delivery.queued += published.len();
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
    pub(super) fn enqueue_value(&mut self, slot: u32, piece: Piece, value: ValueOf, express: bool) {
        let writing = &self.settings.limits.writing;
        let crowded = self.outboxes_bytes > self.settings.outboxes_bytes_max;
        let ahead_max = if crowded { VALUES_AHEAD_CROWDED_MAX } else { VALUES_AHEAD_MAX };
        self.outboxes_bytes += piece.bytes as usize;
        let session = &mut self.sessions[slot as usize];
        session.outbox.push_value(piece, value);
        if session.outbox.len() > ahead_max || session.outbox.bytes() > writing.write_bytes_max {
            self.overfull.push(slot);
        }
        self.walk.mark(slot, session, express);
    }

    fn kept_bytes_max(&self) -> usize {
        let bytes_max = self.settings.limits.writing.kept_bytes_max;
        let crowded = self.outboxes_bytes > self.settings.outboxes_bytes_max;
        if crowded { bytes_max / 16 } else { bytes_max }
    }
}
