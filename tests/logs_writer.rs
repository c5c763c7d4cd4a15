//! Log lines are written whole, once and in order, through rotations and a full disk, or counted.
//!
//! Method: the product's buffer, writer, file and archive over a folder of the test's own; what is found in its files
//! afterwards is compared with what was handed over. The disk that gets full is a tmpfs of one MiB in a mount namespace
//! of the test's own process, which `unshare` makes; where that is forbidden it is a limit on the length of files.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use ws_cluster::{
    clock,
    logs::{
        archive::{Archive, Shelf},
        buffer::Buffer,
        file::{LogFile, Note, divide},
        line::Form,
        rotation::{Keep, When},
        writer::{self, Output},
    },
    metrics::{Count, Counters},
};

const PATIENCE: Duration = Duration::from_secs(60);
const FOREVER: Keep = Keep { files: 0, bytes: 0, age: Duration::ZERO };
const DAY: u64 = 86_400;

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logs-{:016x}", fastrand::u64(..)));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("ws-cluster.log")
    }

    /// The log's files in the order of their names, the current one last.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| (name == "ws-cluster.log", name.clone()));
        names
    }

    /// All lines of all files, in order.
    fn text(&self) -> String {
        let mut text = String::new();
        for name in self.names() {
            let mut file = File::open(self.0.join(&name)).expect("a log file");
            let read = if name.ends_with(".gz") {
                GzDecoder::new(file).read_to_string(&mut text)
            } else {
                file.read_to_string(&mut text)
            };
            read.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Log {
    buffer: Arc<Buffer>,
    counters: Arc<Counters>,
}

impl Log {
    fn start(path: &Path, buffer_bytes_max: usize, when: When, compress: bool) -> Self {
        let counters = Arc::<Counters>::default();
        let buffer = Arc::new(Buffer::new(buffer_bytes_max, Form::Human { target: false }, counters.clone()));
        let file = LogFile::open(path, when, clock::unix_now()).expect("the log file");
        let (directory, names) = divide(path).expect("a path");
        let shelf = Shelf { directory, names, keep: FOREVER, compress, counters: counters.clone() };
        let archive = Archive::start(shelf).expect("its thread");
        let filled = buffer.clone();
        std::thread::spawn(move || writer::run(&filled, Output::File(Box::new(file), archive)));
        Self { buffer, counters }
    }

    fn flush(&self) {
        assert_eq!(self.buffer.flush(clock::now() + PATIENCE), 0, "bytes are left");
    }

    fn count(&self, count: Count) -> u64 {
        self.counters.get(count)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may wait")]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that the lines `t<thread> <number>` of each thread are 0, 1, 2, …; how many each had, and the other lines.
fn in_order(text: &str) -> (Vec<u64>, Vec<&str>) {
    assert!(text.is_empty() || text.ends_with('\n'), "the end is torn");
    let (mut next, mut others) = (vec![0; 8], Vec::new());
    for line in text.lines() {
        let Some((thread, rest)) = line.strip_prefix('t').and_then(|line| line.split_once(' ')) else {
            others.push(line);
            continue;
        };
        let (number, padding) = rest.split_once(' ').expect("a whole line");
        let thread: usize = thread.parse().expect("a thread");
        assert_eq!(number.parse(), Ok(next[thread]), "lost, twice or out of order: {line}");
        assert!(padding.starts_with('.') && padding.ends_with('$'), "torn: {line}");
        next[thread] += 1;
    }
    (next, others)
}

#[test]
fn a_million_lines_through_twenty_rotations_arrive_once_and_in_order() {
    const EACH: u64 = 250_000;
    let folder = Folder::new();
    let when = When { bytes: 2 << 20, daily: true };
    let log = Log::start(&folder.log(), 256 << 20, when, true);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let buffer = &log.buffer;
            scope.spawn(move || {
                for number in 0..EACH {
                    let line = format!("t{thread} {number} .some words that make it as long as a short line is$\n");
                    assert!(buffer.push(line.as_bytes()), "there is room");
                }
            });
        }
    });
    log.flush();
    let rotations = log.count(Count::LogFilesRotated);
    assert!(rotations >= 20, "{rotations} rotations");
    eventually("all are compressed", || log.count(Count::LogFilesCompressed) == rotations);
    let names = folder.names();
    assert_eq!(names.len() as u64, rotations + 1, "{names:?}");
    assert!(names[..names.len() - 1].iter().all(|name| name.ends_with(".log.gz")), "{names:?}");
    let longest = names.iter().map(|name| fs::metadata(folder.0.join(name)).map_or(0, |meta| meta.len())).max();
    assert!(longest <= Some(2 << 20), "{longest:?}");
    let text = folder.text();
    assert_eq!(in_order(&text), (vec![EACH, EACH, EACH, EACH, 0, 0, 0, 0], vec![]));
    assert_eq!((log.count(Count::LinesDropped), log.count(Count::LinesBufferBytes)), (0, 0));
}

const INSIDE: &str = "WS_TEST_DISK";

/// Runs this very test again in a process whose disk can get full.
fn on_a_small_disk(test: &str) {
    let program = std::env::current_exe().expect("this program");
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    let folder = Folder::new();
    let mounted = |flags: &[&str]| {
        let mount = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$WS_TEST_DISK\" || exit 77; exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(flags).args(["--mount", "sh", "-c", mount]).arg(&program).args(arguments).env(INSIDE, &folder.0);
        let status = command.status().expect("unshare (util-linux) is needed for this test").code();
        (!matches!(status, Some(1 | 77))).then_some(status)
    };
    let limited = || {
        // The kernel's signal would end the process; without it a write falls short, as on a full disk.
        let limit = "trap '' XFSZ; ulimit -S -f 512; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limit]).arg(&program).args(arguments).env(INSIDE, &folder.0).env("WS_TEST_LIMIT", "1");
        command.status().expect("sh").code()
    };
    let status = mounted(&[]).or_else(|| mounted(&["--user", "--map-root-user"]));
    if status.is_none() {
        eprintln!("no tmpfs may be mounted here: a limit on the length of files takes its place");
    }
    assert_eq!(status.unwrap_or_else(limited), Some(0), "the test on the small disk");
}

/// The small disk from within.
struct Disk(PathBuf);

impl Disk {
    fn inside() -> Option<Self> {
        let disk = Self(PathBuf::from(std::env::var_os(INSIDE)?));
        if !disk.is_limit() {
            // Of its one MiB half is taken by somebody else.
            fs::write(disk.0.join("ballast"), vec![1; 512 << 10]).expect("room");
        }
        Some(disk)
    }

    fn is_limit(&self) -> bool {
        std::env::var_os("WS_TEST_LIMIT").is_some()
    }

    fn give_room(&self) {
        if self.is_limit() {
            let own = std::process::id().to_string();
            let status = Command::new("prlimit").args(["--pid", &own, "--fsize=unlimited:"]).status();
            assert!(status.is_ok_and(|status| status.success()), "prlimit (util-linux) is needed for this test");
        } else {
            fs::remove_file(self.0.join("ballast")).expect("the ballast");
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_that_fits_the_buffer_and_counts_the_rest() {
    const BUFFER: usize = 128 << 10;
    let Some(disk) = Disk::inside() else {
        return on_a_small_disk("a_full_disk_loses_nothing_that_fits_the_buffer_and_counts_the_rest");
    };
    let path = disk.0.join("ws-cluster.log");
    let log = Log::start(&path, BUFFER, When { bytes: 0, daily: false }, false);
    let (mut taken, mut lost) = (0_u64, 0_u64);
    let mut push = |padding: &str| {
        let line = format!("t0 {taken} .{padding}$\n");
        let is_taken = log.buffer.push(line.as_bytes());
        if is_taken {
            taken += 1
        } else {
            lost += 1
        }
        (is_taken, line.len())
    };
    let padding = "a line of some length, so that the disk is full in the middle of one ".repeat(2);
    // One line at a time until the disk takes no more; what is written till then is never lost.
    while log.count(Count::LinesWritesFailed) == 0 {
        let (is_taken, _) = push(&padding);
        assert!(is_taken, "the disk was not full yet");
        while log.count(Count::LinesBufferBytes) as usize > BUFFER / 2 && log.count(Count::LinesWritesFailed) == 0 {
            std::thread::yield_now();
        }
    }
    assert!(fs::read_to_string(&path).expect("the log").ends_with('\n'), "a line is torn while the disk is full");
    // Then the buffer fills up to its last line, and only then lines are lost.
    loop {
        let before = log.count(Count::LinesBufferBytes) as usize;
        let (is_taken, bytes) = push(&padding);
        assert_eq!(is_taken, before + bytes <= BUFFER, "{before} and {bytes} bytes");
        if !is_taken {
            break;
        }
    }
    (0..99).for_each(|_| assert!(!push(&padding).0));
    assert_eq!(log.count(Count::LinesDropped), 100);
    disk.give_room();
    log.flush();
    (0..1000).for_each(|_| {
        push("after");
    });
    log.flush();
    let text = fs::read_to_string(&path).expect("the log");
    let (numbers, others) = in_order(&text);
    assert_eq!(numbers[0], taken, "every line that was taken is there");
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(others[0].ends_with(" WARN 100 lines were lost"), "{others:?}");
    let place = text.lines().position(|line| line == others[0]).expect("its place") as u64;
    assert_eq!(place, taken - 1000, "it stands where they would have stood");
    assert_eq!((log.count(Count::LinesDropped), lost), (100, 100));
    assert!(log.count(Count::LinesWritesFailed) > 0);
}

/// Appends one line as if it were `seconds` after the epoch.
fn append(file: &mut LogFile, line: &str, seconds: u64) -> Option<Note> {
    let mut noted = None;
    let written = file.append(line.as_bytes(), Duration::from_secs(seconds), |note| noted = Some(note));
    assert_eq!(written.expect("room"), line.len());
    noted
}

#[test]
fn the_first_line_of_a_day_begins_a_new_file() {
    let folder = Folder::new();
    let begin = 20_000 * DAY;
    let when = When { bytes: 0, daily: true };
    let mut file = LogFile::open(&folder.log(), when, Duration::from_secs(begin)).expect("the file");
    assert_eq!(append(&mut file, "first\n", begin + 10), None);
    assert_eq!(append(&mut file, "last\n", begin + DAY - 1), None);
    assert_eq!(append(&mut file, "next\n", begin + DAY), Some(Note::Rotated));
    assert_eq!(append(&mut file, "later\n", begin + 3 * DAY + 5), Some(Note::Rotated));
    assert_eq!(
        folder.names(),
        ["ws-cluster.2024-10-05T00-00-00.001.log", "ws-cluster.2024-10-07T00-00-05.001.log", "ws-cluster.log"]
    );
    assert_eq!(folder.text(), "first\nlast\nnext\nlater\n");
    let first = fs::read_to_string(folder.0.join(&folder.names()[0])).expect("the first day");
    assert_eq!(first, "first\nlast\n");
}

#[test]
fn a_file_of_an_earlier_process_goes_on_at_a_line_and_its_names_are_never_given_twice() {
    let folder = Folder::new();
    let (now, when) = (clock::unix_now().as_secs(), When { bytes: 100, daily: false });
    fs::write(folder.log(), "whole\ntorn").expect("a file");
    let ahead = "ws-cluster.2999-01-01T00-00-00.007.log.gz";
    fs::write(folder.0.join(ahead), "").expect("a file of a clock that was ahead");
    let mut file = LogFile::open(&folder.log(), when, Duration::from_secs(now)).expect("the file");
    append(&mut file, "next\n", now);
    assert_eq!(fs::read_to_string(folder.log()).expect("the log"), "whole\ntorn\nnext\n");
    assert_eq!(append(&mut file, &format!("{}\n", "x".repeat(90)), now), Some(Note::Rotated));
    assert_eq!(folder.names(), [ahead, "ws-cluster.2999-01-01T00-00-00.008.log", "ws-cluster.log"]);
    let second = LogFile::open(&folder.log(), when, Duration::from_secs(now));
    assert!(second.is_err_and(|error| error.to_string().contains("another process")), "one process a file");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_and_one_that_cannot_be_rotated_goes_on() {
    let folder = Folder::new();
    let (now, when) = (20_000 * DAY, When { bytes: 100, daily: false });
    let mut file = LogFile::open(&folder.log(), when, Duration::from_secs(now)).expect("the file");
    append(&mut file, "before\n", now);
    fs::rename(folder.log(), folder.0.join("elsewhere")).expect("moved");
    append(&mut file, "soon\n", now);
    append(&mut file, "after\n", now + 2);
    assert_eq!(fs::read_to_string(folder.0.join("elsewhere")).expect("the old one"), "before\nsoon\n");
    assert_eq!(fs::read_to_string(folder.log()).expect("the new one"), "after\n");
    // A folder in the way of the new name: nothing can be renamed onto it.
    let in_the_way = folder.0.join("ws-cluster.2024-10-04T00-00-03.001.log");
    fs::create_dir_all(in_the_way.join("x")).expect("a folder");
    let long = format!("{}\n", "x".repeat(98));
    assert_eq!(append(&mut file, &long, now + 3), Some(Note::NotRotated));
    assert_eq!(append(&mut file, "more\n", now + 4), None, "it is not tried with every line");
    assert_eq!(append(&mut file, "more\n", now + 14), Some(Note::Rotated), "but again");
    assert_eq!(fs::read_to_string(folder.log()).expect("the log"), "more\n");
}

#[test]
fn old_files_are_compressed_and_go_when_they_are_too_many_too_large_or_too_old() {
    let folder = Folder::new();
    let (directory, names) = divide(&folder.log()).expect("a path");
    let now = Duration::from_secs(20_010 * DAY);
    for day in 1..=6 {
        // What does not get smaller, so that lengths are known.
        let noise: Vec<u8> = (0..10_000).map(|_| fastrand::u8(..)).collect();
        fs::write(folder.0.join(format!("ws-cluster.2024-10-{day:02}T00-00-00.001.log")), noise).expect("a file");
    }
    for other in ["ws-cluster.log", "ws-cluster.old.log", "notes.txt"] {
        fs::write(folder.0.join(other), "kept\n").expect("a file");
    }
    fs::write(folder.0.join("ws-cluster.2024-10-02T00-00-00.001.log.gz.unfinished"), "half").expect("a file");
    let counters = Arc::<Counters>::default();
    let tidied = |keep: Keep| -> Vec<String> {
        let shelf = Shelf {
            directory: directory.clone(),
            names: names.clone(),
            keep,
            compress: true,
            counters: counters.clone(),
        };
        shelf.tidy(now);
        folder
            .names()
            .iter()
            .filter_map(|name| Some(name.strip_prefix("ws-cluster.2024-10-")?[..2].to_owned()))
            .collect()
    };
    assert_eq!(tidied(FOREVER), ["01", "02", "03", "04", "05", "06"]);
    assert!(folder.names().iter().filter(|name| name.contains("2024")).all(|name| name.ends_with(".log.gz")));
    assert_eq!(counters.get(Count::LogFilesCompressed), 6);
    assert_eq!(tidied(Keep { files: 5, ..FOREVER }), ["02", "03", "04", "05", "06"]);
    assert_eq!(tidied(Keep { bytes: 45_000, ..FOREVER }), ["03", "04", "05", "06"]);
    // 20010 days after the epoch it is the 14th.
    assert_eq!(tidied(Keep { age: Duration::from_secs(10 * DAY), ..FOREVER }), ["04", "05", "06"]);
    assert_eq!(counters.get(Count::LogFilesRemoved), 3);
    for other in ["ws-cluster.log", "ws-cluster.old.log", "notes.txt"] {
        assert!(folder.0.join(other).exists(), "{other}");
    }
}

#[test]
fn a_compression_that_fails_leaves_the_plain_file() {
    let folder = Folder::new();
    let (directory, names) = divide(&folder.log()).expect("a path");
    let plain = folder.0.join("ws-cluster.2024-10-01T00-00-00.001.log");
    File::create(&plain).and_then(|mut file| file.write_all(b"line\n")).expect("a file");
    // A folder where the copy would be made.
    fs::create_dir_all(folder.0.join("ws-cluster.2024-10-01T00-00-00.001.log.gz.unfinished/x")).expect("a folder");
    let counters = Arc::<Counters>::default();
    let shelf = Shelf { directory, names, keep: FOREVER, compress: true, counters: counters.clone() };
    shelf.tidy(clock::unix_now());
    assert_eq!(fs::read_to_string(&plain).expect("the plain file"), "line\n");
    assert_eq!((counters.get(Count::LogFilesCompressed), counters.get(Count::LogFilesNotCompressed)), (0, 1));
}
