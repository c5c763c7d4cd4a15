//! Bytes to values and back: handshake, frames, commands, pushes, signatures, and the form between nodes.
