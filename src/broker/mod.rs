//! The message queue behind one trait, and above it the log that keeps the promise: nothing acknowledged is lost,
//! duplicated or reordered.
//!
//! A queue holds some shards; each is a sequence of entries in epochs (one incarnation of the queue each), numbered
//! from 1 without holes inside an epoch. It takes an append only from a caller that knows the current epoch and the
//! last seq it holds of the caller's origin; everything else about loss and order is the log's business.
//!
//! Invariants: one contract suite runs over every implementation; an implementation never retries by itself.
//! Left out: what a record means.

pub mod log;

mod batch;

pub mod lease;
pub mod memory;
#[cfg(feature = "plain-pubsub")]
pub mod pubsub;
pub mod redis;

use std::{collections::HashMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use ws_cluster_redis::{Listener, Said};

pub use self::batch::{Batch, Body, Content, Records};
use crate::{
    limits::RETAINED_OVERHEAD_BYTES,
    model::{Boot, NodeId},
};

/// What a queue's call gives back, later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send + 'a>>;

/// A place in a shard's log: its epoch, and the entry's number in it from 1. Offset 0 is the place before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The log's incarnation; a later one is higher.
    pub epoch: u64,
    /// The entry's number in its epoch.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

/// How an entry came into the log; the queue decides it, so that every node reads the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// New records. The first such entry of an epoch seals it: what was replayed before is complete.
    New,
    /// Records of an earlier epoch, before the seal: in the order of their earlier places, not of these.
    Replayed,
    /// Records of an earlier epoch, behind the seal: in the order in which they come.
    ReplayedLate,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// How it came.
    pub kind: Kind,
    /// Its records.
    pub content: Content,
}

/// How safe an append is before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is in the log.
    #[default]
    Log,
    /// So many replicas have it too.
    Replicas(u8),
    /// It is on the queue's disk.
    Disk,
}

/// The question with which a publisher joins the shard's epoch or starts the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The furthest place the caller knows of. A log that ends before it has lost something: a new epoch.
    pub seen: Position,
    /// The origins whose last seq is wanted.
    pub origins: Vec<u64>,
    /// Whether the last seqs of all origins are wanted.
    pub all_origins: bool,
    /// How long a new epoch that follows on another takes replays only.
    pub grace: Duration,
}

/// The last of an origin's records that the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginLast {
    /// The origin.
    pub origin: u64,
    /// Its last seq.
    pub seq: u64,
    /// The entry with that record.
    pub position: Position,
}

/// The answer to [`Open`], read at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The last entry; its epoch is the current one.
    pub tail: Position,
    /// Whether an entry of [`Kind::New`] is in the epoch.
    pub sealed: bool,
    /// How long the epoch still takes nothing but replays.
    pub grace: Duration,
    /// Of the origins that were asked for, those that the log knows.
    pub origins: Vec<OriginLast>,
}

impl Opened {
    /// Whether a later answer speaks of the same log: the same epoch, and of every origin as much or more.
    pub fn is_continued_by(&self, later: &Opened) -> bool {
        let lasts: HashMap<u64, u64> = later.origins.iter().map(|last| (last.origin, last.seq)).collect();
        let has = |last: &OriginLast| lasts.get(&last.origin).is_some_and(|seq| *seq >= last.seq);
        self.tail.epoch == later.tail.epoch && self.tail <= later.tail && self.origins.iter().all(has)
    }
}

/// One append.
#[derive(Clone, Debug)]
pub struct Append {
    /// The epoch that the caller has opened.
    pub epoch: u64,
    /// The furthest offset the caller knows of in that epoch; a log that ends before it is fenced.
    pub seen_offset: u64,
    /// The last seq of the origin that the log holds, as the caller knows it.
    pub prev: u64,
    /// The records; none: only seals the epoch.
    pub batch: Arc<Batch>,
    /// When it is answered.
    pub durability: Durability,
}

/// The answer to [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log.
    Stored {
        /// Where.
        position: Position,
        /// As what.
        kind: Kind,
    },
    /// It was there already: the answer to an earlier attempt was lost.
    Have(OriginLast),
    /// The log holds another last seq of the origin than the caller thought.
    Gap,
    /// Not now: the epoch takes only replays for so long, or the slowest reader must catch up.
    Wait(Duration),
    /// The epoch is over: open again.
    Fenced,
}

/// What a node writes into its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The node.
    pub node: NodeId,
    /// Its boot; a lease belongs to a boot.
    pub boot: Boot,
    /// What others read: the node's public address and the like. No secrets.
    pub text: String,
    /// How long the lease lasts.
    pub ttl: Duration,
}

/// The answer to [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The lease is this boot's for another time to live.
    Held,
    /// Another boot holds it.
    Other {
        /// What it wrote: its boot and its text.
        holder: String,
        /// How long its lease still lasts.
        left: Duration,
    },
}

/// Last values for the queue's store, and what it may hold of a shard.
#[derive(Clone, Debug)]
pub struct Retain {
    /// Who writes, and since when. A lower one than the store has seen is refused.
    pub term: u64,
    /// What is stored, each under its name; an earlier one of that name gives way.
    pub values: Vec<StoredValue>,
    /// Values; beyond it those published longest ago go.
    pub values_max: usize,
    /// The same in bytes, as [`StoredValue::cost`] counts them.
    pub bytes_max: usize,
}

/// A tag's last value as the store holds it; read back, it is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// The tag.
    pub name: Bytes,
    /// When it was published, Unix milliseconds.
    pub at_unix_ms: u64,
    /// The value.
    pub value: Bytes,
}

impl StoredValue {
    /// What it counts for in the store, in bytes.
    pub fn cost(&self) -> usize {
        2 * self.name.len() + self.value.len() + RETAINED_OVERHEAD_BYTES
    }
}

/// The answer to [`Retain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Everything is stored.
    Stored {
        /// The store held nothing of the shard before.
        was_empty: bool,
        /// Values that went because there were too many.
        dropped: u64,
    },
    /// Nothing is: this later term has been seen.
    Superseded(u64),
}

/// Some of a shard's last values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetainedPage {
    /// Names and values, in no order; one may come twice.
    pub values: Vec<(Bytes, Bytes)>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<Bytes>,
}

/// Why a call to the queue failed. Divides by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// It has not happened and will not: it may be done differently.
    NotDone(String),
    /// It may have happened: the same again, or ask.
    Unknown(String),
    /// It can never work: the node must not start.
    Refused(String),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (BrokerError::NotDone(text) | BrokerError::Unknown(text) | BrokerError::Refused(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for BrokerError {}

/// A message queue.
///
/// Every call answers within a few seconds, whatever the queue does, and is dropped without harm while it waits.
pub trait Broker: Send + Sync + 'static {
    /// Reaches the queue, and makes sure that the whole cluster has the same number of shards.
    fn join(&self, shards: u16) -> Pending<'_, ()>;

    /// Joins the shard's epoch or starts the next.
    fn open(&self, shard: u16, open: Open) -> Pending<'_, Opened>;

    /// Appends a batch.
    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended>;

    /// At most `entries_max` entries that follow `after`, in order. An entry may be missing only because it is gone.
    fn read(&self, shard: u16, after: Position, entries_max: usize) -> Pending<'_, Vec<Entry>>;

    /// From now on brings the shard's new entries. Some may be missing; who cares sees it by the offsets.
    fn subscribe(&self, shard: u16) -> Pending<'_, Live>;

    /// Stores last values of tags beside the shard's log, for as long as the queue keeps anything.
    fn retain(&self, shard: u16, retain: Retain) -> Pending<'_, Retained>;

    /// About `values_max` of the shard's last values, from `cursor` on (none: the first page). Those that are there all
    /// the time while the pages are read do come. Refused: there is nothing that could ever be read.
    fn retained(&self, shard: u16, cursor: Option<Bytes>, values_max: usize) -> Pending<'_, RetainedPage>;

    /// Takes or renews a node's lease.
    fn claim(&self, claim: Claim) -> Pending<'_, Claimed>;

    /// Gives a node's lease up, if it is this boot's.
    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()>;

    /// Whether what was stored can never be lost while the node lives, so that nothing is kept for a replay.
    fn keeps_data(&self) -> bool;

    /// Whether the queue wants records as values; otherwise it wants them encoded.
    fn takes_values(&self) -> bool;
}

/// Reads an entry out of a message; none: it is not one.
pub type Decode = Box<dyn FnMut(Bytes) -> Option<Entry> + Send>;

/// New entries of a shard as they come.
pub struct Live(Source);

enum Source {
    Messages(Listener, Decode),
    Nudges(Arc<Notify>, Arc<memory::Progress>),
    News(mpsc::Receiver<News>),
}

/// What [`Live::next`] brings.
#[derive(Clone, Debug)]
pub enum News {
    /// An entry.
    Entry(Entry),
    /// There is something to read: this queue brings its entries so.
    Nudge,
    /// Entries may have been missed.
    Missed,
    /// Nothing more will come: subscribe again.
    Ended,
}

impl Live {
    /// Entries that come as messages.
    pub fn messages(listener: Listener, decode: Decode) -> Self {
        Self(Source::Messages(listener, decode))
    }

    /// Only nudges; the reader's progress is told to the queue.
    pub fn nudges(nudge: Arc<Notify>, progress: Arc<memory::Progress>) -> Self {
        Self(Source::Nudges(nudge, progress))
    }

    /// What a queue of a test brings.
    pub fn news(news: mpsc::Receiver<News>) -> Self {
        Self(Source::News(news))
    }

    /// Waits for the next news. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> News {
        match &mut self.0 {
            Source::Messages(listener, decode) => match listener.next().await {
                // What cannot be read was something all the same: the log itself knows what.
                Said::Message(message) => decode(message).map_or(News::Missed, News::Entry),
                Said::Missed => News::Missed,
                Said::Ended => News::Ended,
            },
            Source::Nudges(nudge, _) => {
                nudge.notified().await;
                News::Nudge
            }
            Source::News(news) => news.recv().await.unwrap_or(News::Ended),
        }
    }

    /// Tells the queue that the reader has everything up to here.
    pub fn passed(&self, position: Position) {
        if let Source::Nudges(_, progress) = &self.0 {
            progress.set(position);
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// Now on the monotonic clock that tokio's timers follow, so that a test may run in virtual time.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
