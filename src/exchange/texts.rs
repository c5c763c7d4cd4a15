//! The JSON texts that the exchange sends to back-ends and users.

use bytes::Bytes;

use crate::model::{Pid, Request, Source};

/// A user's request, as its back-end gets it.
pub(super) fn request(request: &Request) -> Bytes {
    let mut out = Vec::with_capacity(request.payload.len() + 192);
    out.extend_from_slice(br#"{"type":"request","affair_id":"#);
    escape_into(&mut out, &request.affair_id);
    out.extend_from_slice(br#","source":"#);
    source_into(&mut out, &request.pid, &request.source);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(&request.payload);
    out.push(b'}');
    out.into()
}

/// A user came or went.
pub(super) fn presence(pid: &Pid, online: bool, source: &Source) -> Bytes {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(if online {
        br#"{"type":"connect","source":"#
    } else {
        br#"{"type":"disconnect","source":"#
    });
    source_into(&mut out, pid, source);
    out.push(b'}');
    out.into()
}

/// A part of a node's online users.
pub(super) fn online_clients(pid: &Pid, users: &[Source]) -> Bytes {
    let mut out = Vec::with_capacity(64 + 80 * users.len());
    out.extend_from_slice(br#"{"type":"online_clients","source":{"pid":"#);
    escape_into(&mut out, pid);
    out.extend_from_slice(br#"},"payload":["#);
    for (n, user) in users.iter().enumerate() {
        out.extend_from_slice(if n == 0 { b"{" } else { b",{" });
        connection_into(&mut out, user);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// A request is in the log.
pub(super) fn accepted(affair_id: &str, ack_id: &str) -> Bytes {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(br#"{"ack_id":"#);
    escape_into(&mut out, ack_id);
    out.extend_from_slice(br#","code":1,"msg":"success","payload":{"affair_id":"#);
    escape_into(&mut out, affair_id);
    out.extend_from_slice(b"}}");
    out.into()
}

/// A request came to nothing.
pub(super) fn notice(affair_id: &str, ack_id: Option<&str>, err: &str, msg: &str) -> Bytes {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(br#"{"affair_id":"#);
    escape_into(&mut out, affair_id);
    if let Some(ack_id) = ack_id {
        out.extend_from_slice(br#","ack_id":"#);
        escape_into(&mut out, ack_id);
    }
    out.extend_from_slice(br#","code":0,"err":"#);
    escape_into(&mut out, err);
    out.extend_from_slice(br#","msg":"#);
    escape_into(&mut out, msg);
    out.push(b'}');
    out.into()
}

fn source_into(out: &mut Vec<u8>, pid: &Pid, source: &Source) {
    out.extend_from_slice(br#"{"pid":"#);
    escape_into(out, pid);
    out.push(b',');
    connection_into(out, source);
    out.push(b'}');
}

fn connection_into(out: &mut Vec<u8>, source: &Source) {
    out.extend_from_slice(br#""cid":""#);
    out.extend_from_slice(source.cid.to_string().as_bytes());
    out.extend_from_slice(br#"","uid":"#);
    escape_into(out, &source.uid);
    if let Some(device) = &source.device {
        out.extend_from_slice(br#","device":"#);
        escape_into(out, device);
    }
}

fn escape_into(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
