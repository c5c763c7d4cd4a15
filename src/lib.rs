//! ws-cluster: an io_uring, thread-per-core WebSocket push cluster.
//!
//! `docs/ARCHITECTURE.md` has the drawing: which module is for what, and which may import which.

pub mod clock;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod model;
mod prefetch;

pub mod logs;
pub mod protocol;
pub mod router;
pub mod traces;

pub mod errors;
pub mod exchange;
pub mod hub;

pub mod inbox;

pub mod broker;

pub mod shard;

pub mod admin;
pub mod http;

pub mod config;
pub mod node;
