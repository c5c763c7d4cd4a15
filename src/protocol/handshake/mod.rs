//! The opening of a connection: one strict HTTP/1.1 GET, judged byte by byte (RFC 9112, RFC 6455 section 4).
//!
//! Where HTTP leaves a choice between lenient and strict, this is strict: two readers of one head must not see
//! two requests in it.
//!
//! Invariants: a byte is scanned once however the head is cut ([`HeadReader`]) and the head is parsed once, when
//! it is complete; header values are bytes until proven text; what lies behind the head is not looked at (a
//! client may send frames at once).
//! Left out: which paths there are, and whose credentials are good.

mod fields;
mod response;
#[cfg(test)]
mod tests;

use std::fmt;

use smallvec::{SmallVec, smallvec};

use self::fields::Fields;
pub use self::response::{accept_response, accept_token, error_response};
use crate::limits::OpeningLimits;

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Request line and headers together, with the empty line.
    pub head_bytes_max: usize,
    /// Headers.
    pub headers_max: usize,
    /// Request target.
    pub target_bytes_max: usize,
}

/// A complete head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Asks for a WebSocket, and rightly so.
    Upgrade(Box<Upgrade>),
    /// A valid GET that asks for no WebSocket.
    Plain(PlainRequest),
}

/// A valid opening handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The target's path, as sent.
    pub path: Box<str>,
    /// The target's query without its `?`, as sent; empty if there is none.
    pub query: Box<str>,
    /// The `Host`.
    pub host: Box<str>,
    /// The `Origin`, which browsers send.
    pub origin: Option<Box<str>>,
    /// `Sec-WebSocket-Key`: 16 bytes in base64.
    pub key: Box<str>,
    /// `Sec-WebSocket-Protocol`, all of them joined by commas; none is ever agreed on.
    pub protocols: Option<Box<str>>,
    /// `Sec-WebSocket-Extensions`, all of them joined by commas.
    pub extensions: Option<Box<str>>,
    /// `X-Forwarded-For`, all of them joined by commas: what proxies say, and anybody can write.
    pub forwarded_for: Option<Box<str>>,
}

/// A GET that is no handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainRequest {
    /// The target's path, as sent.
    pub path: Box<str>,
    /// The target's query without its `?`, as sent; empty if there is none.
    pub query: Box<str>,
}

/// Why a head is refused; the connection ends with [`HandshakeError::response`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// A rule is broken; the text says which.
    Malformed(&'static str),
    /// Well begun, but no GET. A listener that is shared with the HTTP API passes it on.
    Method,
    /// Another version of the WebSocket protocol.
    Version,
    /// The head is over its bytes.
    HeadTooLarge,
    /// The head is over its headers.
    TooManyHeaders,
    /// The target is over its bytes.
    TargetTooLong,
}

/// Reads one connection's head as it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadReader {
    scanned_bytes: usize,
}

impl HeadReader {
    /// Looks at all that was received so far, which only ever grows at its end. Gives the head and its length
    /// when it is complete; the bytes behind it belong to the WebSocket.
    pub fn read(
        &mut self,
        received: &[u8],
        limits: &HandshakeLimits,
    ) -> Result<Option<(Parsed, usize)>, HandshakeError> {
        let within = &received[..received.len().min(limits.head_bytes_max)];
        match self.scan(within)? {
            Some(head_bytes) => Ok(Some((parse_head(&received[..head_bytes], limits)?, head_bytes))),
            None if within.len() == limits.head_bytes_max => Err(too_large(within, limits)),
            None => Ok(None),
        }
    }

    /// Refuses what no head may hold, in the bytes not seen before; finds the head's end.
    fn scan(&mut self, received: &[u8]) -> Result<Option<usize>, HandshakeError> {
        for at in self.scanned_bytes..received.len() {
            let before = at.checked_sub(1).map_or(b'\n', |before| received[before]);
            match (before, received[at]) {
                (b'\r', b'\n') if received[..=at].ends_with(b"\r\n\r\n") => return Ok(Some(at + 1)),
                (b'\r', b'\n') => {}
                (b'\r', _) => return Err(HandshakeError::Malformed("a bare CR in the head")),
                (_, b'\n') => return Err(HandshakeError::Malformed("a bare LF in the head")),
                (_, 0) => return Err(HandshakeError::Malformed("a NUL in the head")),
                (b'\n', b' ' | b'\t') => return Err(HandshakeError::Malformed("a folded header line")),
                _ => {}
            }
        }
        self.scanned_bytes = received.len();
        Ok(None)
    }
}

/// Reads a head that begins `received`, all at once; see [`HeadReader::read`].
pub fn parse(received: &[u8], limits: &HandshakeLimits) -> Result<Option<(Parsed, usize)>, HandshakeError> {
    HeadReader::default().read(received, limits)
}

/// Which bound a head broke that did not end in time.
fn too_large(received: &[u8], limits: &HandshakeLimits) -> HandshakeError {
    let line = received.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let around_target = b"GET ".len() + b" HTTP/1.1".len();
    if line.len() > limits.target_bytes_max + around_target {
        return HandshakeError::TargetTooLong;
    }
    HandshakeError::HeadTooLarge
}

fn parse_head(head: &[u8], limits: &HandshakeLimits) -> Result<Parsed, HandshakeError> {
    if head.starts_with(b"\r") {
        return Err(HandshakeError::Malformed("an empty line before the request line"));
    }
    let mut headers: SmallVec<[_; 64]> = smallvec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).map_err(refusal)?.is_complete();
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HandshakeError::Malformed("the request line"));
    };
    if !complete {
        return Err(HandshakeError::Malformed("the head"));
    }
    if method != "GET" {
        return Err(HandshakeError::Method);
    }
    if version != 1 {
        return Err(HandshakeError::Malformed("the version is not HTTP/1.1"));
    }
    let (path, query) = split_target(target, limits)?;
    let fields = Fields::collect(request.headers)?;
    fields.judge(path, query)
}

fn split_target<'h>(target: &'h str, limits: &HandshakeLimits) -> Result<(&'h str, &'h str), HandshakeError> {
    if target.len() > limits.target_bytes_max {
        return Err(HandshakeError::TargetTooLong);
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HandshakeError::Malformed("the target is no path of visible ASCII"));
    }
    Ok(target.split_once('?').unwrap_or((target, "")))
}

fn refusal(error: httparse::Error) -> HandshakeError {
    match error {
        httparse::Error::TooManyHeaders => HandshakeError::TooManyHeaders,
        httparse::Error::Version => HandshakeError::Malformed("the version is not HTTP/1.1"),
        httparse::Error::HeaderName => HandshakeError::Malformed("a header name"),
        httparse::Error::HeaderValue => HandshakeError::Malformed("a header value"),
        _ => HandshakeError::Malformed("the request line"),
    }
}

impl From<&OpeningLimits> for HandshakeLimits {
    fn from(limits: &OpeningLimits) -> Self {
        let OpeningLimits { head_bytes_max, headers_max, target_bytes_max, .. } = *limits;
        Self { head_bytes_max, headers_max, target_bytes_max }
    }
}

impl HandshakeError {
    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            HandshakeError::Malformed(_) | HandshakeError::Method => 400,
            HandshakeError::TargetTooLong => 414,
            HandshakeError::Version => 426,
            HandshakeError::HeadTooLarge | HandshakeError::TooManyHeaders => 431,
        }
    }

    /// The whole answer, behind which the connection is closed.
    pub fn response(self) -> Vec<u8> {
        let version: &[_] = &[("Sec-WebSocket-Version", "13")];
        let headers = if self == HandshakeError::Version { version } else { &[] };
        error_response(self.status(), headers, &format!("{self}\n"))
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Malformed(rule) => write!(f, "not a valid request: {rule}"),
            HandshakeError::Method => f.write_str("not a valid request: a WebSocket is opened with GET"),
            HandshakeError::Version => f.write_str("only version 13 of the WebSocket protocol is spoken here"),
            HandshakeError::HeadTooLarge => f.write_str("the request's head is too large"),
            HandshakeError::TooManyHeaders => f.write_str("the request has too many headers"),
            HandshakeError::TargetTooLong => f.write_str("the request's target is too long"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl fmt::Debug for Upgrade {
    /// Without the query, which holds the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Upgrade");
        fields.field("path", &self.path).field("host", &self.host).field("origin", &self.origin);
        fields.finish_non_exhaustive()
    }
}

impl fmt::Debug for PlainRequest {
    /// Without the query, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainRequest").field("path", &self.path).finish_non_exhaustive()
    }
}
