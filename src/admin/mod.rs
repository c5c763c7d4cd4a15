//! What operators see: metrics and health, on a thread of their own.
//!
//! Invariants: nothing here runs on a core, so neither a scrape nor a profile stops one; what may not be seen by
//! everybody wants the token, and whether a listener may do without one is decided before it is bound. Leaves out
//! what each group serves beyond metrics: profiles, the API's pages and orders to the node get modules beside
//! [`scrape`] and a line in [`handler`].

mod handler;
mod latency;
mod log_level;
mod scrape;
mod thread;

pub use handler::Group;
pub use thread::{Listener, Operators, Running, start};
