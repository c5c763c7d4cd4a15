//! What one connection is to read of one tag, and whether what it reads is that.
//!
//! Method: whatever its core hears for a follower is queued here; what the client reads is taken off. Without merging
//! each frame must be the next in the queue.

use std::{collections::VecDeque, sync::Arc};

use ws_cluster::model::{FollowStart, Published, RecordId};

use super::{trace::count, wire::Message};

/// One thing to be read.
#[derive(Debug)]
enum Item {
    Live(Arc<Published>),
    Snapshot(Arc<Published>, bool),
    Gap,
    /// The subscription ended here: what stands before it may not come any more.
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

    /// Whether an answer of the exchange is on its way.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether everything has been read.
    pub fn is_read(&self) -> bool {
        !self.items.iter().any(|item| !matches!(item, Item::End))
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

    /// The exchange answers.
    pub fn answered(&mut self, start: &FollowStart) {
        if self.asked.pop_front() != Some(true) {
            return;
        }
        self.joined = true;
        match start {
            FollowStart::Empty => {}
            FollowStart::Gap => self.items.push_back(Item::Gap),
            FollowStart::Snapshot { last, gap } => {
                count(if *gap { "a gap instead of a tail" } else { "a snapshot" });
                self.items.push_back(Item::Snapshot(last.clone(), *gap));
            }
            FollowStart::Tail(tail) => {
                count(if tail.is_empty() { "an empty tail" } else { "a tail" });
                self.items.extend(tail.iter().cloned().map(Item::Live));
            }
        }
    }

    pub fn publish(&mut self, published: &Arc<Published>) {
        self.items.push_back(Item::Live(published.clone()));
    }

    pub fn gap(&mut self) {
        self.items.push_back(Item::Gap);
    }

    /// The client has read a frame of the tag.
    pub fn read(&mut self, message: &Message<'_>, id: Option<RecordId>) -> Result<(), String> {
        let mut passed = 0;
        while let Some(item) = self.items.pop_front() {
            if matches!(item, Item::End) {
                passed = 0;
                continue;
            }
            if is_it(&item, message, id) && passed == 0 && message.merged == 0 {
                return Ok(());
            }
            // Before the end of a subscription anything may be left out.
            if !self.items.iter().any(|item| matches!(item, Item::End)) {
                return Err(format!("read {message:?} in place of {item:?}, {passed} passed over"));
            }
            passed += 1;
        }
        Err(format!("read {message:?}, and nothing was to come"))
    }
}

fn is_it(item: &Item, message: &Message<'_>, id: Option<RecordId>) -> bool {
    let same = |published: &Published| {
        let prev = published.prev.map_or(String::new(), |prev| prev.to_string());
        let payload = message.payload.map(|payload| payload.get().as_bytes());
        id == Some(published.id) && message.prev == Some(&prev) && payload == Some(&published.payload)
    };
    match item {
        Item::Live(published) => same(published) && !message.snapshot && !message.gap,
        Item::Snapshot(published, gap) => same(published) && message.snapshot && message.gap == *gap,
        Item::Gap => message.kind == Some("gap") && id.is_none(),
        Item::End => false,
    }
}
