//! One message, encoded once for all the connections of a core that get it.
//!
//! Invariant: however many get it, its bytes are made once; each takes a counted reference.

use crate::protocol::{frame, frame::OpCode};

use super::outbox::Frame;

/// A text message as frames.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    plain: Frame,
}

impl Encoded {
    /// Encodes `text`.
    pub fn text(text: &[u8]) -> Self {
        Self { plain: frame::encode(OpCode::Text, text).into() }
    }

    /// The frame.
    pub fn frame(&self) -> Frame {
        self.plain.clone()
    }
}
