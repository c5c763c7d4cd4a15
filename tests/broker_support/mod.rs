//! What the tests of the broker share: records, a node's log with everything it said, and waiting.
//!
//! Method: logs run on a tokio `LocalSet` in the test's thread; a task a node moves its events into a list.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod proxy;
pub mod server;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ws_cluster::{
    broker::{
        Broker, Durability,
        log::{Log, LogEvent, LogSettings},
    },
    limits::QueueLimits,
    metrics::{Count, Counters},
    model::{AckTo, Boot, Pid, Publication, Record, RecordId, Refusal, Stamp, Tag, Ticket},
};

/// A publication whose payload is `text` (JSON).
pub fn publication(tag: &str, text: &str) -> Record {
    Record::Publication(Publication {
        pid: Pid::new("1").expect("a pid"),
        tag: Tag::new(tag).expect("a tag"),
        keep: false,
        affair_id: None,
        idempotency_key: None,
        payload: Bytes::copy_from_slice(text.as_bytes()),
        stamp: Stamp::default(),
    })
}

/// The payload of a publication.
pub fn text(record: &Record) -> String {
    match record {
        Record::Publication(publication) => {
            String::from_utf8(publication.payload.to_vec()).expect("text").trim().to_owned()
        }
        other => panic!("no publication: {other:?}"),
    }
}

/// Runs a test on one thread with a `LocalSet`, for at most a minute.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test within a minute");
    });
}

/// Waits until `is_true`, looking every few milliseconds.
pub async fn wait_for(what: &str, limit: Duration, is_true: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + limit;
    while !is_true() {
        assert!(tokio::time::Instant::now() < until, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What submitters were told, by the number that they pushed.
type Outcomes = HashMap<u64, Result<RecordId, Refusal>>;

/// A node's log and everything it has said.
pub struct Node {
    pub log: Log,
    pub said: Rc<RefCell<Vec<LogEvent>>>,
    outcomes: Rc<RefCell<Outcomes>>,
    heard_count: Rc<Cell<usize>>,
    pub counters: Arc<Counters>,
    paused: Rc<Cell<bool>>,
    reader: tokio::task::JoinHandle<()>,
}

/// Settings of a node.
pub fn settings(node: u16, shards: u16) -> LogSettings {
    LogSettings {
        node,
        boot: Boot(fastrand::u32(1..)),
        seed: fastrand::u64(..),
        shards,
        lease_text: format!("node {node}"),
        durability: Durability::Log,
        limits: QueueLimits::default(),
    }
}

impl Node {
    pub fn start(broker: Arc<dyn Broker>, settings: LogSettings) -> Self {
        let counters = Arc::<Counters>::default();
        let (log, mut events) = Log::start(broker, settings, counters.clone());
        let said = Rc::<RefCell<Vec<LogEvent>>>::default();
        let outcomes = Rc::<RefCell<Outcomes>>::default();
        let (heard_count, paused) = (Rc::<Cell<usize>>::default(), Rc::<Cell<bool>>::default());
        let (list, told, is_paused, heard) = (said.clone(), outcomes.clone(), paused.clone(), heard_count.clone());
        let reader = tokio::task::spawn_local(async move {
            loop {
                while is_paused.get() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let event = events.next().await;
                match &event {
                    LogEvent::Appended { to: AckTo::Submission { ticket, .. }, result } => {
                        told.borrow_mut().entry(ticket.number).or_insert(*result);
                    }
                    LogEvent::Heard { .. } => heard.set(heard.get() + 1),
                    _ => {}
                }
                list.borrow_mut().push(event);
            }
        });
        Self { log, said, outcomes, heard_count, counters, paused, reader }
    }

    /// A node that has heard the retained log.
    pub async fn ready(broker: Arc<dyn Broker>, settings: LogSettings) -> Self {
        let node = Self::start(broker, settings);
        node.until("ready", |event| *event == LogEvent::Ready).await;
        node
    }

    /// Stops taking the log's events, or goes on.
    pub fn pause(&self, is_paused: bool) {
        self.paused.set(is_paused);
    }

    pub async fn until(&self, what: &str, matches: impl Fn(&LogEvent) -> bool) {
        wait_for(what, Duration::from_secs(30), || self.said.borrow().iter().any(&matches)).await;
    }

    /// Submits a publication with `number` as its payload and its ticket.
    pub fn push(&self, tag: &str, number: u64) -> Result<(), Refusal> {
        let to = AckTo::Submission { ticket: Ticket { core: 0, number }, index: 0 };
        self.log.append(publication(tag, &number.to_string()), to).map_err(|(_, refusal)| refusal)
    }

    /// As [`Node::push`], with so many bytes of payload.
    pub fn push_padded(&self, number: u64, bytes: usize) -> Result<(), Refusal> {
        let record = publication("t", &format!("{number:>bytes$}"));
        self.log.append(record, AckTo::Nobody).map_err(|(_, refusal)| refusal)
    }

    /// What the submitter of `number` was told.
    pub fn told(&self, number: u64) -> Option<Result<RecordId, Refusal>> {
        self.outcomes.borrow().get(&number).copied()
    }

    /// Waits for what the submitter of `number` is told.
    pub async fn outcome(&self, number: u64) -> Result<RecordId, Refusal> {
        wait_for("an outcome", Duration::from_secs(30), || self.told(number).is_some()).await;
        self.told(number).expect("it was just there")
    }

    /// The numbers that were acknowledged, in order.
    pub fn acknowledged(&self) -> Vec<u64> {
        let said = self.said.borrow();
        let number = |event: &LogEvent| match event {
            LogEvent::Appended { to: AckTo::Submission { ticket, .. }, result: Ok(_) } => Some(ticket.number),
            _ => None,
        };
        said.iter().filter_map(number).collect()
    }

    /// The payloads that were heard live, in order.
    pub fn heard(&self) -> Vec<u64> {
        self.heard_as(false)
    }

    /// How many records were heard, from the retained log or live.
    pub fn heard_count(&self) -> usize {
        self.heard_count.get()
    }

    /// The payloads that were heard, from the retained log or live.
    pub fn heard_as(&self, is_warm: bool) -> Vec<u64> {
        let said = self.said.borrow();
        let number = |event: &LogEvent| match event {
            LogEvent::Heard { record, warm, .. } if *warm == is_warm => Some(text(record).parse().expect("a number")),
            _ => None,
        };
        said.iter().filter_map(number).collect()
    }

    /// The ids and payloads that were heard, in order.
    pub fn heard_ids(&self) -> Vec<(RecordId, u64)> {
        let said = self.said.borrow();
        let pair = |event: &LogEvent| match event {
            LogEvent::Heard { id, record, .. } => Some((*id, text(record).parse().expect("a number"))),
            _ => None,
        };
        said.iter().filter_map(pair).collect()
    }

    pub fn count(&self, count: Count) -> u64 {
        self.counters.get(count)
    }

    /// How often it said so.
    pub fn times(&self, matches: impl Fn(&LogEvent) -> bool) -> usize {
        self.said.borrow().iter().filter(|event| matches(event)).count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
