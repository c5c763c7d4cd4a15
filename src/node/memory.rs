//! The watch over the process's memory: it says when no more connections fit, and has the largest outboxes cut when it gets
//! tight.
//!
//! Method: a thread of its own measures a few times a second, after the allocator has given back what was freed. Over the soft threshold
//! new connections are refused; over the hard one every core names its largest outboxes, and the largest of all are cut, as many
//! bytes as there are too many. Frames are shared by those who wait for them, so that a cut may free less than it counts:
//! each round that does not suffice asks for twice as much. Invariants: a threshold is left only some percent below it; the
//! thread waits for no core longer than a bound; nothing but outboxes is ever given up.

use std::{
    cmp::Reverse,
    io,
    sync::{Arc, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use crate::{
    admin,
    inbox::Mailbox,
    limits::{Limits, MEMORY_LOOK, MEMORY_SLACK_PERCENT, MemoryLimits},
    metrics::{Count, Counters},
    model::SessionId,
    shard::Admission,
};

use super::{
    cgroup::Meter,
    orders::{Order, gather},
};

#[expect(clippy::disallowed_types, reason = "held for a copy, by the watch and by a reload")]
type Lock<T> = std::sync::Mutex<T>;

/// How long the cores may take to name their largest outboxes.
const NAMING_TIMEOUT: Duration = Duration::from_secs(1);
/// While new ones are refused, freed pages are given back every so many looks.
const LOOKS_PER_PURGE: u32 = 5;
/// How much there may be is looked up every so many looks.
const LOOKS_PER_METER: u32 = 50;

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// It is not.
    None,
    /// No new connections.
    Soft,
    /// The largest outboxes go.
    Hard,
}

/// What a reload may change of the watch. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Thresholds(Lock<MemoryLimits>);

/// Whom the watch speaks to.
pub(super) struct Watch {
    thresholds: Weak<Thresholds>,
    admission: Admission,
    orders: Vec<Arc<Mailbox<Order>>>,
    counters: Arc<Counters>,
    meter: Meter,
    limits: MemoryLimits,
    pressure: Pressure,
    looks: u32,
    /// Rounds of cutting in a row.
    rounds: u32,
}

/// Bytes that may wait for all connections of one of `cores` cores.
pub(super) fn outboxes_bytes_max(limits: &Limits, cores: u8) -> usize {
    let bytes = match limits.writing.outboxes_bytes_max {
        0 => usize::try_from(Meter::new(limits.memory.memory_max_bytes).limit() / 4).unwrap_or(usize::MAX),
        bytes => bytes,
    };
    bytes / usize::from(cores)
}

impl Thresholds {
    /// These, until others are set.
    pub fn new(limits: MemoryLimits) -> Arc<Self> {
        Arc::new(Self(Lock::new(limits)))
    }

    /// From the next look on these.
    pub fn set(&self, limits: MemoryLimits) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn get(&self) -> MemoryLimits {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watch {
    /// Starts the thread. `counters` are others' too, but these gauges are its own.
    ///
    /// Errors: there is no thread to be had.
    pub fn start(
        thresholds: &Arc<Thresholds>,
        admission: Admission,
        orders: Vec<Arc<Mailbox<Order>>>,
        counters: Arc<Counters>,
    ) -> io::Result<()> {
        let limits = thresholds.get();
        let meter = Meter::new(limits.memory_max_bytes);
        let (thresholds, pressure) = (Arc::downgrade(thresholds), Pressure::None);
        let mut watch = Self { thresholds, admission, orders, counters, meter, limits, pressure, looks: 0, rounds: 0 };
        watch.show(watch.meter.used());
        thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while watch.look() {
                pause();
            }
        })?;
        Ok(())
    }

    /// One look; whether there is to be another.
    fn look(&mut self) -> bool {
        let Some(thresholds) = self.thresholds.upgrade() else { return false };
        let limits = thresholds.get();
        self.looks = self.looks.wrapping_add(1);
        // A container's bound may be changed while it runs.
        if limits.memory_max_bytes != self.limits.memory_max_bytes || self.looks.is_multiple_of(LOOKS_PER_METER) {
            self.meter = Meter::new(limits.memory_max_bytes);
        }
        self.limits = limits;
        let purges = self.pressure == Pressure::Soft && self.looks.is_multiple_of(LOOKS_PER_PURGE);
        if self.pressure == Pressure::Hard || purges {
            admin::give_back_freed_memory();
        }
        let mut used = self.meter.used();
        let mut pressure = judge(self.pressure, used, self.meter.limit(), &self.limits);
        if pressure > self.pressure {
            // Before anybody is refused or cut for it: how much of it is only not given back yet.
            admin::give_back_freed_memory();
            used = self.meter.used();
            pressure = judge(self.pressure, used, self.meter.limit(), &self.limits);
        }
        self.change_to(pressure, used);
        self.show(used);
        if pressure == Pressure::Hard {
            self.relieve(used);
        }
        true
    }

    fn change_to(&mut self, pressure: Pressure, used: u64) {
        let before = std::mem::replace(&mut self.pressure, pressure);
        if pressure == before {
            return;
        }
        self.rounds = 0;
        self.admission.set_short_of_memory(pressure != Pressure::None);
        let (limit, percent) = (self.meter.limit(), used * 100 / self.meter.limit().max(1));
        match pressure {
            Pressure::None => tracing::info!(used, limit, percent, "there is memory for new connections again"),
            Pressure::Soft => tracing::warn!(used, limit, percent, "memory is short: new connections are refused"),
            Pressure::Hard => {
                tracing::error!(used, limit, percent, "memory is nearly used up: the largest outboxes are cut");
            }
        }
    }

    fn show(&self, used: u64) {
        self.counters.set(Count::MemoryLimitBytes, self.meter.limit());
        self.counters.set(Count::MemoryUsedBytes, used);
        self.counters.set(Count::MemoryPressure, self.pressure as u64);
    }

    /// Has the largest outboxes of the node cut.
    fn relieve(&mut self, used: u64) {
        let goal = threshold(self.meter.limit(), self.limits.memory_hard_percent, true);
        let excess = used.saturating_sub(goal).max(1) << self.rounds.min(16);
        self.rounds += 1;
        let cut = choose(self.largest(), excess);
        if cut.is_empty() && self.rounds == 1 {
            tracing::error!(used, "memory is nearly used up, and no outbox is large enough to be cut");
        }
        for (core, orders) in (0_u8..).zip(&self.orders) {
            let sessions: Vec<SessionId> = cut.iter().filter(|id| id.core == core).copied().collect();
            if !sessions.is_empty() {
                // A full queue of orders: the core does nothing at all just now, and is asked again.
                let _ = orders.offer(Order::Cut(sessions));
            }
        }
    }

    fn largest(&self) -> Vec<(usize, SessionId)> {
        let (tell, told) = mpsc::sync_channel(self.orders.len());
        let ask = |orders: &Arc<Mailbox<Order>>| orders.offer(Order::NameLargest(tell.clone())).is_ok();
        let asked = self.orders.iter().filter(|orders| ask(orders)).count();
        gather(&told, asked, NAMING_TIMEOUT).concat()
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread serves nobody")]
fn pause() {
    thread::sleep(MEMORY_LOOK);
}

/// So many percent of the limit, and some less for who is over it already.
fn threshold(limit: u64, percent: u32, is_over: bool) -> u64 {
    let slack = if is_over { MEMORY_SLACK_PERCENT } else { 0 };
    limit / 100 * u64::from(percent.saturating_sub(slack))
}

fn judge(before: Pressure, used: u64, limit: u64, limits: &MemoryLimits) -> Pressure {
    if used >= threshold(limit, limits.memory_hard_percent, before == Pressure::Hard) {
        Pressure::Hard
    } else if used >= threshold(limit, limits.memory_soft_percent, before != Pressure::None) {
        Pressure::Soft
    } else {
        Pressure::None
    }
}

/// The largest of them, until they make up `excess` bytes.
fn choose(mut largest: Vec<(usize, SessionId)>, excess: u64) -> Vec<SessionId> {
    largest.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
    let (mut bytes_cut, mut chosen) = (0_u64, Vec::new());
    for (bytes, id) in largest {
        if bytes_cut >= excess {
            break;
        }
        bytes_cut += bytes as u64;
        chosen.push(id);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_crossed_at_its_percent_and_left_below_it() {
        let limits = MemoryLimits::default();
        let judge = |before, used| judge(before, used, 1000, &limits);
        assert_eq!(judge(Pressure::None, 699), Pressure::None);
        assert_eq!(judge(Pressure::None, 700), Pressure::Soft);
        assert_eq!(judge(Pressure::Soft, 651), Pressure::Soft);
        assert_eq!(judge(Pressure::Soft, 649), Pressure::None);
        assert_eq!(judge(Pressure::None, 850), Pressure::Hard);
        assert_eq!(judge(Pressure::Hard, 801), Pressure::Hard);
        assert_eq!(judge(Pressure::Hard, 799), Pressure::Soft);
        assert_eq!(judge(Pressure::Hard, 100), Pressure::None);
    }

    #[test]
    fn the_largest_of_all_cores_go_first_and_no_more_than_must() {
        let id = |core, slot| SessionId { core, slot, generation: 0 };
        let named = vec![(500, id(0, 1)), (100, id(0, 2)), (900, id(1, 1)), (50, id(1, 2))];
        assert_eq!(choose(named.clone(), 1), [id(1, 1)]);
        assert_eq!(choose(named.clone(), 901), [id(1, 1), id(0, 1)]);
        assert_eq!(choose(named.clone(), u64::MAX).len(), 4);
        assert_eq!(choose(Vec::new(), 1), []);
    }
}
