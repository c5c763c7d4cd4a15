//! Reports between the threads on which something failed and the one that sends.
//!
//! Invariants: bounded in number and rate; giving a report never waits for the sender; what is turned away is counted
//! in a metric and told with the next report that is sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    limits::{REPORTS_BURST, REPORTS_REST_AFTER, REPORTS_WAITING_MAX},
    metrics::{Count, Counters},
};

use super::{limiter::Limiter, report::Report};

#[expect(clippy::disallowed_types, reason = "held for a push or a pop, and errors are rare")]
type Lock<T> = std::sync::Mutex<T>;

/// The queue.
#[derive(Debug)]
pub struct Queue {
    state: Lock<State>,
    counters: Arc<Counters>,
    /// Something waits, or somebody waits for the end.
    filled: Condvar,
    /// All has been sent.
    flushed: Condvar,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    reports: VecDeque<Report>,
    turned_away: u64,
    /// Something was sent since the last rest.
    has_worked: bool,
    /// What came of the last flush.
    is_flushed: bool,
    flush_until: Option<Instant>,
}

/// What the sender does next.
#[derive(Debug)]
pub enum Task {
    /// Send this one; so many were turned away before it.
    Send(Report, u64),
    /// Nothing waits any more: make sure until then that all has arrived, and say so.
    Flush(Instant),
    /// Nothing has come for a while.
    Rest,
}

impl Queue {
    /// An empty queue for `per_minute` reports a minute.
    pub fn new(per_minute: u32, now: Instant, counters: Arc<Counters>) -> Self {
        let limiter = Limiter::new(REPORTS_BURST, per_minute, now);
        let state = State {
            limiter,
            reports: VecDeque::new(),
            turned_away: 0,
            has_worked: false,
            is_flushed: false,
            flush_until: None,
        };
        Self { state: Lock::new(state), counters, filled: Condvar::new(), flushed: Condvar::new() }
    }

    /// Whether one more report is within the rate; if not it is counted.
    pub fn may_report(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let may = state.limiter.take(now);
        if !may {
            state.turned_away += 1;
            self.counters.add_shared(Count::ReportsOverRate, 1);
        }
        may
    }

    /// Takes a report, or counts it.
    pub fn push(&self, report: Report) {
        let mut state = self.lock();
        if state.reports.len() == REPORTS_WAITING_MAX {
            state.turned_away += 1;
            return self.counters.add_shared(Count::ReportsOverflowed, 1);
        }
        state.reports.push_back(report);
        drop(state);
        self.filled.notify_one();
    }

    /// Waits for something to do.
    pub fn next(&self) -> Task {
        let mut state = self.lock();
        loop {
            if let Some(report) = state.reports.pop_front() {
                state.has_worked = true;
                return Task::Send(report, std::mem::take(&mut state.turned_away));
            }
            if let Some(until) = state.flush_until {
                return Task::Flush(until);
            }
            let wait = if state.has_worked { REPORTS_REST_AFTER } else { Duration::MAX };
            let is_quiet = |state: &mut State| state.reports.is_empty() && state.flush_until.is_none();
            let waited = self.filled.wait_timeout_while(state, wait, is_quiet).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && std::mem::take(&mut state.has_worked) {
                return Task::Rest;
            }
        }
    }

    /// What was asked for by [`Task::Flush`] is done; whether all has arrived.
    pub fn flushed(&self, all: bool) {
        let mut state = self.lock();
        state.flush_until = None;
        state.is_flushed = all && state.reports.is_empty();
        self.flushed.notify_all();
    }

    /// Waits until every report has been sent, at most until `end`; whether all have.
    pub fn flush(&self, end: Instant) -> bool {
        let mut state = self.lock();
        state.flush_until = Some(end);
        self.filled.notify_one();
        while state.flush_until.is_some() {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return false;
            }
            state = self.flushed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_flushed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
