//! One connection of a crowd: opened without waiting, upgraded, and read frame by frame out of a buffer that all share.
//!
//! Invariant: an idle connection holds no buffer; only an incomplete frame, or bytes that the socket did not take, are kept.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with, sockopt,
    },
};

use crate::{
    crowd::poller::Poller,
    wire::{Ending, Header, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, closed, encode},
};

/// The key of every upgrade, and what a server must make of it. That it is always the same takes nothing from the check: the
/// peer is a server that we chose, and must know the rule.
pub const KEY: &str = "bG9hZHRlc3QgbG9hZHRlcw==";
/// Largest head of the answer to an upgrade.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Most bytes that wait for a socket: a peer that takes no more has failed.
const OUT_BYTES_MAX: usize = 64 << 20;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The upgrade is not answered.
    Upgrading,
    /// So many steps of the dialect's opening are done.
    Opening(u8),
    /// What comes is what is measured.
    Live,
}

/// See the module.
#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
    /// How far it is.
    pub stage: Stage,
    /// The beginning of a frame or head that has not come whole.
    rest: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    is_writable_awaited: bool,
    mask: u32,
}

impl Conn {
    /// Begins to connect to `server` from `source` (any, if unspecified) and to ask for `target`.
    pub fn open(poller: &Poller, name: u64, server: SocketAddr, source: Ipv4Addr, target: &str) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        if !source.is_unspecified() {
            bind(&fd, &SocketAddr::new(IpAddr::V4(source), 0))?;
        }
        sockopt::set_tcp_nodelay(&fd, true)?;
        match connect(&fd, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(problem) => return Err(problem.into()),
        }
        poller.add(&fd, name, true)?;
        let out = format!(
            "GET {target} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        let mask = 0x9E37_79B9 ^ name as u32;
        Ok(Self {
            fd,
            stage: Stage::Upgrading,
            rest: Vec::new(),
            out: out.into_bytes(),
            is_writable_awaited: true,
            mask,
        })
    }

    /// It is read before the others from now on.
    pub fn put_ahead(&self, poller: &Poller, name: u64) -> io::Result<()> {
        poller.put_ahead(&self.fd, name, self.is_writable_awaited)
    }

    /// Writes what waits.
    pub fn flush(&mut self, poller: &Poller, name: u64) -> Result<(), Ending> {
        while !self.out.is_empty() {
            match send(&self.fd, &self.out, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(problem) => return Err(reset(problem)),
            }
        }
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        if self.is_writable_awaited == self.out.is_empty() {
            self.is_writable_awaited = !self.out.is_empty();
            poller.change(&self.fd, name, self.is_writable_awaited).map_err(|problem| Ending::Reset(problem.kind()))?;
        }
        Ok(())
    }

    /// Sends texts in one write, what does not fit later.
    pub fn send_texts<'a>(
        &mut self,
        poller: &Poller,
        name: u64,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Ending> {
        for text in texts {
            let mask = self.next_mask();
            encode(&mut self.out, OPCODE_TEXT, text.as_bytes(), mask);
        }
        if self.out.len() > OUT_BYTES_MAX {
            return Err(Ending::Broken("the peer takes nothing"));
        }
        self.flush(poller, name)
    }

    /// Bytes that wait for the socket.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Reads once and hands each whole text to `take`; pings are answered. While it is [`Stage::Upgrading`] the answer is
    /// read, checked against `accept`, and the stage becomes `first`.
    pub fn read(
        &mut self,
        poller: &Poller,
        name: u64,
        buffer: &mut [u8],
        (accept, first): (&str, Stage),
        mut take: impl FnMut(&mut Self, &[u8]) -> Result<(), Ending>,
    ) -> Result<(), Ending> {
        let got = match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(Ending::Ended),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(problem) => return Err(reset(problem)),
        };
        if self.rest.is_empty() && self.stage != Stage::Upgrading {
            let used = self.cut(poller, name, &buffer[..got], &mut take)?;
            self.rest.extend_from_slice(&buffer[used..got]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(&buffer[..got]);
        if self.stage == Stage::Upgrading {
            let Some(head) = head(&all, accept)? else {
                self.rest = all;
                return Ok(());
            };
            all.drain(..head);
            self.stage = first;
        }
        let used = self.cut(poller, name, &all, &mut take)?;
        if used < all.len() {
            all.drain(..used);
            self.rest = all;
        }
        Ok(())
    }

    fn cut(
        &mut self,
        poller: &Poller,
        name: u64,
        bytes: &[u8],
        take: &mut impl FnMut(&mut Self, &[u8]) -> Result<(), Ending>,
    ) -> Result<usize, Ending> {
        let mut used = 0;
        while let Some((header, total)) = Header::parse(&bytes[used..])? {
            let payload = &bytes[used + header.bytes..used + total];
            match header.opcode {
                OPCODE_TEXT => take(self, payload)?,
                OPCODE_CLOSE => return Err(closed(payload)),
                OPCODE_PING => {
                    let mask = self.next_mask();
                    encode(&mut self.out, OPCODE_PONG, payload, mask);
                    self.flush(poller, name)?;
                }
                OPCODE_PONG => {}
                _ => return Err(Ending::Broken("an unexpected opcode")),
            }
            used += total;
        }
        Ok(used)
    }

    fn next_mask(&mut self) -> [u8; 4] {
        self.mask = self.mask.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        self.mask.to_be_bytes()
    }
}

fn reset(problem: Errno) -> Ending {
    Ending::Reset(io::Error::from(problem).kind())
}

/// The length of the head of an answer that accepts the upgrade, once it is whole.
fn head(bytes: &[u8], accept: &str) -> Result<Option<usize>, Ending> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let status = response.code.unwrap_or_default();
            if status != 101 {
                return Err(Ending::Refused(status));
            }
            let is_accept = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("sec-websocket-accept");
            let given = response.headers.iter().find(is_accept).map(|header| header.value);
            if given == Some(accept.as_bytes()) {
                Ok(Some(length))
            } else {
                Err(Ending::Broken("the upgrade was accepted for another key"))
            }
        }
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(Ending::Broken("the head of the answer is too large")),
        Err(_) => Err(Ending::Broken("an answer that is no HTTP")),
    }
}
