//! What holds for any bytes whatever that a peer sends: nothing panics, how they are cut changes nothing, and what
//! is taken in comes out as it was.
//!
//! Used by the fuzz targets beside this file and by `tests/protocol_laws.rs`.

use std::time::Duration;

use bytes::Bytes;
use ws_cluster::{
    limits::{FrameLimits, OpeningLimits},
    model::{Pid, Project, Projects, Record, project::JwtKey, project::RequestRouting, project::Secret},
    protocol::{
        command::{BackendCommand, UserCommand, parse_backend, parse_user},
        decoder::{DecodeError, Decoder, Message},
        deflate::{self, Inflater},
        handshake::{self, HandshakeLimits, HeadReader},
        json, jwt, push, query, sign,
        wire::{self, Batch, BatchBuilder},
    },
};

/// What must hold for any bytes; it panics where it does not.
pub type Law = fn(&[u8]);

/// Every law under its name.
pub const ALL: &[(&str, Law)] = &[
    ("decoder", decoder),
    ("deflate", deflate),
    ("handshake", handshake),
    ("wire", wire),
    ("command", command),
    ("push", push),
    ("credentials", credentials),
];

/// Messages of the decoder are at most so long, compressed and not.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Frames give the same messages however they are cut. The first byte says how long the pieces are, and with its top bit
/// that compressed messages were agreed on.
pub fn decoder(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let (deflate, piece_bytes) = (first & 0x80 != 0, usize::from(first & 0x7f).max(1));
    let whole = messages(deflate, stream.chunks(stream.len().max(1)));
    assert_eq!(messages(deflate, stream.chunks(piece_bytes)), whole);
    assert_eq!(messages(deflate, stream.chunks(1)), whole);
}

/// Kind and bytes of each message, and how the stream ended.
fn messages<'s>(deflate: bool, pieces: impl Iterator<Item = &'s [u8]>) -> (Vec<(u8, Vec<u8>)>, Option<DecodeError>) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX, 64).with_deflate(deflate);
    let mut inflater = Inflater::default();
    let mut messages = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut at = 0;
        loop {
            let opened = match decoder.feed(&mut piece[at..]) {
                Ok((used, Some(message))) => {
                    at += used;
                    match message {
                        Message::Deflated(deflated) => inflater.open(deflated, MESSAGE_BYTES_MAX),
                        message => Ok(message),
                    }
                }
                Ok((used, None)) => {
                    assert_eq!(at + used, piece.len());
                    break;
                }
                Err(fault) => Err(fault),
            };
            match opened {
                Ok(message) => messages.push(kind_and_bytes(message)),
                Err(fault) => return (messages, Some(fault)),
            }
        }
    }
    (messages, None)
}

fn kind_and_bytes(message: Message<'_>) -> (u8, Vec<u8>) {
    match message {
        Message::Text(text) => (1, text.into()),
        Message::Binary(bytes) => {
            assert!(bytes.len() <= MESSAGE_BYTES_MAX);
            (2, bytes.into())
        }
        Message::Deflated(_) => panic!("it was not agreed on, or is opened"),
        Message::Ping(bytes) => (9, bytes.into()),
        Message::Pong(bytes) => (10, bytes.into()),
        Message::Close(None) => (8, Vec::new()),
        Message::Close(Some((code, reason))) => (8, [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
    }
}

/// What a message inflates to keeps its bound and does not depend on the messages before; an offer that is accepted is
/// answered with what its own grammar reads.
pub fn deflate(data: &[u8]) {
    let mut inflater = Inflater::default();
    let first = inflater.inflate(data, MESSAGE_BYTES_MAX).map(Vec::from);
    if let Ok(inflated) = &first {
        assert!(inflated.len() <= MESSAGE_BYTES_MAX);
    }
    assert_eq!(inflater.inflate(data, MESSAGE_BYTES_MAX).map(Vec::from), first);
    let Some(agreement) = std::str::from_utf8(data).ok().and_then(deflate::negotiate) else { return };
    let again = deflate::negotiate(&agreement.answer).expect("an answer is an offer too");
    assert_eq!(again, agreement);
}

/// A head is taken or refused in the same way whether it comes at once or byte by byte.
pub fn handshake(data: &[u8]) {
    let limits = HandshakeLimits { head_bytes_max: 2048, headers_max: 16, target_bytes_max: 512 };
    let whole = handshake::parse(data, &limits);
    let mut reader = HeadReader::default();
    let slow = (0..=data.len()).find_map(|end| reader.read(&data[..end], &limits).transpose()).transpose();
    assert_eq!(slow, whole);
    if let Err(error) = whole {
        assert!(error.response().ends_with(b"\n") && (400..500).contains(&error.status()));
    }
    let _ = handshake::parse(data, &HandshakeLimits::from(&OpeningLimits::default()));
}

/// Every record that can be read is written and read again as the same; every seq of a batch is given.
pub fn wire(data: &[u8]) {
    let Ok(batch) = Batch::decode(Bytes::copy_from_slice(data)) else { return };
    let header = batch.header;
    let mut seq = header.first_seq;
    for entry in batch {
        assert_eq!(entry.seq, seq);
        seq += 1;
        let Ok(record) = entry.record else { continue };
        let mut again = BatchBuilder::new(header.origin, entry.seq);
        again.push(&wire::encode_record(&record));
        let read = Batch::decode(again.finish()).map(|mut batch| batch.next().map(|entry| entry.record));
        assert_eq!(read, Ok(Some(Ok(record))));
    }
    assert_eq!(seq, header.first_seq + u64::from(header.count));
}

/// A payload that is taken from a message is JSON, and a piece of that message.
pub fn command(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = FrameLimits { json_depth_max: 8, audience_max: 8, tags_per_connection: 4, ..FrameLimits::default() };
    if let Ok(command) = parse_user(text, &limits).command {
        match command {
            UserCommand::Request { payload, .. } if payload != "null" => {
                assert!(json::is_valid(payload.as_bytes()) && text.contains(payload));
            }
            UserCommand::Subscribe { tags, .. } => assert!(tags.len() <= 4),
            _ => {}
        }
    }
    if let Ok(BackendCommand::Submit(record)) = parse_backend(text, &pid(), &limits).command {
        check_record(&record, text);
    }
}

/// The same of the forms of an HTTP push.
pub fn push(data: &[u8]) {
    let limits = FrameLimits { json_depth_max: 8, audience_max: 8, push_bytes_max: 512, ..FrameLimits::default() };
    if let Ok(record) = push::from_json(&pid(), data, &limits) {
        check_record(&record, std::str::from_utf8(data).expect("it was read as JSON"));
    }
    let Some(params) = std::str::from_utf8(data).ok().and_then(|raw| query::Params::parse(raw).ok()) else { return };
    if let Ok(record) = push::from_params(&pid(), |name| params.get(name), &limits) {
        let payload = payload(&record).expect("a push has a payload");
        assert!(json::is_valid(payload) && payload.len() <= 512);
    }
}

fn check_record(record: &Record, text: &str) {
    if let Some(payload) = payload(record) {
        assert!(json::is_valid(payload));
        assert!(text.contains(std::str::from_utf8(payload).expect("JSON is UTF-8")));
    }
    let audience = match record {
        Record::Push(push) => &push.audience,
        Record::Control(control) => &control.audience,
        _ => return,
    };
    assert!(audience.len() <= 8);
    assert!(!audience.is_everyone() || text.contains("true"), "a whole project is asked for");
}

fn payload(record: &Record) -> Option<&[u8]> {
    match record {
        Record::Publication(publication) => Some(&publication.payload),
        Record::Push(push) => Some(&push.payload),
        _ => None,
    }
}

/// Nobody gets in with bytes that were not signed; parameters that are read come back from their encoding.
pub fn credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let project = |pid: &str, jwt| Project {
        pid: Pid::new(pid).expect("a pid"),
        secrets: vec![Secret::new("7e9a2f0c5d"), Secret::new("b1c8e4")],
        jwt: Some(jwt),
        requests: RequestRouting::One,
        origins: Vec::new(),
    };
    let projects = Projects::new([
        project("1", JwtKey::Hs256),
        project("2", JwtKey::Es256([4; 65].into())),
        project("3", JwtKey::EdDsa([0; 32].into())),
    ]);
    let now = Duration::from_secs(1_800_000_000);
    let horizon = Duration::from_secs(1 << 40);
    assert!(jwt::verify(&projects, text, now).is_err());
    let Ok(params) = query::Params::parse(text) else { return };
    assert!(sign::verify_connect(&projects, &params, now, horizon).is_err());
    assert!(sign::verify_call(&projects, &params, Some(data), now, horizon).is_err());
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if params.iter().all(|(name, _)| plain(name) && !name.is_empty()) {
        let encoded = sign::encode(params.iter());
        assert!(query::Params::parse(&encoded).as_ref() == Ok(&params));
    }
}

fn pid() -> Pid {
    Pid::new("1").expect("a pid")
}
