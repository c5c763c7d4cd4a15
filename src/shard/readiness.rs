//! Which sockets of a core have something for it: one epoll instance for all of them, itself waited for through monoio.
//!
//! Why: a task a connection that waits for one operation of its own costs some 300 bytes a connection, and its entry in
//! the ring as much in the kernel; here an idle connection is a number. It runs alike under both drivers.
//! Invariants: a socket is registered once, edge-triggered in both directions, and leaves with its last descriptor;
//! whoever is told of a socket receives until nothing is left, or comes back by itself.
#![expect(unsafe_code, reason = "epoll is called through libc, and monoio lends its descriptor only as a raw number")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use monoio::net::udp::UdpSocket;

/// Sockets that are told of in one go.
pub(super) const EVENTS_PER_TURN: usize = 64;

/// What has happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The number it was registered under.
    pub key: usize,
    /// A read gives something: bytes, the end, or an error.
    pub is_readable: bool,
    /// No more than what is there comes: the peer has ended its side, or the connection is over.
    pub is_ending: bool,
    /// There may be room for a write.
    pub is_writable: bool,
}

/// The readiness of many sockets.
#[derive(Debug)]
pub(super) struct Readiness {
    /// Not what its type says: an epoll instance, in the only holder of monoio that keeps nothing but the descriptor.
    epoll: UdpSocket,
}

impl Readiness {
    /// None yet; needs a running monoio runtime.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is handed over.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was made just now, and nobody else owns it.
        let epoll = std::net::UdpSocket::from(unsafe { OwnedFd::from_raw_fd(epoll) });
        Ok(Self { epoll: UdpSocket::from_std(epoll)? })
    }

    /// Tells of this socket from now on, under a number.
    pub fn add(&self, socket: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: key as u64 };
        // SAFETY: the kernel reads the event during the call.
        let added =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event) };
        checked(added).map(drop)
    }

    /// Tells of this socket no more, because somebody else will watch it.
    pub fn remove(&self, socket: BorrowedFd<'_>) {
        // SAFETY: no memory is handed over.
        unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, socket.as_raw_fd(), std::ptr::null_mut());
        }
    }

    /// Waits until there is an event.
    pub async fn wait(&self) -> io::Result<()> {
        self.epoll.readable(false).await
    }

    /// Moves at most [`EVENTS_PER_TURN`] events that are there into `events`; whether there may be more.
    pub fn take(&self, events: &mut Vec<Event>) -> bool {
        let mut raw = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN];
        // SAFETY: the kernel writes at most so many events, which live through the call.
        let taken =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), raw.as_mut_ptr(), EVENTS_PER_TURN as libc::c_int, 0) };
        // A call that fails was interrupted: what there is comes the next time.
        let taken = usize::try_from(taken).unwrap_or(0);
        events.clear();
        events.extend(raw[..taken].iter().map(|event| Event::new(event.events, event.u64)));
        taken == EVENTS_PER_TURN
    }
}

impl Event {
    fn new(flags: u32, key: u64) -> Self {
        let has = |wanted: libc::c_int| flags & wanted as u32 != 0;
        let is_ending = has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR);
        Self {
            key: usize::try_from(key).unwrap_or(usize::MAX),
            is_readable: is_ending || has(libc::EPOLLIN),
            is_ending,
            is_writable: is_ending || has(libc::EPOLLOUT),
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<RawFd> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
