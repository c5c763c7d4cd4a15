//! A client on a virtual socket, and what it may conclude from what it reads.
//!
//! Method: the client keeps for each tag the last id it holds, as a client of the product does, and finds every hole by
//! `prev` alone. What it reads is also compared with the order of the queue, as long as that is certain.

use std::collections::HashSet;

use fastrand::Rng;
use ws_cluster::model::{RecordId, SessionId};

use super::{
    chain::Chain,
    core::Conn,
    model::TAGS,
    plant::{Fault, strikes},
    trace::count,
    wire::{Frame, Message, Reader},
};

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: usize,
    pub core: usize,
    pub session: SessionId,
}

/// What the client has of a tag.
#[derive(Debug, Default)]
pub struct Held {
    /// It wants the tag.
    pub wanted: bool,
    /// The end of the subscription is not confirmed yet.
    pub ending: bool,
    /// The last id it holds.
    pub last: Option<RecordId>,
    /// It was told of a hole behind the last id; or it holds nothing and was never told that there is nothing.
    announced: bool,
    has_asked_again: bool,
    seen: HashSet<RecordId>,
}

/// See the module.
pub struct Client {
    pub number: usize,
    pub place: Option<Place>,
    /// Its socket always has room, and it reads at once.
    pub healthy: bool,
    pub stalled: bool,
    /// Bytes that it reads in one go.
    pub rate: usize,
    reader: Reader,
    pub tags: Vec<Held>,
}

/// What a client's reading leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Pong,
    Closed(u16),
}

impl Client {
    pub fn new(number: usize, healthy: bool, rng: &mut Rng) -> Self {
        Self {
            number,
            place: None,
            healthy,
            stalled: false,
            rate: if healthy || rng.u8(..3) == 0 { usize::MAX } else { rng.usize(20..600) },
            reader: Reader::default(),
            tags: (0..TAGS).map(|_| Held::default()).collect(),
        }
    }

    /// It has a new connection.
    pub fn connect(&mut self, place: Place) {
        (self.place, self.reader, self.stalled) = (Some(place), Reader::default(), false);
    }

    /// Its connection is gone.
    pub fn disconnect(&mut self) {
        self.place = None;
        self.tags.iter_mut().filter(|held| held.ending).for_each(|held| *held = Held::default());
    }

    /// Begins to read what the socket has; `note` hears every text.
    pub fn read(
        &mut self,
        conn: &mut Conn,
        truth: Option<&[Chain]>,
        mut note: impl FnMut(&str),
    ) -> Result<Vec<Said>, String> {
        let count = conn.kernel.len().min(self.rate);
        self.reader.feed(&conn.kernel[..count]);
        conn.kernel.drain(..count);
        let (mut said, mut swapped) = (Vec::new(), None);
        let Self { reader, tags, .. } = self;
        while let Some(frame) = reader.next()? {
            match frame {
                Frame::Ping => said.push(Said::Pong),
                Frame::Close(code) => {
                    note(&format!("close {code}"));
                    said.push(Said::Closed(code));
                    return Ok(said);
                }
                Frame::Text(text) => {
                    if strikes(Fault::FrameLost) {
                        continue;
                    }
                    if strikes(Fault::FramesSwapped) {
                        swapped = Some(text.to_owned());
                        continue;
                    }
                    let copies = if strikes(Fault::FrameTwice) { 2 } else { 1 };
                    for text in std::iter::repeat_n(text, copies).chain(swapped.take().as_deref()) {
                        note(text);
                        take(text, conn, tags, truth).map_err(|error| format!("{error}; read {text}"))?;
                    }
                }
            }
        }
        Ok(said)
    }
}

fn take(text: &str, conn: &mut Conn, tags: &mut [Held], truth: Option<&[Chain]>) -> Result<(), String> {
    let message: Message<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Some(tag) = message.tag else {
        let ended = message.ack_id.and_then(|ack_id| ack_id.parse::<usize>().ok()).ok_or("no tag")?;
        tags[ended] = Held::default();
        return Ok(());
    };
    let number: usize = tag[1..].parse().map_err(|_| "a strange tag")?;
    let parse = |id: &str| id.parse::<RecordId>().map_err(|error| error.to_string());
    let id = message.id.map(parse).transpose()?;
    conn.expected[number].read(&message, id)?;
    let held = &mut tags[number];
    match id {
        Some(id) if !held.ending => held.take(&message, id, truth.map(|truth| &truth[number])),
        Some(_) => Ok(()),
        None => {
            held.announce();
            Ok(())
        }
    }
}

impl Held {
    /// A subscription begins: with what is held, or anew.
    pub fn begin(&mut self, anew: bool) {
        if anew {
            *self = Self::default();
        }
        (self.wanted, self.has_asked_again) = (true, false);
    }

    /// It asks once more while frames are on their way: from now on some may come twice. The last id it holds.
    pub fn ask_again(&mut self) -> Option<RecordId> {
        self.has_asked_again = true;
        self.last
    }

    /// What was read before may be read again.
    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// It begins anew behind a hole; the node may not have come yet as far as the one before.
    fn announce(&mut self) {
        self.announced = true;
        count("a hole is announced");
        self.seen.clear();
    }

    fn take(&mut self, message: &Message<'_>, id: RecordId, truth: Option<&Chain>) -> Result<(), String> {
        let prev = message.prev.filter(|prev| !prev.is_empty()).map(str::parse).transpose();
        let prev: Option<RecordId> = prev.map_err(|_| "a strange prev")?;
        let before = self.last;
        if self.has_asked_again {
            self.last = Some(id);
            return Ok(());
        }
        let is_again = message.snapshot && before == Some(id);
        if message.gap {
            self.announce();
        }
        if !self.seen.insert(id) && !is_again {
            return Err(format!("{id} comes twice"));
        }
        let begins_anew = std::mem::take(&mut self.announced);
        let is_announced = message.snapshot || message.merged > 0 || begins_anew;
        if prev != before && !is_announced {
            return Err(format!("a hole that nobody announces: {id} follows {prev:?}, held was {before:?}"));
        }
        self.last = Some(id);
        count("a frame");
        let (Some(truth), Some(before), false) = (truth, before, begins_anew) else { return Ok(()) };
        let place = |id| truth.find(id).ok_or_else(|| format!("{id} was never stored"));
        let (from, to) = (place(before)?, place(id)?);
        match to.cmp(&from) {
            std::cmp::Ordering::Less => Err(format!("{id} stands before what was held, {before}")),
            std::cmp::Ordering::Equal if is_again => Ok(()),
            _ => check_merged(message, &truth.links[from + 1..to]),
        }
    }
}

/// What was merged away is exactly what lies between, and nothing that is kept.
fn check_merged(message: &Message<'_>, between: &[super::chain::Link]) -> Result<(), String> {
    if message.merged == 0 || message.snapshot {
        return Ok(());
    }
    if between.len() as u64 != message.merged {
        return Err(format!("merged {} of {}", message.merged, between.len()));
    }
    match between.iter().find(|link| link.keep) {
        Some(kept) => Err(format!("merged {} away, which is kept", kept.id)),
        None => Ok(()),
    }
}
