//! The composition root: life and death of the process.
//!
//! In order: listeners are bound, the operators' thread and the cores start, the node joins its queue and fills its
//! tables, it is ready; on SIGTERM every connection is told when to move and closed then (1012), the others hear its
//! good-bye, it flushes and ends.
//!
//! Invariant: parts get what they need from here and know of each other only by their mailboxes.

mod api;
mod banner;
mod canary;
mod cgroup;
mod cores;
mod demo;
mod drain;
mod exchange_loop;
mod last_words;
mod listen;
mod machine;
mod memory;
mod observe;
mod orders;
mod reload;
mod resuming;
mod start;
mod stop;

use std::process::ExitCode;

use crate::{config::Loaded, limits::LAST_WORDS_MAX, metrics::Registry};

/// Runs a node until it is told to stop. The status is 0 after a stop in good order, 1 if it could not start.
pub fn run(loaded: Loaded) -> ExitCode {
    let registry = Registry::default();
    if let Err(error) = observe::start(&loaded.config, &registry) {
        observe::cannot_log(&error);
        return ExitCode::FAILURE;
    }
    let _at_the_end = last_words::AtTheEnd(LAST_WORDS_MAX);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match start::start(loaded.config, loaded.sources, registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("failed to start: {error}");
            ExitCode::FAILURE
        }
    }
}
