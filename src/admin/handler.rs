//! The operators' routes and who may use them.
//!
//! Invariants: state is changed by POST only, and by no page that a browser shows; the token is compared in constant time and is in
//! no answer; health is open, because probes cannot hold a secret.

use std::{rc::Rc, sync::Arc};

use data_encoding::BASE64;
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE},
};

use super::{
    drain::Drain,
    latency, log_level,
    pages::{self, Pages},
    pprof::{self, Pprof},
    reload::{self, Reload},
    scrape::Scrape,
};
use crate::{
    health::Health,
    http::{self as server, Fault, Head, Preview, Request, Response},
    metrics::{Registry, requests::Url},
    model::project::Secret,
};

/// What a listener may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `/metrics`
    Metrics,
    /// Profiles and orders to the node.
    Pprof,
    /// The API's pages.
    Swagger,
}

/// Answers on one listener.
pub(super) struct Handler {
    groups: Vec<Group>,
    token: Option<Arc<Secret>>,
    registry: Registry,
    scrape: Scrape,
    health: Arc<Health>,
    pages: Arc<Pages>,
    reload: Reload,
    pprof: Rc<Pprof>,
    drain: Drain,
}

const UNAUTHORIZED: Fault =
    Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", "send the operators' token as Authorization: Bearer");
const NOT_FOUND: Fault = Fault::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
const NOT_ALLOWED: Fault =
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path is not used with that method");
// Any page that an operator looks at may send a POST to a loopback address.
const FROM_A_PAGE: Fault =
    Fault::new(StatusCode::FORBIDDEN, "forbidden", "orders to a node do not come from a browser");

impl Handler {
    pub(super) fn new(
        groups: Vec<Group>,
        token: Option<Arc<Secret>>,
        registry: Registry,
        health: Arc<Health>,
        pages: Arc<Pages>,
        pprof: Rc<Pprof>,
        (reload, drain): (Reload, Drain),
    ) -> Self {
        let scrape = Scrape::new(registry.clone(), health.clone());
        Self { groups, token, scrape, registry, health, pages, reload, pprof, drain }
    }

    /// The route of a path that this listener serves.
    fn route(&self, path: &str) -> Option<Url> {
        match path {
            "/live" => Some(Url::Live),
            "/ready" => Some(Url::Ready),
            "/health" => Some(Url::Health),
            "/" => Some(Url::Index),
            path => operators_route(&self.groups, path),
        }
    }

    fn may(&self, url: Url, head: &Head) -> bool {
        let Some(token) = &self.token else { return true };
        let given = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Some(given) = after_scheme(given, b"Bearer ") {
            return equal_in_constant_time(given, token.expose());
        }
        let password = after_scheme(given, b"Basic ").filter(|_| is_for_browsers(url)).and_then(password_of);
        password.is_some_and(|given| equal_in_constant_time(&given, token.expose()))
    }

    fn index(&self) -> Response {
        let links = [
            "/live",
            "/ready",
            "/health",
            "/metrics",
            "/debug/latency",
            "/debug/pprof/",
            "/admin/log-level",
            "/admin/drain",
            pages::INDEX,
            pages::DOCUMENT,
        ];
        let links = links.into_iter().filter(|path| self.route(path).is_some());
        let links: String = links.map(|path| format!("<li><a href=\"{path}\">{path}</a></li>")).collect();
        let page = format!("<!doctype html><title>ws-cluster</title><h1>ws-cluster</h1><ul>{links}</ul>");
        Response::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }
}

impl server::Handler for Handler {
    fn preview(&self, head: &Head) -> Preview {
        let Some(url) = self.route(head.path()) else { return Preview::answer(Url::Other, NOT_FOUND) };
        let is_order = takes_orders(url) && head.method == Method::POST;
        // Addresses to be named may be more than fit into a target; nothing is changed by that.
        let may_post = takes_orders(url) || url == Url::PprofSymbol;
        let may_get = url != Url::Reload && matches!(head.method, Method::GET | Method::HEAD);
        if !(may_get || may_post && head.method == Method::POST) {
            let allowed = match (url, may_post) {
                (Url::Reload, _) => "POST",
                (_, true) => "GET, HEAD, POST",
                (_, false) => "GET, HEAD",
            };
            return Preview::answer(url, Response::from(NOT_ALLOWED).with(ALLOW, HeaderValue::from_static(allowed)));
        }
        if matches!(url, Url::Live | Url::Ready | Url::Health) {
            return Preview::accept_always(url);
        }
        if !self.may(url, head) {
            let challenge =
                HeaderValue::from_static(if is_for_browsers(url) { "Basic realm=\"operators\"" } else { "Bearer" });
            return Preview::answer(url, Response::from(UNAUTHORIZED).with(WWW_AUTHENTICATE, challenge));
        }
        if is_order && head.headers.contains_key(ORIGIN) {
            return Preview::answer(url, FROM_A_PAGE);
        }
        if pprof::takes_long(url) { Preview::accept_while_connected(url) } else { Preview::accept(url) }
    }

    async fn handle(&self, request: Request) -> Response {
        match self.route(request.head.path()) {
            Some(Url::Metrics) => self.scrape.response(),
            Some(Url::Latency) => latency::page(&self.registry),
            Some(Url::Index) => self.index(),
            Some(Url::LogLevel) => log_level::answer(&request, request.head.method == Method::POST),
            Some(Url::Reload) => reload::answer(&self.reload).await,
            Some(Url::Drain) => self.drain.answer(request.head.method == Method::POST),
            Some(Url::OpenApi | Url::Swagger) => self.pages.response(&request.head),
            Some(url) if pprof::serves(url) => self.pprof.answer(url, request).await,
            _ => server::health_response(&self.health, request.head.path()).unwrap_or_else(|| NOT_FOUND.into()),
        }
    }
}

/// Whether a path is for operators, where `groups` are served: on a listener that they share with others, those are not to answer it.
pub fn serves(groups: &[Group], path: &str) -> bool {
    operators_route(groups, path).is_some()
}

fn operators_route(groups: &[Group], path: &str) -> Option<Url> {
    match path {
        "/debug/latency" if groups.contains(&Group::Pprof) => Some(Url::Latency),
        "/metrics" if groups.contains(&Group::Metrics) => Some(Url::Metrics),
        pages::DOCUMENT if groups.contains(&Group::Swagger) => Some(Url::OpenApi),
        path if pages::is_page(path) && groups.contains(&Group::Swagger) => Some(Url::Swagger),
        "/admin/log-level" if groups.contains(&Group::Pprof) => Some(Url::LogLevel),
        "/admin/reload" if groups.contains(&Group::Pprof) => Some(Url::Reload),
        "/admin/drain" if groups.contains(&Group::Pprof) => Some(Url::Drain),
        _ if groups.contains(&Group::Pprof) => pprof::route(path),
        _ => None,
    }
}

/// Whether a route only shows pages: a browser asks for their token itself, as the password of any user name. What is
/// sent along by a browser unasked must open nothing that changes the node.
fn is_for_browsers(url: Url) -> bool {
    matches!(url, Url::OpenApi | Url::Swagger)
}

/// What follows a scheme's name (RFC 9110 §11.1: in any case).
fn after_scheme<'a>(given: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = given.split_at_checked(scheme.len())?;
    found.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The password of `Basic` credentials (RFC 7617).
fn password_of(given: &[u8]) -> Option<Vec<u8>> {
    let pair = BASE64.decode(given).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether a POST to this route changes something.
fn takes_orders(url: Url) -> bool {
    matches!(url, Url::LogLevel | Url::Reload | Url::Drain)
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    one.len() == other.len() && difference == 0
}
