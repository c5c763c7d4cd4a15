//! permessage-deflate (RFC 7692): what is agreed on, and messages into and out of their compressed form.
//!
//! Without context takeover in either direction, always: each message is compressed by itself. So one inflater and one
//! deflater serve all connections of a core, a compressed broadcast is right for everyone who gets it, and nothing of one
//! message shows in the length of another.
//!
//! Invariants: an offer that is not understood whole is declined and never ends a handshake; what a message inflates to
//! is bounded while it is made, not afterwards; what is sent refers no further back than the agreed window.
//! Left out: which messages are worth it. The hub decides that.

mod deflater;
mod inflater;
mod negotiation;
#[cfg(test)]
mod tests;

pub use self::{
    deflater::{Deflater, Window},
    inflater::Inflater,
    negotiation::{Agreement, Deflate, negotiate},
};

/// What every message compressed with a sync flush ends in, and what is not sent of it (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
