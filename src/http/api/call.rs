//! One call: its parameters, its body, and whether its credentials are good.
//!
//! Invariants: the project is the one whose secret signed, and never one that a body names; nothing of a body is
//! looked at before that, a form's parameters aside, which are signed themselves.

use std::{borrow::Cow, net::IpAddr};

use http::StatusCode;
use serde::Deserialize;

use super::{
    Api,
    route::{BodyKind, Route},
};
use crate::{
    clock,
    http::message::{Fault, Request},
    model::Pid,
    protocol::{
        fault::Fault as ProtocolFault,
        query::Params,
        sign::{self, Denied},
    },
};

/// A call as it was sent.
pub(super) struct Call<'r> {
    params: Params<'r>,
    kind: BodyKind,
    /// The body as it came.
    pub(super) body: &'r [u8],
}

impl<'r> Call<'r> {
    pub(super) fn read(route: Route, request: &'r Request) -> Result<Self, Fault> {
        let (kind, body) = (route.body_kind(&request.head)?, &*request.body);
        let mut params = Params::parse(request.head.query()).map_err(bad_request_of)?;
        if kind == BodyKind::Form {
            let form = std::str::from_utf8(body).map_err(|_| bad_field("the form", "percent-encoded UTF-8"))?;
            params.add(form).map_err(bad_request_of)?;
        }
        Ok(Self { params, kind, body })
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }

    /// The body, if it is JSON.
    pub(super) fn json(&self) -> Option<&'r [u8]> {
        (self.kind == BodyKind::Json).then_some(self.body)
    }

    /// What the sign covers besides the parameters.
    fn signed_body(&self) -> Option<&'r [u8]> {
        (self.kind != BodyKind::Form).then_some(self.body)
    }
}

impl Api {
    /// The project that calls. A failure is held against the address.
    pub(super) fn admit(&self, call: &Call<'_>, peer: IpAddr) -> Result<Pid, Fault> {
        let (now, horizon) = (clock::unix_now(), self.limits().opening.sign_horizon_push);
        let verdict = sign::verify_call(&self.projects.borrow(), &call.params, call.signed_body(), now, horizon);
        verdict.map_err(|denied| {
            // Who signed well but too late holds the secret and guesses nothing.
            if matches!(denied, Denied::Malformed | Denied::Bad) {
                self.throttle.borrow_mut().failed(peer, clock::now());
            }
            let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::UNAUTHORIZED);
            Fault { status, err: denied.err(), msg: Cow::Owned(denied.to_string()) }
        })
    }
}

const OTHER_PROJECT: Fault =
    Fault::new(StatusCode::FORBIDDEN, "forbidden", "pid in the body must be the project that signed, or left out");

/// A body may repeat the project that signed, and must not name another.
pub(super) fn check_pid(pid: &Pid, body: &[u8]) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        pid: Option<Cow<'a, str>>,
    }
    // Most bodies do not name one, and reading each twice would cost as much as all the rest. One that spells the
    // name with escapes is passed over as any unknown member is.
    if memchr::memmem::find(body, b"\"pid\"").is_none() {
        return Ok(());
    }
    match serde_json::from_slice::<Named<'_>>(body) {
        Ok(Named { pid: Some(named) }) if *named != **pid => Err(OTHER_PROJECT),
        Err(error) if error.is_data() && body.trim_ascii_start().starts_with(b"{") => {
            Err(bad_field("pid", "a string, given once"))
        }
        // What is no JSON object is told so by who reads the rest.
        _ => Ok(()),
    }
}

/// A fault of a push or parameter as HTTP tells it.
pub(super) fn bad_request_of(fault: ProtocolFault) -> Fault {
    let status = if fault.is_about_size() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    Fault { status, err: fault.err(), msg: Cow::Owned(fault.to_string()) }
}

/// A parameter that breaks its rule; `rule` completes "must be".
pub(super) fn bad_field(field: &str, rule: &str) -> Fault {
    let msg = Cow::Owned(format!("{field} must be {rule}"));
    Fault { status: StatusCode::BAD_REQUEST, err: "bad_field", msg }
}
