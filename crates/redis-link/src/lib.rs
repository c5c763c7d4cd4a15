//! Redis for the log.
