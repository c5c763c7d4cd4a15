//! The product on a shard: who may connect, what users and back-ends say, what the exchange sends.
//!
//! Invariants: nothing crosses projects, because every lookup begins with the session's own; nothing that a peer
//! says is answered before it is decided; a push is acknowledged only when the exchange says that the log holds it.

mod backend;
mod checking;
mod hearing;
mod judge;
mod moving;
#[cfg(feature = "plain-pubsub")]
mod plant;
mod reload;
mod user;

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;

pub use judge::AuthReject;

use crate::{
    clock,
    health::Health,
    inbox::ExchangeLink,
    metrics::{Count, Counters},
    model::{FromCore, NodeId, Pid, Projects, Role, SessionId, Tag, TagRules},
    protocol::{decoder::Message, fault::Fault, frame::close_code, handshake::Upgrade, message},
    router::Router,
    traces::{Stamper, Traces},
};

use super::{
    admission::{Admission, Permit},
    core::Core,
    service::{Hangup, Plain, Service, Verdict},
};
use backend::BackendPeer;
use checking::Checks;
use moving::{RETRY_SOON, ROUTE};

/// What a gateway is told at start.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The node's number, for the greeting.
    pub node: NodeId,
    /// Tenants.
    pub projects: Projects,
    /// Who may subscribe to what.
    pub rules: TagRules,
    /// How bad credentials are answered.
    pub auth_reject: AuthReject,
    /// Whether a browser's origin must be the own host where a project names none.
    pub own_origin_only: bool,
    /// Whether the age of pushes is measured at each stage of their way.
    pub stage_latency: bool,
    /// Where traces go.
    pub traces: Traces,
    /// Where clients are sent.
    pub router: Router,
    /// Whether connections that are to move are told a node: only addresses that an operator gave are good for all.
    pub names_next: bool,
}

/// The product's service on one core.
#[derive(Debug)]
pub struct Gateway {
    settings: GatewaySettings,
    /// What a reload replaces.
    projects: RefCell<Projects>,
    rules: RefCell<TagRules>,
    link: ExchangeLink,
    admission: Admission,
    health: Arc<Health>,
    stamper: Rc<Stamper>,
}

/// A connection's state beyond what the hub keeps.
#[derive(Debug)]
pub struct GatewayPeer {
    role: Role,
    bad_in_a_row: u32,
    /// Whether it was opened with a token, which may be refreshed.
    with_token: bool,
    rare: Option<Box<RarePeer>>,
}

// An idle connection pays for this.
const _: () = assert!(size_of::<GatewayPeer>() <= 16);

/// What few connections have.
#[derive(Debug, Default)]
struct RarePeer {
    /// Tags to be subscribed to at once, until they are.
    tags: Vec<Box<str>>,
    backend: Option<BackendPeer>,
    /// Its questions about what it holds that wait for the exchange.
    checks: Checks,
}

impl Gateway {
    /// The service of the core that `link` belongs to and that `counters` are of.
    pub fn new(
        settings: GatewaySettings,
        link: ExchangeLink,
        admission: Admission,
        health: Arc<Health>,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        let stamper = Stamper::new(settings.traces.clone(), settings.stage_latency, counters);
        let (projects, rules) = (RefCell::new(settings.projects.clone()), RefCell::new(settings.rules.clone()));
        Rc::new(Self { settings, projects, rules, link, admission, health, stamper: Rc::new(stamper) })
    }

    /// Answers a message that could not be taken; too many of those in a row end the connection.
    fn refuse(
        &self,
        core: &Core,
        peer: &mut GatewayPeer,
        id: SessionId,
        ack_id: Option<&str>,
        fault: Fault,
    ) -> Result<(), Hangup> {
        let mut text = Vec::new();
        message::failed(&mut text, ack_id, fault.err(), &fault.to_string());
        core.with_hub(|hub| hub.send_text(id, &text));
        peer.bad_in_a_row += 1;
        if peer.bad_in_a_row < core.limits().frames.bad_messages_max {
            return Ok(());
        }
        core.counters().inc(Count::ClosedProtocol);
        Err(Hangup { code: close_code::POLICY, reason: "too many bad messages in a row" })
    }

    fn answer_done(&self, core: &Core, id: SessionId, ack_id: Option<&str>) {
        if let Some(ack_id) = ack_id {
            let mut text = Vec::new();
            message::done(&mut text, ack_id);
            core.with_hub(|hub| hub.send_text(id, &text));
        }
    }

    fn answer_heart(&self, core: &Core, id: SessionId, ack_id: Option<&str>) {
        let unix = clock::unix_now();
        let cid = core.with_hub(|hub| hub.client_id(id));
        let mut text = Vec::new();
        message::heart(&mut text, ack_id, cid, &clock::local_text(unix), clock::unix_ms());
        core.with_hub(|hub| hub.send_text(id, &text));
    }

    /// Tells the exchange that nobody on this core follows a tag any more.
    fn unfollowed(&self, pid: &Pid, tag: Tag) {
        self.link.send(FromCore::Unfollow { core: self.link.core(), pid: pid.clone(), tag });
    }

    fn greet(&self, core: &Core, id: SessionId) {
        let heartbeat = core.limits().life.heartbeat;
        let cid = core.with_hub(|hub| hub.client_id(id));
        let mut text = Vec::new();
        message::greeting(&mut text, self.settings.node, cid, heartbeat);
        core.with_hub(|hub| hub.send_text(id, &text));
    }
}

impl Service for Gateway {
    type Peer = GatewayPeer;

    fn judge(&self, core: &Core, upgrade: &Upgrade, address: IpAddr, permit: &mut Permit) -> Verdict<GatewayPeer> {
        if *upgrade.path == *ROUTE {
            return self.redirect(core, upgrade);
        }
        self.judge_upgrade(core, upgrade, address, permit)
    }

    fn plain(&self, core: &Core, path: &str) -> Option<Plain> {
        if path == ROUTE {
            return Some(self.route(core));
        }
        let (status, body) = self.health.answer(path)?;
        Some(Plain { status, headers: if status == 503 { &[RETRY_SOON] } else { &[] }, body })
    }

    fn is_endpoint(&self, path: &str) -> bool {
        matches!(path, "/ws/connect" | "/connect" | ROUTE)
    }

    fn opened(&self, core: &Rc<Core>, peer: &mut GatewayPeer, id: SessionId) {
        let known = core.with_hub(|hub| {
            let session = hub.session(id)?;
            Some((hub.pid(id)?.clone(), session.device().map(Box::from), Box::from(session.uid())))
        });
        let Some((pid, device, uid)) = known else { return };
        self.greet(core, id);
        let opened =
            FromCore::Opened { session: id, pid, role: peer.role, uid, device, since_unix_ms: clock::unix_ms() };
        self.link.send(opened);
        if let Some(RarePeer { tags, .. }) = peer.rare.take().map(|rare| *rare) {
            self.subscribe_at_once(core, id, &tags);
        }
    }

    fn message(
        &self,
        core: &Rc<Core>,
        peer: &mut GatewayPeer,
        id: SessionId,
        message: Message<'_>,
    ) -> Result<(), Hangup> {
        let Message::Text(text) = message else {
            return Err(Hangup { code: close_code::UNSUPPORTED, reason: "only text messages are understood" });
        };
        match peer.role {
            Role::User => self.user_says(core, peer, id, text),
            Role::Backend => self.backend_says(core, peer, id, text),
        }
    }

    fn turn_ended(
        &self,
        core: &Rc<Core>,
        peer: &mut GatewayPeer,
        id: SessionId,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        self.submit_turn(core, peer.rare.as_mut()?.backend.as_mut()?, id)
    }

    fn closed(&self, core: &Rc<Core>, _: GatewayPeer, id: SessionId) {
        if let Some(closed) = core.with_hub(|hub| hub.close(id)) {
            for tag in closed.unfollowed {
                self.unfollowed(&closed.pid, tag);
            }
            self.link.send(FromCore::Closed { session: id });
        }
    }

    fn message_bytes_max(&self, core: &Core, role: Role) -> usize {
        match role {
            Role::User => core.limits().frames.user_message_bytes_max,
            Role::Backend => core.limits().frames.backend_message_bytes_max,
        }
    }
}
