//! `/admin/drain`: whether the node drains, and the order to.
//!
//! Invariants: the order does what SIGTERM does, and is no signal, so that a hook may give it before the signal comes; given again
//! it changes nothing.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::order::Order;
use crate::{
    health::{Health, State},
    http::Response,
    metrics::{Count, Registry},
};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    order: Order,
    time: Duration,
    registry: Registry,
    health: Arc<Health>,
}

impl Drain {
    pub(super) fn new(order: Order, time: Duration, registry: Registry, health: Arc<Health>) -> Self {
        Self { order, time, registry, health }
    }

    /// Tells the state, after the order was given if that was asked for.
    pub(super) fn answer(&self, is_order: bool) -> Response {
        if !is_order {
            return Response::success(self.shown(self.health.state()));
        }
        if self.health.state() != State::Draining {
            tracing::warn!("an operator has ordered the node to drain and to end");
        }
        self.order.give();
        Response { status: StatusCode::ACCEPTED, ..Response::success(self.shown(State::Draining)) }
    }

    fn shown(&self, state: State) -> String {
        let of = |count| self.registry.threads().iter().map(|(_, it)| it.get(count)).fold(0, u64::wrapping_add);
        let connections = of(Count::UserConnections) + of(Count::BackendConnections);
        let (state, ms) = (state.word(), self.time.as_millis());
        format!(r#"{{"state":"{state}","connections":{connections},"drain_ms":{ms}}}"#)
    }
}
