//! Records to bytes; [`super::decode`] is its mirror, kind by kind.

use bytes::{BufMut, Bytes};

use super::writer::{audience, blob, cid, flag, number, option, source, stamp, text, texts};
use crate::model::{
    Control, ControlOp, Publication, Push, Record, Request,
    record::{BackendChange, Beat, BeatPhase, OnlineAnswer, OnlineAsk, OnlineClients, Presence, Standing, Taking},
};

pub(super) mod kind {
    pub(in super::super) const PUBLICATION: u8 = 1;
    pub(in super::super) const PUSH: u8 = 2;
    pub(in super::super) const CONTROL: u8 = 3;
    pub(in super::super) const REQUEST: u8 = 4;
    pub(in super::super) const PRESENCE: u8 = 5;
    pub(in super::super) const ONLINE_CLIENTS: u8 = 6;
    pub(in super::super) const BACKEND: u8 = 7;
    pub(in super::super) const BEAT: u8 = 8;
    pub(in super::super) const ONLINE_ASK: u8 = 9;
    pub(in super::super) const ONLINE_ANSWER: u8 = 10;
}

/// A record as it stands in a batch: its kind and fields, without its length. Encoded once, when it is
/// submitted; its length is what it counts for in the log's buffers.
pub fn encode_record(record: &Record) -> Bytes {
    let mut out = Vec::with_capacity(room(record));
    match record {
        Record::Publication(publication) => put_publication(&mut out, publication),
        Record::Push(push) => put_push(&mut out, push),
        Record::Control(control) => put_control(&mut out, control),
        Record::Request(request) => put_request(&mut out, request),
        Record::Presence(presence) => put_presence(&mut out, presence),
        Record::OnlineClients(online) => put_online_clients(&mut out, online),
        Record::Backend(change) => put_backend(&mut out, change),
        Record::Beat(beat) => put_beat(&mut out, beat),
        Record::OnlineAsk(ask) => put_online_ask(&mut out, ask),
        Record::OnlineAnswer(answer) => put_online_answer(&mut out, answer),
    }
    out.into()
}

/// Room for the fields of most records, and the payload.
fn room(record: &Record) -> usize {
    let payload_bytes = match record {
        Record::Publication(publication) => publication.payload.len(),
        Record::Push(push) => push.payload.len() + 24 * push.audience.len(),
        Record::Request(request) => request.payload.len(),
        _ => 0,
    };
    128 + payload_bytes
}

fn put_publication(out: &mut Vec<u8>, publication: &Publication) {
    out.push(kind::PUBLICATION);
    text(out, &publication.pid);
    text(out, &publication.tag);
    flag(out, publication.keep);
    option(out, publication.affair_id.as_deref());
    option(out, publication.idempotency_key.as_deref());
    blob(out, &publication.payload);
    stamp(out, &publication.stamp);
}

fn put_push(out: &mut Vec<u8>, push: &Push) {
    out.push(kind::PUSH);
    text(out, &push.pid);
    audience(out, &push.audience);
    option(out, push.affair_id.as_deref());
    option(out, push.idempotency_key.as_deref());
    blob(out, &push.payload);
    stamp(out, &push.stamp);
}

fn put_control(out: &mut Vec<u8>, control: &Control) {
    out.push(kind::CONTROL);
    text(out, &control.pid);
    out.push(match control.op {
        ControlOp::Subscribe => 1,
        ControlOp::Unsubscribe => 2,
        ControlOp::Kick => 3,
    });
    audience(out, &control.audience);
    texts(out, control.tags.iter().map(|tag| tag.as_str()));
}

fn put_request(out: &mut Vec<u8>, request: &Request) {
    out.push(kind::REQUEST);
    text(out, &request.pid);
    source(out, &request.source);
    text(out, &request.affair_id);
    flag(out, request.backend.is_some());
    if let Some(backend) = request.backend {
        cid(out, backend);
    }
    out.put_u32_le(u32::try_from(request.timeout.as_millis()).unwrap_or(u32::MAX));
    blob(out, &request.payload);
}

fn put_presence(out: &mut Vec<u8>, presence: &Presence) {
    out.push(kind::PRESENCE);
    text(out, &presence.pid);
    flag(out, presence.online);
    source(out, &presence.source);
}

fn put_online_clients(out: &mut Vec<u8>, online: &OnlineClients) {
    out.push(kind::ONLINE_CLIENTS);
    text(out, &online.pid);
    number(out, online.users.len() as u64);
    online.users.iter().for_each(|user| source(out, user));
}

fn put_backend(out: &mut Vec<u8>, change: &BackendChange) {
    out.push(kind::BACKEND);
    text(out, &change.pid);
    cid(out, change.cid);
    flag(out, change.online);
}

fn put_beat(out: &mut Vec<u8>, beat: &Beat) {
    out.push(kind::BEAT);
    out.put_u16_le(beat.node);
    out.put_u32_le(beat.boot.0);
    out.push(match beat.phase {
        BeatPhase::Hello => 1,
        BeatPhase::Alive => 2,
        BeatPhase::Goodbye => 3,
    });
    number(out, beat.backends.len() as u64);
    for (pid, backend) in &beat.backends {
        text(out, pid);
        cid(out, *backend);
    }
    beat.standing.iter().for_each(|standing| put_standing(out, standing));
}

fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    text(out, &standing.addr);
    out.put_u32_le(standing.users);
    out.push(match standing.taking {
        Taking::Yes => 1,
        Taking::NotNow => 2,
        Taking::Leaving => 3,
    });
}

fn put_online_ask(out: &mut Vec<u8>, ask: &OnlineAsk) {
    out.push(kind::ONLINE_ASK);
    out.put_u16_le(ask.node);
    out.put_u32_le(ask.boot.0);
    out.put_u64_le(ask.ask);
    text(out, &ask.pid);
    texts(out, ask.uids.iter().map(|uid| &**uid));
    option(out, ask.after.as_deref());
    out.put_u32_le(ask.limit);
}

fn put_online_answer(out: &mut Vec<u8>, answer: &OnlineAnswer) {
    out.push(kind::ONLINE_ANSWER);
    out.put_u16_le(answer.to_node);
    out.put_u32_le(answer.to_boot.0);
    out.put_u64_le(answer.ask);
    out.put_u16_le(answer.node);
    out.put_u32_le(answer.boot.0);
    flag(out, answer.more);
    number(out, answer.connections.len() as u64);
    for connection in &answer.connections {
        source(out, &connection.source);
        out.put_u64_le(connection.since_unix_ms);
    }
}
