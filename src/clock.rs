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

/// A moment in UTC as log lines have it: `2006-01-02T15:04:05.000000Z`.
pub fn utc_text(unix: Duration) -> String {
    utc(unix).format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A moment in UTC to the second as file names have it: `2006-01-02T15-04-05`. As texts they sort like the moments.
pub fn utc_stamp(unix: Duration) -> String {
    utc(unix).format(STAMP).to_string()
}

/// The moment of a [`utc_stamp`].
pub fn of_utc_stamp(stamp: &str) -> Option<Duration> {
    let moment = chrono::NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
    Some(Duration::from_secs(u64::try_from(moment.and_utc().timestamp()).ok()?))
}

/// The number of the day in UTC since the epoch.
pub fn utc_day(unix: Duration) -> u64 {
    unix.as_secs() / 86_400
}

const STAMP: &str = "%Y-%m-%dT%H-%M-%S";

fn utc(unix: Duration) -> chrono::DateTime<chrono::Utc> {
    let seconds = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
    chrono::DateTime::from_timestamp(seconds, unix.subsec_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_sort_and_read_back() {
        let moment = Duration::new(1_795_738_353, 987_654_321);
        assert_eq!(utc_text(moment), "2026-11-27T00:12:33.987654Z");
        assert_eq!(utc_stamp(moment), "2026-11-27T00-12-33");
        assert_eq!(of_utc_stamp("2026-11-27T00-12-33"), Some(Duration::from_secs(moment.as_secs())));
        for bad in ["", "2026-11-27", "2026-11-27T00:12:33", "2026-13-27T00-12-33", "1969-12-31T23-59-59"] {
            assert_eq!(of_utc_stamp(bad), None, "{bad}");
        }
        assert!(utc_stamp(Duration::from_secs(86_399)) < utc_stamp(Duration::from_secs(86_400)));
        assert_eq!(utc_day(Duration::from_secs(86_400)) - utc_day(Duration::from_secs(86_399)), 1);
    }
}
