//! Takes a chunked body apart (RFC 9112 §7.1), byte for byte as it comes.
//!
//! Invariants: pure; holds only data that arrived; extensions and trailers are checked, bounded and dropped.

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;

use super::{
    head::{BODY_TOO_LARGE, is_token},
    message::Fault,
};
use crate::limits::CHUNK_EXTRAS_BYTES_MAX;

/// A chunk size has at most so many hexadecimal digits, leading zeros included.
const SIZE_DIGITS_MAX: usize = 8;
/// Longest line with a chunk's size or a trailer.
const LINE_BYTES_MAX: usize = 1024;

/// A body on its way in.
#[derive(Debug)]
pub struct Chunked {
    data: BytesMut,
    bytes_max: usize,
    extras: usize,
    expects: Expects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Size,
    Data(usize),
    DataEnd,
    Trailer,
    Nothing,
}

const EXTRAS_TOO_LARGE: Fault = Fault::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    "chunk extensions or trailers are too large",
);

impl Chunked {
    /// A body of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { data: BytesMut::new(), bytes_max, extras: 0, expects: Expects::Size }
    }

    /// Takes what it can from `input`; the body once it is whole. What follows the body stays in `input`.
    pub fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        loop {
            let enough = match self.expects {
                Expects::Size => self.take_size(input)?,
                Expects::Data(left) => self.take_data(input, left),
                Expects::DataEnd => self.take_data_end(input)?,
                Expects::Trailer => self.take_trailer(input)?,
                Expects::Nothing => return Ok(Some(std::mem::take(&mut self.data).freeze())),
            };
            if !enough {
                return Ok(None);
            }
        }
    }

    fn take_size(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let Some(line) = take_line(input)? else { return Ok(false) };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        self.check_extension(extension)?;
        let size = std::str::from_utf8(size).ok().filter(|text| text.len() <= SIZE_DIGITS_MAX);
        let Some(size) = size.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
            return Err(Fault::bad_request("a chunk's size is malformed"));
        };
        if size > self.bytes_max - self.data.len() {
            return Err(BODY_TOO_LARGE);
        }
        self.expects = if size == 0 { Expects::Trailer } else { Expects::Data(size) };
        Ok(true)
    }

    fn check_extension(&mut self, extension: &[u8]) -> Result<(), Fault> {
        let starts_well = extension.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
        let visible = extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if !starts_well || !visible {
            return Err(Fault::bad_request("a chunk's extension is malformed"));
        }
        self.count_extras(extension.len())
    }

    fn take_data(&mut self, input: &mut BytesMut, left: usize) -> bool {
        let taken = left.min(input.len());
        self.data.extend_from_slice(&input[..taken]);
        input.advance(taken);
        self.expects = if taken == left { Expects::DataEnd } else { Expects::Data(left - taken) };
        taken == left
    }

    fn take_data_end(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        if !b"\r\n".starts_with(&input[..input.len().min(2)]) {
            return Err(Fault::bad_request("a chunk is longer than its size"));
        }
        if input.len() < 2 {
            return Ok(false);
        }
        input.advance(2);
        self.expects = Expects::Size;
        Ok(true)
    }

    fn take_trailer(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let Some(line) = take_line(input)? else { return Ok(false) };
        if line.is_empty() {
            self.expects = Expects::Nothing;
            return Ok(true);
        }
        let name = line.iter().take_while(|byte| is_token(**byte)).count();
        let visible = line.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if name == 0 || line.get(name) != Some(&b':') || !visible {
            return Err(Fault::bad_request("a trailer is malformed"));
        }
        self.count_extras(line.len()).map(|()| true)
    }

    fn count_extras(&mut self, bytes: usize) -> Result<(), Fault> {
        self.extras += bytes;
        if self.extras > CHUNK_EXTRAS_BYTES_MAX { Err(EXTRAS_TOO_LARGE) } else { Ok(()) }
    }
}

/// A line without its CR LF, once it is there.
fn take_line(input: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(line_feed) if line_feed > 0 && input[line_feed - 1] == b'\r' => {
            let line = input.split_to(line_feed + 1).freeze();
            Ok(Some(line.slice(..line_feed - 1)))
        }
        Some(_) => Err(Fault::bad_request("a line of a chunked body ends without CR LF")),
        None if window.len() == LINE_BYTES_MAX => Err(EXTRAS_TOO_LARGE),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &[u8]) -> Result<(Option<Bytes>, BytesMut), u16> {
        let mut input = BytesMut::from(input);
        let body = Chunked::new(1 << 20).advance(&mut input).map_err(|fault| fault.status.as_u16())?;
        Ok((body, input))
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_come() {
        let wire = b"5;a=\"b\" ;c\r\nhello\r\n006\r\n world\r\n0\r\nX: y\r\n\r\nGET";
        let (body, rest) = whole(wire).expect("a good body");
        assert_eq!((body.as_deref(), &rest[..]), (Some(&b"hello world"[..]), &b"GET"[..]));
        let (mut chunked, mut input) = (Chunked::new(1 << 20), BytesMut::new());
        let mut bytes = wire.iter();
        let body = loop {
            input.extend_from_slice(&[*bytes.next().expect("the body ends before the wire")]);
            if let Some(body) = chunked.advance(&mut input).expect("a good body") {
                break body;
            }
        };
        assert_eq!(&body[..], b"hello world");
        assert_eq!(bytes.as_slice(), b"GET");
    }

    #[test]
    fn what_two_ends_could_read_differently_is_refused() {
        for wire in [
            &b"\r\n\r\n"[..],
            b"5\nhello\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n0\r\n\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5 hello\r\n",
            b"-1\r\n",
            b"000000005\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b";a\r\n",
            b"0\r\nno trailer\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\r\nX: y\r\n folded\r\n\r\n",
        ] {
            assert_eq!(whole(wire), Err(400), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn sizes_extensions_and_trailers_are_bounded() {
        assert_eq!(whole(b"100001\r\n"), Err(413));
        assert_eq!(whole(b"ffffffff\r\n"), Err(413));
        let mut many = Vec::new();
        for _ in 0..1000 {
            many.extend_from_slice(b"1;abcdefgh\r\nx\r\n");
        }
        assert_eq!(whole(&many), Err(431));
        assert_eq!(whole(&b"x".repeat(2000)), Err(431));
        let mut trailers = b"0\r\n".to_vec();
        for _ in 0..1000 {
            trailers.extend_from_slice(b"X: yyyyyyyy\r\n");
        }
        assert_eq!(whole(&trailers), Err(431));
    }
}
