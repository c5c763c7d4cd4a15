//! Only what was signed with the project's secret, for now, is let in.
//! Method: vectors made with another implementation (Python's hmac and urllib), then one good request changed
//! part by part.

use super::*;
use crate::model::project::RequestRouting;

const SECRET: &str = "0123456789abcdef";
const EXP: u64 = 1_900_000_000;
const NOW: Duration = Duration::from_secs(EXP - 60);
const HORIZON: Duration = Duration::from_secs(600);

fn projects() -> Projects {
    let project = |pid: &str, secrets: &[&str]| Project {
        pid: Pid::new(pid).unwrap(),
        secrets: secrets.iter().copied().map(Secret::new).collect(),
        jwt: None,
        requests: RequestRouting::One,
        origins: Vec::new(),
    };
    Projects::new([project("502", &["newer", SECRET]), project("66", &["other"])])
}

fn connect(query: &str) -> Result<Identity, Denied> {
    verify_connect(&projects(), &Params::parse(query).unwrap(), NOW, HORIZON)
}

fn call(query: &str, body: &[u8]) -> Result<Pid, Denied> {
    verify_call(&projects(), &Params::parse(query).unwrap(), Some(body), NOW, HORIZON)
}

fn secret() -> Secret {
    Secret::new(SECRET)
}

#[test]
fn a_connect_is_signed_as_others_sign_it() {
    let params = [("uid", "müller@x & y=z"), ("pid", "502"), ("type", "1"), ("exp", "1900000000")];
    let text = canonical(params);
    assert_eq!(text, "exp=1900000000&pid=502&type=1&uid=m%C3%BCller%40x%20%26%20y%3Dz");
    let expected = "2f9203e51fe07b814ab3facf1c3bc006ae05ef439be1c93d80151fccd84cc9cb";
    assert_eq!(sign(&secret(), &text), expected);
    let identity = connect(&format!("{}&sign={expected}&device=ios&tags=a,b", encode(params))).unwrap();
    assert_eq!((&*identity.pid, &*identity.uid, identity.role), ("502", "müller@x & y=z", Role::User));
    assert_eq!((identity.device.as_deref(), identity.expires_unix), (Some("ios"), None));
}

#[test]
fn a_call_with_a_body_is_signed_as_others_sign_it() {
    let body = br#"{"uids":["a"],"data":1}"#;
    let sign = "2f770ce1aeb6a8335671eaa64b73f87e96d350817103f34a05005987d7107007";
    let query = format!("pid=502&ack=a~b&exp=1900000000&sign={sign}");
    assert_eq!(call(&query, body).as_deref(), Ok("502"));
    assert_eq!(
        call_query(&secret(), "502", EXP, &[("ack", "a~b")], Body::Other(body)),
        query.replace("&ack=a~b&exp=1900000000", "&exp=1900000000&ack=a~b")
    );
    assert_eq!(call(&query, br#"{"uids":["b"],"data":1}"#), Err(Denied::Bad));
    assert_eq!(call(&query, b""), Err(Denied::Bad));
}

#[test]
fn what_we_sign_we_let_in() {
    for (uid, role) in [("alice", Role::User), ("a+b/c%2 €~", Role::Backend)] {
        let identity = connect(&connect_query(&secret(), "502", uid, role, EXP)).unwrap();
        assert_eq!((&*identity.uid, identity.role), (uid, role));
    }
    let form = [("uids", "a,b"), ("data", r#"{"a":"& = +"}"#)];
    let query = call_query(&secret(), "502", EXP, &[("keep", "1")], Body::Form(&form));
    let (raw_form, mut params) = (encode(form), Params::parse(&query).unwrap());
    assert_eq!(verify_call(&projects(), &params, None, NOW, HORIZON), Err(Denied::Bad), "the form is missing");
    params.add(&raw_form).unwrap();
    assert_eq!(verify_call(&projects(), &params, None, NOW, HORIZON).as_deref(), Ok("502"));
    assert_eq!(call(&call_query(&secret(), "502", EXP, &[], Body::None), b"").as_deref(), Ok("502"));
}

#[test]
fn either_of_two_secrets_is_right_and_no_other() {
    for (secret, pid, right) in [
        ("newer", "502", true),
        (SECRET, "502", true),
        ("", "502", false),
        ("other", "502", false),
        ("newer", "66", false),
        ("other", "66", true),
        ("nobody's", "66", false),
        ("nobody's", "unknown", false),
        ("", "unknown", false),
    ] {
        let query = connect_query(&Secret::new(secret), pid, "a", Role::User, EXP);
        assert_eq!(connect(&query).map(drop), if right { Ok(()) } else { Err(Denied::Bad) }, "{secret} {pid}");
    }
}

#[test]
fn every_signed_part_counts() {
    let good = connect_query(&secret(), "502", "a", Role::User, EXP);
    for (part, other) in [("pid=502", "pid=66"), ("uid=a", "uid=b"), ("type=1", "type=2"), ("exp=19", "exp=18")] {
        assert_eq!(connect(&good.replace(part, other)), Err(Denied::Bad), "{part}");
        let missing = good.replace(part, "x=1");
        assert_eq!(connect(&missing), Err(Denied::Malformed), "{part}");
    }
    let (rest, sign) = good.split_once("&sign=").unwrap();
    for bad in ["", "00", &sign[1..], &sign.to_uppercase(), &format!("{sign}00"), &"zz".repeat(32)] {
        assert!(matches!(connect(&format!("{rest}&sign={bad}")), Err(Denied::Bad | Denied::Malformed)), "{bad}");
    }
    assert!(connect(&format!("{good}&more=1")).is_ok(), "a connect covers four parameters and no more");

    let good = call_query(&secret(), "502", EXP, &[("tags", "a"), ("data", "1")], Body::None);
    for bad in [good.replace("tags=a", "tags=b"), good.replace("&tags=a", ""), format!("{good}&all=true")] {
        assert_eq!(call(&bad, b""), Err(Denied::Bad), "{bad}");
    }
}

#[test]
fn no_name_swallows_a_neighbour_and_no_hash_is_sent() {
    let good = call_query(&secret(), "502", EXP, &[("idempotency_key", "k"), ("keep", "1")], Body::None);
    let swallowed = good.replace("idempotency_key=k&keep=1", "idempotency_key%3Dk%26keep=1");
    assert_eq!(call(&swallowed, b""), Err(Denied::Malformed));
    let hash = sha256_hex(b"body");
    let query = call_query(&secret(), "502", EXP, &[("body_sha256", &hash)], Body::None);
    assert_eq!(call(&query, b""), Err(Denied::Malformed));
}

#[test]
fn exp_lies_ahead_and_not_too_far() {
    for (exp, expected) in [
        (EXP - 60, Ok(())),
        (EXP - 61, Err(Denied::Expired)),
        (0, Err(Denied::Expired)),
        (EXP + 540, Ok(())),
        (EXP + 541, Err(Denied::TooFarAhead)),
        (u64::MAX, Err(Denied::TooFarAhead)),
    ] {
        assert_eq!(connect(&connect_query(&secret(), "502", "a", Role::User, exp)).map(drop), expected, "{exp}");
        assert_eq!(call(&call_query(&secret(), "502", exp, &[], Body::None), b"").map(drop), expected, "{exp}");
    }
    for exp in ["", "-1", "+1900000000", "1900000000.5", "x", "99999999999999999999"] {
        let params = [("pid", "502"), ("uid", "a"), ("type", "1"), ("exp", exp)];
        let query = format!("{}&sign={}", encode(params), sign(&secret(), &canonical(params)));
        assert_eq!(connect(&query), Err(Denied::Malformed), "{exp}");
    }
    let forged = connect_query(&Secret::new("guess"), "502", "a", Role::User, 0);
    assert_eq!(connect(&forged), Err(Denied::Bad), "only who holds the secret hears that it has ended");
}

#[test]
fn well_signed_nonsense_is_refused() {
    for (uid, kind) in [("", "1"), ("a,b", "1"), ("a\n", "1"), ("a", "0"), ("a", "3"), ("a", "01"), ("a", "")] {
        let params = [("pid", "502"), ("uid", uid), ("type", kind), ("exp", "1900000000")];
        let query = format!("{}&sign={}", encode(params), sign(&secret(), &canonical(params)));
        assert_eq!(connect(&query), Err(Denied::Malformed), "{uid:?} {kind:?}");
    }
    let good = connect_query(&secret(), "502", "a", Role::User, EXP);
    assert_eq!(connect(&format!("{good}&device=a%00b")), Err(Denied::Malformed));
    assert_eq!(connect(&format!("{good}&device=")).unwrap().device, None);
}

#[test]
fn bad_credentials_are_401_and_good_ones_that_may_not_403() {
    assert_eq!((Denied::Bad.status(), Denied::Malformed.status(), Denied::NotAllowed.status()), (401, 401, 403));
    assert_eq!(Denied::Bad.to_string(), Denied::Malformed.to_string(), "nothing says which part was wrong");
}
