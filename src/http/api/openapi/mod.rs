//! The API as an OpenAPI 3.1 document, built from the routes, their bounds and the types of what they take and say.
//!
//! The way of a description: [`words`] are the values that a peer writes, [`types`] the bodies and payloads made of
//! them, [`answers`] what every call may be told, [`operations`] one call each.
//!
//! Invariants: every [`Route`] has an operation (the match is exhaustive); the document is the same on every node and
//! in every run, so that the checked-in copy can be compared; types that only mirror text written by hand are held to
//! that text by the tests. Leaves out how the pages show it.

mod answers;
mod operations;
mod types;
mod words;

use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{
        Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder,
        RefOr, Schema, ServerBuilder,
        path::HttpMethod,
        security::{ApiKey, ApiKeyValue, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::{answer, route::Route};
use crate::metrics::requests::Url;

/// Every path with its route; the second of a pair is an alias.
const PATHS: [(&str, Route); 10] = [
    ("/ws/push", Route::Push),
    ("/v1/push", Route::Push),
    ("/ws/push/batch", Route::PushBatch),
    ("/v1/push/batch", Route::PushBatch),
    ("/v1/kick", Route::Kick),
    ("/v1/online", Route::Online),
    ("/v1/tags/{tag}", Route::Tag),
    ("/live", Route::Health(Url::Live)),
    ("/ready", Route::Health(Url::Ready)),
    ("/health", Route::Health(Url::Health)),
];

/// The document as JSON text, indented, with a line feed at its end.
pub fn json() -> String {
    // Plain structs of texts and numbers always have a JSON form.
    pretty(&document()).unwrap_or_default() + "\n"
}

fn pretty(value: &impl Serialize) -> Option<String> {
    serde_json::to_string_pretty(value).ok()
}

fn document() -> OpenApi {
    let licence = LicenseBuilder::new().name("MIT OR Apache-2.0").build();
    let info = InfoBuilder::new()
        .title("ws-cluster")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(include_str!("description.md").trim_end()))
        .license(Some(licence));
    let node = ServerBuilder::new().url("http://127.0.0.1:8912").description(Some("A node on this machine"));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([node.build()]))
        .tags(Some(operations::GROUPS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build())))
        .paths(
            PATHS.iter().fold(PathsBuilder::new(), |paths, (path, route)| paths.path(*path, path_item(path, *route))),
        )
        .components(Some(components()))
        .build()
}

fn path_item(path: &str, route: Route) -> PathItem {
    let method = match route {
        Route::Push | Route::PushBatch | Route::Kick => HttpMethod::Post,
        Route::Online | Route::Tag | Route::Health(_) => HttpMethod::Get,
    };
    PathItem::new(method, operations::of(path, route))
}

fn components() -> Components {
    let mut schemas = Vec::new();
    add::<types::Push>(&mut schemas);
    add::<types::PushForm>(&mut schemas);
    add::<types::Kick>(&mut schemas);
    add::<types::KickForm>(&mut schemas);
    add::<types::Signing>(&mut schemas);
    add::<types::OnlineQuery>(&mut schemas);
    add::<types::Accepted>(&mut schemas);
    add::<types::TagState>(&mut schemas);
    add::<answer::OnlinePage<'_>>(&mut schemas);
    add::<types::LiveState>(&mut schemas);
    add::<types::ReadyState>(&mut schemas);
    add::<types::NodeState>(&mut schemas);
    add::<types::Error>(&mut schemas);
    // What is only ever shown as single parameters has no name of its own.
    schemas.retain(|(name, _)| !["Signing", "OnlineQuery"].contains(&name.as_str()));
    let components = ComponentsBuilder::new().schemas_from_iter(schemas);
    let components = answers::all().fold(components, |components, (name, answer)| components.response(name, answer));
    components
        .security_scheme("sign", in_query("sign", "HMAC-SHA256 over the call, as the description above says."))
        .security_scheme("token", in_query("token", "A back-end's JWT (`type` 2), where the project takes them."))
        .build()
}

fn in_query(name: &str, text: &str) -> SecurityScheme {
    SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description(name, text)))
}

/// Adds a type and those that it is made of.
fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

#[cfg(test)]
mod tests;
