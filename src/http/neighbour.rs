//! A server on another thread that shares a listener with this one: it takes over connections that ask for what is its.
//!
//! A connection moves with what was read of it and is not handed back: the neighbour closes it after its answer, so that the
//! next request is looked at anew.
//!
//! Invariant: what waits for the neighbour is bounded; beyond it a connection is closed and counted.
#![expect(unsafe_code, reason = "monoio gives its descriptor away only as a raw number")]

use std::{
    fmt,
    net::IpAddr,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use bytes::BytesMut;
use monoio::net::TcpStream;

use crate::{
    inbox::Mailbox,
    metrics::{Count, Counters},
};

/// A connection on its way from one thread to another.
#[derive(Debug)]
pub struct Moved {
    /// Nonblocking, and registered nowhere.
    pub stream: std::net::TcpStream,
    /// The other end.
    pub peer: IpAddr,
    /// What was read of it.
    pub already_read: BytesMut,
}

/// The way to the neighbour, on one core.
#[derive(Clone)]
pub struct Neighbour {
    /// Whether a path is its.
    serves: Rc<dyn Fn(&str) -> bool>,
    mailbox: Arc<Mailbox<Moved>>,
    counters: Arc<Counters>,
}

impl Neighbour {
    /// The one behind `mailbox`, which answers for the paths that `serves` names.
    pub fn new(serves: impl Fn(&str) -> bool + 'static, mailbox: Arc<Mailbox<Moved>>, counters: Arc<Counters>) -> Self {
        Self { serves: Rc::new(serves), mailbox, counters }
    }

    /// Whether a request that begins so is its.
    pub(super) fn is_asked_by(&self, head: &[u8]) -> bool {
        path(head).is_some_and(|path| (self.serves)(path))
    }

    /// Gives it a connection of which `already_read` was read.
    pub fn take(&self, stream: TcpStream, peer: IpAddr, already_read: BytesMut) {
        // SAFETY: the number was given away by the stream just now, so nobody else owns or closes the descriptor.
        let descriptor = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
        let stream = std::net::TcpStream::from(descriptor);
        let is_ready = stream.set_nonblocking(true).is_ok();
        if !is_ready || self.mailbox.offer(Moved { stream, peer, already_read }).is_err() {
            self.counters.inc(Count::HttpRejected);
        }
    }
}

impl fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbour").finish_non_exhaustive()
    }
}

/// The path of a request whose line has come.
fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let target = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    target.split('?').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_what_stands_before_the_query() {
        for (head, expected) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"[..], Some("/metrics")),
            (b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\n\r\n", Some("/debug/pprof/profile")),
            (b"GET http://host/metrics HTTP/1.1\r\n\r\n", Some("http://host/metrics")),
            (b"GET\r\n\r\n", None),
            (b"GET /\xff HTTP/1.1\r\n\r\n", None),
            (b"", None),
        ] {
            assert_eq!(path(head), expected, "{}", String::from_utf8_lossy(head));
        }
    }
}
