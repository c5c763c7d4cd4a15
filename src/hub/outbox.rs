//! What waits to be written to one connection, in order.
//!
//! Invariants: frames leave in the order in which they came; a frame that has begun to leave is finished before
//! anything else; `bytes` counts exactly the queued frames. A replay counts nothing: it is expanded only as the
//! socket takes it. Values give way ([`Outbox::take_values`]); what their receiver is owed then is the caller's to know.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use crate::model::Published;

use super::{
    replay::Replay,
    stamped::{Born, Frame},
};

/// An emptied queue with more room than this gives it back.
const SPARE_ITEMS_MAX: usize = 32;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    /// How many of the items are values.
    values: u32,
    /// Bytes of the first item that the socket has taken.
    head_sent: usize,
}

#[derive(Debug)]
enum Item {
    Frame(Frame),
    Value(Frame, ValueOf),
    Replay(Box<Replay>),
}

/// Which publication a queued value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueOf {
    /// The tag's slot in the hub.
    pub tag: u32,
    /// The publication's number on this core.
    pub number: u32,
    /// How many publications before it this one stands for too.
    pub merged: u32,
    /// It does not give way: a kept publication that its tag may not remember any more.
    pub firm: bool,
}

impl ValueOf {
    /// The number of the publication that its receiver gets before it.
    pub fn before(self) -> u32 {
        self.number.wrapping_sub(self.merged).wrapping_sub(1)
    }
}

/// The outbox is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

impl Outbox {
    /// Queues a frame, unless the bytes or frames that wait would pass their bound.
    pub fn offer(&mut self, frame: Frame, bytes_max: usize, frames_max: usize) -> Result<(), OutboxFull> {
        // A frame that finds nothing before it always fits: the bound is on waiting, not on size.
        let fits = self.bytes + frame.len() <= bytes_max && self.items.len() < frames_max;
        if !fits && !self.items.is_empty() {
            return Err(OutboxFull);
        }
        self.push(frame);
        Ok(())
    }

    /// Queues a frame whatever waits: for the few that are bounded by their kind (a close, a handshake's answer).
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        self.items.push_back(Item::Frame(frame));
    }

    /// Queues a value, which gives way when the socket takes nothing. Its number is the caller's to bound.
    pub fn push_value(&mut self, frame: Frame, of: ValueOf) {
        self.bytes += frame.len();
        self.values += 1;
        self.items.push_back(Item::Value(frame, of));
    }

    /// Queues what a resuming subscriber has missed; it costs no bytes until the socket takes it. Of one that
    /// `conflates` a slow socket gets only what is kept and the newest.
    pub fn push_replay(&mut self, missed: Vec<Arc<Published>>, conflates: bool) {
        if !missed.is_empty() {
            self.items.push_back(Item::Replay(Box::new(Replay::new(missed, conflates))));
        }
    }

    /// Drops everything but a frame that has begun to leave; how many items were dropped.
    pub fn cut(&mut self) -> usize {
        let kept = usize::from(self.head_sent > 0);
        let dropped = self.items.len().saturating_sub(kept);
        self.items.truncate(kept);
        self.bytes = self.items.iter().map(Item::len).sum();
        self.values = self.items.iter().map(|item| u32::from(item.is_value())).sum();
        dropped
    }

    /// Takes out the values that may give way and have not begun to leave, each told to `each`, oldest first, and thins
    /// the replays; how many publications that merged away.
    pub fn take_values(&mut self, mut each: impl FnMut(ValueOf)) -> usize {
        let firm: Vec<(usize, u32)> = self.firm_places();
        let (mut place, mut thinned) = (0, 0);
        let (bytes, values, head_sent) = (&mut self.bytes, &mut self.values, self.head_sent);
        self.items.retain_mut(|item| {
            place += 1;
            match item {
                Item::Replay(replay) => thinned += replay.thin(),
                Item::Value(frame, of) => {
                    let has_begun = place == 1 && head_sent > 0;
                    // A firm one says what it stands for, so what is before it must come before it.
                    let is_followed = firm.iter().any(|(firm, tag)| *tag == of.tag && place <= *firm);
                    if !has_begun && !is_followed {
                        *bytes -= frame.len();
                        *values -= 1;
                        each(*of);
                        return false;
                    }
                }
                Item::Frame(_) => {}
            }
            true
        });
        if self.items.len() * 2 < self.items.capacity() {
            self.items.shrink_to_fit();
        }
        thinned
    }

    /// The firm values: their places, from 1, and their tags.
    fn firm_places(&self) -> Vec<(usize, u32)> {
        let firm = |(place, item): (usize, &Item)| match item {
            Item::Value(_, of) if of.firm => Some((place, of.tag)),
            _ => None,
        };
        (1..).zip(&self.items).filter_map(firm).collect()
    }

    /// The values of a tag give way no more: their subscription is over.
    pub fn settle(&mut self, tag: u32) {
        self.settle_all(|other| other == tag);
    }

    /// The values of the tags that `is_settled` names give way no more.
    pub fn settle_all(&mut self, is_settled: impl Fn(u32) -> bool) {
        for item in &mut self.items {
            if let Item::Value(frame, of) = item
                && is_settled(of.tag)
            {
                self.values -= 1;
                *item = Item::Frame(frame.clone());
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the frames that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames (and replays) that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether something waits that is no value.
    pub fn has_more_than_values(&self) -> bool {
        self.items.len() > self.values as usize
    }

    /// Whether a replay waits.
    pub fn has_replay(&self) -> bool {
        self.has_more_than_values() && self.items.iter().any(|item| matches!(item, Item::Replay(_)))
    }

    /// Fills `slices` with what is next, at most `bytes_max` bytes and as many slices as there is room for; how many.
    ///
    /// [`Outbox::prepare`] must have been called since the last change.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], bytes_max: usize) -> usize {
        let (mut filled, mut bytes) = (0, 0);
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            let (Item::Frame(frame) | Item::Value(frame, _)) = item else { break };
            let rest = if filled == 0 { &frame[self.head_sent..] } else { &frame[..] };
            if filled > 0 && bytes + rest.len() > bytes_max {
                break;
            }
            *slice = IoSlice::new(rest);
            filled += 1;
            bytes += rest.len();
        }
        filled
    }

    /// Takes off what the socket took, and tells `each` whole frame that this finished.
    pub fn advance(&mut self, mut taken: usize, mut each: impl FnMut(Born)) {
        while let Some(item @ (Item::Frame(frame) | Item::Value(frame, _))) = self.items.front() {
            let rest = frame.len() - self.head_sent;
            if taken < rest {
                self.head_sent += taken;
                break;
            }
            taken -= rest;
            self.bytes -= frame.len();
            self.values -= u32::from(item.is_value());
            self.head_sent = 0;
            each(frame.born());
            self.items.pop_front();
            if taken == 0 {
                break;
            }
        }
        if self.items.is_empty() && self.items.capacity() > SPARE_ITEMS_MAX {
            self.items.shrink_to(SPARE_ITEMS_MAX);
        }
    }

    /// Turns the next part of a replay at the front into frames.
    pub fn prepare(&mut self) {
        while let Some(Item::Replay(replay)) = self.items.front_mut() {
            let chunk = replay.next_chunk();
            if replay.is_over() {
                self.items.pop_front();
            }
            if !chunk.is_empty() {
                self.bytes += chunk.len();
                self.items.push_front(Item::Frame(chunk.into()));
            }
        }
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Item::Frame(frame) | Item::Value(frame, _) => frame.len(),
            Item::Replay(_) => 0,
        }
    }

    fn is_value(&self) -> bool {
        matches!(self, Item::Value(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, len: usize) -> Frame {
        vec![byte; len].into()
    }

    fn written(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !outbox.is_empty() {
            outbox.prepare();
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = outbox.gather(&mut slices, 64);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = all.len().min(step);
            bytes.extend_from_slice(&all[..taken]);
            outbox.advance(taken, drop);
        }
        bytes
    }

    #[test]
    fn frames_leave_whole_and_in_order_whatever_the_socket_takes() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            for byte in 0..6 {
                outbox.push(frame(byte, usize::from(byte) * 7 + 1));
            }
            let wanted: Vec<u8> = (0..6_u8).flat_map(|byte| vec![byte; usize::from(byte) * 7 + 1]).collect();
            assert_eq!(written(&mut outbox, step), wanted, "step {step}");
            assert_eq!(outbox.bytes(), 0);
        }
    }

    #[test]
    fn a_full_outbox_refuses_but_an_empty_one_takes_any_frame() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.offer(frame(1, 100), 10, 2), Ok(()));
        assert_eq!(outbox.offer(frame(2, 1), 10, 2), Err(OutboxFull));
        assert_eq!(outbox.offer(frame(2, 1), 200, 1), Err(OutboxFull));
        assert_eq!(outbox.offer(frame(2, 1), 200, 2), Ok(()));
    }

    #[test]
    fn a_cut_keeps_a_frame_that_has_begun_to_leave() {
        let mut outbox = Outbox::default();
        outbox.push(frame(1, 10));
        outbox.push(frame(2, 10));
        outbox.advance(4, drop);
        assert_eq!(outbox.cut(), 1);
        outbox.push(frame(9, 2));
        assert_eq!(written(&mut outbox, 100), [[1_u8; 6].as_slice(), &[9; 2]].concat());
    }
}
