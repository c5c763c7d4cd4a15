//! What the demo signs is accepted, what it serves is walled in, and a strange `Host` gets nowhere.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, header::CONTENT_TYPE};

use super::*;
use crate::{
    model::{
        Pid, Projects,
        project::{RequestRouting, Secret},
    },
    protocol::sign::{verify_call, verify_connect},
};

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn project() -> Project {
    Project {
        pid: Pid::new("1").expect("a name"),
        secrets: vec![Secret::new("a secret of the demo")],
        jwt: None,
        requests: RequestRouting::One,
        origins: Vec::new(),
    }
}

fn head(target: &str, host: &str) -> Head {
    let headers = HeaderMap::from_iter([(HOST, HeaderValue::try_from(host).expect("a value"))]);
    let uri = target.parse().expect("a target");
    Head { method: Method::GET, uri, headers, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) }
}

fn answer(target: &str, host: &str) -> Response {
    let demo = Demo::new(project(), Sockets::Port(8812));
    demo.answer(&head(target, host), NOW).expect("a path of the demo")
}

/// The one text of an answer's payload.
fn signed(target: &str, field: &str) -> String {
    let response = answer(target, "127.0.0.1:8912");
    assert_eq!(response.status, StatusCode::OK, "{target}");
    let body: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    body["payload"][field].as_str().expect("a text").to_owned()
}

fn header<'r>(response: &'r Response, name: &HeaderName) -> &'r str {
    let found = response.headers.iter().find(|(known, _)| known == name);
    found.and_then(|(_, value)| value.to_str().ok()).unwrap_or_default()
}

#[test]
fn what_it_signs_is_accepted() {
    let projects = Projects::new([project()]);
    let url = signed("/demo/sign/connect?uid=demo-7", "url");
    let query = url.strip_prefix("ws://127.0.0.1:8812/ws/connect?").expect("the WebSocket listener");
    let params = Params::parse(query).expect("a query");
    let identity = verify_connect(&projects, &params, NOW, CONNECT_TTL).expect("good credentials");
    assert_eq!((&*identity.uid, identity.role), ("demo-7", Role::User));

    let query = signed("/demo/sign/call?tags=demo&data=%7B%22a%22%3A%22%26%22%7D", "query");
    let params = Params::parse(&query).expect("a query");
    verify_call(&projects, &params, None, NOW, CALL_TTL).expect("good credentials");
    assert_eq!(params.get("data"), Some("{\"a\":\"&\"}"));
}

#[test]
fn it_signs_as_nobody_else() {
    for target in ["call?pid=2", "call?exp=9", "call?sign=x", "call?token=x", "call?a%3Db=1", "call?a=1&a=2"] {
        let response = answer(&format!("/demo/sign/{target}"), "a");
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{target}");
    }
    for target in ["connect", "connect?uid=", "connect?uid=a%2Cb"] {
        let response = answer(&format!("/demo/sign/{target}"), "a");
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{target}");
    }
}

#[test]
fn the_policy_names_this_node_alone_whatever_the_host_says() {
    for (asked, sockets) in [
        ("localhost:8912", "ws://localhost:8812;"),
        ("10.0.0.7", "ws://10.0.0.7:8812;"),
        ("[::1]:8912", "ws:;"),
        ("a b; script-src *", "ws://127.0.0.1:8812;"),
        ("*:8912", "ws://127.0.0.1:8812;"),
        ("evil.example/x:1", "ws://127.0.0.1:8812;"),
        (":8912", "ws://127.0.0.1:8812;"),
    ] {
        let response = answer("/demo", asked);
        let policy = header(&response, &CONTENT_SECURITY_POLICY);
        assert!(policy.contains(&format!("connect-src 'self' {sockets}")), "{asked}: {policy}");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains('*') && !policy.contains("unsafe"), "{policy}");
    }
    let at = Demo::new(project(), Sockets::At("wss://ws.example.com".to_owned()));
    let response = at.answer(&head("/", "a"), NOW).expect("the page");
    assert!(header(&response, &CONTENT_SECURITY_POLICY).contains("connect-src 'self' wss://ws.example.com;"));
}

#[test]
fn the_page_and_all_it_names_are_served() {
    let page = answer("/demo", "a");
    assert_eq!((page.status, header(&page, &CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    let text = std::str::from_utf8(&page.body).expect("text");
    let named = text.split(['"', '\'']).filter(|part| part.starts_with("/demo/"));
    let named: Vec<&str> = named.collect();
    assert!(named.len() >= 4, "{named:?}");
    for path in named {
        assert!(files::find(path).is_some(), "{path}");
    }
    assert!(Demo::new(project(), Sockets::Port(1)).preview(&head("/demo/../x", "a")).is_none());
    let mut post = head("/demo/sign/call", "a");
    post.method = Method::POST;
    let preview = Demo::new(project(), Sockets::Port(1)).preview(&post).expect("a path of the demo");
    assert_eq!(preview.answer.expect("an answer").status, StatusCode::METHOD_NOT_ALLOWED);
}
