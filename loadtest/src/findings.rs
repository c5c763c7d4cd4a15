//! What a run found wrong: counted by kind, the first few in words. Pure.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// Most findings that are described one by one; all are counted.
const EXAMPLES_MAX: usize = 12;

/// Findings by kind. An empty one is a good run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How often each kind was seen.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first ones in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Counts one.
    pub fn add(&mut self, kind: &'static str, what: impl fmt::Display) {
        self.add_many(kind, 1, what);
    }

    /// Counts several that one sentence describes.
    pub fn add_many(&mut self, kind: &'static str, count: u64, what: impl fmt::Display) {
        *self.counts.entry(kind).or_default() += count;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{kind}: {what}"));
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How often `kind` was seen.
    #[cfg(test)]
    pub fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or_default()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.is_empty() {
            return writeln!(f, "findings: none");
        }
        writeln!(f, "findings:")?;
        for (kind, count) in &self.counts {
            writeln!(f, "  {count} x {kind}")?;
        }
        self.examples.iter().try_for_each(|example| writeln!(f, "    {example}"))
    }
}
