//! What operators see and order: metrics, profiles, health, the log level, reloads, on a thread of their own.
//!
//! Invariants: nothing here runs on a core, so neither a scrape nor a profile stops one; what may not be seen by
//! everybody wants the token, and whether a listener may do without one is decided before it is bound. A further order
//! to the node gets a module beside [`log_level`] and a line in [`handler`].

mod drain;
mod handler;
mod latency;
mod log_level;
mod order;
mod pages;
mod pprof;
mod reload;
mod scrape;
mod thread;

pub use handler::{Group, serves};
pub use order::Order;
pub use pages::Pages;
pub use pprof::give_back_freed_memory;
pub use reload::Reload;
pub use thread::{Listener, Operators, Running, Source, start};
