//! The parts that records are written of; [`super::reader`] reads each back.

use bytes::BufMut;

use crate::model::{Audience, ClientId, SessionId, Stamp, record::Source};

/// An integer of 7 bits a byte, low bits first (LEB128): most lengths take one byte.
pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn flag(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

pub(super) fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    blob(out, text.as_bytes());
}

pub(super) fn option(out: &mut Vec<u8>, value: Option<&str>) {
    flag(out, value.is_some());
    if let Some(value) = value {
        text(out, value);
    }
}

pub(super) fn texts<'t>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'t str>) {
    number(out, items.len() as u64);
    items.for_each(|item| text(out, item));
}

pub(super) fn cid(out: &mut Vec<u8>, cid: ClientId) {
    let SessionId { core, slot, generation } = cid.session;
    out.put_u16_le(cid.node);
    out.put_u32_le(cid.boot.0);
    out.put_u8(core);
    out.put_u32_le(slot);
    out.put_u32_le(generation);
}

pub(super) fn source(out: &mut Vec<u8>, source: &Source) {
    text(out, &source.uid);
    cid(out, source.cid);
    option(out, source.device.as_deref());
}

pub(super) fn audience(out: &mut Vec<u8>, audience: &Audience) {
    texts(out, audience.uids.iter().map(|uid| &**uid));
    texts(out, audience.cids.iter().map(|cid| &**cid));
    texts(out, audience.tags.iter().map(|tag| tag.as_str()));
    texts(out, audience.devices.iter().map(|device| &**device));
}

pub(super) fn stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    out.put_u64_le(stamp.received_us);
    flag(out, stamp.trace.is_some());
    if let Some(trace) = &stamp.trace {
        out.put_u128_le(trace.trace_id);
        out.put_u64_le(trace.span_id);
    }
}
