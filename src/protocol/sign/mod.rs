//! Who asks: signed parameters, verified and made.
//!
//! The sign is the lower-case hexadecimal HMAC-SHA256 of a canonical text: `name=value` of the parameters, sorted by
//! name and joined by `&`, each value percent-encoded but for RFC 3986's unreserved characters.
//!
//! Invariants: comparison takes the same time for a wrong sign, a wrong secret and an unknown project; an ended
//! sign is told from a wrong one only to who holds the secret; no secret and no sign is kept or shown.

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use data_encoding::HEXLOWER;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use super::{jwt, query::Params};
use crate::model::{Pid, Project, Projects, Role, ids::is_identity, project::Secret};

/// Everything but RFC 3986's unreserved characters (section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Who a connection is, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The project.
    pub pid: Pid,
    /// What the connection is for.
    pub role: Role,
    /// The user, or a back-end's name for itself.
    pub uid: Box<str>,
    /// The kind of device.
    pub device: Option<Box<str>>,
    /// The patterns of tags that a token allows; none: no such bound.
    pub tag_patterns: Option<Vec<Box<str>>>,
    /// When a session ends that was opened with a token, Unix seconds.
    pub expires_unix: Option<u64>,
}

/// Why somebody is not let in. None of it says which part was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Credentials are missing or not in their form.
    Malformed,
    /// The sign or token is not of the project.
    Bad,
    /// Good, but its time is over.
    Expired,
    /// Good, but made for a time too far ahead.
    TooFarAhead,
    /// Good, but not for this.
    NotAllowed,
}

/// Judges the parameters of a connect: a `token`, or `sign` over exactly `exp`, `pid`, `type`, `uid`. `exp` of a
/// sign is at most `horizon` ahead.
pub fn verify_connect(
    projects: &Projects,
    params: &Params<'_>,
    now: Duration,
    horizon: Duration,
) -> Result<Identity, Denied> {
    let identity = match params.get("token") {
        Some(token) => agreeing(jwt::verify(projects, token, now)?, params)?,
        None => signed_identity(projects, params, now, horizon)?,
    };
    let device = params.get("device").filter(|device| !device.is_empty());
    if device.is_some_and(|device| !is_identity(device)) {
        return Err(Denied::Malformed);
    }
    let device = identity.device.or_else(|| device.map(Box::from));
    Ok(Identity { device, ..identity })
}

fn signed_identity(
    projects: &Projects,
    params: &Params<'_>,
    now: Duration,
    horizon: Duration,
) -> Result<Identity, Denied> {
    let param = |name| params.get(name).ok_or(Denied::Malformed);
    let (pid, uid, kind, exp) = (param("pid")?, param("uid")?, param("type")?, param("exp")?);
    let text = canonical([("exp", exp), ("pid", pid), ("type", kind), ("uid", uid)]);
    let project = verify_sign(projects, pid, &text, param("sign")?)?;
    check_time(exp, now, horizon)?;
    let role = role(kind).ok_or(Denied::Malformed)?;
    if !is_identity(uid) {
        return Err(Denied::Malformed);
    }
    let pid = project.pid.clone();
    Ok(Identity { pid, role, uid: uid.into(), device: None, tag_patterns: None, expires_unix: None })
}

/// Judges an HTTP call: a back-end's `token`, or `sign` over all parameters of query and form but itself, and over
/// `body`, which is a body that is no form. `exp` of a sign is at most `horizon` ahead.
pub fn verify_call(
    projects: &Projects,
    params: &Params<'_>,
    body: Option<&[u8]>,
    now: Duration,
    horizon: Duration,
) -> Result<Pid, Denied> {
    if let Some(token) = params.get("token") {
        let identity = agreeing(jwt::verify(projects, token, now)?, params)?;
        return if identity.role == Role::Backend { Ok(identity.pid) } else { Err(Denied::NotAllowed) };
    }
    let param = |name| params.get(name).ok_or(Denied::Malformed);
    let (pid, exp, sign) = (param("pid")?, param("exp")?, param("sign")?);
    // A name with `=` or `&` in it could swallow its neighbours; a sent hash could stand for another body.
    if params.iter().any(|(name, _)| !is_plain_name(name) || name == BODY_SHA256) {
        return Err(Denied::Malformed);
    }
    let body_hash = body.filter(|body| !body.is_empty()).map(sha256_hex);
    let covered = params.iter().filter(|(name, _)| *name != "sign");
    let text = canonical(covered.chain(body_hash.as_deref().map(|hash| (BODY_SHA256, hash))));
    let project = verify_sign(projects, pid, &text, sign)?;
    check_time(exp, now, horizon)?;
    Ok(project.pid.clone())
}

const BODY_SHA256: &str = "body_sha256";

fn is_plain_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// A token speaks for itself, but parameters beside it must not say otherwise.
fn agreeing(identity: Identity, params: &Params<'_>) -> Result<Identity, Denied> {
    let says = |name, expected: &str| params.get(name).is_none_or(|value| value == expected);
    let kind = kind(identity.role);
    if says("pid", &identity.pid) && says("uid", &identity.uid) && says("type", kind) {
        return Ok(identity);
    }
    Err(Denied::Bad)
}

/// What a `type` stands for.
pub(super) fn role(kind: &str) -> Option<Role> {
    match kind {
        "1" => Some(Role::User),
        "2" => Some(Role::Backend),
        _ => None,
    }
}

pub(super) fn kind(role: Role) -> &'static str {
    match role {
        Role::User => "1",
        Role::Backend => "2",
    }
}

fn check_time(exp: &str, now: Duration, horizon: Duration) -> Result<(), Denied> {
    let digits = !exp.is_empty() && exp.bytes().all(|byte| byte.is_ascii_digit());
    let exp = digits.then(|| exp.parse().ok()).flatten().map(Duration::from_secs).ok_or(Denied::Malformed)?;
    if exp < now {
        return Err(Denied::Expired);
    }
    if exp > now.saturating_add(horizon) {
        return Err(Denied::TooFarAhead);
    }
    Ok(())
}

fn verify_sign<'p>(projects: &'p Projects, pid: &str, text: &str, sign: &str) -> Result<&'p Project, Denied> {
    let project = projects.get(pid);
    let mac = HEXLOWER.decode(sign.as_bytes()).map_err(|_| Denied::Malformed)?;
    let matches = hmac_matches(project, text.as_bytes(), &mac);
    project.filter(|_| matches).ok_or(Denied::Bad)
}

/// Secrets that a project may hold; as many are tried for every project, known or not.
const SECRETS_TRIED: usize = 2;

/// Whether `mac` is the project's over `message`. Does the same work for a project that does not exist.
pub(super) fn hmac_matches(project: Option<&Project>, message: &[u8], mac: &[u8]) -> bool {
    let secrets = project.map_or(&[][..], |project| &project.secrets);
    (0..SECRETS_TRIED.max(secrets.len())).fold(false, |matches, index| {
        let secret = secrets.get(index);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(b"nobody's", Secret::expose));
        matches | (hmac::verify(&key, message, mac).is_ok() & secret.is_some())
    })
}

/// The text that is signed: `name=value` of `params`, sorted by name, joined by `&`, values percent-encoded.
pub fn canonical<'p>(params: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut params: Vec<_> = params.into_iter().collect();
    params.sort_unstable();
    encode(params)
}

/// Parameters as a query or form, in the order given. Values are encoded, names must need no encoding.
pub fn encode<'p>(params: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut text = String::new();
    for (name, value) in params {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, RESERVED));
    }
    text
}

/// The sign over a canonical text.
pub fn sign(secret: &Secret, canonical: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    HEXLOWER.encode(hmac::sign(&key, canonical.as_bytes()).as_ref())
}

fn sha256_hex(body: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, body).as_ref())
}

/// The signed query of a connect; `&device=` and `&tags=` may follow it.
pub fn connect_query(secret: &Secret, pid: &str, uid: &str, role: Role, exp_unix: u64) -> String {
    let exp = exp_unix.to_string();
    let params = [("pid", pid), ("uid", uid), ("type", kind(role)), ("exp", &exp)];
    let sign = sign(secret, &canonical(params));
    format!("{}&sign={sign}", encode(params))
}

/// The signed query of an HTTP call with these parameters in its query, and a form or another body.
pub fn call_query(secret: &Secret, pid: &str, exp_unix: u64, query: &[(&str, &str)], body: Body<'_>) -> String {
    let exp = exp_unix.to_string();
    let query = || [("pid", pid), ("exp", &*exp)].into_iter().chain(query.iter().copied());
    let hash;
    let sign = match body {
        Body::None => sign(secret, &canonical(query())),
        Body::Form(form) => sign(secret, &canonical(query().chain(form.iter().copied()))),
        Body::Other(bytes) => {
            hash = sha256_hex(bytes);
            sign(secret, &canonical(query().chain([(BODY_SHA256, &*hash)])))
        }
    };
    format!("{}&sign={sign}", encode(query()))
}

/// What goes with a signed call.
#[derive(Clone, Copy)]
pub enum Body<'b> {
    /// No body.
    None,
    /// A form, before [`encode`].
    Form(&'b [(&'b str, &'b str)]),
    /// Any other body, not empty.
    Other(&'b [u8]),
}

impl Identity {
    /// Whether a newer token is for the same connection: only then may it prolong the session.
    pub fn is_same(&self, newer: &Identity) -> bool {
        let same = self.pid == newer.pid && self.role == newer.role && self.uid == newer.uid;
        same && newer.device.as_ref().is_none_or(|device| self.device.as_ref() == Some(device))
    }
}

impl Denied {
    /// The HTTP status: 401 for bad credentials, 403 for good ones that may not do this.
    pub fn status(self) -> u16 {
        if self == Denied::NotAllowed { 403 } else { 401 }
    }

    /// The stable word of the API (`err`).
    pub fn err(self) -> &'static str {
        match self {
            Denied::Malformed | Denied::Bad => "bad_credentials",
            Denied::Expired => "expired",
            Denied::TooFarAhead => "exp_too_far_ahead",
            Denied::NotAllowed => "forbidden",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Malformed | Denied::Bad => "the credentials are missing or wrong",
            Denied::Expired => "the credentials have ended: exp must lie ahead",
            Denied::TooFarAhead => "exp must not lie so far ahead",
            Denied::NotAllowed => "these credentials may not do this",
        })
    }
}

impl std::error::Error for Denied {}
