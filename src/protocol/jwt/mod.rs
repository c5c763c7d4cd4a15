//! Tokens: JWTs (RFC 7519) that stand in for a sign.
//!
//! Invariants: the project, not the token, says which algorithm is right; a token of an unknown project costs the
//! same check as a bad one of a known project; what a token says is believed only when its signature is good.
//! Left out: encryption, key ids, `iss` and `aud` (a token names its project, and only that project's key is tried).

#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use ring::{
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    json::{Object, depth_ok, escape_into},
    sign::{Denied, Identity, hmac_matches, kind, role},
};
use crate::{
    limits::TOKEN_BYTES_MAX,
    model::{
        Project, Projects, Role,
        ids::{NAME_BYTES_MAX, is_identity},
        project::{JwtKey, Secret},
    },
};

/// Nesting of a token's header and claims.
const DEPTH_MAX: usize = 8;

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    /// Extensions that must be understood; none are (RFC 7515, section 4.1.11).
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    pid: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Kind<'a>,
    exp: f64,
    nbf: Option<f64>,
    tags: Option<Vec<Box<str>>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
}

/// Issuers write it either way.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kind<'a> {
    Number(u64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Es256,
    EdDsa,
}

/// Who the token says its bearer is, if it is good now.
pub fn verify(projects: &Projects, token: &str, now: Duration) -> Result<Identity, Denied> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Denied::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Denied::Malformed)?;
    let (mut header, mut claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
    let header: Header<'_> = read(&mut header)?;
    let claims: Claims<'_> = read(&mut claims)?;
    let algorithm = algorithm(&header)?;
    let project = projects.get(&claims.pid);
    if !is_good(project, algorithm, signed.as_bytes(), &signature) {
        return Err(Denied::Bad);
    }
    identity(project.ok_or(Denied::Bad)?, claims, now)
}

fn decode(part: &str) -> Result<Vec<u8>, Denied> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Denied::Malformed)
}

fn read<'a, T: Deserialize<'a>>(json: &'a mut [u8]) -> Result<T, Denied> {
    if !json.starts_with(b"{") || !depth_ok(json, DEPTH_MAX) {
        return Err(Denied::Malformed);
    }
    simd_json::from_slice(json).map_err(|_| Denied::Malformed)
}

fn algorithm(header: &Header<'_>) -> Result<Algorithm, Denied> {
    match &*header.alg {
        _ if header.crit.is_some() => Err(Denied::Malformed),
        "HS256" => Ok(Algorithm::Hs256),
        "ES256" => Ok(Algorithm::Es256),
        "EdDSA" => Ok(Algorithm::EdDsa),
        _ => Err(Denied::Malformed),
    }
}

/// Checks with the algorithm that the token names, so that the time it takes says nothing of the project; only
/// with the project's key it can be good, and that only with the project's algorithm.
fn is_good(project: Option<&Project>, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
    let key = project.and_then(|project| project.jwt.as_ref());
    match (algorithm, key) {
        (Algorithm::Hs256, Some(JwtKey::Hs256)) => hmac_matches(project, signed, signature),
        (Algorithm::Hs256, _) => hmac_matches(None, signed, signature),
        (Algorithm::Es256, Some(JwtKey::Es256(key))) => is_signed(&ECDSA_P256_SHA256_FIXED, key, signed, signature),
        (Algorithm::Es256, _) => is_signed(&ECDSA_P256_SHA256_FIXED, &NOBODYS_P256, signed, signature) & false,
        (Algorithm::EdDsa, Some(JwtKey::EdDsa(key))) => is_signed(&ED25519, key, signed, signature),
        (Algorithm::EdDsa, _) => is_signed(&ED25519, &NOBODYS_ED25519, signed, signature) & false,
    }
}

fn is_signed(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
}

/// The generator of P-256 (FIPS 186-4, D.1.2.3): a valid point to spend the time on.
const NOBODYS_P256: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03,
    0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe,
    0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce,
    0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// The base point of Ed25519 (RFC 8032, section 5.1).
const NOBODYS_ED25519: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};

fn identity(project: &Project, claims: Claims<'_>, now: Duration) -> Result<Identity, Denied> {
    // Seconds since 1970, maybe with a fraction (RFC 7519, section 2).
    let seconds = |date: f64| Duration::try_from_secs_f64(date).map_err(|_| Denied::Malformed);
    let expires = seconds(claims.exp)?;
    if expires <= now {
        return Err(Denied::Expired);
    }
    if let Some(not_before) = claims.nbf
        && seconds(not_before)? > now
    {
        return Err(Denied::Bad);
    }
    let role = match claims.kind {
        Kind::Number(1) => Role::User,
        Kind::Number(2) => Role::Backend,
        Kind::Number(_) => return Err(Denied::Malformed),
        Kind::Text(text) => role(&text).ok_or(Denied::Malformed)?,
    };
    let device = claims.device.filter(|device| !device.is_empty());
    let patterns_ok = claims.tags.iter().flatten().all(|tag| tag.len() <= NAME_BYTES_MAX);
    if !is_identity(&claims.uid) || device.as_deref().is_some_and(|device| !is_identity(device)) || !patterns_ok {
        return Err(Denied::Malformed);
    }
    Ok(Identity {
        pid: project.pid.clone(),
        role,
        uid: claims.uid.into(),
        device: device.map(Box::from),
        tag_patterns: claims.tags,
        expires_unix: Some(expires.as_secs()),
    })
}

/// A token of a project whose algorithm is HS256, for tools and tests. An identity without
/// [`Identity::expires_unix`] gives one that has ended.
pub fn sign_hs256(secret: &Secret, identity: &Identity) -> String {
    let mut claims = Vec::new();
    Object::write(&mut claims, |claims| {
        claims.text("pid", &identity.pid);
        claims.text("uid", &identity.uid);
        claims.text("type", kind(identity.role));
        claims.number("exp", identity.expires_unix.unwrap_or_default());
        claims.text_if("device", identity.device.as_deref());
        if let Some(patterns) = &identity.tag_patterns {
            claims.array("tags", patterns, |out, pattern| escape_into(out, pattern));
        }
    });
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let signature = BASE64URL_NOPAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}
