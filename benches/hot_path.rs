//! What the stations of a message cost, each alone: decode, parse, route and deliver, write.
//!
//! `cargo bench` prints the time of one call; for deliveries that is a whole fan-out, so divide by its subscribers.
//! Nothing here touches a socket: the kernel's part is by far the larger and is measured by the load harness.

use std::{io::IoSlice, sync::Arc};

use bytes::Bytes;
use divan::{Bencher, black_box};
use ws_cluster::{
    hub::{Hub, HubSettings, NewSession},
    limits::{FrameLimits, Limits},
    metrics::Counters,
    model::{Boot, FollowStart, Pid, Published, RecordId, Role, Stamp, Tag, TagRules},
    protocol::{
        command,
        decoder::Decoder,
        deflate::{Deflater, Inflater, Window, negotiate},
        frame::OpCode,
        message,
    },
};

const KLINE: &str = r#"{"s":"BTCUSDT","i":"1m","t":1795460000000,"o":"68012.10","h":"68020.00","l":"68001.55","c":"68011.07","v":"12.334"}"#;

fn main() {
    divan::main();
}

/// A small masked frame, whole in the buffer.
#[divan::bench]
fn decode_a_small_frame(bencher: Bencher) {
    let mut frame = vec![0x81, 0x80 | 40, 1, 2, 3, 4];
    frame.extend((0..40_usize).map(|at| b'x' ^ [1, 2, 3, 4][at % 4]));
    let mut decoder = Decoder::new(64 << 10, 1024);
    bencher.with_inputs(|| frame.clone()).bench_local_refs(|frame| {
        black_box(decoder.feed(frame).expect("a good frame").0);
    });
}

/// A subscription as users send it.
#[divan::bench]
fn parse_a_subscribe() -> bool {
    let text =
        r#"{"type":"subscribe","ack_id":"17","tags":["kline.BTCUSDT.1m",{"tag":"kline.ETHUSDT.1m","since":"a-1"}]}"#;
    command::parse_user(black_box(text), &FrameLimits::default()).command.is_ok()
}

/// A push as back-ends send it.
#[divan::bench]
fn parse_a_push() -> bool {
    let text = format!(r#"{{"ack_id":"17","to":{{"tags":["kline.BTCUSDT.1m"]}},"payload":{KLINE}}}"#);
    let pid = Pid::new("502").expect("a pid");
    command::parse_backend(black_box(&text), &pid, &FrameLimits::default()).command.is_ok()
}

/// The text of a publication, once a core.
#[divan::bench]
fn write_a_publication(bencher: Bencher) {
    let published = published();
    let mut text = Vec::new();
    bencher.bench_local(|| {
        text.clear();
        message::publication(&mut text, black_box(&published), message::Arrival::Live { merged: 0 });
    });
}

/// permessage-deflate at its default level, once a core and message whoever gets it.
#[divan::bench(args = [256, 1024, 16_384])]
fn compress_a_message(bencher: Bencher, bytes: usize) {
    let (payload, window) = (klines(bytes), window(bytes));
    let mut deflater = Deflater::new(3);
    bencher.bench_local(|| deflater.frame(OpCode::Text, black_box(payload.as_bytes()), window));
}

/// The same back, once for each compressed message that a client sends.
#[divan::bench(args = [256, 1024, 16_384])]
fn inflate_a_message(bencher: Bencher, bytes: usize) {
    let frame = Deflater::new(3).frame(OpCode::Text, klines(bytes).as_bytes(), window(bytes)).expect("smaller");
    let data = if frame[1] < 126 { &frame[2..] } else { &frame[4..] };
    let mut inflater = Inflater::default();
    bencher.bench_local(|| inflater.inflate(black_box(data), bytes).expect("a compressed message").len());
}

fn window(bytes: usize) -> Window {
    Window::of(negotiate("permessage-deflate").expect("an offer").deflate, bytes).expect("the largest")
}

/// JSON of bars, cut at so many bytes.
fn klines(bytes: usize) -> String {
    let mut text = String::new();
    let mut noise: u32 = 1;
    while text.len() < bytes {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (price, volume) = (noise >> 14, noise % 10_000);
        text.push_str(&format!(r#"{{"t":17954600{:05},"c":"68.{price:06}","v":"{volume}"}},"#, text.len()));
    }
    text.truncate(bytes);
    text
}

/// Routing, encoding, queueing and taking off again, for all subscribers of a tag on one core.
#[divan::bench(args = [1, 100, 10_000])]
fn deliver_to_subscribers(bencher: Bencher, subscribers: usize) {
    let published = Arc::new(published());
    let settings = HubSettings {
        node: 1,
        boot: Boot(1),
        core: 0,
        limits: Arc::new(Limits::default()),
        rules: TagRules::default(),
        outboxes_bytes_max: usize::MAX,
    };
    let mut hub = Hub::new(settings, Arc::<Counters>::default());
    for number in 0..subscribers {
        let id = hub.open(NewSession {
            pid: published.pid.clone(),
            role: Role::User,
            uid: format!("u{number}").into(),
            device: None,
            tag_patterns: None,
            expires: None,
            deflate: None,
        });
        hub.follow(id, &published.tag, None).expect("it may");
        hub.followed(id, &published.pid, &published.tag, FollowStart::Empty);
    }
    bencher.bench_local(|| {
        hub.publish(black_box(&published));
        while let Some(id) = hub.next_dirty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = hub.gather(id, &mut slices);
            let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
            hub.wrote(id, bytes, false);
        }
    });
}

fn published() -> Published {
    Published {
        id: RecordId { origin: 0xc81f_0a2b_3c4d, seq: 42 },
        prev: Some(RecordId { origin: 0xc81f_0a2b_3c4d, seq: 41 }),
        pid: Pid::new("502").expect("a pid"),
        tag: Tag::new("kline.BTCUSDT.1m").expect("a tag"),
        keep: false,
        affair_id: None,
        payload: Bytes::from_static(KLINE.as_bytes()),
        stamp: Stamp::default(),
    }
}
