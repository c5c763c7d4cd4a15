//! `loadtest worker`: a crowd's share in a process of its own, because a process holds only so many sockets. Started by
//! `run`, told what to do by lines of JSON on the standard input, and telling what it sees on the standard output.
//!
//! It holds subscribers that stay, and nothing else. It ends when its input does.

use std::{
    io::{self, BufRead, Write},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
};

use anyhow::{Context, Result};
use rustix::io::{Errno, ioctl_fionbio, read};
use serde::{Deserialize, Serialize};

use crate::{
    clock::monotonic_us,
    crowd::{
        Crowd, GroupState, Place, State, Wanted,
        dialect::{Dialect, Who},
        measure::{Measure, Second},
    },
    findings::Findings,
    machine,
    report::Latency,
};

/// Longest wait in one turn.
const TURN_US: u64 = 20_000;
const SECOND_US: u64 = 1_000_000;
/// Longest line from the other side.
const LINE_BYTES_MAX: usize = 16 << 20;

/// What a worker is to hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// The server.
    pub server: SocketAddr,
    /// Addresses that its connections come from.
    pub sources: Vec<Ipv4Addr>,
    /// What its connections are named after.
    pub run: String,
    /// How to speak.
    pub dialect: Dialect,
    /// Tags, how many subscribers of each, and how many tags each of those asks for.
    pub groups: Vec<(String, usize, usize)>,
    /// Most connections that are being opened at a time.
    pub at_once: usize,
    /// Connections a second; 0: as fast as that allows.
    pub rate: f64,
}

/// What a worker is told while it works.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub enum Order {
    /// What is meant to happen from here on is measured: microseconds of the monotonic clock; whether handshakes of before
    /// are kept.
    Measure(u64, bool),
    /// Tell what was measured.
    Report,
}

/// What a worker tells.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct News {
    /// Connections that are neither open nor given up.
    pub opening: usize,
    /// Connections that are open.
    pub open: usize,
    /// By group, how many publications all its subscribers have; nothing for a group of which it has none.
    pub complete: Vec<Option<u64>>,
    /// From when on it measures, since it was told to.
    pub from_us: u64,
    /// What was asked for.
    pub report: Option<Report>,
}

/// What a worker measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// By group: `(microseconds, count)`.
    groups: Vec<Vec<(u64, u64)>>,
    handshakes: Vec<(u64, u64)>,
    deliveries: u64,
    series: Vec<Second>,
    counts: Vec<(String, u64)>,
    examples: Vec<String>,
}

/// Works until the input ends.
pub fn work() -> Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("the job")?;
    let mut worker = Worker::new(serde_json::from_str(&line).context("the job")?)?;
    let (stdin, mut lines) = (io::stdin(), Lines::default());
    ioctl_fionbio(&stdin, true).context("the input")?;
    loop {
        let is_open = lines.take(&stdin, |line| worker.obey(serde_json::from_str(line)?))?;
        if !is_open {
            return Ok(());
        }
        worker.turn()?;
    }
}

struct Worker {
    crowd: Crowd,
    series: Vec<Second>,
    next_second_us: u64,
    from_us: u64,
    told: (usize, usize, Vec<Option<u64>>),
}

/// No state of a worker is like this.
const NOTHING_TOLD: (usize, usize, Vec<Option<u64>>) = (usize::MAX, usize::MAX, Vec::new());

impl Worker {
    fn new(job: Job) -> Result<Self> {
        let Job { server, sources, run, dialect, groups, at_once, rate } = job;
        let all: usize = groups.iter().map(|(_, subscribers, _)| subscribers).sum();
        machine::allow_files(all as u64 + 50)?;
        let states = groups
            .iter()
            .map(|(tag, subscribers, asked)| GroupState::following(tag.clone(), *subscribers).asking(*asked));
        let state = State::new(dialect, states.collect());
        let mut crowd = Crowd::new(Place { server, publishing: None, sources, run }, state, at_once)?;
        let (began, mut number) = (monotonic_us(), 0.0);
        crowd.state.measure.begin(began, false);
        for (group, (_, subscribers, _)) in groups.iter().enumerate() {
            for _ in 0..*subscribers {
                let due_us = if rate > 0.0 { began + (number * 1e6 / rate) as u64 } else { 0 };
                number += 1.0;
                crowd.want(Wanted { who: Who::Subscriber { group, steady: true }, due_us });
            }
        }
        Ok(Self { crowd, series: Vec::new(), next_second_us: u64::MAX, from_us: 0, told: NOTHING_TOLD })
    }

    fn turn(&mut self) -> Result<()> {
        let next = (monotonic_us() + TURN_US).min(self.next_second_us);
        let next = self.crowd.next_due_us().map_or(next, |due| due.min(next));
        self.crowd.turn(next)?;
        if monotonic_us() >= self.next_second_us {
            self.next_second_us += SECOND_US;
            let at_s = self.series.len() as f64 + 1.0;
            self.series.push(Second { at_s, ..self.crowd.state.measure.end_second() });
        }
        self.tell(None)
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Measure(from_us, keeps_handshakes) => {
                self.crowd.state.measure.begin(from_us, keeps_handshakes);
                self.series.clear();
                self.next_second_us = from_us + SECOND_US;
                self.from_us = from_us;
                self.told = NOTHING_TOLD;
                Ok(())
            }
            Order::Report => {
                self.next_second_us = u64::MAX;
                let State { measure, findings, .. } = &self.crowd.state;
                let report = Report::of(measure, findings, &self.series);
                self.tell(Some(report))
            }
        }
    }

    /// Tells what has changed.
    fn tell(&mut self, report: Option<Report>) -> Result<()> {
        let state = &self.crowd.state;
        let complete: Vec<Option<u64>> = state.groups.iter().map(GroupState::complete_here).collect();
        let now = (self.crowd.still_opening(), state.open, complete);
        if report.is_none() && now == self.told {
            return Ok(());
        }
        self.told = now.clone();
        let news = News { opening: now.0, open: now.1, complete: now.2, from_us: self.from_us, report };
        let text = serde_json::to_string(&news)? + "\n";
        io::stdout().lock().write_all(text.as_bytes()).context("telling")
    }
}

impl Report {
    fn of(measure: &Measure, findings: &Findings, series: &[Second]) -> Self {
        Self {
            groups: measure.groups.iter().map(recorded).collect(),
            handshakes: recorded(&measure.handshakes),
            deliveries: measure.deliveries,
            series: series.to_vec(),
            counts: findings.counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            examples: findings.examples.clone(),
        }
    }

    /// Adds it to what this process measured. Of a second the worse latency stays.
    pub fn add_to(&self, measure: &mut Measure, findings: &mut Findings, series: &mut [Second]) {
        for (own, others) in measure.groups.iter_mut().zip(&self.groups) {
            others.iter().for_each(|(us, count)| own.saturating_record_n(*us, *count));
        }
        self.handshakes.iter().for_each(|(us, count)| measure.handshakes.saturating_record_n(*us, *count));
        measure.deliveries += self.deliveries;
        for (own, other) in series.iter_mut().zip(&self.series) {
            own.deliveries += other.deliveries;
            own.p50_ms = own.p50_ms.max(other.p50_ms);
            own.p99_ms = own.p99_ms.max(other.p99_ms);
        }
        for (kind, count) in &self.counts {
            findings.add_many(
                known(kind),
                *count,
                format_args!("in another process: {kind}: {}", self.examples.join("; ")),
            );
        }
    }
}

fn recorded(latency: &Latency) -> Vec<(u64, u64)> {
    latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// A finding's kind as this program names it.
fn known(kind: &str) -> &'static str {
    ["lost", "repeated_or_out_of_order", "not_a_publication", "connection_ended", "not_opened", "refused"]
        .into_iter()
        .find(|known| *known == kind)
        .unwrap_or("of_another_process")
}

/// Lines of a pipe that is never waited for.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Hands over the whole lines that are there; whether the other side may still write.
    pub fn take(&mut self, pipe: impl AsFd, mut line: impl FnMut(&str) -> Result<()>) -> Result<bool> {
        let (mut buffer, mut is_open) = ([0; 64 << 10], true);
        loop {
            match read(&pipe, &mut buffer) {
                Ok(0) => {
                    is_open = false;
                    break;
                }
                Ok(got) => self.0.extend_from_slice(&buffer[..got]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(problem) => return Err(problem).context("reading a pipe"),
            }
            anyhow::ensure!(self.0.len() <= LINE_BYTES_MAX, "an endless line in a pipe");
        }
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.0.drain(..=end).collect();
            line(std::str::from_utf8(&whole)?.trim_end())?;
        }
        Ok(is_open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_added_whole_and_the_worse_second_stays() {
        let mut measure = Measure::new(1);
        measure.begin(0, false);
        measure.delivery(0, 10, 30);
        let mut findings = Findings::default();
        findings.add("lost", "x");
        findings.add("never_sent", "y");
        let series = [Second { deliveries: 7, p99_ms: 2.0, ..Second::default() }];
        let text = serde_json::to_string(&Report::of(&measure, &findings, &series)).expect("JSON");
        let report: Report = serde_json::from_str(&text).expect("a report");
        let (mut own, mut own_findings) = (Measure::new(1), Findings::default());
        let mut own_series = [Second { deliveries: 1, p99_ms: 1.0, ..Second::default() }];
        report.add_to(&mut own, &mut own_findings, &mut own_series);
        assert_eq!((own.deliveries, own.groups[0].len(), own.groups[0].max()), (1, 1, 20));
        assert_eq!((own_series[0].deliveries, own_series[0].p99_ms), (8, 2.0));
        assert_eq!((own_findings.count("lost"), own_findings.count("of_another_process")), (1, 1));
    }

    #[test]
    fn lines_come_whole_however_a_pipe_is_filled() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
        reader.set_nonblocking(true).expect("an option");
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["a", "b\nc", "\n", "d"] {
            writer.write_all(piece.as_bytes()).expect("written");
            let is_open = lines.take(&reader, |line| {
                seen.push(line.to_owned());
                Ok(())
            });
            assert!(is_open.expect("read"));
        }
        assert_eq!(seen, ["ab", "c"]);
        drop(writer);
        assert!(!lines.take(&reader, |_| Ok(())).expect("read"));
    }
}
