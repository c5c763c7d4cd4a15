//! What connections say: one JSON object a text message, turned into a command.
//!
//! Invariants: unknown members are ignored; a fault in one member does not hide the `ack_id` of the message;
//! payloads are the peer's own bytes.
//! Left out: whether a command is allowed. Names are checked, rights are not.

mod backend;
#[cfg(test)]
mod tests;
mod user;

use std::borrow::Cow;

pub use self::{
    backend::{BackendCommand, parse_backend},
    user::{TagRequest, UserCommand, parse_user},
};
use super::fault::Fault;

/// One message, and the `ack_id` that its answer carries.
#[derive(Debug)]
pub struct Parsed<'a, T> {
    /// To be echoed; none was given, or it was empty.
    pub ack_id: Option<Cow<'a, str>>,
    /// What is asked for, or why nothing is done.
    pub command: Result<T, Fault>,
}

impl<T> From<Fault> for Parsed<'_, T> {
    fn from(fault: Fault) -> Self {
        Self { ack_id: None, command: Err(fault) }
    }
}
