//! The log file: whole lines are appended, it is rotated, and it is found again when somebody moved it away.
//!
//! Invariants: one process writes a log file (it holds a lock on it); between two calls the file ends with a whole
//! line, whatever the disk took; a rotation that fails leaves the old file in use.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    clock,
    limits::{LOG_FILE_LOOK, LOG_ROTATE_RETRY},
};

use super::rotation::{Names, Rotated, Stamp, When};

/// What happened besides the writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The file was closed for a new one.
    Rotated,
    /// It could not be; lines go on into the old one.
    NotRotated,
}

/// The current file and how it is rotated.
#[derive(Debug)]
pub struct LogFile {
    directory: PathBuf,
    names: Names,
    when: When,
    file: File,
    bytes: u64,
    /// The day in UTC of its first line.
    day: u64,
    /// What has been read of a device or pipe in a file's place is not ours to cut or rename.
    is_regular: bool,
    last: Option<Stamp>,
    /// Not tried again before.
    rotate_after: Duration,
    look_after: Duration,
}

impl LogFile {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, or another process writes it.
    pub fn open(path: &Path, when: When, unix: Duration) -> io::Result<Self> {
        let (directory, names) = divide(path)?;
        let file = open(path)?;
        let meta = file.metadata()?;
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mut log = Self {
            when,
            bytes: 0,
            day: clock::utc_day(modified.unwrap_or(unix)),
            is_regular: meta.is_file(),
            last: rotated(&directory, &names)?.iter().map(|file| file.stamp).max(),
            rotate_after: Duration::ZERO,
            look_after: unix + LOG_FILE_LOOK,
            directory,
            names,
            file,
        };
        log.begin_at_a_line()?;
        Ok(log)
    }

    /// Appends from `lines`, which are whole lines, as many as fit into the file at once; how many bytes that were.
    ///
    /// # Errors
    /// Nothing could be written; nothing is in the file.
    pub fn append(&mut self, lines: &[u8], unix: Duration, mut note: impl FnMut(Note)) -> io::Result<usize> {
        self.look(unix);
        let first = end_of_line(lines, 0);
        if self.is_regular && self.when.is_due(self.bytes, self.day, first as u64, unix) && unix >= self.rotate_after {
            note(self.rotate(unix));
        }
        if self.bytes == 0 {
            self.day = clock::utc_day(unix);
        }
        let room = if self.is_regular { self.when.room(self.bytes) } else { u64::MAX };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let fitting = if room >= lines.len() { lines.len() } else { last_line_end(&lines[..room]).max(first) };
        self.write(&lines[..fitting])
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let written = self.file.write(lines)?;
        if written == lines.len() || !self.is_regular {
            self.bytes += written as u64;
            return Ok(written);
        }
        // The disk is full in the middle of a line. What is there of it goes, so that no line is ever torn.
        let whole = last_line_end(&lines[..written]);
        let kept = match self.file.set_len(self.bytes + whole as u64) {
            Ok(()) => whole,
            Err(_) => written,
        };
        self.bytes += kept as u64;
        if kept == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(kept) }
    }

    /// Closes the file for a new one.
    fn rotate(&mut self, unix: Duration) -> Note {
        match self.try_rotate(unix) {
            Ok(()) => Note::Rotated,
            Err(_) => {
                self.rotate_after = unix + LOG_ROTATE_RETRY;
                Note::NotRotated
            }
        }
    }

    /// The new file is there before the old one goes, so that on a disk without room for it nothing has happened.
    fn try_rotate(&mut self, unix: Duration) -> io::Result<()> {
        let stamp = Stamp::next(self.last, unix);
        let (path, away) = (self.path(), self.directory.join(self.names.rotated(stamp)));
        let next = self.directory.join(format!("{}.next", self.names.current()));
        let file = open(&next)?;
        if let Err(error) = fs::rename(&path, &away) {
            let _ = fs::remove_file(&next);
            return Err(error);
        }
        if let Err(error) = fs::rename(&next, &path) {
            let _ = fs::rename(&away, &path);
            return Err(error);
        }
        (self.file, self.bytes, self.last) = (file, 0, Some(stamp));
        Ok(())
    }

    /// Opens the file anew if what is at its path is another one by now, or none.
    fn look(&mut self, unix: Duration) {
        if !self.is_regular || unix < self.look_after && self.look_after - unix <= LOG_FILE_LOOK {
            return;
        }
        self.look_after = unix + LOG_FILE_LOOK;
        let identity = |meta: io::Result<fs::Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
        if identity(fs::metadata(self.path())) == identity(self.file.metadata()) {
            return;
        }
        if let Ok(file) = open(&self.path()) {
            self.file = file;
            self.day = clock::utc_day(unix);
            // A file that cannot be looked into is still better than none.
            let _ = self.begin_at_a_line();
        }
    }

    /// Ends a line that an earlier process left torn.
    fn begin_at_a_line(&mut self) -> io::Result<()> {
        self.bytes = if self.is_regular { self.file.metadata()?.len() } else { 0 };
        if self.bytes == 0 {
            return Ok(());
        }
        let mut last = [0];
        let mut reader = File::open(self.path())?;
        reader.seek(SeekFrom::End(-1))?;
        reader.read_exact(&mut last)?;
        // A disk that is full takes no newline either; the lines matter more.
        if last != *b"\n" && self.file.write(b"\n").is_ok() {
            self.bytes += 1;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.names.current())
    }
}

/// A log file's directory and its names.
///
/// # Errors
/// The path ends in no name.
pub fn divide(path: &Path) -> io::Result<(PathBuf, Names)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::other("the path does not end in a file's name"))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((directory, Names::of(name)))
}

/// A log's rotated files.
///
/// # Errors
/// The directory cannot be read.
pub fn rotated(directory: &Path, names: &Names) -> io::Result<Vec<Rotated>> {
    let entries = fs::read_dir(directory)?.flatten();
    let read = |entry: fs::DirEntry| names.read(entry.file_name().to_str()?, entry.metadata().ok()?.len());
    Ok(entries.filter_map(read).collect())
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process writes it")),
        // Not every file system has locks, and not everything that can be written is a file.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Where the line ends that begins at `begin`.
fn end_of_line(lines: &[u8], begin: usize) -> usize {
    lines[begin..].iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| begin + at + 1)
}

/// Where the last whole line ends; 0 if there is none.
fn last_line_end(lines: &[u8]) -> usize {
    lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}
