//! One subscriber's view of one tag: what it must have seen, when updates may be merged. Pure.
//!
//! A tag's publications are numbered without a hole. A frame brings one of them and stands for `merged` others before it:
//! together they must be exactly what follows the last. What was marked `keep` may stand behind nothing else. A snapshot
//! begins a view; a gap is an end of the promise that the node must tell, and counts.

/// What a frame says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The publication's number.
    pub index: usize,
    /// Others that it stands for.
    pub merged: u64,
    /// The value at the time of subscribing.
    pub snapshot: bool,
    /// The node says that something is missing before it.
    pub gap: bool,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// It came before, or a later one did.
    Again,
    /// Publications before it did not come, and it does not say that it stands for them.
    Lost,
    /// It says that it stands for more than there was.
    Overcounted,
    /// A kept publication before it did not come.
    KeptLost,
    /// The node told of a gap.
    Gap,
}

impl Flaw {
    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Again => "again_or_out_of_order",
            Self::Lost => "lost",
            Self::Overcounted => "merged_overcounted",
            Self::KeptLost => "kept_lost",
            Self::Gap => "gap",
        }
    }
}

/// What a subscriber holds of a tag.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// The number that comes next.
    next: usize,
    /// Publications that came as frames of their own, snapshots not counted.
    pub frames: u64,
    /// Publications that others stood for.
    pub merged: u64,
    /// Kept ones that came.
    pub kept: u64,
    began: bool,
}

impl View {
    /// The number of the last publication that came.
    pub fn last(&self) -> Option<usize> {
        self.next.checked_sub(1)
    }

    /// Whether nothing of `sent` publications is to come.
    pub fn is_at_end(&self, sent: usize) -> bool {
        self.next == sent
    }

    /// Takes a frame; what is wrong with it.
    pub fn take(&mut self, seen: Seen, is_kept: impl Fn(usize) -> bool) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let Seen { index, merged, snapshot, gap } = seen;
        if gap {
            flaws.push(Flaw::Gap);
        }
        if index < self.next {
            flaws.push(Flaw::Again);
            return flaws;
        }
        let is_beginning = snapshot && !std::mem::replace(&mut self.began, true);
        if !is_beginning {
            self.began = true;
            let skipped = (index - self.next) as u64;
            if skipped > merged && !gap {
                flaws.push(Flaw::Lost);
            }
            if merged > skipped {
                flaws.push(Flaw::Overcounted);
            }
            let lost = (self.next..index).filter(|skipped| is_kept(*skipped)).count();
            flaws.extend(std::iter::repeat_n(Flaw::KeptLost, lost));
            self.frames += 1;
            self.merged += skipped;
            self.kept += u64::from(is_kept(index));
        }
        self.next = index + 1;
        flaws
    }
}

#[cfg(test)]
mod tests {
    //! Method: short rows of frames by hand; every fourth publication is kept (3, 7, …).
    use super::*;

    fn flaws(frames: &[Seen]) -> Vec<Flaw> {
        let mut view = View::default();
        frames.iter().flat_map(|seen| view.take(*seen, |index| index % 4 == 3)).collect()
    }

    fn plain(index: usize) -> Seen {
        Seen { index, ..Seen::default() }
    }

    fn merged(index: usize, merged: u64) -> Seen {
        Seen { index, merged, ..Seen::default() }
    }

    #[test]
    fn every_update_or_a_merged_one_that_counts_the_others_is_right() {
        assert_eq!(flaws(&[plain(0), plain(1), merged(2, 0), plain(3), plain(4)]), []);
        assert_eq!(flaws(&[plain(0), merged(2, 1), plain(3), merged(6, 2), plain(7), merged(9, 1)]), []);
        assert_eq!(flaws(&[merged(2, 2)]), [], "a slow one from the start");
        assert_eq!(flaws(&[Seen { snapshot: true, ..plain(9) }, plain(10)]), [], "a snapshot begins anywhere");
    }

    #[test]
    fn what_is_missing_and_not_counted_is_lost() {
        assert_eq!(flaws(&[plain(0), plain(2)]), [Flaw::Lost]);
        assert_eq!(flaws(&[plain(0), merged(3, 1)]), [Flaw::Lost]);
        assert_eq!(flaws(&[plain(0), merged(2, 2)]), [Flaw::Overcounted]);
        assert_eq!(flaws(&[Seen { snapshot: true, ..plain(0) }, Seen { snapshot: true, ..plain(2) }]), [Flaw::Lost]);
    }

    #[test]
    fn what_is_kept_is_never_merged_away_even_if_counted() {
        assert_eq!(flaws(&[plain(2), merged(4, 1)]), [Flaw::Lost, Flaw::KeptLost]);
        assert_eq!(flaws(&[plain(0), plain(1), plain(2), merged(4, 1)]), [Flaw::KeptLost]);
        assert_eq!(flaws(&[plain(0), Seen { gap: true, ..plain(9) }]), [Flaw::Gap, Flaw::KeptLost, Flaw::KeptLost]);
    }

    #[test]
    fn nothing_comes_twice_or_backwards() {
        assert_eq!(flaws(&[plain(0), plain(0)]), [Flaw::Again]);
        assert_eq!(flaws(&[plain(0), merged(2, 1), plain(1), plain(3)]), [Flaw::Again]);
    }

    #[test]
    fn the_end_is_reached_by_the_last_value_and_totals_add_up() {
        let mut view = View::default();
        for seen in [plain(0), merged(2, 1), plain(3)] {
            assert_eq!(view.take(seen, |index| index == 3), []);
        }
        assert!(view.is_at_end(4) && !view.is_at_end(5));
        assert_eq!((view.frames, view.merged, view.kept, view.last()), (3, 1, 1, Some(3)));
    }
}
