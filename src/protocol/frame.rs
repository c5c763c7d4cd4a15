//! Frames as the server sends them: unmasked and final (RFC 6455, section 5).
//!
//! Invariant: what is built here is a whole frame; a broadcast builds it once and shares it.

/// The kind of a frame (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// Goes on with a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The last frame of its direction.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// Close codes the server sends: RFC 6455, section 7.4.1, and its own from 4000 up.
pub mod close_code {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The peer goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The peer sent binary.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is no UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// A rate or another rule.
    pub const POLICY: u16 = 1008;
    /// The message is over its bound.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL: u16 = 1011;
    /// The node drains: reconnect.
    pub const RESTART: u16 = 1012;
    /// The node is overloaded: later.
    pub const TRY_LATER: u16 = 1013;
    /// The connection fell behind: reconnect and resume.
    pub const SLOW: u16 = 4008;
    /// Bad or ended credentials: not again with the same.
    pub const CREDENTIALS: u16 = 4401;
    /// Good credentials that may not do this.
    pub const DENIED: u16 = 4403;
    /// Nothing was heard from the peer.
    pub const NO_HEARTBEAT: u16 = 4408;
    /// A newer connection of the same user took its place.
    pub const REPLACED: u16 = 4409;
    /// A back-end or the API closed it.
    pub const KICKED: u16 = 4410;
    /// Too many connections.
    pub const TOO_MANY: u16 = 4429;
}

/// Longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Longest header of a frame from the server, in bytes.
pub const HEADER_BYTES_MAX: usize = 10;

/// A frame around `payload`.
pub fn encode(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    encode_into(&mut out, opcode, payload);
    out
}

/// Appends a frame around `payload` to `out`.
pub fn encode_into(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    header_into(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a frame around `data`, a message that was compressed by permessage-deflate (RFC 7692, section 6).
pub fn compressed_into(out: &mut Vec<u8>, opcode: OpCode, data: &[u8]) {
    const COMPRESSED: u8 = 0x40;
    debug_assert!(!opcode.is_control(), "a control frame is never compressed");
    let first = out.len();
    header_into(out, opcode, data.len());
    out[first] |= COMPRESSED;
    out.extend_from_slice(data);
}

/// Appends the header of a final frame whose payload of `len` bytes the caller appends behind it.
pub fn header_into(out: &mut Vec<u8>, opcode: OpCode, len: usize) {
    const FINAL: u8 = 0x80;
    debug_assert!(len <= CONTROL_BYTES_MAX || !opcode.is_control(), "a control frame is short");
    out.push(FINAL | opcode.bits());
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// A close frame. A `reason` that does not fit (123 bytes) is cut at a character.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - size_of::<u16>())];
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + CONTROL_BYTES_MAX);
    header_into(&mut out, OpCode::Close, size_of::<u16>() + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
    out
}

impl OpCode {
    /// Whether the frame may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, OpCode::Close | OpCode::Ping | OpCode::Pong)
    }

    fn bits(self) -> u8 {
        match self {
            OpCode::Continuation => 0x0,
            OpCode::Text => 0x1,
            OpCode::Binary => 0x2,
            OpCode::Close => 0x8,
            OpCode::Ping => 0x9,
            OpCode::Pong => 0xa,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Every frame the server can send has the bytes of RFC 6455.
    //! Method: the RFC's own examples (section 5.7), the lengths around each form of the header, and tungstenite
    //! reading the headers back.

    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_met() {
        assert_eq!(encode(OpCode::Text, b"Hello"), [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(encode(OpCode::Ping, b"Hello"), [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(encode(OpCode::Binary, &[0; 256])[..4], [0x82, 0x7e, 0x01, 0x00]);
        let mut header = Vec::new();
        header_into(&mut header, OpCode::Binary, 65_536);
        assert_eq!(header, [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_length_takes_its_shortest_form_and_reads_back() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let mut header = Vec::new();
            header_into(&mut header, OpCode::Text, len);
            let mut cursor = Cursor::new(&header);
            let (read, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((length, cursor.position()), (len as u64, header.len() as u64), "{len}");
            assert_eq!(read.len(length), header.len(), "{len}");
            assert!(read.is_final && read.mask.is_none() && !read.rsv1, "{len}");
        }
    }

    #[test]
    fn a_close_carries_code_and_reason_and_cuts_a_long_one_at_a_character() {
        assert_eq!(close(close_code::NORMAL, ""), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(close(close_code::SLOW, "slow"), [&[0x88, 6, 0x0f, 0xa8][..], b"slow"].concat());
        let long = close(close_code::POLICY, &"é".repeat(100));
        assert_eq!(usize::from(long[1]), 2 + 122);
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }
}
