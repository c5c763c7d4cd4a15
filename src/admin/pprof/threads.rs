//! The process's threads, as the kernel lists them.

use std::{fs, time::Duration};

use super::sampler::Tid;
use crate::limits::PROFILE_THREADS_MAX;

/// Times in `stat` are in hundredths of a second on every architecture of Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// The bit of SIGPROF (27) in a mask of signals.
const SIGPROF_BIT: u64 = 1 << 26;

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub tid: Tid,
    /// Its name; the kernel keeps 15 bytes.
    pub name: String,
    /// What it is doing, by the kernel's letter (proc_pid_stat(5)).
    pub state: char,
    /// CPU time in the program.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
}

/// Every thread, by number; beyond [`PROFILE_THREADS_MAX`] the youngest are left out.
pub fn list() -> Vec<Thread> {
    let mut tids: Vec<Tid> = tids().collect();
    tids.sort_unstable();
    tids.into_iter().filter_map(read).take(PROFILE_THREADS_MAX).collect()
}

fn tids() -> impl Iterator<Item = Tid> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn read(tid: Tid) -> Option<Thread> {
    parse(tid, &fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?)
}

/// `tid (name) state …`, of which fields 14 and 15 are the times. A name may have brackets and spaces of its own.
fn parse(tid: Tid, stat: &str) -> Option<Thread> {
    let (front, behind) = stat.rsplit_once(')')?;
    let (_, name) = front.split_once('(')?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    Some(Thread {
        tid,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        user: TICK * ticks(14)?,
        system: TICK * ticks(15)?,
    })
}

impl Thread {
    /// Whether a SIGPROF reaches it. Workers of io_uring and of jemalloc block signals.
    pub fn takes_signals(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/self/task/{}/status", self.tid)).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & SIGPROF_BIT == 0)
    }

    /// The state in a word.
    pub fn state_text(&self) -> &'static str {
        match self.state {
            'R' => "running",
            'S' => "sleeping",
            'D' => "waiting for the disk",
            'T' | 't' => "stopped",
            'Z' | 'X' => "ended",
            _ => "idle",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_brackets_and_spaces() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        let thread = parse(7, stat).expect("a thread");
        assert_eq!((thread.name.as_str(), thread.state_text()), ("a) (b c", "sleeping"));
        assert_eq!((thread.user, thread.system), (Duration::from_millis(2500), Duration::from_millis(500)));
        assert_eq!(parse(7, "7 (a) S 1"), None);
    }

    #[test]
    fn the_test_finds_itself() {
        let own = list().into_iter().find(|thread| thread.state == 'R').expect("a running thread");
        assert!(own.takes_signals());
    }
}
