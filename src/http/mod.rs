//! The HTTP API: a guarded HTTP/1.1 server and its handlers.
//!
//! The way of a request: [`listen()`] accepts, [`server`] reads under deadlines, [`head`] judges the head and how the
//! body is framed, [`chunked`] takes a chunked body apart, a [`Handler`] answers, [`encode`] writes.
//!
//! Invariants: a peer's bytes never panic; nothing grows by a length that was only declared; a request has exactly
//! one body framing, or it is refused and the connection closed. `monoio-http`'s decoder sees only heads that
//! passed [`head`]. Leaves out TLS and HTTP/2, which a proxy in front speaks.

pub mod api;
pub mod demo;
pub mod message;

mod listen;
mod server;

mod connection;
mod neighbour;
mod socket;

mod chunked;
mod encode;
mod head;

pub use listen::listen;
pub use message::{Fault, Head, Request, Response, health_response};
pub use neighbour::{Moved, Neighbour};
pub use server::{Handler, Preview, Server};
