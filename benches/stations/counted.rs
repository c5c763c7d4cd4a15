//! The hot paths under a counter of instructions: each station in a function of its own name, called a fixed number of times,
//! so that callgrind tells what its calls took and nothing of the set-up. `perf/budgets/run` reads them.

use std::hint::black_box;

use super::{
    Appending, decode, decode_from_the_queue, deliver, deliver_run, encode_for_the_queue, parse_a_push,
    parse_a_subscribe, read_a_head, write_a_publication,
};

/// Calls of each station that are counted, and before that those in which buffers grow.
const CALLS: usize = 50;
const CALLS_BEFORE: usize = 10;

/// A function per station; the names are those of `perf/baselines`.
macro_rules! stations {
    ($($name:ident: $station:expr,)*) => {
        $(
            #[inline(never)]
            fn $name(call: &mut dyn FnMut() -> usize) {
                // Functions that do the same would be merged into one.
                black_box(stringify!($name));
                for _ in 0..CALLS {
                    black_box(call());
                }
            }
        )*

        /// Calls all of them.
        pub fn run() {
            $({
                let mut station = $station;
                let mut call = move || station();
                for _ in 0..CALLS_BEFORE {
                    black_box(call());
                }
                $name(&mut call);
            })*
        }
    };
}

stations! {
    counted_decode: decode(),
    counted_head: read_a_head(),
    counted_subscribe: number(parse_a_subscribe()),
    counted_push: number(parse_a_push()),
    counted_write: write_a_publication(),
    counted_encode_16: encode_for_the_queue(16),
    counted_decode_16: decode_from_the_queue(16),
    counted_deliver_1: deliver(1),
    counted_deliver_100: deliver(100),
    counted_run_1: deliver_run(16, 1),
    counted_run_100: deliver_run(16, 100),
    counted_append_16: append(16),
}

fn number(mut station: impl FnMut() -> bool) -> impl FnMut() -> usize {
    move || usize::from(station())
}

fn append(records: usize) -> impl FnMut() -> usize {
    let mut log = Appending::new();
    move || log.append(records)
}
