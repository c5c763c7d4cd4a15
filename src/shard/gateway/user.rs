//! What users say, and what the gateway does about it.

use std::rc::Rc;

use bytes::Bytes;

use crate::{
    hub::{FollowRefused, Hub},
    model::{FromCore, SessionId, Tag},
    protocol::{
        command::{self, TagRequest, UserCommand},
        message::{self, DeniedTag},
    },
};

use super::{
    super::{core::Core, service::Hangup},
    Gateway, GatewayPeer,
};

impl Gateway {
    pub(super) fn user_says(
        &self,
        core: &Rc<Core>,
        peer: &mut GatewayPeer,
        id: SessionId,
        text: &str,
    ) -> Result<(), Hangup> {
        #[cfg(feature = "plain-pubsub")]
        super::plant::obey(text);
        let parsed = command::parse_user(text, &core.limits().frames);
        let ack_id = parsed.ack_id.as_deref();
        let command = match parsed.command {
            Ok(command) => command,
            Err(fault) => return self.refuse(core, peer, id, ack_id, fault),
        };
        peer.bad_in_a_row = 0;
        match command {
            UserCommand::Heart => self.answer_heart(core, id, ack_id),
            UserCommand::Subscribe { tags, denied } => {
                let (granted, denied) = self.subscribe(core, id, tags, denied);
                if ack_id.is_some() || granted.is_empty() {
                    answer_subscribe(core, id, ack_id, &granted, &denied);
                }
            }
            UserCommand::Unsubscribe { tags } => {
                for tag in tags {
                    if let Some(unused) = core.with_hub(|hub| hub.unfollow(id, &tag))
                        && let Some(pid) = core.with_hub(|hub| hub.pid(id).cloned())
                    {
                        self.unfollowed(&pid, unused);
                    }
                }
                self.answer_done(core, id, ack_id);
            }
            UserCommand::Crc { tags, denied } => self.check(core, peer, id, ack_id, tags, denied),
            UserCommand::Request { affair_id, payload, timeout } => {
                let timeout = timeout.unwrap_or(core.limits().queue.request_timeout);
                let affair_id = affair_id.as_deref();
                let request = FromCore::Request {
                    session: id,
                    affair_id: affair_id.map(Box::from),
                    ack_id: ack_id.map(Box::from),
                    timeout,
                    payload: Bytes::copy_from_slice(payload.as_bytes()),
                };
                if let Err(refusal) = self.link.offer(request) {
                    let mut text = Vec::new();
                    message::notice(&mut text, affair_id.unwrap_or(""), ack_id, refusal.err(), refusal.message());
                    core.with_hub(|hub| hub.send_text(id, &text));
                }
            }
            UserCommand::Refresh { token } => self.refresh(core, peer, id, ack_id, &token),
        }
        Ok(())
    }

    /// Subscribes to what `tags=` of the connect asked for; the client is told only of what it did not get.
    pub(super) fn subscribe_at_once(&self, core: &Rc<Core>, id: SessionId, names: &[Box<str>]) {
        let (mut tags, mut denied) = (Vec::new(), Vec::new());
        for name in names {
            match Tag::new(name) {
                Some(tag) => tags.push(TagRequest { tag, since: None, hz_max: None }),
                None => denied.push(DeniedTag { tag: name.clone(), err: "bad_tag" }),
            }
        }
        let (granted, denied) = self.subscribe(core, id, tags, denied);
        if !denied.is_empty() {
            answer_subscribe(core, id, None, &granted, &denied);
        }
    }

    fn subscribe(
        &self,
        core: &Rc<Core>,
        id: SessionId,
        tags: Vec<TagRequest>,
        mut denied: Vec<DeniedTag>,
    ) -> (Vec<Tag>, Vec<DeniedTag>) {
        let Some(pid) = core.with_hub(|hub| hub.pid(id).cloned()) else { return (Vec::new(), denied) };
        let mut granted = Vec::with_capacity(tags.len());
        for request in tags {
            let tag = request.tag.clone();
            let err = if !self.may_follow(core, id, &tag) {
                "denied"
            } else {
                match self.follow(core, &pid, id, request, true) {
                    Ok(()) | Err(FollowRefused::NoSession) => {
                        granted.push(tag);
                        continue;
                    }
                    Err(FollowRefused::TooManyTags) => "too_many_tags",
                }
            };
            denied.push(DeniedTag { tag: tag.as_str().into(), err });
        }
        (granted, denied)
    }

    /// Whether the rules and the session's token let it subscribe to a tag.
    pub(super) fn may_follow(&self, core: &Core, id: SessionId, tag: &Tag) -> bool {
        core.with_hub(|hub| {
            hub.session(id).is_some_and(|session| {
                self.rules.borrow().find(tag).admits(tag, session.uid()) && Hub::token_admits(session, tag)
            })
        })
    }

    /// A new token for a session that was opened with one: of the same identity, and only the end changes.
    pub(super) fn refresh(
        &self,
        core: &Core,
        peer: &mut GatewayPeer,
        id: SessionId,
        ack_id: Option<&str>,
        token: &str,
    ) {
        match self.judge_refresh(core, peer, id, token) {
            Ok(expires) => {
                core.with_hub(|hub| hub.set_expiry(id, Some(expires)));
                self.answer_done(core, id, ack_id);
            }
            Err((err, msg)) => {
                let mut text = Vec::new();
                message::failed(&mut text, ack_id, err, msg);
                core.with_hub(|hub| hub.send_text(id, &text));
            }
        }
    }
}

pub(super) fn answer_subscribe(
    core: &Core,
    id: SessionId,
    ack_id: Option<&str>,
    granted: &[Tag],
    denied: &[DeniedTag],
) {
    let mut text = Vec::new();
    message::subscribed(&mut text, ack_id, granted, denied);
    core.with_hub(|hub| hub.send_text(id, &text));
}
