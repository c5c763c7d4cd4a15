//! One frame's header: parsed, held to the rules that need nothing else, and its masking undone.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode as Wire},
};

use super::{Bounds, DecodeError};
use crate::protocol::frame::{CONTROL_BYTES_MAX, OpCode};

/// Longest header of a frame from a client, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 14;

const RESERVED_BIT: DecodeError = DecodeError::Protocol("a reserved bit is set");

/// The header of a frame from a client.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) opcode: OpCode,
    pub(super) is_final: bool,
    /// It begins a message that was compressed (RSV1).
    pub(super) is_compressed: bool,
    pub(super) mask: [u8; 4],
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: usize,
}

impl Header {
    /// The header at the start of `input`, or `None` if it is not there whole.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut cursor = Cursor::new(input);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| DecodeError::Protocol("an unknown opcode"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let header_bytes = cursor.position() as usize;
        let opcode = opcode(header.opcode)?;
        check(&header, opcode, length, header_bytes)?;
        let mask = header.mask.ok_or(DecodeError::Protocol("a frame without a mask"))?;
        let payload_bytes = usize::try_from(length).map_err(|_| DecodeError::TooBig)?;
        let FrameHeader { is_final, rsv1: is_compressed, .. } = header;
        Ok(Some(Self { opcode, is_final, is_compressed, mask, header_bytes, payload_bytes }))
    }

    /// Checks a frame that comes while no message is under way.
    pub(super) fn check_start(&self, bounds: Bounds) -> Result<(), DecodeError> {
        match self.opcode {
            OpCode::Continuation => Err(DecodeError::Protocol("a continuation of nothing")),
            _ if self.is_compressed && !bounds.deflate => Err(RESERVED_BIT),
            OpCode::Text | OpCode::Binary if self.payload_bytes > bounds.message_bytes_max => Err(DecodeError::TooBig),
            _ => Ok(()),
        }
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

fn opcode(wire: Wire) -> Result<OpCode, DecodeError> {
    Ok(match wire {
        Wire::Data(Data::Continue) => OpCode::Continuation,
        Wire::Data(Data::Text) => OpCode::Text,
        Wire::Data(Data::Binary) => OpCode::Binary,
        Wire::Control(Control::Close) => OpCode::Close,
        Wire::Control(Control::Ping) => OpCode::Ping,
        Wire::Control(Control::Pong) => OpCode::Pong,
        _ => return Err(DecodeError::Protocol("an unknown opcode")),
    })
}

fn check(header: &FrameHeader, opcode: OpCode, length: u64, header_bytes: usize) -> Result<(), DecodeError> {
    // RSV1 may stand on the first frame of a message, if permessage-deflate was agreed on: see `check_start`.
    let may_be_compressed = matches!(opcode, OpCode::Text | OpCode::Binary);
    if header.rsv1 && !may_be_compressed || header.rsv2 || header.rsv3 {
        return Err(RESERVED_BIT);
    }
    if length >> 63 != 0 {
        return Err(DecodeError::Protocol("a length with its top bit set"));
    }
    if header.len(length) != header_bytes {
        return Err(DecodeError::Protocol("a length that is not in its shortest form"));
    }
    if opcode.is_control() && !(header.is_final && length <= CONTROL_BYTES_MAX as u64) {
        return Err(DecodeError::Protocol("a control frame that is fragmented or too long"));
    }
    Ok(())
}

/// Undoes (or applies) a mask whose first byte is for the first byte of `payload`.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
