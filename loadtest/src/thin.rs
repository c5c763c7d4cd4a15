//! A thin WebSocket client that knows where in the stream of bytes every frame stands: for thousands of readers in one
//! thread, and for saying what was in the buffers when. Written from RFC 6455, independent of the server's code.
//!
//! An idle reader holds no buffer: bytes come into one [`Scratch`] that all share, and only an incomplete frame is kept.
//! Leaves out: TLS, extensions, fragmented messages (a node sends whole frames; anything else is a finding).

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

pub use crate::wire::Ending;
use crate::{
    client::Frame,
    wire::{Header, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, closed, encode},
};

/// Longest wait for a step of opening.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest head of the answer to an upgrade.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes received at a time.
const SCRATCH_BYTES: usize = 64 << 10;

/// What all readers of a thread receive into, one at a time.
pub struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_BYTES].into()))
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Thin {
    stream: TcpStream,
    /// The beginning of a frame that has not come whole.
    rest: Vec<u8>,
    /// Bytes of the stream that came behind the handshake.
    received: u64,
    /// The next mask; a peer that could guess it is not our concern.
    mask: Cell<u32>,
}

/// A text that came.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Where its frame begins, in bytes behind the handshake.
    pub at: u64,
    /// Its bytes; not yet known to be UTF-8.
    pub bytes: &'a [u8],
}

impl Text<'_> {
    /// The text's fields.
    pub fn frame(&self) -> Result<Frame<'_>> {
        Frame::parse(std::str::from_utf8(self.bytes).context("a text that is no UTF-8")?)
    }
}

impl Thin {
    /// Opens `ws://authority` with `target` (path and query) and waits for the greeting. `receive_buffer_bytes` is
    /// `SO_RCVBUF` (the kernel doubles it); 0 leaves it to the kernel.
    pub async fn open(authority: &str, target: &str, receive_buffer_bytes: u32) -> Result<Self> {
        timeout(STEP_TIMEOUT, Self::opened(authority, target, receive_buffer_bytes))
            .await
            .context("no greeting in time")?
    }

    async fn opened(authority: &str, target: &str, receive_buffer_bytes: u32) -> Result<Self> {
        let mut stream =
            connect(authority, receive_buffer_bytes).await.with_context(|| format!("connecting to {authority}"))?;
        let key = generate_key();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.context("sending the upgrade")?;
        let (status, rest) = read_answer(&stream, &derive_accept_key(key.as_bytes())).await?;
        ensure!(status == 101, "the upgrade was answered with {status}");
        let received = rest.len() as u64;
        let mut thin = Self { stream, rest, received, mask: Cell::new(0x9E37_79B9) };
        let greeting = thin.next_text(&Scratch::default()).await?;
        let frame = Frame::parse(&greeting)?;
        ensure!(frame.kind == "connect" && frame.code == Some(1), "the first frame is no greeting: {greeting}");
        Ok(thin)
    }

    /// The port of this end: what the kernel's tables know the connection by.
    pub fn local_port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Bytes that were received so far, behind the handshake.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Waits for bytes and hands each whole text to `take`; pings are answered. May be dropped while it waits without
    /// losing anything.
    pub async fn receive(&mut self, scratch: &Scratch, mut take: impl FnMut(Text<'_>)) -> Result<(), Ending> {
        if !self.rest.is_empty() {
            // What came behind a text of `next_text`.
            let mut any = false;
            self.cut(&[], &mut |text| {
                any = true;
                take(text);
            })?;
            if any {
                return Ok(());
            }
        }
        loop {
            self.stream.readable().await.map_err(|problem| Ending::Reset(problem.kind()))?;
            let mut buffer = scratch.0.borrow_mut();
            let got = match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(Ending::Ended),
                Ok(got) => got,
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => continue,
                Err(problem) => return Err(Ending::Reset(problem.kind())),
            };
            self.received += got as u64;
            return self.cut(&buffer[..got], &mut take);
        }
    }

    /// The next text, one at a time; texts behind it in the same read stay.
    pub async fn next_text(&mut self, scratch: &Scratch) -> Result<String> {
        loop {
            if let Some(text) = self.take_first()? {
                return Ok(text);
            }
            self.stream.readable().await?;
            let mut buffer = scratch.0.borrow_mut();
            match self.stream.try_read(&mut buffer) {
                Ok(0) => bail!(Ending::Ended),
                Ok(got) => {
                    self.received += got as u64;
                    self.rest.extend_from_slice(&buffer[..got]);
                }
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {}
                Err(problem) => bail!(Ending::Reset(problem.kind())),
            }
        }
    }

    /// Sends texts in one write.
    pub async fn send_texts(&mut self, texts: &[String]) -> Result<()> {
        let mut out = Vec::with_capacity(texts.iter().map(|text| text.len() + 14).sum());
        for text in texts {
            encode(&mut out, OPCODE_TEXT, text.as_bytes(), self.next_mask());
        }
        self.stream.write_all(&out).await.context("sending")
    }

    /// Sends a pong that nobody asked for: a sign of life that is not answered (RFC 6455, 5.5.3). A reader that does
    /// not read cannot see a ping.
    pub fn sign_of_life(&self) {
        self.answer(OPCODE_PONG, b"");
    }

    /// Takes whole frames out of what was kept and `fresh`.
    fn cut(&mut self, fresh: &[u8], take: &mut impl FnMut(Text<'_>)) -> Result<(), Ending> {
        if self.rest.is_empty() {
            let used = self.cut_all(fresh, self.received - fresh.len() as u64, take)?;
            self.rest.extend_from_slice(&fresh[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(fresh);
        let used = self.cut_all(&all, self.received - all.len() as u64, take)?;
        all.drain(..used);
        self.rest = all;
        Ok(())
    }

    fn cut_all(&self, bytes: &[u8], begins_at: u64, take: &mut impl FnMut(Text<'_>)) -> Result<usize, Ending> {
        let mut used = 0;
        while let Some((header, total)) = Header::parse(&bytes[used..])? {
            let payload = &bytes[used + header.bytes..used + total];
            match header.opcode {
                OPCODE_TEXT => take(Text { at: begins_at + used as u64, bytes: payload }),
                OPCODE_CLOSE => return Err(closed(payload)),
                OPCODE_PING => self.answer(OPCODE_PONG, payload),
                OPCODE_PONG => {}
                _ => return Err(Ending::Broken("an unexpected opcode")),
            }
            used += total;
        }
        Ok(used)
    }

    fn take_first(&mut self) -> Result<Option<String>> {
        while let Some((header, total)) = Header::parse(&self.rest)? {
            let frame: Vec<u8> = self.rest.drain(..total).skip(header.bytes).collect();
            match header.opcode {
                OPCODE_TEXT => return Ok(Some(String::from_utf8(frame)?)),
                OPCODE_CLOSE => bail!(closed(&frame)),
                OPCODE_PING => self.answer(OPCODE_PONG, &frame),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A control frame on the side. A socket that takes no 20 bytes now gets them another time.
    fn answer(&self, opcode: u8, payload: &[u8]) {
        let mut out = Vec::with_capacity(payload.len() + 14);
        encode(&mut out, opcode, payload, self.next_mask());
        let _ = self.stream.try_write(&out);
    }

    fn next_mask(&self) -> [u8; 4] {
        let next = self.mask.get().wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        self.mask.set(next);
        next.to_be_bytes()
    }
}

async fn connect(authority: &str, receive_buffer_bytes: u32) -> Result<TcpStream> {
    let address: SocketAddr = lookup_host(authority).await?.next().context("no address")?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if receive_buffer_bytes > 0 {
        // Before connecting: the window that is offered depends on it.
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The status of the answer to an upgrade, and what came behind its head.
async fn read_answer(stream: &TcpStream, accept: &str) -> Result<(u16, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut received) {
            Ok(0) => bail!("the connection ended within the answer to the upgrade"),
            Ok(_) => {}
            Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => continue,
            Err(problem) => return Err(problem).context("receiving the answer to the upgrade"),
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(bytes) = response.parse(&received).context("the answer to the upgrade")? {
            let status = response.code.unwrap_or_default();
            let is_accept = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("sec-websocket-accept");
            let given = response.headers.iter().find(is_accept).map(|header| header.value);
            ensure!(status != 101 || given == Some(accept.as_bytes()), "the upgrade was accepted for another key");
            return Ok((status, received.split_off(bytes)));
        }
        ensure!(received.len() <= HEAD_BYTES_MAX, "the head of the answer is too large");
    }
}

#[cfg(test)]
#[path = "thin_tests.rs"]
mod tests;
