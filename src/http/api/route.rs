//! Which paths there are, with which methods and which kinds of body.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_ENCODING},
};

use crate::{
    http::message::{Fault, Head, Response},
    metrics::requests::Url,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Push to an audience.
    Push,
    /// Many pushes, a line each.
    PushBatch,
    /// Who is online.
    Online,
    /// Close connections.
    Kick,
    /// A tag's publications.
    Tag,
    /// Live, ready or health.
    Health(Url),
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// There is none, or it means nothing.
    Empty,
    /// `application/x-www-form-urlencoded`
    Form,
    /// `application/json`
    Json,
    /// A JSON text a line.
    Lines,
}

pub(super) const NOT_FOUND: Fault = Fault::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");

/// The prefix of a tag's path; what follows is the tag, percent-encoded or not.
pub(super) const TAG_PREFIX: &str = "/v1/tags/";

impl Route {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/ws/push" | "/v1/push" => Some(Route::Push),
            "/ws/push/batch" | "/v1/push/batch" => Some(Route::PushBatch),
            "/v1/online" => Some(Route::Online),
            "/v1/kick" => Some(Route::Kick),
            "/live" => Some(Route::Health(Url::Live)),
            "/ready" => Some(Route::Health(Url::Ready)),
            "/health" => Some(Route::Health(Url::Health)),
            _ => path.strip_prefix(TAG_PREFIX).filter(|tag| !tag.is_empty()).map(|_| Route::Tag),
        }
    }

    pub(super) fn url(self) -> Url {
        match self {
            Route::Push => Url::Push,
            Route::PushBatch => Url::PushBatch,
            Route::Online => Url::Online,
            Route::Kick => Url::Kick,
            Route::Tag => Url::Tag,
            Route::Health(url) => url,
        }
    }

    /// State is changed by POST only, and read by GET.
    pub(super) fn check_method(self, method: &Method) -> Result<(), Response> {
        let methods = self.methods();
        if methods.split(", ").any(|allowed| method == allowed) {
            return Ok(());
        }
        Err(Response::from(NOT_ALLOWED).with(ALLOW, HeaderValue::from_static(methods)))
    }

    /// The methods that it takes, with commas.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Route::Push | Route::PushBatch | Route::Kick => "POST",
            Route::Online | Route::Tag | Route::Health(_) => "GET, HEAD",
        }
    }

    /// How the body is written, going by what the head says of it.
    pub(super) fn body_kind(self, head: &Head) -> Result<BodyKind, Fault> {
        if head.has_no_body() {
            return Ok(BodyKind::Empty);
        }
        if is_encoded(&head.headers) {
            return Err(ENCODED);
        }
        let media_type = head.media_type();
        match (self, media_type.as_deref()) {
            (Route::PushBatch, Some("application/x-ndjson" | "application/jsonl" | "application/json-lines")) => {
                Ok(BodyKind::Lines)
            }
            (Route::PushBatch, _) => Err(NOT_LINES),
            (Route::Push | Route::Kick, Some("application/json")) => Ok(BodyKind::Json),
            (Route::Push | Route::Kick, Some("application/x-www-form-urlencoded")) => Ok(BodyKind::Form),
            (Route::Push | Route::Kick, _) => Err(NEITHER_FORM_NOR_JSON),
            (Route::Online | Route::Tag | Route::Health(_), _) => Ok(BodyKind::Empty),
        }
    }
}

const NOT_ALLOWED: Fault = Fault::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method_not_allowed",
    "this path does not take this method; Allow says which it takes",
);
const ENCODED: Fault =
    Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send the body without content-encoding");
const NOT_LINES: Fault =
    Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send application/x-ndjson");
const NEITHER_FORM_NOR_JSON: Fault = Fault::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported_media_type",
    "send application/json, application/x-www-form-urlencoded, or everything in the query without a body",
);

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{Uri, header::CONTENT_TYPE};

    use super::*;

    fn head(headers: &[(http::HeaderName, &'static str)]) -> Head {
        let length = (http::header::CONTENT_LENGTH, "3");
        let headers = headers.iter().chain([&length]);
        let headers = headers.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Head { method: Method::POST, uri: Uri::default(), headers, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    #[test]
    fn paths_and_their_aliases_lead_to_routes() {
        assert_eq!(Route::of("/v1/push"), Route::of("/ws/push"));
        assert_eq!(Route::of("/v1/tags/a/b"), Some(Route::Tag));
        for path in ["/", "/ws/push/", "/v1/tags/", "/v1/tags", "/WS/PUSH", "*"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn the_media_type_decides_how_a_body_is_read() {
        let kind = |route: Route, media_type| route.body_kind(&head(&[(CONTENT_TYPE, media_type)])).ok();
        assert_eq!(kind(Route::Push, "Application/JSON; charset=utf-8"), Some(BodyKind::Json));
        assert_eq!(kind(Route::Kick, "application/x-www-form-urlencoded"), Some(BodyKind::Form));
        assert_eq!(kind(Route::Push, "multipart/form-data; boundary=x"), None);
        assert_eq!(kind(Route::Push, "text/plain"), None);
        assert_eq!(kind(Route::PushBatch, "application/x-ndjson"), Some(BodyKind::Lines));
        assert_eq!(kind(Route::PushBatch, "application/json"), None);
        assert!(Route::Push.body_kind(&head(&[])).is_err(), "a body without a type");
        let mut empty = head(&[(CONTENT_TYPE, "text/plain")]);
        empty.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        assert_eq!(Route::Push.body_kind(&empty).ok(), Some(BodyKind::Empty));
        let packed = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")];
        assert!(Route::Push.body_kind(&head(&packed)).is_err());
    }
}
