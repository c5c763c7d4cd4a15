//! Bytes to values and back: handshake, frames, commands, pushes, signatures, and the form between nodes.
//!
//! Invariants: no socket and no clock (the time is an argument); a peer's bytes end in an `Err`, never in a
//! panic; a payload passes byte for byte; no secret, sign, token or payload in an error or in `Debug`.
//! Left out: what to do about any of it. The shard and the HTTP API decide that.

pub mod handshake;

pub mod decoder;
pub mod deflate;
pub mod frame;

pub mod jwt;
pub mod query;
pub mod sign;

pub mod fault;
mod fields;
pub mod json;

pub mod command;
pub mod push;

pub mod crc;
pub mod message;

pub mod wire;
