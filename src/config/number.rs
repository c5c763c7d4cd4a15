//! Durations and sizes as people write them, and back.

use std::time::Duration;

const TIME_UNITS: &[(&str, f64)] = &[("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const SIZE_UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What a duration looks like.
pub const TIME_FORM: &str =
    "a duration is seconds (10, 0.5) or a number with ms, s, m, h or d (\"500ms\", \"10s\", \"5m\")";
/// What a size looks like.
pub const SIZE_FORM: &str = "a size is bytes (65536) or a whole number with B, KiB, MiB or GiB (\"64KiB\", \"1MiB\")";

/// Reads `10`, `0.5`, `500ms`, `10s`, `5m`, `1h`, `1d`.
pub fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = if unit.is_empty() { 1.0 } else { find(TIME_UNITS, unit)? };
    let seconds = number.parse::<f64>().ok()? * factor;
    // Rounded to what the largest unit can say exactly, so that 0.1 reads as 100 ms and not as 100.000000006.
    let microseconds = (seconds * 1e6).round();
    (microseconds < 1e15).then(|| Duration::from_micros(microseconds as u64))
}

/// Writes a duration in the largest unit that says it exactly.
pub fn show_time(time: Duration) -> String {
    let ms = time.as_millis();
    if !time.subsec_nanos().is_multiple_of(1_000_000) {
        return format!("{}", time.as_secs_f64());
    }
    let whole = |unit: u128, name: &str| (ms != 0 && ms.is_multiple_of(unit)).then(|| format!("{}{name}", ms / unit));
    whole(86_400_000, "d")
        .or_else(|| whole(3_600_000, "h"))
        .or_else(|| whole(60_000, "m"))
        .or_else(|| whole(1000, "s"))
        .unwrap_or_else(|| format!("{ms}ms"))
}

/// Reads `65536`, `64KiB`, `1MiB`, `1GiB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = if unit.is_empty() { 1 } else { find(SIZE_UNITS, unit)? };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes a size in the largest unit that says it exactly.
pub fn show_size(bytes: u64) -> String {
    let whole = SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    whole.map_or_else(|| "0".to_owned(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Divides a number from its unit; neither signs nor exponents are numbers here.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

fn find<T: Copy>(units: &[(&str, T)], unit: &str) -> Option<T> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let cases = [
            ("10", 10_000),
            ("0.5", 500),
            ("0.1", 100),
            ("500ms", 500),
            ("10s", 10_000),
            ("10 s", 10_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1", "1e3", "10sec", "10 S", "1.2.3", "inf", "nan", "99999999999999999999d", "1m30s"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("1460", 1460), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2GiB", 2 << 30), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.5MiB", "64KB", "64k", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 1, 999, 1000, 1500, 60_000, 90_000, 600_000, 3_600_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_time(&show_time(time)), Some(time), "{}", show_time(time));
        }
        for bytes in [0, 1, 1460, 1024, 65_536, (1 << 20) + 1, 256 << 20, 1 << 30] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes), "{}", show_size(bytes));
        }
    }
}
