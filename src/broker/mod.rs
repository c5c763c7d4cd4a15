//! The message queue behind one trait, and above it the log that keeps the promise: nothing acknowledged is lost,
//! duplicated or reordered.
