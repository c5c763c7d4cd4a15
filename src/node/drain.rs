//! The end of a node: in good order on the first signal or an operator's order, at once on the second signal.
//!
//! In order: the node is not ready, and no router sends anybody here; every connection is told when to move, and is closed
//! then; the others hear the good-bye when nobody is left, so that presence shows no ghost and misses nobody; the log is
//! flushed and the lease given up; answers of the HTTP API that are under way go out.
//!
//! Invariants: pushes are taken until the log closes, and refused from then on; each step has a bound, and all of them
//! together stay under 30 s with the default `drain`.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    clock,
    limits::{LAST_ANSWERS_MAX, LOG_CLOSE_MAX, LifeLimits, MOVE_MARGIN_MAX},
    metrics::{Count, Registry},
    model::MovePlan,
    protocol::frame::close_code,
};

use super::{exchange_loop::ExchangeLoop, last_words, stop::Signals};

/// How often it is looked whether a step is done.
const LOOK: Duration = Duration::from_millis(20);
/// The hub looks at each closing connection that often.
const CLOSES_SEEN_WITHIN: Duration = Duration::from_millis(500);
/// Status after a second signal.
const STATUS_AT_ONCE: i32 = 1;
/// Log lines and reports get no longer than this after a second signal.
const LAST_WORDS_AT_ONCE_MAX: Duration = Duration::from_millis(200);

/// What made the node drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// SIGTERM or SIGINT: the next one ends the node at once.
    Signal,
    /// An operator: the signal that an orchestrator sends after its hook lets the drain go on.
    Order,
}

/// Ends everything in good order, or at once when a signal says so.
pub(super) async fn drain(
    exchange: ExchangeLoop,
    registry: &Registry,
    life: &LifeLimits,
    mut signals: Signals,
    cause: Cause,
) {
    let at_once = async {
        if cause == Cause::Order {
            signals.stop().await;
            tracing::info!("the drain that was ordered goes on; the next signal ends the process at once");
        }
        signals.stop().await;
    };
    tokio::select! {
        () = in_order(exchange, registry, life) => {}
        () = at_once => {
            tracing::warn!("stopped at once");
            last_words::exit(STATUS_AT_ONCE, LAST_WORDS_AT_ONCE_MAX);
        }
    }
}

async fn in_order(mut exchange: ExchangeLoop, registry: &Registry, life: &LifeLimits) {
    let plan = MovePlan::new(life.drain, life.close_timeout, MOVE_MARGIN_MAX);
    tracing::info!(connections = connections(registry), "draining; a second signal ends the process at once");
    let (begun, before) = (clock::now(), Tally::of(registry));
    exchange.begin_drain(plan).await;
    let end = begun + life.drain.max(plan.last_close() + life.close_timeout) + CLOSES_SEEN_WITHIN;
    while connections(registry) > 0 && clock::now() < end {
        work(&mut exchange).await;
    }
    // What the cores said of the last ones is heard before the good-bye.
    work(&mut exchange).await;
    let cut = connections(registry);
    exchange.say_goodbye(close_code::RESTART).await;
    let log = exchange.log();
    let closed = tokio::select! {
        closed = timeout(LOG_CLOSE_MAX, log.close()) => closed.is_ok(),
        _ = exchange.run(|| {}) => false,
    };
    if !closed {
        tracing::warn!("the log could not be flushed in time");
    }
    let end = clock::now() + LAST_ANSWERS_MAX;
    while sum(registry, Count::HttpInFlight) > 0 && clock::now() < end {
        work(&mut exchange).await;
    }
    work(&mut exchange).await;
    report(before, &Tally::of(registry), cut, clock::now().saturating_duration_since(begun));
}

/// Lets the exchange do what it does, for a moment.
async fn work(exchange: &mut ExchangeLoop) {
    let _ = timeout(LOOK, exchange.run(|| {})).await;
}

/// What the cores have counted.
struct Tally {
    moved: u64,
    closed: u64,
}

impl Tally {
    fn of(registry: &Registry) -> Self {
        Self { moved: sum(registry, Count::Moves), closed: sum(registry, Count::ClosedDrained) }
    }
}

/// `left`: by themselves, as they were told. `cut`: they did not answer the close in time.
fn report(before: Tally, after: &Tally, cut: u64, took: Duration) {
    let (moved, closed) = (after.moved - before.moved, after.closed - before.closed);
    let left = moved.saturating_sub(closed);
    tracing::info!(moved, left, closed, cut, took_ms = took.as_millis() as u64, "drained and stopped");
}

fn connections(registry: &Registry) -> u64 {
    sum(registry, Count::UserConnections).wrapping_add(sum(registry, Count::BackendConnections))
}

fn sum(registry: &Registry, count: Count) -> u64 {
    registry.threads().iter().map(|(_, counters)| counters.get(count)).fold(0, u64::wrapping_add)
}
