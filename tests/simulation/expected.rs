//! What one connection is to read of one tag, and whether what it reads is that.
//!
//! Method: whatever its core hears for a follower is queued here; what the client reads is taken off. Where nothing may
//! be merged each frame must be the next in the queue; otherwise it may stand for those before it, if it says for how
//! many and none of them is kept.

use std::{collections::VecDeque, sync::Arc};

use ws_cluster::model::{FollowStart, Published, RecordId};

use super::{trace::count, wire::Message};

/// One thing to be read.
#[derive(Debug)]
enum Item {
    Live(Arc<Published>),
    Snapshot(Arc<Published>, bool),
    Gap,
    /// The subscription ended here, or began anew: what stands before it may not come any more.
    End,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Expected {
    items: VecDeque<Item>,
    /// Questions to the exchange that are open; whether each still counts.
    asked: VecDeque<bool>,
    /// The connection gets what is published.
    joined: bool,
    followed: bool,
    /// Publications may be merged.
    pub may_merge: bool,
    /// A gap was read, and stands for all up to the next value.
    told_of_gap: bool,
    /// There was a gap in this subscription.
    had_gap: bool,
}

impl Expected {
    /// Whether the connection follows the tag or is about to.
    pub fn is_followed(&self) -> bool {
        self.followed
    }

    /// Whether publications are for it.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// Whether everything has been read.
    pub fn is_read(&self) -> bool {
        matches!(self.items.back(), None | Some(Item::End))
    }

    /// The exchange is asked.
    pub fn ask(&mut self) {
        self.followed = true;
        self.asked.push_back(true);
    }

    /// The subscription is over; the answers that are on their way are for nobody.
    pub fn end(&mut self) {
        (self.followed, self.joined) = (false, false);
        self.asked.iter_mut().for_each(|counts| *counts = false);
        self.items.push_back(Item::End);
    }

    /// The exchange answers; whether somebody still waits for that.
    pub fn answered(&mut self, start: &FollowStart) -> bool {
        if self.asked.pop_front() != Some(true) {
            return false;
        }
        let again = std::mem::replace(&mut self.joined, true);
        match start {
            FollowStart::Empty => {}
            FollowStart::Gap => self.items.push_back(Item::Gap),
            FollowStart::Snapshot { last, gap } => {
                count(if *gap { "a gap instead of a tail" } else { "a snapshot" });
                self.items.push_back(Item::Snapshot(last.clone(), *gap));
            }
            FollowStart::Tail(tail) => {
                count(if tail.is_empty() { "an empty tail" } else { "a tail" });
                // What it was owed comes with the tail.
                self.items.extend(again.then_some(Item::End));
                self.items.extend(tail.iter().cloned().map(Item::Live));
            }
        }
        true
    }

    pub fn publish(&mut self, published: &Arc<Published>) {
        self.items.push_back(Item::Live(published.clone()));
    }

    pub fn gap(&mut self) {
        self.items.push_back(Item::Gap);
    }

    /// The client has read a frame of the tag.
    pub fn read(&mut self, message: &Message<'_>, id: Option<RecordId>) -> Result<(), String> {
        loop {
            let end = self.items.iter().position(|item| matches!(item, Item::End));
            let found = match id {
                Some(id) => self.find_value(end.unwrap_or(self.items.len()), message, id),
                None if message.kind == Some("gap") => self.find_gap(end.unwrap_or(self.items.len())),
                None => Err("it is no message of a tag".to_owned()),
            };
            match (found, end) {
                (Ok(()), _) => return Ok(()),
                (Err(_), Some(end)) => {
                    self.items.drain(..=end);
                    (self.told_of_gap, self.had_gap) = (false, false);
                }
                (Err(why), None) => {
                    let next = self.items.iter().take(3);
                    return Err(format!("{why}; next was {:?}", next.collect::<Vec<_>>()));
                }
            }
        }
    }

    /// Where publications may be merged a gap is told before whatever may lie behind it, so it may come early, and for
    /// several at once, and again.
    fn find_gap(&mut self, end: usize) -> Result<(), String> {
        let first = self.items.range(..end).position(|item| matches!(item, Item::Gap));
        if first == Some(0) {
            self.items.pop_front();
        } else if !self.may_merge || (first.is_none() && !self.had_gap) {
            return Err("a gap that nobody told of".to_owned());
        }
        (self.told_of_gap, self.had_gap) = (true, true);
        Ok(())
    }

    fn find_value(&mut self, end: usize, message: &Message<'_>, id: RecordId) -> Result<(), String> {
        let place = self.place_of(end, message, id)?;
        if message.merged > 0 {
            count("a merged value");
        }
        self.items.drain(..=place);
        self.told_of_gap = false;
        Ok(())
    }

    fn place_of(&self, end: usize, message: &Message<'_>, id: RecordId) -> Result<usize, String> {
        let (mut passed, mut snapshot, mut gap) = (0, None, false);
        for (place, item) in self.items.range(..end).enumerate() {
            let is_it = is_it(item, message, id);
            match item {
                Item::Live(_) if is_it && !message.snapshot => {
                    let is_right = passed == message.merged && snapshot.is_none() && !message.gap;
                    return if is_right { Ok(place) } else { Err(format!("it stands for {passed}")) };
                }
                Item::Live(_) | Item::Snapshot(..) if is_it && message.snapshot => {
                    if let Item::Snapshot(_, has_gap) = item {
                        snapshot = Some(*has_gap);
                    }
                    // Somebody who is behind gets the newest as the snapshot that it has asked for.
                    if let Some(has_gap) = snapshot {
                        let is_right = message.gap == (has_gap || gap) && message.merged == 0;
                        return if is_right { Ok(place) } else { Err("its gap is wrong".to_owned()) };
                    }
                }
                _ => {}
            }
            match item {
                _ if !self.may_merge => return Err("it is not the next".to_owned()),
                Item::Live(published) if published.keep => return Err(format!("{} is kept", published.id)),
                Item::Live(_) => passed += 1,
                Item::Snapshot(_, has_gap) => snapshot = Some(*has_gap),
                Item::Gap if self.told_of_gap || message.gap => gap |= message.gap,
                Item::Gap => return Err("a gap was not told of".to_owned()),
                Item::End => return Err("it comes behind the end".to_owned()),
            }
        }
        Err("it was not to come".to_owned())
    }
}

/// Whether a frame is of this publication.
fn is_it(item: &Item, message: &Message<'_>, id: RecordId) -> bool {
    let (Item::Live(published) | Item::Snapshot(published, _)) = item else { return false };
    let prev = published.prev.map_or(String::new(), |prev| prev.to_string());
    let payload = message.payload.map(|payload| payload.get().as_bytes());
    id == published.id && message.prev == Some(&prev) && payload == Some(&published.payload)
}
