//! Gathers the samples of all threads for some seconds: equal stacks are counted together.
//!
//! Invariants: what is held is bounded by [`PROFILE_STACKS_MAX`] stacks of [`PROFILE_DEPTH_MAX`] addresses; every
//! sample that is left out is counted.
//!
//! [`PROFILE_DEPTH_MAX`]: crate::limits::PROFILE_DEPTH_MAX

use std::{collections::HashMap, time::Duration};

use super::{
    job::{Cancel, Cancelled},
    sampler::{Sample, Sampler, Tid, When},
    threads,
};
use crate::{
    clock,
    limits::{PROFILE_GATHER_INTERVAL, PROFILE_STACKS_MAX, PROFILE_THREADS_INTERVAL, THREAD_STACK_TIMEOUT},
};

/// A thread and addresses, the interrupted one first.
type Stack = (Tid, Vec<usize>);

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// How often each stack was seen, in periods of the sampler.
    pub stacks: HashMap<Stack, u64>,
    /// Names of the threads.
    pub names: HashMap<Tid, String>,
    /// Samples that were lost: the buffer or the table was full.
    pub dropped: u64,
    /// Threads that had no timer.
    pub unwatched: usize,
    /// When it began, since the Unix epoch.
    pub began: Duration,
    /// How long it took.
    pub lasted: Duration,
}

impl Gathered {
    fn take(&mut self, sample: Sample<'_>) {
        let key = (sample.tid, sample.stack.to_vec());
        if self.stacks.len() >= PROFILE_STACKS_MAX && !self.stacks.contains_key(&key) {
            self.dropped += u64::from(sample.weight);
            return;
        }
        *self.stacks.entry(key).or_default() += u64::from(sample.weight);
    }

    /// A thread's name; that of its number if it came and went unseen.
    pub fn name(&self, tid: Tid) -> String {
        self.names.get(&tid).cloned().unwrap_or_else(|| format!("thread {tid}"))
    }
}

/// Samples every thread for `length`. Errors: the request is gone, or the sampler cannot be started (the outer one).
pub fn cpu(cancel: &Cancel, length: Duration) -> std::io::Result<Result<Gathered, Cancelled>> {
    let mut sampler = Sampler::start()?;
    let (mut gathered, began) = (Gathered { began: clock::unix_now(), ..Gathered::default() }, clock::now());
    let mut threads_due = Duration::ZERO;
    loop {
        let elapsed = clock::now().saturating_duration_since(began);
        if elapsed >= threads_due {
            watch_all(&mut sampler, &mut gathered);
            threads_due = elapsed + PROFILE_THREADS_INTERVAL;
        }
        let left = length.saturating_sub(elapsed);
        if cancel.wait(left.min(PROFILE_GATHER_INTERVAL)).is_err() {
            return Ok(Err(Cancelled));
        }
        sampler.drain(|sample| gathered.take(sample));
        if left <= PROFILE_GATHER_INTERVAL {
            break;
        }
    }
    gathered.lasted = clock::now().saturating_duration_since(began);
    gathered.dropped += sampler.dropped();
    Ok(Ok(gathered))
}

fn watch_all(sampler: &mut Sampler, gathered: &mut Gathered) {
    let threads = threads::list();
    sampler.retain(|tid| threads.iter().any(|thread| thread.tid == tid));
    gathered.unwatched = 0;
    for thread in threads {
        if sampler.watch(thread.tid, When::Running).is_err() {
            gathered.unwatched += 1;
        }
        gathered.names.insert(thread.tid, thread.name);
    }
}

/// One stack of each of these threads, of those that answer in time.
pub fn once(tids: &[Tid], cancel: &Cancel) -> std::io::Result<Result<HashMap<Tid, Vec<usize>>, Cancelled>> {
    let mut sampler = Sampler::start()?;
    for tid in tids {
        // One that has ended meanwhile has no stack.
        let _ = sampler.watch(*tid, When::Now);
    }
    let (mut stacks, began) = (HashMap::new(), clock::now());
    while stacks.len() < sampler.watched() && clock::now().saturating_duration_since(began) < THREAD_STACK_TIMEOUT {
        if cancel.wait(Duration::from_millis(2)).is_err() {
            return Ok(Err(Cancelled));
        }
        sampler.drain(|sample| {
            stacks.insert(sample.tid, sample.stack.to_vec());
        });
    }
    Ok(Ok(stacks))
}
