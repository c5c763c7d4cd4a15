//! A set of cores, for who wants a tag and whom a push may concern.

/// Some of a node's cores (at most 256), as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cores([u64; 4]);

impl Cores {
    /// The cores `0..count`.
    pub(super) fn first(count: u8) -> Self {
        let mut all = Self::default();
        (0..count).for_each(|core| all.insert(core));
        all
    }

    pub(super) fn insert(&mut self, core: u8) {
        self.0[usize::from(core >> 6)] |= 1 << (core & 63);
    }

    pub(super) fn remove(&mut self, core: u8) {
        self.0[usize::from(core >> 6)] &= !(1 << (core & 63));
    }

    pub(super) fn contains(self, core: u8) -> bool {
        self.0[usize::from(core >> 6)] & (1 << (core & 63)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The cores in ascending order.
    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        self.0.into_iter().zip([0_u8, 64, 128, 192]).flat_map(|(mut word, base)| {
            std::iter::from_fn(move || {
                let bit = u8::try_from(word.trailing_zeros()).unwrap_or(64);
                word &= word.wrapping_sub(1);
                (bit < 64).then(|| base + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lists_what_was_inserted_and_not_removed() {
        let mut set = Cores::default();
        for core in [255, 0, 63, 64, 130] {
            set.insert(core);
        }
        set.remove(63);
        set.remove(7);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 130, 255]);
        assert!(!set.is_empty() && Cores::default().is_empty());
        assert_eq!(Cores::first(3).iter().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
