//! One call each: what it takes, and what it says.
//!
//! Invariants: a call names every status that the code answers it with, and no other; a parameter that may also stand
//! in the body has no example, because pages would send both, and each is given once.

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::Type,
        security::SecurityRequirement,
    },
};

use super::{
    answers::{ANY, NAMED, SIGNED, named, success},
    types::{
        Accepted, Kick, KickForm, LiveState, NodeState, OnlineQuery, Push, PushForm, ReadyState, Signing, TagState,
    },
    words::Tag,
};
use crate::{
    http::api::{answer::OnlinePage, route::Route},
    metrics::requests::Url,
};

/// The groups of calls with what they are for.
pub(super) const GROUPS: [(&str, &str); 3] = [
    ("push", "To users' connections"),
    ("users", "Who is online, and who no longer is"),
    ("node", "What a node says of itself and of its tags"),
];

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const LINES: &str = "application/x-ndjson";

/// The operation of a route at one of its paths.
pub(super) fn of(path: &str, route: Route) -> Operation {
    let operation = match route {
        Route::Push => signed(push()),
        Route::PushBatch => signed(push_batch()),
        Route::Kick => signed(kick()),
        Route::Online => signed(online()),
        Route::Tag => with_refusals(signed(tag()), &NAMED),
        Route::Health(Url::Live) => live(),
        Route::Health(Url::Ready) => ready(),
        Route::Health(_) => health(),
    };
    let mut operation = with_refusals(operation, &ANY).operation_id(Some(operation_id(path))).build();
    if let (Some(summary), Some(rest)) = (&mut operation.summary, path.strip_prefix("/v1/push")) {
        *summary = format!("{summary} (alias of /ws/push{rest})");
    }
    operation
}

/// `post /v1/push` is `v1_push`: a path has one method.
fn operation_id(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "_").replace(['{', '}'], "")
}

fn with_refusals(operation: OperationBuilder, refusals: &[(&str, &str, &str)]) -> OperationBuilder {
    refusals.iter().fold(operation, |operation, (name, status, _)| {
        operation.response(*status, RefOr::<Response>::Ref(Ref::from_response_name(*name)))
    })
}

fn signed(operation: OperationBuilder) -> OperationBuilder {
    let operation = parameters::<Signing>(operation);
    let schemes = ["sign", "token"].map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new()));
    with_refusals(operation.securities(Some(schemes)), &SIGNED)
}

fn operation(group: &str, summary: &str, text: &str) -> OperationBuilder {
    OperationBuilder::new().tag(group).summary(Some(summary)).description(Some(text))
}

fn push() -> OperationBuilder {
    let operation = operation(
        "push",
        "Push to an audience",
        "Everything may stand in the query or in the body, which is a form or JSON; each is given once.",
    );
    let body = body::<Push, PushForm>(json!({"tags": ["demo"], "data": {"hello": 1}}));
    let accepted = success::<Accepted>("The queue has accepted the push.", Some(json!({"id": "5f3a9c21-7"})));
    parameters::<PushForm>(operation).request_body(Some(body)).response("200", accepted)
}

fn push_batch() -> OperationBuilder {
    let operation = operation(
        "push",
        "Push many times",
        "A JSON push in every line (`Push` below), and one line of the answer for each line that is not blank, in order. \
         The request is signed as a whole. A line that is refused does not hurt the others.",
    );
    let lines = "{\"tags\":[\"demo\"],\"data\":{\"hello\":1}}\n{\"uids\":[\"demo\"],\"data\":\"hello\"}\n";
    let answers = "{\"code\":1,\"msg\":\"success\",\"payload\":{\"id\":\"5f3a9c21-8\"}}\n\
                   {\"code\":0,\"err\":\"no_payload\",\"msg\":\"the payload is missing\"}\n";
    let content = ContentBuilder::new().schema(Some(text())).example(Some(json!(lines))).build();
    let body = RequestBodyBuilder::new().content(LINES, content).required(Some(Required::True));
    let content = ContentBuilder::new().schema(Some(text())).example(Some(json!(answers))).build();
    let answer = ResponseBuilder::new().description("What became of each line.").content(LINES, content);
    operation.request_body(Some(body.build())).response("200", answer)
}

fn kick() -> OperationBuilder {
    let operation = operation(
        "users",
        "Close connections",
        "Closes the audience's connections with 4410, on every node. A client is told so that it does not come back by itself.",
    );
    let body = body::<Kick, KickForm>(json!({"uids": ["nobody"]}));
    let accepted = success::<Accepted>("The queue has accepted the order.", Some(json!({"id": "5f3a9c21-9"})));
    parameters::<KickForm>(operation).request_body(Some(body)).response("200", accepted)
}

fn online() -> OperationBuilder {
    let text =
        "The users of the whole cluster, sorted, with their connections. `next` goes into `cursor` for the next page.";
    let example = json!({
        "users": [{"uid": "demo", "connections": [
            {"cid": "200-5f3a9c21-0-1a-3", "node": 200, "device": "web", "since": 1_700_000_000_000_u64}
        ]}],
        "next": null
    });
    let page = success::<OnlinePage<'_>>("A page of users.", Some(example));
    parameters::<OnlineQuery>(operation("users", "Who is online", text)).response("200", page)
}

fn tag() -> OperationBuilder {
    let text = "The tag's last publication, and those before it that its rule has remembered.";
    let name = ParameterBuilder::new()
        .name("tag")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The tag; a `/` in it may be encoded or not"))
        .schema(Some(named::<Tag>()))
        .example(Some(json!("demo")));
    let state = success::<TagState>("What the tag remembers.", None);
    operation("node", "A tag's publications", text).parameter(name).response("200", state)
}

fn live() -> OperationBuilder {
    let live = success::<LiveState>("It runs.", Some(json!({"live": true})));
    operation("node", "Whether the process runs", "For a liveness probe.").response("200", live)
}

fn ready() -> OperationBuilder {
    let ready = success::<ReadyState>("It takes traffic.", Some(json!({"ready": true})));
    operation("node", "Whether the node takes traffic", "For a readiness probe; 503 says why not.")
        .response("200", ready)
}

fn health() -> OperationBuilder {
    let state = success::<NodeState>("What the node says of itself.", None);
    operation("node", "The node's state", "Always 200 while the process answers.").response("200", state)
}

fn body<Json: ToSchema, Form: ToSchema>(example: Value) -> RequestBody {
    let json = ContentBuilder::new().schema(Some(named::<Json>())).example(Some(example)).build();
    let form = ContentBuilder::new().schema(Some(named::<Form>())).build();
    RequestBodyBuilder::new().content(JSON, json).content(FORM, form).required(Some(Required::False)).build()
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// Adds the members of a type as parameters of the query.
fn parameters<T: ToSchema>(operation: OperationBuilder) -> OperationBuilder {
    let RefOr::T(Schema::Object(members)) = T::schema() else { return operation };
    members
        .properties
        .into_iter()
        .fold(operation, |operation, (name, schema)| operation.parameter(parameter(name, schema)))
}

fn parameter(name: String, mut schema: RefOr<Schema>) -> Parameter {
    let description = match &mut schema {
        RefOr::Ref(reference) => std::mem::take(&mut reference.description),
        RefOr::T(Schema::Object(object)) => {
            object.example = None;
            object.description.take().unwrap_or_default()
        }
        RefOr::T(_) => String::new(),
    };
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    parameter.description(Some(description)).schema(Some(schema)).build()
}
