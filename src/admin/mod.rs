//! What operators see: metrics, profiles and health, on a thread of their own.
//!
//! Invariants: nothing here runs on a core, so neither a scrape nor a profile stops one; what may not be seen by
//! everybody wants the token, and whether a listener may do without one is decided before it is bound. Leaves out
//! what each group serves beyond metrics, profiles and the API's [`pages`]: orders to the node get a module beside
//! them and a line in [`handler`].

mod handler;
mod latency;
mod pages;
mod pprof;
mod scrape;
mod thread;

pub use handler::Group;
pub use pages::Pages;
pub use thread::{Listener, Operators, Running, start};
