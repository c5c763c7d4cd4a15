//! One shard's last values in memory.
//!
//! Invariants: at most so many and so many bytes as the last call said; the two indexes name the same values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::broker::{Retain, Retained, RetainedPage, StoredValue};

/// The values by name, and their names by age.
#[derive(Clone, Debug, Default)]
pub(super) struct LastValues {
    values: BTreeMap<Bytes, StoredValue>,
    by_age: BTreeSet<(u64, Bytes)>,
    bytes: usize,
    term: u64,
}

impl LastValues {
    /// Stores values, unless a later term has been seen, and lets go of those published longest ago as far as the bounds demand.
    pub(super) fn retain(&mut self, retain: Retain) -> Retained {
        if retain.term < self.term {
            return Retained::Superseded(self.term);
        }
        self.term = retain.term;
        let (was_empty, mut dropped) = (self.values.is_empty(), 0);
        for value in retain.values {
            self.remove(&value.name);
            self.bytes += value.cost();
            self.by_age.insert((value.at_unix_ms, value.name.clone()));
            self.values.insert(value.name.clone(), value);
        }
        while (self.values.len() > retain.values_max || self.bytes > retain.bytes_max)
            && let Some((_, oldest)) = self.by_age.first().cloned()
        {
            self.remove(&oldest);
            dropped += 1;
        }
        Retained::Stored { was_empty, dropped }
    }

    /// At most so many values, from the name behind `cursor` on.
    pub(super) fn page(&self, cursor: Option<Bytes>, values_max: usize) -> RetainedPage {
        let first = cursor.unwrap_or_default();
        let mut values: Vec<_> = self
            .values
            .range(first..)
            .take(values_max + 1)
            .map(|(name, value)| (name.clone(), value.value.clone()))
            .collect();
        let next = (values.len() > values_max).then(|| values.pop()).flatten().map(|(name, _)| name);
        RetainedPage { values, next }
    }

    fn remove(&mut self, name: &Bytes) {
        if let Some(value) = self.values.remove(name) {
            self.bytes -= value.cost();
            self.by_age.remove(&(value.at_unix_ms, value.name));
        }
    }
}
