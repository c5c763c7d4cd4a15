//! What time does to sessions: pings, silence, writes without progress, tokens that end, peers that do not close.
//!
//! Method: each call looks at the next part of the slab, so that a round over all of them costs no long turn.

use crate::{
    limits::LifeLimits,
    metrics::Count,
    model::SessionId,
    protocol::{
        frame,
        frame::{OpCode, close_code},
    },
};

use super::{
    Decis, Hub, decis,
    session::{Phase, Session, since},
};

/// What the owner of the socket has to do for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Shut the socket: the peer's time is over.
    Shut(SessionId),
}

/// Every so many rounds (of half a second) the queues of those for whom nothing waits give back their room: most connections
/// are idle most of the time, and one that is not makes room again for the cost of one allocation.
const ROUNDS_PER_TIDYING: u32 = 8;

enum Verdict {
    Fine,
    Ping,
    Close(u16, &'static str, Count),
    Stuck,
    Shut,
}

impl Hub {
    /// Notes input from a session; `assembling` says that a fragmented message is incomplete behind it.
    pub fn heard_from(&mut self, id: SessionId, bytes: usize, assembling: bool) {
        self.counters.add(Count::BytesIn, bytes as u64);
        let now = self.now;
        let Some(session) = self.session_mut(id) else { return };
        session.last_input = now;
        session.ping_sent = false;
        session.assembling_since = if assembling { session.assembling_since.or(since(now)) } else { None };
    }

    /// Sets when a session's token ends.
    pub fn set_expiry(&mut self, id: SessionId, expires: Option<Decis>) {
        if let Some(session) = self.session_mut(id) {
            session.set_expires(expires);
        }
    }

    /// Looks at up to `sessions_max` sessions: queues pings and closes, and tells which sockets are to be shut.
    pub fn expire(&mut self, sessions_max: usize, out: &mut Vec<Expired>) {
        let slots = self.generations.len();
        for _ in 0..sessions_max.min(slots) {
            let slot = self.expiry_cursor;
            self.expiry_cursor = (slot + 1) % slots;
            self.expiry_round = self.expiry_round.wrapping_add(u32::from(self.expiry_cursor == 0));
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            if self.expiry_round.is_multiple_of(ROUNDS_PER_TIDYING) {
                session.outbox.give_back_room();
            }
            let slot = super::slot_number(slot);
            let id = SessionId { core: self.settings.core, slot, generation: session.generation };
            let fragments = decis(self.settings.limits.frames.fragments_timeout);
            let write = decis(self.settings.limits.writing.write_timeout);
            let verdict = judge(session, &self.settings.limits.life, fragments, write, self.now);
            self.carry_out(id, verdict, out);
        }
    }

    fn carry_out(&mut self, id: SessionId, verdict: Verdict, out: &mut Vec<Expired>) {
        match verdict {
            Verdict::Fine => {}
            Verdict::Ping => {
                self.sessions[id.slot as usize].ping_sent = true;
                self.send_first(id, frame::encode(OpCode::Ping, b"").into());
            }
            Verdict::Close(code, reason, count) => {
                self.counters.inc(count);
                self.begin_close(id, code, reason, false);
            }
            Verdict::Stuck => {
                self.counters.inc(Count::ClosedStuck);
                out.push(Expired::Shut(id));
            }
            Verdict::Shut => out.push(Expired::Shut(id)),
        }
    }
}

fn judge(session: &Session, life: &LifeLimits, fragments: Decis, write: Decis, now: Decis) -> Verdict {
    let over = |since: Decis, allowed: Decis| now.saturating_sub(since) >= allowed;
    if let Phase::Closing { deadline } = session.phase() {
        return if now >= deadline { Verdict::Shut } else { Verdict::Fine };
    }
    let silence = decis(life.ping_after);
    if session.stuck_since.is_some_and(|since| over(since.get(), write)) {
        Verdict::Stuck
    } else if session.expires().is_some_and(|expires| now >= expires) {
        Verdict::Close(close_code::CREDENTIALS, "the token has ended", Count::ClosedExpired)
    } else if session.assembling_since.is_some_and(|since| over(since.get(), fragments)) {
        Verdict::Close(close_code::POLICY, "a fragmented message took too long", Count::ClosedProtocol)
    } else if over(session.last_input, silence + decis(life.pong_timeout)) {
        Verdict::Close(close_code::NO_HEARTBEAT, "no heartbeat", Count::ClosedIdle)
    } else if !session.ping_sent && over(session.last_input, silence) {
        Verdict::Ping
    } else {
        Verdict::Fine
    }
}
