//! Writes answers as bytes: `monoio-http`'s response encoder over memory, so that one answer is one write.
//!
//! Invariants: no socket here, so nothing waits; an answer to HEAD is the whole answer cut behind its head, with
//! the length that GET would have.

use std::{
    any::Any,
    cell::RefCell,
    future::{Future, ready},
    io,
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{
    HeaderValue, StatusCode, Version,
    header::{CONNECTION, DATE},
};
use monoio::{
    BufResult,
    buf::{IoBuf, IoVecBuf, Slice},
    io::{AsyncWriteRent, sink::SinkExt},
};
use monoio_http::{
    common::error::HttpError,
    h1::{
        codec::encoder::GenericEncoder,
        payload::{FixedPayload, Payload},
    },
};

use super::message::Response;
use crate::clock;

/// How an answer goes out, apart from what it says.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// The request was HEAD.
    pub head_only: bool,
    /// The connection stays.
    pub keep_alive: bool,
    /// The peer speaks HTTP/1.1.
    pub http_11: bool,
}

/// One core's encoder.
pub struct Encoder {
    encoder: RefCell<GenericEncoder<Memory>>,
    memory: Memory,
    /// The date header and the second it is for.
    date: RefCell<(u64, HeaderValue)>,
}

impl Default for Encoder {
    fn default() -> Self {
        let memory = Memory::default();
        Self {
            encoder: RefCell::new(GenericEncoder::new(memory.clone())),
            memory,
            date: RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))),
        }
    }
}

impl Encoder {
    /// The answer's bytes. An answer that cannot be encoded (there is none) is no bytes.
    pub fn encode(&self, response: Response, envelope: Envelope) -> Vec<u8> {
        let response = self.dress(response, envelope);
        let sent = self.encoder.borrow_mut().send_and_flush(response).now_or_never();
        let mut bytes = self.memory.take();
        if !matches!(sent, Some(Ok(()))) {
            return Vec::new();
        }
        if envelope.head_only
            && let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n")
        {
            bytes.truncate(end + 4);
        }
        bytes
    }

    fn dress(&self, response: Response, envelope: Envelope) -> http::Response<Payload<Bytes, HttpError>> {
        let mut dressed = http::Response::new(Payload::Fixed(FixedPayload::new(response.body)));
        *dressed.status_mut() = response.status;
        *dressed.version_mut() = if envelope.http_11 { Version::HTTP_11 } else { Version::HTTP_10 };
        let headers = dressed.headers_mut();
        headers.extend(response.headers.into_iter().map(|(name, value)| (Some(name), value)));
        headers.insert(DATE, self.date());
        match (envelope.keep_alive, envelope.http_11) {
            (false, _) => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
            (true, false) => drop(headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"))),
            (true, true) => {}
        }
        debug_assert!(response.status >= StatusCode::OK, "interim answers have no length");
        dressed
    }

    fn date(&self) -> HeaderValue {
        let now = clock::unix_now();
        let mut date = self.date.borrow_mut();
        if date.0 != now.as_secs()
            && let Ok(text) = HeaderValue::try_from(clock::http_date(now))
        {
            *date = (now.as_secs(), text);
        }
        date.1.clone()
    }
}

/// Where the encoder writes to.
#[derive(Clone, Debug, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.borrow_mut())
    }

    /// The encoder writes parts of two kinds of buffer only, and these can be read without unsafe code.
    fn append(&self, buffer: &dyn Any) -> io::Result<usize> {
        fn part<T: IoBuf + AsRef<[u8]>>(buffer: &dyn Any) -> Option<&[u8]> {
            let slice = buffer.downcast_ref::<Slice<T>>()?;
            slice.get_ref().as_ref().get(slice.begin()..slice.end())
        }
        let bytes = part::<BytesMut>(buffer).or_else(|| part::<Bytes>(buffer));
        let bytes = bytes.ok_or_else(|| io::Error::other("the encoder writes an unknown kind of buffer"))?;
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl AsyncWriteRent for Memory {
    fn write<T: IoBuf>(&mut self, buf: T) -> impl Future<Output = BufResult<usize, T>> {
        let written = self.append(&buf);
        ready((written, buf))
    }

    fn writev<T: IoVecBuf>(&mut self, buf_vec: T) -> impl Future<Output = BufResult<usize, T>> {
        ready((Err(io::ErrorKind::Unsupported.into()), buf_vec))
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }

    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> {
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Envelope = Envelope { head_only: false, keep_alive: true, http_11: true };

    fn text(response: Response, envelope: Envelope) -> String {
        String::from_utf8(Encoder::default().encode(response, envelope)).expect("text")
    }

    #[test]
    fn answers_small_and_large_come_out_whole() {
        for length in [0, 1, 8000, 9000, 300_000] {
            let body = "x".repeat(length);
            let answer = text(Response::json(StatusCode::OK, body.clone()), PLAIN);
            let (head, rest) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains(&format!("content-length: {length}")), "{head}");
            assert!(head.contains("date: ") && head.contains("content-type: application/json"), "{head}");
            assert!(rest == body, "{} of {length}", rest.len());
        }
    }

    #[test]
    fn an_answer_to_head_keeps_the_length_and_drops_the_body() {
        let answer = text(Response::success("7"), Envelope { head_only: true, ..PLAIN });
        assert!(answer.contains("content-length: 38\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn the_connection_header_follows_version_and_fate() {
        let answer =
            |keep_alive, http_11| text(Response::success("7"), Envelope { head_only: false, keep_alive, http_11 });
        assert!(!answer(true, true).contains("connection:"));
        assert!(answer(false, true).contains("connection: close\r\n"));
        assert!(answer(true, false).contains("connection: keep-alive\r\n"));
        assert!(answer(false, false).starts_with("HTTP/1.0 200 OK\r\n"));
    }

    #[test]
    fn one_encoder_writes_one_answer_after_another() {
        let encoder = Encoder::default();
        for length in [300_000, 10, 0, 8192] {
            let bytes = encoder.encode(Response::json(StatusCode::OK, "y".repeat(length)), PLAIN);
            assert!(bytes.starts_with(b"HTTP/1.1 200 OK") && bytes.len() > length);
        }
    }
}
