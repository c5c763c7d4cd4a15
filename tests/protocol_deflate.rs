//! Compressed messages are what RFC 1951 and RFC 7692 say they are.
//!
//! Method: a second inflater, written for this test from RFC 1951 alone, reads what ours compresses and tells how far back
//! it refers; ours reads what zlib compresses in every way there is, whole and in every cut. Payloads are seeded. A
//! failure prints its seed; `WS_SEED=<seed>` replays it alone.

#[path = "protocol_deflate/plain_inflate.rs"]
mod plain_inflate;

use fastrand::Rng;
use flate2::{Compress, Compression, FlushCompress};
use plain_inflate::inflate;
use ws_cluster::protocol::{
    decoder::{DecodeError, Decoder, Message},
    deflate::{Deflate, Deflater, Inflater, Window, negotiate},
    frame::OpCode,
};

const BOUND: usize = 1 << 20;
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const SEEDS: u64 = 400;

#[test]
fn what_is_sent_reads_back_elsewhere_and_keeps_to_the_window() {
    for level in [1, 3, 9] {
        let mut deflater = Deflater::new(level);
        let (mut compressed, mut shared) = (0, 0);
        for seed in seeds().into_iter().take(120) {
            let mut rng = Rng::with_seed(seed);
            let payload = payload(&mut rng);
            for bits in 8..=15 {
                let Some(window) = Window::of(agreed(bits), payload.len()) else { continue };
                let Some(frame) = deflater.frame(OpCode::Text, &payload, window) else { continue };
                assert!(frame.len() < frame_bytes(payload.len()), "WS_SEED={seed}: not smaller");
                let read = inflate(&[data_of(&frame), &TAIL].concat()).expect("a DEFLATE stream");
                assert!(read.output == payload, "WS_SEED={seed} level {level} bits {bits}");
                let reach = read.distance_max;
                assert!(reach <= 1 << bits, "WS_SEED={seed} level {level} bits {bits}: refers {reach} back");
                compressed += 1;
                shared += usize::from(Window::of(agreed(15), payload.len()) == Some(window) && bits < 15);
            }
        }
        let replayed = std::env::var_os("WS_SEED").is_some();
        assert!(replayed || (compressed > 200 && shared > 100), "{compressed} compressed, {shared} shared");
    }
}

#[test]
fn what_any_sender_may_send_is_read() {
    let mut inflater = Inflater::default();
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let payload = payload(&mut rng);
        let data = compressed(&mut rng, &payload);
        let read = inflater.inflate(&data, payload.len());
        assert!(read == Ok(&payload[..]), "WS_SEED={seed}: {:?}", read.map(<[u8]>::len));
        if let Some(bound) = payload.len().checked_sub(1) {
            assert_eq!(inflater.inflate(&data, bound), Err(DecodeError::TooBig), "WS_SEED={seed}");
        }
    }
}

#[test]
fn spoilt_messages_are_refused_or_read_within_the_bound() {
    let mut inflater = Inflater::default();
    let mut refused = 0;
    for seed in seeds() {
        let mut rng = Rng::with_seed(seed);
        let payload = payload(&mut rng);
        let mut data = compressed(&mut rng, &payload);
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..data.len());
            data[at] ^= 1 << rng.u8(..8);
        }
        // Nothing guards the content of a message: a flipped bit may well give another one.
        match (inflater.inflate(&data, BOUND), inflate(&[&data[..], &TAIL].concat())) {
            (Ok(ours), Ok(theirs)) => {
                assert!(ours.len() <= BOUND && ours.starts_with(&theirs.output), "WS_SEED={seed}");
            }
            (Ok(_), Err(fault)) => panic!("WS_SEED={seed}: only theirs refuses: {fault}"),
            (Err(_), _) => refused += 1,
        }
        let whole = compressed(&mut rng, &payload);
        assert!(inflater.inflate(&whole, BOUND) == Ok(&payload[..]), "WS_SEED={seed}: the next message");
    }
    assert!(std::env::var_os("WS_SEED").is_some() || refused > SEEDS / 4, "only {refused} were refused");
}

#[test]
fn every_cut_of_a_compressed_message_gives_the_same() {
    let payload = "one compressed message, in one compressed message → é 𝄞".repeat(3);
    let window = Window::of(agreed(15), payload.len()).expect("a window");
    let frame = Deflater::new(3).frame(OpCode::Text, payload.as_bytes(), window).expect("smaller");
    let data = data_of(&frame);
    let mut inflater = Inflater::default();
    for first in 0..=data.len() {
        for second in first..=data.len() {
            let fragments = [(0x41, &data[..first]), (0x00, &data[first..second]), (0x80, &data[second..])];
            let stream: Vec<u8> = fragments.iter().flat_map(|(first, data)| masked(*first, data)).collect();
            for piece_bytes in [1, 7, stream.len()] {
                let mut decoder = Decoder::new(BOUND, 3).with_deflate(true);
                let mut messages = Vec::new();
                for piece in stream.chunks(piece_bytes) {
                    read(&mut decoder, &mut inflater, piece, &mut messages);
                }
                assert_eq!(messages, [payload.as_str()], "{first} {second}, pieces of {piece_bytes}");
            }
        }
    }
}

fn read(decoder: &mut Decoder, inflater: &mut Inflater, piece: &[u8], messages: &mut Vec<String>) {
    let (mut piece, mut at) = (piece.to_vec(), 0);
    loop {
        let (used, message) = decoder.feed(&mut piece[at..]).expect("valid frames");
        at += used;
        let deflated = match message {
            Some(Message::Deflated(deflated)) => deflated,
            Some(other) => panic!("{other:?}"),
            None => return,
        };
        match inflater.open(deflated, BOUND).expect("a message") {
            Message::Text(text) => messages.push(text.to_owned()),
            other => panic!("{other:?}"),
        }
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("WS_SEED") {
        Ok(seed) => vec![seed.parse().expect("WS_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// What was agreed on with a client whose window has so many bits.
fn agreed(bits: u8) -> Deflate {
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    negotiate(&offer).expect("a window").deflate
}

/// Now and then far more than a window; of words that repeat near and far, of noise, or of one byte.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let bytes = *rng.choice(&[0, 1, 40, 255, 256, 257, 511, 512, 513, 1000, 1024, 4097, 33_000, 70_000]).unwrap_or(&0);
    let words: Vec<Vec<u8>> =
        (0..rng.usize(1..40)).map(|_| (0..rng.usize(1..80)).map(|_| rng.u8(b' '..b'~')).collect()).collect();
    let noise = *rng.choice(&[0.0, 0.05, 1.0]).unwrap_or(&0.0);
    let mut payload = Vec::with_capacity(bytes + 80);
    while payload.len() < bytes {
        if rng.f64() < noise {
            payload.push(rng.u8(..));
        } else {
            payload.extend_from_slice(&words[rng.usize(..words.len())]);
        }
    }
    payload.truncate(bytes);
    payload
}

/// Any level and window, several blocks, and any way to end it.
fn compressed(rng: &mut Rng, payload: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut rest = payload;
    loop {
        let (part, after) = rest.split_at(if rng.bool() { rest.len() } else { rng.usize(..=rest.len()) });
        let ends = rng.u8(..4) == 0;
        stream(rng, part, ends, &mut data);
        if ends {
            // A last block: an empty one stands in its place, or another stream behind it.
            data.push(0);
        }
        if after.is_empty() {
            return data;
        }
        rest = after;
        // The streams of one message follow each other as its blocks do; only a whole tail may stand between them.
        data.extend_from_slice(&TAIL);
    }
}

fn stream(rng: &mut Rng, payload: &[u8], ends: bool, data: &mut Vec<u8>) {
    let level = Compression::new(rng.u32(0..=9));
    let mut engine = Compress::new_with_window_bits(level, false, rng.u8(9..=15));
    let mut out = Vec::with_capacity(payload.len() * 2 + 4096);
    let mut rest = payload;
    while rng.bool() && !rest.is_empty() {
        let (part, after) = rest.split_at(rng.usize(..=rest.len()));
        let flush = *rng.choice(&[FlushCompress::None, FlushCompress::Sync, FlushCompress::Full]).expect("a choice");
        engine.compress_vec(part, &mut out, flush).expect("room");
        rest = after;
    }
    let flush = if ends { FlushCompress::Finish } else { FlushCompress::Sync };
    engine.compress_vec(rest, &mut out, flush).expect("room");
    assert_eq!(engine.total_in(), payload.len() as u64, "room for all");
    data.extend_from_slice(if ends { &out } else { out.strip_suffix(&TAIL).unwrap_or(&[]) });
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if payload.len() < 126 {
        frame.push(0x80 | payload.len() as u8);
    } else {
        frame.push(0x80 | 126);
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    let mask = [9, 8, 7, 6];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn frame_bytes(payload_bytes: usize) -> usize {
    payload_bytes + if payload_bytes < 126 { 2 } else { 4 + 6 * usize::from(payload_bytes > 0xffff) }
}

/// The payload of a compressed frame.
fn data_of(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0xc1, "final, RSV1, text");
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}
