//! What has come of a frame or message that is not complete yet.
//!
//! Invariants: a control frame never touches the message it interrupts; `data` holds no more than the bound of a
//! message; of plain text, all but the last character is known to be UTF-8.

use std::fmt;

use super::{
    Bounds, DecodeError, Message,
    header::{HEADER_BYTES_MAX, Header, unmask},
    message,
};
use crate::protocol::frame::OpCode;

/// Kept from the first byte that cannot be handed out to the message that can.
#[derive(Default)]
pub(super) struct Assembly {
    /// The start of a header that is not complete.
    head: [u8; HEADER_BYTES_MAX],
    head_bytes: usize,
    /// The frame whose payload is coming.
    frame: Option<Frame>,
    /// The message whose fragments are coming.
    fragments: Option<Fragments>,
    /// The message's payload.
    data: Vec<u8>,
    /// So much of `data` is UTF-8, if it is plain text.
    checked_bytes: usize,
    /// The last control frame's payload.
    control: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
    missing_bytes: usize,
}

#[derive(Clone, Copy)]
struct Fragments {
    opcode: OpCode,
    is_compressed: bool,
    count: u32,
}

impl Assembly {
    /// Whether a frame or message has begun and not ended. If not, nothing that is kept here matters any more.
    pub(super) fn is_underway(&self) -> bool {
        self.head_bytes > 0 || self.frame.is_some() || self.fragments.is_some()
    }

    /// Heap bytes held for payloads.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.data.capacity() + self.control.capacity()
    }

    /// See [`super::Decoder::feed`].
    pub(super) fn feed<'a>(
        &'a mut self,
        input: &mut [u8],
        bounds: Bounds,
    ) -> Result<(usize, Option<Message<'a>>), DecodeError> {
        let mut used = 0;
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.begin(&input[used..], &mut used, bounds)? {
                    Some(frame) => frame,
                    None => return Ok((input.len(), None)),
                },
            };
            let piece_bytes = frame.missing_bytes.min(input.len() - used);
            let piece = &mut input[used..used + piece_bytes];
            used += piece_bytes;
            unmask(piece, frame.mask);
            if !self.take(frame, piece)? {
                return Ok((used, None));
            }
            if frame.opcode.is_control() {
                return Ok((used, Some(message(frame.opcode, false, &self.control)?)));
            }
            if frame.is_final {
                return Ok((used, Some(self.finish()?)));
            }
        }
    }

    /// Reads a header; `None` if it is still not complete.
    fn begin(&mut self, input: &[u8], used: &mut usize, bounds: Bounds) -> Result<Option<Frame>, DecodeError> {
        let before = self.head_bytes;
        let taken = input.len().min(HEADER_BYTES_MAX - before);
        self.head[before..before + taken].copy_from_slice(&input[..taken]);
        let Some(header) = Header::parse(&self.head[..before + taken])? else {
            self.head_bytes += taken;
            return Ok(None);
        };
        self.admit(header, bounds)?;
        *used += header.header_bytes - before;
        self.head_bytes = 0;
        let Header { opcode, is_final, mask, payload_bytes, .. } = header;
        let frame = Frame { opcode, is_final, mask, missing_bytes: payload_bytes };
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    /// Holds a frame to the message that is under way, if any, and counts it in.
    fn admit(&mut self, header: Header, bounds: Bounds) -> Result<(), DecodeError> {
        if header.opcode.is_control() {
            self.control.clear();
            return Ok(());
        }
        let Some(fragments) = &mut self.fragments else {
            header.check_start(bounds)?;
            let Header { opcode, is_compressed, .. } = header;
            self.fragments = Some(Fragments { opcode, is_compressed, count: 1 });
            return Ok(());
        };
        if header.opcode != OpCode::Continuation {
            return Err(DecodeError::Protocol("a message inside another"));
        }
        fragments.count += 1;
        if fragments.count > bounds.fragments_max {
            return Err(DecodeError::TooManyFragments);
        }
        // The bound may have been lowered since the message began.
        if header.payload_bytes > bounds.message_bytes_max.saturating_sub(self.data.len()) {
            return Err(DecodeError::TooBig);
        }
        Ok(())
    }

    /// Keeps an unmasked piece of the frame's payload. Whether the frame is complete.
    fn take(&mut self, mut frame: Frame, piece: &[u8]) -> Result<bool, DecodeError> {
        if frame.opcode.is_control() {
            self.control.extend_from_slice(piece);
        } else {
            self.data.extend_from_slice(piece);
            self.check_text()?;
        }
        frame.missing_bytes -= piece.len();
        frame.mask.rotate_left(piece.len() % 4);
        self.frame = (frame.missing_bytes > 0).then_some(frame);
        Ok(self.frame.is_none())
    }

    /// Refuses text at its first byte that no continuation can mend.
    fn check_text(&mut self) -> Result<(), DecodeError> {
        if !matches!(self.fragments, Some(Fragments { opcode: OpCode::Text, is_compressed: false, .. })) {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.checked_bytes..]) {
            Ok(text) => self.checked_bytes += text.len(),
            Err(error) if error.error_len().is_none() => self.checked_bytes += error.valid_up_to(),
            Err(_) => return Err(DecodeError::Utf8),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Message<'_>, DecodeError> {
        let fragments = self.fragments.take();
        let (opcode, is_compressed) =
            fragments.map_or((OpCode::Binary, false), |begun| (begun.opcode, begun.is_compressed));
        message(opcode, is_compressed, &self.data)
    }
}

impl fmt::Debug for Assembly {
    /// Lengths: a payload never shows itself in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly").field("data_bytes", &self.data.len()).finish_non_exhaustive()
    }
}
