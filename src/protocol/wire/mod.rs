//! The form between nodes: batches of records, as they stand in the log, and last values, as they stand in the
//! queue's store.
//!
//! ```text
//! batch   version u8 | flags u8 | count u32 | origin u64 | first_seq u64 | count × entry
//! entry   [flag REPLAY: epoch u64 | offset u64 | index u32] length u32 | record of that length
//! record  kind u8 | the kind's fields
//! ```
//!
//! Integers are little-endian; inside a record, lengths and counts are LEB128. A node reads what the version
//! before wrote: fields are only added at the end of a record, a tail that a reader does not know is passed
//! over, and so is a record of an unknown kind, whose length is known. What comes from the queue is not trusted.
//!
//! Invariants: reading is bounded by the bytes that are there, never by a count they claim; every entry of a batch
//! whose header can be read takes its seq, readable or not; payloads are slices of the batch, and UTF-8.
//! Left out: whether a payload is JSON. Its publisher's node has checked that.

mod decode;
mod encode;
mod last_value;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use self::{
    decode::decode_record,
    encode::encode_record,
    last_value::{decode_last_value, encode_last_value, last_value_name},
};
use crate::{limits::WIRE_BATCH_BYTES_MAX, model::Record};

/// The version this node writes. It also reads the one before.
pub const VERSION: u8 = 1;

/// The batch holds records that were in the log before, each with the place it had there.
const FLAG_REPLAY: u8 = 1;

/// Bytes of a batch's header.
pub const HEADER_BYTES: usize = 22;
/// Bytes that an entry adds to its record.
pub const ENTRY_BYTES: usize = 4;
/// Bytes that an entry of a replayed batch adds to its record.
pub const REPLAYED_ENTRY_BYTES: usize = ENTRY_BYTES + 20;

/// What stands before the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Who publishes: one boot of one node, per shard.
    pub origin: u64,
    /// The seq of the first record; the others follow without holes.
    pub first_seq: u64,
    /// How many records; at least one.
    pub count: u32,
    /// The records were in an earlier epoch of the log, and are appended again.
    pub replay: bool,
}

/// A record's place in the log: the epoch, the batch's offset in it, the index in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition {
    /// The log's incarnation.
    pub epoch: u64,
    /// The batch's number in it.
    pub offset: u64,
    /// The record's number in the batch, from 0.
    pub index: u32,
}

/// Collects encoded records into a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    out: BytesMut,
    count: u32,
}

/// A received batch; iterate it for its entries.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What stands before the records.
    pub header: BatchHeader,
    entries: Bytes,
    /// Entries given out so far.
    given: u32,
}

/// One record of a batch, readable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number among the origin's records.
    pub seq: u64,
    /// Where it was in the log before, in a replayed batch.
    pub original: Option<LogPosition>,
    /// The record, or why it cannot be read.
    pub record: Result<Record, RecordError>,
}

/// The header of a batch cannot be read; nothing is known of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// A version or a flag that this node does not know.
    UnknownVersion(u8),
    /// Over [`WIRE_BATCH_BYTES_MAX`].
    TooLarge,
    /// Shorter than its header, or a header that says the impossible.
    Malformed,
}

/// A record cannot be read. It is counted, and its seq is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A kind that this node does not know: a newer node wrote it.
    UnknownKind(u8),
    /// The batch ends before the record does.
    Torn,
    /// A field that breaks its rule; the text says which.
    Malformed(&'static str),
}

impl BatchBuilder {
    /// A batch of new records.
    pub fn new(origin: u64, first_seq: u64) -> Self {
        Self::with_flags(origin, first_seq, 0)
    }

    /// A batch of records that were in the log before.
    pub fn replay(origin: u64, first_seq: u64) -> Self {
        Self::with_flags(origin, first_seq, FLAG_REPLAY)
    }

    fn with_flags(origin: u64, first_seq: u64, flags: u8) -> Self {
        debug_assert!(first_seq > 0, "seqs count from 1");
        let mut out = BytesMut::with_capacity(1024);
        out.put_slice(&[VERSION, flags, 0, 0, 0, 0]);
        out.put_u64_le(origin);
        out.put_u64_le(first_seq);
        Self { out, count: 0 }
    }

    /// Adds what [`encode_record`] gave.
    pub fn push(&mut self, record: &[u8]) {
        debug_assert_eq!(self.out[1] & FLAG_REPLAY, 0, "a replayed record has its position");
        self.entry(record);
    }

    /// Adds what [`encode_record`] gave, and where it was in the log before.
    pub fn push_replayed(&mut self, record: &[u8], original: LogPosition) {
        debug_assert_eq!(self.out[1] & FLAG_REPLAY, FLAG_REPLAY, "only a replayed record has a position");
        self.out.put_u64_le(original.epoch);
        self.out.put_u64_le(original.offset);
        self.out.put_u32_le(original.index);
        self.entry(record);
    }

    fn entry(&mut self, record: &[u8]) {
        self.out.put_u32_le(u32::try_from(record.len()).expect("a record is far below 4 GiB"));
        self.out.put_slice(record);
        self.count += 1;
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch's bytes.
    pub fn finish(mut self) -> Bytes {
        debug_assert!(self.count > 0, "a batch without records is refused by its readers");
        self.out[2..6].copy_from_slice(&self.count.to_le_bytes());
        self.out.freeze()
    }
}

/// A batch of new records, all at once.
pub fn encode_batch<'r>(origin: u64, first_seq: u64, records: impl IntoIterator<Item = &'r Record>) -> Bytes {
    let mut batch = BatchBuilder::new(origin, first_seq);
    records.into_iter().for_each(|record| batch.push(&encode_record(record)));
    batch.finish()
}

impl Batch {
    /// Reads a batch's header. The records are read one by one, by iterating.
    pub fn decode(bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() > WIRE_BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge);
        }
        let mut entries = bytes;
        let version = entries.try_get_u8()?;
        let flags = entries.try_get_u8()?;
        if version != VERSION || flags & !FLAG_REPLAY != 0 {
            return Err(BatchError::UnknownVersion(version));
        }
        let replay = flags & FLAG_REPLAY != 0;
        let count = entries.try_get_u32_le()?;
        let header =
            BatchHeader { origin: entries.try_get_u64_le()?, first_seq: entries.try_get_u64_le()?, count, replay };
        // A count that the bytes cannot hold would be a loop without an end.
        let entry_bytes = if replay { REPLAYED_ENTRY_BYTES } else { ENTRY_BYTES };
        let fits = count > 0 && count as usize <= entries.len() / entry_bytes;
        let counts = header.first_seq > 0 && header.first_seq.checked_add(u64::from(count)).is_some();
        if !fits || !counts {
            return Err(BatchError::Malformed);
        }
        Ok(Self { header, entries, given: 0 })
    }

    fn next_record(&mut self) -> (Option<LogPosition>, Result<Record, RecordError>) {
        let mut original = None;
        if self.header.replay {
            match position(&mut self.entries) {
                Ok(position) => original = Some(position),
                Err(_) => return (None, Err(RecordError::Torn)),
            }
        }
        let length = self.entries.try_get_u32_le().unwrap_or(u32::MAX) as usize;
        if length > self.entries.len() {
            // Nothing behind a torn entry can be found.
            self.entries.clear();
            return (original, Err(RecordError::Torn));
        }
        (original, decode::decode_record(self.entries.split_to(length)))
    }
}

fn position(bytes: &mut Bytes) -> Result<LogPosition, bytes::TryGetError> {
    Ok(LogPosition { epoch: bytes.try_get_u64_le()?, offset: bytes.try_get_u64_le()?, index: bytes.try_get_u32_le()? })
}

impl Iterator for Batch {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.given == self.header.count {
            return None;
        }
        let seq = self.header.first_seq + u64::from(self.given);
        self.given += 1;
        let (original, record) = self.next_record();
        Some(Entry { seq, original, record })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.header.count - self.given) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch {}

impl From<bytes::TryGetError> for BatchError {
    fn from(_: bytes::TryGetError) -> Self {
        BatchError::Malformed
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::UnknownVersion(version) => write!(f, "a batch of an unknown version ({version})"),
            BatchError::TooLarge => write!(f, "a batch over {WIRE_BATCH_BYTES_MAX} bytes"),
            BatchError::Malformed => f.write_str("a malformed batch"),
        }
    }
}

impl std::error::Error for BatchError {}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::UnknownKind(kind) => write!(f, "a record of an unknown kind ({kind})"),
            RecordError::Torn => f.write_str("a record that is cut off"),
            RecordError::Malformed(field) => write!(f, "a record with a bad {field}"),
        }
    }
}

impl std::error::Error for RecordError {}
