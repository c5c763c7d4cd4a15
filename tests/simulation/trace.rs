//! What happened in a run: a digest of all of it, and the lines when somebody wants to read them.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
};

/// See the module.
#[derive(Debug)]
pub struct Trace {
    // Its keys are always the same.
    digest: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn new(keeps_lines: bool) -> Self {
        Self { digest: DefaultHasher::new(), lines: keeps_lines.then(Vec::new) }
    }

    /// Notes what somebody has read.
    pub fn note(&mut self, who: usize, what: &str) {
        self.digest.write_usize(who);
        self.digest.write(what.as_bytes());
        self.line(who, || what.to_owned());
    }

    /// Notes that something happened, which is only written out for a reader.
    pub fn tell(&mut self, who: usize, code: u64, what: impl FnOnce() -> String) {
        self.digest.write_u64(code);
        self.line(who, what);
    }

    fn line(&mut self, who: usize, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3}s {who:>3} {}", super::model::now().as_secs_f64(), what()));
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}
