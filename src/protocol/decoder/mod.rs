//! Frames as clients send them, turned into messages (RFC 6455, sections 5 to 8), without a socket.
//!
//! Works on the core's shared receive buffer: a small message that is there whole is unmasked in place and
//! borrowed. Only what is not complete is kept, in a boxed assembly that goes when the message is out, so
//! that an idle connection holds three words.
//!
//! Invariants: a header that breaks a rule or a bound is refused before a byte of its payload is kept; what is
//! kept grows with received bytes, never by a declared length; plain text is checked as it comes; behind a close
//! frame or an error nothing is read.
//! Left out: inflating ([`Message::Deflated`] is handed out as it was sent), and deadlines: see
//! [`Decoder::mid_message`].

mod assembly;
mod header;
#[cfg(test)]
mod tests;

use std::fmt;

use self::{assembly::Assembly, header::Header};
use super::frame::{OpCode, close_code};

/// What a peer sent. Text and reason are UTF-8, close codes are ones a peer may send, but what was compressed is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A whole message in its compressed form.
    Deflated(Deflated<'a>),
    /// A ping with its payload, which the pong repeats.
    Ping(&'a [u8]),
    /// A pong with its payload.
    Pong(&'a [u8]),
    /// A close with its code and reason, if the peer gave any.
    Close(Option<(u16, &'a str)>),
}

/// A message that permessage-deflate has compressed; [`Inflater::open`](super::deflate::Inflater::open) takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Deflated<'a> {
    /// Whether it is to be text.
    pub is_text: bool,
    /// The payload as it was sent.
    pub data: &'a [u8],
}

/// Why a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A rule of RFC 6455 is broken; the text says which.
    Protocol(&'static str),
    /// Text or a close reason is not UTF-8.
    Utf8,
    /// The message is, or says it will be, over its bound.
    TooBig,
    /// The message comes in more fragments than the bound.
    TooManyFragments,
    /// A compressed message cannot be inflated.
    Corrupt,
}

/// What a decoder holds its peer to.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    message_bytes_max: usize,
    fragments_max: u32,
    deflate: bool,
}

/// One connection's reader.
///
/// ```
/// use ws_cluster::protocol::decoder::{Decoder, Message};
///
/// let mut decoder = Decoder::new(65_536, 1024);
/// let mut received = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
/// let mut at = 0;
/// loop {
///     let (used, message) = decoder.feed(&mut received[at..]).unwrap();
///     at += used;
///     let Some(message) = message else { break };
///     assert!(message == Message::Text("hi"));
/// }
/// ```
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: u32,
    fragments_max: u32,
    deflate: bool,
    ended: bool,
    assembly: Option<Box<Assembly>>,
}

// An idle connection pays for this.
const _: () = assert!(size_of::<Decoder>() <= 24);

fn narrow(bound: usize) -> u32 {
    u32::try_from(bound).unwrap_or(u32::MAX)
}

impl Decoder {
    /// A reader of messages of at most `message_bytes_max` bytes in at most `fragments_max` fragments.
    pub fn new(message_bytes_max: usize, fragments_max: usize) -> Self {
        Self {
            message_bytes_max: narrow(message_bytes_max),
            fragments_max: narrow(fragments_max),
            deflate: false,
            ended: false,
            assembly: None,
        }
    }

    /// Admits compressed messages or not, by what the handshake has agreed on. Their bound is on what is sent; what it
    /// inflates to is for the inflater to hold to it.
    pub fn with_deflate(self, deflate: bool) -> Self {
        Self { deflate, ..self }
    }

    /// Reads on: how many bytes of `input` are used up (they may have been changed), and the next message.
    ///
    /// Without a message all of `input` is used up. The caller goes on with the rest until then; that last
    /// call also gives back the memory of the message before.
    pub fn feed<'a>(&'a mut self, input: &'a mut [u8]) -> Result<(usize, Option<Message<'a>>), DecodeError> {
        if self.ended {
            return Ok((input.len(), None));
        }
        let Self { message_bytes_max, fragments_max, deflate, .. } = *self;
        let bounds = Bounds { message_bytes_max: message_bytes_max as usize, fragments_max, deflate };
        let fed = feed(&mut self.assembly, bounds, input);
        self.ended = matches!(fed, Err(_) | Ok((_, Some(Message::Close(_)))));
        fed
    }

    /// Changes the bounds, for what comes next of a message that has begun, too.
    pub fn set_bounds(&mut self, message_bytes_max: usize, fragments_max: usize) {
        (self.message_bytes_max, self.fragments_max) = (narrow(message_bytes_max), narrow(fragments_max));
    }

    /// The bound of a message, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max as usize
    }

    /// Whether a frame or a message has begun and not ended: the caller's deadline for it runs.
    pub fn mid_message(&self) -> bool {
        !self.ended && self.assembly.as_ref().is_some_and(|assembly| assembly.is_underway())
    }
}

fn feed<'a>(
    slot: &'a mut Option<Box<Assembly>>,
    bounds: Bounds,
    input: &'a mut [u8],
) -> Result<(usize, Option<Message<'a>>), DecodeError> {
    if slot.as_ref().is_some_and(|assembly| !assembly.is_underway()) {
        *slot = None;
    }
    if input.is_empty() {
        return Ok((0, None));
    }
    if slot.is_none()
        && let Some(header) = Header::parse(input)?
    {
        header.check_start(bounds)?;
        if header.is_final && input.len() - header.header_bytes >= header.payload_bytes {
            return Ok((header.frame_bytes(), Some(whole(header, input)?)));
        }
    }
    slot.get_or_insert_default().feed(input, bounds)
}

/// The message of a final frame that `input` holds whole.
fn whole<'a>(header: Header, input: &'a mut [u8]) -> Result<Message<'a>, DecodeError> {
    let payload = &mut input[header.header_bytes..header.frame_bytes()];
    header::unmask(payload, header.mask);
    message(header.opcode, header.is_compressed, payload)
}

fn message(opcode: OpCode, is_compressed: bool, payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    Ok(match opcode {
        OpCode::Text | OpCode::Binary if is_compressed => {
            Message::Deflated(Deflated { is_text: opcode == OpCode::Text, data: payload })
        }
        OpCode::Text => Message::Text(utf8(payload)?),
        OpCode::Binary | OpCode::Continuation => Message::Binary(payload),
        OpCode::Ping => Message::Ping(payload),
        OpCode::Pong => Message::Pong(payload),
        OpCode::Close => Message::Close(close(payload)?),
    })
}

fn close(payload: &[u8]) -> Result<Option<(u16, &str)>, DecodeError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(DecodeError::Protocol("a close code is cut short")) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(DecodeError::Protocol("a close code that nobody may send"));
    }
    Ok(Some((code, utf8(reason)?)))
}

/// Close codes that may stand in a frame (RFC 6455, section 7.4, and the IANA registry it opens).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

impl Message<'_> {
    /// Bytes of a text or binary message; 0 of what is no such message, or is not inflated.
    pub fn data_bytes(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl DecodeError {
    /// The code to close with.
    pub fn close_code(self) -> u16 {
        match self {
            DecodeError::Protocol(_) => close_code::PROTOCOL,
            DecodeError::Utf8 | DecodeError::Corrupt => close_code::INVALID_PAYLOAD,
            DecodeError::TooBig => close_code::TOO_BIG,
            DecodeError::TooManyFragments => close_code::POLICY,
        }
    }

    /// The reason to close with.
    pub fn reason(self) -> &'static str {
        match self {
            DecodeError::Protocol(rule) => rule,
            DecodeError::Utf8 => "text is not UTF-8",
            DecodeError::TooBig => "the message is too big",
            DecodeError::TooManyFragments => "the message has too many fragments",
            DecodeError::Corrupt => "the compressed message is corrupt",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Debug for Message<'_> {
    /// Kind and length: a payload never shows itself in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Message::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Message::Deflated(Deflated { data, .. }) => write!(f, "Deflated({} bytes)", data.len()),
            Message::Ping(bytes) => write!(f, "Ping({} bytes)", bytes.len()),
            Message::Pong(bytes) => write!(f, "Pong({} bytes)", bytes.len()),
            Message::Close(None) => f.write_str("Close"),
            Message::Close(Some((code, _))) => write!(f, "Close({code})"),
        }
    }
}
