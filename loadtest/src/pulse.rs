//! An open-loop feed of numbered publications: tags in turn, one every so often, each payload with its number and the time
//! at which it was meant to leave.
//!
//! Invariants: the timetable does not wait for the node (what is late is sent late and counted from its intended time); a
//! tag's publications are numbered from 0 without a hole, in the order of sending; so many wait for their answer at most.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    clock::Epoch,
    machine::Alarm,
    report::{Latency, latency},
    thin::{Scratch, Text, Thin},
};

/// Most publications that wait for their answer.
const WAITING_MAX: usize = 4096;
/// Most publications of one write.
const TOGETHER_MAX: usize = 64;
/// How long to wait for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// The timetable.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// What tags begin with; the tag's number follows.
    pub prefix: String,
    /// Tags.
    pub tags: usize,
    /// Publications a second, all tags together.
    pub rate: f64,
    /// Every so many publications of a tag one is marked `keep`; 0: none.
    pub keep_every: usize,
    /// About so many bytes a payload has.
    pub payload_bytes: usize,
}

/// What a payload says.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Beat {
    /// The publication's number in its tag.
    pub n: usize,
    /// When it was meant to leave, in microseconds of the [`Epoch`].
    pub t: u64,
}

impl Pulse {
    /// A tag's name.
    pub fn tag(&self, tag: usize) -> String {
        format!("{}{tag}", self.prefix)
    }

    /// The number of a tag with this name.
    pub fn tag_number(&self, name: &str) -> Option<usize> {
        name.strip_prefix(self.prefix.as_str())?.parse().ok().filter(|tag| *tag < self.tags)
    }

    /// When the publication is meant to leave, after the start.
    pub fn due(&self, tag: usize, index: usize) -> Duration {
        Duration::from_secs_f64((index * self.tags + tag) as f64 / self.rate)
    }

    /// Whether it is marked `keep`.
    pub fn is_kept(&self, index: usize) -> bool {
        self.keep_every > 0 && (index + 1).is_multiple_of(self.keep_every)
    }

    fn text(&self, number: usize, due: u64) -> String {
        let (tag, index) = (number % self.tags, number / self.tags);
        let mut payload = format!(r#"{{"n":{index},"t":{due},"pad":""#);
        let pad = self.payload_bytes.saturating_sub(payload.len() + 2);
        let _ = write!(payload, "{:x<pad$}\"}}", "");
        let keep = if self.is_kept(index) { r#","keep":true"# } else { "" };
        let tag = self.tag(tag);
        format!(r#"{{"type":"push","ack_id":"{number}","to":{{"tags":["{tag}"]}}{keep},"payload":{payload}}}"#)
    }
}

/// What is known of every publication: its id as the publisher was told it, and as readers saw it.
#[derive(Debug)]
pub struct Ledger {
    tags: Vec<Vec<Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    id: Option<Box<str>>,
    is_accepted: bool,
}

impl Ledger {
    /// An empty one.
    pub fn new(tags: usize) -> Self {
        Self { tags: std::iter::repeat_with(Vec::new).take(tags).collect() }
    }

    /// One with `sent` publications a tag under the ids `<tag>-<number>`.
    #[cfg(test)]
    pub fn filled(tags: usize, sent: usize) -> Self {
        let entry = |tag, index| Entry { id: Some(format!("{tag}-{index}").into()), is_accepted: true };
        Self { tags: (0..tags).map(|tag| (0..sent).map(|index| entry(tag, index)).collect()).collect() }
    }

    /// The id of a publication; false if it was known under another, or was never sent.
    pub fn saw(&mut self, tag: usize, index: usize, id: &str) -> bool {
        let Some(entry) = self.tags[tag].get_mut(index) else { return false };
        !id.is_empty() && **entry.id.get_or_insert_with(|| id.into()) == *id
    }

    /// The id of a publication, once it is known.
    pub fn id(&self, tag: usize, index: usize) -> Option<&str> {
        self.tags[tag].get(index)?.id.as_deref()
    }

    /// How many publications of a tag were sent.
    pub fn sent(&self, tag: usize) -> usize {
        self.tags[tag].len()
    }

    /// How many publications of all tags were accepted.
    pub fn accepted(&self) -> usize {
        self.tags.iter().flatten().filter(|entry| entry.is_accepted).count()
    }
}

/// What became of the feed.
#[derive(Debug)]
pub struct Fed {
    /// Publications that were sent.
    pub sent: usize,
    /// Microseconds from the intended time to the sending.
    pub late: Latency,
    /// Microseconds from the intended time to the answer.
    pub answered: Latency,
    /// What was wrong, by its word; empty when all were accepted under the ids that readers saw.
    pub problems: BTreeMap<String, u64>,
}

/// The feed's source: a back-end connection.
pub struct Source {
    thin: Thin,
    pulse: Rc<Pulse>,
    ledger: Rc<RefCell<Ledger>>,
    epoch: Epoch,
    start: Instant,
    waiting: HashMap<usize, u64>,
    fed: Fed,
}

impl Source {
    /// A feed over an open back-end connection whose timetable begins at `start`.
    pub fn new(thin: Thin, pulse: Rc<Pulse>, ledger: Rc<RefCell<Ledger>>, epoch: Epoch, start: Instant) -> Self {
        let fed = Fed { sent: 0, late: latency(), answered: latency(), problems: BTreeMap::new() };
        Self { thin, pulse, ledger, epoch, start, waiting: HashMap::new(), fed }
    }

    /// Publishes until `stop` says so, then waits for the last answers.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Fed> {
        let (mut alarm, scratch) = (Alarm::new().context("a timer")?, Scratch::default());
        while !*stop.borrow() {
            self.send_due().await?;
            let (next, may_send) = (self.due(self.fed.sent), self.waiting.len() < WAITING_MAX);
            let mut texts = Vec::new();
            tokio::select! {
                woken = alarm.wait_until(next), if may_send => woken.context("a timer")?,
                read = self.thin.receive(&scratch, |text| texts.push(answer(&text))) => read.context("the publisher")?,
                _ = stop.changed() => {}
            }
            self.take(texts)?;
        }
        let last = Instant::now() + LAST_ANSWERS;
        while !self.waiting.is_empty() && Instant::now() < last {
            let mut texts = Vec::new();
            let read = timeout(Duration::from_secs(1), self.thin.receive(&scratch, |text| texts.push(answer(&text))));
            if let Ok(read) = read.await {
                read.context("the publisher")?;
            }
            self.take(texts)?;
        }
        if !self.waiting.is_empty() {
            self.fed.problems.insert("no answer".to_owned(), self.waiting.len() as u64);
        }
        Ok(self.fed)
    }

    fn due(&self, number: usize) -> Instant {
        self.start + self.pulse.due(number % self.pulse.tags, number / self.pulse.tags)
    }

    async fn send_due(&mut self) -> Result<()> {
        let (now, mut texts) = (Instant::now(), Vec::new());
        while self.due(self.fed.sent) <= now && self.waiting.len() < WAITING_MAX && texts.len() < TOGETHER_MAX {
            let number = self.fed.sent;
            let due = self.epoch.micros(self.due(number));
            texts.push(self.pulse.text(number, due));
            self.ledger.borrow_mut().tags[number % self.pulse.tags].push(Entry::default());
            self.waiting.insert(number, due);
            self.fed.late.saturating_record(self.epoch.micros(now).saturating_sub(due));
            self.fed.sent += 1;
        }
        if texts.is_empty() { Ok(()) } else { self.thin.send_texts(&texts).await }
    }

    fn take(&mut self, answers: Vec<Result<Option<Answer>>>) -> Result<()> {
        let now = self.epoch.now();
        for answer in answers {
            let Some(Answer { number, outcome }) = answer? else { continue };
            let Some(due) = self.waiting.remove(&number) else { continue };
            self.fed.answered.saturating_record(now.saturating_sub(due));
            match outcome {
                Ok(id) => self.accepted(number, &id),
                Err(word) => *self.fed.problems.entry(word).or_default() += 1,
            }
        }
        Ok(())
    }

    fn accepted(&mut self, number: usize, id: &str) {
        let (tag, index) = (number % self.pulse.tags, number / self.pulse.tags);
        let mut ledger = self.ledger.borrow_mut();
        if !ledger.saw(tag, index, id) {
            *self.fed.problems.entry("another id than readers saw".to_owned()).or_default() += 1;
        }
        ledger.tags[tag][index].is_accepted = true;
    }
}

struct Answer {
    number: usize,
    outcome: Result<String, String>,
}

#[derive(Deserialize)]
struct PushedPayload {
    id: String,
}

/// The answer to a publication; nothing if the text is something else (presence, say).
fn answer(text: &Text<'_>) -> Result<Option<Answer>> {
    let frame = text.frame()?;
    let Ok(number) = frame.ack_id.parse() else { return Ok(None) };
    let outcome = if frame.code == Some(1) {
        let payload = frame.payload.context("an answer to a push without payload")?;
        let PushedPayload { id } = serde_json::from_str(payload.get()).context("an answer to a push without id")?;
        ensure!(!id.is_empty(), "an answer to a push with an empty id");
        Ok(id)
    } else {
        Err(frame.err.into_owned())
    };
    Ok(Some(Answer { number, outcome }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse() -> Pulse {
        Pulse { prefix: "t.".into(), tags: 4, rate: 100.0, keep_every: 3, payload_bytes: 200 }
    }

    #[test]
    fn tags_take_turns_and_every_third_of_a_tag_is_kept() {
        let pulse = pulse();
        assert_eq!(pulse.due(1, 2), Duration::from_millis(90));
        assert_eq!((pulse.tag(3), pulse.tag_number("t.3"), pulse.tag_number("t.4")), ("t.3".into(), Some(3), None));
        assert_eq!([0, 1, 2, 5].map(|index| pulse.is_kept(index)), [false, false, true, true]);
    }

    #[test]
    fn a_payload_has_its_size_and_says_what_it_is() {
        let text = pulse().text(9, 77);
        let push: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(push["to"]["tags"][0], "t.1");
        assert_eq!((&push["ack_id"], &push["keep"]), (&"9".into(), &true.into()));
        let payload = push["payload"].to_string();
        assert_eq!(payload.len(), 200);
        assert_eq!(serde_json::from_str::<Beat>(&payload).expect("a beat"), Beat { n: 2, t: 77 });
    }

    #[test]
    fn a_publication_has_one_id() {
        let mut ledger = Ledger::new(1);
        ledger.tags[0].push(Entry::default());
        assert!(ledger.saw(0, 0, "a") && ledger.saw(0, 0, "a"));
        assert!(!ledger.saw(0, 0, "b") && !ledger.saw(0, 1, "c"));
        assert_eq!((ledger.id(0, 0), ledger.sent(0), ledger.accepted()), (Some("a"), 1, 0));
    }
}
