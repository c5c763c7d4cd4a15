//! The demo's calls to the node's own HTTP API: signed, one at a time, bounded.
//!
//! Invariant: no error holds an address or a sign.

use std::{collections::HashSet, fmt, net::SocketAddr};

use serde::Deserialize;
use ureq::Agent;

use crate::{
    clock,
    config::demo::DEMO_BARS_TAG,
    limits::{DEMO_ANSWER_BYTES_MAX, DEMO_CALL_TIMEOUT},
    model::Project,
    protocol::sign::{Body, call_query},
};

/// Speaks to one node as a project.
pub(super) struct Client {
    agent: Agent,
    http: SocketAddr,
    project: Project,
}

/// Why a call did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// No answer within the time, or none that can be read.
    NoAnswer,
    /// The whole call was refused with this status.
    Refused(u16),
    /// Some pushes of a batch were refused.
    PartlyRefused,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::NoAnswer => f.write_str("no answer"),
            Failed::Refused(status) => write!(f, "status {status}"),
            Failed::PartlyRefused => f.write_str("some pushes were refused"),
        }
    }
}

/// What is read of a tag's history.
#[derive(Deserialize)]
struct TagAnswer {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    history: Vec<Publication>,
}

#[derive(Deserialize)]
struct Publication {
    payload: BarTime,
}

#[derive(Deserialize)]
struct BarTime {
    time: u64,
}

impl Client {
    /// Calls the node at `http` as `project`.
    pub fn new(http: SocketAddr, project: Project) -> Self {
        // What the environment says of proxies is not for calls to oneself.
        let config = Agent::config_builder().proxy(None).http_status_as_error(false);
        let config =
            config.timeout_global(Some(DEMO_CALL_TIMEOUT)).max_idle_connections(1).user_agent("ws-cluster-demo");
        Self { agent: config.build().into(), http, project }
    }

    /// Pushes lines of NDJSON, at most as many as the node takes at once.
    pub fn push(&self, lines: &[String]) -> Result<(), Failed> {
        let body = lines.join("\n");
        let url = self.url("/ws/push/batch", Body::Other(body.as_bytes()));
        let call = self.agent.post(url).content_type("application/x-ndjson").send(&body);
        let (status, answer) = read(call)?;
        match status {
            200 if answer.contains("\"code\":0") => Err(Failed::PartlyRefused),
            200 => Ok(()),
            status => Err(Failed::Refused(status)),
        }
    }

    /// The times of the closed bars that the cluster knows, in Unix seconds. A bar of somebody else is as good as none.
    pub fn bar_times(&self) -> Result<HashSet<u64>, Failed> {
        let url = self.url(&format!("/v1/tags/{DEMO_BARS_TAG}"), Body::None);
        match read(self.agent.get(url).call())? {
            (200, answer) => {
                let answer: Option<TagAnswer> = serde_json::from_str(&answer).ok();
                let bars = answer.map(|answer| answer.payload.history).unwrap_or_default();
                Ok(bars.into_iter().map(|bar| bar.payload.time).collect())
            }
            // Nobody has published to it yet.
            (404, _) => Ok(HashSet::new()),
            (status, _) => Err(Failed::Refused(status)),
        }
    }

    fn url(&self, path: &str, body: Body<'_>) -> String {
        let exp = (clock::unix_now() + DEMO_CALL_TIMEOUT * 5).as_secs();
        let query = call_query(&self.project.secrets[0], &self.project.pid, exp, &[], body);
        format!("http://{}{path}?{query}", self.http)
    }
}

fn read(answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, String), Failed> {
    let mut answer = answer.map_err(|_| Failed::NoAnswer)?;
    let text = answer.body_mut().with_config().limit(DEMO_ANSWER_BYTES_MAX).read_to_string();
    Ok((answer.status().as_u16(), text.map_err(|_| Failed::NoAnswer)?))
}
