//! What waits to be written to one connection, in order.
//!
//! Invariants: frames leave in the order in which they came; a frame that has begun to leave is finished before
//! anything else; `bytes` counts exactly the queued frames. A replay counts nothing: it is expanded only as the
//! socket takes it. Values give way ([`Outbox::take_values`]); what their receiver is owed then is the caller's to know.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use crate::{model::Published, prefetch::prefetch};

use super::{
    replay::Replay,
    stamped::{Born, Frame, Piece},
};

/// An emptied queue with more room than this gives it back.
const SPARE_ITEMS_MAX: usize = 32;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Item>,
    /// They fit: what waits for one connection is bounded far below.
    bytes: u32,
    /// Frames of the items; a replay counts as one.
    frames: u32,
    /// How many of the items are values.
    values: u32,
    /// Bytes of the first item that the socket has taken.
    head_sent: u32,
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
    /// How many publications before it this one stands for too; or, of several frames in a row, how many come before the last.
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
    pub fn offer(&mut self, piece: impl Into<Piece>, bytes_max: usize, frames_max: usize) -> Result<(), OutboxFull> {
        let piece = piece.into();
        let (bytes, frames) = (self.bytes() + piece.bytes as usize, self.len() + piece.frames as usize);
        // A frame that finds nothing before it always fits: the bound is on waiting, not on size.
        if (bytes > bytes_max || frames > frames_max) && !self.items.is_empty() {
            return Err(OutboxFull);
        }
        self.push(piece);
        Ok(())
    }

    /// Queues a frame whatever waits: for the few that are bounded by their kind (a close, a handshake's answer).
    pub fn push(&mut self, piece: impl Into<Piece>) {
        let piece = piece.into();
        self.count_in(&piece);
        self.items.push_back(Item::Frame(piece.frame));
    }

    fn count_in(&mut self, piece: &Piece) {
        self.bytes += piece.bytes;
        self.frames += piece.frames;
    }

    /// Queues a value, which gives way when the socket takes nothing. Its number is the caller's to bound.
    pub fn push_value(&mut self, piece: impl Into<Piece>, of: ValueOf) {
        let piece = piece.into();
        self.count_in(&piece);
        self.values += 1;
        self.items.push_back(Item::Value(piece.frame, of));
    }

    /// Queues what a resuming subscriber has missed; it costs no bytes until the socket takes it. Of one that
    /// `conflates` a slow socket gets only what is kept and the newest.
    pub fn push_replay(&mut self, missed: Vec<Arc<Published>>, conflates: bool) {
        if !missed.is_empty() {
            self.frames += 1;
            self.items.push_back(Item::Replay(Box::new(Replay::new(missed, conflates))));
        }
    }

    /// Drops everything but a frame that has begun to leave; how many frames were dropped.
    pub fn cut(&mut self) -> usize {
        let before = self.frames;
        self.leave_behind_what_began();
        self.items.truncate(usize::from(self.head_sent > 0));
        self.bytes = self.items.iter().map(Item::size).sum();
        self.frames = self.items.iter().map(Item::count).sum();
        self.values = self.items.iter().map(|item| u32::from(item.is_value())).sum();
        (before - self.frames) as usize
    }

    /// Of several frames of which the socket has taken a part, only the one is left that has begun to leave. Those behind it, if
    /// they are a value: which one they are.
    fn leave_behind_what_began(&mut self) -> Option<ValueOf> {
        let (Item::Frame(frame) | Item::Value(frame, _)) = self.items.front()? else { return None };
        if self.head_sent == 0 || frame.count() == 1 {
            return None;
        }
        let (begun, behind) = frame.begun(self.head_sent as usize);
        let behind = u32::try_from(behind).unwrap_or(u32::MAX);
        self.bytes -= size(frame);
        self.frames -= count(frame);
        self.head_sent = 0;
        let of = match self.items.pop_front() {
            Some(Item::Value(_, of)) => Some(of),
            _ => None,
        };
        match begun {
            None => self.values -= u32::from(of.is_some()),
            Some((frame, taken)) => {
                self.bytes += size(&frame);
                self.frames += 1;
                self.head_sent = small(taken);
                let begun = |of: ValueOf| ValueOf { number: of.number.wrapping_sub(behind), merged: 0, ..of };
                self.items.push_front(match of.map(begun) {
                    Some(of) => Item::Value(frame, of),
                    None => Item::Frame(frame),
                });
            }
        }
        of.filter(|_| behind > 0).map(|of| ValueOf { merged: behind - 1, ..of })
    }

    /// Takes out the values that may give way and have not begun to leave, each told to `each`, oldest first, and thins
    /// the replays; how many publications that merged away.
    pub fn take_values(&mut self, mut each: impl FnMut(ValueOf)) -> usize {
        let firm: Vec<(usize, u32)> = self.firm_places();
        let head_gives_way = match self.items.front() {
            Some(Item::Value(_, of)) => !firm.iter().any(|(_, tag)| *tag == of.tag),
            _ => false,
        };
        if head_gives_way && let Some(behind) = self.leave_behind_what_began() {
            each(behind);
        }
        let (mut place, mut thinned) = (0, 0);
        let (bytes, frames, values) = (&mut self.bytes, &mut self.frames, &mut self.values);
        let head_sent = self.head_sent;
        self.items.retain_mut(|item| {
            place += 1;
            match item {
                Item::Replay(replay) => thinned += replay.thin(),
                Item::Value(frame, of) => {
                    let has_begun = place == 1 && head_sent > 0;
                    // A firm one says what it stands for, so what is before it must come before it.
                    let is_followed = firm.iter().any(|(firm, tag)| *tag == of.tag && place <= *firm);
                    if !has_begun && !is_followed {
                        *bytes -= size(frame);
                        *frames -= count(frame);
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

    /// Gives back the room of an emptied queue; the next frame takes some again.
    pub fn give_back_room(&mut self) {
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the frames that wait.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Frames (and replays) that wait.
    pub fn len(&self) -> usize {
        self.frames as usize
    }

    /// Pieces that they wait in: frames that were queued together are one.
    pub fn pieces(&self) -> usize {
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
            let rest = if filled == 0 { &frame[self.head_sent as usize..] } else { &frame[..] };
            if filled > 0 && bytes + rest.len() > bytes_max {
                break;
            }
            *slice = IoSlice::new(rest);
            filled += 1;
            bytes += rest.len();
        }
        filled
    }

    /// Asks for the memory of what is next.
    pub fn prefetch(&self) {
        if let Some(item) = self.items.front() {
            prefetch(item);
        }
    }

    /// All that waits, if that is one piece of which nothing is taken yet.
    pub fn only(&self) -> Option<&[u8]> {
        match self.items.front() {
            Some(Item::Frame(frame) | Item::Value(frame, _)) if self.items.len() == 1 && self.head_sent == 0 => {
                Some(frame.first(self.bytes))
            }
            _ => None,
        }
    }

    /// Takes off that one piece, because the socket took all of it, and tells `each` frame of it.
    pub fn take_only(&mut self, mut each: impl FnMut(Born)) -> Option<Piece> {
        let (Item::Frame(frame) | Item::Value(frame, _)) = self.items.pop_front()? else { return None };
        let (bytes, frames) = (self.bytes, self.frames);
        match frames {
            1 => each(frame.born()),
            _ => frame.parts().for_each(|(_, born)| each(born)),
        }
        (self.bytes, self.frames, self.values) = (0, 0, 0);
        // The next one takes the first place again, and not each of them in turn: one cache line.
        self.items.clear();
        Some(Piece { frame, bytes, frames })
    }

    /// Takes off what the socket took, and tells `each` whole frame that this finished.
    pub fn advance(&mut self, mut taken: usize, mut each: impl FnMut(Born)) {
        while let Some(item @ (Item::Frame(frame) | Item::Value(frame, _))) = self.items.front() {
            let sent = self.head_sent as usize;
            let rest = frame.len() - sent;
            if taken < rest {
                self.head_sent += small(taken);
                if frame.count() > 1 {
                    let finished = sent + 1..=sent + taken;
                    frame.parts().filter(|(end, _)| finished.contains(end)).for_each(|(_, born)| each(born));
                }
                break;
            }
            taken -= rest;
            match frame.count() {
                1 => each(frame.born()),
                _ => frame.parts().filter(|(end, _)| *end > sent).for_each(|(_, born)| each(born)),
            }
            self.bytes -= size(frame);
            self.frames -= count(frame);
            self.values -= u32::from(item.is_value());
            self.head_sent = 0;
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
                self.frames -= 1;
            }
            if !chunk.is_empty() {
                self.bytes += small(chunk.len());
                self.frames += 1;
                self.items.push_front(Item::Frame(chunk.into()));
            }
        }
    }
}

impl Item {
    fn size(&self) -> u32 {
        match self {
            Item::Frame(frame) | Item::Value(frame, _) => size(frame),
            Item::Replay(_) => 0,
        }
    }

    fn count(&self) -> u32 {
        match self {
            Item::Frame(frame) | Item::Value(frame, _) => count(frame),
            Item::Replay(_) => 1,
        }
    }

    fn is_value(&self) -> bool {
        matches!(self, Item::Value(..))
    }
}

fn count(frame: &Frame) -> u32 {
    small(frame.count())
}

fn size(frame: &Frame) -> u32 {
    small(frame.len())
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
    fn one_piece_of_which_nothing_is_taken_leaves_as_a_whole() {
        let mut outbox = Outbox::default();
        assert!(outbox.only().is_none() && outbox.take_only(drop).is_none());
        for _ in 0..3 {
            outbox.push_value(several(7, &[3, 5, 1]), ValueOf { tag: 1, number: 9, merged: 2, firm: false });
            assert_eq!(outbox.only().map(<[u8]>::len), Some(9));
            let (mut told, mut ages) = (0, Vec::new());
            let taken = outbox.take_only(|born| {
                told += 1;
                ages.push(born);
            });
            assert_eq!(taken.map(|piece| (piece.bytes, piece.frames)), Some((9, 3)));
            assert_eq!((told, ages.last()), (3, Some(&several(7, &[3, 5, 1]).born())));
            assert!(outbox.is_empty() && !outbox.has_more_than_values());
            assert_eq!((outbox.bytes(), outbox.len(), outbox.values), (0, 0, 0));
        }
        outbox.push(frame(1, 4));
        outbox.push(frame(2, 4));
        assert!(outbox.only().is_none(), "two pieces");
        outbox.advance(5, drop);
        assert!(outbox.only().is_none(), "a part is taken");
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

    fn several(first: u8, lens: &[usize]) -> Frame {
        let mut bytes = Vec::new();
        let parts: Vec<(u32, Born)> = (first..)
            .zip(lens)
            .map(|(byte, len)| {
                bytes.extend(vec![byte; *len]);
                (bytes.len() as u32, Born::new(u64::from(byte) + 1, u64::from(byte) + 1))
            })
            .collect();
        Frame::several(bytes, &parts)
    }

    #[test]
    fn frames_that_were_queued_together_leave_count_and_end_like_single_ones() {
        for step in 1..30 {
            let (mut together, mut single) = (Outbox::default(), Outbox::default());
            together.push(several(0, &[3, 5, 1]));
            together.push(several(3, &[4]));
            (0..).zip([3, 5, 1, 4]).for_each(|(byte, len)| single.push(several(byte, &[len])));
            assert_eq!((together.len(), together.bytes()), (single.len(), single.bytes()));
            while !single.is_empty() {
                let (mut of_together, mut of_single) = (Vec::new(), Vec::new());
                together.advance(step, |born| of_together.push(born));
                single.advance(step, |born| of_single.push(born));
                assert_eq!(of_together, of_single, "step {step}");
            }
            assert_eq!((together.is_empty(), together.bytes(), together.len()), (true, 0, 0));
        }
    }

    #[test]
    fn of_values_that_were_queued_together_those_give_way_that_have_not_begun() {
        let of = |number: u32, merged: u32| ValueOf { tag: 1, number, merged, firm: false };
        for sent in 0..9 {
            let mut outbox = Outbox::default();
            outbox.push_value(several(0, &[3, 5, 1]), of(12, 2));
            outbox.push_value(several(3, &[4]), of(13, 0));
            outbox.advance(sent, drop);
            let mut taken = Vec::new();
            outbox.take_values(|value| taken.push(value.before()));
            // Of 10, 11, 12 and 13 those are left that have left or begun to.
            let (before, left) = match sent {
                0 => (9, vec![]),
                1..3 => (10, vec![0; 3 - sent]),
                3 => (10, vec![]),
                4..8 => (11, vec![1; 8 - sent]),
                _ => (11, vec![]),
            };
            assert_eq!(taken, if sent == 0 { vec![9, 12] } else { vec![before, 12] }, "{sent} sent");
            assert_eq!(outbox.len(), usize::from(!left.is_empty()));
            assert_eq!(written(&mut outbox, 100), left, "{sent} sent");
            assert_eq!(outbox.bytes(), 0);
        }
    }

    #[test]
    fn a_cut_keeps_of_several_the_one_that_has_begun() {
        let mut outbox = Outbox::default();
        outbox.push(several(0, &[3, 5, 1]));
        outbox.push(several(3, &[4]));
        outbox.advance(4, drop);
        assert_eq!(outbox.cut(), 3);
        outbox.push(frame(9, 2));
        assert_eq!(written(&mut outbox, 100), [[1_u8; 4].as_slice(), &[9; 2]].concat());
    }
}
