//! What is acknowledged is heard once by every node, in one order, whatever the queue, the net and the nodes do.
//!
//! Method: seeded runs of one to three nodes over a queue that restarts, loses its tail or everything, falls back,
//! and a net that loses, delays and repeats; then all is healed, and what submitters were told is compared with what
//! every node heard. `WS_SEED=7` repeats one run, `WS_SEEDS=100000` makes more.

mod world;

use std::collections::{HashMap, HashSet};

use world::{Faults, World};

use crate::model::{RecordId, Refusal};

const STEPS: usize = 500;
const STEPS_TO_SETTLE: usize = 60_000;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match (number("WS_SEED"), number("WS_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(default),
    }
}

fn runs(faults: Faults, count: u64, check: fn(&World)) {
    for seed in seeds(count) {
        let _named = Named(seed);
        let mut world = World::new(seed, faults);
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        settle(&mut world);
        check_always(&world);
        check(&world);
    }
}

/// Names the seed of a run that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with WS_SEED={}", self.0);
        }
    }
}

fn settle(world: &mut World) {
    let mut quiet = 0;
    for _ in 0..STEPS_TO_SETTLE {
        world.step();
        let tail = world.tail();
        let is_quiet = world.nodes.iter().all(|node| node.is_settled() && node.cursor() == tail);
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet > 1500 {
            return;
        }
    }
    panic!(
        "not settled: cursors {:?} of {:?}",
        world.nodes.iter().map(|node| node.cursor()).collect::<Vec<_>>(),
        world.tail()
    );
}

/// What holds whatever has happened.
fn check_always(world: &World) {
    let acknowledged = acknowledged(world);
    for node in &world.nodes {
        let numbers: HashSet<u64> = node.heard.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers.len(), node.heard.len(), "a record was heard twice");
        let mut lasts = HashMap::new();
        for (id, number) in &node.heard {
            let last = lasts.insert(id.origin, id.seq).unwrap_or(0);
            assert!(id.seq > last, "of one origin, {} was heard behind {last}", id.seq);
            assert!(!acknowledged.contains_key(number) || acknowledged[number] == *id, "{number} has two ids");
            let refused = refusal(world, *number);
            assert!(refused.is_none_or(|refusal| refusal == Refusal::Unknown), "{number} was refused: {refused:?}");
        }
    }
    for number in 1..=world.offered {
        let told = world.told.get(&number).map_or(0, Vec::len);
        let (node, boot) = world.taken[&number];
        let is_dead = world.nodes[node].boot != boot;
        assert!(told == 1 || (is_dead && told == 0), "the submitter of {number} was told {told} times");
    }
}

fn acknowledged(world: &World) -> HashMap<u64, RecordId> {
    let id = |told: &[Result<RecordId, Refusal>]| told.first().copied().and_then(Result::ok);
    world.told.iter().filter_map(|(number, told)| Some((*number, id(told)?))).collect()
}

fn refusal(world: &World, number: u64) -> Option<Refusal> {
    world.told.get(&number)?.first().copied()?.err()
}

/// Every node has heard everything that was acknowledged, and none speaks of a loss.
fn check_nothing_is_lost(world: &World) {
    let acknowledged = acknowledged(world);
    for node in &world.nodes {
        let heard: HashSet<u64> = node.heard.iter().map(|(_, number)| *number).collect();
        for number in acknowledged.keys() {
            assert!(heard.contains(number), "{number} was acknowledged ({}) and not heard", acknowledged[number]);
        }
        assert_eq!(node.losses, 0, "nothing was lost, and a loss was told");
    }
}

/// A node that has not heard everything that was acknowledged knows it.
fn check_losses_are_told(world: &World) {
    let acknowledged = acknowledged(world);
    for node in &world.nodes {
        let heard: HashSet<u64> = node.heard.iter().map(|(_, number)| *number).collect();
        let missed = acknowledged.keys().find(|number| !heard.contains(number));
        assert!(node.losses > 0 || missed.is_none(), "{missed:?} was acknowledged and not heard, and no loss told");
    }
}

/// What two nodes have both heard they have heard in the same order.
fn check_one_order(world: &World) {
    let order = |node: &world::Node| -> Vec<u64> {
        let is_ordered = |(id, _): &&(RecordId, u64)| !world.unordered.contains(id);
        node.heard.iter().filter(is_ordered).map(|(_, number)| *number).collect()
    };
    let orders: Vec<Vec<u64>> = world.nodes.iter().map(order).collect();
    for other in &orders[1..] {
        let common: HashSet<u64> = orders[0].iter().copied().filter(|number| other.contains(number)).collect();
        let of = |list: &[u64]| list.iter().copied().filter(|number| common.contains(number)).collect::<Vec<_>>();
        assert_eq!(of(&orders[0]), of(other), "two nodes, two orders");
    }
}

#[test]
fn over_a_bad_net_nothing_is_lost_and_the_order_is_one() {
    let faults = Faults { loses_data: false, falls_back: false, nodes_die: false };
    runs(faults, 500, |world| {
        check_nothing_is_lost(world);
        check_one_order(world);
    });
}

#[test]
fn a_queue_that_loses_its_data_loses_nothing_that_was_acknowledged() {
    let faults = Faults { loses_data: true, falls_back: false, nodes_die: false };
    runs(faults, 500, |world| {
        check_nothing_is_lost(world);
        check_one_order(world);
    });
}

#[test]
fn what_is_lost_in_a_queue_that_falls_back_unseen_is_told() {
    let faults = Faults { loses_data: true, falls_back: true, nodes_die: false };
    runs(faults, 500, check_losses_are_told);
}

#[test]
fn nodes_that_die_lose_nothing_that_was_acknowledged_while_the_queue_keeps_its_data() {
    let faults = Faults { loses_data: false, falls_back: false, nodes_die: true };
    runs(faults, 500, |world| {
        check_nothing_is_lost(world);
        check_one_order(world);
    });
}

#[test]
fn when_all_fails_at_once_nothing_is_heard_twice_or_out_of_its_origins_order() {
    let faults = Faults { loses_data: true, falls_back: true, nodes_die: true };
    runs(faults, 500, |_| {});
}
