//! Reaches the queue, takes the node's lease, starts the shards' tasks, and then keeps the lease.
//!
//! Invariants: no shard appends before the lease is held; what can never work is told once, as
//! [`LogEvent::Failed`]; everything else is tried again for ever, with a pause.

use std::{rc::Rc, time::Duration};

use tokio::task::AbortHandle;

use super::{Common, LogEvent, Shard, publish, receive};
use crate::{
    broker::{BrokerError, Claim, lease::Change, now},
    limits::{LEASE_RENEW, LEASE_TTL, LOG_RETRY_MAX, LOG_RETRY_MIN},
};

/// Ends the tasks of the shards when the task that started them ends.
#[derive(Default)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// How often a starting node looks whether the id is free.
const LEASE_WATCH: Duration = Duration::from_millis(250);

pub(super) async fn run(common: Rc<Common>, shards: Rc<[Rc<Shard>]>) {
    if let Err(why) = start(&common, &shards).await {
        tracing::error!(%why, "the log cannot start");
        common.events.send(LogEvent::Failed(why)).await;
        return;
    }
    let mut tasks = Tasks::default();
    for shard in shards.iter() {
        tasks.0.push(tokio::task::spawn_local(receive::run(shard.clone())).abort_handle());
        tasks.0.push(tokio::task::spawn_local(publish::run(shard.clone())).abort_handle());
    }
    keep_lease(&common, &shards).await;
}

/// Joins and takes the lease. What waits meanwhile is refused in time.
async fn start(common: &Rc<Common>, shards: &Rc<[Rc<Shard>]>) -> Result<(), String> {
    let expiring = async {
        loop {
            tokio::time::sleep(LEASE_WATCH).await;
            for shard in shards.iter() {
                shard.publisher.borrow_mut().expire(now(), &mut shard.told.borrow_mut());
                shard.tell().await;
            }
        }
    };
    tokio::select! {
        biased;
        started = join_and_claim(common) => started,
        () = expiring => Ok(()),
    }
}

async fn join_and_claim(common: &Common) -> Result<(), String> {
    let mut pause = LOG_RETRY_MIN;
    while let Err(error) = common.broker.join(common.settings.shards).await {
        if let BrokerError::Refused(why) = error {
            return Err(why);
        }
        if pause == LOG_RETRY_MIN {
            tracing::warn!(%error, "the queue cannot be reached; trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOG_RETRY_MAX);
    }
    let watch_until = now() + LEASE_TTL + LEASE_RENEW;
    loop {
        let change = claim(common).await;
        match change {
            Change::Taken => return Ok(()),
            Change::Refused(holder) => return Err(refusal(common, &holder)),
            _ if now() > watch_until && is_contended(common) => return Err(refusal(common, "a living holder")),
            _ => tokio::time::sleep(LEASE_WATCH).await,
        }
    }
}

fn is_contended(common: &Common) -> bool {
    common.lease.borrow().watches_a_holder()
}

fn refusal(common: &Common, holder: &str) -> String {
    format!("node id {} is taken: {holder} holds it and lives", common.settings.node)
}

/// Renews the lease for ever and suspends the shards while another boot has it.
async fn keep_lease(common: &Common, shards: &[Rc<Shard>]) {
    loop {
        let is_valid = common.lease.borrow().is_valid(now());
        tokio::time::sleep(if is_valid { LEASE_RENEW } else { LEASE_WATCH }).await;
        match claim(common).await {
            Change::Lost(holder) => {
                tracing::error!(%holder, node = common.settings.node, "another boot took this node's id");
                suspend(shards).await;
                common.events.send(LogEvent::LeaseLost { holder }).await;
            }
            Change::Regained => {
                shards.iter().for_each(|shard| shard.publisher.borrow_mut().resume());
                common.events.send(LogEvent::LeaseRegained).await;
            }
            Change::None | Change::Taken | Change::Refused(_) => {}
        }
        shards.iter().for_each(|shard| shard.work.notify_one());
    }
}

async fn suspend(shards: &[Rc<Shard>]) {
    for shard in shards {
        shard.publisher.borrow_mut().suspend(&mut shard.told.borrow_mut());
        shard.tell().await;
    }
}

/// Asks for the lease once. A queue that does not answer changes nothing: the lease runs out by itself.
async fn claim(common: &Common) -> Change {
    let settings = &common.settings;
    let claim = Claim { node: settings.node, boot: settings.boot, text: settings.lease_text.clone(), ttl: LEASE_TTL };
    let asked = now();
    match common.broker.claim(claim).await {
        Ok(claimed) => common.lease.borrow_mut().answered(claimed, asked, now()),
        Err(error) => {
            tracing::debug!(%error, "the node's lease could not be renewed");
            Change::None
        }
    }
}
