//! JSON Web Tokens for the projects of the test configuration.

use std::sync::LazyLock;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

/// Keys of this run; their public halves stand in the configuration.
static ES256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key")
});
static EDDSA: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key")
});

/// The public key for ES256 as an uncompressed point, in base64.
pub fn es256_public() -> String {
    BASE64.encode(ES256.public_key().as_ref())
}

/// The public key for EdDSA, in base64.
pub fn eddsa_public() -> String {
    BASE64.encode(EDDSA.public_key().as_ref())
}

/// Claims of a user, `exp` seconds from now.
pub fn claims(pid: &str, uid: &str, expires_in: i64) -> Value {
    let exp = i64::try_from(super::unix_now()).expect("this century") + expires_in;
    json!({"pid": pid, "uid": uid, "type": 1, "exp": exp})
}

fn message(algorithm: &str, claims: &Value) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
    format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// Signs with HMAC-SHA256.
pub fn hs256(secret: &str, claims: &Value) -> String {
    let message = message("HS256", claims);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", encode(mac.as_ref()))
}

/// Signs with ECDSA on P-256.
pub fn es256(claims: &Value) -> String {
    let message = message("ES256", claims);
    let signature = ES256.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    format!("{message}.{}", encode(signature.as_ref()))
}

/// Signs with Ed25519.
pub fn eddsa(claims: &Value) -> String {
    let message = message("EdDSA", claims);
    format!("{message}.{}", encode(EDDSA.sign(message.as_bytes()).as_ref()))
}

/// A token that claims to need no signature.
pub fn unsigned(claims: &Value) -> String {
    format!("{}.", message("none", claims))
}
