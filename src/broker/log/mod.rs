//! The log above a queue: appends what the node submits, hears what all nodes appended, and keeps the promise
//! whatever the queue does.
//!
//! A shard has two halves that decide ([`Publisher`], [`receiver::Receiver`]: no clock, no I/O) and two tasks that await
//! ([`publish`], [`receive`]); [`keep`] reaches the queue and keeps the node's lease, [`retain`] stores tags' last
//! values. Everything runs on the node's thread, inside a tokio `LocalSet`.
//!
//! Invariants: a submitter is answered exactly once, with `Ok` only for what is in the log; a node hears every
//! record once and in the log's order, or is told where something is missing. No queue without a bound: a node that
//! pauses its reading stops the log, which catches up from its cursor.

pub mod publisher;
pub mod receiver;

mod events;
mod keep;
mod pending;
mod publish;
mod receive;
mod retain;
mod window;

#[cfg(test)]
mod model_tests;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::JoinHandle};

pub use self::events::LogEvents;
use self::{
    events::EventSender,
    publisher::{Publisher, PublisherSettings, Told},
    retain::Wanted,
};
use super::{Body, Broker, Durability, lease::Lease, now};
use crate::{
    limits::{LEASE_TTL, LOG_PAGE_BYTES, LOG_PAGE_ENTRIES_MAX, QueueLimits},
    metrics::{Count, Counters},
    model::{AckTo, Boot, LastValue, NodeId, Record, RecordId, Refusal, RetainOutcome},
};

/// What the log is told at start.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// This node.
    pub node: NodeId,
    /// This boot of it.
    pub boot: Boot,
    /// Draws the origins of this boot's records: random, and another for every boot.
    pub seed: u64,
    /// Shards of the log, 1-64; the whole cluster has the same number.
    pub shards: u16,
    /// What other nodes read in this node's lease: its public address and the like. No secrets.
    pub lease_text: String,
    /// When an append is answered.
    pub durability: Durability,
    /// The way through the queue.
    pub limits: QueueLimits,
}

/// What the log tells the node, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The retained log has been heard in all shards.
    Ready,
    /// A record.
    Heard {
        /// Its identity.
        id: RecordId,
        /// The record.
        record: Record,
        /// It is from before this node's start: fills tables, is delivered to nobody.
        warm: bool,
    },
    /// The outcome of [`Log::append`].
    Appended {
        /// Who waits.
        to: AckTo,
        /// The record's identity, or why it was refused.
        result: Result<RecordId, Refusal>,
    },
    /// The queue's store has a tag's last value. Comes before the retained log of its shard has been heard, which may
    /// know better.
    LastValue(LastValue),
    /// The outcome of [`Log::retain`].
    Retained(RetainOutcome),
    /// A shard of the queue has begun a new epoch: the queue is another, or has lost something.
    NewEpoch,
    /// The queue has lost records of this shard for good.
    Lost {
        /// The shard.
        shard: u16,
    },
    /// The queue has not answered for a while.
    Down,
    /// The queue answers again.
    Up,
    /// Another boot took this node's id: nothing is appended until [`LogEvent::LeaseRegained`].
    LeaseLost {
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The id is this node's again.
    LeaseRegained,
    /// The log can never work as it is set up: the node must not start. Says why.
    Failed(String),
}

impl LogEvent {
    /// What the event counts for in the queue to the node.
    fn bytes(&self) -> usize {
        let payload_bytes = match self {
            LogEvent::Heard { record, .. } => record.payload_bytes(),
            LogEvent::LastValue(value) => value.published.payload.len(),
            _ => 0,
        };
        size_of::<Self>() + payload_bytes
    }
}

/// The log. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Log {
    common: Rc<Common>,
    shards: Rc<[Rc<Shard>]>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all shards share.
struct Common {
    broker: Arc<dyn Broker>,
    settings: LogSettings,
    /// Those of the settings, or of the last reload.
    limits: RefCell<QueueLimits>,
    counters: Arc<Counters>,
    events: EventSender,
    lease: RefCell<Lease>,
    /// Last values that are to be written.
    wanted: Wanted,
    /// Shards whose calls to the queue fail.
    down: Cell<usize>,
    /// Shards that have not heard the retained log yet.
    unready: Cell<usize>,
}

/// One shard: what its two tasks share.
struct Shard {
    number: u16,
    common: Rc<Common>,
    publisher: RefCell<Publisher>,
    /// There may be something to publish.
    work: Notify,
    /// What submitters are to be told next.
    told: RefCell<Told>,
    is_down: Cell<bool>,
    /// The next batch gathers until then.
    gather_until: Cell<Option<Instant>>,
    /// What the gauge says of this shard.
    pending_bytes: Cell<u64>,
}

impl Log {
    /// Starts the log; must be called inside a tokio `LocalSet`. It answers before the queue is reached: until
    /// [`LogEvent::Ready`] comes, appends wait, and are refused when they have waited too long.
    pub fn start(broker: Arc<dyn Broker>, settings: LogSettings, counters: Arc<Counters>) -> (Self, LogEvents) {
        let (sender, events) = events::events();
        let common = Rc::new(Common {
            down: Cell::new(0),
            unready: Cell::new(usize::from(settings.shards)),
            lease: RefCell::new(Lease::new(LEASE_TTL)),
            wanted: Wanted::default(),
            events: sender,
            broker,
            limits: RefCell::new(settings.limits.clone()),
            settings,
            counters,
        });
        let shards: Rc<[Rc<Shard>]> =
            (0..common.settings.shards).map(|number| Rc::new(Shard::new(number, common.clone()))).collect();
        let keeping = tokio::task::spawn_local(keep::run(common.clone(), shards.clone()));
        let tasks = vec![keeping, tokio::task::spawn_local(retain::run(common.clone()))];
        (Self { common, shards, tasks }, events)
    }

    /// Submits a record. Its outcome comes as [`LogEvent::Appended`], unless it is refused here.
    pub fn append(&self, record: Record, to: AckTo) -> Result<(), (AckTo, Refusal)> {
        self.append_in(record.shard(self.common.settings.shards), record, to)
    }

    /// The same in a shard that is not the record's own: for what needs no order.
    pub fn append_in(&self, shard: u16, record: Record, to: AckTo) -> Result<(), (AckTo, Refusal)> {
        let shard = &self.shards[usize::from(shard)];
        let body = Body::new(record, self.common.broker.takes_values());
        let waiting: usize = self.shards.iter().map(|shard| shard.publisher.borrow().pending_bytes()).sum();
        let is_full = waiting + body.cost() > self.common.limits.borrow().pending_bytes_max;
        let offered = match is_full {
            true => Err((to, Refusal::QueueFull)),
            false => shard.publisher.borrow_mut().offer(body, to, now()),
        };
        match &offered {
            Ok(()) => shard.work.notify_one(),
            Err(_) => self.common.counters.inc(Count::LogRefused),
        }
        offered
    }

    /// Replaces the bounds; what waits already stays.
    pub fn reload(&self, limits: QueueLimits) {
        self.common.limits.replace(limits);
        for shard in self.shards.iter() {
            shard.publisher.borrow_mut().set_settings(self.common.publisher_settings());
            shard.work.notify_one();
        }
    }

    /// Puts tags' last values, perhaps none, into the queue's store, unless that has seen a higher term. The outcome comes
    /// as [`LogEvent::Retained`]; nothing more may be given before that.
    pub fn retain(&self, term: u64, values: Vec<LastValue>) {
        self.common.wanted.put(term, values);
    }

    /// Whether every record that was submitted has its outcome, or its outcome is on its way to the node.
    pub fn is_settled(&self) -> bool {
        self.shards.iter().all(|shard| shard.publisher.borrow().is_settled())
    }

    /// Takes nothing new and waits until what waits is appended or refused. The node goes on reading events
    /// meanwhile. Then gives the lease up.
    pub async fn close(&self) {
        self.shards.iter().for_each(|shard| shard.publisher.borrow_mut().close());
        while !self.is_settled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.common.lease.borrow().is_valid(now()) {
            let LogSettings { node, boot, .. } = self.common.settings;
            if let Err(error) = self.common.broker.release(node, boot).await {
                tracing::warn!(%error, "the node's lease could not be given up; it runs out by itself");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Common {
    fn publisher_settings(&self) -> PublisherSettings {
        let limits = self.limits.borrow();
        let replay_bytes_max = limits.replay_bytes_max / usize::from(self.settings.shards);
        PublisherSettings {
            pending_bytes_max: limits.pending_bytes_max,
            pending_timeout: limits.pending_timeout,
            batch_bytes_max: limits.batch_bytes_max,
            batch_records_max: limits.batch_records_max,
            replay_window: limits.replay_window,
            replay_bytes_max: if self.broker.keeps_data() { 0 } else { replay_bytes_max },
        }
    }
}

impl Shard {
    fn new(number: u16, common: Rc<Common>) -> Self {
        let settings = common.publisher_settings();
        let seed = common.settings.seed.wrapping_add(number.into());
        let publisher = Publisher::new(settings, common.settings.durability, seed);
        Self {
            number,
            common,
            publisher: RefCell::new(publisher),
            work: Notify::new(),
            told: RefCell::default(),
            is_down: Cell::new(false),
            gather_until: Cell::new(None),
            pending_bytes: Cell::new(0),
        }
    }

    /// Counts what came out of a call and tells the submitters.
    async fn tell(&self) {
        let told = self.told.take();
        let counters = &self.common.counters;
        counters.add(Count::LogAppended, told.appended);
        counters.add(Count::LogReplayed, told.replayed);
        counters.add(Count::LogRefused, told.refused);
        counters.add(Count::LogEpochs, told.epochs);
        let appended = |(to, result)| (to != AckTo::Nobody).then_some(LogEvent::Appended { to, result });
        let mut events: Vec<LogEvent> = told.outcomes.into_iter().filter_map(appended).collect();
        events.extend((told.epochs > 0).then_some(LogEvent::NewEpoch));
        self.common.events.send_all(&mut events).await;
        self.tell_health().await;
    }

    /// Says so when the first shard loses the queue, and when the last has it back.
    async fn tell_health(&self) {
        let is_down = self.publisher.borrow().is_down(now());
        if self.is_down.replace(is_down) == is_down {
            return;
        }
        let down = if is_down { self.common.down.get() + 1 } else { self.common.down.get() - 1 };
        self.common.down.set(down);
        match (is_down, down) {
            (true, 1) => self.common.events.send(LogEvent::Down).await,
            (false, 0) => self.common.events.send(LogEvent::Up).await,
            _ => {}
        }
    }
}

/// A queue answers within this; if its implementation does not, the outcome is unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How many entries the next page asks for, after one of `count` entries and `bytes`.
fn next_page(wanted: usize, count: usize, bytes: usize) -> usize {
    if bytes > LOG_PAGE_BYTES {
        (wanted / 2).max(1)
    } else if count == wanted && bytes < LOG_PAGE_BYTES / 4 {
        (wanted * 2).min(LOG_PAGE_ENTRIES_MAX)
    } else {
        wanted
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("number", &self.number).finish_non_exhaustive()
    }
}
