//! Finished lines between the threads that log and the one that writes.
//!
//! Invariants: a line that fits is written once and in its thread's order; one that does not is counted, and told of
//! at its place as soon as a line fits again; pushing copies under a short lock and never waits for the writer. What
//! the writer holds counts too, until it is written, so that a full disk does not double the bound.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    metrics::{Count, Counters},
};

use super::line::Form;

/// Lines are gathered into pieces of this many bytes, each written at once.
const CHUNK_BYTES: usize = 64 << 10;
/// What a piece has room for at first.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Between two tries to write when the process is about to end.
const PAUSE_AT_END: Duration = Duration::from_millis(10);

#[expect(clippy::disallowed_types, reason = "held for a copy of one line, or for taking all that waits by a swap")]
type Lock<T> = std::sync::Mutex<T>;

/// The buffer.
#[derive(Debug)]
pub struct Buffer {
    bytes_max: usize,
    form: Form,
    counters: Arc<Counters>,
    state: Lock<State>,
    /// Something waits, or the end is near.
    filled: Condvar,
    /// Nothing waits any more.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes in chunks, and in the writer's hands.
    bytes: usize,
    /// Lines lost since the last time that it was told.
    lost: u64,
    is_writer_asleep: bool,
    /// Pauses are cut short: somebody waits for the last line.
    is_ending: bool,
}

impl Buffer {
    /// An empty buffer.
    pub fn new(bytes_max: usize, form: Form, counters: Arc<Counters>) -> Self {
        let (state, filled, drained) = (Lock::default(), Condvar::new(), Condvar::new());
        Self { bytes_max, form, counters, state, filled, drained }
    }

    /// Takes one line with its newline, or counts it as lost; whether it was taken. Never waits for room.
    pub fn push(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.bytes + line.len() > self.bytes_max {
            state.lost += 1;
            self.counters.add_shared(Count::LinesDropped, 1);
            return false;
        }
        self.tell_of_lost(&mut state);
        state.append(line);
        self.note_bytes(&state);
        let wake = std::mem::take(&mut state.is_writer_asleep);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// Waits until something is there and takes all of it.
    pub fn take(&self, into: &mut VecDeque<Vec<u8>>) {
        let mut state = self.lock();
        while state.chunks.is_empty() {
            self.tell_of_lost(&mut state);
            if state.chunks.is_empty() {
                state.is_writer_asleep = true;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.is_writer_asleep = false;
        into.append(&mut state.chunks);
    }

    /// The writer has written so many bytes of what it took.
    pub fn written(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        self.note_bytes(&state);
        if state.bytes == 0 && state.lost == 0 {
            self.drained.notify_all();
        }
    }

    /// The writer has thrown so many bytes away, in which there were so many lines.
    pub fn thrown_away(&self, bytes: usize, lines: u64) {
        self.counters.add_shared(Count::LinesDropped, lines);
        self.written(bytes);
    }

    /// Waits before the writer tries again; not for long when the end is near.
    pub fn pause(&self, pause: Duration) {
        let state = self.lock();
        let waited = match state.is_ending {
            true => self.filled.wait_timeout(state, PAUSE_AT_END),
            false => self.filled.wait_timeout_while(state, pause, |state| !state.is_ending),
        };
        drop(waited);
    }

    /// Waits until everything is written, at most until `end`; how many bytes are left.
    pub fn flush(&self, end: Instant) -> usize {
        let mut state = self.lock();
        state.is_ending = true;
        self.tell_of_lost(&mut state);
        self.filled.notify_all();
        while state.bytes > 0 || state.lost > 0 {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            state = self.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_ending = false;
        state.bytes
    }

    /// Its counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Puts the line about lost ones where they would have stood. It may go beyond the bound: one line for each run of
    /// losses.
    fn tell_of_lost(&self, state: &mut State) {
        if state.lost == 0 || state.bytes >= self.bytes_max {
            return;
        }
        let mut line = String::new();
        self.form.lost(std::mem::take(&mut state.lost), clock::unix_now(), &mut line);
        self.counters.add_shared(Count::LinesWarn, 1);
        state.append(line.as_bytes());
        self.note_bytes(state);
    }

    fn note_bytes(&self, state: &State) {
        self.counters.set(Count::LinesBufferBytes, u64::try_from(state.bytes).unwrap_or(u64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, line: &[u8]) {
        self.bytes += line.len();
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() + line.len() <= CHUNK_BYTES => chunk.extend_from_slice(line),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES_MIN.max(line.len()));
                chunk.extend_from_slice(line);
                self.chunks.push_back(chunk);
            }
        }
    }
}
