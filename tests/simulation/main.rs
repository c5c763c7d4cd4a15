//! For any schedule of stalls, cuts, joins, deaths and reloads every client ends where an unstalled one does.
//!
//! Method: hubs, exchanges and logs of several nodes over one queue and a bad net run in one thread and in virtual
//! time; a seed draws all that happens. Every frame that a client reads is compared with what its core was to send,
//! with what the node has heard, and with the order of the queue. The same seed makes the same run, byte for byte.
//! `WS_SEED=7` repeats one run and prints what happened, `WS_SEEDS=100000` makes more (`make simulate`).

mod chain;
mod client;
mod core;
mod expected;
mod happening;
mod model;
mod node;
mod plant;
mod queue;
mod rest;
mod trace;
mod wire;
mod world;

use self::{plant::Fault, world::World};

/// What may happen in a run besides what always does.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The queue restarts without its last entries or empty.
    queue_forgets: bool,
    /// The queue falls back without a restart.
    queue_falls_back: bool,
    /// Nodes die.
    nodes_die: bool,
}

impl Profile {
    /// Whether all nodes hear everything in one order.
    fn is_certain(self) -> bool {
        !self.queue_forgets && !self.queue_falls_back
    }

    /// Whether what was acknowledged is heard by all.
    fn loses_nothing(self) -> bool {
        !(self.queue_falls_back || self.queue_forgets && self.nodes_die)
    }
}

const BAD_NET: Profile = Profile { queue_forgets: false, queue_falls_back: false, nodes_die: true };
const FORGETFUL: Profile = Profile { queue_forgets: true, queue_falls_back: false, nodes_die: false };
const ALL_AT_ONCE: Profile = Profile { queue_forgets: true, queue_falls_back: true, nodes_die: true };

/// Runs a seed; the digest of all that happened, or what was wrong.
fn run(seed: u64, profile: Profile, planted: Option<Fault>, keeps_lines: bool) -> (Result<u64, String>, String) {
    plant::plant(planted, seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut world = World::new(seed, profile, keeps_lines);
        let result = world.run().await;
        (result.map(|()| world.trace.digest()), world.trace.to_string())
    })
}

/// Runs of each profile beside the other tests; CI makes ten thousand more of each (`.ci/simulate`).
const RUNS: u64 = 100;
/// Seeds that fail before a run of many gives up.
const FAILURES_MAX: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Names the run that panics.
struct Named(u64, &'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with WS_SEED={} cargo test --test simulation {}", self.0, self.1);
        }
    }
}

fn runs(name: &'static str, profile: Profile, count: u64) {
    if let Some(seed) = number("WS_SEED") {
        let _named = Named(seed, name);
        let (result, lines) = run(seed, profile, None, true);
        eprint!("{lines}");
        return assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
    let first = number("WS_FIRST_SEED").unwrap_or(0);
    let mut wrong = Vec::new();
    for seed in first..first + number("WS_SEEDS").unwrap_or(count) {
        let _named = Named(seed, name);
        let (result, _) = run(seed, profile, None, false);
        if seed % 64 == 0 {
            let (again, _) = run(seed, profile, None, false);
            assert_eq!(again, result, "seed {seed} does not repeat");
        }
        if let Err(error) = result {
            wrong.push(format!("WS_SEED={seed} cargo test --test simulation {name}: {error}"));
            if wrong.len() == FAILURES_MAX {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "repeat with\n{}", wrong.join("\n"));
}

#[test]
fn over_a_bad_net_every_client_ends_where_an_unstalled_one_does() {
    runs("over_a_bad_net", BAD_NET, RUNS);
}

#[test]
fn a_queue_that_forgets_takes_nothing_from_clients() {
    runs("a_queue_that_forgets", FORGETFUL, RUNS);
}

#[test]
fn when_all_fails_at_once_every_hole_is_told() {
    runs("when_all_fails", ALL_AT_ONCE, RUNS);
}

/// Method: each fault is planted into some runs; where it strikes and the run has use for it, the run must fail.
#[test]
fn a_fault_that_is_planted_is_found() {
    for fault in plant::ALL {
        let finds = |seed| {
            let planted = run(seed, BAD_NET, Some(fault), false).0;
            plant::has_struck().then(|| planted.is_err())
        };
        let found: Vec<bool> = (0..12).filter_map(finds).collect();
        let count = found.iter().filter(|found| **found).count();
        assert!(count * 2 >= found.len() && count > 2, "{fault:?} is found in {count} of {} runs", found.len());
    }
}

/// Method: what the runs are for is counted, so that a schedule which never gets there fails here.
#[test]
fn runs_meet_what_they_are_for() {
    for profile in [BAD_NET, FORGETFUL, ALL_AT_ONCE] {
        trace::take_counts();
        (0..60).for_each(|seed| drop(run(seed, profile, None, false)));
        let counts = trace::take_counts();
        eprintln!("{profile:?}: {counts:#?}");
        let wanted = [
            ("a frame", 10_000),
            ("a merged value", 1_000),
            ("a snapshot", 300),
            ("a tail", 100),
            ("an empty tail", 50),
            ("a gap instead of a tail", 50),
            ("a hole is announced", 50),
            ("a slow client is closed", 10),
            ("a client is cut", 50),
            ("a push is refused", 50),
            ("the outcome of a push is unknown", 20),
            ("a loss is told", u64::from(profile.queue_falls_back)),
        ];
        for (what, least) in wanted {
            let count = counts.get(what).copied().unwrap_or(0);
            assert!(count >= least, "{what}: {count} times in 60 runs");
        }
    }
}
