//! Flags, environment and file, once, into each part's own settings.
