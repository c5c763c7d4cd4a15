//! The other processes of a run, each with its share of the subscribers. They end when this value does.

use std::{
    io::Write,
    os::fd::OwnedFd,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::io::ioctl_fionbio;

use crate::{
    crowd::{
        Crowd,
        worker::{Job, Lines, News, Order, Report},
    },
    procfs,
};

/// See the module.
pub struct Workers(Vec<Worker>);

struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: OwnedFd,
    lines: Lines,
    news: News,
}

impl Workers {
    /// Starts one for each job; `crowd` wakes when one tells something.
    pub fn start(jobs: &[Job], crowd: &Crowd) -> Result<Self> {
        let mut workers = Self(Vec::new());
        for (number, job) in jobs.iter().enumerate() {
            let program = std::env::current_exe().context("this program's own path")?;
            let mut command = Command::new(program);
            command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().context("starting another process")?;
            let (input, output) = (child.stdin.take(), child.stdout.take().context("its output")?);
            let output = OwnedFd::from(output);
            ioctl_fionbio(&output, true)?;
            crowd.watch(&output, number as u64)?;
            // Until it has told something it is opening.
            let news = News { opening: 1, complete: vec![Some(0); job.groups.len()], ..News::default() };
            let mut worker = Worker { child, input, output, lines: Lines::default(), news };
            worker.say(&serde_json::to_string(job)?)?;
            workers.0.push(worker);
        }
        Ok(workers)
    }

    /// Takes what they have told, and tells the groups.
    pub fn take(&mut self, crowd: &mut Crowd) -> Result<()> {
        for worker in &mut self.0 {
            let Worker { output, lines, news, .. } = worker;
            let is_open = lines.take(output, |line| {
                let told: News = serde_json::from_str(line).context("what another process told")?;
                let report = told.report.or_else(|| news.report.take());
                *news = News { report, ..told };
                Ok(())
            })?;
            ensure!(is_open, "another process of the harness ended");
        }
        for (at, group) in crowd.state.groups.iter_mut().enumerate() {
            let complete = self.0.iter().filter_map(|worker| worker.news.complete.get(at).copied().flatten());
            group.complete_elsewhere = complete.min();
        }
        Ok(())
    }

    /// Connections that are neither open nor given up.
    pub fn opening(&self) -> usize {
        self.0.iter().map(|worker| worker.news.opening).sum()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.0.iter().map(|worker| worker.news.open).sum()
    }

    /// CPU nanoseconds of all of them until now.
    pub fn cpu_ns(&self) -> u64 {
        self.0.iter().filter_map(|worker| procfs::cpu_ns(worker.child.id()).ok()).map(|time| time.process).sum()
    }

    /// Whether all measure from this moment on.
    pub fn measure_from(&self, from_us: u64) -> bool {
        self.0.iter().all(|worker| worker.news.from_us == from_us)
    }

    /// Tells all of them.
    pub fn order(&mut self, order: Order) -> Result<()> {
        let text = serde_json::to_string(&order)?;
        self.0.iter_mut().try_for_each(|worker| worker.say(&text))
    }

    /// The reports, once all are there.
    pub fn reports(&mut self) -> Option<Vec<Report>> {
        let all = self.0.iter().all(|worker| worker.news.report.is_some());
        all.then(|| self.0.iter_mut().filter_map(|worker| worker.news.report.take()).collect())
    }
}

impl Worker {
    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input")?;
        writeln!(input, "{line}").context("telling another process")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its input's end is what it ends by; it may be too busy to notice, and has nothing to save.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The share of `all` that process `number` of `processes` has.
pub fn share(all: usize, number: usize, processes: usize) -> usize {
    all / processes + usize::from(number < all % processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_up_the_whole() {
        for (all, processes) in [(0, 1), (10, 3), (2, 5), (30_000, 2)] {
            let shares: Vec<usize> = (0..processes).map(|number| share(all, number, processes)).collect();
            assert_eq!(shares.iter().sum::<usize>(), all);
            assert!(shares.iter().max().zip(shares.iter().min()).is_some_and(|(most, least)| most - least <= 1));
        }
    }
}
