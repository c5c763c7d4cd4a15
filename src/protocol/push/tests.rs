//! The forms of an HTTP push end in the same records as each other.
//! Method: JSON bodies and parameters side by side. The rules of audience and payload are tested with the
//! back-ends' frames, which take the same way.

use super::*;

fn pid() -> Pid {
    Pid::new("1").unwrap()
}

fn json(body: &str) -> Result<Record, Fault> {
    from_json(&pid(), body.as_bytes(), &FrameLimits::default())
}

fn params(params: &[(&str, &'static str)]) -> Result<Record, Fault> {
    let param = |name: &str| params.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    from_params(&pid(), param, &FrameLimits::default())
}

fn payload(record: Result<Record, Fault>) -> String {
    let payload = match record.unwrap() {
        Record::Push(push) => push.payload,
        Record::Publication(publication) => publication.payload,
        other => panic!("{other:?}"),
    };
    String::from_utf8(payload.to_vec()).unwrap()
}

#[test]
fn body_and_parameters_say_the_same() {
    assert_eq!(
        json(r#"{"uids":["a","b"],"devices":["ios"],"data":{"x": 1},"affair_id":"f","idempotency_key":"i"}"#),
        params(&[
            ("uids", "a,b"),
            ("devices", "ios"),
            ("cids", ""),
            ("data", r#"{"x": 1}"#),
            ("affair_id", "f"),
            ("idempotency_key", "i"),
        ])
    );
    assert_eq!(
        json(r#"{"tags":["t"],"keep":true,"data":1}"#),
        params(&[("tags", "t"), ("keep", "1"), ("data", "1"), ("all", "false")])
    );
    assert_eq!(json(r#"{"all":true,"data":1}"#), params(&[("all", "true"), ("data", "1")]));
}

#[test]
fn data_that_is_json_stays_and_other_text_becomes_a_string() {
    for (data, expected) in [
        (r#"{"b":1, "a":18446744073709551617}"#, r#"{"b":1, "a":18446744073709551617}"#),
        ("true", "true"),
        (" 1e999 ", " 1e999 "),
        (r#""text""#, r#""text""#),
        ("text", r#""text""#),
        ("", r#""""#),
        ("say \"hi\"\n", r#""say \"hi\"\n""#),
        ("{broken", r#""{broken""#),
        ("01", r#""01""#),
    ] {
        assert_eq!(payload(params(&[("uids", "a"), ("data", data)])), expected);
    }
    assert_eq!(payload(json(r#"{"uids":"a","data":null}"#)), "null");
}

#[test]
fn mistakes_have_the_words_of_the_protocol() {
    for (body, err) in [
        (r#"{"data":1}"#, "no_audience"),
        (r#"{"uids":["a"]}"#, "no_payload"),
        (r#"[{"uids":["a"],"data":1}]"#, "bad_json"),
        (r#"{"uids":["a"],"data":1,"data":2}"#, "bad_field"),
    ] {
        assert_eq!(json(body).map_err(Fault::err), Err(err), "{body}");
    }
    assert_eq!(from_json(&pid(), b"{\"data\":\"\xff\"}", &FrameLimits::default()), Err(Fault::NoObject));
    assert_eq!(params(&[("uids", "a")]), Err(Fault::NoPayload));
    assert_eq!(params(&[("uids", "a,"), ("data", "1")]).map_err(Fault::err), Err("bad_field"));
    assert_eq!(params(&[("uids", "a"), ("data", "1"), ("keep", "yes")]).map_err(Fault::err), Err("bad_field"));
    const DEEP: &str = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";
    assert_eq!(params(&[("uids", "a"), ("data", DEEP)]), Err(Fault::TooDeep { depth_max: 32 }));
}

#[test]
fn a_kick_needs_an_audience_too() {
    let limits = FrameLimits::default();
    let kick = kick_from_json(&pid(), br#"{"uids":["a"]}"#, &limits).unwrap();
    assert!(matches!(&kick, Record::Control(control) if control.op == ControlOp::Kick));
    assert_eq!(Ok(kick), kick_from_params(&pid(), |name| (name == "uids").then_some("a"), &limits));
    assert_eq!(kick_from_json(&pid(), b"{}", &limits), Err(Fault::NoAudience));
}

#[test]
fn a_body_and_a_query_fill_each_other_in_and_never_disagree() {
    let (pid, limits) = (Pid::new("1").expect("a pid"), FrameLimits::default());
    let mixed = |body: &str, params: &[(&str, &'static str)]| {
        let param = |name: &str| params.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        from_json_and_params(&pid, body.as_bytes(), param, &limits)
    };
    let record = mixed(r#"{"data": [1e999], "keep":true}"#, &[("tags", "a.b"), ("affair_id", "x")]);
    let Ok(Record::Publication(publication)) = record else { panic!("{record:?}") };
    assert_eq!((&*publication.tag, &publication.payload[..]), ("a.b", &b"[1e999]"[..]));
    assert!(publication.keep && publication.affair_id.as_deref() == Some("x"));
    for (body, params) in [
        (r#"{"data":1,"uids":["a"]}"#, [("uids", "b"), ("x", "")]),
        (r#"{"data":1,"uids":["a"]}"#, [("data", "1"), ("x", "")]),
        (r#"{"data":1,"uids":["a"],"affair_id":"y"}"#, [("affair_id", "y"), ("x", "")]),
    ] {
        let fault = mixed(body, &params);
        assert!(matches!(fault, Err(Fault::BadField { rule: GIVEN_ONCE, .. })), "{body}: {fault:?}");
    }
    assert_eq!(mixed(r#"{"data":1}"#, &[("all", "")]), Err(Fault::NoAudience));
    assert!(matches!(mixed(r#"{"data":1,"all":true}"#, &[("uids", "b")]), Err(Fault::BadField { .. })));
    assert!(kick_from_json_and_params(&pid, b"{}", |_| None, &limits).is_err());
}
