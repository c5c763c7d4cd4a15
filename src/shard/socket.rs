//! A user's socket: readiness from its core (see [`readiness`](super::readiness)), bytes by plain calls that never wait.
//!
//! Why: waiting for readiness and then receiving into one buffer per core costs an idle connection next to nothing, a posted
//! read with a buffer of its own 4.6 KB; and a fan-out that sends by plain calls needs no buffer to outlive it.
//! Invariant: the descriptor is closed by the last owner of the [`Socket`] and by nobody else; others `shut` it.
#![expect(unsafe_code, reason = "monoio gives and lends its descriptors only as raw numbers")]

use std::{
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Shutdown},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    task::{Poll, Waker},
    time::Duration,
};

use monoio::net::{TcpListener, TcpStream};
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
pub struct Socket {
    descriptor: OwnedFd,
    /// A drain task waits for room in the kernel: nobody else writes.
    blocked: Cell<bool>,
    write_ended: Cell<bool>,
    /// The drain task, while it waits.
    drain: Cell<Option<Box<Waker>>>,
}

// An idle connection pays for this.
const _: () = assert!(size_of::<Socket>() <= 16);

impl Socket {
    /// Takes over an accepted connection, whose options are those of its listener (see [`set_options`]).
    pub fn new(descriptor: OwnedFd, writing: &WritingLimits) -> io::Result<Self> {
        // Not the listener's: once set there, "as the kernel tunes it" could not be had again.
        if writing.send_buffer_bytes > 0 {
            SockRef::from(&descriptor).set_send_buffer_size(writing.send_buffer_bytes)?;
        }
        Ok(Self { descriptor, blocked: Cell::default(), write_ended: Cell::default(), drain: Cell::default() })
    }

    /// The descriptor, for the one who watches it.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Waits until a write would take something, or the connection is over.
    pub async fn writable(&self) {
        let mut waited = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut waited, true) || self.has_room() {
                return Poll::Ready(());
            }
            self.drain.set(Some(Box::new(context.waker().clone())));
            Poll::Pending
        })
        .await;
    }

    /// There may be room again: wakes who waits for it.
    pub fn note_writable(&self) {
        if let Some(drain) = self.drain.take() {
            drain.wake();
        }
    }

    /// Asks the kernel, which then tells when there is room, if there is none.
    fn has_room(&self) -> bool {
        let mut asked = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: the kernel writes into that one structure during the call.
        unsafe { libc::poll(&raw mut asked, 1, 0) != 0 }
    }

    /// Receives what is there; `Ok(0)` is the end.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the call writes bytes that are initialized, so the buffer never holds others.
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        let socket = SockRef::from(&self.descriptor);
        retry_interrupted(|| socket.recv_with_flags(buffer, libc::MSG_DONTWAIT))
    }

    /// Sends what the kernel takes of `slices`; how many bytes that was.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (descriptor, flags) = (&self.descriptor, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
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
        let _ = SockRef::from(&self.descriptor).shutdown(Shutdown::Both);
        self.note_writable();
    }

    /// Sends FIN behind what was written.
    pub fn end_write(&self) {
        if !self.write_ended.replace(true) {
            let _ = SockRef::from(&self.descriptor).shutdown(Shutdown::Write);
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
    pub fn set_patient(&self, patient: bool, writing: &WritingLimits) {
        let user_timeout = if patient { Duration::ZERO } else { user_timeout(writing) };
        // If it fails the kernel ends the connection earlier: no more.
        let _ = SockRef::from(&self.descriptor).set_tcp_user_timeout(Some(user_timeout));
    }

    /// A stream of monoio's, for another server of the same listener.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        let stream = std::net::TcpStream::from(self.descriptor);
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// The kernel must not be quicker than the node's own timeout.
fn user_timeout(writing: &WritingLimits) -> Duration {
    writing.unacknowledged_timeout.max(2 * writing.write_timeout)
}

/// Sets on a listener what its connections inherit (Linux copies the listening socket's state into each of them), so that
/// it costs nothing for each.
pub fn set_options(listener: &TcpListener, writing: &WritingLimits) -> io::Result<()> {
    let listener = borrow(listener);
    let options = SockRef::from(&listener);
    options.set_nonblocking(true)?;
    options.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    options.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    options.set_tcp_user_timeout(Some(user_timeout(writing)))?;
    // 0 is the kernel's default, as here.
    options.set_tcp_notsent_lowat(u32::try_from(writing.notsent_lowat_bytes).unwrap_or(u32::MAX))
}

/// Waits for a connection.
pub async fn accept(listener: &TcpListener) -> io::Result<(OwnedFd, IpAddr)> {
    let (stream, address) = listener.accept().await?;
    // SAFETY: the stream gives its number away and is gone, so nobody else owns the descriptor.
    let descriptor = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    Ok((descriptor, address.ip().to_canonical()))
}

/// One more connection that waits already; `WouldBlock` if none does.
pub fn accept_waiting(listener: &TcpListener) -> io::Result<(OwnedFd, IpAddr)> {
    let (socket, address) = SockRef::from(&borrow(listener)).accept()?;
    let address = address.as_socket().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    Ok((socket.into(), address.to_canonical()))
}

fn borrow(listener: &TcpListener) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the listener's, which is open for as long as the borrow lives.
    unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
