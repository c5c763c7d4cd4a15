//! How old pushes are at each stage of their way, and how long the queue takes, in one thread.
//!
//! Method: a histogram a stage whose cells are an eighth of a power of two wide, so that a quantile is right to 12 %.
//! Invariant: written by one thread only, read by anybody.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A stage of a push's way. Its age there counts from when its node had read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// The queue has it, and its publisher's core knows.
    Queued,
    /// A node has heard it.
    Heard,
    /// A core with receivers has taken it up.
    Core,
    /// A receiver's socket has taken the last of its bytes.
    Written,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: &[Stage] = &[Stage::Queued, Stage::Heard, Stage::Core, Stage::Written];

    /// The label's text.
    pub const fn text(self) -> &'static str {
        match self {
            Stage::Queued => "queued",
            Stage::Heard => "heard",
            Stage::Core => "core",
            Stage::Written => "written",
        }
    }
}

/// Bits of a value that choose its cell within its power of two.
const CELL_BITS: u32 = 3;
/// Cells of one power of two.
const CELLS_PER_OCTAVE: usize = 1 << CELL_BITS;
/// Powers of two, in microseconds; the last cell takes all from 63 s on.
const OCTAVES: usize = 26;
/// Cells of a histogram.
pub const CELLS: usize = (OCTAVES + 1 - CELL_BITS as usize) * CELLS_PER_OCTAVE;

/// The histograms of one thread.
#[derive(Debug)]
pub struct Latency {
    stages: [Cells; Stage::ALL.len()],
    round_trips: Cells,
}

#[derive(Debug)]
struct Cells {
    counts: [AtomicU64; CELLS],
    sum_us: AtomicU64,
}

/// What one histogram holds.
#[derive(Clone, Debug)]
pub struct Ages {
    /// How many ages each cell has.
    pub counts: [u64; CELLS],
    /// All ages together, in microseconds.
    pub sum_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let cells = |_| Cells { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) };
        Self { stages: std::array::from_fn(cells), round_trips: cells(0) }
    }
}

impl Latency {
    /// Books a push that is `age_us` old.
    pub fn record(&self, stage: Stage, age_us: u64) {
        self.stages[stage as usize].record(age_us);
    }

    /// Books a record's way through the queue and back.
    pub fn record_round_trip(&self, took: Duration) {
        self.round_trips.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What has been booked of the queue.
    pub fn read_round_trips(&self) -> Ages {
        self.round_trips.read()
    }

    /// Books a push of `received_us`, if that is known, at `now_us`, both Unix microseconds. Clocks of two nodes may
    /// differ: what seems to come from the future is of no age.
    pub fn record_since(&self, stage: Stage, received_us: u64, now_us: u64) {
        if received_us > 0 {
            self.record(stage, now_us.saturating_sub(received_us));
        }
    }

    /// What has been booked of a stage.
    pub fn read(&self, stage: Stage) -> Ages {
        self.stages[stage as usize].read()
    }
}

impl Cells {
    fn record(&self, age_us: u64) {
        add(&self.counts[cell_of(age_us)], 1);
        add(&self.sum_us, age_us);
    }

    fn read(&self) -> Ages {
        Ages {
            counts: std::array::from_fn(|cell| self.counts[cell].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// The cell of an age: below eight microseconds one each, then eight a power of two.
fn cell_of(age_us: u64) -> usize {
    if age_us < CELLS_PER_OCTAVE as u64 {
        return age_us as usize;
    }
    let shift = age_us.ilog2() - CELL_BITS;
    // The value's leading one and the bits behind it: 8 to 15.
    let leading = (age_us >> shift) as usize;
    (shift as usize * CELLS_PER_OCTAVE + leading).min(CELLS - 1)
}

/// The smallest age of a cell, in microseconds.
pub fn cell_begin_us(cell: usize) -> u64 {
    if cell < CELLS_PER_OCTAVE {
        return cell as u64;
    }
    let shift = cell / CELLS_PER_OCTAVE - 1;
    ((CELLS_PER_OCTAVE + cell % CELLS_PER_OCTAVE) as u64) << shift
}

impl Ages {
    /// Nothing.
    pub const EMPTY: Self = Self { counts: [0; CELLS], sum_us: 0 };

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.sum_us += other.sum_us;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many are below `bound_us`, which must be where a cell begins.
    pub fn below(&self, bound_us: u64) -> u64 {
        self.counts[..cell_of(bound_us)].iter().sum()
    }

    /// The age that this part of them (0 to 1) does not pass, in microseconds; 0 if there are none.
    pub fn quantile_us(&self, part: f64) -> u64 {
        let wanted = (part * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let cell = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        cell.map_or(0, |cell| cell_begin_us(cell + 1) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_has_the_cell_that_begins_at_or_before_it() {
        for age_us in (0..5000).chain((3..26).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let cell = cell_of(age_us);
            assert!(cell_begin_us(cell) <= age_us && age_us < cell_begin_us(cell + 1), "{age_us} in {cell}");
        }
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
        assert!(cell_begin_us(CELLS - 1) > 60_000_000);
    }

    #[test]
    fn quantiles_and_counts_are_those_of_what_was_booked() {
        let latency = Latency::default();
        (1..=1000).for_each(|age_us| latency.record(Stage::Heard, age_us));
        let ages = latency.read(Stage::Heard);
        assert_eq!((ages.count(), ages.sum_us, ages.below(512)), (1000, 500_500, 511));
        for (part, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = ages.quantile_us(part);
            assert!(found >= exact && found <= exact + exact / 8, "{part}: {found}");
        }
        assert_eq!(latency.read(Stage::Core).quantile_us(0.5), 0);
    }

    #[test]
    fn what_is_not_known_is_not_booked_and_the_future_has_no_age() {
        let latency = Latency::default();
        latency.record_since(Stage::Core, 0, 77);
        latency.record_since(Stage::Core, 100, 77);
        let ages = latency.read(Stage::Core);
        assert_eq!((ages.count(), ages.sum_us), (1, 0));
    }
}
