//! The composition root: life and death of the process.

use std::process::ExitCode;

use crate::config::Loaded;

/// Runs a node until it is told to end; the status is the process's.
pub fn run(loaded: Loaded) -> ExitCode {
    drop(loaded);
    ExitCode::FAILURE
}
