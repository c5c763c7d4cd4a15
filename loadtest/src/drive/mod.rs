//! One scenario against one server, from the first connection to the outcome.
//!
//! Phases: everybody is opened; one publication a group shows how long the envelope is; warm-up; what is measured; what is
//! outstanding arrives. One thread does it all, so that what it uses is known.

mod feed;
mod figures;
pub mod timetable;
mod traffic;
mod workers;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    feed::Feed,
    traffic::{Traffic, passing},
    workers::{Workers, share},
};
use crate::{
    clock::monotonic_us,
    crowd::{
        Crowd, GroupState, Place, State, Wanted,
        dialect::Who,
        measure::Second,
        worker::{Job, Order},
    },
    outcome::{Curve, Harness, Outcome},
    procfs,
    progress::Progress,
    scenario::Scenario,
    target::{Running, TAG_PREFIX},
};

/// Longest wait in one turn: a signal must be noticed.
const TURN_US: u64 = 50_000;
/// How long a connection may take to open when all are opened at once, and how long the last text may take.
const OPENING_PATIENCE: Duration = Duration::from_secs(60);
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(20);
/// A run this long after an opening is measured from a quiet server.
const SETTLE: Duration = Duration::from_millis(200);
const SECOND_US: u64 = 1_000_000;

/// Drives `scenario` against `target`. An error when it could not be driven; what is wrong otherwise is in the outcome.
pub fn drive(scenario: &Scenario, target: &Running, stopped: &AtomicBool) -> Result<Outcome> {
    let mut drive = Drive::new(scenario, target, stopped)?;
    let before = Before { resident: target.resident_bytes(), kernel: procfs::kernel_bytes().ok() };
    let opened = drive.open_all()?;
    drive.fit()?;
    drive.publish_for(scenario.warmup, "warm-up")?;
    drive.arrive()?;
    let measured = drive.measure()?;
    Ok(drive.outcome(&before, &opened, &measured))
}

struct Drive<'a> {
    scenario: &'a Scenario,
    target: &'a Running,
    stopped: &'a AtomicBool,
    crowd: Crowd,
    feeds: Vec<Feed>,
    traffic: Traffic,
    workers: Workers,
    jobs: Vec<Job>,
    series: Vec<Second>,
    progress: Progress,
}

struct Before {
    resident: Option<u64>,
    kernel: Option<u64>,
}

/// Clocks at a moment.
#[derive(Clone, Copy)]
struct Clocks {
    at_us: u64,
    server: Option<f64>,
    harness: f64,
}

/// What an interval took.
#[derive(Clone, Copy, Default)]
struct Took {
    seconds: f64,
    server: Option<f64>,
    harness: f64,
}

struct Measured {
    took: Took,
    publications: u64,
    storm_back_s: Option<f64>,
    requests: u64,
}

impl<'a> Drive<'a> {
    fn new(scenario: &'a Scenario, target: &'a Running, stopped: &'a AtomicBool) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let run = format!("load-{}-{number}", std::process::id());
        let tag = |name: &str| format!("{TAG_PREFIX}{run}.{name}");
        let processes = scenario.processes();
        let groups = scenario.groups.iter().map(|group| {
            GroupState::new(tag(&group.name), share(group.subscribers, 0, processes)).asking(group.tags_each)
        });
        let state = State::new(target.dialect.clone(), groups.collect());
        let sources = Place::sources(target.server, scenario.connections(), std::process::id().wrapping_add(number));
        let place = Place { server: target.server, publishing: None, sources, run };
        let jobs = jobs(scenario, target, &place, &state);
        let mut crowd = Crowd::new(place, state, scenario.opening.at_once.div_ceil(processes))?;
        if scenario.spin && processes == 1 {
            crowd.spin();
        }
        if scenario.storm.is_some() {
            crowd.read_the_first_ahead();
        }
        Ok(Self {
            scenario,
            target,
            stopped,
            feeds: Vec::new(),
            traffic: Traffic::new(scenario),
            workers: Workers::start(&[], &crowd)?,
            jobs,
            crowd,
            series: Vec::new(),
            progress: Progress::new(format!("{} against {}", scenario.name, target.name)),
        })
    }

    /// Opens back-ends, publishers and everybody; what that took, by connection.
    fn open_all(&mut self) -> Result<Took> {
        if self.scenario.requests.is_some() && self.crowd.state.dialect().needs_backend() {
            self.crowd.open(Who::Backend, monotonic_us())?;
        }
        for (at, group) in self.scenario.groups.iter().enumerate() {
            if group.window.is_some() || group.rate.is_some() {
                let publisher = self.crowd.open(Who::Publisher { group: at }, monotonic_us())?;
                self.feeds.extend(Feed::new(at, group, publisher));
            }
        }
        self.until_open("publishers")?;
        let before = self.clocks()?;
        self.crowd.state.measure.begin(before.at_us, false);
        let mut timetable = timetable::Timetable::new(
            before.at_us,
            (self.scenario.opening.rate / self.scenario.processes() as f64).max(1e-9),
        );
        self.workers = Workers::start(&self.jobs, &self.crowd)?;
        for who in self.everybody() {
            let due_us = if self.scenario.opening.rate > 0.0 { timetable.take(u64::MAX).unwrap_or(0) } else { 0 };
            self.crowd.want(Wanted { who, due_us });
        }
        self.until_open("opening")?;
        ensure!(self.open() > 0, "no connection could be opened: {}", self.crowd.state.findings);
        Ok(self.clocks()?.since(&before))
    }

    fn everybody(&self) -> Vec<Who> {
        let Scenario { groups, storm, churn, requests, .. } = self.scenario;
        let mut all = Vec::with_capacity(self.scenario.connections());
        for (group, of) in groups.iter().enumerate() {
            let own = share(of.subscribers, 0, self.scenario.processes());
            all.extend(std::iter::repeat_n(Who::Subscriber { group, steady: true }, own));
        }
        if let Some(storm) = storm {
            all.extend(std::iter::repeat_n(passing(self.scenario.group(&storm.group)), storm.connections));
        }
        if let Some(churn) = churn {
            all.extend(std::iter::repeat_n(passing(self.scenario.group(&churn.group)), churn.connections));
        }
        all.extend(std::iter::repeat_n(Who::Requester, requests.as_ref().map_or(0, |requests| requests.users)));
        all
    }

    fn until_open(&mut self, phase: &str) -> Result<()> {
        let all = self.still_opening().max(1);
        let rate = self.scenario.opening.rate;
        let planned = if rate > 0.0 { all as f64 / rate } else { all as f64 / 200.0 };
        let deadline = monotonic_us() + (OPENING_PATIENCE + Duration::from_secs_f64(planned)).as_micros() as u64;
        while self.still_opening() > 0 {
            self.turn(None, u64::MAX)?;
            let left = self.still_opening();
            if monotonic_us() > deadline {
                bail!("{left} of {all} connections are not open: {}", self.crowd.state.findings);
            }
            self.progress.show(phase, 1.0 - left as f64 / all as f64, &format!("{} open", self.open()));
        }
        Ok(())
    }

    fn still_opening(&self) -> usize {
        self.crowd.still_opening() + self.workers.opening() + self.traffic.to_break()
    }

    fn open(&self) -> usize {
        self.crowd.state.open + self.workers.open()
    }

    /// One publication a group, so that all texts after it have their length.
    fn fit(&mut self) -> Result<()> {
        let now = monotonic_us();
        for feed in &mut self.feeds {
            feed.send_first(&mut self.crowd, now);
        }
        self.arrive()?;
        self.feeds.iter_mut().for_each(|feed| feed.fit(&self.crowd));
        self.rest(SETTLE)
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        let until = monotonic_us() + time.as_micros() as u64;
        while monotonic_us() < until {
            self.turn(None, until)?;
        }
        Ok(())
    }

    fn publish_for(&mut self, seconds: f64, phase: &str) -> Result<()> {
        let began = monotonic_us();
        self.feeds.iter_mut().for_each(|feed| feed.begin(began));
        self.traffic.begin(began);
        let end = began + (seconds * 1e6) as u64;
        let mut next_second = began + SECOND_US;
        let mut before = self.clocks()?;
        // What is due before the end is sent, if late: a pause of this machine must not hide it.
        let give_up = end + ARRIVAL_PATIENCE.as_micros() as u64;
        while monotonic_us() < end || (self.missed(end) > 0 && monotonic_us() < give_up) {
            self.turn(Some(end), next_second)?;
            let now = monotonic_us();
            if now >= next_second {
                next_second += SECOND_US;
                let clocks = self.clocks()?;
                self.end_second(clocks.since(&before), now, began);
                before = clocks;
                let words = format!("{} open, {}/s", self.open(), self.last_deliveries());
                self.progress.show(phase, (now - began) as f64 / 1e6 / seconds, &words);
            }
        }
        let missed = self.missed(end);
        if missed > 0 {
            self.crowd.state.findings.add_many("not_sent", missed, "they were due, and the server took no more");
        }
        self.traffic.end();
        Ok(())
    }

    fn missed(&self, end_us: u64) -> u64 {
        self.feeds.iter().map(|feed| feed.missed(end_us)).sum::<u64>() + self.traffic.missed(end_us)
    }

    fn last_deliveries(&self) -> u64 {
        self.series.last().map_or(0, |second| second.deliveries)
    }

    fn end_second(&mut self, took: Took, now_us: u64, began_us: u64) {
        let second = self.crowd.state.measure.end_second();
        self.series.push(Second {
            at_s: (now_us - began_us) as f64 / 1e6,
            server_cpu: took.server.unwrap_or_default(),
            harness_cpu: took.harness,
            open: self.open(),
            ..second
        });
    }

    /// Waits for what is outstanding.
    fn arrive(&mut self) -> Result<()> {
        let deadline = monotonic_us() + ARRIVAL_PATIENCE.as_micros() as u64;
        while self.outstanding() > 0 {
            self.turn(None, u64::MAX)?;
            if monotonic_us() > deadline {
                let outstanding = self.outstanding();
                self.crowd.state.findings.add_many(
                    "never_arrived",
                    outstanding,
                    "publications or answers that are missing somewhere",
                );
                return Ok(());
            }
        }
        Ok(())
    }

    fn outstanding(&self) -> u64 {
        let publications = self.feeds.iter().map(|feed| self.crowd.state.groups[feed.group()].outstanding() as u64);
        publications.sum::<u64>() + self.traffic.asked().saturating_sub(self.crowd.state.answered)
    }

    fn measure(&mut self) -> Result<Measured> {
        self.series.clear();
        let (sent, asked) = (self.sent(), self.traffic.asked());
        self.begin_elsewhere()?;
        let before = self.clocks()?;
        self.crowd.state.measure.begin(before.at_us, self.traffic.is_quiet());
        self.publish_for(self.scenario.seconds, "measured")?;
        self.arrive()?;
        self.until_open("coming back")?;
        self.traffic.watch_storm(&mut self.crowd, monotonic_us());
        let took = self.clocks()?.since(&before);
        self.collect()?;
        Ok(Measured {
            took,
            publications: self.sent() - sent,
            storm_back_s: self.traffic.storm_back_s(),
            requests: self.traffic.asked() - asked,
        })
    }

    /// Other processes measure from here on: nothing is published before they have said so.
    fn begin_elsewhere(&mut self) -> Result<()> {
        let from_us = monotonic_us();
        self.workers.order(Order::Measure(from_us, self.traffic.is_quiet()))?;
        self.until_told(|workers| workers.measure_from(from_us).then_some(()))
    }

    /// Adds what other processes measured.
    fn collect(&mut self) -> Result<()> {
        self.workers.order(Order::Report)?;
        let reports = self.until_told(Workers::reports)?;
        let State { measure, findings, .. } = &mut self.crowd.state;
        reports.iter().for_each(|report| report.add_to(measure, findings, &mut self.series));
        Ok(())
    }

    fn until_told<T>(&mut self, mut told: impl FnMut(&mut Workers) -> Option<T>) -> Result<T> {
        let deadline = monotonic_us() + ARRIVAL_PATIENCE.as_micros() as u64;
        loop {
            if let Some(told) = told(&mut self.workers) {
                return Ok(told);
            }
            ensure!(monotonic_us() < deadline, "another process of the harness does not answer");
            self.turn(None, u64::MAX)?;
        }
    }

    fn sent(&self) -> u64 {
        self.feeds.iter().map(Feed::sent).sum()
    }

    /// One turn of everything, until `until_us` at the longest; what is due before `end_us` is published, if there is one.
    fn turn(&mut self, end_us: Option<u64>, until_us: u64) -> Result<()> {
        ensure!(!self.stopped.load(Ordering::Relaxed), "stopped by a signal");
        let now = monotonic_us();
        let mut next = until_us.min(now + TURN_US);
        if let Some(end) = end_us {
            let due_by = now.min(end.saturating_sub(1));
            for feed in &mut self.feeds {
                next = next.min(feed.send_due(&mut self.crowd, due_by));
            }
            next = next.min(self.traffic.turn(&mut self.crowd, due_by)).min(end.max(now));
        }
        self.traffic.watch_storm(&mut self.crowd, now);
        if self.traffic.to_break() > 0 {
            next = now;
        }
        if let Some(due) = self.crowd.next_due_us() {
            next = next.min(due);
        }
        self.crowd.turn(next)?;
        self.workers.take(&mut self.crowd)
    }

    fn clocks(&self) -> Result<Clocks> {
        let own = procfs::cpu_ns(std::process::id()).context("the harness's own time")?.process;
        let own = own.saturating_sub(self.crowd.spun_us() * 1000);
        let harness = (own + self.workers.cpu_ns()) as f64 / 1e9;
        Ok(Clocks { at_us: monotonic_us(), server: self.target.cpu_seconds(), harness })
    }

    fn outcome(mut self, before: &Before, opened: &Took, measured: &Measured) -> Outcome {
        let Measured { took, .. } = measured;
        let server_share = took.server.map(|cpu| cpu / took.seconds);
        let harness = Harness::judge(took.harness / took.seconds, &self.crowd.state.measure.late, server_share);
        let figures = self.figures(before, opened, measured);
        let State { measure, findings, .. } = &mut self.crowd.state;
        let mut curves: Vec<Curve> = self
            .scenario
            .groups
            .iter()
            .zip(&measure.groups)
            .map(|(group, latency)| Curve::of(&group.name, latency))
            .collect();
        for (name, latency) in [
            ("storm", &measure.storm),
            ("requests", &measure.requests),
            ("handshakes", &measure.handshakes),
            ("sending", &measure.late),
        ] {
            curves.push(Curve::of(name, latency));
        }
        Outcome {
            target: self.target.name,
            scenario: self.scenario.clone(),
            ok: findings.total() == 0,
            connections: self.scenario.connections(),
            seconds: took.seconds,
            figures,
            curves,
            series: self.series,
            harness,
            findings: std::mem::take(findings),
        }
    }
}

/// What other processes are to hold.
fn jobs(scenario: &Scenario, target: &Running, place: &Place, state: &State) -> Vec<Job> {
    let processes = scenario.processes();
    let groups = |number| {
        let all = scenario.groups.iter().zip(&state.groups);
        all.map(move |(of, group)| (group.tag.clone(), share(of.subscribers, number, processes), of.tags_each))
            .collect()
    };
    let job = |number| Job {
        server: target.server,
        sources: place.sources.clone(),
        run: format!("{}-{number}", place.run),
        dialect: target.dialect.clone(),
        groups: groups(number),
        at_once: scenario.opening.at_once.div_ceil(processes),
        rate: scenario.opening.rate / processes as f64,
    };
    (1..processes).map(job).collect()
}

impl Clocks {
    fn since(&self, before: &Self) -> Took {
        Took {
            seconds: (self.at_us - before.at_us) as f64 / 1e6,
            server: self.server.zip(before.server).map(|(now, then)| now - then),
            harness: self.harness - before.harness,
        }
    }
}

#[cfg(test)]
mod tests;
