//! Bytes to records; the mirror of [`super::encode`], kind by kind.

use std::time::Duration;

use bytes::Bytes;

use super::{RecordError, encode::kind, reader::Reader};
use crate::model::{
    Control, ControlOp, Publication, Push, Record, Request,
    record::{BackendChange, Beat, BeatPhase, OnlineAnswer, OnlineAsk, OnlineClients, OnlineConnection, Presence},
};

/// Shortest source: a name of one byte, a connection, no device.
const SOURCE_BYTES_MIN: usize = 18;

/// Reads what [`super::encode_record`] wrote. A tail behind the fields that are known is passed over.
pub fn decode_record(bytes: Bytes) -> Result<Record, RecordError> {
    let mut reader = Reader::new(bytes);
    Ok(match reader.byte()? {
        kind::PUBLICATION => Record::Publication(publication(&mut reader)?),
        kind::PUSH => Record::Push(push(&mut reader)?),
        kind::CONTROL => Record::Control(control(&mut reader)?),
        kind::REQUEST => Record::Request(request(&mut reader)?),
        kind::PRESENCE => Record::Presence(presence(&mut reader)?),
        kind::ONLINE_CLIENTS => Record::OnlineClients(online_clients(&mut reader)?),
        kind::BACKEND => Record::Backend(backend(&mut reader)?),
        kind::BEAT => Record::Beat(beat(&mut reader)?),
        kind::ONLINE_ASK => Record::OnlineAsk(online_ask(&mut reader)?),
        kind::ONLINE_ANSWER => Record::OnlineAnswer(online_answer(&mut reader)?),
        unknown => return Err(RecordError::UnknownKind(unknown)),
    })
}

// In each of these the fields are read in the order in which they are named: that of the wire.

fn publication(reader: &mut Reader) -> Result<Publication, RecordError> {
    Ok(Publication {
        pid: reader.pid()?,
        tag: reader.tag()?,
        keep: reader.flag()?,
        affair_id: reader.affair_option()?,
        idempotency_key: reader.affair_option()?,
        payload: reader.payload()?,
        stamp: reader.stamp(),
    })
}

fn push(reader: &mut Reader) -> Result<Push, RecordError> {
    Ok(Push {
        pid: reader.pid()?,
        audience: reader.audience()?,
        affair_id: reader.affair_option()?,
        idempotency_key: reader.affair_option()?,
        payload: reader.payload()?,
        stamp: reader.stamp(),
    })
}

fn control(reader: &mut Reader) -> Result<Control, RecordError> {
    Ok(Control {
        pid: reader.pid()?,
        op: match reader.byte()? {
            1 => ControlOp::Subscribe,
            2 => ControlOp::Unsubscribe,
            3 => ControlOp::Kick,
            _ => return Err(RecordError::Malformed("op")),
        },
        audience: reader.audience()?,
        tags: reader.tags()?,
    })
}

fn request(reader: &mut Reader) -> Result<Request, RecordError> {
    Ok(Request {
        pid: reader.pid()?,
        source: reader.source()?,
        affair_id: reader.affair()?,
        backend: reader.cid_option()?,
        timeout: Duration::from_millis(reader.u32()?.into()),
        payload: reader.payload()?,
    })
}

fn presence(reader: &mut Reader) -> Result<Presence, RecordError> {
    Ok(Presence { pid: reader.pid()?, online: reader.flag()?, source: reader.source()? })
}

fn online_clients(reader: &mut Reader) -> Result<OnlineClients, RecordError> {
    Ok(OnlineClients { pid: reader.pid()?, users: reader.list(SOURCE_BYTES_MIN, Reader::source)? })
}

fn backend(reader: &mut Reader) -> Result<BackendChange, RecordError> {
    Ok(BackendChange { pid: reader.pid()?, cid: reader.cid()?, online: reader.flag()? })
}

fn beat(reader: &mut Reader) -> Result<Beat, RecordError> {
    Ok(Beat {
        node: reader.u16()?,
        boot: reader.boot()?,
        phase: match reader.byte()? {
            1 => BeatPhase::Hello,
            2 => BeatPhase::Alive,
            3 => BeatPhase::Goodbye,
            _ => return Err(RecordError::Malformed("phase")),
        },
        backends: reader.list(17, |reader| Ok((reader.pid()?, reader.cid()?)))?,
        standing: reader.standing(),
    })
}

fn online_ask(reader: &mut Reader) -> Result<OnlineAsk, RecordError> {
    Ok(OnlineAsk {
        node: reader.u16()?,
        boot: reader.boot()?,
        ask: reader.u64()?,
        pid: reader.pid()?,
        uids: reader.identities()?,
        after: reader.bound()?,
        limit: reader.u32()?,
    })
}

fn online_answer(reader: &mut Reader) -> Result<OnlineAnswer, RecordError> {
    Ok(OnlineAnswer {
        to_node: reader.u16()?,
        to_boot: reader.boot()?,
        ask: reader.u64()?,
        node: reader.u16()?,
        boot: reader.boot()?,
        more: reader.flag()?,
        connections: reader.list(SOURCE_BYTES_MIN + 8, |reader| {
            Ok(OnlineConnection { source: reader.source()?, since_unix_ms: reader.u64()? })
        })?,
    })
}
