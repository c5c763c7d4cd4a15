//! One turn: everybody is opened, publications leave on their timetable, all of them arrive.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use super::{
    AcrossArgs,
    cluster::{Clocks, Cluster},
    report::Turn,
};
use crate::{
    clock::monotonic_us,
    crowd::{
        Crowd, GroupState, Place, State, Wanted,
        dialect::{Dialect, Who},
        payload::Mark,
    },
    drive::timetable::Timetable,
    procfs,
    report::latency,
    target::{TAG_PREFIX, resolve},
};

/// Most connections that are being opened at a time.
const AT_ONCE: usize = 64;
/// Most publications of one back-end that are unanswered, and bytes that are unsent.
const UNANSWERED_MAX: u64 = 16_384;
const UNSENT_BYTES_MAX: usize = 4 << 20;
/// Longest wait in one turn: a signal must be noticed.
const TURN_US: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Pump<'a> {
    args: &'a AcrossArgs,
    stopped: &'a AtomicBool,
    crowd: Crowd,
    publishers: Vec<Publisher>,
    /// Publications of each tag.
    sent: Vec<u64>,
    /// The tag whose turn it is.
    next_tag: usize,
}

/// A back-end's connection.
struct Publisher {
    name: u64,
    sent: u64,
    /// What has become due since its last write.
    due: Vec<(u64, String)>,
    next_write_us: u64,
}

/// Runs one turn against `cluster`.
pub fn pump(cluster: &Cluster, args: &AcrossArgs, stopped: &AtomicBool) -> Result<Turn> {
    let mut pump = Pump::new(cluster, args, stopped)?;
    pump.open_all()?;
    pump.publish_for(args.warmup)?;
    pump.arrive()?;
    let (before, own) = (cluster.clocks()?, pump.own_cpu()?);
    let began = monotonic_us();
    pump.crowd.state.measure.begin(began, false);
    let publications = pump.publish_for(args.seconds)?;
    pump.arrive()?;
    let seconds = (monotonic_us() - began) as f64 / 1e6;
    let harness = (pump.own_cpu()? - own) / seconds;
    let after = cluster.clocks()?;
    Ok(pump.turn_of(cluster, publications, seconds, (before, after), harness))
}

impl<'a> Pump<'a> {
    fn new(cluster: &Cluster, args: &'a AcrossArgs, stopped: &'a AtomicBool) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let run = format!("across-{}-{number}", std::process::id());
        let credentials = &cluster.taking.credentials;
        let dialect = Dialect::Ours { pid: credentials.pid.clone(), secret: credentials.secret().to_owned() };
        let groups = (0..args.tags).map(|tag| GroupState::new(format!("{TAG_PREFIX}{run}.{tag}"), args.subscribers));
        let state = State::new(dialect, groups.collect());
        let taking = resolve(&cluster.taking.ws)?;
        let server = cluster.holding.as_ref().map_or(Ok(taking), |holding| resolve(&holding.ws))?;
        let place = Place { server, publishing: Some(taking), sources: Vec::new(), run };
        let mut crowd = Crowd::new(place, state, AT_ONCE)?;
        if args.spin {
            crowd.spin();
        }
        Ok(Self { args, stopped, crowd, publishers: Vec::new(), sent: vec![0; args.tags], next_tag: 0 })
    }

    fn open_all(&mut self) -> Result<()> {
        for group in 0..self.args.publishers {
            let name = self.crowd.open(Who::Publisher { group }, monotonic_us())?;
            self.publishers.push(Publisher { name, sent: 0, due: Vec::new(), next_write_us: 0 });
        }
        for group in 0..self.args.tags {
            for _ in 0..self.args.subscribers {
                self.crowd.want(Wanted { who: Who::Subscriber { group, steady: true }, due_us: 0 });
            }
        }
        let deadline = monotonic_us() + PATIENCE.as_micros() as u64;
        while self.crowd.still_opening() > 0 {
            self.wait(u64::MAX)?;
            if monotonic_us() > deadline {
                bail!("{} connections are not open: {}", self.crowd.still_opening(), self.crowd.state.findings);
            }
        }
        let expected = self.args.publishers + self.args.tags * self.args.subscribers;
        ensure!(self.crowd.state.open == expected, "not all are open: {}", self.crowd.state.findings);
        Ok(())
    }

    /// Publishes on the timetable; how many.
    fn publish_for(&mut self, seconds: f64) -> Result<u64> {
        let began = monotonic_us();
        let end = began + (seconds * 1e6) as u64;
        let give_up = end + PATIENCE.as_micros() as u64;
        let mut timetable = Timetable::new(began, self.args.rate);
        let before: u64 = self.sent.iter().sum();
        self.stagger(began);
        while (timetable.next_us() < end || self.is_holding()) && monotonic_us() < give_up {
            self.take_due(&mut timetable, end);
            self.write_due();
            let next = self.publishers.iter().filter(|publisher| !publisher.due.is_empty() || self.args.every > 0.0);
            let next = next.map(|publisher| publisher.next_write_us).min().unwrap_or(u64::MAX);
            let due = if self.args.every > 0.0 || !self.may_take() { u64::MAX } else { timetable.next_us() };
            self.wait(next.min(due))?;
        }
        let missed = timetable.missed(end);
        if missed > 0 {
            self.crowd.state.findings.add_many("not_sent", missed, "they were due, and the node took no more");
        }
        Ok(self.sent.iter().sum::<u64>() - before)
    }

    /// Back-ends do not write at the same moment.
    fn stagger(&mut self, began_us: u64) {
        let step_us = self.args.every * 1e3 / self.publishers.len() as f64;
        for (at, publisher) in self.publishers.iter_mut().enumerate() {
            publisher.next_write_us = began_us + (at as f64 * step_us) as u64;
        }
    }

    fn is_holding(&self) -> bool {
        self.publishers.iter().any(|publisher| !publisher.due.is_empty())
    }

    /// Takes what is due from the timetable.
    fn take_due(&mut self, timetable: &mut Timetable, end_us: u64) {
        let now = monotonic_us().min(end_us - 1);
        while self.may_take() {
            let Some(due_us) = timetable.take(now) else { return };
            let tag = self.next_tag;
            self.next_tag = (tag + 1) % self.args.tags;
            self.crowd.state.groups[tag].sent();
            let mark = Mark { number: self.sent[tag], due_us };
            self.sent[tag] += 1;
            let name = &self.crowd.state.groups[tag].tag;
            let text = self.crowd.state.dialect().publication(name, mark, self.args.payload);
            let at = tag % self.publishers.len();
            self.publishers[at].due.push((due_us, text));
        }
    }

    /// Whether the back-end whose turn it is may have one more.
    fn may_take(&self) -> bool {
        let at = self.next_tag % self.publishers.len();
        let Publisher { name, sent, due, .. } = &self.publishers[at];
        let unanswered = (sent + due.len() as u64).saturating_sub(self.crowd.state.groups[at].accepted);
        unanswered < UNANSWERED_MAX && self.crowd.unsent(*name) < UNSENT_BYTES_MAX
    }

    /// Each back-end whose time it is writes what it holds.
    fn write_due(&mut self) {
        let now = monotonic_us();
        let every_us = (self.args.every * 1e3) as u64;
        for publisher in &mut self.publishers {
            if now < publisher.next_write_us {
                continue;
            }
            // Not those that were missed, one after the other.
            publisher.next_write_us = (publisher.next_write_us + every_us).max(now.saturating_sub(every_us));
            if publisher.due.is_empty() {
                continue;
            }
            let mut texts = Vec::with_capacity(publisher.due.len());
            for (due_us, text) in publisher.due.drain(..) {
                self.crowd.state.measure.leaves(due_us, now);
                texts.push(text);
            }
            publisher.sent += texts.len() as u64;
            self.crowd.send(publisher.name, &texts);
        }
    }

    /// Waits for what is outstanding, and for the answers.
    fn arrive(&mut self) -> Result<()> {
        let deadline = monotonic_us() + PATIENCE.as_micros() as u64;
        loop {
            let outstanding: usize = self.crowd.state.groups.iter().map(GroupState::outstanding).sum();
            let answered: u64 = self.crowd.state.groups.iter().map(|group| group.accepted).sum();
            let unanswered = self.sent.iter().sum::<u64>() - answered;
            if outstanding == 0 && unanswered == 0 {
                return Ok(());
            }
            if monotonic_us() > deadline {
                let findings = &mut self.crowd.state.findings;
                findings.add_many("never_arrived", outstanding as u64, "publications that somebody lacks");
                findings.add_many("never_answered", unanswered, "publications without an answer");
                return Ok(());
            }
            self.wait(u64::MAX)?;
        }
    }

    fn wait(&mut self, until_us: u64) -> Result<()> {
        ensure!(!self.stopped.load(Ordering::Relaxed), "stopped by a signal");
        self.crowd.turn(until_us.min(monotonic_us() + TURN_US))
    }

    /// CPU seconds of this harness, without those in which it would have slept.
    fn own_cpu(&self) -> Result<f64> {
        let own = procfs::cpu_ns(std::process::id())?.process;
        Ok(own.saturating_sub(self.crowd.spun_us() * 1000) as f64 / 1e9)
    }

    fn turn_of(
        self,
        cluster: &Cluster,
        publications: u64,
        seconds: f64,
        clocks: (Clocks, Clocks),
        harness: f64,
    ) -> Turn {
        let State { measure, findings, .. } = self.crowd.state;
        let mut all = latency();
        for group in &measure.groups {
            // Both have the same bounds.
            let _ = all.add(group);
        }
        let mut turn = Turn::new(cluster.queue, publications, seconds, findings);
        turn.of_latency((&all).into(), (&measure.acks).into(), (&measure.late).into());
        turn.of_clocks(clocks, harness, cluster.holding.is_some());
        turn
    }
}
