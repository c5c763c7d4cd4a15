//! A bar on the standard error while a run goes on, if somebody looks at it.

use std::io::{self, IsTerminal, Write};

use crate::clock::monotonic_us;

const WIDTH: usize = 24;
/// It is drawn so often at most: what writes to a terminal does not measure.
const EVERY_US: u64 = 100_000;

/// See the module.
pub struct Progress {
    title: String,
    is_shown: bool,
    is_dirty: bool,
    next_us: u64,
}

impl Progress {
    /// A bar under a title.
    pub fn new(title: String) -> Self {
        Self { title, is_shown: io::stderr().is_terminal(), is_dirty: false, next_us: 0 }
    }

    /// Shows how far a phase is, 0 to 1, and a few words.
    pub fn show(&mut self, phase: &str, done: f64, words: &str) {
        let now = monotonic_us();
        if self.is_shown && now >= self.next_us {
            self.next_us = now + EVERY_US;
            self.is_dirty = true;
            // Nothing is left to tell a closed standard error.
            let _ = write!(io::stderr(), "\r\x1b[K{}: {phase} {} {words}", self.title, bar(done));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_dirty {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: f64) -> String {
    let full = (done.clamp(0.0, 1.0) * WIDTH as f64) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_width_whatever_is_done() {
        for done in [-1.0, 0.0, 0.5, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(done).len(), WIDTH + 2, "{done}");
        }
    }
}
