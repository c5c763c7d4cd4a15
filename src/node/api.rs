//! The HTTP API on a core: made there, because it never leaves it.

use std::{rc::Rc, sync::Arc};

use crate::{
    admin,
    health::Health,
    http::{
        Moved, Neighbour, Server,
        api::{Api, PageOrigin},
        demo::Demo,
    },
    inbox::{ExchangeLink, Mailbox},
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
    /// What of the API's listener is for operators, if they share it.
    pub operators: Option<SharedListener>,
}

/// A listener that operators share: what they serve on it, and the way to them.
#[derive(Clone, Debug)]
pub(super) struct SharedListener {
    groups: Arc<[admin::Group]>,
    mailbox: Arc<Mailbox<Moved>>,
}

impl SharedListener {
    /// One with `groups`. More than `connections_max` do not wait for the operators' thread.
    pub fn new(groups: Vec<admin::Group>, connections_max: usize) -> Self {
        Self { groups: groups.into(), mailbox: Mailbox::new(connections_max) }
    }

    /// The operators' end.
    pub fn listener(&self) -> admin::Listener {
        admin::Listener { source: admin::Source::Cores(self.mailbox.clone()), groups: self.groups.to_vec() }
    }

    /// A core's end.
    fn neighbour(&self, counters: Arc<Counters>) -> Neighbour {
        let groups = self.groups.clone();
        Neighbour::new(move |path| admin::serves(&groups, path), self.mailbox.clone(), counters)
    }

    /// Takes what is no WebSocket on a listener without the API.
    pub fn fallback(&self, counters: Arc<Counters>) -> Fallback {
        let neighbour = self.neighbour(counters);
        Rc::new(move |stream, address, already_read| neighbour.take(stream, address, already_read))
    }
}

impl ApiParts {
    /// The server of one core.
    pub fn server(self, link: ExchangeLink, counters: Arc<Counters>) -> Rc<Server<Api>> {
        let http = self.limits.http.clone();
        let stamper = Stamper::new(self.traces, self.stage_latency, counters.clone());
        let operators = self.operators.map(|shared| shared.neighbour(counters.clone()));
        let api = Api::new(link, self.projects, self.limits, counters.clone(), self.health, stamper);
        Rc::new(Server::new(api.open_to(self.pages).with_demo(self.demo), http, counters).beside(operators))
    }
}

/// Takes what is no WebSocket on a listener that both share.
pub(super) fn fallback(server: Rc<Server<Api>>) -> Fallback {
    Rc::new(move |stream, address, already_read| server.accept(stream, address, already_read))
}
