//! What a client asks to prove its book: the check sums of tags' last values.
//!
//! Method: one question to the exchange for all tags of a message, carried out in its place among the publications
//! that the exchange sends: who holds every publication that came before the answer holds the value that it speaks of.
//! Invariant: `id` and `crc` of a tag are of one publication.

use std::{cell::Cell, rc::Rc, sync::Arc};

use crate::{
    limits::{CHECKED_BYTES_MAX, CHECKS_WAITING_MAX},
    model::{FromCore, Published, Refusal, Reply, SessionId, Tag},
    protocol::{
        crc,
        message::{self, CheckedTag, DeniedTag},
    },
};

use super::{super::core::Core, Gateway, GatewayPeer};

/// How many questions of a connection wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks(Rc<Cell<usize>>);

/// What is answered when the values are there.
struct Question {
    id: SessionId,
    ack_id: Option<Box<str>>,
    tags: Vec<Tag>,
    denied: Vec<DeniedTag>,
}

impl Gateway {
    /// Answers with the check sums of what a session may subscribe to, or follows already.
    pub(super) fn check(
        &self,
        core: &Rc<Core>,
        peer: &mut GatewayPeer,
        id: SessionId,
        ack_id: Option<&str>,
        tags: Vec<Tag>,
        mut denied: Vec<DeniedTag>,
    ) {
        let may_know = |tag: &Tag| self.may_follow(core, id, tag) || core.with_hub(|hub| hub.follows(id, tag));
        let (tags, others): (Vec<_>, Vec<_>) = tags.into_iter().partition(may_know);
        denied.extend(others.iter().map(|tag| DeniedTag { tag: tag.as_str().into(), err: "denied" }));
        if tags.is_empty() {
            return send(core, id, |text| message::checked(text, ack_id, &[], &denied));
        }
        let Some(waiting) = peer.rare.get_or_insert_default().checks.begin() else {
            let msg = "too many crc messages wait for their answer; wait for it";
            return send(core, id, |text| message::failed(text, ack_id, "too_many_checks", msg));
        };
        let question = Question { id, ack_id: ack_id.map(Box::from), tags: tags.clone(), denied };
        let Some(pid) = core.with_hub(|hub| hub.pid(id).cloned()) else { return };
        let answering = core.clone();
        let then = move |reply| {
            drop(waiting);
            question.answer(&answering, reply);
        };
        if let Err(refusal) = self.link.ask_then(|ticket| FromCore::TagValues { ticket, pid, tags }, then) {
            refuse(core, id, ack_id, refusal);
        }
    }
}

impl Question {
    fn answer(self, core: &Core, reply: Reply) {
        let Question { id, ack_id, tags, mut denied } = self;
        let ack_id = ack_id.as_deref();
        match reply {
            Reply::Values(values) if values.len() == tags.len() => {
                let checked = sum_up(tags, &values, &mut denied);
                send(core, id, |text| message::checked(text, ack_id, &checked, &denied));
            }
            Reply::Refused(refusal) => refuse(core, id, ack_id, refusal),
            _ => refuse(core, id, ack_id, Refusal::Overloaded),
        }
    }
}

/// Sums up the values, as far as they are not too many bytes for one turn.
fn sum_up(tags: Vec<Tag>, values: &[Option<Arc<Published>>], denied: &mut Vec<DeniedTag>) -> Vec<CheckedTag> {
    let mut checked = Vec::with_capacity(tags.len());
    let mut bytes = 0;
    for (tag, value) in tags.into_iter().zip(values) {
        let Some(published) = value else {
            checked.push(CheckedTag { tag, value: None });
            continue;
        };
        let length = published.payload.len();
        if bytes > 0 && bytes + length > CHECKED_BYTES_MAX {
            denied.push(DeniedTag { tag: tag.as_str().into(), err: "too_large" });
            continue;
        }
        bytes += length;
        checked.push(CheckedTag { tag, value: Some((published.id, crc::of(&published.payload))) });
    }
    checked
}

fn refuse(core: &Core, id: SessionId, ack_id: Option<&str>, refusal: Refusal) {
    send(core, id, |text| message::failed(text, ack_id, refusal.err(), refusal.message()));
}

fn send(core: &Core, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
    let mut text = Vec::new();
    write(&mut text);
    core.with_hub(|hub| hub.send_text(id, &text));
}

impl Checks {
    /// Takes a place for a question, if there is one; it is given back when the place is dropped.
    fn begin(&self) -> Option<Waiting> {
        let waiting = self.0.get();
        (waiting < CHECKS_WAITING_MAX).then(|| {
            self.0.set(waiting + 1);
            Waiting(self.clone())
        })
    }
}

struct Waiting(Checks);

impl Drop for Waiting {
    fn drop(&mut self) {
        let waiting = &self.0.0;
        waiting.set(waiting.get().saturating_sub(1));
    }
}
