//! What the exchange sends to a core, carried out in order.
//!
//! Invariant: a core hears no faster than it writes: once so many messages were taken that a connection's outbox could
//! fill by hearing alone, the walk must catch up first. What is slow then is the peer and not the core. Publications
//! that give way to later ones fill no outbox, and are heard as they come; what is for one connection counts when it fills that
//! one's. Publications of one tag that follow each other are delivered together.

use std::{iter::Peekable, rc::Rc, sync::Arc};

use crate::{
    hub::FollowRefused,
    inbox::Mailbox,
    metrics::{Count, latency::Stage},
    model::{Control, ControlOp, FromCore, Pid, Published, SessionId, Stamp, Tag, ToCore},
    protocol::{command::TagRequest, frame::close_code},
    traces::Part,
};

use super::{super::core::Core, Gateway};

/// Messages carried out in one go.
const MESSAGES_PER_TURN: usize = 64;
/// Messages carried out ahead of the walk.
const AHEAD_MESSAGES_MAX: usize = 256;
/// Their payloads.
const AHEAD_BYTES_MAX: usize = 256 << 10;

impl Gateway {
    /// Carries out what comes into a core's inbox, for ever.
    pub async fn hear(self: Rc<Self>, core: Rc<Core>, inbox: Arc<Mailbox<ToCore>>) {
        let (mut batch, mut run) = (Vec::new(), Vec::new());
        let (mut ahead, mut ahead_bytes) = (0, 0);
        loop {
            inbox.receive(&mut batch).await;
            let mut done = 0;
            let mut messages = batch.drain(..).peekable();
            while let Some(message) = messages.next() {
                let (count, bytes, waits) = match message {
                    ToCore::Publication(first) => {
                        follow_on(first, &mut messages, &mut run);
                        let bytes = run.iter().map(|published| published.payload.len()).sum();
                        let (count, waits) = (run.len(), self.publish(&core, &run));
                        // Payloads live no longer than somebody waits for them.
                        run.clear();
                        (count, bytes, waits)
                    }
                    message => {
                        let (receiver, bytes) = (receiver(&message), payload_bytes(&message));
                        self.carry_out(&core, message);
                        let fills = |session| core.with_hub(|hub| hub.is_filling(session));
                        match receiver {
                            None => (1, bytes, true),
                            // Thousands who come back are told each where to begin: nobody waits for that but who is told much.
                            Some(session) if !fills(session) => (1, 0, false),
                            Some(_) => (AHEAD_MESSAGES_MAX, 0, true),
                        }
                    }
                };
                if waits {
                    (ahead, ahead_bytes) = (ahead + count, ahead_bytes + bytes);
                }
                done += count;
                if done >= MESSAGES_PER_TURN {
                    done = 0;
                    core.pass().await;
                }
                let is_walked = !core.with_hub(|hub| hub.has_dirty());
                if is_walked {
                    (ahead, ahead_bytes) = (0, 0);
                } else if ahead >= AHEAD_MESSAGES_MAX || ahead_bytes >= AHEAD_BYTES_MAX {
                    core.walked().await;
                    (ahead, ahead_bytes) = (0, 0);
                }
            }
        }
    }

    /// Delivers publications of one tag; whether what that queued is there until it is written.
    fn publish(&self, core: &Rc<Core>, run: &[Arc<Published>]) -> bool {
        run.iter().for_each(|published| self.taken_up(core, &published.stamp, Some(&published.tag)));
        !core.with_hub(|hub| hub.publish_all(run)).conflates
    }

    fn carry_out(self: &Rc<Self>, core: &Rc<Core>, message: ToCore) {
        match message {
            ToCore::Publication(published) => drop(self.publish(core, &[published])),
            ToCore::Push(push) => {
                self.taken_up(core, &push.stamp, None);
                core.with_hub(|hub| hub.push(&push));
            }
            ToCore::Control(control) => self.control(core, &control),
            ToCore::Followed { session, pid, tag, start } => {
                if let Some(unused) = core.with_hub(|hub| hub.followed(session, &pid, &tag, start)) {
                    self.unfollowed(&pid, unused);
                }
            }
            ToCore::Gap { pid, tag } => drop(core.with_hub(|hub| hub.announce_gap(&pid, &tag))),
            ToCore::Text { session, text } => drop(core.with_hub(|hub| hub.send_text(session, &text))),
            ToCore::Close { session, code, reason } => {
                core.counters().inc(Count::ClosedOrdered);
                core.with_hub(|hub| hub.begin_close(session, code, reason, false));
            }
            ToCore::Reply { ticket, reply } => self.link.answer(ticket, reply),
            ToCore::Drain(plan) => drop(monoio::spawn(self.clone().move_all(core.clone(), plan))),
            ToCore::Stop { code } => core.with_hub(|hub| {
                for id in hub.ids() {
                    hub.begin_close(id, code, "the node is stopping; reconnect", false);
                }
            }),
        }
    }

    /// Notes that a push is on this core. Of one with a trace the end is noted too: when the walk that it began is over.
    fn taken_up(&self, core: &Rc<Core>, stamp: &Stamp, tag: Option<&Tag>) {
        let now_us = core.wall_us();
        core.counters().latency().record_since(Stage::Core, stamp.received_us, now_us);
        if let Some(span) = self.stamper.follow(stamp, Part::Deliver { core: self.link.core() }, now_us) {
            let (core, stamper, tag) = (core.clone(), self.stamper.clone(), tag.cloned());
            monoio::spawn(async move {
                core.walked().await;
                stamper.end(&span, core.wall_us(), tag.as_ref(), true);
            });
        }
    }

    fn control(&self, core: &Core, control: &Control) {
        let matching = core.with_hub(|hub| hub.matching(&control.pid, &control.audience));
        for id in matching {
            match control.op {
                ControlOp::Kick => {
                    core.counters().inc(Count::ClosedOrdered);
                    core.with_hub(|hub| hub.begin_close(id, close_code::KICKED, "kicked by the project", false));
                }
                ControlOp::Subscribe => control.tags.iter().for_each(|tag| {
                    // Over its bound of tags it keeps what it has; a back-end sees that in nothing but its data.
                    let request = TagRequest { tag: tag.clone(), since: None, hz_max: None };
                    let _ = self.follow(core, &control.pid, id, request, false);
                    core.with_hub(|hub| hub.mark_ordered(id, tag));
                }),
                ControlOp::Unsubscribe => control.tags.iter().for_each(|tag| {
                    if let Some(unused) = core.with_hub(|hub| hub.unfollow(id, tag)) {
                        self.unfollowed(&control.pid, unused);
                    }
                }),
            }
        }
    }

    /// Subscribes a session; the exchange answers with what comes first. Who follows already gets nothing more,
    /// unless it asks `again`: then it gets the value, or what it missed, once more.
    pub(super) fn follow(
        &self,
        core: &Core,
        pid: &Pid,
        id: SessionId,
        TagRequest { tag, since, hz_max }: TagRequest,
        again: bool,
    ) -> Result<(), FollowRefused> {
        if !core.with_hub(|hub| hub.follow(id, &tag, hz_max))? {
            if !again {
                return Ok(());
            }
            core.with_hub(|hub| hub.ask_again(id, &tag, hz_max));
        }
        // Bounded: by the tags that a connection may have, and by the rate of its messages.
        self.link.send(FromCore::Follow { session: id, pid: pid.clone(), tag, since });
        Ok(())
    }
}

/// Fills `run`, which is empty, with a publication and those of its tag that come right behind it.
fn follow_on(first: Arc<Published>, rest: &mut Peekable<impl Iterator<Item = ToCore>>, run: &mut Vec<Arc<Published>>) {
    run.push(first);
    while run.len() < MESSAGES_PER_TURN {
        let is_next = |message: &ToCore| matches!(message, ToCore::Publication(next) if next.tag == run[0].tag && next.pid == run[0].pid);
        let Some(ToCore::Publication(next)) = rest.next_if(is_next) else { break };
        run.push(next);
    }
}

/// The one connection that a message is for, if it can only fill the outbox of that one.
fn receiver(message: &ToCore) -> Option<SessionId> {
    match message {
        ToCore::Followed { session, .. } | ToCore::Text { session, .. } => Some(*session),
        _ => None,
    }
}

fn payload_bytes(message: &ToCore) -> usize {
    match message {
        ToCore::Push(push) => push.payload.len(),
        _ => 0,
    }
}
