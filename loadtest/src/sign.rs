//! Signs connects and HTTP calls as a user's own client would, from the specification and not from the server's code.
//!
//! Canonical string: the parameters as `name=value` joined with `&`, sorted by name, each value percent-encoded so that
//! only RFC 3986 unreserved characters stand bare. The sign is its HMAC-SHA256 in lower-case hex.

use std::{fmt, fmt::Write as _, time::Duration};

use data_encoding::HEXLOWER;
use ring::{digest, hmac};

/// How long a signed HTTP call is valid. The server allows ten minutes.
const CALL_VALID: Duration = Duration::from_secs(300);
/// How long a signed connect URL is valid. The server allows a day.
const CONNECT_VALID: Duration = Duration::from_secs(3600);

/// What a project's clients sign with.
#[derive(Clone)]
pub struct Credentials {
    /// The project (`pid`).
    pub pid: String,
    secret: String,
}

impl Credentials {
    /// Credentials of project `pid`.
    pub fn new(pid: &str, secret: &str) -> Self {
        Self { pid: pid.to_owned(), secret: secret.to_owned() }
    }

    /// The secret, for another process of this harness.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Path and query of a signed connect. `kind` is 1 for a user and 2 for a back-end.
    pub fn connect_target(&self, kind: u8, uid: &str, now: Duration) -> String {
        let (exp, kind) = (expiry(now, CONNECT_VALID), kind.to_string());
        let params = [("pid", self.pid.as_str()), ("uid", uid), ("type", &kind), ("exp", &exp)];
        let sign = self.sign(&params);
        format!("/ws/connect?{}&sign={sign}", query(&params))
    }

    /// Path and query of a signed HTTP call whose body is no form.
    pub fn call_target(&self, path: &str, body: &[u8], now: Duration) -> String {
        let exp = expiry(now, CALL_VALID);
        let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, body).as_ref());
        let params = [("pid", self.pid.as_str()), ("exp", &exp)];
        let sign = self.sign(&[params[0], params[1], ("body_sha256", &hash)]);
        format!("{path}?{}&sign={sign}", query(&params))
    }

    fn sign(&self, params: &[(&str, &str)]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        HEXLOWER.encode(hmac::sign(&key, canonical(params).as_bytes()).as_ref())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, secret withheld)", self.pid)
    }
}

fn expiry(now: Duration, valid: Duration) -> String {
    (now + valid).as_secs().to_string()
}

fn canonical(params: &[(&str, &str)]) -> String {
    let mut sorted = params.to_vec();
    sorted.sort_unstable();
    query(&sorted)
}

fn query(params: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    pairs.join("&")
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! Method: canonical strings by hand, and the HMAC by RFC 4231's second vector.
    use super::*;

    #[test]
    fn parameters_are_sorted_and_no_value_can_pose_as_another_parameter() {
        assert_eq!(canonical(&[("uid", "a&pid=2"), ("exp", "9"), ("pid", "1")]), "exp=9&pid=1&uid=a%26pid%3D2");
        assert_eq!(percent_encode("A-z_0.~ +é"), "A-z_0.~%20%2B%C3%A9");
    }

    #[test]
    fn the_sign_is_hmac_sha256_in_lower_case_hex() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let tag = hmac::sign(&key, b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(HEXLOWER.encode(tag.as_ref()), expected);
    }

    #[test]
    fn a_calls_query_carries_no_body_hash() {
        let target = Credentials::new("1", "s").call_target("/ws/push", b"{}", Duration::from_secs(100));
        assert!(target.starts_with("/ws/push?pid=1&exp=400&sign="), "{target}");
        assert_eq!(target.len(), "/ws/push?pid=1&exp=400&sign=".len() + 64);
    }

    #[test]
    fn the_secret_is_never_shown() {
        assert!(!format!("{:?}", Credentials::new("1", "hush")).contains("hush"));
    }
}
