//! What the queue has acknowledged and may yet lose: kept for a while, to be appended again to a new epoch.
//!
//! Invariants: of one origin, the batches follow on each other; a batch's place is the one in whose order the nodes
//! have delivered it. Bounded in age and bytes.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::publisher::PublisherSettings;
use crate::{
    broker::{Batch, Position},
    protocol::wire::LogPosition,
};

#[derive(Debug)]
struct Kept {
    batch: Arc<Batch>,
    /// Where its records were heard: the entry, and the index of the first of them in it.
    place: Position,
    index: u32,
    at: Instant,
}

/// The batches, oldest first, and how far a replay of them has come.
#[derive(Debug, Default)]
pub(super) struct Window {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Batches before this one are in the current epoch.
    replayed: usize,
    /// Whether the bound in bytes has cut the window shorter than its age.
    pub(super) cut: bool,
}

impl Window {
    /// Takes a batch in that is in the log.
    pub(super) fn keep(&mut self, batch: Arc<Batch>, place: Position, now: Instant, settings: &PublisherSettings) {
        if settings.replay_bytes_max == 0 {
            return;
        }
        let is_complete = self.replayed == self.kept.len();
        self.bytes += batch.bytes;
        self.kept.push_back(Kept { batch, place, index: 0, at: now });
        if is_complete {
            self.replayed = self.kept.len();
        }
        while self.bytes > settings.replay_bytes_max {
            self.drop_oldest();
            self.cut = true;
        }
    }

    /// Lets go of what is old enough; nothing while a replay is on its way.
    pub(super) fn expire(&mut self, now: Instant, settings: &PublisherSettings) {
        let is_old = |kept: &Kept| now.saturating_duration_since(kept.at) > settings.replay_window;
        while self.replayed == self.kept.len() && self.kept.front().is_some_and(is_old) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.batch.bytes;
            self.replayed = self.replayed.saturating_sub(1);
        }
    }

    /// The origins of the batches, each once for every stretch of it.
    pub(super) fn origins(&self) -> Vec<u64> {
        let mut origins: Vec<u64> = self.kept.iter().map(|kept| kept.batch.origin).collect();
        origins.dedup();
        origins
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The log may lack what is kept: look from the beginning.
    pub(super) fn rewind(&mut self) {
        self.replayed = 0;
    }

    /// The next batches that the log lacks, as one. `last` is the last seq that it holds of an origin.
    pub(super) fn next_replay(&mut self, last: impl Fn(u64) -> u64, settings: &PublisherSettings) -> Option<Batch> {
        while self.kept.get(self.replayed).is_some_and(|kept| kept.batch.last_seq() <= last(kept.batch.origin)) {
            self.replayed += 1;
        }
        let first = self.kept.get(self.replayed)?;
        // An append is whole or not at all, so the log never holds a part of a batch; if it does, the rest follows.
        let skip = last(first.batch.origin).saturating_sub(first.batch.first_seq - 1);
        let mut replay = Batch::new(first.batch.origin, first.batch.first_seq + skip, Vec::new());
        add(&mut replay, first, usize::try_from(skip).unwrap_or(usize::MAX));
        for kept in self.kept.range(self.replayed + 1..) {
            let follows = kept.batch.origin == replay.origin && kept.batch.first_seq == replay.last_seq() + 1;
            let fits = replay.bytes + kept.batch.bytes <= settings.batch_bytes_max
                && replay.bodies.len() + kept.batch.bodies.len() <= settings.batch_records_max;
            if !follows || !fits {
                break;
            }
            add(&mut replay, kept, 0);
        }
        Some(replay)
    }

    /// The log holds `origin` up to `last_seq` again. Behind the seal the entry's place is the one that counts.
    pub(super) fn replayed(&mut self, origin: u64, last_seq: u64, late: Option<Position>, now: Instant) {
        let mut index = 0;
        while let Some(kept) = self.kept.get_mut(self.replayed) {
            if kept.batch.origin != origin || kept.batch.last_seq() > last_seq {
                break;
            }
            kept.at = now;
            if let Some(place) = late {
                (kept.place, kept.index) = (place, index);
                index += u32::try_from(kept.batch.bodies.len()).unwrap_or(u32::MAX);
            }
            self.replayed += 1;
        }
    }
}

/// Adds the records of a kept batch, without the first `skip`, and the place of each.
fn add(replay: &mut Batch, kept: &Kept, skip: usize) {
    let Position { epoch, offset } = kept.place;
    for (index, body) in (kept.index..).zip(&kept.batch.bodies).skip(skip) {
        replay.bytes += body.cost();
        replay.bodies.push(body.clone());
        replay.originals.push(LogPosition { epoch, offset, index });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::broker::Body;

    fn settings() -> PublisherSettings {
        PublisherSettings {
            pending_bytes_max: 1 << 20,
            pending_timeout: Duration::from_secs(3),
            batch_bytes_max: 1 << 20,
            batch_records_max: 4,
            replay_window: Duration::from_secs(30),
            replay_bytes_max: 1000,
        }
    }

    fn batch(first_seq: u64, count: usize) -> Arc<Batch> {
        Arc::new(Batch::new(7, first_seq, vec![Body::Encoded(Bytes::from_static(&[0; 10])); count]))
    }

    #[test]
    fn what_the_log_lacks_is_replayed_in_merged_batches_with_its_places() {
        let (mut window, now) = (Window::default(), crate::clock::now());
        for (offset, first_seq) in [(1, 1), (2, 3), (3, 5), (4, 7)] {
            window.keep(batch(first_seq, 2), Position { epoch: 9, offset }, now, &settings());
        }
        assert!(window.next_replay(|_| 0, &settings()).is_none(), "nothing is replayed without a reason");
        window.rewind();
        let replay = window.next_replay(|_| 2, &settings()).expect("the log lacks 3 to 8");
        assert_eq!((replay.first_seq, replay.last_seq()), (3, 6), "at most four records");
        let places: Vec<_> = replay.originals.iter().map(|place| (place.offset, place.index)).collect();
        assert_eq!(places, [(2, 0), (2, 1), (3, 0), (3, 1)]);
        window.replayed(7, 6, None, now);
        let replay = window.next_replay(|_| 6, &settings()).expect("the log lacks 7 and 8");
        assert_eq!((replay.first_seq, replay.last_seq()), (7, 8));
    }

    #[test]
    fn bytes_and_age_bound_what_is_kept() {
        let (mut window, now) = (Window::default(), crate::clock::now());
        for seq in 1..=100 {
            window.keep(batch(seq, 1), Position::default(), now, &settings());
        }
        assert!(window.bytes <= settings().replay_bytes_max && window.cut);
        window.expire(now + Duration::from_secs(31), &settings());
        assert!(window.is_empty() && window.bytes == 0);
    }
}
