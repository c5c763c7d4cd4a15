//! The composition root: life and death of the process.
