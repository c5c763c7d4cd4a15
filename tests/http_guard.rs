//! The guard: no byte sequence makes the server panic, hang, take one request for two, or hold more than its bounds.
//! Method: raw bytes over loopback against the real server with an echoing handler; after each bad case the same
//! server must still answer a good one.

mod http_support;

use std::{net::SocketAddr, time::Duration};

use http_support::{Answer, Client, Served, ask, eventually, pause, serve};
use ws_cluster::{
    http::{Handler, Head, Preview, Request, Response},
    limits::HttpLimits,
    metrics::{Count, requests::Url},
};

/// Says what it understood.
struct Echo;

impl Handler for Echo {
    fn preview(&self, head: &Head) -> Preview {
        match head.path() {
            "/early" => Preview::answer(Url::Other, Response::success("\"early\"")),
            "/always" => Preview::accept_always(Url::Other),
            _ => Preview::accept(Url::Other),
        }
    }

    async fn handle(&self, request: Request) -> Response {
        match request.head.path() {
            "/panic" => panic!("as asked"),
            "/slow" => monoio::time::sleep(Duration::from_secs(3)).await,
            _ => {}
        }
        let said = format!("{} {} {}", request.head.method, request.head.path(), request.body.len());
        Response::success(format!("{said:?}"))
    }
}

fn quick() -> HttpLimits {
    let half = Duration::from_millis(500);
    HttpLimits { head_timeout: half, body_timeout: half, idle_timeout: 2 * half, ..HttpLimits::default() }
}

fn echo() -> Served {
    serve(HttpLimits::default(), || Echo)
}

fn said(answer: &Answer) -> &str {
    answer.body.split('"').rev().nth(1).expect("an echo")
}

fn assert_alive(address: SocketAddr, after: &str) {
    let answer = ask(address, "GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(said(&answer), "GET /alive 0", "after {after}");
}

/// The answers to `bytes` in order, then whether the connection stays open.
fn assert_answers(address: SocketAddr, bytes: &[u8], expected: &[&str], stays: bool) {
    let name = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    let mut client = Client::send(address, bytes);
    for expected in expected {
        let answer = client.answer();
        assert_eq!((answer.status, said(&answer)), (200, *expected), "{name}");
    }
    match stays {
        true => assert!(client.is_silent_for(Duration::from_millis(100)), "{name}: not left open"),
        false => assert!(client.is_closed(), "{name}: left open"),
    }
    assert_alive(address, &name);
}

/// One error in the API's shape, then the end.
fn assert_refused(address: SocketAddr, bytes: &[u8], status: u16) {
    let name = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    let mut client = Client::send(address, bytes);
    let answer = client.answer();
    assert_eq!(answer.status, status, "{name}: {}", answer.body);
    assert!(answer.body.starts_with(r#"{"code":0,"err":""#), "{name}: {}", answer.body);
    assert_eq!(answer.header("connection"), Some("close"), "{name}");
    assert!(client.is_closed(), "{name}: left open");
    assert_alive(address, &name);
}

#[test]
fn good_requests_are_answered_in_every_framing() {
    let address = echo().address;
    let post = |rest: &str| format!("POST /p HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes();
    assert_answers(address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /a 0"], true);
    assert_answers(address, b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /a 0"], true);
    let three = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    assert_answers(address, &three, &["GET /a 0"; 3], true);
    assert_answers(address, &post("Content-Length: 5\r\n\r\nhello"), &["POST /p 5"], true);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    assert_answers(address, &post(&format!("{chunked}5\r\nhello\r\n0\r\n\r\n")), &["POST /p 5"], true);
    assert_answers(address, &post(&format!("{chunked}5;a=b\r\nhello\r\n0\r\n\r\n")), &["POST /p 5"], true);
    let trailer = post(&format!("{chunked}5\r\nhello\r\n0\r\nX: y\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_answers(address, &trailer, &["POST /p 5", "GET /next 0"], true);
    let get_with_body = b"GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /h HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_answers(address, get_with_body, &["GET /g 2", "GET /h 0"], true);
    assert_answers(address, b"GET http://b/abs HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /abs 0"], true);
}

#[test]
fn what_two_ends_could_frame_differently_is_refused_and_nothing_is_smuggled() {
    let address = echo().address;
    let smuggled = "GET /smug HTTP/1.1\r\nHost: a\r\n\r\n";
    for (status, rest) in [
        (400, "Transfer-Encoding: chunked\r\n\r\n\r\n\r\n"),
        (400, "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "Content-Length: 0\r\nContent-Length: 30\r\n\r\n"),
        (400, "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        (501, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (501, "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, "Content-Length : 5\r\n\r\nhello"),
        (400, "X: a\r\n b\r\n\r\n"),
        (400, "Content-Length: +5\r\n\r\nhello"),
        (400, "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloooo\r\n0\r\n\r\n"),
        (400, "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n"),
    ] {
        let bytes = format!("POST /p HTTP/1.1\r\nHost: a\r\n{rest}{smuggled}");
        assert_refused(address, bytes.as_bytes(), status);
    }
}

#[test]
fn malformed_heads_are_refused() {
    let address = echo().address;
    for (status, head) in [
        (400, "GET /lf HTTP/1.1\nHost: a\n\n"),
        (400, "GET /one HTTP/1.1\nHost: a\n\nGET /two HTTP/1.1\r\nHost: b\r\n\r\n"),
        (400, "GET /nohost HTTP/1.1\r\n\r\n"),
        (400, "GET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://[::: HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\n"),
    ] {
        assert_refused(address, head.as_bytes(), status);
    }
    assert_refused(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400);
}

#[test]
fn what_is_too_large_is_refused_by_its_size() {
    let address = echo().address;
    let head = |rest: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n").into_bytes();
    let many: String = (0..120).map(|n| format!("X{n}: y\r\n")).collect();
    assert_refused(address, &head(many.trim_end()), 431);
    assert_refused(address, &head(&format!("X: {}", "a".repeat(40_960))), 431);
    assert_refused(address, &head(&format!("{}: b", "a".repeat(70_000))), 431);
    assert_refused(address, &head(&format!("{}: b", "a".repeat(1000))), 431);
    assert_refused(address, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)).as_bytes(), 414);
    assert_refused(address, &head("Content-Length: 99999999999"), 413);
    assert_refused(address, &head("Transfer-Encoding: chunked\r\n\r\n7fffffff"), 413);
}

#[test]
fn the_peers_wishes_about_the_connection_are_honoured() {
    let address = echo().address;
    assert_answers(address, b"GET /ten HTTP/1.0\r\n\r\n", &["GET /ten 0"], false);
    assert_answers(address, b"GET /ten HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &["GET /ten 0"], true);
    let close = b"GET /cc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_answers(address, close, &["GET /cc 0"], false);
}

#[test]
fn an_answer_to_head_has_no_body() {
    let address = echo().address;
    let mut client = Client::send(address, b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_without_body().status, 200);
    assert_eq!(said(&client.answer()), "GET /next 0");
}

#[test]
fn a_peer_that_expects_it_is_told_to_continue() {
    let address = echo().address;
    let head = b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut client = Client::send(address, head);
    assert_eq!(client.answer_without_body().status, 100);
    client.write(b"hello").expect("still open");
    assert_eq!(said(&client.answer()), "POST /e 5");
    // One whose answer is known without the body gets it at once instead.
    let early = b"POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut client = Client::send(address, early);
    assert_eq!(said(&client.answer()), "early");
    assert!(client.is_closed());
}

#[test]
fn a_slow_head_and_a_slow_body_meet_their_deadlines() {
    let address = serve(quick(), || Echo).address;
    let mut client = Client::connect(address);
    for byte in b"GET / HTTP/1.1\r\nHost: a".iter().take(12) {
        let _ = client.write(&[*byte]);
        pause(Duration::from_millis(60));
    }
    assert_eq!(client.answer().status, 408);
    assert!(client.is_closed());
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell";
    let mut client = Client::send(address, head);
    assert_eq!(client.answer().status, 408);
    assert!(client.is_closed());
    assert_alive(address, "slow ones");
}

#[test]
fn silence_is_closed_without_a_word() {
    let address = serve(quick(), || Echo).address;
    assert!(Client::connect(address).is_closed());
    let mut client = Client::send(address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert!(client.is_silent_for(Duration::from_millis(500)));
    assert!(client.is_closed());
}

#[test]
fn an_endless_head_is_cut_off_in_bounded_memory() {
    let address = echo().address;
    let before = resident_bytes();
    let mut client = Client::send(address, b"GET / HTTP/1.1\r\n");
    let line = [b"X: ".as_slice(), &b"a".repeat(65_000), b"\r\n"].concat();
    let mut sent = 0;
    while sent < 64 << 20 && client.write(&line).is_ok() {
        sent += line.len();
    }
    assert!(sent < 64 << 20, "never cut off");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert_alive(address, "an endless head");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

#[test]
fn a_panic_costs_one_connection_and_is_counted() {
    let served = echo();
    assert_refused(served.address, b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500);
    assert_eq!(served.counters.get(Count::Panics), 1);
}

#[test]
fn requests_beyond_the_bound_in_flight_are_told_when_to_come_back() {
    let served = serve(HttpLimits { in_flight_max: 1, ..HttpLimits::default() }, || Echo);
    let mut slow = Client::send(served.address, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the second is refused", || {
        let answer = ask(served.address, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.status == 200 || answer.header("retry-after") == Some("1"), "{answer:?}");
        answer.status == 503
    });
    assert_eq!(ask(served.address, "GET /always HTTP/1.1\r\nHost: a\r\n\r\n").status, 200, "probes are let in");
    assert_eq!(said(&slow.answer()), "GET /slow 0");
    assert_alive(served.address, "the rush");
}

#[test]
fn who_is_slow_with_a_small_body_keeps_nobody_out() {
    let served = serve(HttpLimits { in_flight_max: 1, ..HttpLimits::default() }, || Echo);
    let mut slow = Client::send(served.address, b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
    assert_alive(served.address, "a slow body");
    slow.write(b"o").expect("still open");
    assert_eq!(said(&slow.answer()), "POST /s 5");
}

#[test]
fn connections_beyond_the_bound_are_told_when_to_come_back() {
    let served = serve(HttpLimits { connections_max: 1, ..HttpLimits::default() }, || Echo);
    let mut first = Client::send(served.address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(first.answer().status, 200);
    let mut second = Client::send(served.address, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = second.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(second.is_closed());
    drop(first);
    eventually("the place is free again", || {
        Client::send(served.address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer().status == 200
    });
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let address = echo().address;
    let requests: String = (0..2000).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let mut client = Client::connect(address);
    client.write(requests.as_bytes()).expect("the server reads");
    for n in 0..2000 {
        assert_eq!(said(&client.answer()), format!("GET /{n} 0"));
    }
}

#[test]
fn every_cut_of_a_request_is_answered_as_the_whole() {
    let address = echo().address;
    let request =
        b"\r\nPOST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: u\r\n\r\n";
    for cut in 1..request.len() {
        let mut client = Client::send(address, &request[..cut]);
        pause(Duration::from_millis(2));
        client.write(&request[cut..]).expect("still open");
        assert_eq!(said(&client.answer()), "POST /cut 5", "cut at {cut}");
    }
}

#[test]
fn random_bytes_never_harm_the_server() {
    let served = echo();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let parts: [&[u8]; 14] = [
        b"GET / HTTP/1.1\r\n",
        b"POST /p?x=%zz HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"ffffffff\r\n",
        b"\xff\xfe: \x80\r\n",
        b"\n",
        b"\r",
        b" :",
    ];
    for _ in 0..300 {
        let count = random.usize(1..12);
        let mut bytes: Vec<u8> = (0..count).flat_map(|_| parts[random.usize(..parts.len())].to_vec()).collect();
        if random.bool() {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        drop(Client::send(served.address, &bytes));
    }
    assert_alive(served.address, "noise");
    assert_eq!(served.counters.get(Count::Panics), 0);
}
