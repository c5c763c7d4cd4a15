//! Tags' last values in the queue's store: written when the node wants it, read by a starting node.
//!
//! Invariants: one write at a time, answered once; what cannot be read is counted and passed over, and a store that can
//! never be read delays no start.

use std::{cell::RefCell, future::Future, rc::Rc};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{CALL_TIMEOUT, Common, LogEvent, Shard, next_page};
use crate::{
    broker::{BrokerError, Retain, Retained, RetainedPage, StoredValue},
    limits::{LOG_PAGE_ENTRIES_MAX, LOG_RETRY_MAX, LOG_RETRY_MIN},
    metrics::Count,
    model::{LastValue, RetainOutcome, record::shard_of},
    protocol::wire,
};

/// Values of the first page; from then on pages aim at their bytes.
const FIRST_PAGE_VALUES: usize = 16;

/// What the node wants written next: in which term, and the values.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    values: RefCell<Option<(u64, Vec<LastValue>)>>,
    news: Notify,
}

impl Wanted {
    pub(super) fn put(&self, term: u64, values: Vec<LastValue>) {
        let before = self.values.replace(Some((term, values)));
        debug_assert!(before.is_none(), "the node waits for an answer before it wants more");
        self.news.notify_one();
    }
}

/// Writes what is wanted, for ever.
pub(super) async fn run(common: Rc<Common>) {
    let written = vec![false; usize::from(common.settings.shards)];
    let mut writing = Writing { common, written, is_emptied: false };
    let mut is_failing = false;
    loop {
        writing.common.wanted.news.notified().await;
        let Some((term, values)) = writing.common.wanted.values.take() else { continue };
        let outcome = writing.write(term, values).await;
        if let Err(error) = &outcome {
            writing.common.counters.inc(Count::RetainFailed);
            if !is_failing {
                tracing::warn!(%error, "tags' last values could not be stored; trying again");
            }
        }
        is_failing = outcome.is_err();
        let outcome = outcome.unwrap_or(RetainOutcome::Failed);
        writing.common.events.send(LogEvent::Retained(outcome)).await;
    }
}

struct Writing {
    common: Rc<Common>,
    /// The shards that have been given values, so that they are not empty.
    written: Vec<bool>,
    /// One of them turned out to be empty, which the node has not been told yet.
    is_emptied: bool,
}

impl Writing {
    /// Writes to all shards at once, also to those for which there is nothing: so a store that has been emptied, or
    /// written in a later term, is noticed.
    async fn write(&mut self, term: u64, values: Vec<LastValue>) -> Result<RetainOutcome, BrokerError> {
        let common = self.common.clone();
        let of_shards = (0..).zip(shared_out(&common, &values));
        let answers = join_all(of_shards.map(|(shard, values)| write_shard(&common, shard, term, values))).await;
        let mut outcome = Ok(RetainOutcome::Written);
        for (answer, was_written) in answers.into_iter().zip(&mut self.written) {
            match answer {
                Ok((Retained::Stored { was_empty, .. }, count)) => {
                    self.is_emptied |= was_empty && *was_written;
                    *was_written = count > 0 || (*was_written && !was_empty);
                }
                // A higher term is reached in steps, should the shards have seen different ones.
                Ok((Retained::Superseded(term), _)) => outcome = outcome.map(|_| RetainOutcome::Superseded(term)),
                Err(error) => outcome = Err(error),
            }
        }
        if outcome == Ok(RetainOutcome::Written) && std::mem::take(&mut self.is_emptied) {
            return Ok(RetainOutcome::Emptied);
        }
        outcome
    }
}

/// The values of each shard, as they are stored.
fn shared_out(common: &Common, values: &[LastValue]) -> Vec<Vec<StoredValue>> {
    let shards = common.settings.shards;
    let mut of_shards = vec![Vec::new(); usize::from(shards)];
    for value in values {
        let stored = stored(value);
        // It would push everything else out, and then go itself.
        if stored.cost() > bytes_max(common) {
            common.counters.inc(Count::RetainedDropped);
            continue;
        }
        of_shards[usize::from(shard_of(&value.published.pid, &value.published.tag, shards))].push(stored);
    }
    of_shards
}

/// The answer, and how many values there were.
async fn write_shard(
    common: &Common,
    shard: u16,
    term: u64,
    values: Vec<StoredValue>,
) -> Result<(Retained, u64), BrokerError> {
    let values_max = common.limits.borrow().tags_max.div_ceil(usize::from(common.settings.shards));
    let count = values.len() as u64;
    let retain = Retain { term, values, values_max, bytes_max: bytes_max(common) };
    let retained = in_time(common.broker.retain(shard, retain)).await?;
    if let Retained::Stored { dropped, .. } = retained {
        common.counters.add(Count::RetainedWritten, count);
        common.counters.add(Count::RetainedDropped, dropped);
    }
    Ok((retained, count))
}

/// What the store may hold of one shard.
fn bytes_max(common: &Common) -> usize {
    common.limits.borrow().retained_bytes_max / usize::from(common.settings.shards)
}

fn stored(value: &LastValue) -> StoredValue {
    StoredValue {
        name: wire::last_value_name(&value.published.pid, &value.published.tag),
        at_unix_ms: value.at_unix_ms,
        value: wire::encode_last_value(value),
    }
}

impl Shard {
    /// Hands the node every last value that the store has of this shard.
    pub(super) async fn load_last_values(&self) {
        if self.common.limits.borrow().retained_bytes_max == 0 {
            return;
        }
        let (mut cursor, mut pause) = (None, LOG_RETRY_MIN);
        let (mut values_max, mut page_max) = (FIRST_PAGE_VALUES, LOG_PAGE_ENTRIES_MAX);
        loop {
            match in_time(self.common.broker.retained(self.number, cursor, values_max)).await {
                Ok(RetainedPage { values, next }) => {
                    let bytes = values.iter().map(|(name, value)| name.len() + value.len()).sum();
                    // The store counts roughly: every page passes for a full one.
                    values_max = next_page(values_max, values_max, bytes).min(page_max);
                    self.hand_on_last_values(values).await;
                    if next.is_none() {
                        return;
                    }
                    cursor = next;
                }
                Err(BrokerError::Refused(why)) => {
                    self.common.counters.inc(Count::RetainedUnreadable);
                    tracing::error!(
                        shard = self.number,
                        why,
                        "tags' last values cannot be read; starting without them"
                    );
                    return;
                }
                Err(error) => {
                    tracing::debug!(shard = self.number, %error, "reading last values failed; trying again");
                    // From the beginning: behind a failure may be another server, to which a cursor says nothing.
                    cursor = None;
                    // It may have been too much for the time that a call has.
                    page_max = (values_max / 2).max(FIRST_PAGE_VALUES);
                    values_max = values_max.min(page_max);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOG_RETRY_MAX);
                }
            }
        }
    }

    async fn hand_on_last_values(&self, values: Vec<(Bytes, Bytes)>) {
        let shards = self.common.settings.shards;
        let mut events = Vec::with_capacity(values.len());
        for (name, value) in values {
            match wire::decode_last_value(&name, value) {
                Ok(value) if shard_of(&value.published.pid, &value.published.tag, shards) == self.number => {
                    events.push(LogEvent::LastValue(value));
                }
                other => {
                    let why =
                        other.err().map_or_else(|| "it is of another shard".to_owned(), |error| error.to_string());
                    self.common.counters.inc(Count::RetainedUnreadable);
                    tracing::debug!(shard = self.number, why, "passed over a last value");
                }
            }
        }
        self.common.events.send_all(&mut events).await;
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    answer.unwrap_or_else(|_| Err(BrokerError::Unknown("no answer in time".to_owned())))
}
