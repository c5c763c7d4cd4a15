//! A batch: records of one origin in one entry of the log.
//!
//! Invariants: the records' seqs follow on each other from `first_seq`; a batch is never changed once it was offered
//! to a queue, so that a second attempt is the same.

use std::sync::Arc;

use bytes::Bytes;

use super::Kind;
use crate::{
    model::Record,
    protocol::wire::{self, BatchBuilder, BatchError, LogPosition},
};

/// What a record costs besides its payload when it is not encoded.
const RECORD_BYTES: usize = 192;

/// A record on its way into the queue, in the form that the queue wants.
#[derive(Clone, Debug)]
pub enum Body {
    /// As a value, for a queue in this process.
    Value(Record),
    /// As it stands in a batch.
    Encoded(Bytes),
}

impl Body {
    /// The record in the form that is wanted.
    pub fn new(record: Record, as_value: bool) -> Self {
        if as_value { Body::Value(record) } else { Body::Encoded(wire::encode_record(&record)) }
    }

    /// What the record counts for in every buffer, in bytes.
    pub fn cost(&self) -> usize {
        match self {
            Body::Value(record) => RECORD_BYTES + payload_bytes(record),
            Body::Encoded(bytes) => wire::REPLAYED_ENTRY_BYTES + bytes.len(),
        }
    }
}

fn payload_bytes(record: &Record) -> usize {
    match record {
        Record::Publication(publication) => publication.payload.len(),
        Record::Push(push) => push.payload.len() + 32 * push.audience.len(),
        Record::Control(control) => 32 * (control.audience.len() + control.tags.len()),
        Record::Request(request) => request.payload.len(),
        Record::OnlineClients(online) => 64 * online.users.len(),
        Record::Beat(beat) => 48 * beat.backends.len(),
        Record::OnlineAsk(ask) => 32 * ask.uids.len(),
        Record::OnlineAnswer(answer) => 72 * answer.connections.len(),
        Record::Presence(_) | Record::Backend(_) => 0,
    }
}

/// Records of one origin that go into the log together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose they are.
    pub origin: u64,
    /// The first record's seq.
    pub first_seq: u64,
    /// The records. None: the batch only seals its epoch.
    pub bodies: Vec<Body>,
    /// For records that were in the log before, the place of each; otherwise empty.
    pub originals: Vec<LogPosition>,
    /// What the records cost together.
    pub bytes: usize,
}

impl Batch {
    /// New records.
    pub fn new(origin: u64, first_seq: u64, bodies: Vec<Body>) -> Self {
        let bytes = bodies.iter().map(Body::cost).sum();
        Self { origin, first_seq, bodies, originals: Vec::new(), bytes }
    }

    /// The last record's seq; the one before the first if there is none.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.bodies.len() as u64 - 1
    }

    /// Whether the records were in the log before.
    pub fn is_replay(&self) -> bool {
        !self.originals.is_empty()
    }

    /// How the batch stands in the log.
    pub fn kind(&self, sealed: bool) -> Kind {
        match (self.is_replay(), sealed) {
            (false, _) => Kind::New,
            (true, false) => Kind::Replayed,
            (true, true) => Kind::ReplayedLate,
        }
    }

    /// The batch's bytes between nodes; empty if it has no records.
    pub fn encode(&self) -> Bytes {
        if self.bodies.is_empty() {
            return Bytes::new();
        }
        if !self.is_replay() {
            let mut out = BatchBuilder::new(self.origin, self.first_seq);
            self.bodies.iter().for_each(|body| out.push(&encoded(body)));
            return out.finish();
        }
        let mut out = BatchBuilder::replay(self.origin, self.first_seq);
        for (body, original) in self.bodies.iter().zip(&self.originals) {
            out.push_replayed(&encoded(body), *original);
        }
        out.finish()
    }
}

fn encoded(body: &Body) -> Bytes {
    match body {
        Body::Value(record) => wire::encode_record(record),
        Body::Encoded(bytes) => bytes.clone(),
    }
}

/// The records of an entry, as the queue holds them.
#[derive(Clone, Debug)]
pub enum Content {
    /// Shared inside this process.
    Shared(Arc<Batch>),
    /// As another node wrote them; not to be trusted. Empty: there are none.
    Wire(Bytes),
}

impl Content {
    /// Reads the batch's header; the records are read one by one.
    pub fn open(self) -> Result<Option<Records>, BatchError> {
        match self {
            Content::Shared(batch) => Ok((!batch.bodies.is_empty()).then_some(Records::Shared { batch, given: 0 })),
            Content::Wire(bytes) if bytes.is_empty() => Ok(None),
            Content::Wire(bytes) => wire::Batch::decode(bytes).map(|batch| Some(Records::Wire(batch))),
        }
    }

    /// What the entry counts for in a buffer.
    pub fn bytes(&self) -> usize {
        match self {
            Content::Shared(batch) => batch.bytes,
            Content::Wire(bytes) => bytes.len(),
        }
    }
}

/// The records of one batch, one after another.
#[derive(Clone, Debug)]
pub enum Records {
    /// Out of a shared batch.
    Shared {
        /// The batch.
        batch: Arc<Batch>,
        /// Records given out so far.
        given: usize,
    },
    /// Out of another node's bytes.
    Wire(wire::Batch),
}

impl Records {
    /// Whose records they are.
    pub fn origin(&self) -> u64 {
        match self {
            Records::Shared { batch, .. } => batch.origin,
            Records::Wire(batch) => batch.header.origin,
        }
    }

    /// The seqs of the first and the last record of the batch.
    pub fn seqs(&self) -> (u64, u64) {
        match self {
            Records::Shared { batch, .. } => (batch.first_seq, batch.last_seq()),
            Records::Wire(batch) => {
                (batch.header.first_seq, batch.header.first_seq + u64::from(batch.header.count) - 1)
            }
        }
    }
}

impl Iterator for Records {
    type Item = wire::Entry;

    fn next(&mut self) -> Option<wire::Entry> {
        match self {
            Records::Wire(batch) => batch.next(),
            Records::Shared { batch, given } => {
                let body = batch.bodies.get(*given)?;
                let record = match body {
                    Body::Value(record) => Ok(record.clone()),
                    Body::Encoded(bytes) => wire::decode_record(bytes.clone()),
                };
                let entry = wire::Entry {
                    seq: batch.first_seq + *given as u64,
                    original: batch.originals.get(*given).copied(),
                    record,
                };
                *given += 1;
                Some(entry)
            }
        }
    }
}
