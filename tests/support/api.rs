//! The signed HTTP API of one project on one node.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    http::{self, Response},
    sign, unix_now,
};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const NDJSON: &str = "application/x-ndjson";

/// Who calls where.
#[derive(Clone, Debug)]
pub struct Api {
    /// The node's HTTP listener.
    pub address: SocketAddr,
    /// The project.
    pub pid: String,
    /// What it signs with.
    pub secret: String,
    /// How far ahead `exp` lies, in seconds; negative for a call that is void already.
    pub expires_in: i64,
}

impl Api {
    /// Calls as `pid` at `address`.
    pub fn new(address: SocketAddr, pid: &str, secret: &str) -> Self {
        Self { address, pid: pid.to_owned(), secret: secret.to_owned(), expires_in: 60 }
    }

    fn exp(&self) -> String {
        (i64::try_from(unix_now()).expect("this century") + self.expires_in).to_string()
    }

    /// `path?…&pid&exp&sign`, the signature covering `params` and the body if there is one that is no form.
    pub fn target(&self, path: &str, params: &[(&str, &str)], body: Option<&[u8]>) -> String {
        let exp = self.exp();
        let digest = body.map(sign::body_sha256);
        let mut all = params.to_vec();
        all.extend([("pid", self.pid.as_str()), ("exp", exp.as_str())]);
        let mut covered = all.clone();
        covered.extend(digest.as_deref().map(|digest| ("body_sha256", digest)));
        let signature = sign::sign(&self.secret, &covered);
        all.push(("sign", &signature));
        format!("{path}?{}", sign::query(&all))
    }

    /// A signed GET.
    pub async fn get(&self, path: &str, params: &[(&str, &str)]) -> Response {
        http::get(self.address, &self.target(path, params, None)).await
    }

    /// A signed POST of a JSON text.
    pub async fn post(&self, path: &str, body: &str) -> Response {
        let target = self.target(path, &[], Some(body.as_bytes()));
        http::request(self.address, "POST", &target, JSON, body.as_bytes()).await
    }

    /// Pushes a JSON body.
    pub async fn push(&self, body: &Value) -> Response {
        self.post("/ws/push", &body.to_string()).await
    }

    /// Pushes and expects success; the push's id.
    pub async fn push_ok(&self, body: &Value) -> String {
        let payload = self.push(body).await.payload();
        payload["id"].as_str().unwrap_or_else(|| panic!("no id: {payload}")).to_owned()
    }

    /// Publishes to one tag; the publication's id.
    pub async fn publish(&self, tag: &str, data: Value) -> String {
        self.push_ok(&json!({"tags": [tag], "data": data})).await
    }

    /// Pushes with everything in the query.
    pub async fn push_query(&self, params: &[(&str, &str)]) -> Response {
        http::request(self.address, "POST", &self.target("/ws/push", params, None), FORM, b"").await
    }

    /// Pushes a form; `pid`, `exp` and `sign` stand in the query.
    pub async fn push_form(&self, params: &[(&str, &str)]) -> Response {
        let exp = self.exp();
        let mut covered = params.to_vec();
        covered.extend([("pid", self.pid.as_str()), ("exp", exp.as_str())]);
        let signature = sign::sign(&self.secret, &covered);
        let query = sign::query(&[("pid", &self.pid), ("exp", &exp), ("sign", &signature)]);
        let form = sign::query(params);
        http::request(self.address, "POST", &format!("/ws/push?{query}"), FORM, form.as_bytes()).await
    }

    /// The bytes of a batch request, for a connection that is kept.
    pub fn batch_request(&self, lines: &str) -> Vec<u8> {
        let target = self.target("/ws/push/batch", &[], Some(lines.as_bytes()));
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {NDJSON}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            lines.len()
        );
        (head + lines).into_bytes()
    }

    /// Pushes a batch; one answer a line.
    pub async fn batch(&self, lines: &str) -> (Response, Vec<Value>) {
        let target = self.target("/ws/push/batch", &[], Some(lines.as_bytes()));
        let response = http::request(self.address, "POST", &target, NDJSON, lines.as_bytes()).await;
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let answers = response.text().lines().map(parse).collect();
        (response, answers)
    }
}
