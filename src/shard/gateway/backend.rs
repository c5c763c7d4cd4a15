//! What back-ends say: pushes and controls on their way into the log.
//!
//! Method: everything that came with one turn of a back-end's socket goes to the exchange as one submission, and is
//! answered together. Invariant: so many submissions of one back-end wait for the log at most; beyond that its socket
//! is not read from, and TCP tells it to slow down.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Poll, Waker},
};

use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    inbox::Pending,
    metrics::Count,
    model::{FromCore, Record, RecordId, Refusal, Reply, SessionId},
    protocol::{
        command::{self, BackendCommand},
        frame::{self, OpCode},
        message::{self, OverGuidance},
    },
    traces::{Span, Stamper, Way},
};

use super::{
    super::{core::Core, service::Hangup},
    Gateway, GatewayPeer,
};

/// Submissions of one back-end that wait for the log.
const SUBMISSIONS_MAX: usize = 32;

/// A back-end connection's state.
#[derive(Debug, Default)]
pub(super) struct BackendPeer {
    /// What came in this turn.
    records: Vec<Record>,
    answers: Vec<Awaited>,
    waiting: Rc<Waiting>,
}

/// How a record is answered.
#[derive(Debug)]
struct Awaited {
    ack_id: Option<Box<str>>,
    over_guidance: Option<OverGuidance>,
    /// Controls are answered without an id.
    is_push: bool,
}

/// How many submissions wait, and who waits for them to become fewer.
#[derive(Debug, Default)]
struct Waiting {
    submissions: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

impl Gateway {
    pub(super) fn backend_says(
        &self,
        core: &Rc<Core>,
        peer: &mut GatewayPeer,
        id: SessionId,
        text: &str,
    ) -> Result<(), Hangup> {
        let Some(pid) = core.with_hub(|hub| hub.pid(id).cloned()) else { return Ok(()) };
        let parsed = command::parse_backend(text, &pid, &core.limits().frames);
        let ack_id = parsed.ack_id.as_deref();
        let command = match parsed.command {
            Ok(command) => command,
            Err(fault) => {
                core.counters().inc(Count::PushesInvalid);
                return self.refuse(core, peer, id, ack_id, fault);
            }
        };
        peer.bad_in_a_row = 0;
        match command {
            BackendCommand::Heart => self.answer_heart(core, id, ack_id),
            BackendCommand::Submit(record) => {
                let awaited = awaited(core, &record, ack_id);
                let backend = peer.rare.get_or_insert_default().backend.get_or_insert_default();
                backend.records.push(record);
                backend.answers.push(awaited);
            }
            BackendCommand::Refresh { token } => self.refresh(core, peer, id, ack_id, &token),
        }
        Ok(())
    }

    /// Hands what came in this turn to the exchange; the future says when the back-end may be read from again.
    pub(super) fn submit_turn(
        &self,
        core: &Rc<Core>,
        backend: &mut BackendPeer,
        id: SessionId,
    ) -> Option<LocalBoxFuture<'static, ()>> {
        if backend.records.is_empty() {
            return None;
        }
        let (mut records, answers) = (std::mem::take(&mut backend.records), std::mem::take(&mut backend.answers));
        let received_us = core.wall_us();
        let spans = self.stamper.stamp(&mut records, Way::Socket, received_us, None);
        match self.link.begin(|ticket| FromCore::Submit { ticket, records }) {
            Ok(pending) => {
                let waiting = backend.waiting.clone();
                waiting.submissions.set(waiting.submissions.get() + 1);
                let submission = Submission { id, answers, received_us, spans };
                monoio::spawn(submission.answer(core.clone(), self.stamper.clone(), pending, waiting.clone()));
                waiting.is_full().then(|| waiting.room().boxed_local())
            }
            Err(refusal) => {
                let refused = vec![Err(refusal); answers.len()];
                send_answers(core, id, &answers, &refused);
                None
            }
        }
    }
}

fn awaited(core: &Core, record: &Record, ack_id: Option<&str>) -> Awaited {
    let over_guidance = OverGuidance::of(record.payload_bytes(), core.limits().writing.payload_guidance_bytes);
    if over_guidance.is_some() {
        core.counters().inc(Count::PayloadsOverGuidance);
    }
    let is_push = matches!(record, Record::Publication(_) | Record::Push(_));
    Awaited { ack_id: ack_id.map(Box::from), over_guidance, is_push }
}

/// What a back-end said in one turn, on its way into the log.
struct Submission {
    id: SessionId,
    answers: Vec<Awaited>,
    received_us: u64,
    spans: Vec<Span>,
}

impl Submission {
    /// Waits for the log and answers each record.
    async fn answer(self, core: Rc<Core>, stamper: Rc<Stamper>, pending: Pending, waiting: Rc<Waiting>) {
        let Self { id, answers, received_us, spans } = self;
        let results = match pending.await {
            Reply::Submitted(results) => results,
            Reply::Refused(refusal) => vec![Err(refusal); answers.len()],
            Reply::Tag(_) | Reply::Values(_) | Reply::Online { .. } => vec![Err(Refusal::Unknown); answers.len()],
        };
        send_answers(&core, id, &answers, &results);
        waiting.done();
        stamper.answered(&results, received_us, &spans, core.wall_us());
    }
}

/// All answers of a submission as one piece, so that a back-end's pushes cannot fill its own outbox with answers.
fn send_answers(core: &Core, id: SessionId, answers: &[Awaited], results: &[Result<RecordId, Refusal>]) {
    let (mut text, mut frames) = (Vec::new(), Vec::new());
    for (awaited, result) in answers.iter().zip(results) {
        text.clear();
        let ack_id = awaited.ack_id.as_deref();
        match (result, ack_id) {
            (Ok(record), Some(ack_id)) if awaited.is_push => {
                message::pushed(&mut text, ack_id, *record, awaited.over_guidance);
            }
            (Ok(_), Some(ack_id)) => message::done(&mut text, ack_id),
            (Ok(_), None) => continue,
            (Err(refusal), _) => message::failed(&mut text, ack_id, refusal.err(), refusal.message()),
        }
        frame::encode_into(&mut frames, OpCode::Text, &text);
    }
    if !frames.is_empty() {
        core.with_hub(|hub| hub.send(id, frames.into()));
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.submissions.get() >= SUBMISSIONS_MAX
    }

    fn done(&self) {
        self.submissions.set(self.submissions.get().saturating_sub(1));
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    async fn room(self: Rc<Self>) {
        std::future::poll_fn(|context| {
            if !self.is_full() {
                return Poll::Ready(());
            }
            *self.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
