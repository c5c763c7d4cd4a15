//! Readiness of thousands of sockets, and a timer that wakes to some tens of microseconds.
//!
//! The kernel's own wait rounds its timeout up to a millisecond, which would count as the server's latency: the timer is a
//! descriptor among the others. Invariant: a socket that is closed is no longer waited for (the kernel takes it out).

use std::{io, mem::MaybeUninit, os::fd::OwnedFd};

use rustix::{
    event::epoll,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::clock::monotonic_us;

/// Most events of one wait: what becomes due meanwhile would be late.
const EVENTS_MAX: usize = 256;
/// The timer's own name, and that of all who go ahead; those of others are below them.
const TIMER: u64 = u64::MAX;
const AHEAD: u64 = u64::MAX - 1;
/// The largest name of others.
pub const NAME_MAX: u64 = AHEAD - 1;

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The name it was added under.
    pub name: u64,
    /// Whether it takes bytes.
    pub writable: bool,
    /// Whether there is something to read, its end or its failure included.
    pub readable: bool,
}

impl Ready {
    fn of(event: epoll::Event) -> Self {
        let (name, flags) = (event.data.u64(), event.flags);
        let writable = flags.contains(epoll::EventFlags::OUT);
        Self { name, writable, readable: flags.intersects(!epoll::EventFlags::OUT) }
    }
}

/// See the module.
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Those who are told of before the others: the kernel tells of thousands in the order in which they became ready.
    ahead: OwnedFd,
    events: Box<[MaybeUninit<epoll::Event>]>,
    spins: bool,
    spun_us: u64,
}

impl Poller {
    /// A poller of nothing.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let ahead = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &ahead, epoll::EventData::new_u64(AHEAD), epoll::EventFlags::IN)?;
        let events = vec![MaybeUninit::uninit(); EVENTS_MAX].into();
        Ok(Self { epoll, timer, ahead, events, spins: false, spun_us: 0 })
    }

    /// It looks again and again in place of sleeping: a server on this machine has not to wake it, as it has not to wake a
    /// client on another one.
    pub fn spin(&mut self) {
        self.spins = true;
    }

    /// Microseconds that were spent on looking at nothing.
    pub fn spun_us(&self) -> u64 {
        self.spun_us
    }

    /// Waits for `fd` under a name of at most [`NAME_MAX`].
    pub fn add(&self, fd: &OwnedFd, name: u64, writable_too: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(name), interest(writable_too))?)
    }

    /// Changes what is waited for.
    pub fn change(&self, fd: &OwnedFd, name: u64, writable_too: bool) -> io::Result<()> {
        let modify = |epoll| epoll::modify(epoll, fd, epoll::EventData::new_u64(name), interest(writable_too));
        match modify(&self.epoll) {
            Err(rustix::io::Errno::NOENT) => Ok(modify(&self.ahead)?),
            modified => Ok(modified?),
        }
    }

    /// One that is waited for is told of before the others from now on, at most as many of them as of the others at a time.
    pub fn put_ahead(&self, fd: &OwnedFd, name: u64, writable_too: bool) -> io::Result<()> {
        epoll::delete(&self.epoll, fd)?;
        Ok(epoll::add(&self.ahead, fd, epoll::EventData::new_u64(name), interest(writable_too))?)
    }

    /// Waits until `until_us` (monotonic) at the longest; what is ready is added to `ready`.
    pub fn wait(&mut self, until_us: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        let began_us = monotonic_us();
        let left = until_us.saturating_sub(began_us);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if left == 0 || self.spins { Some(&at_once) } else { None };
        if left > 0 && !self.spins {
            let once = Itimerspec { it_interval: at_once, it_value: timespec(left) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        let events = match epoll::wait(&self.epoll, &mut *self.events, timeout) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(problem) => return Err(problem.into()),
        };
        if self.spins && events.is_empty() {
            // Whoever shares this CPU, at the same priority too.
            std::thread::yield_now();
            self.spun_us += monotonic_us() - began_us;
        }
        let others = ready.len();
        let mut ahead = false;
        for event in events {
            match event.data.u64() {
                // Only that it fired matters, and a timer that was set anew has nothing to read.
                TIMER => drop(rustix::io::read(&self.timer, &mut [0; 8])),
                AHEAD => ahead = true,
                _ => ready.push(Ready::of(*event)),
            }
        }
        if ahead {
            let (events, _) = epoll::wait(&self.ahead, &mut *self.events, Some(&at_once))?;
            ready.splice(others..others, events.iter().map(|event| Ready::of(*event)));
        }
        Ok(())
    }
}

fn interest(writable_too: bool) -> epoll::EventFlags {
    if writable_too { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}

fn timespec(us: u64) -> Timespec {
    Timespec { tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX), tv_nsec: (us % 1_000_000) as i64 * 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_without_events_ends_at_its_time() {
        let mut poller = Poller::new().expect("a poller");
        for (after, spins) in [(0, false), (300, false), (2_500, false), (2_500, true)] {
            poller.spins = spins;
            let until = monotonic_us() + after;
            let mut ready = Vec::new();
            while monotonic_us() < until {
                poller.wait(until, &mut ready).expect("a wait");
            }
            assert!(ready.is_empty(), "{ready:?}");
        }
        assert!(poller.spun_us() > 0 && poller.spun_us() < 1_000_000, "{} us", poller.spun_us());
    }

    #[test]
    fn those_who_are_put_ahead_are_told_of_first() {
        let pairs: Vec<_> = (0..3).map(|_| std::os::unix::net::UnixStream::pair().expect("a pair")).collect();
        let mut poller = Poller::new().expect("a poller");
        let (ours, mut theirs): (Vec<OwnedFd>, Vec<_>) =
            pairs.into_iter().map(|(one, other)| (one.into(), other)).unzip();
        for (fd, name) in ours.iter().zip(0..) {
            poller.add(fd, name, false).expect("added");
        }
        poller.put_ahead(&ours[2], 2, false).expect("moved");
        for other in &mut theirs {
            std::io::Write::write_all(other, b"x").expect("written");
        }
        let told = |poller: &mut Poller| {
            let mut ready = Vec::new();
            poller.wait(monotonic_us() + 1_000_000, &mut ready).expect("a wait");
            ready.iter().map(|ready| (ready.name, ready.writable)).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut poller), [(2, false), (0, false), (1, false)]);
        poller.change(&ours[2], 2, true).expect("changed");
        assert_eq!(told(&mut poller)[0], (2, true));
    }

    #[test]
    fn a_socket_is_told_by_its_name_and_forgotten_when_it_is_closed() {
        let (one, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let one = OwnedFd::from(one);
        let mut poller = Poller::new().expect("a poller");
        poller.add(&one, 7, true).expect("added");
        let mut ready = Vec::new();
        poller.wait(monotonic_us() + 1_000_000, &mut ready).expect("a wait");
        assert!(ready.iter().any(|ready| ready.name == 7 && ready.writable && !ready.readable), "{ready:?}");
        poller.change(&one, 7, false).expect("changed");
        drop(other);
        ready.clear();
        poller.wait(monotonic_us() + 1_000_000, &mut ready).expect("a wait");
        assert!(ready.iter().any(|ready| ready.name == 7 && ready.readable), "{ready:?}");
        drop(one);
        ready.clear();
        poller.wait(monotonic_us() + 1_000, &mut ready).expect("a wait");
        assert!(ready.is_empty(), "{ready:?}");
    }
}
