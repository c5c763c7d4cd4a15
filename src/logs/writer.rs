//! The thread that writes log lines: the only one that waits for a disk or a terminal.
//!
//! Invariant: what it has taken it writes once and in order, however often that fails, until the process ends.

use std::{
    collections::VecDeque,
    io::{self, Stderr, Write},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock,
    limits::{LOG_WRITE_RETRY_MAX, LOG_WRITE_RETRY_MIN},
    metrics::Count,
};

use super::{
    archive::Archive,
    buffer::Buffer,
    file::{LogFile, Note},
};

/// Where lines go.
#[derive(Debug)]
pub enum Output {
    /// The standard error, where a container's lines are gathered.
    Stderr(Stderr),
    /// A file, and who looks after its rotated ones.
    File(Box<LogFile>, Archive),
}

/// Writes what comes into the buffer, for ever.
pub fn run(buffer: &Arc<Buffer>, mut output: Output) {
    let (mut taken, mut pause) = (VecDeque::new(), LOG_WRITE_RETRY_MIN);
    loop {
        buffer.take(&mut taken);
        while let Some(chunk) = taken.pop_front() {
            write_all(buffer, &mut output, &chunk, &mut pause);
        }
    }
}

fn write_all(buffer: &Buffer, output: &mut Output, mut lines: &[u8], pause: &mut Duration) {
    while !lines.is_empty() {
        match output.write(lines, buffer) {
            Ok(bytes) => {
                if *pause > LOG_WRITE_RETRY_MIN {
                    output.complain(None);
                }
                *pause = LOG_WRITE_RETRY_MIN;
                lines = &lines[bytes..];
                buffer.written(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if output.is_gone(&error) => {
                buffer.thrown_away(lines.len(), lines.iter().filter(|byte| **byte == b'\n').count() as u64);
                return;
            }
            Err(error) => {
                buffer.counters().add_shared(Count::LinesWritesFailed, 1);
                if *pause == LOG_WRITE_RETRY_MIN {
                    output.complain(Some(&error));
                }
                buffer.pause(*pause);
                *pause = (*pause * 2).min(LOG_WRITE_RETRY_MAX);
            }
        }
    }
}

impl Output {
    /// Writes from the beginning of `lines`; how many bytes.
    fn write(&mut self, lines: &[u8], buffer: &Buffer) -> io::Result<usize> {
        let written = match self {
            Self::Stderr(stderr) => stderr.write(lines)?,
            Self::File(file, archive) => file.append(lines, clock::unix_now(), |note| match note {
                Note::Rotated => {
                    buffer.counters().add_shared(Count::LogFilesRotated, 1);
                    archive.look();
                }
                Note::NotRotated => buffer.counters().add_shared(Count::LogFilesNotRotated, 1),
            })?,
        };
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Whether nobody will ever read what would be written.
    fn is_gone(&self, error: &io::Error) -> bool {
        matches!(self, Self::Stderr(_)) && error.kind() == io::ErrorKind::BrokenPipe
    }

    /// Says once on the standard error that the file cannot be written, and once that it can again.
    fn complain(&self, error: Option<&io::Error>) {
        if let Self::File(..) = self {
            let _ = match error {
                Some(error) => writeln!(io::stderr(), "ws-cluster: the log file cannot be written, trying on: {error}"),
                None => writeln!(io::stderr(), "ws-cluster: the log file can be written again"),
            };
        }
    }
}
