//! The names, rules and bounds of a simulated cluster.

use std::{cell::Cell, sync::Arc, time::Duration};

use fastrand::Rng;
use ws_cluster::{
    limits::{Limits, QueueLimits, WritingLimits},
    model::{Pid, Tag, TagRule, TagRules, tag_rule::DeliveryClass},
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

/// The wall clock of the simulated cluster.
pub fn unix_ms() -> u64 {
    1_700_000_000_000 + u64::try_from(now().as_millis()).expect("a short run")
}

/// One rule for each tag.
pub fn rules(rng: &mut Rng) -> Vec<TagRule> {
    let rule = |number: usize| {
        let mut rule = TagRule {
            pattern: tag(number).as_str().into(),
            dedup: rng.u8(..4) == 0,
            class: if number.is_multiple_of(2) { DeliveryClass::Lossless } else { DeliveryClass::Latest },
            ..TagRule::default()
        };
        rule.hz_max = hz(rng, 5).unwrap_or(0);
        rule.history.count_max = rng.usize(1..40);
        rule
    };
    (0..TAGS).map(rule).collect()
}

/// A rate, or mostly none.
pub fn hz(rng: &mut Rng, one_in: u32) -> Option<u32> {
    (rng.u32(..one_in) == 0).then(|| [1, 2, 5, 20, 100][rng.usize(..5)])
}

/// Changes what may change while a node runs.
pub fn change(rules: &mut [TagRule], rng: &mut Rng) {
    let rule = &mut rules[rng.usize(..TAGS)];
    match rng.u8(..4) {
        0 => rule.history.count_max = rng.usize(1..40),
        1 => rule.hz_max = hz(rng, 2).unwrap_or(0),
        _ => {
            rule.class = match rule.class {
                DeliveryClass::Lossless => DeliveryClass::Latest,
                DeliveryClass::Latest => DeliveryClass::Lossless,
            }
        }
    }
}

pub fn tag_rules(rules: &[TagRule]) -> TagRules {
    TagRules::new(rules.to_vec())
}

/// Bounds so narrow that a short run meets them.
pub fn limits(rng: &mut Rng) -> Arc<Limits> {
    let writing = WritingLimits {
        outbox_bytes_max: rng.usize(40_000..60_000),
        outbox_frames_max: rng.usize(80..120),
        outboxes_bytes_max: if rng.u8(..6) == 0 { rng.usize(2_000..20_000) } else { usize::MAX },
        write_bytes_max: rng.usize(200..3_000),
        kept_bytes_max: if rng.u8(..4) == 0 { rng.usize(600..4_000) } else { 256 << 10 },
        notsent_lowat_bytes: if rng.bool() { rng.usize(100..3_000) } else { 0 },
        ..WritingLimits::default()
    };
    let queue = QueueLimits { batch_records_max: rng.usize(1..12), ..QueueLimits::default() };
    Arc::new(Limits { writing, queue, ..Limits::default() })
}
