//! What users say.

use std::{borrow::Cow, fmt, time::Duration};

use serde::Deserialize;

use super::Parsed;
use crate::{
    limits::{AFFAIR_ID_BYTES_MAX, FrameLimits, USER_TEXT_BYTES_MAX},
    model::Tag,
    protocol::{
        fault::Fault,
        fields::{Field, Items, cut, cut_field, even_null, items, number, short, string, text},
        message::DeniedTag,
    },
};

/// What a user asks for.
#[derive(PartialEq, Eq)]
pub enum UserCommand<'a> {
    /// Wants to be told that the connection lives.
    Heart,
    /// Wants tags.
    Subscribe {
        /// The tags asked for, in order.
        tags: Vec<TagRequest>,
        /// Those that cannot be tags, or are too many: denied already.
        denied: Vec<DeniedTag>,
    },
    /// Wants tags no longer.
    Unsubscribe {
        /// Which. Names that cannot be tags are left out: nobody is subscribed to them.
        tags: Vec<Tag>,
    },
    /// Wants the check sums of tags' last values.
    Crc {
        /// Of which tags, in order.
        tags: Vec<Tag>,
        /// Those that cannot be tags, or are too many: denied already.
        denied: Vec<DeniedTag>,
    },
    /// Asks the project's back-ends.
    Request {
        /// Names the request.
        affair_id: Option<Cow<'a, str>>,
        /// JSON text as the user wrote it; `null` if there is none.
        payload: &'a str,
        /// How long the user wants to wait.
        timeout: Option<Duration>,
    },
    /// Brings a newer token.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
    },
}

/// One tag that a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRequest {
    /// The tag.
    pub tag: Tag,
    /// The last id that the user holds, as written.
    pub since: Option<Box<str>>,
    /// At most so many updates a second.
    pub hz_max: Option<u32>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow)]
    ack_id: Field<'a>,
    #[serde(borrow)]
    affair_id: Field<'a>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    payload: Field<'a>,
    #[serde(borrow)]
    timeout_ms: Field<'a>,
    #[serde(borrow)]
    tags: Field<'a>,
    #[serde(borrow)]
    token: Field<'a>,
}

#[derive(Deserialize)]
struct TagMembers<'a> {
    #[serde(borrow)]
    tag: Field<'a>,
    #[serde(borrow)]
    since: Field<'a>,
    #[serde(borrow)]
    max_hz: Field<'a>,
}

/// Reads a user's text message.
pub fn parse_user<'a>(text: &'a str, limits: &FrameLimits) -> Parsed<'a, UserCommand<'a>> {
    let envelope: Envelope<'a> = match cut(text, limits.json_depth_max) {
        Ok(envelope) => envelope,
        Err(fault) => return fault.into(),
    };
    match short("ack_id", envelope.ack_id) {
        Ok(ack_id) => Parsed { ack_id, command: command(&envelope, limits) },
        Err(fault) => fault.into(),
    }
}

fn command<'a>(envelope: &Envelope<'a>, limits: &FrameLimits) -> Result<UserCommand<'a>, Fault> {
    match text("type", envelope.kind)?.as_deref() {
        None | Some("" | "request") => request(envelope, limits),
        Some("heart") => Ok(UserCommand::Heart),
        Some("subscribe") => subscribe(envelope.tags, limits),
        Some("unsubscribe") => unsubscribe(envelope.tags),
        Some("crc") => crc(envelope.tags, limits),
        Some("refresh") => refresh(envelope),
        Some(_) => Err(Fault::UnknownType),
    }
}

fn request<'a>(envelope: &Envelope<'a>, limits: &FrameLimits) -> Result<UserCommand<'a>, Fault> {
    let payload = envelope.payload.map_or("null", |raw| raw.get());
    if payload.len() > limits.push_bytes_max {
        return Err(Fault::TooLarge { bytes: payload.len(), bytes_max: limits.push_bytes_max });
    }
    Ok(UserCommand::Request {
        affair_id: short("affair_id", envelope.affair_id)?,
        payload,
        timeout: number("timeout_ms", envelope.timeout_ms)?.map(Duration::from_millis),
    })
}

fn refresh<'a>(envelope: &Envelope<'a>) -> Result<UserCommand<'a>, Fault> {
    let token = text("token", envelope.token)?;
    Ok(UserCommand::Refresh { token: token.ok_or(Fault::BadField { field: "token", rule: "a string" })? })
}

const TAGS: Fault = Fault::BadField {
    field: "tags",
    rule: "a comma list of tags, or an array of tags and of objects like {\"tag\",\"since\"?,\"max_hz\"?}",
};

fn subscribe<'a>(tags: Field<'a>, limits: &FrameLimits) -> Result<UserCommand<'a>, Fault> {
    let (tags, denied) = wanted(tags, limits)?;
    Ok(UserCommand::Subscribe { tags, denied })
}

fn crc<'a>(tags: Field<'a>, limits: &FrameLimits) -> Result<UserCommand<'a>, Fault> {
    let (tags, denied) = wanted(tags, limits)?;
    Ok(UserCommand::Crc { tags: tags.into_iter().map(|request| request.tag).collect(), denied })
}

/// The tags that are asked for, at most as many as a connection may have, and what is denied already.
fn wanted(tags: Field<'_>, limits: &FrameLimits) -> Result<(Vec<TagRequest>, Vec<DeniedTag>), Fault> {
    let mut wanted = Vec::new();
    let mut denied = Vec::new();
    let mut note = |name: &str, since: Option<Box<str>>, hz_max: Option<u32>| {
        let err = match Tag::new(name) {
            Some(tag) if wanted.len() < limits.tags_per_connection => {
                return wanted.push(TagRequest { tag, since, hz_max });
            }
            Some(_) => "too_many_tags",
            None => "bad_tag",
        };
        let shown = &name[..name.floor_char_boundary(USER_TEXT_BYTES_MAX)];
        denied.push(DeniedTag { tag: shown.into(), err });
    };
    match items("tags", tags)? {
        Items::List(list) => names(&list).for_each(|name| note(name, None, None)),
        Items::Array(items) => {
            for raw in items {
                if let Some(name) = string(raw) {
                    note(&name, None, None);
                } else {
                    let (name, since, hz_max) = tag_members(cut_field("tags", raw).map_err(|_| TAGS)?)?;
                    note(&name, since, hz_max);
                }
            }
        }
    }
    if wanted.is_empty() && denied.is_empty() {
        return Err(TAGS);
    }
    Ok((wanted, denied))
}

type TagParts<'a> = (Cow<'a, str>, Option<Box<str>>, Option<u32>);

fn tag_members<'a>(members: TagMembers<'a>) -> Result<TagParts<'a>, Fault> {
    let name = text("tag", members.tag)?.ok_or(TAGS)?;
    // A `since` that is no id is one that no ring knows, and is answered so: with a gap.
    let since = text("since", members.since)?.filter(|since| !since.is_empty());
    let since = since.map(|since| since[..since.floor_char_boundary(AFFAIR_ID_BYTES_MAX)].into());
    let hz_max = number("max_hz", members.max_hz)?.map(|hz| u32::try_from(hz).unwrap_or(u32::MAX));
    Ok((name, since, hz_max))
}

fn unsubscribe(tags: Field<'_>) -> Result<UserCommand<'_>, Fault> {
    let items = items("tags", tags)?;
    if items.count() == 0 {
        return Err(TAGS);
    }
    let tags = match items {
        Items::List(list) => names(&list).filter_map(Tag::new).collect(),
        Items::Array(items) => {
            let names: Result<Vec<_>, _> = items.into_iter().map(|raw| name_of(raw).ok_or(TAGS)).collect();
            names?.iter().filter_map(|name| Tag::new(name)).collect()
        }
    };
    Ok(UserCommand::Unsubscribe { tags })
}

/// The name in an item of either form; what was subscribed with an object can be unsubscribed with the same.
fn name_of(raw: &serde_json::value::RawValue) -> Option<Cow<'_, str>> {
    string(raw).or_else(|| tag_members(cut_field("tags", raw).ok()?).ok().map(|(name, ..)| name))
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

impl fmt::Debug for UserCommand<'_> {
    /// Without payload and token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserCommand::Heart => f.write_str("Heart"),
            UserCommand::Subscribe { tags, denied } => write!(f, "Subscribe({} + {} denied)", tags.len(), denied.len()),
            UserCommand::Unsubscribe { tags } => write!(f, "Unsubscribe({})", tags.len()),
            UserCommand::Crc { tags, denied } => write!(f, "Crc({} + {} denied)", tags.len(), denied.len()),
            UserCommand::Request { payload, .. } => write!(f, "Request({} bytes)", payload.len()),
            UserCommand::Refresh { .. } => f.write_str("Refresh"),
        }
    }
}
