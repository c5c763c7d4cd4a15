//! A user's socket: readiness from monoio, bytes by plain non-blocking calls.
//!
//! Why: waiting for readiness and then receiving into one buffer per core costs an idle connection 458 B, a posted read
//! with a buffer of its own 4.6 KB; and a fan-out that sends by plain calls needs no buffer to outlive it.
//! Invariant: the descriptor is closed by the last owner of the [`Socket`] and by nobody else; others `shut` it.
#![expect(unsafe_code, reason = "monoio's stream lends its descriptor only as a raw number")]

use std::{
    cell::Cell,
    io::{self, IoSlice, Read},
    net::{IpAddr, Shutdown},
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use monoio::net::TcpStream;
use rustix::{
    io::retry_on_intr,
    net::{SendAncillaryBuffer, SendFlags, send, sendmsg},
};
use socket2::{SockRef, TcpKeepalive};

use crate::limits::WritingLimits;

/// Keep-alive probes begin after this silence, and follow each other at [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// One connection's socket. Shared by its reader, the fan-out and the task that drains it when it is slow.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    address: IpAddr,
    /// A drain task waits for room in the kernel: nobody else writes.
    blocked: Cell<bool>,
    /// See [`Socket::set_patient`].
    user_timeout: Duration,
    write_ended: Cell<bool>,
}

impl Socket {
    /// Takes over an accepted stream and sets its options.
    pub fn new(stream: TcpStream, address: IpAddr, writing: &WritingLimits) -> io::Result<Self> {
        // The kernel must not be quicker than the node's own timeout.
        let user_timeout = writing.unacknowledged_timeout.max(2 * writing.write_timeout);
        let (blocked, write_ended) = (Cell::new(false), Cell::new(false));
        let socket = Self { stream, address, blocked, user_timeout, write_ended };
        let descriptor = socket.descriptor();
        let options = SockRef::from(&descriptor);
        options.set_nonblocking(true)?;
        options.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
        options.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
        options.set_tcp_user_timeout(Some(user_timeout))?;
        if writing.send_buffer_bytes > 0 {
            options.set_send_buffer_size(writing.send_buffer_bytes)?;
        }
        if let Ok(lowat @ 1..) = u32::try_from(writing.notsent_lowat_bytes) {
            options.set_tcp_notsent_lowat(lowat)?;
        }
        Ok(socket)
    }

    /// The peer's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Waits until a read would give something: bytes, the end, or an error.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    /// Waits until a write would take something.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    /// Receives what is there; `Ok(0)` is the end.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.descriptor();
        let socket = SockRef::from(&descriptor);
        retry_interrupted(|| (&*socket).read(buffer))
    }

    /// Sends what the kernel takes of `slices`; how many bytes that was.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (descriptor, flags) = (self.descriptor(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        let sent = retry_on_intr(|| match slices {
            // The shorter way through the kernel.
            [single] => send(descriptor, single, flags),
            _ => sendmsg(descriptor, slices, &mut SendAncillaryBuffer::default(), flags),
        });
        Ok(sent?)
    }

    /// Ends the connection in both directions: the reader wakes up and finds the end.
    pub fn shut(&self) {
        // It fails only if the peer was faster.
        let _ = SockRef::from(&self.descriptor()).shutdown(Shutdown::Both);
    }

    /// Sends FIN behind what was written.
    pub fn end_write(&self) {
        if !self.write_ended.replace(true) {
            let _ = SockRef::from(&self.descriptor()).shutdown(Shutdown::Write);
        }
    }

    /// Whether a drain task owns the writing.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Gives the writing to a drain task, or takes it back.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.set(blocked);
    }

    /// Lets the kernel wait longer than usual for a peer that lives and takes nothing, or not any more.
    pub fn set_patient(&self, patient: bool) {
        let user_timeout = if patient { Duration::ZERO } else { self.user_timeout };
        // If it fails the kernel ends the connection earlier: no more.
        let _ = SockRef::from(&self.descriptor()).set_tcp_user_timeout(Some(user_timeout));
    }

    /// The stream itself, for another server of the same listener.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is `self.stream`'s, which is open and owned by `self` for as long as the borrow lives.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
