//! What one subscriber has seen of its tags, and how old it was.
//!
//! Invariant: every frame is judged as it comes; nothing is kept of it but numbers.

use std::{cell::RefCell, rc::Rc};

use serde::Serialize;

use super::{
    phases::Phase,
    view::{Seen, View},
};
use crate::{
    clock::Epoch,
    findings::Findings,
    pulse::{Beat, Ledger, Pulse},
    thin::{Ending, Scratch, Text, Thin},
};

/// What all readers of a run share.
pub struct Shared {
    /// The timetable.
    pub pulse: Rc<Pulse>,
    /// Every publication's id.
    pub ledger: Rc<RefCell<Ledger>>,
    /// The time.
    pub epoch: Epoch,
    /// Where all receive into.
    pub scratch: Scratch,
    /// What is measured now.
    pub phases: RefCell<Vec<Phase>>,
    /// What was wrong.
    pub findings: RefCell<Findings>,
    /// See [`Resumed::after_given_ms`].
    pub backlog_bytes_given: u64,
}

/// A subscriber's state.
pub struct Reader {
    /// Counted in the latencies.
    is_live: bool,
    tags: Vec<(usize, View)>,
    /// How its connection ended, if it did.
    pub ending: Option<Ending>,
    resume: Option<Resume>,
}

/// A reader that has begun to read again.
struct Resume {
    at: u64,
    /// Where in the stream it stood, and where what was written before ends.
    from: u64,
    written_after: u64,
    result: Resumed,
    /// Tags whose first value after the backlog has come.
    fresh: Vec<bool>,
}

/// What a reader found when it read again. Ages are milliseconds from the intended time to the arrival.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Resumed {
    /// Bytes that stood between the node's last write and the reader: in the reader's kernel and in the node's.
    pub backlog_bytes: u64,
    /// The very first value that was read. It comes out of the kernel's buffers and is old by nature.
    pub first_read_ms: Option<f64>,
    /// Of each tag the first value whose frame the node began to write after the reading went on. Kept ones do not count:
    /// they come late by promise.
    pub first_written_ms: Vec<f64>,
    /// The same values: how long there had been a newer one when they came; 0 if there was none.
    pub behind_ms: Vec<f64>,
    /// The first value behind at most the given number of bytes ([`Shared::backlog_bytes_given`]), kept ones not counted.
    pub after_given_ms: Option<f64>,
    /// From the resume to the first such value.
    pub until_fresh_ms: Option<f64>,
}

impl Reader {
    /// A subscriber of `tags` that has seen nothing.
    pub fn new(tags: impl IntoIterator<Item = usize>, is_live: bool) -> Rc<RefCell<Self>> {
        let tags = tags.into_iter().map(|tag| (tag, View::default())).collect();
        Rc::new(RefCell::new(Self { is_live, tags, ending: None, resume: None }))
    }

    /// Its tags' views.
    pub fn views(&self) -> impl Iterator<Item = (usize, &View)> {
        self.tags.iter().map(|(tag, view)| (*tag, view))
    }

    /// Whether everything that was sent has come, or nothing can come any more.
    pub fn is_done(&self, ledger: &Ledger) -> bool {
        self.ending.is_some() || self.views().all(|(tag, view)| view.is_at_end(ledger.sent(tag)))
    }

    /// What it found when it read again.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resume.as_ref().map(|resume| &resume.result)
    }

    /// Reading goes on now, `from` bytes into the stream, with `backlog_bytes` underway.
    pub fn resume(&mut self, at: u64, from: u64, backlog_bytes: u64) {
        let result = Resumed { backlog_bytes, ..Resumed::default() };
        let fresh = vec![false; self.tags.len()];
        self.resume = Some(Resume { at, from, written_after: from + backlog_bytes, result, fresh });
    }

    /// Judges a text.
    pub fn take(&mut self, text: &Text<'_>, shared: &Shared) {
        let wrong = |kind, what: &dyn std::fmt::Display| shared.findings.borrow_mut().add(kind, what);
        let frame = match text.frame() {
            Ok(frame) => frame,
            Err(problem) => return wrong("unreadable", &problem),
        };
        if frame.kind == "gap" {
            return wrong("gap", &frame.tag);
        }
        if frame.tag.is_empty() {
            return;
        }
        let tag = shared.pulse.tag_number(&frame.tag);
        let Some(at) = tag.and_then(|tag| self.tags.iter().position(|(own, _)| *own == tag)) else {
            return wrong("stray_tag", &frame.tag);
        };
        let beat = frame.payload.map(|payload| serde_json::from_str::<Beat>(payload.get()));
        let Some(Ok(beat)) = beat else { return wrong("unreadable", &"a payload that was not published") };
        let (tag, view) = &mut self.tags[at];
        let last = view.last();
        let seen = Seen { index: beat.n, merged: frame.merged, snapshot: frame.snapshot, gap: frame.gap };
        for flaw in view.take(seen, |index| shared.pulse.is_kept(index)) {
            wrong(
                flaw.name(),
                &format_args!("{} number {} after {last:?}, merged {}", frame.tag, beat.n, frame.merged),
            );
        }
        if !shared.ledger.borrow_mut().saw(*tag, beat.n, &frame.id) {
            wrong("id_differs", &format_args!("{} number {}: {:?}", frame.tag, beat.n, frame.id));
        }
        if !is_chained(&shared.ledger.borrow(), *tag, beat.n, last, frame.prev.as_deref()) {
            wrong("chain_broken", &format_args!("{} number {}: prev {:?}", frame.tag, beat.n, frame.prev));
        }
        if !frame.snapshot {
            self.arrived(at, beat, text.at, shared);
        }
    }

    fn arrived(&mut self, at: usize, beat: Beat, place: u64, shared: &Shared) {
        let now = shared.epoch.now();
        if self.is_live {
            if let Some(phase) = shared.phases.borrow_mut().iter_mut().find(|phase| phase.holds(beat.t)) {
                phase.arrived(beat.t, now);
            }
            return;
        }
        let Some(resume) = &mut self.resume else { return };
        let age = millis(now.saturating_sub(beat.t));
        resume.result.first_read_ms.get_or_insert(age);
        if shared.pulse.is_kept(beat.n) {
            return;
        }
        if place >= resume.from + shared.backlog_bytes_given {
            resume.result.after_given_ms.get_or_insert(age);
        }
        if place >= resume.written_after && !std::mem::replace(&mut resume.fresh[at], true) {
            let newer = beat.t + period_micros(&shared.pulse);
            resume.result.first_written_ms.push(age);
            resume.result.behind_ms.push(millis(now.saturating_sub(newer)));
            resume.result.until_fresh_ms.get_or_insert(millis(now.saturating_sub(resume.at)));
        }
    }
}

/// Reads for ever, or to the connection's end.
pub async fn read(mut thin: Thin, reader: Rc<RefCell<Reader>>, shared: Rc<Shared>) {
    loop {
        let taken = thin.receive(&shared.scratch, |text| reader.borrow_mut().take(&text, &shared)).await;
        if let Err(ending) = taken {
            reader.borrow_mut().ending = Some(ending);
            return;
        }
    }
}

/// Between two publications of a tag.
fn period_micros(pulse: &Pulse) -> u64 {
    (pulse.tags as f64 / pulse.rate * 1e6) as u64
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Whether `prev` names the tag's publication before, or, of a merged frame, the one that this reader had last. What is not
/// yet known of either is not judged.
fn is_chained(ledger: &Ledger, tag: usize, index: usize, last: Option<usize>, prev: Option<&str>) -> bool {
    let Some(prev) = prev else { return false };
    let Some(before) = index.checked_sub(1) else { return prev.is_empty() };
    let mut known = [Some(before), last].into_iter().flatten().map(|index| ledger.id(tag, index));
    known.any(|id| id.is_none_or(|id| id == prev))
}

#[cfg(test)]
mod tests {
    //! Method: texts by hand, of two tags that are published 20 times a second; every fourth is kept.
    use super::*;

    fn shared() -> Shared {
        let pulse = Pulse { prefix: "t.".into(), tags: 2, rate: 40.0, keep_every: 4, payload_bytes: 50 };
        Shared {
            pulse: Rc::new(pulse),
            ledger: Rc::new(RefCell::new(Ledger::filled(2, 10))),
            epoch: Epoch::begin(),
            scratch: Scratch::default(),
            phases: RefCell::default(),
            findings: RefCell::default(),
            backlog_bytes_given: 500,
        }
    }

    fn text(tag: usize, n: usize, prev: &str, t: u64, more: &str) -> String {
        format!(r#"{{"tag":"t.{tag}","id":"{tag}-{n}","prev":"{prev}"{more},"payload":{{"n":{n},"t":{t},"pad":""}}}}"#)
    }

    fn take(reader: &Rc<RefCell<Reader>>, shared: &Shared, at: u64, text: &str) {
        reader.borrow_mut().take(&Text { at, bytes: text.as_bytes() }, shared);
    }

    #[test]
    fn a_broken_chain_a_foreign_id_and_a_stray_tag_are_found() {
        let shared = shared();
        let reader = Reader::new([1], true);
        take(&reader, &shared, 0, &text(1, 0, "", 0, ""));
        take(&reader, &shared, 0, &text(1, 1, "1-0", 0, ""));
        take(&reader, &shared, 0, &text(1, 5, "1-4", 0, r#","merged":2"#).replace("1-5", "1-9"));
        assert_eq!(
            shared.findings.borrow().counts.keys().copied().collect::<Vec<_>>(),
            ["id_differs", "kept_lost", "lost"]
        );
        take(&reader, &shared, 0, &text(1, 6, "1-3", 0, ""));
        take(&reader, &shared, 0, &text(0, 0, "", 0, ""));
        take(&reader, &shared, 0, "[]");
        take(&reader, &shared, 0, r#"{"type":"gap","tag":"t.1"}"#);
        let findings = shared.findings.borrow();
        let kinds = ["chain_broken", "stray_tag", "unreadable", "gap"].map(|kind| findings.count(kind));
        assert_eq!(kinds, [1, 1, 1, 1], "{findings}");
    }

    #[test]
    fn a_merged_frame_may_name_the_one_before_or_the_one_that_was_had() {
        for prev in ["1-1", "1-0"] {
            let (shared, reader) = (shared(), Reader::new([1], true));
            take(&reader, &shared, 0, &text(1, 0, "", 0, ""));
            take(&reader, &shared, 0, &text(1, 2, prev, 0, r#","merged":1"#));
            assert_eq!(shared.findings.borrow().total(), 0, "{prev}: {}", shared.findings.borrow());
        }
    }

    #[test]
    fn ages_are_of_the_first_frames_read_and_of_the_first_behind_the_backlog() {
        let (shared, reader) = (shared(), Reader::new([1], false));
        let now = shared.epoch.now();
        let ago = |ms: u64| now - ms * 1000;
        reader.borrow_mut().resume(now, 1000, 600);
        take(&reader, &shared, 1000, &text(1, 0, "", ago(9000), ""));
        take(&reader, &shared, 1500, &text(1, 1, "1-0", ago(8000), ""));
        take(&reader, &shared, 1600, &text(1, 3, "1-2", ago(7000), r#","merged":1"#));
        take(&reader, &shared, 1700, &text(1, 4, "1-3", ago(60), ""));
        take(&reader, &shared, 1800, &text(1, 5, "1-4", ago(0), ""));
        assert_eq!(shared.findings.borrow().total(), 0, "{}", shared.findings.borrow());
        let reader = reader.borrow();
        let resumed = reader.resumed().expect("it resumed");
        let whole = |age: Option<f64>| age.map(|age| (age / 1000.0) as u64);
        assert_eq!((whole(resumed.first_read_ms), whole(resumed.after_given_ms)), (Some(9), Some(8)));
        assert_eq!(resumed.first_written_ms.len(), 1, "number 3 is kept, and only the first counts");
        assert!((60.0..5000.0).contains(&resumed.first_written_ms[0]), "{resumed:?}");
        assert!((10.0..5000.0).contains(&resumed.behind_ms[0]), "the next one was due 50 ms later: {resumed:?}");
    }
}
