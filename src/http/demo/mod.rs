//! The demo page of a development node: its files, and signs for who wants to try it.
//!
//! Everything that the page does goes through the public protocol; only the signing is done for it here, as the demo
//! project, whose secret everyone knows. Invariants: what is served was built in; nothing here changes anything or
//! signs for another project; the page may load from and connect to this node alone (its content security policy).

mod files;

use std::time::Duration;

use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS},
};

use self::files::File;
use super::{
    message::{Fault, Head, Response, json_string},
    server::Preview,
};
use crate::{
    metrics::requests::Url,
    model::{Project, Role, ids::is_identity},
    protocol::{
        query::Params,
        sign::{Body, call_query, connect_query},
    },
};

/// How long a connect URL is good: the page asks for a new one each time it connects.
const CONNECT_TTL: Duration = Duration::from_secs(300);
/// How long a call is good: it is made at once.
const CALL_TTL: Duration = Duration::from_secs(60);

const NOT_ALLOWED: Fault =
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the demo is read with GET");
const BAD_UID: Fault =
    Fault::new(StatusCode::BAD_REQUEST, "bad_field", "uid must be 1-128 bytes without commas or control characters");
const BAD_PARAMS: Fault = Fault::new(
    StatusCode::BAD_REQUEST,
    "bad_field",
    "give the parameters of a call, each once; pid, exp, sign, token and body_sha256 are not for the caller to choose",
);

/// The page and what it needs to know of the node.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The demo project.
    project: Project,
    /// Where browsers reach the WebSocket listener.
    sockets: Sockets,
}

/// Where browsers reach the WebSocket listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// At the host that served the page, on this port.
    Port(u16),
    /// At this address: `ws://host:port` or `wss://host`.
    At(String),
}

/// What a path of the demo is.
enum Item {
    File(&'static File),
    /// A signed connect URL.
    Connect,
    /// A signed query.
    Call,
}

impl Item {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/demo/sign/connect" => Some(Item::Connect),
            "/demo/sign/call" => Some(Item::Call),
            _ => files::find(path).map(Item::File),
        }
    }
}

impl Demo {
    /// The page of a node that has this demo project.
    pub fn new(project: Project, sockets: Sockets) -> Self {
        Self { project, sockets }
    }

    /// What is said to a head; nothing if its path is not the demo's.
    pub fn preview(&self, head: &Head) -> Option<Preview> {
        Item::of(head.path())?;
        Some(match head.method {
            Method::GET | Method::HEAD => Preview::accept(Url::Demo),
            _ => {
                let allow = HeaderValue::from_static("GET, HEAD");
                Preview::answer(Url::Demo, Response::from(NOT_ALLOWED).with(ALLOW, allow))
            }
        })
    }

    /// The answer at `now` (since the Unix epoch); nothing if the path is not the demo's.
    pub fn answer(&self, head: &Head, now: Duration) -> Option<Response> {
        let answer = match Item::of(head.path())? {
            Item::File(file) => Ok(self.file(file, head)),
            Item::Connect => self.connect(head, now),
            Item::Call => self.call(head, now),
        };
        Some(answer.unwrap_or_else(Response::from))
    }

    fn file(&self, file: &'static File, head: &Head) -> Response {
        let fixed = |response: Response, name: HeaderName, value: &'static str| {
            response.with(name, HeaderValue::from_static(value))
        };
        let response = Response::new(StatusCode::OK, file.media_type, file.bytes);
        let response = fixed(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
        let response = fixed(response, X_FRAME_OPTIONS, "DENY");
        let response = fixed(response, REFERRER_POLICY, "no-referrer");
        // The origin holds nothing but a port number and what `host` lets through.
        match HeaderValue::try_from(policy(&self.origin(head))) {
            Ok(policy) => response.with(CONTENT_SECURITY_POLICY, policy),
            Err(_) => fixed(response, CONTENT_SECURITY_POLICY, "default-src 'none'"),
        }
    }

    /// `GET /demo/sign/connect?uid=` → `{"url"}`
    fn connect(&self, head: &Head, now: Duration) -> Result<Response, Fault> {
        let params = Params::parse(head.query()).map_err(|_| BAD_UID)?;
        let uid = params.get("uid").filter(|uid| is_identity(uid)).ok_or(BAD_UID)?;
        let exp = (now + CONNECT_TTL).as_secs();
        let query = connect_query(&self.project.secrets[0], &self.project.pid, uid, Role::User, exp);
        let url = format!("{}/ws/connect?{query}&device=browser", self.origin(head));
        Ok(Response::success(format!("{{\"url\":{}}}", json_string(&url))))
    }

    /// `GET /demo/sign/call?…` → `{"query"}`, the same parameters signed.
    fn call(&self, head: &Head, now: Duration) -> Result<Response, Fault> {
        let params = Params::parse(head.query()).map_err(|_| BAD_PARAMS)?;
        let params: Vec<(&str, &str)> = params.iter().collect();
        let is_ours = |name: &str| ["pid", "exp", "sign", "token", "body_sha256"].contains(&name);
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if params.iter().any(|(name, _)| is_ours(name) || !is_plain(name)) {
            return Err(BAD_PARAMS);
        }
        let exp = (now + CALL_TTL).as_secs();
        let query = call_query(&self.project.secrets[0], &self.project.pid, exp, &params, Body::None);
        Ok(Response::success(format!("{{\"query\":{}}}", json_string(&query))))
    }

    /// Scheme, host and port of the WebSocket listener, as the browser that sent this head reaches it.
    fn origin(&self, head: &Head) -> String {
        match &self.sockets {
            Sockets::At(origin) => origin.clone(),
            Sockets::Port(port) => format!("ws://{}:{port}", host(head).unwrap_or("127.0.0.1")),
        }
    }
}

/// What the page may load, and where it may connect to. Styles of elements are set by the chart through the DOM, which
/// no policy forbids; everything else is a file.
fn policy(sockets: &str) -> String {
    // The grammar of sources has no IPv6 addresses, so there the scheme alone has to do.
    let sockets =
        if sockets.contains('[') { sockets.split_once("//").map_or("ws:", |(scheme, _)| scheme) } else { sockets };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {sockets}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The host by which the page was asked for, without its port, if it is a plain name or address.
fn host(head: &Head) -> Option<&str> {
    let text = head.headers.get(HOST)?.to_str().ok()?;
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => text,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let literal = |inner: &str| inner.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
    let good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => literal(inner),
        None => host.bytes().all(plain),
    };
    (good && !host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests;
