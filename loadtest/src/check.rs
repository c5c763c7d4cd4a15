//! Decides whether a subscriber got what was published: every accepted publication once, in order, unaltered, each
//! naming the one before it, and under the id that the publisher was told.
//!
//! Invariant: a payload occurs once per tag, so the payload itself says which publication a frame is. No socket, no
//! clock. Leaves out: merged updates of `latest` tags (one that was merged away counts as lost).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::bars::Plan;

/// Most faults that are described one by one; all are counted.
const EXAMPLES_MAX: usize = 10;

/// What can be wrong with a subscriber's feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An accepted publication did not come.
    Lost,
    /// A publication came again.
    Duplicated,
    /// A publication came after a later one.
    Reordered,
    /// A payload came that nobody published.
    Altered,
    /// `prev` is not the id of the publication before, as this subscriber saw it.
    ChainBroken,
    /// Two subscribers, or a subscriber and the publisher, know one publication under two ids.
    IdDiffers,
    /// The node told of a gap.
    Gap,
    /// A frame said that it stands for others too.
    Merged,
    /// A frame of a tag that was not asked for.
    StrayTag,
    /// The connection ended, or spoke nonsense.
    Disconnected,
}

impl FaultKind {
    /// Every kind, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::Altered,
        Self::ChainBroken,
        Self::IdDiffers,
        Self::Gap,
        Self::Merged,
        Self::StrayTag,
        Self::Disconnected,
    ];

    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Altered => "altered",
            Self::ChainBroken => "chain_broken",
            Self::IdDiffers => "id_differs",
            Self::Gap => "gap",
            Self::Merged => "merged",
            Self::StrayTag => "stray_tag",
            Self::Disconnected => "disconnected",
        }
    }
}

/// How often each kind of fault was seen, with the first few described.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    counts: [u64; FaultKind::ALL.len()],
    /// The first faults, in words.
    pub examples: Vec<String>,
}

impl Faults {
    /// Counts a fault.
    pub fn add(&mut self, kind: FaultKind, what: impl fmt::Display) {
        self.counts[kind as usize] += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{}: {what}", kind.name()));
        }
    }

    /// How often `kind` was seen.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.counts[kind as usize]
    }

    /// All faults of all kinds.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another subscriber's faults to these.
    pub fn merge(&mut self, other: &Self) {
        for (own, count) in self.counts.iter_mut().zip(other.counts) {
            *own += count;
        }
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }
}

/// What became of one push, as its publisher knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Never sent: the run ended first.
    #[default]
    Unsent,
    /// Accepted, under this id if the answer told one. It must arrive.
    Accepted(Option<String>),
    /// Refused. It need not arrive.
    Refused,
    /// Sent, but the answer is not known. It may arrive.
    Unknown,
}

/// What all subscribers of a run should see, and the ids that the first of them saw. Shared between them.
#[derive(Debug)]
pub struct Expected {
    by_name: HashMap<String, usize>,
    tags: Vec<ExpectedTag>,
}

#[derive(Debug)]
struct ExpectedTag {
    name: String,
    by_payload: HashMap<String, usize>,
    publications: Vec<ExpectedPublication>,
}

#[derive(Debug)]
struct ExpectedPublication {
    due: Duration,
    id: OnceLock<String>,
}

impl Expected {
    /// What `plan` lets expect; an error if a payload occurs twice in a tag.
    pub fn new(plan: &Plan) -> Result<Self> {
        let named =
            |name: &String| ExpectedTag { name: name.clone(), by_payload: HashMap::new(), publications: Vec::new() };
        let mut tags: Vec<ExpectedTag> = plan.tags.iter().map(named).collect();
        for update in &plan.updates {
            let tag = &mut tags[update.tag];
            debug_assert_eq!(update.index, tag.publications.len(), "updates of a tag are numbered in order");
            let before = tag.by_payload.insert(update.payload.clone(), update.index);
            ensure!(before.is_none(), "{} would publish the same payload twice", tag.name);
            tag.publications.push(ExpectedPublication { due: update.due, id: OnceLock::new() });
        }
        let by_name = plan.tags.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Ok(Self { by_name, tags })
    }
}

/// One publication as a subscriber received it.
#[derive(Clone, Debug, Default)]
pub struct Received<'a> {
    /// The tag.
    pub tag: &'a str,
    /// Its place in the queue.
    pub id: &'a str,
    /// The id of the tag's publication before it; `None` if the frame has no such field.
    pub prev: Option<&'a str>,
    /// The payload's bytes as they stood in the frame.
    pub payload: &'a str,
    /// The tag's value at the time of subscribing.
    pub snapshot: bool,
    /// The node says that something is missing before it.
    pub gap: bool,
    /// How many other publications it stands for.
    pub merged: u64,
}

/// One subscriber's view.
#[derive(Debug)]
pub struct Observer {
    expected: Arc<Expected>,
    tags: Vec<Seen>,
    /// What was wrong so far.
    pub faults: Faults,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The id of the last frame, snapshot included; what the next `prev` must be. A tag without a value has none: "".
    last_id: String,
    /// One above the highest publication that has come.
    next: usize,
    seen: Vec<bool>,
}

impl Observer {
    /// A subscriber of all tags that has seen nothing yet.
    pub fn new(expected: Arc<Expected>) -> Self {
        let empty = |tag: &ExpectedTag| Seen { seen: vec![false; tag.publications.len()], ..Seen::default() };
        let tags = expected.tags.iter().map(empty).collect();
        Self { expected, tags, faults: Faults::default() }
    }

    /// Judges a frame. The answer is when the publication was meant to leave, if this is its first arrival.
    pub fn observe(&mut self, frame: &Received<'_>) -> Option<Duration> {
        let expected = Arc::clone(&self.expected);
        let Some(&at) = expected.by_name.get(frame.tag) else {
            self.faults.add(FaultKind::StrayTag, frame.tag);
            return None;
        };
        if frame.gap {
            self.faults.add(FaultKind::Gap, format_args!("{} before {}", frame.tag, frame.id));
        }
        if frame.merged > 0 {
            self.faults.add(FaultKind::Merged, format_args!("{}: {} stands for {}", frame.tag, frame.id, frame.merged));
        }
        if frame.snapshot {
            // The value from before the run, perhaps of an earlier run over the same bars: where the chain begins.
            frame.id.clone_into(&mut self.tags[at].last_id);
            return None;
        }
        self.observe_live(at, &expected.tags[at], frame)
    }

    /// Counts a gap that the node told of.
    pub fn gap(&mut self, tag: &str) {
        self.faults.add(FaultKind::Gap, tag);
    }

    fn observe_live(&mut self, at: usize, tag: &ExpectedTag, frame: &Received<'_>) -> Option<Duration> {
        let index = tag.by_payload.get(frame.payload).copied();
        let own = &mut self.tags[at];
        if let Some(index) = index.filter(|index| own.seen[*index]) {
            self.faults.add(FaultKind::Duplicated, format_args!("{} number {index}, id {}", tag.name, frame.id));
            return None;
        }
        if frame.prev != Some(own.last_id.as_str()) {
            let what = format_args!("{} id {}: prev {:?} after {:?}", tag.name, frame.id, frame.prev, own.last_id);
            self.faults.add(FaultKind::ChainBroken, what);
        }
        frame.id.clone_into(&mut own.last_id);
        let Some(index) = index else {
            let shown: String = frame.payload.chars().take(160).collect();
            self.faults.add(FaultKind::Altered, format_args!("{} id {}: {shown}", tag.name, frame.id));
            return None;
        };
        own.seen[index] = true;
        if index < own.next {
            let what = format_args!("{} number {index} after number {}", tag.name, own.next - 1);
            self.faults.add(FaultKind::Reordered, what);
        }
        own.next = own.next.max(index + 1);
        let publication = &tag.publications[index];
        let id = publication.id.get_or_init(|| frame.id.to_owned());
        if id != frame.id || frame.id.is_empty() {
            let what = format_args!("{} number {index}: {:?}, elsewhere {id:?}", tag.name, frame.id);
            self.faults.add(FaultKind::IdDiffers, what);
        }
        Some(publication.due)
    }

    /// Ends the view: what was accepted and has not come is lost. `outcomes` are by tag and number.
    pub fn finish(mut self, outcomes: &[Vec<Outcome>]) -> Faults {
        for ((tag, own), outcomes) in self.expected.tags.iter().zip(&self.tags).zip(outcomes) {
            for (index, outcome) in outcomes.iter().enumerate() {
                let Outcome::Accepted(told) = outcome else { continue };
                if !own.seen[index] {
                    self.faults.add(FaultKind::Lost, format_args!("{} number {index}, id {told:?}", tag.name));
                    continue;
                }
                let id = tag.publications[index].id.get();
                if let (Some(told), Some(id)) = (told, id)
                    && told != id
                {
                    let what = format_args!("{} number {index}: publisher {told:?}, subscribers {id:?}", tag.name);
                    self.faults.add(FaultKind::IdDiffers, what);
                }
            }
        }
        self.faults
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
