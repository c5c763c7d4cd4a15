//! The publications of one group: on a timetable, or as many outstanding as a window has.
//!
//! Invariant: with a timetable the intended times do not depend on the server; what cannot be sent yet is sent late and
//! counted from when it was due.

use crate::{
    clock::monotonic_us,
    crowd::{Crowd, payload::Mark},
    drive::timetable::Timetable,
    scenario::Group,
};

/// Most publications of one write.
const TOGETHER_MAX: usize = 64;
/// Nothing more is sent while so many bytes wait for the publisher's socket, or so many answers are missing.
const UNSENT_BYTES_MAX: usize = 1 << 20;
const UNANSWERED_MAX: u64 = 4096;

/// See the module.
pub struct Feed {
    group: usize,
    /// The publisher's connection.
    publisher: u64,
    pace: Pace,
    frame_bytes: usize,
    payload_bytes: usize,
    sent: u64,
}

enum Pace {
    Window(usize),
    Rate(f64, Option<Timetable>),
}

impl Feed {
    /// The feed of a group, if it has one.
    pub fn new(group: usize, of: &Group, publisher: u64) -> Option<Self> {
        let pace = match (of.window, of.rate) {
            (Some(window), _) => Pace::Window(window),
            (None, Some(rate)) => Pace::Rate(rate, None),
            (None, None) => return None,
        };
        let bytes = of.frame_bytes;
        Some(Self { group, publisher, pace, frame_bytes: bytes, payload_bytes: bytes, sent: 0 })
    }

    /// Publications that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Which group's it is.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Sends one that shows how long the envelope is.
    pub fn send_first(&mut self, crowd: &mut Crowd, now_us: u64) {
        let text = self.next(crowd, now_us);
        crowd.send(self.publisher, &[text]);
    }

    /// Makes texts as long at the subscriber as the scenario says.
    pub fn fit(&mut self, crowd: &Crowd) {
        let first = crowd.state.groups[self.group].first_text_bytes.unwrap_or(self.frame_bytes);
        self.payload_bytes = (2 * self.frame_bytes).saturating_sub(first);
    }

    /// Begins its timetable.
    pub fn begin(&mut self, now_us: u64) {
        if let Pace::Rate(rate, timetable) = &mut self.pace {
            *timetable = Some(Timetable::new(now_us, *rate));
        }
    }

    /// Sends what is due; when to look again.
    pub fn send_due(&mut self, crowd: &mut Crowd, now_us: u64) -> u64 {
        let mut texts = Vec::new();
        while texts.len() < TOGETHER_MAX && self.may_send(crowd) {
            let Some(due_us) = self.due(crowd, now_us) else { break };
            crowd.state.measure.leaves(due_us, monotonic_us());
            texts.push(self.next(crowd, due_us));
        }
        if !texts.is_empty() {
            crowd.send(self.publisher, &texts);
        }
        match &self.pace {
            Pace::Rate(_, Some(timetable)) if self.may_send(crowd) => timetable.next_us(),
            _ => u64::MAX,
        }
    }

    /// Publications that are due before `end_us` and were not sent.
    pub fn missed(&self, end_us: u64) -> u64 {
        match &self.pace {
            Pace::Rate(_, Some(timetable)) => timetable.missed(end_us),
            _ => 0,
        }
    }

    fn due(&mut self, crowd: &Crowd, now_us: u64) -> Option<u64> {
        match &mut self.pace {
            Pace::Window(window) => (crowd.state.groups[self.group].outstanding() < *window).then_some(now_us),
            Pace::Rate(_, timetable) => timetable.as_mut()?.take(now_us),
        }
    }

    fn may_send(&self, crowd: &Crowd) -> bool {
        let unanswered = match crowd.state.dialect().answers_publications() {
            true => self.sent.saturating_sub(crowd.state.groups[self.group].accepted),
            false => 0,
        };
        unanswered < UNANSWERED_MAX && crowd.unsent(self.publisher) < UNSENT_BYTES_MAX
    }

    fn next(&mut self, crowd: &mut Crowd, due_us: u64) -> String {
        let group = &mut crowd.state.groups[self.group];
        group.sent();
        let (mark, tag) = (Mark { number: self.sent, due_us }, group.tag.clone());
        self.sent += 1;
        crowd.state.dialect().publication(&tag, mark, self.payload_bytes)
    }
}
