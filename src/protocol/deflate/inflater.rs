//! A compressed message back to what it was, within its bound.

use flate2::{Decompress, FlushDecompress, Status};

use super::TAIL;
use crate::protocol::decoder::{DecodeError, Deflated, Message};

/// What goes behind a message that was received: what its sender left out, and a last block without content. A stream
/// that is whole ends exactly there; one that was cut off inside a block does not.
const END: [u8; 9] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0x01, 0x00, 0x00, 0xff, 0xff];

/// The first size of the buffer; it doubles as a message needs it.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// A buffer above this is given back before the next message.
const BUFFER_BYTES_KEPT: usize = 128 << 10;

/// Inflates the messages of all connections of a core, one at a time.
///
/// Takes about 48 KiB from the first compressed message on, and a buffer as long as the longest message lately.
#[derive(Debug, Default)]
pub struct Inflater {
    engine: Option<Decompress>,
    /// What has been inflated of this message are its first `filled` bytes; the others are left over.
    buffer: Vec<u8>,
    filled: usize,
}

/// How far a piece of input went.
struct Fed {
    used: usize,
    /// The stream said that it is at its end.
    ended: bool,
}

impl Inflater {
    /// The message that was compressed; text is UTF-8. No more than `bytes_max` bytes of it are ever made.
    pub fn open(&mut self, deflated: Deflated<'_>, bytes_max: usize) -> Result<Message<'_>, DecodeError> {
        let Deflated { is_text, data } = deflated;
        let inflated = self.inflate(data, bytes_max)?;
        if is_text {
            return std::str::from_utf8(inflated).map(Message::Text).map_err(|_| DecodeError::Utf8);
        }
        Ok(Message::Binary(inflated))
    }

    /// What `data`, the payload of a compressed message, was before.
    pub fn inflate(&mut self, data: &[u8], bytes_max: usize) -> Result<&[u8], DecodeError> {
        self.begin();
        // Nothing at all is no DEFLATE, but the tail alone means an empty message to every library, so some send it.
        let mut rest = data;
        while !rest.is_empty() {
            let fed = self.feed(rest, bytes_max)?;
            rest = &rest[fed.used..];
            if fed.ended {
                // A last block may stand anywhere (RFC 7692, section 7.2.3.4). What follows begins afresh; where nothing
                // follows, the message is whole although the empty block behind it is missing.
                self.restart();
            } else if rest.is_empty() {
                let end = self.feed(&END, bytes_max)?;
                if !end.ended || end.used != END.len() {
                    return Err(DecodeError::Corrupt);
                }
            }
        }
        Ok(&self.buffer[..self.filled])
    }

    /// Heap bytes held for messages.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn begin(&mut self) {
        self.restart();
        self.filled = 0;
        if self.buffer.len() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
    }

    fn restart(&mut self) {
        match &mut self.engine {
            Some(engine) => engine.reset(false),
            // The largest window reads what was made with any smaller one.
            None => self.engine = Some(Decompress::new(false)),
        }
    }

    /// Inflates all of `input`, unless the stream ends before.
    fn feed(&mut self, input: &[u8], bytes_max: usize) -> Result<Fed, DecodeError> {
        let Some(engine) = &mut self.engine else { return Err(DecodeError::Corrupt) };
        // One byte above the bound tells a message that is over it from one that just fits.
        let room_max = bytes_max.saturating_add(1);
        let mut used = 0;
        loop {
            if self.filled == self.buffer.len() {
                let length = (self.buffer.len() * 2).max(BUFFER_BYTES_MIN).min(room_max);
                self.buffer.reserve_exact(length - self.filled);
                self.buffer.resize(length, 0);
            }
            let room = self.buffer.len().min(room_max);
            let (before_in, before_out) = (engine.total_in(), engine.total_out());
            let output = &mut self.buffer[self.filled..room];
            let status = engine.decompress(&input[used..], output, FlushDecompress::None);
            let status = status.map_err(|_| DecodeError::Corrupt)?;
            used += (engine.total_in() - before_in) as usize;
            self.filled += (engine.total_out() - before_out) as usize;
            if self.filled > bytes_max {
                return Err(DecodeError::TooBig);
            }
            let ended = status == Status::StreamEnd;
            // With room left in the buffer there is nothing that the engine holds back.
            if ended || self.filled < room {
                debug_assert!(ended || used == input.len(), "what is not read waits for room");
                return Ok(Fed { used, ended });
            }
        }
    }
}
