//! How a long piece of work lets the rest of its core go on.
//!
//! Why a socket: a monoio task that wakes itself goes to the front of the queue, and timers and foreign wakes are seen
//! only when the queue is empty. Waiting for a descriptor that is always readable (1.4 µs) lets all of them run.

use std::{io, io::Write, os::unix::net::UnixStream as StdStream};

use monoio::net::UnixStream;

/// Ends a turn of a task.
#[derive(Debug)]
pub struct Turn {
    always_readable: UnixStream,
    _writer: StdStream,
}

impl Turn {
    /// A new one; needs a running monoio runtime.
    pub fn new() -> io::Result<Self> {
        let (mut writer, reader) = StdStream::pair()?;
        writer.write_all(b"!")?;
        Ok(Self { always_readable: UnixStream::from_std(reader)?, _writer: writer })
    }

    /// Lets other tasks, input and output and timers run before it returns.
    pub async fn pass(&self) {
        // The byte is never read, so this neither fails nor waits for anybody.
        let _ = self.always_readable.readable(false).await;
    }
}
