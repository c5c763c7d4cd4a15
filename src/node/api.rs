//! The HTTP API on a core: made there, because it never leaves it.

use std::{rc::Rc, sync::Arc};

use crate::{
    health::Health,
    http::{
        Server,
        api::{Api, PageOrigin},
        demo::Demo,
    },
    inbox::ExchangeLink,
    limits::Limits,
    metrics::Counters,
    model::Projects,
    shard::Fallback,
    traces::{Stamper, Traces},
};

/// What a core's API works with.
#[derive(Clone, Debug)]
pub(super) struct ApiParts {
    /// Tenants.
    pub projects: Projects,
    /// The node's bounds.
    pub limits: Limits,
    /// The node's health.
    pub health: Arc<Health>,
    /// Whether the age of pushes is measured at each stage of their way.
    pub stage_latency: bool,
    /// Where traces go.
    pub traces: Traces,
    /// Where the node's own pages are, if they are on.
    pub pages: Option<PageOrigin>,
    /// The demo page, if there is one.
    pub demo: Option<Demo>,
}

impl ApiParts {
    /// The server of one core.
    pub fn server(self, link: ExchangeLink, counters: Arc<Counters>) -> Rc<Server<Api>> {
        let http = self.limits.http.clone();
        let stamper = Stamper::new(self.traces, self.stage_latency, counters.clone());
        let api = Api::new(link, self.projects, self.limits, counters.clone(), self.health, stamper);
        Server::new(api.open_to(self.pages).with_demo(self.demo), http, counters)
    }
}

/// Takes what is no WebSocket on a listener that both share.
pub(super) fn fallback(server: Rc<Server<Api>>) -> Fallback {
    Rc::new(move |stream, address, already_read| server.accept(stream, address, already_read))
}
