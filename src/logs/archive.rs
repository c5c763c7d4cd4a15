//! Rotated log files: compressed and, when they are too many, too large or too old, removed. On a thread of its own
//! with the lowest priority, so that neither a core nor the writer waits for it.
//!
//! Invariants: a file is removed only when its compressed copy is whole on the disk, or when it is not to be kept; what
//! an earlier process left half done is done again. Everything is found by names, so there is nothing to lose.
#![expect(unsafe_code, reason = "a thread's priority is lowered by a system call that std does not have")]

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    clock,
    limits::LOG_TIDY_INTERVAL,
    metrics::{Count, Counters},
};

use super::{
    file::rotated,
    rotation::{COMPRESSED, Keep, Names, Rotated, UNFINISHED},
};

/// How hard a log is compressed: it shrinks tenfold already, and more costs a multiple of the time.
const LEVEL: u32 = 3;

/// Tells the thread to look.
#[derive(Debug)]
pub struct Archive(SyncSender<()>);

/// A log's rotated files and what becomes of them.
#[derive(Debug)]
pub struct Shelf {
    /// Where they are.
    pub directory: PathBuf,
    /// What they are called.
    pub names: Names,
    /// Which are kept.
    pub keep: Keep,
    /// Whether they are compressed.
    pub compress: bool,
    /// Counts what is done.
    pub counters: Arc<Counters>,
}

impl Archive {
    /// Starts the thread, which looks at once and then when it is told to or it is time.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub fn start(shelf: Shelf) -> io::Result<Self> {
        let (tell, told) = sync_channel(1);
        thread::Builder::new().name("log-archive".to_owned()).spawn(move || run(&shelf, &told))?;
        Ok(Self(tell))
    }

    /// A file was rotated. If the thread has been told already, it will see this one too.
    pub fn look(&self) {
        let _ = self.0.try_send(());
    }
}

fn run(shelf: &Shelf, told: &Receiver<()>) {
    // SAFETY: the call takes numbers only; 0 is the calling thread. That it fails would be no harm.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    loop {
        shelf.tidy(clock::unix_now());
        if let Err(RecvTimeoutError::Disconnected) = told.recv_timeout(LOG_TIDY_INTERVAL) {
            return;
        }
    }
}

impl Shelf {
    /// Removes what is not to be kept and compresses the rest, the oldest first.
    pub fn tidy(&self, unix: Duration) {
        self.remove_unfinished();
        // Before the compression too: on a full disk it is what makes room for it.
        self.remove_old(unix);
        if self.compress {
            let mut plain = self.rotated();
            plain.retain(|file| !file.is_compressed);
            plain.sort_by_key(|file| file.stamp);
            for file in plain {
                let done = self.compress(&file);
                let count = if done.is_ok() { Count::LogFilesCompressed } else { Count::LogFilesNotCompressed };
                self.counters.add_shared(count, 1);
            }
            self.remove_old(unix);
        }
    }

    fn compress(&self, file: &Rotated) -> io::Result<()> {
        let path = self.directory.join(&file.name);
        let unfinished = self.directory.join(format!("{}{UNFINISHED}", file.name));
        let copied = copy_compressed(&path, &unfinished);
        if copied.is_err() {
            // Half a copy is of no use, and its room may be wanted.
            let _ = fs::remove_file(&unfinished);
            return copied;
        }
        fs::rename(&unfinished, self.directory.join(format!("{}{COMPRESSED}", file.name)))?;
        fs::remove_file(&path)
    }

    fn remove_old(&self, unix: Duration) {
        for file in self.keep.to_remove(self.rotated(), unix) {
            if fs::remove_file(self.directory.join(&file.name)).is_ok() {
                self.counters.add_shared(Count::LogFilesRemoved, 1);
            }
        }
    }

    fn remove_unfinished(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|name| self.names.is_unfinished(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn rotated(&self) -> Vec<Rotated> {
        rotated(&self.directory, &self.names).unwrap_or_default()
    }
}

fn copy_compressed(from: &PathBuf, to: &PathBuf) -> io::Result<()> {
    let mut encoder = GzEncoder::new(File::create(to)?, Compression::new(LEVEL));
    io::copy(&mut File::open(from)?, &mut encoder)?;
    // The plain file goes next, so the copy must outlive the machine.
    encoder.finish()?.sync_all()
}
