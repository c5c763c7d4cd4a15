//! What the node's own threads order a core to do, beside what the exchange says to it: take new settings, name its largest
//! outboxes, cut some of them.
//!
//! Why apart from the inbox: a full inbox must not keep memory from being given back, nor a reload from coming through.
//! Invariant: an order is carried out whole, in one turn of the core; who waits for it waits no longer than a bound.

use std::{
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use crate::{
    clock,
    http::{Server, api::Api},
    inbox::Mailbox,
    limits::{Limits, MEMORY_CUT_BYTES_MIN, MEMORY_CUTS_MAX},
    model::{Projects, SessionId, TagRules},
    shard::{Core, Gateway},
};

/// Orders that wait for one core: those of a reload and of the watch over memory, one each, and some to spare.
pub(super) const ORDERS_MAX: usize = 16;

/// An order to one core.
#[derive(Debug)]
pub(super) enum Order {
    /// Take these settings, and say so.
    Reload(NewSettings, SyncSender<()>),
    /// Name the sessions for which most bytes wait.
    NameLargest(SyncSender<Vec<(usize, SessionId)>>),
    /// Give up what waits for these sessions, and close them.
    Cut(Vec<SessionId>),
}

/// What a reload replaces on a core.
#[derive(Clone, Debug)]
pub(super) struct NewSettings {
    /// The node's bounds.
    pub limits: Arc<Limits>,
    /// The tenants.
    pub projects: Projects,
    /// Rules for tags.
    pub rules: TagRules,
    /// The core's share of what may wait for all connections.
    pub outboxes_bytes_max: usize,
}

/// Carries out orders on a core, for ever.
pub(super) async fn obey(orders: Arc<Mailbox<Order>>, core: Rc<Core>, gateway: Rc<Gateway>, server: Rc<Server<Api>>) {
    let mut batch = Vec::new();
    loop {
        orders.receive(&mut batch).await;
        for order in batch.drain(..) {
            carry_out(order, &core, &gateway, &server);
        }
    }
}

fn carry_out(order: Order, core: &Rc<Core>, gateway: &Gateway, server: &Server<Api>) {
    match order {
        Order::Reload(NewSettings { limits, projects, rules, outboxes_bytes_max }, done) => {
            core.reload(&limits, rules.clone(), outboxes_bytes_max);
            server.set_limits(limits.http.clone());
            server.handler().reload(projects.clone(), &limits);
            gateway.reload(core, projects, rules);
            // Nobody waits any more: then it took too long, and that has been told.
            let _ = done.try_send(());
        }
        Order::NameLargest(tell) => {
            let largest = core.with_hub(|hub| hub.largest_outboxes(MEMORY_CUTS_MAX, MEMORY_CUT_BYTES_MIN));
            let _ = tell.try_send(largest);
        }
        Order::Cut(sessions) => core.with_hub(|hub| sessions.into_iter().for_each(|id| hub.cut_largest(id))),
    }
}

/// The answers that come within a time, at most `wanted`.
pub(super) fn gather<T>(answers: &Receiver<T>, wanted: usize, within: Duration) -> Vec<T> {
    let end = clock::now() + within;
    let mut gathered = Vec::with_capacity(wanted);
    while gathered.len() < wanted {
        match answers.recv_timeout(end.saturating_duration_since(clock::now())) {
            Ok(answer) => gathered.push(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    gathered
}
