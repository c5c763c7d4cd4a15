//! Requests and answers as handlers see them.

use std::{borrow::Cow, net::IpAddr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING},
};

use crate::health::Health;

/// A request before its body.
#[derive(Debug)]
pub struct Head {
    /// Its method; any token.
    pub method: Method,
    /// Its target: in origin, absolute or asterisk form.
    pub uri: Uri,
    /// Its headers, values as bytes.
    pub headers: HeaderMap,
    /// Who sent it.
    pub peer: IpAddr,
}

impl Head {
    /// The target's path.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The target's query as written; empty if there is none.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or("")
    }

    /// The host that the request was sent to, without a port; nothing unless it is a plain name or address.
    pub fn host(&self) -> Option<&str> {
        let host = self.headers.get(HOST)?.to_str().ok()?;
        let host = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        (!host.is_empty() && host.bytes().all(plain)).then_some(host)
    }

    /// Whether the head announces no body.
    pub fn has_no_body(&self) -> bool {
        let length = self.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes).unwrap_or_default();
        length.iter().all(|digit| *digit == b'0') && !self.headers.contains_key(TRANSFER_ENCODING)
    }

    /// The media type of the body in lower case without parameters; nothing if it is absent or no text.
    pub fn media_type(&self) -> Option<String> {
        let value = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = value.split(';').next().unwrap_or("").trim();
        (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
    }
}

/// A request with its whole body.
#[derive(Debug)]
pub struct Request {
    /// What came before the body.
    pub head: Head,
    /// The body, transfer coding taken off.
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status; 200 or above.
    pub status: StatusCode,
    /// Its headers, framing aside: the server adds length, date and connection.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// An answer with a body of the given media type.
    pub fn new(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Self { status, headers, body: body.into() }
    }

    /// An answer with a JSON body that is written already.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", body)
    }

    /// 200 with `{"code":1,"msg":"success","payload":…}`; `payload` is JSON text.
    pub fn success(payload: impl AsRef<[u8]>) -> Self {
        let body = [br#"{"code":1,"msg":"success","payload":"#, payload.as_ref(), b"}"].concat();
        Self::json(StatusCode::OK, body)
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Tells when to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }
}

/// Why a request is refused: an honest status, the API's stable word and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status.
    pub status: StatusCode,
    /// The stable word (`err`).
    pub err: &'static str,
    /// What was wrong, and what would be right.
    pub msg: Cow<'static, str>,
}

impl Fault {
    /// A fault of the request.
    pub const fn new(status: StatusCode, err: &'static str, msg: &'static str) -> Self {
        Self { status, err, msg: Cow::Borrowed(msg) }
    }

    /// 400
    pub const fn bad_request(msg: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", msg)
    }

    /// 503: too much is going on.
    pub const OVERLOADED: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "the node is overloaded; try again");
}

impl From<Fault> for Response {
    fn from(fault: Fault) -> Self {
        let response = Self::json(fault.status, error_json(fault.err, &fault.msg));
        match fault.status {
            StatusCode::SERVICE_UNAVAILABLE => response.retry_after(1),
            _ => response,
        }
    }
}

/// `{"code":0,"err":…,"msg":…}`
pub fn error_json(err: &str, msg: &str) -> String {
    format!(r#"{{"code":0,"err":{},"msg":{}}}"#, json_string(err), json_string(msg))
}

/// `text` as a JSON string.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The answer to `/live`, `/ready` or `/health`; nothing for any other path.
pub fn health_response(health: &Health, path: &str) -> Option<Response> {
    let (status, body) = health.answer(path)?;
    let response = Response::json(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), body);
    Some(if status == 200 { response } else { response.retry_after(1) })
}
