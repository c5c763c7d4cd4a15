//! What happened in a run: a digest of all of it, and the lines when somebody wants to read them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
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

/// How often what a run is for has happened.
pub type Counts = BTreeMap<&'static str, u64>;

thread_local! {
    static COUNTS: RefCell<Counts> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts something that a run is for.
pub fn count(what: &'static str) {
    COUNTS.with(|counts| *counts.borrow_mut().entry(what).or_default() += 1);
}

/// What was counted in this thread since this was last asked.
pub fn take_counts() -> Counts {
    COUNTS.take()
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
