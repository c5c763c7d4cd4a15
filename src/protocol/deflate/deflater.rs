//! Messages into compressed frames.

use std::panic::{self, AssertUnwindSafe};

use flate2::{Compress, Compression, FlushCompress};

use super::{Deflate, TAIL};
use crate::protocol::frame::{self, OpCode};

/// The largest window, in bits: that of every client that asks for none.
const LARGEST_BITS: u8 = 15;
/// The smallest window that there is a compressor for, in bits.
const SMALLEST_BITS: u8 = 9;
const WINDOWS: usize = (LARGEST_BITS - SMALLEST_BITS + 1) as usize;

/// Room above this is given back with the next message that needs less.
const SPARE_BYTES_MAX: usize = 128 << 10;

/// A window to compress a message with. Clients with equal windows for a message can share its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    bits: u8,
}

impl Window {
    /// The window for a message of `payload_bytes` to a client; none if it has to go plain.
    ///
    /// No reference in a message reaches further back than its beginning. So one that fits into the client's window whole
    /// is compressed with the largest, and one frame is right for clients of many windows.
    pub fn of(deflate: Deflate, payload_bytes: usize) -> Option<Self> {
        let bits = deflate.window_bits();
        if payload_bytes <= 1 << bits {
            return Some(Self { bits: LARGEST_BITS });
        }
        (bits >= SMALLEST_BITS).then_some(Self { bits })
    }
}

/// Compresses messages for all connections of a core, one at a time.
///
/// A compressor takes 250 to 370 KiB. There is one for each window from the first message on that wants it: mostly one,
/// at most seven.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    engines: [Option<Compress>; WINDOWS],
    out: Vec<u8>,
}

impl Deflater {
    /// One that compresses at `level` (1: fast, 9: small).
    pub fn new(level: u32) -> Self {
        Self { level: Compression::new(level.clamp(1, 9)), engines: [const { None }; WINDOWS], out: Vec::new() }
    }

    /// A compressed frame around `payload`, or `None` if that is not smaller than a plain one.
    pub fn frame(&mut self, opcode: OpCode, payload: &[u8], window: Window) -> Option<Vec<u8>> {
        let data = self.compress(payload, window).filter(|data| data.len() < payload.len())?;
        let mut frame = Vec::with_capacity(frame::HEADER_BYTES_MAX + data.len());
        frame::compressed_into(&mut frame, opcode, data);
        Some(frame)
    }

    fn compress(&mut self, payload: &[u8], window: Window) -> Option<&[u8]> {
        let slot = &mut self.engines[usize::from(window.bits - SMALLEST_BITS)];
        // An engine comes back only if it did all that it was asked for: with output left in it, a reset is not enough
        // for zlib-rs 0.6, whose next message ends in a panic.
        let mut engine = match slot.take() {
            Some(mut engine) => {
                engine.reset();
                engine
            }
            None => Compress::new_with_window_bits(self.level, false, window.bits),
        };
        // The fastest level takes nine bits for a byte at worst, the others add five bytes to each 16 KiB.
        let room = payload.len() + payload.len() / 8 + 64;
        if self.out.len() < room {
            self.out.resize(room, 0);
        } else if self.out.len() > SPARE_BYTES_MAX && room <= SPARE_BYTES_MAX {
            self.out = vec![0; room];
        }
        let out = &mut self.out[..room];
        // Every node of a cluster compresses the same publication. A panic here would end them all.
        let compressed = panic::catch_unwind(AssertUnwindSafe(|| engine.compress(payload, out, FlushCompress::Sync)));
        let (taken, made) = (engine.total_in() as usize, engine.total_out() as usize);
        if !matches!(compressed, Ok(Ok(_))) || taken != payload.len() || made >= room {
            tracing::error!(payload_bytes = payload.len(), "a message could not be compressed");
            return None;
        }
        *slot = Some(engine);
        // A frame with its tail cut off is unreadable if it is not the tail.
        self.out[..made].strip_suffix(&TAIL)
    }
}
