//! Frames of RFC 6455 as a client reads and writes them. Pure.
//!
//! Leaves out: extensions and fragments (a node sends whole frames; anything else is a finding).

use std::{fmt, io};

/// Largest frame that is believed.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A close frame with this code (1005: without one).
    Closed(u16),
    /// The connection ended without a close frame.
    Ended,
    /// The connection failed.
    Reset(io::ErrorKind),
    /// The peer broke the protocol.
    Broken(&'static str),
    /// The upgrade was answered with this status.
    Refused(u16),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed with {code}"),
            Self::Ended => f.write_str("ended without a close frame"),
            Self::Reset(kind) => write!(f, "failed: {kind}"),
            Self::Broken(what) => write!(f, "broke the protocol: {what}"),
            Self::Refused(status) => write!(f, "the upgrade was answered with {status}"),
        }
    }
}

impl std::error::Error for Ending {}

/// See RFC 6455, 11.8.
pub const OPCODE_TEXT: u8 = 1;
/// See RFC 6455, 11.8.
pub const OPCODE_CLOSE: u8 = 8;
/// See RFC 6455, 11.8.
pub const OPCODE_PING: u8 = 9;
/// See RFC 6455, 11.8.
pub const OPCODE_PONG: u8 = 10;

/// The header of a whole frame from a server.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// What the frame is.
    pub opcode: u8,
    /// Bytes before its payload.
    pub bytes: usize,
}

impl Header {
    /// The header at the front and its frame's length, once the whole frame is there.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Ending> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0xF0 != 0x80 {
            return Err(Ending::Broken("a fragment, or a bit that no extension gave a meaning"));
        }
        if second & 0x80 != 0 {
            return Err(Ending::Broken("a masked frame from a server"));
        }
        let (header_bytes, payload_bytes) = match (second & 0x7F, rest) {
            (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (10, usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])).unwrap_or(usize::MAX))
            }
            (126 | 127, _) => return Ok(None),
            (small, _) => (2, usize::from(small)),
        };
        if payload_bytes > FRAME_BYTES_MAX {
            return Err(Ending::Broken("a frame beyond any bound"));
        }
        let total = header_bytes + payload_bytes;
        Ok((bytes.len() >= total).then_some((Self { opcode: first & 0x0F, bytes: header_bytes }, total)))
    }
}

/// The end that a close frame's payload tells.
pub fn closed(payload: &[u8]) -> Ending {
    match payload {
        [high, low, ..] => Ending::Closed(u16::from_be_bytes([*high, *low])),
        _ => Ending::Closed(1005),
    }
}

/// Writes a whole masked frame.
pub fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => out.push(0x80 | length as u8),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend(length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
