//! What back-ends say.

use std::{borrow::Cow, fmt};

use serde::Deserialize;

use super::Parsed;
use crate::{
    limits::FrameLimits,
    model::{Audience, Control, ControlOp, Pid, Record, Tag},
    protocol::{
        fault::Fault,
        fields::{AudienceMembers, Field, cut, cut_field, even_null, flag, items, short, tags, text},
        push::{Draft, check_audience},
    },
};

/// What a back-end asks for.
pub enum BackendCommand<'a> {
    /// Wants to be told that the connection lives.
    Heart,
    /// A push or a control for the log.
    Submit(Record),
    /// Brings a newer token.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow)]
    ack_id: Field<'a>,
    #[serde(borrow)]
    affair_id: Field<'a>,
    #[serde(borrow)]
    to: Field<'a>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    payload: Field<'a>,
    #[serde(borrow)]
    keep: Field<'a>,
    #[serde(borrow)]
    idempotency_key: Field<'a>,
    #[serde(borrow)]
    op: Field<'a>,
    #[serde(borrow)]
    tags: Field<'a>,
    #[serde(borrow)]
    token: Field<'a>,
}

/// Reads a text message of a back-end of the project `pid`.
pub fn parse_backend<'a>(text: &'a str, pid: &Pid, limits: &FrameLimits) -> Parsed<'a, BackendCommand<'a>> {
    let envelope: Envelope<'a> = match cut(text, limits.json_depth_max) {
        Ok(envelope) => envelope,
        Err(fault) => return fault.into(),
    };
    match short("ack_id", envelope.ack_id) {
        Ok(ack_id) => Parsed { ack_id, command: command(&envelope, pid, limits) },
        Err(fault) => fault.into(),
    }
}

fn command<'a>(envelope: &Envelope<'a>, pid: &Pid, limits: &FrameLimits) -> Result<BackendCommand<'a>, Fault> {
    match text("type", envelope.kind)?.as_deref() {
        None | Some("" | "push") => push(envelope, pid, limits),
        Some("control") => control(envelope, pid, limits),
        Some("heart") => Ok(BackendCommand::Heart),
        Some("refresh") => {
            let token = text("token", envelope.token)?;
            Ok(BackendCommand::Refresh { token: token.ok_or(Fault::BadField { field: "token", rule: "a string" })? })
        }
        Some(_) => Err(Fault::UnknownType),
    }
}

fn push<'a>(envelope: &Envelope<'a>, pid: &Pid, limits: &FrameLimits) -> Result<BackendCommand<'a>, Fault> {
    let (audience, all) = audience(envelope.to, limits)?;
    let draft = Draft {
        audience,
        all,
        keep: flag("keep", envelope.keep)?,
        affair_id: short("affair_id", envelope.affair_id)?,
        idempotency_key: short("idempotency_key", envelope.idempotency_key)?,
        payload: envelope.payload.map(|raw| Cow::Borrowed(raw.get())),
    };
    draft.into_record(pid, limits).map(BackendCommand::Submit)
}

fn control<'a>(envelope: &Envelope<'a>, pid: &Pid, limits: &FrameLimits) -> Result<BackendCommand<'a>, Fault> {
    let op = match text("op", envelope.op)?.as_deref() {
        Some("subscribe") => ControlOp::Subscribe,
        Some("unsubscribe") => ControlOp::Unsubscribe,
        Some("kick") => ControlOp::Kick,
        _ => return Err(Fault::BadField { field: "op", rule: "subscribe, unsubscribe or kick" }),
    };
    let (audience, all) = audience(envelope.to, limits)?;
    check_audience(&audience, all)?;
    let tags = control_tags(op, envelope.tags, limits)?;
    Ok(BackendCommand::Submit(Record::Control(Control { pid: pid.clone(), op, audience, tags })))
}

fn control_tags(op: ControlOp, raw: Field<'_>, limits: &FrameLimits) -> Result<Vec<Tag>, Fault> {
    if op == ControlOp::Kick {
        return Ok(Vec::new());
    }
    let list = items("tags", raw)?;
    if list.count() == 0 || list.count() > limits.tags_per_connection {
        return Err(Fault::BadField { field: "tags", rule: "at least one, and no more than a connection may have" });
    }
    tags("tags", &list)
}

fn audience(to: Field<'_>, limits: &FrameLimits) -> Result<(Audience, bool), Fault> {
    let Some(raw) = to else { return Ok((Audience::default(), false)) };
    cut_field::<AudienceMembers<'_>>("to", raw)?.read(limits)
}

impl fmt::Debug for BackendCommand<'_> {
    /// Without payload and token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendCommand::Heart => "Heart",
            BackendCommand::Submit(_) => "Submit",
            BackendCommand::Refresh { .. } => "Refresh",
        })
    }
}
