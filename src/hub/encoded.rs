//! One message, encoded once for all the connections of a core that get it: plain, and compressed where that was agreed.
//!
//! Invariants: however many get it, its bytes are made once, and compressed once for each window in use; each takes a
//! counted reference. What compressing does not make smaller goes plain to everyone.

use std::{ops::RangeInclusive, sync::Arc};

use smallvec::SmallVec;

use crate::{
    limits::CompressionLimits,
    metrics::{Count, Counters},
    protocol::{
        deflate::{Deflate, Deflater, Window},
        frame,
        frame::OpCode,
    },
};

use super::stamped::{Born, Frame, Piece};

/// A message as frames.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    opcode: OpCode,
    plain: Piece,
    /// The payload is at the end of `plain`.
    payload_bytes: usize,
    may_deflate: bool,
    /// The frame for each window that somebody wanted; the plain one if compressing gained nothing.
    deflated: SmallVec<[(Window, Piece); 1]>,
}

/// What a core compresses with.
#[derive(Debug)]
pub(super) struct Compressor {
    deflater: Deflater,
    /// Payloads of other lengths go plain.
    bytes: RangeInclusive<usize>,
    counters: Arc<Counters>,
}

impl Encoded {
    /// Encodes `payload`; only with `may_deflate` is it ever compressed.
    pub fn new(opcode: OpCode, payload: &[u8], may_deflate: bool, born: Born) -> Self {
        Self {
            opcode,
            plain: Frame::new(frame::encode(opcode, payload), born).into(),
            payload_bytes: payload.len(),
            may_deflate,
            deflated: SmallVec::new(),
        }
    }

    /// The frame without compression.
    pub fn plain(&self) -> Piece {
        self.plain.clone()
    }

    /// The frame for a connection with this agreement.
    pub fn frame(&mut self, agreed: Option<Deflate>, compressor: &mut Compressor) -> Piece {
        match agreed {
            None => self.plain(),
            Some(deflate) => self.frame_agreed(deflate, compressor),
        }
    }

    fn frame_agreed(&mut self, deflate: Deflate, compressor: &mut Compressor) -> Piece {
        let worth = self.may_deflate && compressor.bytes.contains(&self.payload_bytes);
        let window = if worth { Window::of(deflate, self.payload_bytes) } else { None };
        let Some(window) = window else { return self.plain() };
        if let Some((_, frame)) = self.deflated.iter().find(|(made, _)| *made == window) {
            return frame.clone();
        }
        let plain = &self.plain.frame;
        let frame = compressor.compress(self.opcode, &plain[plain.len() - self.payload_bytes..], window);
        let frame = frame.map_or_else(|| self.plain(), |frame| Frame::new(frame, plain.born()).into());
        self.deflated.push((window, frame.clone()));
        frame
    }
}

impl Compressor {
    pub fn new(limits: &CompressionLimits, counters: Arc<Counters>) -> Self {
        let bytes = limits.deflate_bytes_min..=limits.deflate_bytes_max;
        Self { deflater: Deflater::new(limits.deflate_level), bytes, counters }
    }

    fn compress(&mut self, opcode: OpCode, payload: &[u8], window: Window) -> Option<Vec<u8>> {
        let frame = self.deflater.frame(opcode, payload, window);
        let compressed_bytes = frame.as_ref().map_or(payload.len(), |frame| frame.len());
        self.counters.inc(Count::DeflateCompressions);
        self.counters.add(Count::DeflatePlainBytes, payload.len() as u64);
        self.counters.add(Count::DeflateCompressedBytes, compressed_bytes as u64);
        frame
    }
}
