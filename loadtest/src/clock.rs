//! Reads the wall clock, for `exp` of what is signed and for times that travel in payloads; the only place of the
//! harness that does.
//!
//! Everything that is measured uses `tokio::time::Instant`, which is monotonic. Times in payloads are microseconds of
//! an [`Epoch`]: the wall clock is read once, so that a step of it cannot bend a measurement.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The wall clock's time since the Unix epoch; zero if the clock stands before it.
#[expect(clippy::disallowed_methods, reason = "this is the harness's one reader of the wall clock")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Microseconds of the kernel's monotonic clock: the same for all processes of a machine, so that times in payloads need no
/// agreement.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

/// Turns monotonic time into microseconds since the Unix epoch, and back.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    unix: Duration,
    at: Instant,
}

impl Epoch {
    /// An epoch that begins now.
    pub fn begin() -> Self {
        Self { unix: unix_now(), at: Instant::now() }
    }

    /// Microseconds of an instant that is not before the epoch's begin.
    pub fn micros(&self, at: Instant) -> u64 {
        u64::try_from((self.unix + at.saturating_duration_since(self.at)).as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds of now.
    pub fn now(&self) -> u64 {
        self.micros(Instant::now())
    }
}
