//! The decoder reads what an independent implementation reads.
//!
//! Method: seeded random streams of frames, valid and corrupted, in random pieces, through our decoder and through
//! tungstenite's `WebSocketContext`. Valid streams must give the same messages, also where ours gets some of them
//! compressed. Corrupted ones must give the same
//! messages up to the fault, and a fault on the same side; where ours is stricter by design it is named in
//! [`stricter_by_design`]. A failure prints its seed; `WS_SEED=<seed>` replays it alone.

use std::io::{Read, Write};

use fastrand::Rng;
use flate2::{Compress, Compression, FlushCompress};
use tungstenite::{
    Error, Message as Theirs,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};
use ws_cluster::protocol::{
    decoder::{DecodeError, Decoder, Message},
    deflate::Inflater,
};

const MESSAGE_BYTES_MAX: usize = 4096;
const SEEDS: u64 = 4_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[test]
fn valid_streams_give_the_same_messages() {
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let stream = valid_stream(&mut rng);
        let (ours, our_fault) = read_ours(&stream, &mut rng, false);
        let (theirs, their_fault) = read_theirs(&stream);
        assert_eq!((our_fault, their_fault.is_none()), (None, true), "WS_SEED={seed}");
        assert_eq!(ours, theirs, "WS_SEED={seed}");
    }
}

#[test]
fn compressed_messages_are_those_that_a_peer_without_compression_gets() {
    for seed in seeds() {
        let (mut rng, mut plain_rng) = (Rng::with_seed(seed), Rng::with_seed(seed));
        let compressed = stream_of(&mut rng, true);
        let (ours, fault) = read_ours(&compressed, &mut rng, true);
        let (theirs, their_fault) = read_theirs(&stream_of(&mut plain_rng, false));
        assert_eq!((fault, their_fault.is_none()), (None, true), "WS_SEED={seed}");
        assert_eq!(ours, theirs, "WS_SEED={seed}");
    }
}

#[test]
fn corrupted_streams_end_at_the_same_fault() {
    let mut both_refused = 0_u64;
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let mut stream = valid_stream(&mut rng);
        corrupt(&mut stream, &mut rng);
        let (ours, our_fault) = read_ours(&stream, &mut rng, false);
        let (theirs, their_fault) = read_theirs(&stream);
        match (our_fault, &their_fault) {
            (None, None) => assert_eq!(ours, theirs, "WS_SEED={seed}"),
            (Some(fault), _) if stricter_by_design(fault) => {
                both_refused += u64::from(their_fault.is_some());
                assert_eq!(ours[..], theirs[..ours.len()], "WS_SEED={seed}: {fault}");
            }
            (Some(_), Some(_)) => {
                both_refused += 1;
                assert_eq!(ours, theirs, "WS_SEED={seed}: {our_fault:?} against {their_fault:?}");
            }
            // Ours judges a header, theirs a whole frame: it still waits for the rest of the one we refused.
            (Some(fault), None) => assert_eq!(ours, theirs, "WS_SEED={seed}: only ours refuses: {fault}"),
            (None, Some(fault)) => panic!("WS_SEED={seed}: only theirs refuses: {fault}"),
        }
    }
    assert!(std::env::var_os("WS_SEED").is_some() || both_refused > SEEDS / 4, "only {both_refused} were refused");
}

/// What we refuse and tungstenite lets pass.
fn stricter_by_design(fault: DecodeError) -> bool {
    match fault {
        // It answers a forbidden close code and passes it on as a close.
        DecodeError::Protocol(rule) => rule.contains("shortest form") || rule.contains("close code"),
        DecodeError::Utf8 | DecodeError::TooBig | DecodeError::TooManyFragments | DecodeError::Corrupt => false,
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("WS_SEED") {
        Ok(seed) => vec![seed.parse().expect("WS_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

fn valid_stream(rng: &mut Rng) -> Vec<u8> {
    stream_of(rng, false)
}

/// The same messages from the same seed, with about half of them compressed or without.
fn stream_of(rng: &mut Rng, compressed: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..rng.usize(1..8) {
        message(rng, &mut stream, compressed);
    }
    if rng.u8(..) < 64 {
        let reason = random_text(rng, 40);
        let payload = [&rng.u16(3000..5000).to_be_bytes()[..], reason.as_bytes()].concat();
        frame(rng, &mut stream, 0x88, &payload);
    }
    stream
}

fn message(rng: &mut Rng, stream: &mut Vec<u8>, compressed: bool) {
    let text = rng.bool();
    let mut payload = if text { random_text(rng, 300).into_bytes() } else { random_bytes(rng) };
    let mut opcode = if text { 1 } else { 2 };
    let choice = rng.bool();
    // What is drawn from here on is not drawn for the messages that follow: both streams have the same.
    let own = &mut rng.fork();
    if compressed && choice {
        payload = deflated(&payload, own);
        opcode |= 0x40;
    }
    let mut rest = &payload[..];
    for _ in 0..rng.usize(..4) {
        let (head, tail) = rest.split_at(own.usize(..=rest.len()));
        frame(own, stream, opcode, head);
        (opcode, rest) = (0, tail);
        if rng.bool() {
            let control: Vec<u8> = (0..rng.usize(..=125)).map(|_| rng.u8(..)).collect();
            let first = if rng.bool() { 0x89 } else { 0x8a };
            frame(own, stream, first, &control);
        }
    }
    frame(own, stream, 0x80 | opcode, rest);
}

/// With a sync flush or two, without their last tail.
fn deflated(payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut engine = Compress::new(Compression::new(rng.u32(..10)), false);
    let mut data = Vec::with_capacity(payload.len() * 2 + 256);
    let (head, tail) = payload.split_at(rng.usize(..=payload.len()));
    engine.compress_vec(head, &mut data, FlushCompress::Sync).expect("room");
    if !tail.is_empty() {
        engine.compress_vec(tail, &mut data, FlushCompress::Sync).expect("room");
    }
    assert!(data.ends_with(&[0, 0, 0xff, 0xff]), "a sync flush");
    data.truncate(data.len() - 4);
    data
}

fn random_text(rng: &mut Rng, bytes_max: usize) -> String {
    let mut text = String::new();
    let length = rng.usize(..=bytes_max);
    while text.len() + 4 <= length {
        text.push(if rng.bool() { rng.char('a'..='z') } else { rng.char('\0'..=char::MAX) });
    }
    text
}

fn random_bytes(rng: &mut Rng) -> Vec<u8> {
    let length = *rng.choice(&[0, 1, 5, 125, 126, 127, 1000, MESSAGE_BYTES_MAX]).unwrap_or(&0);
    (0..length).map(|_| rng.u8(..)).collect()
}

fn frame(rng: &mut Rng, stream: &mut Vec<u8>, first: u8, payload: &[u8]) {
    stream.push(first);
    if payload.len() < 126 {
        stream.push(0x80 | payload.len() as u8);
    } else {
        stream.push(0x80 | 126);
        stream.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    let mask = rng.u32(..).to_be_bytes();
    stream.extend_from_slice(&mask);
    stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Flips, cuts out, doubles or appends a few bytes.
fn corrupt(stream: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..stream.len());
        match rng.u8(..5) {
            0 => stream[at] = rng.u8(..),
            1 => stream[at] ^= 1 << rng.u8(..8),
            2 if stream.len() > 1 => drop(stream.remove(at)),
            3 => stream.insert(at, rng.u8(..)),
            _ => stream.truncate(at.max(1)),
        }
    }
}

fn read_ours(stream: &[u8], rng: &mut Rng, deflate: bool) -> (Vec<Got>, Option<DecodeError>) {
    // Noise gets longer by compression.
    let bound = MESSAGE_BYTES_MAX + if deflate { 256 } else { 0 };
    let mut decoder = Decoder::new(bound, usize::MAX).with_deflate(deflate);
    let mut inflater = Inflater::default();
    let mut got = Vec::new();
    let mut rest = stream.to_vec();
    while !rest.is_empty() {
        let mut piece: Vec<u8> = rest.drain(..rng.usize(1..=rest.len())).collect();
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
                Ok((_, None)) => break,
                Err(fault) => Err(fault),
            };
            match opened {
                Ok(message) => got.push(ours(message)),
                Err(fault) => return (got, Some(fault)),
            }
        }
    }
    (got, None)
}

fn ours(message: Message<'_>) -> Got {
    match message {
        Message::Text(text) => Got::Text(text.into()),
        Message::Binary(bytes) => Got::Binary(bytes.into()),
        Message::Deflated(_) => panic!("it is opened first"),
        Message::Ping(bytes) => Got::Ping(bytes.into()),
        Message::Pong(bytes) => Got::Pong(bytes.into()),
        Message::Close(close) => Got::Close(close.map(|(code, reason)| (code, reason.into()))),
    }
}

fn read_theirs(stream: &[u8]) -> (Vec<Got>, Option<Error>) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut socket = Socket(stream);
    let mut got = Vec::new();
    loop {
        match context.read(&mut socket) {
            Ok(message) => got.extend(theirs(message)),
            Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return (got, None),
            Err(fault) => return (got, Some(fault)),
        }
        if matches!(got.last(), Some(Got::Close(_))) {
            return (got, None);
        }
    }
}

fn theirs(message: Theirs) -> Option<Got> {
    Some(match message {
        Theirs::Text(text) => Got::Text(text.as_str().into()),
        Theirs::Binary(bytes) => Got::Binary(bytes.to_vec()),
        Theirs::Ping(bytes) => Got::Ping(bytes.to_vec()),
        Theirs::Pong(bytes) => Got::Pong(bytes.to_vec()),
        Theirs::Close(frame) => Got::Close(frame.map(|frame| (frame.code.into(), frame.reason.as_str().into()))),
        Theirs::Frame(_) => return None,
    })
}

/// Gives the stream, then says that nothing more is there yet; swallows what is written.
struct Socket<'s>(&'s [u8]);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
