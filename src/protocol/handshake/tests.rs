//! Heads that a strict server must take or refuse.
//! Method: one good head, changed line by line; every head also cut at every byte.

use super::*;

const LIMITS: HandshakeLimits = HandshakeLimits { head_bytes_max: 8192, headers_max: 64, target_bytes_max: 4096 };

const GOOD: &str = "GET /ws/connect?pid=1&uid=a HTTP/1.1\r\nHost: example.com:8812\r\nUpgrade: websocket\r\n\
                    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";

fn read(head: &str) -> Result<Option<(Parsed, usize)>, HandshakeError> {
    parse(head.as_bytes(), &LIMITS)
}

fn status(head: &str) -> u16 {
    read(head).map_or_else(HandshakeError::status, |parsed| if parsed.is_some() { 101 } else { 0 })
}

fn upgrade(head: &str) -> Upgrade {
    match read(head) {
        Ok(Some((Parsed::Upgrade(upgrade), used))) if used == head.len() => *upgrade,
        other => panic!("{head:?} gave {other:?}"),
    }
}

#[test]
fn a_good_head_gives_its_parts() {
    let good = upgrade(&GOOD.replace("\r\n\r\n", "\r\nOrigin: https://a.b\r\n\r\n"));
    assert_eq!((&*good.path, &*good.query, &*good.host), ("/ws/connect", "pid=1&uid=a", "example.com:8812"));
    assert_eq!(good.origin.as_deref(), Some("https://a.b"));
    assert_eq!(accept_token(&good.key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((good.protocols, good.extensions), (None, None));
}

#[test]
fn every_cut_of_a_good_head_gives_the_same() {
    let whole = format!("{GOOD}\u{81}frames behind it\n\n");
    let bytes = whole.as_bytes();
    for cut in 0..=bytes.len() {
        let mut reader = HeadReader::default();
        let first = reader.read(&bytes[..cut], &LIMITS).unwrap();
        assert_eq!(first.is_some(), cut >= GOOD.len(), "{cut}");
        let (parsed, used) = first.or_else(|| reader.read(bytes, &LIMITS).unwrap()).unwrap();
        assert_eq!((used, matches!(parsed, Parsed::Upgrade(_))), (GOOD.len(), true), "{cut}");
    }
}

#[test]
fn byte_by_byte_a_bad_head_is_refused_as_it_is_at_once() {
    for (bad, _) in BAD {
        let head = bad.replace("{good}", GOOD);
        let whole = read(&head).unwrap_err();
        let mut reader = HeadReader::default();
        let slow = (0..=head.len()).find_map(|cut| reader.read(&head.as_bytes()[..cut], &LIMITS).err());
        assert_eq!(slow, Some(whole), "{bad:?}");
    }
}

const REST: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const BAD: &[(&str, u16)] = &[
    ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("\u{16}\u{3}\u{1}\0", 400),
];

#[test]
fn a_bad_head_is_refused() {
    for (head, expected) in BAD {
        assert_eq!(status(head), *expected, "{head:?}");
    }
}

#[test]
fn what_no_head_may_hold_is_refused_as_soon_as_it_comes() {
    let begun = "GET / HTTP/1.1\r\nHost: a";
    for bad in ["\rb", "\n", "\0", "\r\n folded", "\r\n\tfolded"] {
        assert!(read(&format!("{begun}{bad}")).is_err(), "{bad:?}");
    }
    assert_eq!(read(begun), Ok(None));
}

#[test]
fn an_upgrade_needs_each_of_its_headers_once() {
    for (without, expected) in [
        ("Connection: keep-alive, Upgrade\r\n", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
        ("Sec-WebSocket-Version: 13\r\n", 400),
    ] {
        assert_eq!(status(&GOOD.replace(without, "")), expected, "without {without:?}");
    }
    for twice in ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n"] {
        assert_eq!(status(&GOOD.replace(twice, &twice.repeat(2))), 400, "twice {twice:?}");
    }
    for key in ["", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j!Q==", "AAAA"] {
        let head = GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
        assert_eq!(status(&head), 400, "key {key:?}");
    }
}

#[test]
fn header_names_and_tokens_have_no_case_and_connection_is_a_list() {
    let head = GOOD
        .replace("Upgrade: websocket", "uPGRADE: WebSocket")
        .replace("Connection: keep-alive, Upgrade", "Connection: keep-alive\r\ncONNECTION: x ,\tuPGRADE");
    assert_eq!(&*upgrade(&head).path, "/ws/connect");
    assert_eq!(status(&GOOD.replace("keep-alive, Upgrade", "keep-alive, Upgraded")), 400);
}

#[test]
fn another_version_is_told_the_right_one() {
    for version in ["8", "12", "14", "013", "13, 8", "x"] {
        let error = read(&GOOD.replace("Version: 13", &format!("Version: {version}"))).unwrap_err();
        let response = String::from_utf8(error.response()).unwrap();
        assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{version}");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{version}");
    }
}

#[test]
fn a_get_without_upgrade_is_plain() {
    for extra in ["", "Content-Length: 0\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "Connection: Upgrade\r\n"] {
        let head = format!("GET /health?x=1 HTTP/1.1\r\nHost: [::1]:8812\r\n{extra}\r\n");
        let plain = PlainRequest { path: "/health".into(), query: "x=1".into() };
        assert_eq!(read(&head), Ok(Some((Parsed::Plain(plain), head.len()))), "{extra:?}");
    }
}

#[test]
fn values_that_are_no_text_are_no_obstacle_where_they_do_not_matter() {
    let head = GOOD.replace("Host:", "X-Anything: \u{e9}\u{20ac}\r\nHost:");
    assert_eq!(status(&head), 101);
    assert_eq!(status(&GOOD.replace("Host: example", "Host: \u{e9}xample")), 400);
    assert_eq!(status(&GOOD.replace("Host:", "Origin: \u{e9}\r\nHost:")), 400);
}

#[test]
fn each_bound_holds_at_its_number_and_breaks_behind_it() {
    let target = |bytes: usize| GOOD.replace("/ws/connect?pid=1&uid=a", &format!("/{}", "x".repeat(bytes - 1)));
    assert_eq!((status(&target(4096)), status(&target(4097)), status(&target(9000))), (101, 414, 414));

    let headers = |count: usize| {
        let extra: String = (0..count - 5).map(|n| format!("X-{n}: y\r\n")).collect();
        GOOD.replace("Host:", &format!("{extra}Host:"))
    };
    assert_eq!((status(&headers(64)), status(&headers(65))), (101, 431));

    let head = |bytes: usize| {
        let fill = bytes - GOOD.len() - "X: \r\n".len();
        GOOD.replace("Host:", &format!("X: {}\r\nHost:", "y".repeat(fill)))
    };
    assert_eq!((status(&head(8192)), status(&head(8193))), (101, 431));
}

#[test]
fn a_head_without_end_is_refused_at_its_bound() {
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(2000));
    assert_eq!(read(&endless[..8191]), Ok(None));
    assert_eq!(read(&endless[..8192]), Err(HandshakeError::HeadTooLarge));
    assert_eq!(read(&format!("GET /{}", "x".repeat(9000))), Err(HandshakeError::TargetTooLong));
}

#[test]
fn lists_in_several_headers_are_one() {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{REST}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a\r\n\
         Sec-WebSocket-Protocol: b, c\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    let upgrade = upgrade(&head);
    assert_eq!(upgrade.protocols.as_deref(), Some("a, b, c"));
    assert_eq!(upgrade.extensions.as_deref(), Some("permessage-deflate"));
}

#[test]
fn an_answer_is_whole_and_says_its_length() {
    let response = String::from_utf8(error_response(400, &[("X-Y", "z")], "no\n")).unwrap();
    assert_eq!(
        response,
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
         Connection: close\r\nX-Y: z\r\n\r\nno\n"
    );
    let accepted = |agreed| String::from_utf8(accept_response("dGhlIHNhbXBsZSBub25jZQ==", agreed)).unwrap();
    let plain = accepted(None);
    assert!(plain.starts_with("HTTP/1.1 101 ") && !plain.contains("Extensions"));
    assert!(plain.ends_with("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
    assert!(accepted(Some("x; y=1")).ends_with("=\r\nSec-WebSocket-Extensions: x; y=1\r\n\r\n"));
}

#[test]
fn credentials_in_the_query_do_not_show_in_debug() {
    let shown = format!("{:?}", upgrade(&GOOD.replace("uid=a", "sign=feedbeef")));
    assert!(!shown.contains("feedbeef"), "{shown}");
}
