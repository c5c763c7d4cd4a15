//! The reading half of a shard: which entries are new, and in which order their records are heard.
//!
//! Entries come live or in pages read from the cursor. What is behind the cursor is dropped, what is ahead of it says
//! that a page must be read. A record is heard once, by its origin and seq. Records that publishers bring over from
//! an epoch that is gone are held back until the new epoch is sealed and then heard in the order of their earlier
//! places: so every node hears the same order, whoever was quicker.
//!
//! Invariants: the cursor only moves on; per origin, seqs are heard in ascending order, and every hole is told as a
//! loss, once. What comes from the queue is not trusted and never panics. No clock, no I/O.

use std::collections::HashMap;

use crate::{
    broker::{Entry, Kind, Open, Opened, Position, Records},
    limits::{LOG_GRACE, LOG_ORIGINS_MAX},
    model::{Record, RecordId},
    protocol::wire::{self, LogPosition},
};

/// What becomes of a live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It followed on the cursor.
    Taken,
    /// It is behind the cursor.
    Old,
    /// It is behind the cursor, where something else was heard: the log is not the one that was read.
    Forked,
    /// Something before it is missing: read from the cursor.
    Behind,
}

/// What is heard, in order.
#[expect(clippy::large_enum_variant, reason = "nearly all are records, and they are only passed on")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A record.
    Record(RecordId, Record),
    /// Records are lost for good at this place.
    Lost,
}

/// An entry that was taken: where, how, and the origin and last seq of its records.
pub type Mark = (Position, Kind, Option<(u64, u64)>);

/// What came out of some entries.
#[derive(Debug, Default)]
pub struct Harvest {
    /// What is heard.
    pub heard: Vec<Heard>,
    /// The entries that were taken.
    pub marks: Vec<Mark>,
    /// Records that had been heard before.
    pub duplicates: u64,
    /// Batches and records that could not be read.
    pub poison: Vec<String>,
}

/// A replayed record that waits for the seal.
#[derive(Debug)]
struct Held {
    place: LogPosition,
    /// Where it stands now.
    epoch: u64,
    id: RecordId,
    /// None if it cannot be read.
    record: Option<Record>,
}

/// The last seq heard of an origin, in which epoch, and when, in entries.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u64,
    epoch: u64,
    touched: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    cursor: Option<Position>,
    origins: HashMap<u64, Last>,
    /// Entries taken.
    entries: u64,
    held: Vec<Held>,
    held_bytes: usize,
    held_bytes_max: usize,
    /// Filling its tables from the retained log: nothing in it is a loss.
    warm: bool,
}

impl Receiver {
    /// A receiver that begins with the log's oldest entry. It holds back at most so many bytes of replayed records.
    pub fn new(held_bytes_max: usize) -> Self {
        Self {
            cursor: None,
            origins: HashMap::new(),
            entries: 0,
            held: Vec::new(),
            held_bytes: 0,
            held_bytes_max,
            warm: true,
        }
    }

    /// The last entry taken; pages are read from here.
    pub fn cursor(&self) -> Position {
        self.cursor.unwrap_or_default()
    }

    /// Whether the retained log is still being read.
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// The question that begins and ends the reading of the retained log. If the second answer does not continue the
    /// first, the log has become another meanwhile and what the first said of it is void.
    pub fn open_again(&self, opened: &Opened) -> Open {
        let seen = self.cursor().max(opened.tail);
        Open { seen, origins: Vec::new(), all_origins: true, grace: LOG_GRACE }
    }

    /// The retained log has been read from one answer to another that continues it; from now on entries are live. If
    /// less is there now than was read, what stands in its place may have been missed: that is a loss.
    pub fn warmed(&mut self, opened: &Opened, again: &Opened, harvest: &mut Harvest) {
        let lasts: HashMap<u64, u64> = again.origins.iter().map(|last| (last.origin, last.seq)).collect();
        let holds = |(origin, last): (&u64, &Last)| {
            last.epoch != again.tail.epoch || lasts.get(origin).is_some_and(|seq| *seq >= last.seq)
        };
        if !self.origins.iter().all(holds) {
            harvest.heard.push(Heard::Lost);
        }
        self.warm = false;
        self.cursor = Some(self.cursor().max(opened.tail));
        for last in &opened.origins {
            // An origin that has records held back counts from those, not from what the log knows.
            let is_held = self.held.iter().any(|held| held.id.origin == last.origin);
            if !is_held {
                let known = Last { seq: last.seq, epoch: last.position.epoch, touched: 0 };
                self.origins.entry(last.origin).or_insert(known);
            }
        }
    }

    /// Looks at a live entry, and takes it if it follows on the cursor.
    pub fn live(&mut self, entry: Entry, harvest: &mut Harvest) -> Verdict {
        let cursor = self.cursor();
        if entry.position <= cursor {
            return if self.is_unheard(&entry) { Verdict::Forked } else { Verdict::Old };
        }
        if self.cursor.is_none() || entry.position != next(cursor) {
            return Verdict::Behind;
        }
        self.take(entry, harvest);
        Verdict::Taken
    }

    /// Whether an entry of the cursor's epoch, at a place that has been passed, holds what was never heard there.
    fn is_unheard(&self, entry: &Entry) -> bool {
        if entry.kind == Kind::Replayed || entry.position.epoch != self.cursor().epoch {
            return false;
        }
        let Ok(Some(records)) = entry.content.clone().open() else { return false };
        let heard = self.origins.get(&records.origin()).map_or(0, |last| last.seq);
        records.seqs().1 > heard
    }

    /// Takes a page that was read from the cursor.
    pub fn page(&mut self, entries: Vec<Entry>, harvest: &mut Harvest) {
        for entry in entries {
            let cursor = self.cursor();
            if entry.position <= cursor {
                continue;
            }
            let expected = if entry.position.epoch == cursor.epoch { next(cursor).offset } else { 1 };
            if entry.position.offset > expected && !self.warm {
                harvest.heard.push(Heard::Lost);
            }
            self.take(entry, harvest);
        }
    }

    fn take(&mut self, entry: Entry, harvest: &mut Harvest) {
        let Entry { position, kind, content } = entry;
        self.cursor = Some(position);
        self.entries += 1;
        let bytes = content.bytes();
        let records = content.open().unwrap_or_else(|error| {
            harvest.poison.push(format!("{error} at {position}"));
            None
        });
        let last = records.as_ref().map(|records| (records.origin(), records.seqs().1));
        harvest.marks.push((position, kind, last));
        if kind != Kind::Replayed {
            self.release(harvest);
        }
        match records {
            Some(records) if kind == Kind::Replayed => self.hold(position, records, bytes, harvest),
            Some(records) => self.hear(position, records, harvest),
            None => {}
        }
    }

    fn hear(&mut self, position: Position, records: Records, harvest: &mut Harvest) {
        let origin = records.origin();
        for entry in records {
            let id = RecordId { origin, seq: entry.seq };
            let record = readable(entry, position, harvest);
            self.deliver(id, position.epoch, record, harvest);
        }
    }

    fn hold(&mut self, position: Position, records: Records, bytes: usize, harvest: &mut Harvest) {
        let origin = records.origin();
        let known = self.origins.get(&origin).map_or(0, |last| last.seq);
        let (first_seq, last_seq) = records.seqs();
        if last_seq <= known {
            harvest.duplicates += last_seq + 1 - first_seq;
            return;
        }
        self.held_bytes += bytes;
        for entry in records {
            if entry.seq <= known {
                harvest.duplicates += 1;
                continue;
            }
            // A place that cannot be read: behind everything that has one.
            let place = entry.original.unwrap_or(LogPosition { epoch: u64::MAX, offset: u64::MAX, index: 0 });
            let id = RecordId { origin, seq: entry.seq };
            let record = readable(entry, position, harvest);
            self.held.push(Held { place, epoch: position.epoch, id, record });
        }
        if self.held_bytes > self.held_bytes_max {
            self.release(harvest);
        }
    }

    /// The replay is complete: what it brought is heard in its earlier order.
    fn release(&mut self, harvest: &mut Harvest) {
        let mut held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        // A publisher that never got an answer may not know that a record has come to a later place: still it stands
        // behind its origin's earlier ones.
        held.sort_by_key(|held| (held.id.origin, held.id.seq));
        for at in 1..held.len() {
            if held[at].id.origin == held[at - 1].id.origin {
                held[at].place = held[at].place.max(held[at - 1].place);
            }
        }
        held.sort_by_key(|held| (held.place, held.id.seq));
        for Held { epoch, id, record, .. } in held {
            self.deliver(id, epoch, record, harvest);
        }
    }

    /// Hears a record of an entry of `epoch`, if it is new.
    fn deliver(&mut self, id: RecordId, epoch: u64, record: Option<Record>, harvest: &mut Harvest) {
        let touched = self.entries;
        let known = self.origins.get(&id.origin).map(|last| last.seq);
        // While the retained log is read, an origin begins where the log does.
        let expected = known.map_or(if self.warm { id.seq } else { 1 }, |seq| seq.saturating_add(1));
        if id.seq < expected {
            harvest.duplicates += 1;
            return;
        }
        if id.seq > expected && !self.warm {
            harvest.heard.push(Heard::Lost);
        }
        self.origins.insert(id.origin, Last { seq: id.seq, epoch, touched });
        self.bound_origins();
        harvest.heard.extend(record.map(|record| Heard::Record(id, record)));
    }

    /// Forgets the half that has been silent for longest, should there be too many origins.
    fn bound_origins(&mut self) {
        if self.origins.len() <= LOG_ORIGINS_MAX {
            return;
        }
        let mut touched: Vec<u64> = self.origins.values().map(|last| last.touched).collect();
        let (_, median, _) = touched.select_nth_unstable(LOG_ORIGINS_MAX / 2);
        let median = *median;
        self.origins.retain(|_, last| last.touched > median);
    }
}

/// The place behind a place. A stranger may have written to the end of all numbers.
fn next(position: Position) -> Position {
    Position { offset: position.offset.saturating_add(1), ..position }
}

fn readable(entry: wire::Entry, position: Position, harvest: &mut Harvest) -> Option<Record> {
    entry.record.map_err(|error| harvest.poison.push(format!("{error} at {position}"))).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::Content;

    /// Anything may come from the queue: random entries, some of them with a batch's header.
    #[test]
    fn nonsense_never_panics_and_the_cursor_only_moves_on() {
        let seed = std::env::var("WS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
        eprintln!("repeat with WS_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut receiver, mut harvest) = (Receiver::new(10_000), Harvest::default());
        for step in 0..20_000 {
            let entry = random_entry(&mut rng);
            let before = receiver.cursor();
            match step {
                1000 => receiver.warmed(&Opened::default(), &Opened::default(), &mut harvest),
                _ if rng.bool() => drop(receiver.live(entry, &mut harvest)),
                _ => receiver.page(vec![entry], &mut harvest),
            }
            assert!(receiver.cursor() >= before);
        }
        assert!(!harvest.poison.is_empty());
    }

    /// A publisher that was told of only one of two late places brings its records with places out of order.
    #[test]
    fn of_one_origin_a_replay_is_heard_in_its_order_whatever_places_it_names() {
        let (mut receiver, mut harvest) = (Receiver::new(10_000), Harvest::default());
        receiver.warmed(&Opened::default(), &Opened::default(), &mut harvest);
        let place = |epoch, offset| LogPosition { epoch, offset, index: 0 };
        for (offset, original) in [(1, place(2, 7)), (2, place(3, 9)), (3, place(2, 8))] {
            let mut batch = crate::broker::Batch::new(7, offset, vec![body()]);
            batch.originals = vec![original];
            let position = Position { epoch: 4, offset };
            let content = Content::Shared(std::sync::Arc::new(batch));
            receiver.page(vec![Entry { position, kind: Kind::Replayed, content }], &mut harvest);
        }
        let seal = Content::Wire(Bytes::new());
        receiver.page(
            vec![Entry { position: Position { epoch: 4, offset: 4 }, kind: Kind::New, content: seal }],
            &mut harvest,
        );
        let heard = harvest.heard.iter().map(|heard| match heard {
            Heard::Record(id, _) => id.seq,
            Heard::Lost => panic!("nothing is lost"),
        });
        assert_eq!(heard.collect::<Vec<_>>(), [1, 2, 3]);
    }

    fn body() -> crate::broker::Body {
        let control = crate::model::Control {
            pid: crate::model::Pid::new("1").expect("a pid"),
            op: crate::model::ControlOp::Kick,
            audience: crate::model::Audience::default(),
            tags: Vec::new(),
        };
        crate::broker::Body::Value(Record::Control(control))
    }

    fn random_entry(rng: &mut fastrand::Rng) -> Entry {
        let number = |rng: &mut fastrand::Rng| match rng.u32(0..10) {
            0 => u64::MAX - rng.u64(0..2),
            1 => rng.u64(..),
            _ => rng.u64(0..6),
        };
        // Mostly small steps ahead; the far end would stop everything.
        let position = Position { epoch: rng.u64(0..5), offset: number(rng) };
        let kind = [Kind::New, Kind::Replayed, Kind::ReplayedLate][rng.usize(0..3)];
        let mut bytes = vec![1, rng.u8(0..3)];
        bytes.extend(rng.u32(0..4).to_le_bytes());
        bytes.extend(number(rng).to_le_bytes());
        bytes.extend(number(rng).to_le_bytes());
        bytes.extend((0..rng.usize(0..60)).map(|_| rng.u8(0..12)));
        Entry { position, kind, content: Content::Wire(Bytes::from(bytes)) }
    }
}
