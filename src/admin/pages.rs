//! The API's pages: Swagger UI over the API's own description, with a script that signs each call in the browser.
//!
//! Invariants: everything comes from the binary, nothing from another host; the policy lets a page run its own scripts
//! and talk to this node alone; a secret is in an answer only if it is the demo project's, which everyone knows.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS},
};
use utoipa_swagger_ui::Config;

use crate::{
    http::{Fault, Head, Response, api::openapi, message::json_string},
    model::{Pid, project::Secret},
};

/// What the pages are told.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Where the API listens, if it does.
    pub api: Option<SocketAddr>,
    /// How long a call that is signed on the page is good.
    pub exp: Duration,
    /// The demo project with its secret, where it may be shown.
    pub demo: Option<(Pid, Secret)>,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PNG: &str = "image/png";

/// Our own files.
const OWN: [(&str, &str, &str); 4] = [
    ("index.html", HTML, include_str!("pages/index.html")),
    ("pages.css", STYLE, include_str!("pages/pages.css")),
    ("signing.js", SCRIPT, include_str!("pages/signing.js")),
    ("swagger-initializer.js", SCRIPT, include_str!("pages/swagger-initializer.js")),
];

/// Of Swagger UI's files, those that ours ask for.
const VENDORED: [(&str, &str); 3] =
    [("swagger-ui.css", STYLE), ("swagger-ui-bundle.js", SCRIPT), ("favicon-32x32.png", PNG)];

/// The page, under the prefix of all its files.
pub(super) const INDEX: &str = "/swagger/index.html";
/// The document.
pub(super) const DOCUMENT: &str = "/openapi.json";
const PREFIX: &str = "/swagger/";

const NOT_FOUND: Fault = Fault::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");

/// Whether a path is one of the pages'.
pub(super) fn is_page(path: &str) -> bool {
    path == "/swagger" || path.starts_with(PREFIX)
}

impl Pages {
    /// The answer to a path of the pages, or to that of the document.
    pub(super) fn response(&self, head: &Head) -> Response {
        let response = match head.path() {
            DOCUMENT => Response::json(StatusCode::OK, openapi::json()),
            "/swagger" | PREFIX => redirect(),
            path => self.file(head, path.strip_prefix(PREFIX).unwrap_or_default()),
        };
        self.guarded(head, response)
    }

    fn file(&self, head: &Head, name: &str) -> Response {
        if name == "config.json" {
            return Response::json(StatusCode::OK, self.config(head));
        }
        if let Some((_, kind, text)) = OWN.iter().find(|(own, ..)| *own == name) {
            return Response::new(StatusCode::OK, kind, *text);
        }
        let known = VENDORED.iter().find(|(vendored, _)| *vendored == name);
        let file = known.and_then(|(name, kind)| Some((vendored(name)?, kind)));
        file.map_or_else(|| NOT_FOUND.into(), |(bytes, kind)| Response::new(StatusCode::OK, kind, bytes))
    }

    /// What the page's script works with.
    fn config(&self, head: &Head) -> String {
        let api = self.api_base(head).map_or_else(|| "null".to_owned(), |base| json_string(&base));
        let demo = self.demo.as_ref().map_or_else(
            || "null".to_owned(),
            |(pid, secret)| {
                let secret = String::from_utf8_lossy(secret.expose());
                format!(r#"{{"pid":{},"secret":{}}}"#, json_string(pid), json_string(&secret))
            },
        );
        format!(r#"{{"api":{api},"exp_s":{},"demo":{demo}}}"#, self.exp.as_secs())
    }

    /// Where a browser that reached this page reaches the API: a listener on every address under the page's own host.
    fn api_base(&self, head: &Head) -> Option<String> {
        let api = self.api?;
        if !api.ip().is_unspecified() {
            return Some(format!("http://{api}"));
        }
        Some(format!("http://{}:{}", head.host().unwrap_or("127.0.0.1"), api.port()))
    }

    fn guarded(&self, head: &Head, response: Response) -> Response {
        let api = self.api_base(head).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {api}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // A host that is no part of a policy is no part of the base either.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        let fixed: [(HeaderName, &str); 3] =
            [(X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer"), (X_FRAME_OPTIONS, "DENY")];
        let response = response.with(CONTENT_SECURITY_POLICY, policy);
        fixed.into_iter().fold(response, |response, (name, value)| response.with(name, HeaderValue::from_static(value)))
    }
}

fn redirect() -> Response {
    Response::new(StatusCode::FOUND, HTML, "").with(LOCATION, HeaderValue::from_static(INDEX))
}

fn vendored(name: &str) -> Option<Bytes> {
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok()??;
    Some(match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    })
}
