//! Publishes a plan through one node on an open-loop timetable, and keeps what each push was answered.
//!
//! Updates of one tag leave one after another (a tag's order is the order in which its pushes were accepted). Latency
//! counts from the intended time, so that a slow node cannot hide by slowing its publisher down. Every window is
//! bounded; after the deadline nothing more is sent.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    bars::{Plan, Update},
    check::Outcome,
    client::{Frame, Session},
    clock::unix_now,
    http::HttpClient,
    report::{Latency, latency},
    sign::Credentials,
};

/// Most connections of `--via http`; each carries the pushes of some tags, one at a time.
const HTTP_CONNECTIONS_MAX: usize = 16;
/// Most lines of a batch.
const BATCH_LINES_MAX: usize = 500;
/// Most pushes of a back-end that wait for their answer.
const BACKEND_WINDOW_MAX: usize = 1024;
/// After so many unknown outcomes in a row the node is taken for gone.
const FAILURES_IN_A_ROW_MAX: usize = 5;

/// Which way the pushes take into the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// `POST /ws/push`, one request per update.
    Http,
    /// `POST /ws/push/batch`, what is due in one request.
    Batch,
    /// A back-end's WebSocket.
    Backend,
}

impl Via {
    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Batch => "batch",
            Self::Backend => "backend",
        }
    }
}

/// Where and when to publish.
#[derive(Clone)]
pub struct Target {
    /// Which way in.
    pub via: Via,
    /// `host:port` of the HTTP API.
    pub http: String,
    /// `host:port` of the WebSocket listener.
    pub ws: String,
    /// What the pushes are signed with.
    pub credentials: Credentials,
    /// When the timetable begins.
    pub start: Instant,
    /// When to give up.
    pub deadline: Instant,
}

/// What became of the pushes.
#[derive(Debug)]
pub struct Published {
    /// By tag and number.
    pub outcomes: Vec<Vec<Outcome>>,
    /// Microseconds from the intended time to the answer.
    pub ack: Latency,
    /// Microseconds from the intended time to the sending: what of the latency is the publisher's own, or is waiting for
    /// the answers before.
    pub late: Latency,
    /// Refusals and failures by their word.
    pub refusals: BTreeMap<String, u64>,
}

/// Publishes `plan` at `target`. An error only when it could not even begin.
pub async fn publish(plan: &Arc<Plan>, target: &Target) -> Result<Published> {
    match target.via {
        Via::Http => via_http(plan, target).await,
        Via::Batch => via_batch(plan, target).await,
        Via::Backend => via_backend(plan, target).await,
    }
}

impl Published {
    fn new(plan: &Plan) -> Self {
        let mut outcomes = vec![Vec::new(); plan.tags.len()];
        for update in &plan.updates {
            outcomes[update.tag].push(Outcome::Unsent);
        }
        Self { outcomes, ack: latency(), late: latency(), refusals: BTreeMap::new() }
    }

    fn sending(&mut self, target: &Target, update: &Update) {
        self.late.saturating_record(micros_since(target.start + update.due));
    }

    fn record(&mut self, target: &Target, update: &Update, answer: Answer) {
        let outcome = match answer {
            Answer::Accepted(id) => {
                self.ack.saturating_record(micros_since(target.start + update.due));
                Outcome::Accepted(id)
            }
            Answer::Refused(word) => {
                self.count(word);
                Outcome::Refused
            }
            Answer::Unknown(why) => {
                self.count(why);
                Outcome::Unknown
            }
        };
        self.outcomes[update.tag][update.index] = outcome;
    }

    fn count(&mut self, word: String) {
        *self.refusals.entry(word).or_default() += 1;
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        for (own, others) in self.outcomes.iter_mut().flatten().zip(other.outcomes.into_iter().flatten()) {
            if others != Outcome::Unsent {
                *own = others;
            }
        }
        for (word, count) in other.refusals {
            *self.refusals.entry(word).or_default() += count;
        }
        self.late.add(&other.late).context("joining histograms")?;
        self.ack.add(&other.ack).context("joining histograms")
    }
}

/// Microseconds from `due` to now.
pub fn micros_since(due: Instant) -> u64 {
    u64::try_from(Instant::now().saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX)
}

enum Answer {
    Accepted(Option<String>),
    Refused(String),
    Unknown(String),
}

#[derive(Deserialize)]
struct AnswerText<'a> {
    code: Option<i64>,
    err: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AnswerPayload {
    id: Option<String>,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let Ok(answer) = serde_json::from_str::<AnswerText<'_>>(text) else {
            return Self::Unknown("an answer that is no JSON".to_owned());
        };
        Self::of(answer.code, answer.err.as_deref(), answer.payload)
    }

    fn of(code: Option<i64>, err: Option<&str>, payload: Option<&RawValue>) -> Self {
        if code != Some(1) {
            return Self::Refused(err.filter(|word| !word.is_empty()).unwrap_or("refused").to_owned());
        }
        let payload = payload.and_then(|payload| serde_json::from_str::<AnswerPayload>(payload.get()).ok());
        Self::Accepted(payload.and_then(|payload| payload.id))
    }
}

/// The JSON of one push, as a body or a line of a batch.
fn push_json(plan: &Plan, update: &Update) -> String {
    let (tag, keep) = (&plan.tags[update.tag], if update.keep { r#","keep":true"# } else { "" });
    format!(r#"{{"tags":["{tag}"],"data":{}{keep}}}"#, update.payload)
}

async fn via_http(plan: &Arc<Plan>, target: &Target) -> Result<Published> {
    let lanes = plan.tags.len().clamp(1, HTTP_CONNECTIONS_MAX);
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        let (plan, target) = (Arc::clone(plan), target.clone());
        tasks.spawn(async move { http_lane(&plan, &target, lane, lanes).await });
    }
    let mut published = Published::new(plan);
    while let Some(lane) = tasks.join_next().await {
        published.merge(lane.context("a publisher panicked")?)?;
    }
    Ok(published)
}

async fn http_lane(plan: &Plan, target: &Target, lane: usize, lanes: usize) -> Published {
    let mut client = HttpClient::new(&target.http);
    let mut published = Published::new(plan);
    let mut failures = 0;
    for update in plan.updates.iter().filter(|update| update.tag % lanes == lane) {
        sleep_until(target.start + update.due).await;
        if failures >= FAILURES_IN_A_ROW_MAX || Instant::now() >= target.deadline {
            break;
        }
        published.sending(target, update);
        let body = push_json(plan, update);
        let call = target.credentials.call_target("/ws/push", body.as_bytes(), unix_now());
        let answer = match client.post(&call, "application/json", body.as_bytes()).await {
            Ok(response) => Answer::parse(&String::from_utf8_lossy(&response.body)),
            Err(problem) => Answer::Unknown(format!("{problem:#}")),
        };
        failures = if matches!(answer, Answer::Unknown(_)) { failures + 1 } else { 0 };
        published.record(target, update, answer);
    }
    published
}

async fn via_batch(plan: &Arc<Plan>, target: &Target) -> Result<Published> {
    let mut client = HttpClient::new(&target.http);
    let mut published = Published::new(plan);
    let (mut next, mut failures) = (0, 0);
    while let Some(first) = plan.updates.get(next) {
        sleep_until(target.start + first.due).await;
        if failures >= FAILURES_IN_A_ROW_MAX || Instant::now() >= target.deadline {
            break;
        }
        let now = Instant::now();
        let due = plan.updates[next..].iter().take_while(|update| target.start + update.due <= now);
        let lines = due.take(BATCH_LINES_MAX).count().max(1);
        let batch = &plan.updates[next..next + lines];
        next += lines;
        failures = if push_batch(plan, target, &mut client, batch, &mut published).await { 0 } else { failures + 1 };
    }
    Ok(published)
}

/// Whether the batch was answered.
async fn push_batch(
    plan: &Plan,
    target: &Target,
    client: &mut HttpClient,
    batch: &[Update],
    published: &mut Published,
) -> bool {
    batch.iter().for_each(|update| published.sending(target, update));
    let lines: Vec<String> = batch.iter().map(|update| push_json(plan, update)).collect();
    let body = lines.join("\n") + "\n";
    let call = target.credentials.call_target("/ws/push/batch", body.as_bytes(), unix_now());
    let response = client.post(&call, "application/x-ndjson", body.as_bytes()).await;
    let (text, problem) = match &response {
        Ok(response) => (String::from_utf8_lossy(&response.body), None),
        Err(problem) => ("".into(), Some(format!("{problem:#}"))),
    };
    let refused_whole = response.as_ref().is_ok_and(|response| response.status != 200);
    let mut answers = text.lines().filter(|line| !line.trim().is_empty());
    let whole = answers.clone().next().unwrap_or_default();
    for update in batch {
        let answer = match (&problem, refused_whole) {
            (Some(problem), _) => Answer::Unknown(problem.clone()),
            (None, true) => Answer::parse(whole),
            (None, false) => {
                answers.next().map_or_else(|| Answer::Unknown("a line without an answer".to_owned()), Answer::parse)
            }
        };
        published.record(target, update, answer);
    }
    response.is_ok()
}

/// A back-end's pushes on their way; answers carry the number of their update as `ack_id`.
struct BackendRun<'a> {
    plan: &'a Plan,
    target: &'a Target,
    published: Published,
    next: usize,
    waiting: usize,
}

async fn via_backend(plan: &Arc<Plan>, target: &Target) -> Result<Published> {
    let uid = format!("replay-backend-{}", std::process::id());
    let connect = target.credentials.connect_target(2, &uid, unix_now());
    let mut session = Session::connect(&target.ws, &connect).await.context("connecting as a back-end")?;
    let mut run = BackendRun { plan, target, published: Published::new(plan), next: 0, waiting: 0 };
    while run.next < plan.updates.len() || run.waiting > 0 {
        match timeout_at(target.deadline, run.step(&mut session)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                run.give_up(&format!("{problem:#}"));
                return Ok(run.published);
            }
            Err(_) => {
                run.give_up("no answer before the deadline");
                break;
            }
        }
    }
    session.close().await;
    Ok(run.published)
}

impl BackendRun<'_> {
    /// Sends what is due while the window has room, else takes one answer.
    async fn step(&mut self, session: &mut Session) -> Result<()> {
        let may_send = self.next < self.plan.updates.len() && self.waiting < BACKEND_WINDOW_MAX;
        let due = self.plan.updates.get(self.next).map_or(self.target.deadline, |next| self.target.start + next.due);
        tokio::select! {
            () = sleep_until(due), if may_send => self.send(session).await,
            text = session.next_text() => {
                self.take_answer(&text?);
                Ok(())
            }
        }
    }

    async fn send(&mut self, session: &mut Session) -> Result<()> {
        let (number, update) = (self.next, &self.plan.updates[self.next]);
        self.next += 1;
        self.waiting += 1;
        self.published.sending(self.target, update);
        self.published.outcomes[update.tag][update.index] = Outcome::Unknown;
        let (tag, keep) = (&self.plan.tags[update.tag], if update.keep { r#","keep":true"# } else { "" });
        let payload = &update.payload;
        let text =
            format!(r#"{{"type":"push","ack_id":"{number}","to":{{"tags":["{tag}"]}}{keep},"payload":{payload}}}"#);
        session.send_text(text).await
    }

    /// Anything but an answer (presence, say) is passed over.
    fn take_answer(&mut self, text: &str) {
        let Ok(frame) = Frame::parse(text) else { return self.published.count("an answer that is no JSON".to_owned()) };
        let Some(update) = frame.ack_id.parse().ok().and_then(|number: usize| self.plan.updates.get(number)) else {
            return;
        };
        if self.published.outcomes[update.tag][update.index] == Outcome::Unknown {
            self.waiting -= 1;
            self.published.record(self.target, update, Answer::of(frame.code, Some(&frame.err), frame.payload));
        }
    }

    fn give_up(&mut self, why: &str) {
        for _ in 0..self.waiting.max(1) {
            self.published.count(why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    //! Method: answers by hand; the three ways in are driven against a node in `replay`'s tests.
    use super::*;

    fn word(text: &str) -> String {
        match Answer::parse(text) {
            Answer::Accepted(id) => format!("accepted {}", id.unwrap_or_default()),
            Answer::Refused(word) => format!("refused {word}"),
            Answer::Unknown(why) => format!("unknown {why}"),
        }
    }

    #[test]
    fn answers_are_read_by_code_and_word() {
        assert_eq!(word(r#"{"code":1,"msg":"success","payload":{"id":"7-1"}}"#), "accepted 7-1");
        assert_eq!(word(r#"{"code":1,"msg":"success"}"#), "accepted ");
        assert_eq!(word(r#"{"code":0,"err":"queue_unavailable","msg":"later"}"#), "refused queue_unavailable");
        assert_eq!(word("<html>"), "unknown an answer that is no JSON");
    }
}
