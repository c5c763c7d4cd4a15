//! The names, rules and bounds of a simulated cluster.

use std::{cell::Cell, sync::Arc, time::Duration};

use fastrand::Rng;
use ws_cluster::{
    limits::{Limits, QueueLimits, WritingLimits},
    model::{Pid, Tag, TagRule, TagRules, tag_rule::History},
};

/// Tags of a cluster.
pub const TAGS: usize = 5;
/// Shards of its log.
pub const SHARDS: u16 = 2;

thread_local! {
    static NAMES: (Pid, [Tag; TAGS]) = {
        let tag = |number| Tag::new(&format!("t{number}")).expect("a tag");
        (Pid::new("1").expect("a pid"), std::array::from_fn(tag))
    };
    /// Where the virtual time begins.
    static START: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

pub fn pid() -> Pid {
    NAMES.with(|(pid, _)| pid.clone())
}

pub fn tag(number: usize) -> Tag {
    NAMES.with(|(_, tags)| tags[number].clone())
}

pub fn number(tag: &Tag) -> usize {
    usize::from(tag.as_bytes()[1] - b'0')
}

/// The virtual time begins.
pub fn start_clock() {
    START.set(Some(tokio::time::Instant::now()));
}

/// Virtual time since it began.
pub fn now() -> Duration {
    START.get().map_or(Duration::ZERO, |start| start.elapsed())
}

/// One rule for each tag.
pub fn rules(rng: &mut Rng) -> Vec<TagRule> {
    let rule = |number: usize| TagRule {
        pattern: tag(number).as_str().into(),
        history: History { count_max: rng.usize(1..24), ..History::default() },
        dedup: rng.u8(..4) == 0,
        ..TagRule::default()
    };
    (0..TAGS).map(rule).collect()
}

/// Changes what may change while a node runs.
pub fn change(rules: &mut [TagRule], rng: &mut Rng) {
    let rule = &mut rules[rng.usize(..TAGS)];
    rule.history.count_max = rng.usize(1..24);
}

pub fn tag_rules(rules: &[TagRule]) -> TagRules {
    TagRules::new(rules.to_vec())
}

/// Bounds so narrow that a short run meets them.
pub fn limits(rng: &mut Rng) -> Arc<Limits> {
    let writing = WritingLimits {
        outbox_bytes_max: rng.usize(6_000..16_000),
        outbox_frames_max: rng.usize(24..80),
        write_bytes_max: rng.usize(200..8_000),
        ..WritingLimits::default()
    };
    let queue = QueueLimits { batch_records_max: rng.usize(1..12), ..QueueLimits::default() };
    Arc::new(Limits { writing, queue, ..Limits::default() })
}
