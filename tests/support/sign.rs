//! Signatures as the specification words them, written apart from the server's.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use ring::{digest, hmac};

/// Everything but unreserved characters (RFC 3986, 2.3) as `%XX`.
pub fn percent(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

/// `name=value` joined with `&`, sorted by name, values percent-encoded.
pub fn canonical(params: &[(&str, &str)]) -> String {
    let mut sorted = params.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect::<Vec<_>>().join("&")
}

/// The signature of `params` under `secret`.
pub fn sign(secret: &str, params: &[(&str, &str)]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, canonical(params).as_bytes()).as_ref())
}

/// The hex digest of a body.
pub fn body_sha256(body: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, body).as_ref())
}

/// `name=value&…` as it goes into a query or form.
pub fn query(params: &[(&str, &str)]) -> String {
    params.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect::<Vec<_>>().join("&")
}

#[test]
fn the_signature_is_hmac_sha256_over_sorted_encoded_parameters() {
    let params = [("uid", "a b&c"), ("pid", "502"), ("type", "1"), ("exp", "1700000000")];
    assert_eq!(canonical(&params), "exp=1700000000&pid=502&type=1&uid=a%20b%26c");
    // RFC 4231, test case 2, shows that the MAC itself is right.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let mac = HEXLOWER.encode(hmac::sign(&key, b"what do ya want for nothing?").as_ref());
    assert_eq!(mac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}
