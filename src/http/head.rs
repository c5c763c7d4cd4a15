//! Judges a request's head before the decoder sees it: how long it is, what its body's framing is, and whether the
//! two ends can possibly disagree about either (RFC 9112).
//!
//! Invariants: pure; a head that passes has exactly one framing, at most the bounded headers, no folding, no bare
//! CR or LF, and header names that the decoder takes.

use http::StatusCode;

use super::message::Fault;
use crate::limits::HttpLimits;

/// Longest header name. The decoder panics above 64 KiB; nobody needs more than this.
const HEADER_NAME_BYTES_MAX: usize = 256;

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
}

/// What the server needs to know of a head besides what the handler gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the peer wants the connection to stay.
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether it is HTTP/1.1.
    pub http_11: bool,
}

/// Looks for a head's end as its bytes come, each byte once.
#[derive(Debug, Default)]
pub struct Scan {
    scanned: usize,
    first_line: bool,
}

impl Scan {
    /// The head's length once `bytes` hold all of it.
    pub fn advance(&mut self, bytes: &[u8], limits: &HttpLimits) -> Result<Option<usize>, Fault> {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.scanned..]) {
            let line_feed = self.scanned + offset;
            if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
                return Err(Fault::bad_request("a line of the head ends without CR LF"));
            }
            self.scanned = line_feed + 1;
            self.first_line = true;
            if bytes[..line_feed].ends_with(b"\r\n\r") {
                return self.end(limits);
            }
        }
        self.scanned = bytes.len();
        self.still_bounded(limits).map(|()| None)
    }

    fn end(&self, limits: &HttpLimits) -> Result<Option<usize>, Fault> {
        if self.scanned > limits.head_bytes_max { Err(HEAD_TOO_LARGE) } else { Ok(Some(self.scanned)) }
    }

    fn still_bounded(&self, limits: &HttpLimits) -> Result<(), Fault> {
        // The request line has a method and a version besides the target; 64 bytes are ample for both.
        if !self.first_line && self.scanned > limits.target_bytes_max + 64 {
            return Err(TARGET_TOO_LONG);
        }
        if self.scanned >= limits.head_bytes_max { Err(HEAD_TOO_LARGE) } else { Ok(()) }
    }
}

const HEAD_TOO_LARGE: Fault =
    Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "the head or a header is too large");
const TOO_MANY_HEADERS: Fault =
    Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "the request has too many headers");
const TARGET_TOO_LONG: Fault =
    Fault::new(StatusCode::URI_TOO_LONG, "target_too_long", "the request target is too long; send a body");
/// The body is over the bound.
pub const BODY_TOO_LARGE: Fault = Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is above the limit");
const UNKNOWN_CODING: Fault =
    Fault::new(StatusCode::NOT_IMPLEMENTED, "unknown_coding", "the only transfer coding is chunked");
const UNKNOWN_EXPECTATION: Fault =
    Fault::new(StatusCode::EXPECTATION_FAILED, "unknown_expectation", "the only expectation is 100-continue");
const UNKNOWN_VERSION: Fault =
    Fault::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "unknown_version", "the server speaks HTTP/1.1");

/// Judges one whole head, its empty line included.
pub fn examine(head: &[u8], limits: &HttpLimits) -> Result<Verdict, Fault> {
    if head.first().is_none_or(|byte| !is_token(*byte)) {
        return Err(Fault::bad_request("the request line is malformed"));
    }
    if memchr::memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n')) {
        return Err(Fault::bad_request("the head has a CR without LF"));
    }
    let mut storage = vec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut request = httparse::Request::new(&mut storage);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_HEADERS),
        Err(httparse::Error::Version) => return Err(UNKNOWN_VERSION),
        _ => return Err(Fault::bad_request("the head is malformed")),
    }
    check_target(request.method.unwrap_or(""), request.path.unwrap_or(""), limits)?;
    let http_11 = request.version == Some(1);
    let mut fields = Fields { http_11, ..Fields::default() };
    request.headers.iter().try_for_each(|header| fields.take(header))?;
    fields.verdict(limits)
}

/// Origin, absolute or (for OPTIONS) asterisk form, RFC 9112 §3.2; no fragment.
fn check_target(method: &str, target: &str, limits: &HttpLimits) -> Result<(), Fault> {
    if target.len() > limits.target_bytes_max {
        return Err(TARGET_TOO_LONG);
    }
    let absolute = ["http://", "https://"].iter().any(|scheme| starts_with_ignoring_case(target, scheme));
    let known = target.starts_with('/') || absolute || (target == "*" && method == "OPTIONS");
    if !known || target.contains('#') {
        return Err(Fault::bad_request("the request target is malformed"));
    }
    Ok(())
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What the framing headers say, one by one.
#[derive(Debug, Default)]
struct Fields {
    http_11: bool,
    length: Option<u64>,
    chunked: bool,
    host: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn take(&mut self, header: &httparse::Header<'_>) -> Result<(), Fault> {
        if header.name.len() > HEADER_NAME_BYTES_MAX {
            return Err(HEAD_TOO_LARGE);
        }
        if !header.name.bytes().all(is_token) {
            return Err(Fault::bad_request("a header name is malformed"));
        }
        let value = header.value.trim_ascii();
        match () {
            () if header.name.eq_ignore_ascii_case("content-length") => self.take_length(value),
            () if header.name.eq_ignore_ascii_case("transfer-encoding") => self.take_coding(value),
            () if header.name.eq_ignore_ascii_case("host") => self.take_host(value),
            () if header.name.eq_ignore_ascii_case("expect") => self.take_expectation(value),
            () if header.name.eq_ignore_ascii_case("connection") => {
                self.take_connection(value);
                Ok(())
            }
            () => Ok(()),
        }
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !digits {
            return Err(Fault::bad_request("content-length must be there once, as a decimal number"));
        }
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        // Digits that overflow are a number too: one that is above any limit.
        self.length = Some(number.unwrap_or(u64::MAX));
        Ok(())
    }

    fn take_coding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(UNKNOWN_CODING);
        }
        if self.chunked || !self.http_11 {
            return Err(Fault::bad_request("transfer-encoding must be there once, and with HTTP/1.1"));
        }
        self.chunked = true;
        Ok(())
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), Fault> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte);
        if self.host || !value.iter().all(allowed) {
            return Err(Fault::bad_request("host must be there once, as a name or address with an optional port"));
        }
        self.host = true;
        Ok(())
    }

    fn take_expectation(&mut self, value: &[u8]) -> Result<(), Fault> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(UNKNOWN_EXPECTATION);
        }
        // RFC 9110 §10.1.1: from HTTP/1.0 it is ignored.
        self.expects_continue = self.http_11;
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn verdict(self, limits: &HttpLimits) -> Result<Verdict, Fault> {
        if self.chunked && self.length.is_some() {
            return Err(Fault::bad_request("a body has either content-length or transfer-encoding"));
        }
        if self.http_11 && !self.host {
            return Err(Fault::bad_request("HTTP/1.1 needs a host header"));
        }
        let framing = match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, None | Some(0)) => Framing::Empty,
            (false, Some(length)) => Framing::Length(body_length(length, limits)?),
        };
        Ok(Verdict {
            framing,
            keep_alive: !self.close && (self.http_11 || self.keep_alive),
            expects_continue: self.expects_continue && framing != Framing::Empty,
            http_11: self.http_11,
        })
    }
}

fn body_length(length: u64, limits: &HttpLimits) -> Result<usize, Fault> {
    let length = usize::try_from(length).map_err(|_| BODY_TOO_LARGE)?;
    if length > limits.body_bytes_max { Err(BODY_TOO_LARGE) } else { Ok(length) }
}

/// RFC 9110 §5.6.2 `tchar`; the same set that the decoder's header names take.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &str) -> Result<Verdict, u16> {
        let head = format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        examine(head.as_bytes(), &HttpLimits::default()).map_err(|fault| fault.status.as_u16())
    }

    #[test]
    fn a_body_has_exactly_one_framing() {
        let framing = |lines| judge(lines).map(|verdict| verdict.framing);
        assert_eq!(framing(""), Ok(Framing::Empty));
        assert_eq!(framing("Content-Length: 005\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
        for (lines, status) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length : 5\r\n", 400),
            ("Content-Length: 99999999999\r\n", 413),
            ("Content-Length: 99999999999999999999999999\r\n", 413),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: xchunked\r\n", 501),
            ("Transfer-Encoding: chunked\x0b\r\n", 400),
            ("Expect: 200-ok\r\n", 417),
            ("Host: b\r\n", 400),
            ("X: a\r\n b\r\n", 400),
            ("X: a\0b\r\n", 400),
            ("X: a\rb\r\n", 400),
            ("X y: a\r\n", 400),
        ] {
            assert_eq!(framing(lines), Err(status), "{lines:?}");
        }
    }

    #[test]
    fn the_request_line_is_judged() {
        for (line, status) in [
            ("GET / HTTP/2.0", 505),
            ("GET  / HTTP/1.1", 400),
            ("G@T / HTTP/1.1", 400),
            ("GET /a#b HTTP/1.1", 400),
            ("GET a HTTP/1.1", 400),
            ("GET * HTTP/1.1", 400),
            ("CONNECT a:1 HTTP/1.1", 400),
            ("\r\nGET / HTTP/1.1", 400),
        ] {
            let head = format!("{line}\r\nHost: a\r\n\r\n");
            let fault = examine(head.as_bytes(), &HttpLimits::default()).expect_err(line);
            assert_eq!(fault.status.as_u16(), status, "{line}");
        }
        assert!(examine(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &HttpLimits::default()).is_ok());
        assert!(examine(b"GET HTTP://a/b HTTP/1.1\r\nHost: a\r\n\r\n", &HttpLimits::default()).is_ok());
    }

    #[test]
    fn keeping_alive_follows_version_and_options() {
        let keeps = |head: &str| examine(head.as_bytes(), &HttpLimits::default()).map(|verdict| verdict.keep_alive);
        assert_eq!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(true));
        assert_eq!(keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , Close\r\n\r\n"), Ok(false));
        assert_eq!(keeps("GET / HTTP/1.0\r\n\r\n"), Ok(false));
        assert_eq!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), Ok(true));
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        let limits = HttpLimits::default();
        let mut scan = Scan::default();
        let ends: Vec<_> = (0..=head.len()).map(|n| (n, scan.advance(&head[..n], &limits))).collect();
        let first = ends.iter().find(|(_, end)| *end != Ok(None)).expect("an end");
        assert_eq!(*first, (head.len() - 3, Ok(Some(head.len() - 3))));
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_the_bound() {
        let limits = HttpLimits::default();
        let status = |bytes: &[u8]| Scan::default().advance(bytes, &limits).map_err(|fault| fault.status.as_u16());
        assert_eq!(status(&b"x".repeat(limits.head_bytes_max)), Err(414));
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.extend(b"x".repeat(limits.head_bytes_max));
        assert_eq!(status(&head), Err(431));
        assert_eq!(status(b"GET / HTTP/1.1\nHost"), Err(400));
        assert_eq!(status(b"\n"), Err(400));
    }
}
