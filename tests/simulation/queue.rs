//! The queue that all nodes share, and the bad net between it and each of them.
//!
//! Method: the embedded queue behind a layer that delays calls, refuses them, loses requests and answers, carries
//! out late what its caller has given up, loses, repeats and delays live news, and cuts a node off. Everything that
//! the queue stores is noted on the way: that is the order in which all nodes must hear it.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use ws_cluster::{
    broker::{
        Append, Appended, Body, Broker, BrokerError, Claim, Claimed, Entry, Kind, Live, News, Open, Opened, Pending,
        Position, Retain, Retained, RetainedPage, memory::Memory,
    },
    model::{Boot, NodeId, Publication, Record, RecordId},
};

#[expect(clippy::disallowed_types, reason = "one thread; a queue must be shareable between threads all the same")]
type Lock<T> = std::sync::Mutex<T>;

/// Live news that wait for one shard of one node.
const NEWS_MAX: usize = 64;
/// What a node without a way to the queue waits for before it learns nothing.
const BLACK_HOLE: Duration = Duration::from_secs(3);

/// The queue.
pub struct Queue {
    pub memory: Memory,
    state: Lock<State>,
}

struct State {
    rng: Rng,
    /// Nothing goes wrong any more.
    healed: bool,
    /// One call in so many goes wrong.
    bad_one_in: u32,
    ears: Vec<Ear>,
    /// Publications in the order in which they were stored, each once.
    stored: Vec<(RecordId, Publication)>,
    known: HashSet<RecordId>,
}

/// A shard of a node that listens.
struct Ear {
    shard: u16,
    is_cut: Arc<AtomicBool>,
    news: mpsc::Sender<News>,
    /// Brings entries; otherwise only nudges.
    brings_entries: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy)]
enum Fate {
    Fine,
    Refused,
    RequestLost,
    ReplyLost,
    /// It arrives long after its caller has given up.
    Late,
}

/// How a call travels.
struct Trip {
    there: Duration,
    fate: Fate,
    back: Duration,
    late: Duration,
}

impl Queue {
    pub fn new(rng: Rng, bad_one_in: u32) -> Arc<Self> {
        let state =
            State { rng, healed: false, bad_one_in, ears: Vec::new(), stored: Vec::new(), known: HashSet::new() };
        Arc::new(Self { memory: Memory::faulty(64 << 20), state: Lock::new(state) })
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        self.with(|state| state.healed = true);
        self.memory.set_away(false);
    }

    /// Gives the publications that were stored since this was last asked.
    pub fn take_stored(&self) -> Vec<(RecordId, Publication)> {
        self.with(|state| std::mem::take(&mut state.stored))
    }

    fn with<T>(&self, apply: impl FnOnce(&mut State) -> T) -> T {
        apply(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn append(&self, shard: u16, append: Append) -> Result<Appended, BrokerError> {
        let (batch, epoch) = (append.batch.clone(), append.epoch);
        let appended = ready(self.memory.append(shard, append))?;
        if let Appended::Stored { position, kind } = appended {
            debug_assert_eq!(position.epoch, epoch);
            self.with(|state| {
                for (seq, body) in (batch.first_seq..).zip(&batch.bodies) {
                    let Body::Value(record) = body else { continue };
                    let id = RecordId { origin: batch.origin, seq };
                    if let Record::Publication(publication) = record
                        && state.known.insert(id)
                    {
                        state.stored.push((id, publication.clone()));
                    }
                }
            });
            self.announce(shard, position, kind);
        }
        Ok(appended)
    }

    /// The live channel: loses, repeats, delays.
    fn announce(&self, shard: u16, position: Position, kind: Kind) {
        let before = Position { offset: position.offset - 1, ..position };
        let entry = ready(self.memory.read(shard, before, 1)).ok().and_then(|entries| entries.into_iter().next());
        let Some(entry) = entry else { return };
        debug_assert!(entry.position == position && entry.kind == kind);
        self.with(|state| {
            state.ears.retain(|ear| !ear.news.is_closed());
            let State { rng, healed, ears, .. } = state;
            for ear in ears.iter().filter(|ear| ear.shard == shard && !ear.is_cut.load(Ordering::Relaxed)) {
                let luck = if *healed { u32::MAX } else { rng.u32(..16) };
                let copies = if luck < 2 { luck } else { 1 };
                let delay = (luck == 2).then(|| Duration::from_millis(rng.u64(1..40)));
                for _ in 0..copies {
                    ear.say(entry.clone(), delay);
                }
            }
        });
    }
}

impl Ear {
    fn say(&self, entry: Entry, delay: Option<Duration>) {
        let news = if self.brings_entries { News::Entry(entry) } else { News::Nudge };
        match delay {
            // Without room it is lost, as a live channel may lose anything.
            None => drop(self.news.try_send(news)),
            Some(delay) => {
                let (sender, is_cut) = (self.news.clone(), self.is_cut.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    if !is_cut.load(Ordering::Relaxed) {
                        let _ = sender.try_send(news);
                    }
                });
            }
        }
    }
}

/// Mostly nothing, mostly little.
fn pause(rng: &mut Rng) -> Duration {
    let longest = match rng.u8(..32) {
        0..24 => return Duration::ZERO,
        24..31 => 4,
        _ => 60,
    };
    Duration::from_millis(rng.u64(1..longest))
}

/// The answer of the embedded queue, which never waits.
fn ready<T>(pending: Pending<'_, T>) -> Result<T, BrokerError> {
    pending.now_or_never().unwrap_or_else(|| Err(BrokerError::Unknown("the embedded queue waited".to_owned())))
}

/// One node's way to the queue.
pub struct Link {
    queue: Arc<Queue>,
    is_cut: Arc<AtomicBool>,
    brings_entries: bool,
}

impl Link {
    pub fn new(queue: Arc<Queue>, brings_entries: bool) -> Arc<Self> {
        Arc::new(Self { queue, is_cut: Arc::default(), brings_entries })
    }

    /// Cuts the node off, or lets it back.
    pub fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        if !is_cut {
            self.come_back();
        }
    }

    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// A connection that comes back says that something may have been missed, or is another one.
    fn come_back(&self) {
        self.queue.with(|state| {
            let State { rng, ears, .. } = state;
            ears.retain(|ear| {
                let is_own = Arc::ptr_eq(&ear.is_cut, &self.is_cut);
                if is_own && rng.bool() {
                    let _ = ear.news.try_send(News::Missed);
                }
                !is_own || rng.u8(..3) > 0
            });
        });
    }

    fn trip(&self) -> Trip {
        self.queue.with(|state| {
            let State { rng, healed, bad_one_in, .. } = state;
            let is_bad = !*healed && rng.u32(..*bad_one_in) == 0;
            let fate = match rng.u8(..4) {
                _ if !is_bad => Fate::Fine,
                0 => Fate::Refused,
                1 => Fate::RequestLost,
                2 => Fate::ReplyLost,
                _ => Fate::Late,
            };
            Trip { there: pause(rng), fate, back: pause(rng), late: Duration::from_millis(rng.u64(1..3000)) }
        })
    }

    /// Carries a call there and its answer back, as far as the net lets it.
    fn call<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&Queue) -> Result<T, BrokerError> + Send + 'static,
    ) -> Pending<'_, T> {
        Box::pin(async move {
            let Trip { there, fate, back, late } = self.trip();
            pass(there).await;
            self.reach().await?;
            let answer = match fate {
                Fate::Refused => return Err(BrokerError::NotDone("refused".to_owned())),
                Fate::RequestLost => return Err(BrokerError::Unknown("lost on the way".to_owned())),
                Fate::Late => {
                    let queue = self.queue.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        let _ = apply(&queue);
                    });
                    return Err(BrokerError::Unknown("late".to_owned()));
                }
                Fate::ReplyLost => {
                    let _ = apply(&self.queue);
                    return Err(BrokerError::Unknown("the answer was lost".to_owned()));
                }
                Fate::Fine => apply(&self.queue),
            };
            pass(back).await;
            self.reach().await.map_err(|error| BrokerError::Unknown(error.to_string()))?;
            answer
        })
    }

    /// A cut net refuses at once or swallows.
    async fn reach(&self) -> Result<(), BrokerError> {
        if !self.is_cut.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.queue.with(|state| state.rng.bool()) {
            return Err(BrokerError::NotDone("no route".to_owned()));
        }
        tokio::time::sleep(BLACK_HOLE).await;
        Err(BrokerError::Unknown("no answer".to_owned()))
    }

    fn listen(&self, shard: u16) -> Live {
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        let ear = Ear { shard, is_cut: self.is_cut.clone(), news, brings_entries: self.brings_entries };
        self.queue.with(|state| state.ears.push(ear));
        Live::news(receiver)
    }
}

fn pass(time: Duration) -> impl Future<Output = ()> {
    let sleep = (!time.is_zero()).then(|| tokio::time::sleep(time));
    async move {
        if let Some(sleep) = sleep {
            sleep.await;
        }
    }
}

impl Broker for Link {
    fn join(&self, shards: u16) -> Pending<'_, ()> {
        self.call(move |queue| ready(queue.memory.join(shards)))
    }

    fn open(&self, shard: u16, open: Open) -> Pending<'_, Opened> {
        self.call(move |queue| ready(queue.memory.open(shard, open)))
    }

    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended> {
        self.call(move |queue| queue.append(shard, append))
    }

    fn read(&self, shard: u16, after: Position, entries_max: usize) -> Pending<'_, Vec<Entry>> {
        self.call(move |queue| ready(queue.memory.read(shard, after, entries_max)))
    }

    fn subscribe(&self, shard: u16) -> Pending<'_, Live> {
        Box::pin(async move {
            pass(self.trip().there).await;
            self.reach().await?;
            Ok(self.listen(shard))
        })
    }

    fn retain(&self, shard: u16, retain: Retain) -> Pending<'_, Retained> {
        self.call(move |queue| ready(queue.memory.retain(shard, retain)))
    }

    fn retained(&self, shard: u16, cursor: Option<Bytes>, values_max: usize) -> Pending<'_, RetainedPage> {
        self.call(move |queue| ready(queue.memory.retained(shard, cursor, values_max)))
    }

    fn claim(&self, claim: Claim) -> Pending<'_, Claimed> {
        self.call(move |queue| ready(queue.memory.claim(claim)))
    }

    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()> {
        self.call(move |queue| ready(queue.memory.release(node, boot)))
    }

    fn keeps_data(&self) -> bool {
        self.queue.memory.keeps_data()
    }

    fn takes_values(&self) -> bool {
        true
    }
}
