//! What a call may be told besides its own success: shared by all, each under its honest status.

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, schema::Type,
    },
};

use super::types::Error;

/// Name, status, and when it is given with which words.
type Refusal = (&'static str, &'static str, &'static str);

/// Given to any request, whatever its path: by the server in front of the calls.
pub(super) const ANY: [Refusal; 10] = [
    (
        "BadRequest",
        "400",
        "The request or one of its fields is malformed. `err`: `bad_request`, `bad_field`, `bad_json`, `too_deep`, `no_audience`, `no_payload`",
    ),
    ("Timeout", "408", "The request did not come within its deadline. `err`: `timeout`"),
    (
        "TooLarge",
        "413",
        "The body, the payload, the audience or the number of lines is above its bound. `err`: `too_large`, `audience_too_large`",
    ),
    ("TargetTooLong", "414", "The request target is above its bound: send a body. `err`: `target_too_long`"),
    ("UnknownExpectation", "417", "`Expect` names something other than `100-continue`. `err`: `unknown_expectation`"),
    ("HeadTooLarge", "431", "The headers are too many or too large. `err`: `head_too_large`"),
    ("Failed", "500", "A mistake of the server's own. `err`: `internal`"),
    ("UnknownCoding", "501", "A transfer coding other than `chunked`. `err`: `unknown_coding`"),
    (
        "Unavailable",
        "503",
        "Nothing was done; try again after `Retry-After` seconds. `err`: `queue_unavailable`, `stopping`, `overloaded`; of `/ready` `starting`, `queue_unavailable`, `fenced`, `draining`; of `/live` `dead`",
    ),
    ("UnknownVersion", "505", "The server speaks HTTP/1.1. `err`: `unknown_version`"),
];

/// Given to signed calls.
pub(super) const SIGNED: [Refusal; 4] = [
    (
        "BadCredentials",
        "401",
        "The credentials are missing, wrong or void; it is not said which. `err`: `bad_credentials`, `expired`, `exp_too_far_ahead`",
    ),
    (
        "Forbidden",
        "403",
        "Good credentials that may not do this: a user's token, or a body that names another project. `err`: `forbidden`",
    ),
    (
        "UnsupportedMediaType",
        "415",
        "The body is of a type or content coding that this call does not take. `err`: `unsupported_media_type`",
    ),
    (
        "TooManyFailures",
        "429",
        "Too many calls with bad credentials came from this address; try again after `Retry-After` seconds. `err`: `too_many_failures`",
    ),
];

/// Given where a path names something.
pub(super) const NAMED: [Refusal; 1] = [("NotFound", "404", "There is nothing of this name. `err`: `not_found`")];

/// Every shared answer with its name.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Response)> {
    let refusals = ANY.into_iter().chain(SIGNED).chain(NAMED);
    refusals.map(|(name, status, text)| (name, refusal(status, text)))
}

fn refusal(status: &str, text: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(named::<Error>())).build();
    let answer = ResponseBuilder::new().description(text).content("application/json", content);
    if matches!(status, "429" | "503") { answer.header("Retry-After", retry_after()).build() } else { answer.build() }
}

fn retry_after() -> utoipa::openapi::Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    HeaderBuilder::new().schema(Some(Schema::from(seconds))).description(Some("Seconds")).build()
}

/// A reference to a type among the components.
pub(super) fn named<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// 200 with `{"code":1,"msg":"success","payload":…}`.
pub(super) fn success<T: ToSchema>(text: &str, example: Option<Value>) -> Response {
    let code = ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([1]));
    let body = ObjectBuilder::new()
        .property("code", code.description(Some("1: done")))
        .required("code")
        .property("msg", ObjectBuilder::new().schema_type(Type::String))
        .required("msg")
        .property("payload", named::<T>())
        .required("payload");
    let example = example.map(|payload| json!({"code": 1, "msg": "success", "payload": payload}));
    let content = ContentBuilder::new().schema(Some(Schema::from(body))).example(example).build();
    ResponseBuilder::new().description(text).content("application/json", content).build()
}
