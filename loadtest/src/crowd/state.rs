//! What a crowd's texts mean: openings, publications, answers; what each connection has seen. No socket, no clock.

use std::collections::VecDeque;

use crate::{
    crowd::{
        conn::{Conn, Stage},
        dialect::{Dialect, Opened, Told, Who},
        measure::Measure,
        payload::Mark,
        tally::{Expected, Tally, check},
    },
    findings::Findings,
    wire::Ending,
};

/// Most characters of a text that a finding shows.
const SHOWN_MAX: usize = 200;

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Who it is.
    pub who: Who,
    /// The number it expects next.
    pub expected: Expected,
    /// When it was meant to be opened.
    pub due_us: u64,
}

/// One group.
#[derive(Debug)]
pub struct GroupState {
    /// Its tag.
    pub tag: String,
    /// What its subscribers ask for: it, and others that nobody publishes.
    asked: Vec<String>,
    /// Who has what.
    tally: Tally,
    /// Publications that were sent.
    sent: u64,
    /// Publications that all subscribers in other processes have; nothing without any.
    pub complete_elsewhere: Option<u64>,
    /// Publications that the server accepted, where it says so.
    pub accepted: u64,
    /// Bytes of its first text at a subscriber.
    pub first_text_bytes: Option<usize>,
    /// Where the last mark stood in its text.
    hint: usize,
}

impl GroupState {
    /// A group of so many steady subscribers.
    pub fn new(tag: String, steady: usize) -> Self {
        Self::with(tag, Tally::new(steady))
    }

    /// The same where nobody publishes.
    pub fn following(tag: String, steady: usize) -> Self {
        Self::with(tag, Tally::following(steady))
    }

    fn with(tag: String, tally: Tally) -> Self {
        let asked = vec![tag.clone()];
        Self { tag, asked, tally, sent: 0, complete_elsewhere: None, accepted: 0, first_text_bytes: None, hint: 0 }
    }

    /// The same, each subscriber asking for so many tags.
    pub fn asking(self, tags_each: usize) -> Self {
        let name = |at: usize| if at == 0 { self.tag.clone() } else { format!("{}.{at}", self.tag) };
        let asked = (0..tags_each).map(name).collect();
        Self { asked, ..self }
    }

    /// Publications that all subscribers of this process have; nothing if it has none.
    pub fn complete_here(&self) -> Option<u64> {
        (self.tally.steady() > 0).then(|| self.tally.complete())
    }

    /// One more publication was sent.
    pub fn sent(&mut self) {
        self.sent += 1;
        self.tally.sent();
    }

    /// Publications that somebody lacks.
    pub fn outstanding(&self) -> usize {
        let elsewhere = self.complete_elsewhere.map_or(0, |complete| self.sent.saturating_sub(complete));
        self.tally.outstanding().max(usize::try_from(elsewhere).unwrap_or(usize::MAX))
    }
}

/// See the module.
pub struct State {
    dialect: Dialect,
    /// Groups in the scenario's order.
    pub groups: Vec<GroupState>,
    /// What was measured.
    pub measure: Measure,
    /// What was wrong.
    pub findings: Findings,
    /// Connections that are being opened.
    pub opening: usize,
    /// Connections that are open.
    pub open: usize,
    /// Subscribers that do not stay, the oldest first.
    pub passing: VecDeque<u64>,
    /// Who asks.
    pub requesters: Vec<u64>,
    /// Requests that were answered.
    pub answered: u64,
    hint: usize,
}

impl State {
    /// Nobody there, nothing measured.
    pub fn new(dialect: Dialect, groups: Vec<GroupState>) -> Self {
        let measure = Measure::new(groups.len());
        Self {
            dialect,
            groups,
            measure,
            findings: Findings::default(),
            opening: 0,
            open: 0,
            passing: VecDeque::new(),
            requesters: Vec::new(),
            answered: 0,
            hint: 0,
        }
    }

    /// Path and query of a connection's upgrade.
    pub fn target(&self, who: Who, uid: &str) -> String {
        self.dialect.target(who, self.tag(who), uid)
    }

    /// How to speak.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// See [`Dialect::first_stage`].
    pub fn first_stage(&self) -> Stage {
        self.dialect.first_stage()
    }

    /// What is known of a connection as it begins.
    pub fn facts(&self, who: Who, due_us: u64) -> Facts {
        // Who is there from the beginning must see the first publication.
        let expected = matches!(who, Who::Subscriber { steady: true, .. }).then_some(0);
        Facts { who, expected, due_us }
    }

    /// A connection that was wanted has this name.
    pub fn named(&mut self, who: Who, name: u64) {
        match who {
            Who::Subscriber { steady: false, .. } => self.passing.push_back(name),
            Who::Requester => self.requesters.push(name),
            _ => {}
        }
    }

    /// Takes a text; what is to be said to it.
    pub fn text(
        &mut self,
        conn: &mut Conn,
        facts: &mut Facts,
        text: &[u8],
        now_us: u64,
    ) -> Result<Option<String>, Ending> {
        if let Stage::Opening(step) = conn.stage {
            match self.dialect.opening(step, facts.who, self.asked(facts.who), text) {
                Opened::Next(reply, stage) => {
                    conn.stage = stage;
                    return Ok(reply);
                }
                Opened::Refused => {
                    self.findings.add("refused", shown(text));
                    return Err(Ending::Broken("it was refused"));
                }
                Opened::Early => {}
            }
        }
        match facts.who {
            Who::Subscriber { group, steady } => self.heard(facts, group, steady, text, now_us),
            Who::Requester => self.answered(text, now_us),
            Who::Publisher { .. } | Who::Backend => return Ok(self.told(facts.who, text, now_us)),
        }
        Ok(None)
    }

    /// A connection is open.
    pub fn opened(&mut self, facts: &Facts, now_us: u64) {
        self.measure.handshake(facts.due_us, now_us);
        self.opening -= 1;
        self.open += 1;
    }

    /// A connection is gone.
    pub fn left(&mut self, facts: &Facts, stage: Stage) {
        let count = if stage == Stage::Live { &mut self.open } else { &mut self.opening };
        *count -= 1;
        self.never_there(facts.who);
    }

    /// A connection will not be there: nobody waits for what it should have heard.
    pub fn never_there(&mut self, who: Who) {
        if let Who::Subscriber { group, steady: true } = who {
            self.groups[group].tally.leaves();
        }
    }

    fn tag(&self, who: Who) -> &str {
        match who {
            Who::Subscriber { group, .. } | Who::Publisher { group } => &self.groups[group].tag,
            Who::Requester | Who::Backend => "",
        }
    }

    fn asked(&self, who: Who) -> &[String] {
        match who {
            Who::Subscriber { group, .. } => &self.groups[group].asked,
            _ => &[],
        }
    }

    fn heard(&mut self, facts: &mut Facts, group: usize, steady: bool, text: &[u8], now_us: u64) {
        let state = &mut self.groups[group];
        let Some(mark) = Mark::find(text, &mut state.hint) else {
            self.findings.add("not_a_publication", shown(text));
            return;
        };
        state.first_text_bytes.get_or_insert(text.len());
        let expected = facts.expected;
        if !check(&mut facts.expected, mark.number, &mut self.findings) {
            return;
        }
        if let (true, Some(expected)) = (steady, expected) {
            state.tally.skipped(expected..mark.number);
        }
        if steady && !state.tally.came(mark.number) {
            self.findings.add("never_sent", format_args!("number {}", mark.number));
        }
        if steady {
            self.measure.delivery(group, mark.due_us, now_us);
        }
    }

    fn answered(&mut self, text: &[u8], now_us: u64) {
        match Mark::find(text, &mut self.hint) {
            Some(mark) => {
                self.answered += 1;
                self.measure.request(mark.due_us, now_us);
            }
            None => self.findings.add("not_an_answer", shown(text)),
        }
    }

    fn told(&mut self, who: Who, text: &[u8], now_us: u64) -> Option<String> {
        match (self.dialect.told(text), who) {
            (Told::Asked(answer), _) => return Some(answer),
            (Told::Accepted(due_us), Who::Publisher { group }) => {
                self.groups[group].accepted += 1;
                due_us.into_iter().for_each(|due_us| self.measure.accepted(due_us, now_us));
            }
            (Told::Refused, _) => self.findings.add("publication_refused", shown(text)),
            _ => {}
        }
        None
    }
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(SHOWN_MAX)]).into_owned()
}
