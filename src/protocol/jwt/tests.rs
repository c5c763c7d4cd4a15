//! Only a good token of the project's own algorithm is believed.
//! Method: tokens made with other implementations (Python's hmac, OpenSSL), then changed part by part.

use super::*;
use crate::{
    model::{Pid, project::RequestRouting},
    protocol::{
        query::Params,
        sign::{verify_call, verify_connect},
    },
};

const SECRET: &str = "0123456789abcdef";
const EXP: u64 = 1_900_000_000;
const NOW: Duration = Duration::from_secs(EXP - 60);

/// `{"pid":"502","uid":"alice","type":1,"exp":1900000000,"tags":["kline.*"],"device":"ios","iss":"x","roles":{…}}`
const HS256: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJwaWQiOiAiNTAyIiwgInVpZCI6ICJhbGljZSIsICJ0eXBlIjogMSwgImV4cCI6IDE5MDAwMDAwMDAsICJ0YWdzIjogWyJrbGluZS4qIl0sICJkZXZpY2UiOiAiaW9zIiwgImlzcyI6ICJ4IiwgInJvbGVzIjogeyJhIjogWzFdfX0.o-00rHWP1y85GoLRXKVJm-HFU_t6jkkVn0FnKu05FcU";
/// `{"pid":"502","uid":"alice","type":"2","exp":1900000000}`, as the next.
const ES256: &str = "eyJhbGciOiAiRVMyNTYifQ.eyJwaWQiOiAiNTAyIiwgInVpZCI6ICJhbGljZSIsICJ0eXBlIjogIjIiLCAiZXhwIjogMTkwMDAwMDAwMH0.CQrd_T8o6ujHs7BfQ2qa3jRafED0CNvhCHERhH-kccOWmSwn8xP1Z-Hhs8OD2ApNiqp-qcnc0qNi3md757grWg";
const ES256_KEY: &str = "04aaac84c485af58e8027a56331fef774bfa4854d0d9675db8ecde4ba59d30d97eda9376b07099f1660c5aed2661fa7a9aba5e24b598d5e3f84918b2aaa06d06b1";
const EDDSA: &str = "eyJhbGciOiAiRWREU0EifQ.eyJwaWQiOiAiNTAyIiwgInVpZCI6ICJhbGljZSIsICJ0eXBlIjogIjIiLCAiZXhwIjogMTkwMDAwMDAwMH0.F41LkpCPSS40yx_aTqHrPMtoQUUxzG5-Ma2nfSBU8HTj2IkrJDNErwa28YcG2fXljXr5Rvaq94S-mb7EYmUxDg";
const EDDSA_KEY: &str = "4fd8658dfd1c7fa9d7519515a1e6145f07beb6abab864440d09ebaef2ea9c3f2";

fn projects(jwt: Option<JwtKey>) -> Projects {
    Projects::new([Project {
        pid: Pid::new("502").unwrap(),
        secrets: vec![Secret::new("newer"), Secret::new(SECRET)],
        jwt,
        requests: RequestRouting::One,
        origins: Vec::new(),
    }])
}

fn key(hex: &str) -> Box<[u8]> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().into()
}

fn keys() -> [JwtKey; 3] {
    [JwtKey::Hs256, JwtKey::Es256(key(ES256_KEY)), JwtKey::EdDsa(key(EDDSA_KEY))]
}

fn check(token: &str) -> Result<Identity, Denied> {
    verify(&projects(Some(JwtKey::Hs256)), token, NOW)
}

/// A token with this header and these claims, signed with the project's secret.
fn token(header: &str, claims: &str) -> String {
    let part = |json: &str| BASE64URL_NOPAD.encode(json.as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref()))
}

fn claims(claims: &str) -> Result<Identity, Denied> {
    check(&token(r#"{"alg":"HS256"}"#, claims))
}

#[test]
fn tokens_made_by_others_are_good_with_their_own_algorithm_only() {
    let tokens = [HS256, ES256, EDDSA];
    for (key_index, key) in keys().into_iter().enumerate() {
        let projects = projects(Some(key));
        for (token_index, token) in tokens.iter().enumerate() {
            let result = verify(&projects, token, NOW);
            let expected = if key_index == token_index { Ok("alice") } else { Err(Denied::Bad) };
            assert_eq!(result.as_ref().map(|identity| &*identity.uid).map_err(|denied| *denied), expected);
        }
    }
    for token in tokens {
        assert_eq!(verify(&projects(None), token, NOW), Err(Denied::Bad), "no tokens are accepted");
        assert_eq!(verify(&Projects::default(), token, NOW), Err(Denied::Bad), "no such project");
    }
}

#[test]
fn claims_make_the_identity() {
    let identity = check(HS256).unwrap();
    assert_eq!((&*identity.pid, identity.role, identity.device.as_deref()), ("502", Role::User, Some("ios")));
    assert_eq!((identity.tag_patterns, identity.expires_unix), (Some(vec!["kline.*".into()]), Some(EXP)));
    let plain = claims(r#"{"pid":"502","uid":"a","type":"2","exp":1900000000.5}"#).unwrap();
    assert_eq!((plain.role, plain.device, plain.tag_patterns), (Role::Backend, None, None));
    assert_eq!(plain.expires_unix, Some(EXP));
}

#[test]
fn what_we_sign_we_believe() {
    for device in [None, Some("i\"os".into())] {
        let identity = Identity {
            pid: Pid::new("502").unwrap(),
            role: Role::User,
            uid: "al\\ice".into(),
            device,
            tag_patterns: Some(vec!["a.*".into(), "b".into()]),
            expires_unix: Some(EXP),
        };
        assert_eq!(check(&sign_hs256(&Secret::new(SECRET), &identity)), Ok(identity.clone()));
        assert_eq!(check(&sign_hs256(&Secret::new("guess"), &identity)), Err(Denied::Bad));
    }
}

#[test]
fn a_token_is_good_before_its_end_and_from_its_beginning() {
    let with = |rest: &str| claims(&format!(r#"{{"pid":"502","uid":"a","type":1,{rest}}}"#)).map(drop);
    let now = NOW.as_secs();
    assert_eq!(with(&format!(r#""exp":{}"#, now + 1)), Ok(()));
    assert_eq!(with(&format!(r#""exp":{now}"#)), Err(Denied::Expired));
    assert_eq!(with(&format!(r#""exp":{EXP},"nbf":{now}"#)), Ok(()));
    assert_eq!(with(&format!(r#""exp":{EXP},"nbf":{}"#, now + 1)), Err(Denied::Bad));
    for bad in [r#""x":1"#, r#""exp":"1900000000""#, r#""exp":-1"#, r#""exp":1e300"#, r#""exp":null"#] {
        assert_eq!(with(bad), Err(Denied::Malformed), "{bad}");
    }
}

#[test]
fn any_changed_byte_is_refused() {
    for at in 0..HS256.len() {
        let mut changed = HS256.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(check(&changed).is_err(), "byte {at}");
        assert!(check(&HS256[..at]).is_err(), "cut at {at}");
    }
    assert!(check(&format!("{HS256}A")).is_err() && check(&format!("{HS256}=")).is_err());
}

#[test]
fn well_signed_nonsense_is_refused() {
    let good = r#"{"pid":"502","uid":"a","type":1,"exp":1900000000}"#;
    assert!(claims(good).is_ok());
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"typ":"JWT"}"#,
        r#"["HS256"]"#,
        "",
    ] {
        assert_eq!(check(&token(header, good)), Err(Denied::Malformed), "{header}");
    }
    let deep =
        format!(r#"{{"pid":"502","uid":"a","type":1,"exp":1900000000,"x":{}1{}}}"#, "[".repeat(9), "]".repeat(9));
    for bad in [
        "[]",
        r#"["502","a",1,1900000000]"#,
        r#"{"pid":502,"uid":"a","type":1,"exp":1900000000}"#,
        r#"{"pid":"502","uid":"","type":1,"exp":1900000000}"#,
        r#"{"pid":"502","uid":"a,b","type":1,"exp":1900000000}"#,
        r#"{"pid":"502","uid":"a","type":3,"exp":1900000000}"#,
        r#"{"pid":"502","uid":"a","type":"0","exp":1900000000}"#,
        r#"{"pid":"502","uid":"a","uid":"b","type":1,"exp":1900000000}"#,
        r#"{"pid":"502","uid":"a","type":1,"exp":1900000000,"tags":"a"}"#,
        r#"{"pid":"502","uid":"a","type":1,"exp":1900000000,"device":"a\u0000"}"#,
        &deep,
    ] {
        assert_eq!(claims(bad), Err(Denied::Malformed), "{bad}");
    }
    assert_eq!(check(&"a".repeat(1 << 16)), Err(Denied::Malformed));
}

#[test]
fn parameters_beside_a_token_must_agree_with_it() {
    let projects = projects(Some(JwtKey::Hs256));
    let connect = |query: &str| {
        let raw = format!("token={HS256}&{query}");
        verify_connect(&projects, &Params::parse(&raw).unwrap(), NOW, Duration::ZERO)
    };
    for query in ["", "pid=502", "uid=alice&type=1", "device=web", "exp=1&sign=00"] {
        assert_eq!(connect(query).unwrap().device.as_deref(), Some("ios"), "{query}");
    }
    for query in ["pid=66", "uid=bob", "type=2"] {
        assert_eq!(connect(query), Err(Denied::Bad), "{query}");
    }
}

#[test]
fn only_a_back_ends_token_may_call() {
    let call = |token: &str, jwt| {
        let raw = format!("token={token}");
        verify_call(&projects(Some(jwt)), &Params::parse(&raw).unwrap(), None, NOW, Duration::ZERO)
    };
    assert_eq!(call(HS256, JwtKey::Hs256), Err(Denied::NotAllowed));
    assert_eq!(call(ES256, JwtKey::Es256(key(ES256_KEY))).as_deref(), Ok("502"));
}

#[test]
fn a_newer_token_prolongs_the_same_identity_only() {
    let identity = check(HS256).unwrap();
    assert!(identity.is_same(&Identity { expires_unix: Some(EXP + 100), device: None, ..identity.clone() }));
    for other in [
        Identity { uid: "bob".into(), ..identity.clone() },
        Identity { role: Role::Backend, ..identity.clone() },
        Identity { pid: Pid::new("66").unwrap(), ..identity.clone() },
        Identity { device: Some("web".into()), ..identity.clone() },
    ] {
        assert!(!identity.is_same(&other), "{other:?}");
    }
}
