//! One core on monoio: accept, read, write, timers.
