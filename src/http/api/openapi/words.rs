//! The values that a peer writes: names, tags, lists of them, flags, payloads.
//!
//! Invariant: a pattern takes what the code takes, but for lengths, which the code counts in bytes and JSON Schema in
//! characters.

use std::borrow::Cow;

use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema,
        schema::{AnyOfBuilder, SchemaType, Type},
    },
};

use crate::{
    limits::{AFFAIR_ID_BYTES_MAX, HttpLimits},
    model::ids::NAME_BYTES_MAX,
};

/// A user, connection or kind of device.
pub(super) struct Name;
/// A tag.
pub(super) struct Tag;
/// Names in JSON.
pub(super) struct Names;
/// Tags in JSON.
pub(super) struct Tags;
/// Names in a query or form.
pub(super) struct NameList;
/// Tags in a query or form.
pub(super) struct TagList;
/// A flag in a query or form.
pub(super) struct Flag;
/// An `affair_id` or `idempotency_key`.
pub(super) struct Short;
/// Users on a page of `/v1/online`.
pub(super) struct PageSize;
/// Any JSON value.
pub(super) struct Payload;

/// One name; control characters are those of Unicode's category Cc.
const NAME: &str = r"[^,\x00-\x1f\x7f-\x9f]";
/// One character of a tag.
const TAG: &str = "[A-Za-z0-9_.:@/-]";

macro_rules! words {
    ($($name:ident [$($part:ident)?]: $schema:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T($schema.into())
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            #[allow(unused_variables, reason = "most words are made of no other")]
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $(schemas.push(($part::name().into_owned(), $part::schema()));)?
            }
        }
    )*};
}

words! {
    Name []: string(one(NAME), "1 to 128 bytes without commas or control characters").examples([json!("alice")]);
    Tag []: string(one(TAG), "1 to 128 bytes of `A-Z a-z 0-9 _ . : @ / -`").examples([json!("demo")]);
    Names [Name]: array_or_list("Name", NAME);
    Tags [Tag]: array_or_list("Tag", TAG);
    NameList []: string(comma_list(NAME), "Names with commas between them; empty is as good as left out").default(Some(json!("")));
    TagList []: string(comma_list(TAG), "Tags with commas between them; empty is as good as left out").default(Some(json!("")));
    Flag []: text("Empty is `false`").enum_values(Some(["", "true", "false", "1", "0"])).default(Some(json!("")));
    Short []: text("At most 256 bytes; empty is as good as left out").max_length(Some(AFFAIR_ID_BYTES_MAX)).default(Some(json!("")));
    PageSize []: ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(online_page_max()))
        .default(Some(json!(online_page_max())));
    Payload []: ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some("Any JSON value, delivered byte for byte as it was written"));
}

/// A list with the value that a page fills into its form.
pub(super) fn shown<T: ToSchema>(example: &str, description: &str) -> RefOr<Schema> {
    let mut schema = T::schema();
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        object.example = Some(json!(example));
        object.default = None;
        object.description = Some(description.to_owned());
    }
    schema
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn string(pattern: String, description: &str) -> ObjectBuilder {
    text(description).pattern(Some(pattern))
}

fn one(character: &str) -> String {
    format!("^{character}{{1,{NAME_BYTES_MAX}}}$")
}

fn comma_list(character: &str) -> String {
    let item = format!("{character}{{1,{NAME_BYTES_MAX}}}");
    format!("^({item}(,{item})*)?$")
}

/// An array, a comma list in a string, or nothing.
fn array_or_list(item: &str, character: &str) -> AnyOfBuilder {
    let array = ArrayBuilder::new().items(RefOr::Ref(Ref::from_schema_name(item)));
    let list = string(comma_list(character), "With commas between them");
    let none = ObjectBuilder::new().schema_type(Type::Null);
    let any = AnyOfBuilder::new().item(array).item(list).item(none);
    any.description(Some("An array, or a string with commas; empty or null is as good as left out"))
}

/// As a node has it that was told nothing else.
fn online_page_max() -> u32 {
    u32::try_from(HttpLimits::default().online_page_max).unwrap_or(u32::MAX)
}
