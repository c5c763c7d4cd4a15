//! The checker must fail on every way in which a feed can be wrong, and only then.
//!
//! Method: a correct feed of two bars is played to an observer, each test spoils it in one way.

use super::*;
use crate::bars::{PlanSettings, plan, read};

const FILE: &str = "Date,Open,High,Low,Close,Volume\n2012-01-03,5,9,1,6,40\n2012-01-04,6,8,2,3,44\n";
const TAG: &str = "kline.X.1d";

#[derive(Clone, Debug)]
struct Sent {
    tag: String,
    id: String,
    prev: String,
    payload: String,
    snapshot: bool,
    gap: bool,
    merged: u64,
}

impl Sent {
    fn received(&self) -> Received<'_> {
        Received {
            tag: &self.tag,
            id: &self.id,
            prev: Some(&self.prev),
            payload: &self.payload,
            snapshot: self.snapshot,
            gap: self.gap,
            merged: self.merged,
        }
    }
}

fn expected() -> Arc<Expected> {
    let settings = PlanSettings { prefix: "kline.", interval: "1d", rate: 1.0, bars_max: 0 };
    let plan = plan(&read(FILE, "X").expect("a good file"), &settings);
    Arc::new(Expected::new(&plan).expect("distinct payloads"))
}

/// The ten frames that a correct node sends, after a snapshot with the id 100.
fn feed(expected: &Expected) -> Vec<Sent> {
    let mut payloads: Vec<(&usize, &String)> =
        expected.tags[0].by_payload.iter().map(|(text, index)| (index, text)).collect();
    payloads.sort();
    assert_eq!(payloads.len(), 10);
    let frame = |id: usize, payload: &str, snapshot: bool| Sent {
        tag: TAG.to_owned(),
        id: id.to_string(),
        prev: (id - 1).to_string(),
        payload: payload.to_owned(),
        snapshot,
        gap: false,
        merged: 0,
    };
    let live = payloads.iter().map(|(index, payload)| frame(101 + **index, payload, false));
    std::iter::once(frame(100, "\"old\"", true)).chain(live).collect()
}

fn accepted() -> Vec<Vec<Outcome>> {
    vec![(101..=110).map(|id: u32| Outcome::Accepted(Some(id.to_string()))).collect()]
}

/// The faults after `spoil` has changed the feed; `(kind, count)` of those that occurred.
fn judge(outcomes: &[Vec<Outcome>], spoil: impl FnOnce(&mut Vec<Sent>)) -> Vec<(FaultKind, u64)> {
    let expected = expected();
    let mut frames = feed(&expected);
    spoil(&mut frames);
    let mut observer = Observer::new(expected);
    for frame in &frames {
        observer.observe(&frame.received());
    }
    occurred(&observer.finish(outcomes))
}

fn occurred(faults: &Faults) -> Vec<(FaultKind, u64)> {
    let counted = FaultKind::ALL.map(|kind| (kind, faults.count(kind)));
    let found: Vec<(FaultKind, u64)> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(faults.total(), found.iter().map(|(_, count)| count).sum::<u64>());
    found
}

#[test]
fn a_correct_feed_passes_with_and_without_a_snapshot() {
    assert_eq!(judge(&accepted(), |_| {}), []);
    let fresh = |frames: &mut Vec<Sent>| {
        frames.remove(0);
        frames[0].prev = String::new();
    };
    assert_eq!(judge(&accepted(), fresh), []);
}

#[test]
fn a_lost_bar_fails_and_breaks_the_chain() {
    let spoil = |frames: &mut Vec<Sent>| drop(frames.remove(4));
    assert_eq!(judge(&accepted(), spoil), [(FaultKind::Lost, 1), (FaultKind::ChainBroken, 1)]);
}

#[test]
fn a_loss_with_a_mended_chain_still_fails() {
    let spoil = |frames: &mut Vec<Sent>| {
        let lost = frames.remove(4);
        frames[4].prev = lost.prev;
    };
    assert_eq!(judge(&accepted(), spoil), [(FaultKind::Lost, 1)]);
}

#[test]
fn a_lost_last_bar_fails_although_no_chain_shows_it() {
    assert_eq!(judge(&accepted(), |frames| drop(frames.pop())), [(FaultKind::Lost, 1)]);
}

#[test]
fn a_duplicated_bar_fails() {
    let at_once = |frames: &mut Vec<Sent>| frames.insert(5, frames[4].clone());
    assert_eq!(judge(&accepted(), at_once), [(FaultKind::Duplicated, 1)]);
    let at_the_end = |frames: &mut Vec<Sent>| frames.push(frames[2].clone());
    assert_eq!(judge(&accepted(), at_the_end), [(FaultKind::Duplicated, 1)]);
}

#[test]
fn a_reordered_bar_fails() {
    let spoil = |frames: &mut Vec<Sent>| frames.swap(4, 5);
    assert_eq!(judge(&accepted(), spoil), [(FaultKind::Reordered, 1), (FaultKind::ChainBroken, 3)]);
}

#[test]
fn a_reordered_payload_under_the_right_ids_still_fails() {
    let spoil = |frames: &mut Vec<Sent>| {
        let (fourth, fifth) = (frames[4].payload.clone(), frames[5].payload.clone());
        (frames[4].payload, frames[5].payload) = (fifth, fourth);
    };
    assert_eq!(judge(&accepted(), spoil), [(FaultKind::Reordered, 1), (FaultKind::IdDiffers, 2)]);
}

#[test]
fn an_altered_bar_fails_even_if_only_a_number_is_written_otherwise() {
    let spoil = |frames: &mut Vec<Sent>| frames[4].payload = frames[4].payload.replace("\"o\":5", "\"o\":5.0");
    assert_eq!(judge(&accepted(), spoil), [(FaultKind::Lost, 1), (FaultKind::Altered, 1)]);
}

#[test]
fn a_gap_a_merge_and_a_stray_tag_fail() {
    let spoil = |frames: &mut Vec<Sent>| {
        frames[0].gap = true;
        frames[4].merged = 2;
        frames[5].tag = "kline.Y.1d".to_owned();
    };
    let expected = [
        (FaultKind::Lost, 1),
        (FaultKind::ChainBroken, 1),
        (FaultKind::Gap, 1),
        (FaultKind::Merged, 1),
        (FaultKind::StrayTag, 1),
    ];
    assert_eq!(judge(&accepted(), spoil), expected);
}

#[test]
fn a_missing_prev_breaks_the_chain() {
    let expected = expected();
    let frames = feed(&expected);
    let mut observer = Observer::new(expected);
    observer.observe(&frames[0].received());
    observer.observe(&Received { prev: None, ..frames[1].received() });
    assert_eq!(observer.faults.count(FaultKind::ChainBroken), 1);
}

#[test]
fn two_subscribers_must_know_a_bar_under_one_id() {
    let expected = expected();
    let frames = feed(&expected);
    let (mut one, mut other) = (Observer::new(Arc::clone(&expected)), Observer::new(expected));
    for frame in &frames {
        one.observe(&frame.received());
    }
    other.observe(&frames[0].received());
    other.observe(&Received { id: "999", ..frames[1].received() });
    assert_eq!(other.faults.count(FaultKind::IdDiffers), 1);
}

#[test]
fn the_id_that_the_publisher_was_told_must_be_the_delivered_one() {
    let mut outcomes = accepted();
    outcomes[0][3] = Outcome::Accepted(Some("7".to_owned()));
    assert_eq!(judge(&outcomes, |_| {}), [(FaultKind::IdDiffers, 1)]);
}

#[test]
fn what_was_refused_or_is_unknown_need_not_arrive_but_may() {
    let mut outcomes = accepted();
    outcomes[0][8] = Outcome::Refused;
    outcomes[0][9] = Outcome::Unknown;
    assert_eq!(judge(&outcomes, |frames| frames.truncate(9)), []);
    assert_eq!(judge(&outcomes, |_| {}), []);
}

#[test]
fn examples_are_few_and_counts_are_whole() {
    let mut faults = Faults::default();
    for number in 0..100 {
        faults.add(FaultKind::Lost, number);
    }
    let mut sum = Faults::default();
    sum.merge(&faults);
    sum.merge(&faults);
    assert_eq!((sum.total(), sum.examples.len()), (200, EXAMPLES_MAX));
}
