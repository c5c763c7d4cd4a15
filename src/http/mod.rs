//! The HTTP API: a guarded server and its handlers.
