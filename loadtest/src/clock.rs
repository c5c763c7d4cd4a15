//! Reads the wall clock, for `exp` of what is signed; the only place of the harness that does.
//!
//! Everything that is measured uses `tokio::time::Instant`, which is monotonic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock's time since the Unix epoch; zero if the clock stands before it.
#[expect(clippy::disallowed_methods, reason = "this is the harness's one reader of the wall clock")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
