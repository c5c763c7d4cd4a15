//! Scenarios: what is asked of a server, as a TOML file says it. The shipped ones are `loadtest/scenarios/*.toml`.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

/// The shipped ones by name.
pub const SHIPPED: &[(&str, &str)] = &[
    ("fanout", include_str!("../scenarios/fanout.toml")),
    ("throughput", include_str!("../scenarios/throughput.toml")),
    ("saturation", include_str!("../scenarios/saturation.toml")),
    ("latency", include_str!("../scenarios/latency.toml")),
    ("beside", include_str!("../scenarios/beside.toml")),
    ("connect", include_str!("../scenarios/connect.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("request", include_str!("../scenarios/request.toml")),
];
/// Bounds of what a scenario may ask for.
const CONNECTIONS_MAX: usize = 1_000_000;
const WINDOW_MAX: usize = 4096;
const PROCESSES_MAX: usize = 64;
/// Connections of one process, where nobody says otherwise: many machines allow 20,000 files.
const PER_PROCESS: usize = 15_000;
const RATE_MAX: f64 = 1_000_000.0;
const SECONDS_MAX: f64 = 3600.0;
const FRAME_BYTES_MIN: usize = 64;
const TAGS_EACH_MAX: usize = 64;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What is asked of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// The figures that matter in it, best first; the others are in the JSON.
    pub figures: Vec<String>,
    /// Seconds that are measured.
    pub seconds: f64,
    /// Seconds before that, when buffers grow.
    #[serde(default)]
    pub warmup: f64,
    /// Who hears what.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// How connections are opened.
    #[serde(default)]
    pub opening: Opening,
    /// Processes that hold them; 0: as many as they need.
    #[serde(default)]
    pub processes: usize,
    /// The harness never sleeps, so that the server has not to wake it. Needs a CPU of its own, and one process.
    #[serde(default)]
    pub spin: bool,
    /// Many reconnect at once.
    pub storm: Option<Storm>,
    /// Connections come and go.
    pub churn: Option<Churn>,
    /// Requests and their answers.
    pub requests: Option<Requests>,
}

/// Subscribers of one tag, and its publications. With neither `window` nor `rate` nothing is published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Subscribers that stay.
    pub subscribers: usize,
    /// Tags that each of them asks for: the group's, and others that nobody publishes. 0: none, not even the group's. A server
    /// that knows one tag a connection has that one.
    #[serde(default = "tags_each")]
    pub tags_each: usize,
    /// Bytes of a text at the subscriber, envelope included: the same for every server.
    #[serde(default = "frame_bytes")]
    pub frame_bytes: usize,
    /// Publications that are kept outstanding: not yet received by every subscriber.
    pub window: Option<usize>,
    /// Publications a second, on a timetable that does not wait.
    pub rate: Option<f64>,
}

/// How connections are opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Connections a second on a timetable; 0: as fast as `at_once` allows.
    #[serde(default)]
    pub rate: f64,
    /// Most connections that are being opened at a time.
    #[serde(default = "at_once")]
    pub at_once: usize,
}

/// Subscribers beside the steady ones that all reconnect at the same moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// The group whose publications they hear; none: the first.
    #[serde(default)]
    pub group: String,
    /// How many.
    pub connections: usize,
    /// Seconds into the measured time.
    pub after: f64,
}

/// Subscribers beside the steady ones, the oldest of which leaves as a new one comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// The group whose publications they hear; none: the first.
    #[serde(default)]
    pub group: String,
    /// How many are there at a time.
    pub connections: usize,
    /// How many come a second.
    pub rate: f64,
}

/// Requests and their answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Users that ask in turn.
    pub users: usize,
    /// Requests a second of all together.
    pub rate: f64,
    /// Bytes of a payload.
    pub bytes: usize,
}

/// Flags that change a scenario for a run.
#[derive(Args, Clone, Debug, Default)]
pub struct Changes {
    /// Subscribers of the first group
    #[arg(long)]
    pub subscribers: Option<usize>,
    /// Bytes of a text of every group
    #[arg(long)]
    pub frame_bytes: Option<usize>,
    /// Publications of the first group outstanding, in place of a rate
    #[arg(long, conflicts_with = "rate")]
    pub window: Option<usize>,
    /// Publications of the first group (or requests, or connections that come) a second
    #[arg(long)]
    pub rate: Option<f64>,
    /// Processes that hold the subscribers; as many as they need, if it is not given
    #[arg(long)]
    pub processes: Option<usize>,
    /// Whether the harness never sleeps
    #[arg(long)]
    pub spin: Option<bool>,
    /// Measured seconds
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Seconds before the measured ones
    #[arg(long)]
    pub warmup: Option<f64>,
}

fn tags_each() -> usize {
    1
}

fn frame_bytes() -> usize {
    200
}

fn at_once() -> usize {
    128
}

impl Default for Opening {
    fn default() -> Self {
        Self { rate: 0.0, at_once: at_once() }
    }
}

impl Scenario {
    /// The scenario of this name, or of the file at this path, with `changes`.
    pub fn load(name: &str, changes: &Changes) -> Result<Self> {
        let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| (*text).to_owned());
        let text = match shipped {
            Some(text) => text,
            None if Path::new(name).exists() => fs::read_to_string(name).with_context(|| format!("reading {name}"))?,
            None => {
                let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                bail!("{name:?} is neither a file nor one of {}", names.join(", "));
            }
        };
        let mut scenario = Self::parse(&text).with_context(|| format!("the scenario {name}"))?;
        scenario.change(changes);
        scenario.check().with_context(|| format!("the scenario {name}"))?;
        Ok(scenario)
    }

    /// The scenario that a text describes, within bounds.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn change(&mut self, changes: &Changes) {
        let Changes { subscribers, frame_bytes, window, rate, processes, spin, seconds, warmup } = changes;
        self.processes = processes.unwrap_or(self.processes);
        self.spin = spin.unwrap_or(self.spin);
        self.seconds = seconds.unwrap_or(self.seconds);
        self.warmup = warmup.unwrap_or(self.warmup);
        for group in &mut self.groups {
            group.frame_bytes = frame_bytes.unwrap_or(group.frame_bytes);
        }
        if let Some(first) = self.groups.first_mut() {
            first.subscribers = subscribers.unwrap_or(first.subscribers);
            if window.is_some() {
                (first.window, first.rate) = (*window, None);
            }
        }
        if let Some(rate) = *rate {
            match (&mut self.requests, &mut self.churn, self.groups.first_mut()) {
                (Some(requests), ..) => requests.rate = rate,
                (None, Some(churn), _) => churn.rate = rate,
                (None, None, Some(first)) if first.rate.is_some() || first.window.is_some() => {
                    (first.window, first.rate) = (None, Some(rate));
                }
                _ => self.opening.rate = rate,
            }
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.seconds > 0.0 && self.seconds <= SECONDS_MAX, "seconds: above 0, at most {SECONDS_MAX}");
        ensure!((0.0..=SECONDS_MAX).contains(&self.warmup), "warmup: 0 to {SECONDS_MAX}");
        for Group { name, tags_each, frame_bytes, window, rate, .. } in &self.groups {
            ensure!(*tags_each <= TAGS_EACH_MAX, "group {name}: tags_each: at most {TAGS_EACH_MAX}");
            let is_silent = window.is_none() && rate.is_none();
            ensure!(*tags_each > 0 || is_silent, "group {name}: without a tag nothing can be published to it");
            ensure!(
                (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(frame_bytes),
                "group {name}: frame_bytes: {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}"
            );
            ensure!(window.is_none() || rate.is_none(), "group {name}: window and rate exclude each other");
            ensure!(
                window.is_none_or(|window| (1..=WINDOW_MAX).contains(&window)),
                "group {name}: window: 1 to {WINDOW_MAX}"
            );
            ensure!(rate.is_none_or(is_rate), "group {name}: rate: above 0, at most {RATE_MAX}");
        }
        ensure!((0.0..=RATE_MAX).contains(&self.opening.rate), "opening.rate: 0 to {RATE_MAX}");
        ensure!((1..=4096).contains(&self.opening.at_once), "opening.at_once: 1 to 4096");
        ensure!(
            self.storm.as_ref().is_none_or(|storm| (0.0..=self.seconds).contains(&storm.after)),
            "storm.after: within the measured seconds"
        );
        ensure!(self.churn.as_ref().is_none_or(|churn| is_rate(churn.rate)), "churn.rate: above 0, at most {RATE_MAX}");
        if let Some(requests) = &self.requests {
            ensure!(requests.users > 0 && is_rate(requests.rate), "requests: users and rate above 0");
            ensure!(
                (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&requests.bytes),
                "requests.bytes: {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}"
            );
        }
        ensure!(self.processes <= PROCESSES_MAX, "processes: at most {PROCESSES_MAX}");
        let named = [self.storm.as_ref().map(|storm| &storm.group), self.churn.as_ref().map(|churn| &churn.group)];
        for name in named.into_iter().flatten().filter(|name| !name.is_empty()) {
            ensure!(self.groups.iter().any(|group| group.name == **name), "there is no group {name}");
        }
        let is_joined = !self.groups.is_empty() || (self.storm.is_none() && self.churn.is_none());
        ensure!(is_joined, "storm and churn need a group that they belong to");
        ensure!((1..=CONNECTIONS_MAX).contains(&self.connections()), "connections: 1 to {CONNECTIONS_MAX}");
        Ok(())
    }

    /// Connections that stand at a time, publishers left out.
    pub fn connections(&self) -> usize {
        let beside = self.storm.as_ref().map_or(0, |storm| storm.connections)
            + self.churn.as_ref().map_or(0, |churn| churn.connections)
            + self.requests.as_ref().map_or(0, |requests| requests.users);
        self.groups.iter().map(|group| group.subscribers).sum::<usize>() + beside
    }
}

impl Scenario {
    /// The place of a group, the first if none has that name.
    pub fn group(&self, name: &str) -> usize {
        self.groups.iter().position(|group| group.name == name).unwrap_or(0)
    }

    /// Processes that hold the subscribers.
    pub fn processes(&self) -> usize {
        match self.processes {
            0 => self.connections().div_ceil(PER_PROCESS).clamp(1, PROCESSES_MAX),
            given => given,
        }
    }
}

fn is_rate(rate: f64) -> bool {
    rate > 0.0 && rate <= RATE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FIGURES;

    #[test]
    fn every_shipped_scenario_is_good_and_names_figures_that_exist() {
        for (name, text) in SHIPPED {
            let scenario = Scenario::parse(text).unwrap_or_else(|problem| panic!("{name}: {problem:#}"));
            assert_eq!(scenario.name, *name);
            for figure in &scenario.figures {
                assert!(FIGURES.iter().any(|known| known.name == figure), "{name}: {figure}");
            }
        }
    }

    #[test]
    fn flags_change_what_the_scenario_is_about() {
        let changes = Changes { rate: Some(7.0), subscribers: Some(3), ..Changes::default() };
        let rate = |name| Scenario::load(name, &changes).expect(name);
        let fanout = rate("fanout");
        assert_eq!(
            (fanout.groups[0].rate, fanout.groups[0].window, fanout.groups[0].subscribers),
            (Some(7.0), None, 3)
        );
        assert_eq!(rate("request").requests.expect("requests").rate, 7.0);
        assert_eq!(rate("churn").churn.expect("churn").rate, 7.0);
        assert_eq!(rate("connect").opening.rate, 7.0);
    }

    #[test]
    fn what_is_out_of_bounds_or_unknown_is_refused() {
        let good = "name = \"x\"\nabout = \"\"\nfigures = []\nseconds = 1\n[[groups]]\nname = \"a\"\nsubscribers = 1\n";
        assert!(Scenario::parse(good).is_ok());
        for (what, by) in [
            ("seconds = 1", "seconds = 0"),
            ("subscribers = 1", "subscribers = 0"),
            ("subscribers = 1", "subscribers = 1\nwindow = 1\nrate = 1"),
            ("subscribers = 1", "subscribers = 1\nframe_bytes = 10"),
            ("subscribers = 1", "subscriber = 1"),
            ("[[groups]]", "[storm]\nconnections = 1\nafter = 5\n[[groups]]"),
            ("[[groups]]", "[churn]\nconnections = 1\nrate = 1\ngroup = \"b\"\n[[groups]]"),
        ] {
            assert!(Scenario::parse(&good.replace(what, by)).is_err(), "{by}");
        }
        assert!(Scenario::load("no-such-scenario", &Changes::default()).is_err());
    }
}
