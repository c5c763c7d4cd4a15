//! One peer's socket: reads and writes under deadlines.
//!
//! Invariants: a read or write that missed its deadline may have lost bytes, so the connection ends with it; the
//! buffer grows only by what arrived.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use monoio::{
    buf::SliceMut,
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt},
    net::TcpStream,
    time::timeout,
};

use crate::clock;

/// A read asks for at least this much room.
const READ_BYTES_MIN: usize = 1 << 10;
/// The buffer's first size, and its size when a connection is idle.
const BUFFER_BYTES: usize = 4 << 10;
/// How long the end waits for the peer to read the last answer and close.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// What the end reads and drops of a peer that goes on sending.
const LINGER_BYTES_MAX: usize = 2 << 20;

/// Why there are no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dry {
    /// The deadline passed.
    TimedOut,
    /// The peer closed, or the socket failed.
    Gone,
}

/// A peer's socket and what was read but not used yet.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Read but not used yet.
    pub input: BytesMut,
}

impl Socket {
    /// A socket of which `input` was read already.
    pub fn new(stream: TcpStream, input: BytesMut) -> Self {
        Self { stream, input }
    }

    /// The stream and what was read of it.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.input)
    }

    /// Reads what there is, at least one byte, onto `input`.
    pub async fn fill(&mut self, deadline: Instant) -> Result<(), Dry> {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(Dry::TimedOut);
        }
        let mut buffer = std::mem::take(&mut self.input);
        let filled = buffer.len();
        if buffer.capacity() - filled < READ_BYTES_MIN {
            buffer.reserve(BUFFER_BYTES);
        }
        let capacity = buffer.capacity();
        match timeout(left, self.stream.read(SliceMut::new(buffer, filled, capacity))).await {
            Err(_) => Err(Dry::TimedOut),
            Ok((Ok(0) | Err(_), _)) => Err(Dry::Gone),
            Ok((Ok(_), slice)) => {
                self.input = slice.into_inner();
                Ok(())
            }
        }
    }

    /// Waits until the peer has closed its side or the socket has failed. One that sends instead is there, and is
    /// not looked at any more. What it sends is lost.
    pub async fn gone(&mut self) {
        let buffer = vec![0; READ_BYTES_MIN];
        let (read, _) = self.stream.read(buffer).await;
        if matches!(read, Ok(1..)) {
            std::future::pending::<()>().await;
        }
    }

    /// Gives back the memory of a large body once nothing of it is left.
    pub fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 4 * BUFFER_BYTES {
            self.input = BytesMut::new();
        }
    }

    /// Writes all of `bytes` within `time_max`.
    pub async fn write(&mut self, bytes: impl Into<Bytes>, time_max: Duration) -> Result<(), Dry> {
        match timeout(time_max, self.stream.write_all(bytes.into())).await {
            Err(_) => Err(Dry::TimedOut),
            Ok((Err(_), _)) => Err(Dry::Gone),
            Ok((Ok(_), _)) => Ok(()),
        }
    }

    /// Ends a connection whose peer may still be sending: closing at once would reset it, and the peer would
    /// lose the answer that tells it why (RFC 9112 §9.6).
    pub async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let deadline = clock::now() + LINGER_TIME_MAX;
        let mut dropped = 0;
        while dropped < LINGER_BYTES_MAX {
            self.input.clear();
            if self.fill(deadline).await.is_err() {
                return;
            }
            dropped += self.input.len();
        }
    }
}
