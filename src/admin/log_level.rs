//! `/admin/log-level`: what is logged, and an order to log more or less.
//!
//! Invariant: a POST whose directives are not understood changes nothing.

use http::StatusCode;

use crate::{
    http::{Fault, Request, Response, message::json_string},
    logs::{
        self,
        level::{Directives, FORM},
    },
    protocol::query::Params,
};

const NO_LOG: Fault =
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "no_log", "this process has no log whose level could change");

/// Tells what is in effect, after it was changed if that was asked for (`level=` as query or form).
pub(super) fn answer(request: &Request, is_order: bool) -> Response {
    let Some(control) = logs::installed().map(logs::Logs::control) else { return NO_LOG.into() };
    if !is_order {
        return shown(&control.now().to_string(), None);
    }
    let Some(directives) = ordered(request) else {
        let fault = Fault { msg: format!("level is {FORM}").into(), ..Fault::bad_request("") };
        return fault.into();
    };
    let now = directives.to_string();
    let before = control.set(directives).to_string();
    // At WARN, so that most levels that one may be left with show it.
    tracing::warn!(before, now, "the log level was changed by an operator");
    shown(&now, Some(&before))
}

fn ordered(request: &Request) -> Option<Directives> {
    let form = std::str::from_utf8(&request.body).ok()?;
    let mut params = Params::parse(request.head.query()).ok()?;
    params.add(form).ok()?;
    Directives::parse(params.get("level")?).ok()
}

fn shown(level: &str, before: Option<&str>) -> Response {
    let before = before.map(|before| format!(r#","before":{}"#, json_string(before))).unwrap_or_default();
    Response::success(format!(r#"{{"level":{}{before}}}"#, json_string(level)))
}
