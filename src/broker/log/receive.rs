//! The task that reads: subscribes, hears the retained log, then follows the live entries, and reads from the cursor
//! whenever something may be missing.
//!
//! Invariants: subscribed before the tail is asked for, so that nothing falls between the two; while the node does
//! not take events, nothing is read.

use std::rc::Rc;

use super::{
    CALL_TIMEOUT, LogEvent, Shard, next_page,
    receiver::{Harvest, Heard, Receiver, Verdict},
};
use crate::{
    broker::{Live, News, Opened, Pending},
    limits::{LOG_DEAF_MAX, LOG_RETRY_MAX, LOG_RETRY_MIN, LOG_SILENCE_MAX, LOG_SILENCE_MIN},
    metrics::Count,
};

/// Entries of the first page; from then on pages aim at their bytes.
const FIRST_PAGE_ENTRIES: usize = 16;

pub(super) async fn run(shard: Rc<Shard>) {
    let mut reading =
        Reading { receiver: Receiver::new(shard.held_bytes_max()), page_entries: FIRST_PAGE_ENTRIES, shard };
    loop {
        let shard = reading.shard.clone();
        let live = shard.insist(|| shard.common.broker.subscribe(shard.number)).await;
        if reading.receiver.is_warm() {
            reading.warm_up().await;
        }
        reading.follow(live).await;
    }
}

struct Reading {
    shard: Rc<Shard>,
    receiver: Receiver,
    page_entries: usize,
}

impl Reading {
    /// Takes the last values of the queue's store, and hears the retained log up to the tail that it has now. In this
    /// order: what was stored before it was read is in the log that is read behind it, or has been trimmed from there.
    async fn warm_up(&mut self) {
        let shard = self.shard.clone();
        let mut opened = self.open(&Opened::default()).await;
        let again = loop {
            shard.load_last_values().await;
            self.catch_up().await;
            let again = self.open(&opened).await;
            if opened.is_continued_by(&again) {
                break again;
            }
            opened = again;
        };
        let mut harvest = Harvest::default();
        self.receiver.warmed(&opened, &again, &mut harvest);
        shard.publisher.borrow_mut().saw(self.receiver.cursor());
        self.hand_on(harvest).await;
        let unready = shard.common.unready.get() - 1;
        shard.common.unready.set(unready);
        if unready == 0 {
            shard.common.events.send(LogEvent::Ready).await;
        }
    }

    async fn open(&self, before: &Opened) -> Opened {
        let (shard, open) = (&self.shard, self.receiver.open_again(before));
        shard.insist(|| shard.common.broker.open(shard.number, open.clone())).await
    }

    /// Takes live entries until the subscription ends, or brings nothing though there is something.
    async fn follow(&mut self, mut live: Live) {
        let (mut silence, mut deaf) = (LOG_SILENCE_MIN, 0);
        // What came between the last read and the subscription.
        self.catch_up().await;
        loop {
            live.passed(self.receiver.cursor());
            let news = tokio::select! {
                biased;
                news = live.next() => news,
                () = tokio::time::sleep(silence) => {
                    let found = self.catch_up_behind().await;
                    (silence, deaf) = if found { (LOG_SILENCE_MIN, deaf + 1) } else { ((silence * 2).min(LOG_SILENCE_MAX), 0) };
                    if deaf >= LOG_DEAF_MAX {
                        tracing::warn!(shard = self.shard.number, "the live channel brings nothing; asking for it anew");
                        return;
                    }
                    continue;
                }
            };
            (silence, deaf) = (LOG_SILENCE_MIN, 0);
            match news {
                News::Entry(entry) => {
                    let mut harvest = Harvest::default();
                    let verdict = self.receiver.live(entry, &mut harvest);
                    self.hand_on(harvest).await;
                    match verdict {
                        Verdict::Behind => {
                            self.catch_up_behind().await;
                        }
                        Verdict::Forked => {
                            self.shard.publisher.borrow_mut().forked();
                            self.shard.work.notify_one();
                        }
                        Verdict::Taken | Verdict::Old => {}
                    }
                }
                News::Nudge => {
                    self.catch_up().await;
                }
                News::Missed => {
                    self.catch_up_behind().await;
                }
                News::Ended => return,
            }
        }
    }

    /// Reads what the live channel has not brought, and counts it; whether there was anything.
    async fn catch_up_behind(&mut self) -> bool {
        let found = self.catch_up().await;
        if found {
            self.shard.common.counters.inc(Count::LogCatchUps);
        }
        found
    }

    /// Reads to the end of the log; whether there was anything.
    async fn catch_up(&mut self) -> bool {
        let mut found = false;
        loop {
            let wanted = self.page_entries;
            let count = self.read_page().await;
            found |= count > 0;
            if count < wanted {
                return found;
            }
        }
    }

    /// Reads the next page from the cursor; how many entries it had.
    async fn read_page(&mut self) -> usize {
        let (shard, after, wanted) = (self.shard.clone(), self.receiver.cursor(), self.page_entries);
        let entries = shard.insist(|| shard.common.broker.read(shard.number, after, wanted)).await;
        let (count, bytes) = (entries.len(), entries.iter().map(|entry| entry.content.bytes()).sum());
        self.page_entries = next_page(wanted, count, bytes);
        let mut harvest = Harvest::default();
        self.receiver.page(entries, &mut harvest);
        self.hand_on(harvest).await;
        count
    }

    /// Counts, tells the publisher, and hands the records to the node.
    async fn hand_on(&self, harvest: Harvest) {
        let shard = &self.shard;
        let counters = &shard.common.counters;
        counters.add(Count::LogDuplicate, harvest.duplicates);
        counters.add(Count::LogPoison, harvest.poison.len() as u64);
        for poison in &harvest.poison {
            tracing::error!(shard = shard.number, "passed over {poison}");
        }
        if !harvest.marks.is_empty() {
            let mut publisher = shard.publisher.borrow_mut();
            harvest.marks.iter().for_each(|(position, kind, last)| publisher.observed(*position, *kind, *last));
        }
        let warm = self.receiver.is_warm();
        let mut events = Vec::with_capacity(harvest.heard.len());
        for heard in harvest.heard {
            events.push(match heard {
                Heard::Record(id, record) => LogEvent::Heard { id, record, warm },
                Heard::Lost => self.lost(),
            });
        }
        counters.add(Count::LogHeard, events.len() as u64);
        shard.common.events.send_all(&mut events).await;
    }

    fn lost(&self) -> LogEvent {
        let (shard, cursor) = (self.shard.number, self.receiver.cursor());
        tracing::error!(shard, %cursor, "the queue has lost records for good; subscribers are told");
        self.shard.common.counters.inc(Count::LogLost);
        LogEvent::Lost { shard }
    }
}

impl Shard {
    /// How much of a replay may wait for its seal, in bytes.
    fn held_bytes_max(&self) -> usize {
        self.common.limits.borrow().replay_bytes_max / usize::from(self.common.settings.shards)
    }

    /// Repeats a call until it succeeds.
    async fn insist<'a, T>(&'a self, call: impl Fn() -> Pending<'a, T>) -> T {
        let mut pause = LOG_RETRY_MIN;
        loop {
            match tokio::time::timeout(CALL_TIMEOUT, call()).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => tracing::debug!(shard = self.number, %error, "reading the queue failed"),
                Err(_) => tracing::debug!(shard = self.number, "reading the queue took too long"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOG_RETRY_MAX);
        }
    }
}
