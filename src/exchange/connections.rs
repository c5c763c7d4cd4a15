//! Connections that come and go on this node, and what they subscribe to.
//!
//! Invariants: every connection that was let in is announced to the project's back-ends, and its end is too; one
//! that was turned away is not known here at all.

use std::{sync::Arc, time::Instant};

use super::{Effect, Exchange, append, presence::Member, tags::Full};
use crate::{
    limits::OpeningLimits,
    metrics::Count,
    model::{
        Pid, Record, Role, SessionId, Tag, ToCore,
        record::{BackendChange, Presence},
    },
    protocol::frame::close_code,
};

impl Exchange {
    pub(super) fn opened(&mut self, member: Member, out: &mut Vec<Effect>) {
        if member.role == Role::User && !self.admit(&member, out) {
            return;
        }
        let member = self.presence.open(member);
        self.announce(&member, true, out);
    }

    pub(super) fn closed(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let Some(member) = self.presence.close(session) else { return };
        self.requests.asker_gone(self.cid(session));
        self.announce(&member, false, out);
    }

    /// Keeps the bound on a user's connections; whether the new one may stay.
    fn admit(&self, member: &Member, out: &mut Vec<Effect>) -> bool {
        let OpeningLimits { connections_per_uid, kick_oldest, .. } = self.rules.opening;
        let mut others: Vec<&Arc<Member>> = self.presence.connections(&member.pid, &member.uid).collect();
        if connections_per_uid == 0 || others.len() < connections_per_uid {
            return true;
        }
        if !kick_oldest {
            close(out, member.session, close_code::TOO_MANY, "too many connections of this user");
            return false;
        }
        // Some may have been told already and be on their way out: telling them again does no harm.
        let excess = others.len() + 1 - connections_per_uid;
        others.sort_unstable_by_key(|other| other.number);
        for oldest in others.into_iter().take(excess) {
            close(out, oldest.session, close_code::REPLACED, "replaced by a newer connection");
        }
        true
    }

    fn announce(&self, member: &Member, online: bool, out: &mut Vec<Effect>) {
        let pid = member.pid.clone();
        match member.role {
            Role::Backend => {
                let cid = self.cid(member.session);
                append(out, Record::Backend(BackendChange { pid, cid, online }));
            }
            Role::User if self.directory.serves(&pid) => {
                let source = self.source(member);
                append(out, Record::Presence(Presence { pid, online, source }));
            }
            Role::User => {}
        }
    }

    pub(super) fn follow(
        &mut self,
        session: SessionId,
        pid: &Pid,
        tag: Tag,
        since: Option<&str>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let rule = self.rules.tags.find(&tag);
        match self.tags.follow(session.core, pid, &tag, since, rule, now) {
            Ok(start) => {
                let pid = pid.clone();
                out.push(Effect::ToCore(session.core, ToCore::Followed { session, pid, tag, start }));
            }
            Err(Full) => {
                self.counters.inc(Count::TagsRefused);
                close(out, session, close_code::TRY_LATER, "too many tags are followed");
            }
        }
    }
}

fn close(out: &mut Vec<Effect>, session: SessionId, code: u16, reason: &'static str) {
    out.push(Effect::ToCore(session.core, ToCore::Close { session, code, reason }));
}
