//! What the log brings, and what this node does of it.
//!
//! Invariant: a record of this node is treated as everybody else's; only what concerns one connection (a notice, a
//! request's text) is done by the node that holds it, and only there.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Effect, Exchange, append,
    cores::Cores,
    keys::Key,
    online::{self, Page},
    tags::Delivery,
    text, written,
};
use crate::{
    metrics::Count,
    model::{
        Audience, Boot, ClientId, Control, NodeId, Pid, Publication, Push, Record, RecordId, ToCore,
        record::{Beat, BeatPhase, OnlineAnswer, OnlineAsk, OnlineClients, OnlineConnection, Presence},
    },
    protocol::message,
};

impl Exchange {
    /// Remembers what the log had kept from before; nobody hears of it.
    pub(super) fn warm(&mut self, id: RecordId, record: Record, now: Instant) {
        if let Some(key) = Key::of(&record, self.shards)
            && self.keys.heard(key, id, now) != id
        {
            return;
        }
        match record {
            Record::Publication(publication) => {
                let rule = self.rules.tags.find(&publication.tag);
                self.tags.publish_kept(id, publication, rule, now);
            }
            // Nobody waits for a back-end yet, so nobody is told of a loss.
            Record::Backend(change) => self.heard_backend(change, false, now, &mut Vec::new()),
            Record::Beat(beat) => self.heard_beat(beat, false, now, &mut Vec::new()),
            _ => {}
        }
    }

    pub(super) fn heard(&mut self, id: RecordId, record: Record, now: Instant, out: &mut Vec<Effect>) {
        if let Some(key) = Key::of(&record, self.shards)
            && !self.heard_key(key, id, now, out)
        {
            return;
        }
        match record {
            Record::Publication(publication) => self.heard_publication(id, publication, now, out),
            Record::Push(push) => self.heard_push(push, out),
            Record::Control(control) => self.heard_control(control, out),
            Record::Request(request) => self.heard_request(&request, now, out),
            Record::Presence(presence) => self.heard_presence(&presence, out),
            Record::OnlineClients(part) => self.heard_online_clients(&part, out),
            Record::Backend(change) => self.heard_backend(change, true, now, out),
            Record::Beat(beat) => self.heard_beat(beat, true, now, out),
            Record::OnlineAsk(ask) => self.heard_online_ask(&ask, now, out),
            Record::OnlineAnswer(answer) => self.heard_online_answer(answer, now, out),
        }
    }

    /// Answers who waited to hear this record; whether it is the first with its key.
    fn heard_key(&mut self, key: Key, id: RecordId, now: Instant, out: &mut Vec<Effect>) -> bool {
        let first = self.keys.heard(key, id, now);
        let answer = self.submissions.heard(id, first);
        self.answer(answer, out);
        if first != id {
            self.counters.inc(Count::KeysRepeated);
        }
        first == id
    }

    fn heard_publication(&mut self, id: RecordId, publication: Publication, now: Instant, out: &mut Vec<Effect>) {
        let rule = self.rules.tags.find(&publication.tag);
        let Some(Delivery { published, cores, gap }) = self.tags.publish(id, publication, rule, now) else { return };
        for core in cores.iter() {
            if gap {
                out.push(Effect::ToCore(core, ToCore::Gap { pid: published.pid.clone(), tag: published.tag.clone() }));
            }
            out.push(Effect::ToCore(core, ToCore::Publication(published.clone())));
        }
    }

    fn heard_push(&mut self, push: Push, out: &mut Vec<Effect>) {
        if let (Some(affair_id), [cid]) = (&push.affair_id, push.audience.cids.as_slice())
            && let Ok(asker) = cid.parse()
            && self.requests.answered(&push.pid, asker, affair_id)
        {
            self.counters.inc(Count::RequestsAnswered);
        }
        let cores = self.cores_of(&push.audience);
        let push = Arc::new(push);
        for core in cores.iter() {
            out.push(Effect::ToCore(core, ToCore::Push(push.clone())));
        }
    }

    fn heard_control(&mut self, control: Control, out: &mut Vec<Effect>) {
        let cores = self.cores_of(&control.audience);
        let control = Arc::new(control);
        for core in cores.iter() {
            out.push(Effect::ToCore(core, ToCore::Control(control.clone())));
        }
    }

    /// The cores on which a member of the audience can be: a connection id names its core.
    fn cores_of(&self, audience: &Audience) -> Cores {
        if audience.cids.is_empty() {
            return self.cores;
        }
        let mut cores = Cores::default();
        let sessions = audience.cids.iter().filter_map(|cid| self.session(cid.parse().ok()?));
        sessions.filter(|session| self.cores.contains(session.core)).for_each(|session| cores.insert(session.core));
        cores
    }
}

/// Nodes and who is online on them.
impl Exchange {
    pub(super) fn to_local_backends(&self, pid: &Pid, build: impl FnOnce() -> Bytes, out: &mut Vec<Effect>) {
        let backends = self.presence.backends(pid);
        if backends.is_empty() {
            return;
        }
        let message = build();
        for backend in backends {
            text(out, backend.session, message.clone());
        }
    }

    fn heard_beat(&mut self, beat: Beat, live: bool, now: Instant, out: &mut Vec<Effect>) {
        let Beat { node, boot, phase, backends, standing } = beat;
        let heard = self.peers.heard(node, boot, phase, live, now);
        if let Some(gone) = heard.gone {
            self.node_gone(node, gone, out);
        }
        if !heard.counts {
            return;
        }
        if live {
            self.peers.stands(node, standing);
        }
        self.replace_backends(node, boot, backends, out);
        if live && phase == BeatPhase::Hello && node != self.node && self.peers.beats() {
            self.beat(BeatPhase::Alive, out);
        }
    }

    /// What a node lists is what it has; what the directory knew of it besides is gone.
    fn replace_backends(&mut self, node: NodeId, boot: Boot, mut listed: Vec<(Pid, ClientId)>, out: &mut Vec<Effect>) {
        listed.retain(|(_, cid)| cid.node == node && cid.boot == boot);
        listed.sort_unstable();
        let known = self.directory.at(node, boot);
        for (pid, cid) in known.iter().filter(|known| listed.binary_search(known).is_err()) {
            self.backend_gone(pid, *cid, out);
        }
        for (pid, cid) in &listed {
            self.backend_came(pid, *cid);
        }
    }

    pub(super) fn node_gone(&mut self, node: NodeId, boot: Boot, out: &mut Vec<Effect>) {
        for (pid, cid) in self.directory.at(node, boot) {
            self.backend_gone(&pid, cid, out);
        }
        if (node, boot) != (self.node, self.boot) {
            self.requests.node_gone(node, boot);
        }
    }

    fn heard_presence(&mut self, presence: &Presence, out: &mut Vec<Effect>) {
        if !presence.online {
            self.requests.asker_gone(presence.source.cid);
        }
        self.to_local_backends(&presence.pid, || written(|out| message::presence(out, presence)), out);
    }

    fn heard_online_clients(&mut self, part: &OnlineClients, out: &mut Vec<Effect>) {
        self.to_local_backends(&part.pid, || written(|out| message::online_clients(out, part)), out);
    }

    fn heard_online_ask(&mut self, ask: &OnlineAsk, now: Instant, out: &mut Vec<Effect>) {
        let describe = |member: &super::Member| OnlineConnection {
            source: self.source(member),
            since_unix_ms: member.since_unix_ms,
        };
        let page = online::page(&self.presence, ask, describe);
        if (ask.node, ask.boot) == (self.node, self.boot) {
            self.asks.answered(ask.ask, (self.node, self.boot), true, page);
            return self.finish_asks(now, out);
        }
        let Page { connections, more } = page;
        let (to_node, to_boot, ask) = (ask.node, ask.boot, ask.ask);
        let (node, boot) = (self.node, self.boot);
        append(out, Record::OnlineAnswer(OnlineAnswer { to_node, to_boot, ask, node, boot, more, connections }));
    }

    fn heard_online_answer(&mut self, answer: OnlineAnswer, now: Instant, out: &mut Vec<Effect>) {
        let OnlineAnswer { to_node, to_boot, ask, node, boot, more, connections } = answer;
        if (to_node, to_boot) == (self.node, self.boot) {
            self.asks.answered(ask, (node, boot), false, Page { connections, more });
            self.finish_asks(now, out);
        }
    }
}
