//! `loadtest ideal`: the least that a server could do, as a measure for those that do more.
//!
//! One thread, one epoll instance, a list of sockets a tag. A publication becomes one prepared frame, and one `send(2)` for
//! every subscriber in a bare loop; what came together leaves in one `writev(2)`. No rights, no history, no limits, no second
//! thread: what it costs is what the kernel takes on this machine.

use std::{
    collections::HashMap,
    io::{self, IoSlice, Write},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::{
    io::{Errno, writev},
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    clock::monotonic_us,
    crowd::poller::{NAME_MAX, Poller, Ready},
    machine, wire,
};

/// Bytes received at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Largest head of an upgrade.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Most frames of one write; the kernel takes 1,024 pieces.
const TOGETHER_MAX: usize = 256;
/// Most bytes that wait for a subscriber: one who is further behind is cut.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Most connections that are accepted in one turn.
const ACCEPTED_A_TURN_MAX: usize = 64;
/// Beyond the numbers of all peers.
const LISTENER: u64 = NAME_MAX;

/// The ideal server.
#[derive(Args, Clone, Debug)]
pub struct IdealArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Files that may be open
    #[arg(long, default_value_t = 1024)]
    pub files: u64,
}

/// What publications become before they are sent; tests spoil them here.
pub type Change = Box<dyn FnMut(Vec<Vec<u8>>) -> Vec<Vec<u8>>>;

/// A running one.
pub struct Ideal {
    listener: OwnedFd,
    poller: Poller,
    buffer: Vec<u8>,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    topics: HashMap<Rc<str>, Vec<usize>>,
    change: Change,
}

struct Peer {
    fd: OwnedFd,
    role: Role,
    /// The beginning of what has not come whole.
    rest: Vec<u8>,
    /// What the socket did not take.
    waiting: Vec<u8>,
}

#[derive(Clone)]
enum Role {
    Upgrading,
    Subscriber(Rc<str>),
    Publisher(Rc<str>),
    Echo,
}

/// Serves until it is killed.
pub fn ideal(args: &IdealArgs) -> Result<()> {
    machine::allow_files(args.files)?;
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listening on {}", args.listen))?;
    writeln!(io::stdout(), "listening {}", listener.local_addr()?).context("telling the address")?;
    Ideal::new(listener, Box::new(|frames| frames))?.serve(&AtomicBool::new(false))
}

impl Ideal {
    /// One that listens there.
    pub fn new(listener: TcpListener, change: Change) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = OwnedFd::from(listener);
        rustix::net::listen(&listener, 4096).context("a longer backlog")?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER, false)?;
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Self { listener, poller, buffer, peers: Vec::new(), free: Vec::new(), topics: HashMap::new(), change })
    }

    /// Serves until `stopped`.
    pub fn serve(mut self, stopped: &AtomicBool) -> Result<()> {
        let mut ready = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            ready.clear();
            self.poller.wait(monotonic_us() + 100_000, &mut ready)?;
            for ready in &ready {
                if ready.name == LISTENER {
                    self.accept()?;
                } else {
                    self.serve_peer(*ready);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTED_A_TURN_MAX {
            let fd = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(problem) => return Err(problem).context("accepting"),
            };
            sockopt::set_tcp_nodelay(&fd, true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.poller.add(&fd, index as u64, false)?;
            self.peers[index] = Some(Peer { fd, role: Role::Upgrading, rest: Vec::new(), waiting: Vec::new() });
        }
        Ok(())
    }

    fn serve_peer(&mut self, ready: Ready) {
        let index = ready.name as usize;
        let served = self.try_serve(index, ready);
        if served.is_err() {
            self.drop_peer(index);
        }
    }

    fn try_serve(&mut self, index: usize, ready: Ready) -> Result<()> {
        let Some(peer) = self.peers[index].as_mut() else { return Ok(()) };
        if ready.writable {
            peer.flush(&self.poller, index)?;
        }
        if !ready.readable {
            return Ok(());
        }
        let got = match recv(&peer.fd, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(problem) => return Err(problem.into()),
        };
        ensure!(got > 0, "it left");
        peer.rest.extend_from_slice(&self.buffer[..got]);
        if matches!(peer.role, Role::Upgrading) && !self.upgrade(index)? {
            return Ok(());
        }
        self.take_texts(index)
    }

    /// Answers an upgrade; whether it was whole.
    fn upgrade(&mut self, index: usize) -> Result<bool> {
        let peer = self.peers[index].as_mut().context("a peer")?;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(&peer.rest)? else {
            ensure!(peer.rest.len() <= HEAD_BYTES_MAX, "a head that is too large");
            return Ok(false);
        };
        let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
        let accept = derive_accept_key(key.context("a key")?.value);
        let path = request.path.unwrap_or_default();
        let role = match path.trim_start_matches('/').split_once('/') {
            Some(("subscribe", tag)) => {
                Role::Subscriber(self.topics.get_key_value(tag).map_or_else(|| tag.into(), |(tag, _)| Rc::clone(tag)))
            }
            Some(("publish", tag)) => Role::Publisher(tag.into()),
            _ => Role::Echo,
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        peer.rest.drain(..length);
        if peer.rest.is_empty() {
            peer.rest = Vec::new();
        }
        if let Role::Subscriber(tag) = &role {
            self.topics.entry(Rc::clone(tag)).or_default().push(index);
        }
        peer.role = role;
        peer.write(&self.poller, index, &[IoSlice::new(answer.as_bytes())])?;
        Ok(true)
    }

    fn take_texts(&mut self, index: usize) -> Result<()> {
        let peer = self.peers[index].as_mut().context("a peer")?;
        let (mut texts, mut used) = (Vec::new(), 0);
        while let Some((opcode, text, total)) = client_frame(&peer.rest[used..])? {
            used += total;
            ensure!(opcode != wire::OPCODE_CLOSE, "it closes");
            if opcode == wire::OPCODE_TEXT {
                texts.push(server_frame(&text));
            }
        }
        peer.rest.drain(..used);
        if peer.rest.is_empty() {
            peer.rest = Vec::new();
        }
        match peer.role.clone() {
            Role::Publisher(tag) => {
                let frames = (self.change)(texts);
                for frames in frames.chunks(TOGETHER_MAX) {
                    self.publish(&tag, frames);
                }
            }
            Role::Echo => {
                for frame in &texts {
                    peer.write(&self.poller, index, &[IoSlice::new(frame)])?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The loop that is measured.
    fn publish(&mut self, tag: &str, frames: &[Vec<u8>]) {
        let Some(subscribers) = self.topics.get(tag) else { return };
        let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut failed = Vec::new();
        for index in subscribers {
            let Some(peer) = self.peers[*index].as_mut() else { continue };
            if peer.write(&self.poller, *index, &slices).is_err() {
                failed.push(*index);
            }
        }
        failed.into_iter().for_each(|index| self.drop_peer(index));
    }

    fn drop_peer(&mut self, index: usize) {
        let Some(peer) = self.peers[index].take() else { return };
        self.free.push(index);
        if let Role::Subscriber(tag) = &peer.role
            && let Some(subscribers) = self.topics.get_mut(tag)
            && let Some(at) = subscribers.iter().position(|subscriber| *subscriber == index)
        {
            subscribers.swap_remove(at);
        }
    }
}

impl Peer {
    /// Writes prepared frames; what the socket does not take waits.
    fn write(&mut self, poller: &Poller, index: usize, frames: &[IoSlice<'_>]) -> Result<()> {
        let mut sent = 0;
        if self.waiting.is_empty() {
            let result = match frames {
                [one] => send(&self.fd, one, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
                several => writev(&self.fd, several),
            };
            sent = match result {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(problem) => return Err(problem.into()),
            };
        }
        let all: usize = frames.iter().map(|frame| frame.len()).sum();
        if sent == all {
            return Ok(());
        }
        let was_empty = self.waiting.is_empty();
        for frame in frames {
            self.waiting.extend_from_slice(&frame[sent.min(frame.len())..]);
            sent = sent.saturating_sub(frame.len());
        }
        ensure!(self.waiting.len() <= WAITING_BYTES_MAX, "it is too far behind");
        if was_empty {
            poller.change(&self.fd, index as u64, true)?;
        }
        Ok(())
    }

    fn flush(&mut self, poller: &Poller, index: usize) -> Result<()> {
        while !self.waiting.is_empty() {
            match send(&self.fd, &self.waiting, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(problem) => return Err(problem.into()),
            }
        }
        self.waiting = Vec::new();
        Ok(poller.change(&self.fd, index as u64, false)?)
    }
}

/// Opcode, payload and whole length of the masked frame at the front, once it is whole.
fn client_frame(bytes: &[u8]) -> Result<Option<(u8, Vec<u8>, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0xF0 == 0x80 && second & 0x80 != 0, "a frame that no client of ours sends");
    let (header, length) = match (second & 0x7F, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [0, 0, 0, 0, a, b, c, d, ..]) => (10, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        (126 | 127, _) => return Ok(None),
        (small, _) => (2, usize::from(small)),
    };
    let total = header + 4 + length;
    if bytes.len() < total {
        return Ok(None);
    }
    let (mask, payload) = bytes[header..total].split_at(4);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some((first & 0x0F, payload, total)))
}

/// A whole text frame from a server.
fn server_frame(text: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(text.len() + 10);
    frame.push(0x80 | wire::OPCODE_TEXT);
    match u16::try_from(text.len()) {
        Ok(length @ 0..126) => frame.push(length as u8),
        Ok(length) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_client_come_back_as_frames_of_a_server() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let (mut masked, text) = (Vec::new(), vec![b'x'; length]);
            wire::encode(&mut masked, wire::OPCODE_TEXT, &text, [1, 2, 3, 4]);
            assert!(client_frame(&masked[..masked.len() - 1]).expect("a beginning").is_none());
            let (opcode, payload, total) = client_frame(&masked).expect("a frame").expect("a whole one");
            assert_eq!((opcode, payload.len(), total), (wire::OPCODE_TEXT, length, masked.len()));
            let frame = server_frame(&payload);
            let (header, total) = wire::Header::parse(&frame).expect("a frame").expect("a whole one");
            assert_eq!((total, &frame[header.bytes..]), (frame.len(), &text[..]));
        }
        assert!(client_frame(&[0x81, 0x01, 0x00]).is_err(), "no mask");
    }
}
