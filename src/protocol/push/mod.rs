//! From what a publisher wrote, in any of its forms, to the record that goes into the log.
//!
//! Every way in ends in one draft, judged as a whole, so that a JSON body, a form, a line of a batch and a back-end's
//! frame are held to the same rules.
//!
//! Invariants: the payload is the publisher's own bytes, copied once; a narrower audience is never widened by a
//! mistake (an empty item, an `all` beside a part).

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

use super::{
    fault::Fault,
    fields::{AudienceMembers, Field, Items, Parts, check_short, cut, even_null, flag, items, short},
    json,
};
use crate::{
    limits::FrameLimits,
    model::{Audience, Control, ControlOp, Pid, Publication, Push, Record, Stamp},
};

/// A push before it is judged as a whole.
pub(super) struct Draft<'a> {
    pub(super) audience: Audience,
    pub(super) all: bool,
    pub(super) keep: bool,
    pub(super) affair_id: Option<Cow<'a, str>>,
    pub(super) idempotency_key: Option<Cow<'a, str>>,
    /// JSON text.
    pub(super) payload: Option<Cow<'a, str>>,
}

impl Draft<'_> {
    /// The record: a publication if the audience is exactly one tag, a push otherwise.
    pub(super) fn into_record(self, pid: &Pid, limits: &FrameLimits) -> Result<Record, Fault> {
        check_audience(&self.audience, self.all)?;
        let payload = self.payload.ok_or(Fault::NoPayload)?;
        let (bytes, bytes_max) = (payload.len(), limits.push_bytes_max);
        if bytes > bytes_max {
            return Err(Fault::TooLarge { bytes, bytes_max });
        }
        let payload = match payload {
            Cow::Borrowed(text) => Bytes::copy_from_slice(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        // Whoever has a clock stamps it.
        let (pid, stamp) = (pid.clone(), Stamp::default());
        let affair_id = self.affair_id.map(Box::from);
        let idempotency_key = self.idempotency_key.map(Box::from);
        Ok(match self.audience.single_tag().cloned() {
            Some(tag) => {
                let keep = self.keep;
                Record::Publication(Publication { pid, tag, keep, affair_id, idempotency_key, payload, stamp })
            }
            None => Record::Push(Push { pid, audience: self.audience, affair_id, idempotency_key, payload, stamp }),
        })
    }

    /// Both drafts together, of which each says what the other leaves out.
    fn join(self, other: Self, limits: &FrameLimits) -> Result<Self, Fault> {
        Ok(Self {
            audience: join_audiences(self.audience, other.audience, limits)?,
            all: self.all || other.all,
            keep: self.keep || other.keep,
            affair_id: either("affair_id", self.affair_id, other.affair_id)?,
            idempotency_key: either("idempotency_key", self.idempotency_key, other.idempotency_key)?,
            payload: either("data", self.payload, other.payload)?,
        })
    }
}

fn either<T>(field: &'static str, one: Option<T>, other: Option<T>) -> Result<Option<T>, Fault> {
    if one.is_some() && other.is_some() { Err(Fault::BadField { field, rule: GIVEN_ONCE }) } else { Ok(one.or(other)) }
}

fn join_audiences(one: Audience, other: Audience, limits: &FrameLimits) -> Result<Audience, Fault> {
    fn part<T>(field: &'static str, one: Vec<T>, other: Vec<T>) -> Result<Vec<T>, Fault> {
        let given = |part: Vec<T>| (!part.is_empty()).then_some(part);
        either(field, given(one), given(other)).map(Option::unwrap_or_default)
    }
    let audience = Audience {
        uids: part("uids", one.uids, other.uids)?,
        cids: part("cids", one.cids, other.cids)?,
        tags: part("tags", one.tags, other.tags)?,
        devices: part("devices", one.devices, other.devices)?,
    };
    if audience.len() > limits.audience_max {
        return Err(Fault::TooManyMembers { members_max: limits.audience_max });
    }
    Ok(audience)
}

const GIVEN_ONCE: &str = "given once: in the query or in the body";

/// A whole project must be asked for, and only when it is meant.
pub(super) fn check_audience(audience: &Audience, all: bool) -> Result<(), Fault> {
    match (audience.is_everyone(), all) {
        (true, false) => Err(Fault::NoAudience),
        (false, true) => Err(Fault::BadField { field: "all", rule: "left out where a narrower audience is given" }),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct PushBody<'a> {
    #[serde(borrow)]
    uids: Field<'a>,
    #[serde(borrow)]
    cids: Field<'a>,
    #[serde(borrow)]
    tags: Field<'a>,
    #[serde(borrow)]
    devices: Field<'a>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Field<'a>,
    #[serde(borrow)]
    all: Field<'a>,
    #[serde(borrow)]
    keep: Field<'a>,
    #[serde(borrow)]
    affair_id: Field<'a>,
    #[serde(borrow)]
    idempotency_key: Field<'a>,
}

/// The record of `{"uids":[],"cids":[],"tags":[],"devices":[],"data":any,"all","keep","affair_id",
/// "idempotency_key"}`: a JSON body, or a line of a batch.
pub fn from_json(pid: &Pid, body: &[u8], limits: &FrameLimits) -> Result<Record, Fault> {
    draft_of_json(body, limits)?.into_record(pid, limits)
}

/// The record of a query's or form's parameters, by name; `data` that is JSON stays as it is, other text becomes
/// a JSON string.
pub fn from_params<'p>(
    pid: &Pid,
    param: impl Fn(&str) -> Option<&'p str>,
    limits: &FrameLimits,
) -> Result<Record, Fault> {
    draft_of_params(param, limits)?.into_record(pid, limits)
}

/// The record of a JSON body, with what it leaves out taken from parameters; one in both is a fault.
pub fn from_json_and_params<'p>(
    pid: &Pid,
    body: &[u8],
    param: impl Fn(&str) -> Option<&'p str>,
    limits: &FrameLimits,
) -> Result<Record, Fault> {
    draft_of_json(body, limits)?.join(draft_of_params(param, limits)?, limits)?.into_record(pid, limits)
}

fn draft_of_json<'a>(body: &'a [u8], limits: &FrameLimits) -> Result<Draft<'a>, Fault> {
    let body: PushBody<'_> = cut(text_of(body)?, limits.json_depth_max)?;
    let parts = Parts {
        uids: items("uids", body.uids)?,
        cids: items("cids", body.cids)?,
        tags: items("tags", body.tags)?,
        devices: items("devices", body.devices)?,
    };
    Ok(Draft {
        audience: parts.read(limits)?,
        all: flag("all", body.all)?,
        keep: flag("keep", body.keep)?,
        affair_id: short("affair_id", body.affair_id)?,
        idempotency_key: short("idempotency_key", body.idempotency_key)?,
        payload: body.data.map(|raw| Cow::Borrowed(raw.get())),
    })
}

fn draft_of_params<'p>(param: impl Fn(&str) -> Option<&'p str>, limits: &FrameLimits) -> Result<Draft<'p>, Fault> {
    let payload = param("data").map(|data| payload_of(data, limits)).transpose()?;
    let short = |field| {
        let value = param(field).filter(|text| !text.is_empty());
        check_short(field, value).map(|()| value.map(Cow::Borrowed))
    };
    Ok(Draft {
        audience: parts_of(&param).read(limits)?,
        all: flag_of("all", &param)?,
        keep: flag_of("keep", &param)?,
        affair_id: short("affair_id")?,
        idempotency_key: short("idempotency_key")?,
        payload,
    })
}

fn payload_of<'p>(data: &'p str, limits: &FrameLimits) -> Result<Cow<'p, str>, Fault> {
    if !json::is_valid(data.as_bytes()) {
        let mut quoted = Vec::with_capacity(data.len() + 2);
        json::escape_into(&mut quoted, data);
        // What was text is text still.
        return String::from_utf8(quoted).map(Cow::Owned).map_err(|_| Fault::NoPayload);
    }
    if !json::depth_ok(data.as_bytes(), limits.json_depth_max) {
        return Err(Fault::TooDeep { depth_max: limits.json_depth_max });
    }
    Ok(Cow::Borrowed(data))
}

/// The record of a kick's JSON body: an audience, and nothing else.
pub fn kick_from_json(pid: &Pid, body: &[u8], limits: &FrameLimits) -> Result<Record, Fault> {
    let (audience, all) = kick_body(body, limits)?;
    kick(pid, audience, all)
}

/// The record of a kick's parameters, by name.
pub fn kick_from_params<'p>(
    pid: &Pid,
    param: impl Fn(&str) -> Option<&'p str>,
    limits: &FrameLimits,
) -> Result<Record, Fault> {
    kick(pid, parts_of(&param).read(limits)?, flag_of("all", &param)?)
}

/// The record of a kick's JSON body, with what it leaves out taken from parameters; one in both is a fault.
pub fn kick_from_json_and_params<'p>(
    pid: &Pid,
    body: &[u8],
    param: impl Fn(&str) -> Option<&'p str>,
    limits: &FrameLimits,
) -> Result<Record, Fault> {
    let (audience, all) = kick_body(body, limits)?;
    let audience = join_audiences(audience, parts_of(&param).read(limits)?, limits)?;
    kick(pid, audience, all || flag_of("all", &param)?)
}

fn kick_body(body: &[u8], limits: &FrameLimits) -> Result<(Audience, bool), Fault> {
    cut::<AudienceMembers<'_>>(text_of(body)?, limits.json_depth_max)?.read(limits)
}

fn kick(pid: &Pid, audience: Audience, all: bool) -> Result<Record, Fault> {
    check_audience(&audience, all)?;
    Ok(Record::Control(Control { pid: pid.clone(), op: ControlOp::Kick, audience, tags: Vec::new() }))
}

fn text_of(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|_| Fault::NoObject)
}

fn parts_of<'p>(param: impl Fn(&str) -> Option<&'p str>) -> Parts<'p> {
    let list = |name| Items::List(Cow::Borrowed(param(name).unwrap_or_default()));
    Parts { uids: list("uids"), cids: list("cids"), tags: list("tags"), devices: list("devices") }
}

fn flag_of<'p>(field: &'static str, param: impl Fn(&str) -> Option<&'p str>) -> Result<bool, Fault> {
    match param(field) {
        None | Some("" | "0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Fault::BadField { field, rule: "true or false" }),
    }
}
