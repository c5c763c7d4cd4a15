//! What happens besides publications: a storm, connections that come and go, questions.

use crate::{
    clock::monotonic_us,
    crowd::{Crowd, Wanted, dialect::Who, payload::Mark},
    drive::timetable::Timetable,
    scenario::{Churn, Requests, Scenario, Storm},
};

/// A storm counts as over so long after everybody is back.
const AFTER_STORM_US: u64 = 200_000;
/// Most steps of one kind in a turn.
const STEPS_A_TURN_MAX: usize = 64;

/// See the module.
pub struct Traffic {
    storm: Option<Storm>,
    churn: Option<Churn>,
    requests: Option<Requests>,
    storm_group: usize,
    churn_group: usize,
    coming: Option<Timetable>,
    asking: Option<Timetable>,
    asked: u64,
    storm_due_us: Option<u64>,
    storm_began_us: Option<u64>,
    storm_back_us: Option<u64>,
    /// Connections that the storm has not reached yet.
    to_break: usize,
    rounds: u32,
}

impl Traffic {
    /// What a scenario has of it.
    pub fn new(scenario: &Scenario) -> Self {
        let Scenario { storm, churn, requests, .. } = scenario.clone();
        Self {
            storm_group: storm.as_ref().map_or(0, |storm| scenario.group(&storm.group)),
            churn_group: churn.as_ref().map_or(0, |churn| scenario.group(&churn.group)),
            storm,
            churn,
            requests,
            coming: None,
            asking: None,
            asked: 0,
            storm_due_us: None,
            storm_began_us: None,
            storm_back_us: None,
            to_break: 0,
            rounds: 0,
        }
    }

    /// Whether nobody comes during a run: then it is the opening that handshakes are measured in.
    pub fn is_quiet(&self) -> bool {
        self.storm.is_none() && self.churn.is_none()
    }

    /// Timetables begin. The first time is the warm-up, which has no storm.
    pub fn begin(&mut self, now_us: u64) {
        self.coming = self.churn.as_ref().map(|churn| Timetable::new(now_us, churn.rate));
        self.asking = self.requests.as_ref().map(|requests| Timetable::new(now_us, requests.rate));
        let is_measured = self.rounds > 0;
        self.storm_due_us =
            self.storm.as_ref().filter(|_| is_measured).map(|storm| now_us + (storm.after * 1e6) as u64);
        self.rounds += 1;
    }

    /// Timetables end.
    pub fn end(&mut self) {
        (self.coming, self.asking, self.storm_due_us) = (None, None, None);
    }

    /// Questions that were asked.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Seconds from the storm until all were back.
    pub fn storm_back_s(&self) -> Option<f64> {
        Some((self.storm_back_us? - self.storm_began_us?) as f64 / 1e6)
    }

    /// What is due before `end_us` and was not done.
    pub fn missed(&self, end_us: u64) -> u64 {
        [&self.coming, &self.asking].into_iter().flatten().map(|timetable| timetable.missed(end_us)).sum()
    }

    /// Does what is due; when to look again.
    pub fn turn(&mut self, crowd: &mut Crowd, now_us: u64) -> u64 {
        if self.storm_due_us.is_some_and(|due| due <= now_us) {
            self.storm_due_us = None;
            self.break_out(crowd, now_us);
        }
        self.come_and_go(crowd, now_us);
        self.ask(crowd, now_us);
        let timetables = [&self.coming, &self.asking].into_iter().flatten().map(Timetable::next_us);
        timetables.chain(self.storm_due_us).min().unwrap_or(u64::MAX)
    }

    /// Connections that the storm has not reached yet.
    pub fn to_break(&self) -> usize {
        self.to_break
    }

    /// Goes on with a storm, and notices that all are back.
    pub fn watch_storm(&mut self, crowd: &mut Crowd, now_us: u64) {
        self.break_some(crowd);
        if let (Some(began), None) = (self.storm_began_us, self.storm_back_us)
            && self.to_break == 0
            && crowd.still_opening() == 0
        {
            self.storm_back_us = Some(now_us);
            crowd.state.measure.storm(began, now_us + AFTER_STORM_US);
        }
    }

    fn break_out(&mut self, crowd: &mut Crowd, now_us: u64) {
        crowd.state.measure.storm(now_us, u64::MAX);
        self.storm_began_us = Some(now_us);
        self.to_break = crowd.state.passing.len();
    }

    /// Some at a time: closing all in one turn would make publications late.
    fn break_some(&mut self, crowd: &mut Crowd) {
        for _ in 0..self.to_break.min(STEPS_A_TURN_MAX) {
            self.to_break -= 1;
            if let Some(name) = crowd.state.passing.pop_front() {
                crowd.drop_it(name);
                crowd.want(Wanted { who: passing(self.storm_group), due_us: 0 });
            }
        }
    }

    fn come_and_go(&mut self, crowd: &mut Crowd, now_us: u64) {
        let Some(coming) = &mut self.coming else { return };
        for _ in 0..STEPS_A_TURN_MAX {
            let Some(due_us) = coming.take(now_us) else { return };
            if let Some(oldest) = crowd.state.passing.pop_front() {
                crowd.drop_it(oldest);
            }
            crowd.want(Wanted { who: passing(self.churn_group), due_us });
        }
    }

    fn ask(&mut self, crowd: &mut Crowd, now_us: u64) {
        let (Some(asking), Some(requests)) = (&mut self.asking, &self.requests) else { return };
        for _ in 0..STEPS_A_TURN_MAX {
            let Some(due_us) = asking.take(now_us) else { return };
            let who = crowd.state.requesters[self.asked as usize % crowd.state.requesters.len()];
            let mark = Mark { number: self.asked, due_us };
            let text = crowd.state.dialect().request(mark, requests.bytes);
            crowd.state.measure.leaves(due_us, monotonic_us());
            crowd.send(who, &[text]);
            self.asked += 1;
        }
    }
}

/// A subscriber of this group that does not stay.
pub fn passing(group: usize) -> Who {
    Who::Subscriber { group, steady: false }
}
