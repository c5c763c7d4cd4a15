//! The only place that reads a clock: deadlines on the monotonic one, signatures on the wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic now, for deadlines.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch, for signatures and what people read; zero if the wall clock is before 1970.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Unix milliseconds now.
pub fn unix_ms() -> u64 {
    u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX)
}

/// Unix microseconds now.
pub fn unix_us() -> u64 {
    u64::try_from(unix_now().as_micros()).unwrap_or(u64::MAX)
}

/// The wall clock for the `date` header (RFC 9110 §5.6.7).
pub fn http_date(unix: Duration) -> String {
    let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
    let utc = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    utc.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The node's local time as `2006-01-02 15:04:05`, the form of the Go service's `pong`.
pub fn local_text(unix: Duration) -> String {
    let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
    let utc = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    utc.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string()
}
