//! The members of a peer's JSON object, each read by its own rule.
//!
//! Method: serde cuts the object into raw spans, then each span is read alone. So one bad field does not hide the
//! `ack_id` that its error is answered under, and a payload is the very bytes that the peer wrote.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::{error::Category, value::RawValue};

use super::{fault::Fault, json::depth_ok};
use crate::{
    limits::{AFFAIR_ID_BYTES_MAX, FrameLimits},
    model::{Audience, Tag, ids::is_identity},
};

/// The raw span of a member; none if it is missing or `null`.
pub(super) type Field<'a> = Option<&'a RawValue>;

/// Cuts `text` into the members that `T` names; others are ignored.
pub(super) fn cut<'a, T: Deserialize<'a>>(text: &'a str, depth_max: usize) -> Result<T, Fault> {
    // serde would also take an array as the members in order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Fault::NoObject);
    }
    if !depth_ok(text.as_bytes(), depth_max) {
        return Err(Fault::TooDeep { depth_max });
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Fault::BadField { field: "a member", rule: "given once" },
        _ => Fault::NoObject,
    })
}

/// Cuts a member that is itself an object.
pub(super) fn cut_field<'a, T: Deserialize<'a>>(field: &'static str, raw: &'a RawValue) -> Result<T, Fault> {
    let bad = Fault::BadField { field, rule: "an object" };
    if !raw.get().starts_with('{') {
        return Err(bad);
    }
    serde_json::from_str(raw.get()).map_err(|_| bad)
}

/// For members whose `null` is a value and not an absence (`#[serde(deserialize_with)]`).
pub(super) fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Field<'a>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Text. Borrowed unless it holds escapes.
pub(super) fn text<'a>(field: &'static str, raw: Field<'a>) -> Result<Option<Cow<'a, str>>, Fault> {
    raw.map(|raw| string(raw).ok_or(Fault::BadField { field, rule: "a string" })).transpose()
}

/// The text of a span that is a string.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// An `ack_id`, `affair_id` or `idempotency_key`: short text; empty is as good as missing.
pub(super) fn short<'a>(field: &'static str, raw: Field<'a>) -> Result<Option<Cow<'a, str>>, Fault> {
    let value = text(field, raw)?.filter(|text| !text.is_empty());
    check_short(field, value.as_deref())?;
    Ok(value)
}

/// See [`short`].
pub(super) fn check_short(field: &'static str, value: Option<&str>) -> Result<(), Fault> {
    match value {
        Some(text) if text.len() > AFFAIR_ID_BYTES_MAX => {
            Err(Fault::BadField { field, rule: "a string of at most 256 bytes" })
        }
        _ => Ok(()),
    }
}

const _: () = assert!(AFFAIR_ID_BYTES_MAX == 256, "the rule says so");

/// `true` or `false`; missing is `false`.
pub(super) fn flag(field: &'static str, raw: Field<'_>) -> Result<bool, Fault> {
    match raw.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::BadField { field, rule: "true or false" }),
    }
}

/// A whole number, not negative.
pub(super) fn number(field: &'static str, raw: Field<'_>) -> Result<Option<u64>, Fault> {
    let read = |raw: &RawValue| raw.get().parse().map_err(|_| Fault::BadField { field, rule: "a whole number" });
    raw.map(read).transpose()
}

/// The items of an array, or of a comma list in a string. No items: not given.
pub(super) enum Items<'a> {
    Array(Vec<&'a RawValue>),
    List(Cow<'a, str>),
}

impl Default for Items<'_> {
    fn default() -> Self {
        Items::Array(Vec::new())
    }
}

impl Items<'_> {
    /// How many there are; a list is counted by its commas.
    pub(super) fn count(&self) -> usize {
        match self {
            Items::Array(items) => items.len(),
            Items::List(list) if list.is_empty() => 0,
            Items::List(list) => 1 + memchr::memchr_iter(b',', list.as_bytes()).count(),
        }
    }
}

const LIST_RULE: &str = "an array or a comma list";

/// Reads an array or a comma list.
pub(super) fn items<'a>(field: &'static str, raw: Field<'a>) -> Result<Items<'a>, Fault> {
    let Some(raw) = raw else { return Ok(Items::default()) };
    match string(raw) {
        Some(list) => Ok(Items::List(list)),
        None => {
            serde_json::from_str(raw.get()).map(Items::Array).map_err(|_| Fault::BadField { field, rule: LIST_RULE })
        }
    }
}

/// Collects the items of a part, built by `build`, which knows what is valid.
fn part<T>(
    field: &'static str,
    items: &Items<'_>,
    build: impl Fn(&str) -> Option<T>,
    rule: &'static str,
) -> Result<Vec<T>, Fault> {
    let bad = Fault::BadField { field, rule };
    match items {
        Items::Array(items) => items.iter().map(|raw| string(raw).and_then(|text| build(&text)).ok_or(bad)).collect(),
        // An empty list is "not given", but an empty item must not widen an audience by vanishing.
        Items::List(list) if list.is_empty() => Ok(Vec::new()),
        Items::List(list) => list.split(',').map(|text| build(text).ok_or(bad)).collect(),
    }
}

const IDENTITY_RULE: &str =
    "an array of strings (or a comma list), each of 1-128 bytes without commas or control characters";
const TAGS_RULE: &str = "an array of strings (or a comma list), each of 1-128 bytes of A-Z a-z 0-9 _ . : @ / -";

/// The parts of an audience, from JSON members or from parameters.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) uids: Items<'a>,
    pub(super) cids: Items<'a>,
    pub(super) tags: Items<'a>,
    pub(super) devices: Items<'a>,
}

impl Parts<'_> {
    pub(super) fn read(&self, limits: &FrameLimits) -> Result<Audience, Fault> {
        let members = self.uids.count() + self.cids.count() + self.tags.count() + self.devices.count();
        if members > limits.audience_max {
            return Err(Fault::TooManyMembers { members_max: limits.audience_max });
        }
        let identities = |field, items| part(field, items, identity, IDENTITY_RULE);
        Ok(Audience {
            uids: identities("uids", &self.uids)?,
            cids: identities("cids", &self.cids)?,
            tags: tags("tags", &self.tags)?,
            devices: identities("devices", &self.devices)?,
        })
    }
}

fn identity(text: &str) -> Option<Box<str>> {
    is_identity(text).then(|| text.into())
}

/// Tags, all of them well-formed.
pub(super) fn tags(field: &'static str, items: &Items<'_>) -> Result<Vec<Tag>, Fault> {
    part(field, items, Tag::new, TAGS_RULE)
}

/// The members of a JSON object that is an audience.
#[derive(Deserialize)]
pub(super) struct AudienceMembers<'a> {
    #[serde(borrow)]
    uids: Field<'a>,
    #[serde(borrow)]
    cids: Field<'a>,
    #[serde(borrow)]
    tags: Field<'a>,
    #[serde(borrow)]
    devices: Field<'a>,
    #[serde(borrow)]
    all: Field<'a>,
}

impl AudienceMembers<'_> {
    /// The audience, and whether all are asked for.
    pub(super) fn read(&self, limits: &FrameLimits) -> Result<(Audience, bool), Fault> {
        let parts = Parts {
            uids: items("uids", self.uids)?,
            cids: items("cids", self.cids)?,
            tags: items("tags", self.tags)?,
            devices: items("devices", self.devices)?,
        };
        Ok((parts.read(limits)?, flag("all", self.all)?))
    }
}
