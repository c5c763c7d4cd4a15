//! A user's request on its way to a back-end and to its end, and where back-ends are.
//!
//! Invariants: a request goes to one back-end (or to all, as its project wants), and the choice travels with it; only
//! the asking user's own node tells the user how it ended.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Effect, Exchange, append,
    requests::{Notice, Target, Waiting},
    text, written,
};
use crate::{
    metrics::Count,
    model::{
        AckTo, ClientId, Pid, Record, Refusal, Request, Role, SessionId, project::RequestRouting, record::BackendChange,
    },
    protocol::message,
};

/// A user's request, as its core gives it.
pub(super) struct Question {
    pub(super) affair_id: Box<str>,
    pub(super) ack_id: Option<Box<str>>,
    pub(super) timeout: Duration,
    pub(super) payload: Bytes,
}

/// How a request ends without an answer.
#[derive(Clone, Copy)]
pub(super) enum End {
    NoBackend,
    Overloaded,
    TimedOut,
    BackendLost,
}

impl End {
    fn describe(self) -> (Count, &'static str, &'static str) {
        match self {
            End::NoBackend => (Count::RequestsNoBackend, "no_backend", "no back-end of the project is connected"),
            End::Overloaded => (Count::RequestsOverloaded, "overloaded", "too many requests wait for an answer"),
            End::TimedOut => (Count::RequestsTimedOut, "timeout", "the back-end did not answer in time"),
            End::BackendLost => {
                (Count::RequestsBackendLost, "backend_lost", "the back-end went away before it answered")
            }
        }
    }
}

/// Requests.
impl Exchange {
    pub(super) fn request(&mut self, session: SessionId, question: Question, now: Instant, out: &mut Vec<Effect>) {
        let Some(member) = self.presence.get(session).filter(|member| member.role == Role::User).cloned() else {
            return;
        };
        let asker = self.cid(session);
        let Question { affair_id, ack_id, timeout, payload } = question;
        let (target, backend) = match self.target(&member.pid) {
            Ok(target) => target,
            Err(end) => return self.end(vec![Notice { asker, affair_id, ack_id }], end, out),
        };
        let (pid, deadline) = (member.pid.clone(), now + timeout);
        let waiting = Waiting { pid: pid.clone(), asker, affair_id: affair_id.clone(), target, deadline };
        self.requests.submit(waiting, ack_id.clone());
        self.counters.inc(Count::Requests);
        let source = self.source(&member);
        let record = Record::Request(Request { pid, source, affair_id: affair_id.clone(), backend, timeout, payload });
        out.push(Effect::Append(record, AckTo::Request { session, affair_id, ack_id }));
    }

    /// To whom a request of the project goes now. Nodes that were never heard live are the last choice, and before them
    /// those that drain.
    fn target(&mut self, pid: &Pid) -> Result<(Target, Option<ClientId>), End> {
        let (requests, peers) = (&self.requests, &self.peers);
        let weight = |cid: ClientId| (!peers.is_live(cid.node), peers.is_leaving(cid.node), requests.load(cid));
        let chosen = self.directory.choose(pid, weight).ok_or(End::NoBackend)?;
        if self.requests.is_full() {
            return Err(End::Overloaded);
        }
        match self.rules.projects.get(pid).map(|project| project.requests).unwrap_or_default() {
            RequestRouting::One => Ok((Target::One(chosen), Some(chosen))),
            RequestRouting::All => Ok((Target::All(self.directory.of(pid).to_vec()), None)),
        }
    }

    pub(super) fn request_appended(
        &mut self,
        session: SessionId,
        affair_id: &str,
        ack_id: Option<&str>,
        refusal: Option<Refusal>,
        out: &mut Vec<Effect>,
    ) {
        if !self.requests.appended(self.cid(session), affair_id, refusal.is_none()) {
            return;
        }
        match (refusal, ack_id) {
            (Some(refusal), _) => {
                let (err, msg) = (refusal.err(), refusal.message());
                text(out, session, written(|out| message::notice(out, affair_id, ack_id, err, msg)));
            }
            (None, Some(ack_id)) => {
                text(out, session, written(|out| message::requested(out, affair_id, ack_id)));
            }
            (None, None) => {}
        }
    }

    /// Tells users of this node that their requests came to nothing.
    pub(super) fn end(&self, ended: Vec<Notice>, end: End, out: &mut Vec<Effect>) {
        let (count, err, msg) = end.describe();
        for Notice { asker, affair_id, ack_id } in ended {
            self.counters.inc(count);
            let ack_id = ack_id.as_deref();
            text(out, asker.session, written(|out| message::notice(out, &affair_id, ack_id, err, msg)));
        }
    }

    pub(super) fn make_up_affair(&mut self) -> Box<str> {
        self.affairs_made_up += 1;
        format!("r-{}-{}-{:x}", self.node, self.boot, self.affairs_made_up).into()
    }
}

/// Requests and back-ends.
impl Exchange {
    pub(super) fn heard_request(&mut self, request: &Request, now: Instant, out: &mut Vec<Effect>) {
        match self.session(request.source.cid) {
            Some(_) => self.heard_own_request(request),
            None => self.count_request(request, now),
        }
        match request.backend {
            Some(backend) => self.hand_over(request, backend, out),
            None => self.to_local_backends(&request.pid, || written(|out| message::request(out, request)), out),
        }
    }

    /// Other nodes' requests count for the choice of the least pending.
    fn count_request(&mut self, request: &Request, now: Instant) {
        let Some(backend) = request.backend.filter(|backend| self.directory.contains(&request.pid, *backend)) else {
            return;
        };
        if self.requests.is_full() {
            self.counters.inc(Count::RequestsUncounted);
            return;
        }
        self.requests.heard(Waiting {
            pid: request.pid.clone(),
            asker: request.source.cid,
            affair_id: request.affair_id.clone(),
            target: Target::One(backend),
            deadline: now + request.timeout.min(self.rules.limits.request_timeout_max),
        });
    }

    /// Back-ends that came between submitting and hearing get the request too. (What went ended it already.)
    fn heard_own_request(&mut self, request: &Request) {
        if let Some(Target::All(backends)) = self.requests.target_mut(request.source.cid, &request.affair_id) {
            *backends = self.directory.of(&request.pid).to_vec();
        }
    }

    /// Gives a request to its back-end, if that is here; if it should be and is not, says so again.
    fn hand_over(&mut self, request: &Request, backend: ClientId, out: &mut Vec<Effect>) {
        let Some(session) = self.session(backend) else { return };
        if self.presence.backends(&request.pid).iter().any(|member| member.session == session) {
            text(out, session, written(|out| message::request(out, request)));
        } else {
            append(out, Record::Backend(BackendChange { pid: request.pid.clone(), cid: backend, online: false }));
        }
    }

    pub(super) fn heard_backend(&mut self, change: BackendChange, live: bool, now: Instant, out: &mut Vec<Effect>) {
        let BackendChange { pid, cid, online } = change;
        if !online {
            self.backend_gone(&pid, cid, out);
        } else if self.peers.lives(cid.node, cid.boot, live, now) {
            self.backend_came(&pid, cid);
        }
    }

    pub(super) fn backend_came(&mut self, pid: &Pid, cid: ClientId) {
        if self.directory.add(pid, cid) {
            self.lists.queue(pid);
        }
    }

    pub(super) fn backend_gone(&mut self, pid: &Pid, cid: ClientId, out: &mut Vec<Effect>) {
        if self.directory.remove(pid, cid) {
            let lost = self.requests.backend_lost(cid);
            self.end(lost, End::BackendLost, out);
        }
    }
}
