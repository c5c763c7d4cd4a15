//! The composition root: life and death of the process.
//!
//! In order: listeners are bound, the operators' thread and the cores start, the node joins its queue and fills its
//! tables, it is ready; on SIGTERM it says good-bye, closes every connection (1012), flushes and ends.
//!
//! Invariant: parts get what they need from here and know of each other only by their mailboxes.

mod api;
mod banner;
mod cores;
mod demo;
mod exchange_loop;
mod listen;
mod machine;
mod start;
mod stop;

use std::process::ExitCode;

use crate::config::{Config, Env, Loaded, LogFormat};

/// Runs a node until it is told to stop. The status is 0 after a stop in good order, 1 if it could not start.
pub fn run(loaded: Loaded) -> ExitCode {
    init_logs(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match start::start(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("failed to start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn init_logs(config: &Config) {
    let level = config.log_level.to_string().parse().unwrap_or(tracing::level_filters::LevelFilter::INFO);
    let logs = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second node in one process (a test) keeps the first one's.
    let _ = match config.log_format {
        LogFormat::Json => logs.json().try_init(),
        LogFormat::Human => logs.with_target(config.env == Env::Dev).try_init(),
    };
}
