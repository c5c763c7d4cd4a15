//! One core on monoio: accept, read, write, timers. The only place with users' sockets.
//!
//! The way in: [`accept()`] → [`opening`] (head, judgement, 101) → [`connection`] (decode, pace) → a [`Service`].
//! The way out: a hub's outboxes → [`Core::walk`] → sockets. Nothing above this floor sees a user's socket.

mod accept;
mod admission;
mod connection;
mod connections;
mod core;
mod driver;
mod gateway;
mod opening;
mod rate;
mod readiness;
mod service;
mod socket;
mod timers;
mod turn;

pub use accept::accept;
pub use admission::{Admission, NotAdmitted, Permit};
pub use core::Core;
pub use driver::{Driven, Driver, run_on_driver};
pub use gateway::{AuthReject, Gateway, GatewaySettings};
pub use opening::Fallback;
pub use service::{Admitted, Hangup, Plain, Service, Verdict};
pub use socket::Socket;
pub use timers::tick;
