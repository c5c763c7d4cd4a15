//! What `loadtest slow` found, as a table for people or one JSON object for programs.

use std::{cell::RefCell, collections::BTreeMap, fmt::Write as _, rc::Rc};

use serde::Serialize;

use super::{
    Outcome, PhaseReport, SlowArgs,
    reader::{Reader, Resumed},
};
use crate::{
    findings::Findings,
    report::{Quantiles, latency},
    stats::Spread,
};

/// The live ones' p99 beside stalled ones is held to so many times that of the live ones alone.
const P99_RATIO_MAX: f64 = 1.2;
/// The p99 of the ages of a resumed reader's first values is held to so many milliseconds.
const AGE_P99_MS_MAX: f64 = 100.0;
/// Memory of a stalled connection may grow within the noise; noise below this, in bytes a second, is none.
const SLOPE_FLOOR: f64 = 1024.0;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct SlowReport {
    /// Whether nothing was wrong, and with `--strict` every figure is what it is held to.
    pub ok: bool,
    /// What was run.
    pub run: Setting,
    /// The feed.
    pub feed: FeedReport,
    /// The measured phases: live ones alone, then beside stalled ones.
    pub phases: Vec<PhaseReport>,
    /// The node's memory.
    pub memory: Memory,
    /// The second phase's p99 over the first's.
    pub p99_ratio: f64,
    /// What the stalled ones found when they read again.
    pub resumed: ResumedReport,
    /// What they are held to.
    pub verdicts: BTreeMap<&'static str, bool>,
    /// What was wrong.
    pub findings: Findings,
}

/// What was run.
#[derive(Debug, Serialize)]
pub struct Setting {
    stalled: usize,
    live: usize,
    tags: usize,
    tags_each: usize,
    rate: f64,
    payload: usize,
    keep_every: usize,
    class: String,
    limits: Vec<String>,
}

/// The feed.
#[derive(Debug, Serialize)]
pub struct FeedReport {
    /// Publications that were sent.
    pub sent: usize,
    /// Publications that were accepted.
    pub accepted: usize,
    /// From the intended time to the sending.
    pub late: Quantiles,
    /// From the intended time to the answer.
    pub answered: Quantiles,
}

/// The node's memory.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Growth beside stalled ones, bytes a second, less that of `ws_outbox_bytes`: kept publications that somebody is owed
    /// must be remembered, once a core.
    pub slope: f64,
    /// What counts as none: twice the standard errors of both phases' slopes, and the slope of the live ones alone.
    pub noise: f64,
    /// What a stalled connection adds: level of the second phase less that of the first.
    pub per_stalled_bytes: f64,
    /// Bytes in all outboxes at the end of the second phase.
    pub outbox_bytes: u64,
}

/// What the stalled ones found when they read again.
#[derive(Debug, Serialize)]
pub struct ResumedReport {
    /// How many read again.
    pub readers: usize,
    /// How many of them had been held back: something was merged, or a frame waited.
    pub held_back: usize,
    /// Publications that were merged away for them.
    pub merged: u64,
    /// Kept ones that came.
    pub kept: u64,
    /// Bytes between the node's last write and the reader.
    pub backlog_bytes: Spread,
    /// Age of the very first value that was read.
    pub first_read: Quantiles,
    /// Age of the first value behind at most so many bytes of backlog (`--backlog`).
    pub after_given: Quantiles,
    /// Age of the first value of each tag that was written after the reading went on.
    pub first_written: Quantiles,
    /// How long there had been a newer value than that.
    pub behind: Quantiles,
    /// From the resume to the first such value.
    pub until_fresh: Quantiles,
    /// Connections that ended, by how.
    pub ended: BTreeMap<String, u64>,
}

/// Makes the report of a run.
pub(super) fn make(args: &SlowArgs, outcome: Outcome) -> SlowReport {
    let Outcome { shared, live, stalled, fed, metrics } = outcome;
    let phases: Vec<PhaseReport> = shared.phases.borrow().iter().map(super::phases::Phase::report).collect();
    let [alone, beside] = phases.as_slice() else { unreachable!("two phases are measured") };
    let mut findings = shared.findings.borrow().clone();
    for (word, count) in &fed.problems {
        (0..*count).for_each(|_| findings.add("push_failed", word));
    }
    find_unfinished(&live, "live", &shared, &mut findings);
    find_unfinished(&stalled, "stalled", &shared, &mut findings);
    let errors = alone.resident.error.hypot(beside.resident.error);
    let level = |phase: &PhaseReport| f64::midpoint(phase.resident.from, phase.resident.to);
    let memory = Memory {
        slope: beside.resident.slope - beside.outbox.slope,
        noise: (2.0 * errors + alone.resident.slope.abs()).max(SLOPE_FLOOR),
        per_stalled_bytes: (level(beside) - level(alone)) / args.stalled.max(1) as f64,
        outbox_bytes: metrics.sum("ws_outbox_bytes", "") as u64,
    };
    let p99_ratio = beside.latency.p99_ms / alone.latency.p99_ms;
    let resumed = resumed(&stalled);
    let verdicts = BTreeMap::from([
        ("memory is flat", memory.slope <= memory.noise),
        ("p99 of the live ones within 1.2x", p99_ratio <= P99_RATIO_MAX),
        ("first values after a stall: age p99 under 100 ms", resumed.first_written.p99_ms < AGE_P99_MS_MAX),
        ("stalled ones were held back", args.stalled == 0 || resumed.held_back * 100 >= args.stalled * 95),
        ("nothing is wrong", findings.total() == 0),
    ]);
    let feed = FeedReport {
        sent: fed.sent,
        accepted: shared.ledger.borrow().accepted(),
        late: Quantiles::from(&fed.late),
        answered: Quantiles::from(&fed.answered),
    };
    let ok = findings.total() == 0 && (!args.strict || verdicts.values().all(|met| *met));
    SlowReport { ok, run: setting(args), feed, phases, memory, p99_ratio, resumed, verdicts, findings }
}

fn setting(args: &SlowArgs) -> Setting {
    Setting {
        stalled: args.stalled,
        live: args.live,
        tags: args.tags,
        tags_each: args.tags_each,
        rate: args.rate,
        payload: args.payload,
        keep_every: args.keep_every,
        class: args.class.clone(),
        limits: args.node.limits.clone(),
    }
}

/// Connections that ended and last values that did not come.
fn find_unfinished(
    readers: &[Rc<RefCell<Reader>>],
    what: &str,
    shared: &super::reader::Shared,
    findings: &mut Findings,
) {
    for (number, reader) in readers.iter().enumerate() {
        let reader = reader.borrow();
        if let Some(ending) = &reader.ending {
            findings.add("connection_ended", format_args!("{what} {number}: {ending}"));
            continue;
        }
        for (tag, view) in reader.views() {
            let sent = shared.ledger.borrow().sent(tag);
            if !view.is_at_end(sent) {
                let last = view.last();
                findings.add("last_value_missing", format_args!("{what} {number}, tag {tag}: {last:?} of {sent}"));
            }
        }
    }
}

fn resumed(stalled: &[Rc<RefCell<Reader>>]) -> ResumedReport {
    let readers: Vec<_> = stalled.iter().map(|reader| reader.borrow()).collect();
    let views = || readers.iter().flat_map(|reader| reader.views().map(|(_, view)| view));
    let found: Vec<&Resumed> = readers.iter().filter_map(|reader| reader.resumed()).collect();
    let quantiles = |of: fn(&Resumed) -> Vec<f64>| {
        let mut histogram = latency();
        let micros = found.iter().flat_map(|found| of(found)).map(|ms| (ms * 1000.0) as u64);
        micros.for_each(|micros| histogram.saturating_record(micros.max(1)));
        Quantiles::from(&histogram)
    };
    let mut ended = BTreeMap::new();
    for ending in readers.iter().filter_map(|reader| reader.ending.as_ref()) {
        *ended.entry(ending.to_string()).or_default() += 1;
    }
    ResumedReport {
        readers: found.len(),
        held_back: readers.iter().filter(|reader| reader.views().any(|(_, view)| view.merged > 0)).count(),
        merged: views().map(|view| view.merged).sum(),
        kept: views().map(|view| view.kept).sum(),
        backlog_bytes: Spread::of(found.iter().map(|found| found.backlog_bytes as f64)),
        first_read: quantiles(|found| found.first_read_ms.into_iter().collect()),
        after_given: quantiles(|found| found.after_given_ms.into_iter().collect()),
        first_written: quantiles(|found| found.first_written_ms.clone()),
        behind: quantiles(|found| found.behind_ms.clone()),
        until_fresh: quantiles(|found| found.until_fresh_ms.into_iter().collect()),
        ended,
    }
}

impl SlowReport {
    /// The report as people read it.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let Setting { stalled, live, tags, tags_each, rate, payload, class, .. } = &self.run;
        let _ = writeln!(
            out,
            "slow: {stalled} stalled and {live} live subscribers, {tags_each} of {tags} {class} tags each, {rate} publications/s of {payload} B\n"
        );
        self.write_latencies(&mut out);
        self.write_phases(&mut out);
        let Memory { slope, noise, per_stalled_bytes, outbox_bytes } = self.memory;
        let _ = writeln!(
            out,
            "\nmemory beside stalled ones: {slope:+.0} B/s (noise {noise:.0} B/s), {per_stalled_bytes:.0} B a stalled connection, {outbox_bytes} B in outboxes"
        );
        let _ = writeln!(out, "p99 of the live ones: {:.2} times that without stalled ones", self.p99_ratio);
        self.write_resumed(&mut out);
        for (what, met) in &self.verdicts {
            let _ = writeln!(out, "{:<52}{}", what, if *met { "yes" } else { "NO" });
        }
        let _ = write!(out, "\n{}", self.findings);
        let _ = writeln!(out, "\nresult: {}", if self.ok { "ok" } else { "FAILED" });
        out
    }

    fn write_latencies(&self, out: &mut String) {
        let columns = ["count", "p50", "p99", "p99.9", "max"];
        let _ = write!(out, "{:<44}", "ms");
        for column in columns {
            let _ = write!(out, "{column:>12}");
        }
        let mut line = |name: &str, q: &Quantiles| {
            let Quantiles { count, p50_ms, p99_ms, p999_ms, max_ms } = q;
            let _ = write!(out, "\n{name:<44}{count:>12}{p50_ms:>12.2}{p99_ms:>12.2}{p999_ms:>12.2}{max_ms:>12.2}");
        };
        line("publication sent after its time", &self.feed.late);
        line("publication answered", &self.feed.answered);
        for phase in &self.phases {
            line(&format!("at live ones, {}", phase.name), &phase.latency);
        }
        line("resumed: age of the first value read", &self.resumed.first_read);
        line("resumed: first value behind given backlog", &self.resumed.after_given);
        line("resumed: first value written after", &self.resumed.first_written);
        line("resumed: a newer one had existed for", &self.resumed.behind);
        line("resumed: time to the first such value", &self.resumed.until_fresh);
        out.push('\n');
    }

    fn write_phases(&self, out: &mut String) {
        for phase in &self.phases {
            let PhaseReport { name, seconds, p99_of_parts_ms: p99, resident, outbox, core_busy, .. } = phase;
            let _ = writeln!(
                out,
                "\n{name}: {seconds:.1} s, core busy {:.0} %, p99 of 5 s parts {:.2} ({:.2} to {:.2}) ms",
                core_busy * 100.0,
                p99.median,
                p99.min,
                p99.max
            );
            let _ = writeln!(
                out,
                "  resident {:.1} to {:.1} MiB, {:+.0} ± {:.0} B/s, scatter {:.0} B; outboxes {:.0} to {:.0} B",
                resident.from / 1048576.0,
                resident.to / 1048576.0,
                resident.slope,
                resident.error,
                resident.scatter,
                outbox.from.max(0.0),
                outbox.to.max(0.0)
            );
        }
    }

    fn write_resumed(&self, out: &mut String) {
        let ResumedReport { readers, held_back, merged, kept, backlog_bytes, ended, .. } = &self.resumed;
        let _ = writeln!(
            out,
            "resumed: {readers} readers, {held_back} had been held back; {merged} publications merged, {kept} kept ones came; backlog {:.0} ({:.0} to {:.0}) B",
            backlog_bytes.median, backlog_bytes.min, backlog_bytes.max
        );
        for (how, count) in ended {
            let _ = writeln!(out, "  {count} connections {how}");
        }
        out.push('\n');
    }
}
