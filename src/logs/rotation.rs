//! When a log file is closed for a new one, what it is called then, and which old ones are kept. Neither files nor a
//! clock.
//!
//! Invariant: a later file has a greater name, also when the clock was set back: texts sort like the lines in them.

use std::{cmp::Reverse, time::Duration};

use crate::clock;

/// What of a directory's names belongs to one log: `ws-cluster.log` is divided into `ws-cluster` and `.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    stem: String,
    extension: String,
}

/// What a rotated file is called after: the second, and its number among those of that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Whole seconds since the epoch.
    pub seconds: u64,
    /// From 1; three digits at least.
    pub number: u32,
}

/// A rotated file as a directory shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Its name.
    pub name: String,
    /// When it was rotated.
    pub stamp: Stamp,
    /// Whether it is compressed.
    pub is_compressed: bool,
    /// Its length.
    pub bytes: u64,
}

/// Which rotated files are kept; 0 is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many.
    pub files: usize,
    /// How many bytes together.
    pub bytes: u64,
    /// How old.
    pub age: Duration,
}

/// When a file is closed for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Before it is longer than this; 0: never for its length.
    pub bytes: u64,
    /// When a day in UTC has begun, which is the time that lines have.
    pub daily: bool,
}

/// The end of a compressed file's name.
pub const COMPRESSED: &str = ".gz";
/// The end of the name of a file that is being compressed.
pub const UNFINISHED: &str = ".gz.unfinished";
/// Numbers of one second have three digits, so that they sort.
const NUMBER_MAX: u32 = 999;

impl When {
    /// Whether a file of `bytes`, whose first line is of `day`, is closed before `line_bytes` more are written.
    pub fn is_due(self, bytes: u64, day: u64, line_bytes: u64, unix: Duration) -> bool {
        let too_long = self.bytes != 0 && bytes + line_bytes > self.bytes;
        let other_day = self.daily && day != clock::utc_day(unix);
        bytes > 0 && (too_long || other_day)
    }

    /// How many bytes of lines may follow in a file that has `bytes`.
    pub fn room(self, bytes: u64) -> u64 {
        if self.bytes == 0 { u64::MAX } else { self.bytes.saturating_sub(bytes) }
    }
}

impl Stamp {
    /// What a file is called after that is rotated now; `last` is the newest one there is.
    pub fn next(last: Option<Self>, unix: Duration) -> Self {
        let fresh = Self { seconds: unix.as_secs(), number: 1 };
        match last {
            Some(last) if last >= fresh && last.number < NUMBER_MAX => Self { number: last.number + 1, ..last },
            Some(last) if last >= fresh => Self { seconds: last.seconds + 1, number: 1 },
            _ => fresh,
        }
    }
}

impl Names {
    /// Those of the log whose current file is called `name`.
    pub fn of(name: &str) -> Self {
        let (stem, extension) = match name.rfind('.') {
            Some(at) if at > 0 => name.split_at(at),
            _ => (name, ""),
        };
        Self { stem: stem.to_owned(), extension: extension.to_owned() }
    }

    /// The current file's name.
    pub fn current(&self) -> String {
        format!("{}{}", self.stem, self.extension)
    }

    /// A rotated file's name, as `ws-cluster.2026-11-27T00-12-33.001.log`.
    pub fn rotated(&self, stamp: Stamp) -> String {
        let moment = clock::utc_stamp(Duration::from_secs(stamp.seconds));
        format!("{}.{moment}.{:03}{}", self.stem, stamp.number, self.extension)
    }

    /// Reads a name in the log's directory; nothing if it is none of this log's rotated files.
    pub fn read(&self, name: &str, bytes: u64) -> Option<Rotated> {
        let (plain, is_compressed) = match name.strip_suffix(COMPRESSED) {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let middle = plain.strip_prefix(&self.stem)?.strip_prefix('.')?.strip_suffix(&self.extension)?;
        let (moment, number) = middle.split_once('.')?;
        let seconds = clock::of_utc_stamp(moment)?.as_secs();
        let is_number = number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number)?;
        Some(Rotated { name: name.to_owned(), stamp: Stamp { seconds, number }, is_compressed, bytes })
    }

    /// Whether this is what a compression left that did not come to its end.
    pub fn is_unfinished(&self, name: &str) -> bool {
        name.strip_suffix(UNFINISHED).is_some_and(|plain| self.read(plain, 0).is_some())
    }
}

impl Keep {
    /// Which of `rotated` are to be removed: the oldest first, until what is left is within all bounds.
    pub fn to_remove(self, mut rotated: Vec<Rotated>, unix: Duration) -> Vec<Rotated> {
        rotated.sort_by_key(|file| Reverse(file.stamp));
        let (mut files, mut bytes) = (0, 0);
        let is_kept = |file: &Rotated| {
            files += 1;
            bytes += file.bytes;
            let age = unix.saturating_sub(Duration::from_secs(file.stamp.seconds));
            let too_many = self.files != 0 && files > self.files;
            let too_large = self.bytes != 0 && bytes > self.bytes;
            let too_old = !self.age.is_zero() && age > self.age;
            !(too_many || too_large || too_old)
        };
        // The first that is not kept has only older ones behind it.
        let kept = rotated.iter().position({
            let mut is_kept = is_kept;
            move |file| !is_kept(file)
        });
        let mut removed = rotated.split_off(kept.unwrap_or(rotated.len()));
        removed.reverse();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn file(seconds: u64, bytes: u64) -> Rotated {
        let names = Names::of("x.log");
        names.read(&names.rotated(Stamp { seconds, number: 1 }), bytes).expect("a rotated name")
    }

    #[test]
    fn names_sort_like_their_files_and_read_back() {
        let names = Names::of("ws-cluster.log");
        let (mut last, mut all) = (None, Vec::new());
        // Many in one second, then the clock is set back, then it goes on.
        let moments = std::iter::repeat_n(1_795_738_353, 1100).chain([1_795_738_000, 1_795_738_360]);
        for seconds in moments {
            let stamp = Stamp::next(last, at(seconds));
            let name = names.rotated(stamp);
            let read = names.read(&format!("{name}{COMPRESSED}"), 7).expect("its own name");
            assert_eq!((read.stamp, read.is_compressed, read.bytes), (stamp, true, 7));
            last = Some(stamp);
            all.push(name);
        }
        assert_eq!(all[0], "ws-cluster.2026-11-27T00-12-33.001.log");
        assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(names.current(), "ws-cluster.log");
    }

    #[test]
    fn other_files_of_the_directory_are_none_of_ours() {
        let names = Names::of("ws-cluster.log");
        for other in [
            "ws-cluster.log",
            "ws-cluster.old.log",
            "ws-cluster.2026-11-27T00-12-33.log",
            "ws-cluster.2026-11-27T00-12-33.1.log",
            "ws-cluster.2026-11-27T00-12-33.001.txt",
            "ws-cluster.2026-11-27T00-12-33.001.log.gz.unfinished",
            "other.2026-11-27T00-12-33.001.log",
        ] {
            assert_eq!(names.read(other, 0), None, "{other}");
        }
        assert!(names.is_unfinished("ws-cluster.2026-11-27T00-12-33.001.log.gz.unfinished"));
        assert!(!names.is_unfinished("other.gz.unfinished"));
        for (name, stamped) in
            [("plain", "plain.1970-01-01T00-00-00.001"), (".hidden", ".hidden.1970-01-01T00-00-00.001")]
        {
            assert_eq!(Names::of(name).rotated(Stamp { seconds: 0, number: 1 }), stamped);
        }
    }

    #[test]
    fn a_file_is_closed_before_it_is_too_long_and_when_a_day_has_begun() {
        let when = When { bytes: 100, daily: true };
        assert!(!when.is_due(90, 1, 10, at(DAY)));
        assert!(when.is_due(91, 1, 10, at(DAY)));
        assert!(!when.is_due(0, 1, 500, at(DAY)), "an empty file takes a line of any length");
        assert!(!when.is_due(1, 1, 1, at(2 * DAY - 1)));
        assert!(when.is_due(1, 1, 1, at(2 * DAY)));
        assert!(when.is_due(1, 1, 1, at(DAY - 1)), "the clock was set back over midnight");
        assert!(!When { daily: false, ..when }.is_due(1, 1, 1, at(9 * DAY)));
        assert!(!When { bytes: 0, daily: true }.is_due(u64::MAX / 2, 1, 10, at(DAY)));
    }

    #[test]
    fn the_oldest_go_until_the_rest_is_within_every_bound() {
        let files = || vec![file(3 * DAY, 30), file(DAY, 10), file(2 * DAY, 20), file(4 * DAY, 40)];
        let removed = |keep: Keep| -> Vec<u64> {
            keep.to_remove(files(), at(5 * DAY)).into_iter().map(|file| file.stamp.seconds / DAY).collect()
        };
        let all = Keep { files: 0, bytes: 0, age: Duration::ZERO };
        assert_eq!(removed(all), [] as [u64; 0]);
        assert_eq!(removed(Keep { files: 2, ..all }), [1, 2]);
        assert_eq!(removed(Keep { bytes: 90, ..all }), [1]);
        assert_eq!(removed(Keep { bytes: 89, ..all }), [1, 2]);
        assert_eq!(removed(Keep { age: at(3 * DAY), ..all }), [1]);
        assert_eq!(removed(Keep { files: 3, bytes: 40, age: at(2 * DAY) }), [1, 2, 3]);
    }
}
