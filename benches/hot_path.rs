//! What the stations of a message cost, in three cuts: `pure` is one station alone, `core` is one core's delivery without
//! sockets, `socket` is the same with the kernel's TCP.
//!
//! `cargo bench` prints the time of one call; for deliveries that is a whole fan-out, so divide by its subscribers. What a
//! delivery costs a whole node is measured by the load harness. With `--instructions` every hot path is called a fixed number
//! of times instead, for `perf/budgets/run`. With `--in-turns` a core's fan-out is compared with a bare loop of `send(2)`
//! over the same sockets, publication by publication.

mod stations;

use divan::{Bencher, black_box};

fn main() {
    if std::env::args().any(|argument| argument == "--instructions") {
        stations::counted::run();
    } else if std::env::args().any(|argument| argument == "--in-turns") {
        stations::in_turns::run();
    } else {
        divan::main();
    }
}

mod pure {
    //! One station alone.
    use ws_cluster::protocol::{
        deflate::{Deflater, Inflater, Window, negotiate},
        frame::OpCode,
    };

    use super::{Bencher, black_box, stations};

    /// A small masked frame, whole in the buffer.
    #[divan::bench]
    fn decode_a_small_frame(bencher: Bencher) {
        bencher.bench_local(stations::decode());
    }

    /// The head of a connect as browsers send it.
    #[divan::bench]
    fn read_a_head(bencher: Bencher) {
        bencher.bench_local(stations::read_a_head());
    }

    /// A subscription as users send it.
    #[divan::bench]
    fn parse_a_subscribe(bencher: Bencher) {
        bencher.bench_local(stations::parse_a_subscribe());
    }

    /// A push as back-ends send it.
    #[divan::bench]
    fn parse_a_push(bencher: Bencher) {
        bencher.bench_local(stations::parse_a_push());
    }

    /// The text of a publication, once a core.
    #[divan::bench]
    fn write_a_publication(bencher: Bencher) {
        bencher.bench_local(stations::write_a_publication());
    }

    /// A batch for the queue.
    #[divan::bench(args = [1, 64])]
    fn encode_for_the_queue(bencher: Bencher, records: usize) {
        bencher.bench_local(stations::encode_for_the_queue(records));
    }

    /// A batch as every node hears it.
    #[divan::bench(args = [1, 64])]
    fn decode_from_the_queue(bencher: Bencher, records: usize) {
        bencher.bench_local(stations::decode_from_the_queue(records));
    }

    /// Into the embedded queue's log and out of it, acknowledged and heard.
    #[divan::bench(args = [1, 64])]
    fn append_to_the_log(bencher: Bencher, records: usize) {
        let mut log = stations::Appending::new();
        bencher.bench_local(|| log.append(black_box(records)));
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
}

mod core {
    //! One core's work without sockets.
    use super::{Bencher, stations};

    /// Routing, encoding, queueing and taking off again, for all subscribers of a tag on one core.
    #[divan::bench(args = [1, 100, 10_000])]
    fn deliver_to_subscribers(bencher: Bencher, subscribers: usize) {
        bencher.bench_local(stations::deliver(subscribers));
    }
}

mod socket {
    //! The same with the kernel's TCP on the loopback; that the subscribers read it is not in the time.
    use std::cell::{Cell, RefCell};

    use super::{Bencher, stations};

    /// Delivering and writing, for all subscribers of a tag on one core.
    #[divan::bench(args = [1, 100, 1000], sample_size = 1)]
    fn deliver_to_sockets(bencher: Bencher, subscribers: usize) {
        let (sockets, unread) = (RefCell::new(stations::Sockets::new(subscribers)), Cell::new(0));
        bencher
            .with_inputs(|| sockets.borrow_mut().drain(unread.take()))
            .bench_local_values(|()| unread.set(unread.get() + sockets.borrow_mut().deliver()));
    }
}
