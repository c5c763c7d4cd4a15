//! The table's own books are right after whatever happens to it.
//! Method: seeded operations on a table with narrow bounds; after each the sums are made anew. `WS_SEED` replays.

use std::time::Duration;

use super::*;
use crate::model::{Stamp, tag_rule::History};

const BYTES_MAX: usize = 6_000;

impl TagTable {
    fn check(&self) {
        let entries = || self.entries.iter().flatten();
        assert_eq!(self.bytes, entries().map(|entry| entry.ring.bytes()).sum::<usize>());
        assert!(self.bytes <= self.bytes_max, "{} bytes", self.bytes);
        assert!(self.len() <= self.tags_max && self.len() == entries().count());
        assert_eq!(self.len(), self.slots.values().map(HashMap::len).sum::<usize>());
        assert!(self.slots.values().all(|tags| !tags.is_empty()));
        let valued = entries().filter(|entry| !entry.ring.is_empty()).count() as u64;
        assert_eq!(self.counters.get(Count::Tags), valued);
        assert_eq!(self.oldest.len(), entries().filter(|entry| entry.queued).count());
        let stored = |entry: &&Entry| matches!(entry.stored, Stored::Newest(id) if Some(id) != entry.newest);
        assert_eq!(entries().find(stored).map(|entry| &entry.tag), None, "a stored value that is not the newest");
        let unqueued = |entry: &Entry| entry.followers.is_empty() && !entry.queued;
        assert!(!entries().any(unqueued), "an unfollowed tag could never be dropped");
    }
}

#[test]
fn bytes_and_places_add_up_and_stay_in_their_bounds() {
    let replay = std::env::var("WS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = replay.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut table = TagTable::new(8, BYTES_MAX, Arc::default());
    let history = History { count_max: 6, age_max: Duration::from_secs(60), bytes_max: 2_000 };
    let rule = TagRule { history, dedup: true, ..TagRule::default() };
    let mut now = crate::clock::now();
    for seq in 0..20_000 {
        let pid = Pid::new(if random.bool() { "p" } else { "q" }).expect("a pid");
        let tag = Tag::new(&format!("t{}", random.u8(..10))).expect("a tag");
        let core = random.u8(..3);
        match random.u8(..14) {
            0..6 => {
                let payload = vec![random.u8(b'0'..b'3'); random.usize(..900)].into();
                let (idempotency_key, affair_id) = (None, random.bool().then(|| "affair".into()));
                let publication =
                    Publication { pid, tag, keep: false, affair_id, idempotency_key, payload, stamp: Stamp::default() };
                match random.bool() {
                    true => drop(table.publish(RecordId { origin: 1, seq }, publication, &rule, now)),
                    false => table.publish_kept(RecordId { origin: 1, seq }, publication, &rule, now),
                }
            }
            6 => drop(table.follow(core, &pid, &tag, None, &rule, now)),
            7 | 8 => table.unfollow(core, &pid, &tag),
            9 | 10 => {
                let at_unix_ms = random.u64(..100);
                let is_known = table.slot(&pid, &tag).and_then(|slot| table.entries[slot as usize].as_ref());
                let is_known = is_known.is_some_and(|entry| entry.newest.is_some());
                let payload = vec![b'0'; random.usize(..900)].into();
                // Sometimes a record that the log brings later, or never.
                let id = RecordId { origin: 1, seq: seq + random.u64(..3) };
                let published = Arc::new(Published {
                    id,
                    prev: None,
                    pid,
                    tag,
                    keep: false,
                    affair_id: None,
                    payload,
                    stamp: Stamp::default(),
                });
                let is_broken = random.bool();
                let taken = table.load(LastValue { published, at_unix_ms, is_broken }, now);
                assert!(!(taken && is_known), "the log knows better");
            }
            11 => table.set_saving(random.bool()),
            12 => {
                table.begin_round();
                let given = table.next_unsaved();
                let mut tags: Vec<_> = given.iter().map(|value| (&value.published.pid, &value.published.tag)).collect();
                tags.sort_unstable();
                assert!(tags.windows(2).all(|pair| pair[0] != pair[1]), "a tag was given out twice");
                if random.bool() {
                    table.unsaved_again();
                }
            }
            _ => match random.u8(..20) {
                0 => table.lost(None, 4, |_, _, _| {}),
                1 => table.sweep(&TagRules::new(vec![TagRule { pattern: "*".into(), ..rule.clone() }]), now),
                _ => now += Duration::from_secs(random.u64(..5)),
            },
        }
        table.check();
    }
}
