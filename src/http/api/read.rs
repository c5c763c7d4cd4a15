//! The calls that change nothing: who is online, and what a tag's last publications are.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{
    Api, MISPLACED_REPLY, answer,
    call::{Call, bad_field},
    route::TAG_PREFIX,
};
use crate::{
    http::message::{Fault, Response},
    model::{FromCore, Pid, Reply, Tag, ids::is_identity},
};

const NO_VALUE: Fault = Fault::new(StatusCode::NOT_FOUND, "not_found", "the tag has no value");

impl Api {
    /// `GET /v1/online?uids=&cursor=&limit=`
    pub(super) async fn online(&self, pid: Pid, call: &Call<'_>) -> Result<Response, Fault> {
        let uids = self.uids(call.param("uids").unwrap_or_default())?;
        let after = match call.param("cursor").filter(|cursor| !cursor.is_empty()) {
            Some(cursor) => Some(answer::read_cursor(cursor).ok_or_else(|| bad_field("cursor", "one from an answer"))?),
            None => None,
        };
        let limit = self.limit(call.param("limit").filter(|limit| !limit.is_empty()))?;
        match self.ask(|ticket| FromCore::Online { ticket, pid, uids, after, limit }).await? {
            Reply::Online { connections, more } => Ok(Response::success(answer::online(&connections, more))),
            _ => Err(MISPLACED_REPLY),
        }
    }

    fn uids(&self, list: &str) -> Result<Vec<Box<str>>, Fault> {
        let uids: Vec<Box<str>> = list.split(',').filter(|_| !list.is_empty()).map(Into::into).collect();
        if uids.len() > self.limits().frames.audience_max {
            return Err(bad_field("uids", "a comma list of fewer users"));
        }
        if !uids.iter().all(|uid| is_identity(uid)) {
            return Err(bad_field("uids", "a comma list of names, each of 1-128 bytes without control characters"));
        }
        Ok(uids)
    }

    fn limit(&self, text: Option<&str>) -> Result<u32, Fault> {
        let limit_max = u32::try_from(self.limits().http.online_page_max).unwrap_or(u32::MAX);
        let Some(text) = text else { return Ok(limit_max) };
        let limit: Option<u32> = text.parse().ok().filter(|limit| (1..=limit_max).contains(limit));
        limit.ok_or_else(|| bad_field("limit", &format!("a number from 1 to {limit_max}")))
    }

    /// `GET /v1/tags/{tag}`
    pub(super) async fn tag(&self, pid: Pid, path: &str) -> Result<Response, Fault> {
        let name = percent_decode_str(path.strip_prefix(TAG_PREFIX).unwrap_or_default()).decode_utf8_lossy();
        let tag = Tag::new(&name).ok_or_else(|| bad_field("tag", "1-128 bytes of A-Z a-z 0-9 _ . : @ / -"))?;
        match self.ask(|ticket| FromCore::TagState { ticket, pid, tag }).await? {
            Reply::Tag(history) => {
                let payload = answer::tag(&name, &history).ok_or(NO_VALUE)?;
                Ok(Response::success(payload))
            }
            _ => Err(MISPLACED_REPLY),
        }
    }
}
