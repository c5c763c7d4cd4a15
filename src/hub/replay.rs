//! Publications that a resuming subscriber has missed, on their way into its outbox.
//!
//! Invariants: they cost no bytes until the socket takes them; thinned or not, each says how many publications it
//! stands for besides itself.

use std::sync::Arc;

use crate::{
    model::Published,
    protocol::{frame, frame::OpCode, message},
};

/// Bytes that a replay is expanded to at most at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// What is left of a replay.
#[derive(Debug)]
pub(super) struct Replay {
    /// Each with the number of publications that were merged into it.
    missed: std::vec::IntoIter<(Arc<Published>, u32)>,
    conflates: bool,
}

impl Replay {
    /// A replay of `missed`, oldest first; `conflates` says that it may be thinned.
    pub fn new(missed: Vec<Arc<Published>>, conflates: bool) -> Self {
        let missed: Vec<_> = missed.into_iter().map(|published| (published, 0)).collect();
        Self { missed: missed.into_iter(), conflates }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.missed.len() == 0
    }

    /// The next frames.
    pub fn next_chunk(&mut self) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut text = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            let Some((published, merged)) = self.missed.next() else { break };
            text.clear();
            message::publication(&mut text, &published, message::Arrival::Live { merged });
            frame::encode_into(&mut chunk, OpCode::Text, &text);
        }
        chunk
    }

    /// Of a slow subscriber's replay only the kept publications and the newest are left; how many were merged away.
    pub fn thin(&mut self) -> usize {
        if !self.conflates {
            return 0;
        }
        let before = self.missed.len();
        let (mut left, mut merged) = (Vec::new(), 0);
        let mut missed = std::mem::take(&mut self.missed);
        while let Some((published, stands_for)) = missed.next() {
            merged += stands_for;
            if published.keep || missed.len() == 0 {
                left.push((published, std::mem::take(&mut merged)));
            } else {
                merged += 1;
            }
        }
        self.missed = left.into_iter();
        before - self.missed.len()
    }
}
