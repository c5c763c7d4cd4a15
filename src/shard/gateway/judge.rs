//! Who may connect: the node's state, the caps, the credentials, the origin, in this order.
//!
//! Invariant: nothing that is said to the peer tells which part of its credentials was wrong.

use std::{net::IpAddr, time::Duration};

use crate::{
    clock,
    health::State,
    hub::{Decis, NewSession, decis},
    metrics::Count,
    model::{Project, Role, SessionId},
    protocol::{
        frame::close_code,
        handshake::Upgrade,
        jwt,
        query::Params,
        sign::{self, Identity},
    },
};

use super::{
    super::{
        admission::Permit,
        core::Core,
        service::{Admitted, Verdict},
    },
    Gateway, GatewayPeer, RarePeer,
};

/// How bad credentials are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthReject {
    /// 101 and a close 4401: a browser can read nothing else.
    #[default]
    Close,
    /// 401.
    Http,
}

impl Gateway {
    pub(super) fn judge_upgrade(
        &self,
        core: &Core,
        upgrade: &Upgrade,
        address: IpAddr,
        permit: &mut Permit,
    ) -> Verdict<GatewayPeer> {
        match self.health.state() {
            State::Ready | State::QueueUnavailable => {}
            state => {
                return Verdict::Refuse {
                    status: 503,
                    err: state.word(),
                    message: "the node takes no connections now",
                };
            }
        }
        if self.admission.is_short_of_memory() {
            core.counters().inc(Count::MemoryRefused);
            let message = "the node is short of memory; try another, or later";
            return Verdict::Refuse { status: 503, err: "overloaded", message };
        }
        let (peer, address) = (address, self.admission.real_address(address, upgrade.forwarded_for.as_deref()));
        if self.admission.is_barred(address, clock::now()) {
            let message = "too many failed credentials from this address; wait a minute";
            return Verdict::Refuse { status: 429, err: "too_many_failures", message };
        }
        if self.admission.is_trusted_proxy(peer) && permit.take_address(address).is_err() {
            let message = "too many connections from this address";
            return Verdict::Refuse { status: 429, err: "too_many_connections", message };
        }
        let Ok(params) = Params::parse(&upgrade.query) else {
            return Verdict::Refuse {
                status: 400,
                err: "bad_query",
                message: "the query is malformed or has a name twice",
            };
        };
        let horizon = core.limits().opening.sign_horizon_connect;
        let projects = self.projects.borrow();
        let Ok(identity) = sign::verify_connect(&projects, &params, clock::unix_now(), horizon) else {
            return self.deny(address);
        };
        let Some(project) = projects.get(&identity.pid) else { return self.deny(address) };
        if !self.origin_is_allowed(project, upgrade) {
            return Verdict::Refuse { status: 403, err: "origin", message: "the project does not allow this origin" };
        }
        if identity.role == Role::User && permit.take_user(&identity.pid, &identity.uid).is_err() {
            return Verdict::Close { code: close_code::TOO_MANY, reason: "too many connections of this user" };
        }
        let tags = params.get("tags").unwrap_or_default();
        let tags: Vec<Box<str>> = tags.split(',').filter(|tag| !tag.is_empty()).map(Box::from).collect();
        let peer = GatewayPeer {
            role: identity.role,
            bad_in_a_row: 0,
            with_token: identity.expires_unix.is_some(),
            rare: (!tags.is_empty()).then(|| Box::new(RarePeer { tags, ..RarePeer::default() })),
        };
        Verdict::Admit(Box::new(Admitted { session: session_of(core, identity), peer }))
    }

    fn deny(&self, address: IpAddr) -> Verdict<GatewayPeer> {
        self.admission.failed(address, clock::now());
        match self.settings.auth_reject {
            AuthReject::Close => Verdict::Close { code: close_code::CREDENTIALS, reason: "bad credentials" },
            AuthReject::Http => {
                Verdict::Refuse { status: 401, err: "unauthorized", message: "the credentials are not valid" }
            }
        }
    }

    /// Only browsers send an origin; one that is there must be meant for this project.
    fn origin_is_allowed(&self, project: &Project, upgrade: &Upgrade) -> bool {
        let Some(origin) = upgrade.origin.as_deref() else { return true };
        if !project.origins.is_empty() {
            return project.origins.iter().any(|allowed| **allowed == *"*" || allowed.eq_ignore_ascii_case(origin));
        }
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        !self.settings.own_origin_only || host.eq_ignore_ascii_case(&upgrade.host)
    }

    /// When a session's new token ends, or why it is not taken.
    pub(super) fn judge_refresh(
        &self,
        core: &Core,
        peer: &GatewayPeer,
        id: SessionId,
        token: &str,
    ) -> Result<Decis, (&'static str, &'static str)> {
        if !peer.with_token {
            return Err(("no_token", "this session was not opened with a token and does not end by itself"));
        }
        let projects = self.projects.borrow();
        let refused = ("unauthorized", "the token is not valid for this session");
        let identity = jwt::verify(&projects, token, clock::unix_now()).map_err(|_| refused)?;
        let is_same = core.with_hub(|hub| {
            hub.session(id).is_some_and(|session| *session.uid() == *identity.uid)
                && hub.pid(id) == Some(&identity.pid)
                && identity.role == peer.role
        });
        let expires = identity.expires_unix.filter(|_| is_same).ok_or(refused)?;
        Ok(end_of(core, expires))
    }
}

fn session_of(core: &Core, identity: Identity) -> NewSession {
    NewSession {
        pid: identity.pid,
        role: identity.role,
        uid: identity.uid,
        device: identity.device,
        tag_patterns: identity.tag_patterns.map(Into::into),
        expires: identity.expires_unix.map(|expires| end_of(core, expires)),
        deflate: None,
    }
}

/// A wall clock time in the hub's time.
fn end_of(core: &Core, expires_unix: u64) -> Decis {
    let left = Duration::from_secs(expires_unix).saturating_sub(clock::unix_now());
    core.now().saturating_add(decis(left))
}
