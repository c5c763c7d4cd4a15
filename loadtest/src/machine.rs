//! What a run needs of the machine: open files, a CPU of its own, a clock that wakes on time.
#![expect(unsafe_code, reason = "tokio takes a foreign descriptor only by an unsafe call")]

use std::{io, os::fd::OwnedFd, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use tokio::{io::unix::AsyncFd, time::Instant};

/// Raises the file limit as far as it goes and checks that `files` can be open.
pub fn allow_files(files: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What is not allowed to rise may be high enough as it is.
    let _ = setrlimit(Resource::Nofile, raised);
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    anyhow::ensure!(now >= files, "{files} open files are needed, {now} are allowed (ulimit -n)");
    Ok(())
}

/// Binds this thread, and the threads and programs it starts, to one CPU.
pub fn bind_to_cpu(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("binding to CPU {cpu}"))
}

/// A command that runs on one CPU, if one is named.
pub fn on_cpu(program: &Path, cpu: Option<usize>) -> Command {
    let Some(cpu) = cpu else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cpu.to_string()).arg(program);
    command
}

/// Does nothing for a while, where nothing else could be done either.
#[expect(clippy::disallowed_methods, reason = "it waits for another process, and no core of a server is blocked")]
pub fn rest(duration: Duration) {
    std::thread::sleep(duration);
}

/// Wakes at an instant, to some tens of microseconds. The runtime's own timers round up to milliseconds, which would
/// count as the node's latency.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm; needs a running runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor is open and owned by the `OwnedFd`, which stays inside the `AsyncFd` and is never replaced.
        Ok(Self { timer: unsafe { AsyncFd::register(timer)? } })
    }

    /// Waits until `at`.
    pub async fn wait_until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_can_be_set_again() {
        let mut alarm = Alarm::new().expect("an alarm");
        for after in [0, 50, 1500, 300] {
            let at = Instant::now() + Duration::from_micros(after);
            alarm.wait_until(at).await.expect("a wait");
            assert!(Instant::now() >= at);
        }
    }

    #[test]
    fn a_file_limit_that_cannot_be_had_is_told() {
        assert!(allow_files(10).is_ok());
        assert!(allow_files(u64::MAX).is_err() || getrlimit(Resource::Nofile).current.is_none());
    }
}
