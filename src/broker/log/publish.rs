//! The task that appends: asks the publisher for its next step, awaits it, hands the answer back.
//!
//! An append costs the queue more than a record in it: while records come faster than appends are answered, the next one
//! begins some time after the last ([`LOG_GATHER`]), with all that came meanwhile. A record that comes alone waits for nobody.
//!
//! Invariants: one call to the queue at a time; submitters are told while a call is on its way, so that a queue that
//! hangs holds nobody longer than the bound.

use std::{rc::Rc, time::Instant};

use super::{
    CALL_TIMEOUT, Shard,
    publisher::{Publisher, Step},
};
use crate::{
    broker::{BrokerError, Pending, now},
    limits::LOG_GATHER,
    metrics::Count,
};

pub(super) async fn run(shard: Rc<Shard>) {
    let broker = shard.common.broker.clone();
    loop {
        shard.tell().await;
        shard.gather().await;
        let step = shard.step();
        shard.tell().await;
        match step {
            Step::Wait(until) => shard.pause(until).await,
            Step::Open(open) => {
                let answer = shard.during(broker.open(shard.number, open)).await;
                let mut publisher = shard.publisher.borrow_mut();
                match answer {
                    Ok(opened) => publisher.opened(&opened, now(), &mut shard.told.borrow_mut()),
                    Err(error) => shard.failed(&mut publisher, &error),
                }
            }
            Step::Append(append) => {
                shard.appending(append.batch.bodies.len());
                let answer = shard.during(broker.append(shard.number, append)).await;
                let mut publisher = shard.publisher.borrow_mut();
                match answer {
                    Ok(appended) => publisher.appended(appended, now(), &mut shard.told.borrow_mut()),
                    Err(error) => shard.failed(&mut publisher, &error),
                }
            }
        }
    }
}

impl Shard {
    fn step(&self) -> Step {
        let now = now();
        let mut publisher = self.publisher.borrow_mut();
        publisher.expire(now, &mut self.told.borrow_mut());
        let pending_bytes = publisher.pending_bytes() as u64;
        let before = self.pending_bytes.replace(pending_bytes);
        self.common.counters.add(Count::LogPendingBytes, pending_bytes.wrapping_sub(before));
        if publisher.take_window_cut() {
            tracing::warn!(shard = self.number, "the replay window is shorter than its age: its bytes are full");
        }
        // A lease that may have run out is renewed first: another node may be about to take this one's place.
        match self.common.lease.borrow().is_valid(now) {
            true => publisher.step(now),
            false => Step::Wait(publisher.deadline()),
        }
    }

    fn failed(&self, publisher: &mut Publisher, error: &BrokerError) {
        if publisher.is_failing() {
            tracing::debug!(shard = self.number, %error, "a call to the queue failed again");
        } else {
            tracing::warn!(shard = self.number, %error, "a call to the queue failed; trying again");
        }
        publisher.failed(error, now());
    }

    /// Notes an append of so many records. Several of them say that records come faster than appends: then the next one
    /// has time to gather. A queue in this process costs no more for many appends.
    fn appending(&self, records: usize) {
        let gathers = records > 1 && !self.common.broker.takes_values();
        self.gather_until.set(gathers.then(|| now() + LOG_GATHER));
    }

    /// Lets a batch gather that follows one of several records. What comes meanwhile looks at the time, which is finer than a
    /// timer.
    async fn gather(&self) {
        let Some(until) = self.gather_until.take() else { return };
        while now() < until && !self.publisher.borrow().has_full_batch() {
            self.pause(Some(until)).await;
        }
    }

    /// Waits for work or the instant.
    async fn pause(&self, until: Option<Instant>) {
        tokio::select! {
            biased;
            () = self.work.notified() => {}
            () = sleep_until(until) => {}
        }
    }

    /// Awaits a call, and tells those whose time runs out meanwhile.
    async fn during<T>(&self, call: Pending<'_, T>) -> Result<T, BrokerError> {
        let mut call = std::pin::pin!(tokio::time::timeout(CALL_TIMEOUT, call));
        loop {
            let deadline = self.publisher.borrow().deadline();
            tokio::select! {
                biased;
                answer = &mut call => {
                    return answer.unwrap_or_else(|_| Err(BrokerError::Unknown("no answer in time".to_owned())));
                }
                () = sleep_until(deadline) => {
                    self.publisher.borrow_mut().expire(now(), &mut self.told.borrow_mut());
                    self.tell().await;
                }
            }
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
