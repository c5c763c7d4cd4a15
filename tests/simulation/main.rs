//! For any schedule of stalls, cuts, joins, deaths and reloads every client ends where an unstalled one does.
//!
//! Method: hubs, exchanges and logs of several nodes over one queue and a bad net run in one thread and in virtual
//! time; a seed draws all that happens. Every frame that a client reads is compared with what its core was to send,
//! with what the node has heard, and with the order of the queue. The same seed makes the same run, byte for byte.
//! `WS_SEED=7` repeats one run and prints its last lines, `WS_SEEDS=100000` makes more (`make simulate`).

mod chain;
mod client;
mod core;
mod expected;
mod model;
mod node;
mod queue;
mod trace;
mod wire;
mod world;

use self::{core::Conn, world::World};

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
        !self.queue_falls_back && !(self.queue_forgets && self.nodes_die)
    }
}

const BAD_NET: Profile = Profile { queue_forgets: false, queue_falls_back: false, nodes_die: true };
const FORGETFUL: Profile = Profile { queue_forgets: true, queue_falls_back: false, nodes_die: false };
const ALL_AT_ONCE: Profile = Profile { queue_forgets: true, queue_falls_back: true, nodes_die: true };

/// A fault that is planted to see whether it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
}

impl Plant {
    fn spoil(self, _conn: &mut Conn) {}
}

/// Runs a seed; the digest of all that happened, or what was wrong.
fn run(seed: u64, profile: Profile, plant: Plant, keeps_lines: bool) -> (Result<u64, String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut world = World::new(seed, profile, plant, keeps_lines);
        let result = world.run().await;
        (result.map(|()| world.trace.digest()), world.trace.to_string())
    })
}

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
        let (result, lines) = run(seed, profile, Plant::Nothing, true);
        eprint!("{lines}");
        return assert!(result.is_ok(), "seed {seed}: {result:?}");
    }
    let first = number("WS_FIRST_SEED").unwrap_or(0);
    let mut wrong = Vec::new();
    for seed in first..first + number("WS_SEEDS").unwrap_or(count) {
        let _named = Named(seed, name);
        let (result, _) = run(seed, profile, Plant::Nothing, false);
        if seed % 64 == 0 {
            let (again, _) = run(seed, profile, Plant::Nothing, false);
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
    runs("over_a_bad_net", BAD_NET, 5000);
}

#[test]
fn a_queue_that_forgets_takes_nothing_from_clients() {
    runs("a_queue_that_forgets", FORGETFUL, 2500);
}

#[test]
fn when_all_fails_at_once_every_hole_is_told() {
    runs("when_all_fails", ALL_AT_ONCE, 2500);
}
