//! What operators see: metrics and health.
