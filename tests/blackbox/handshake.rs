//! A request that is no valid upgrade gets a plain HTTP error, and nobody is harmed by a bad one.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{Client, Cluster, Config, Connect, Setup, http, raw, run_with};

on_one_node!(bad_requests_get_honest_errors, heads_over_the_bounds_are_refused, garbage_harms_nobody);

async fn status(cluster: &Cluster, request: &str) -> http::Response {
    http::raw(cluster.a().ws, request.as_bytes()).await
}

async fn bad_requests_get_honest_errors(cluster: Cluster) {
    let target = Connect::user("ann").target();
    let good = raw::upgrade_request(&target, "x");
    let with = |header: &str| good.replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
    let version = status(&cluster, &good.replace("Version: 13", "Version: 8")).await;
    assert_eq!((version.status, version.header("sec-websocket-version")), (426, Some("13")), "{version:?}");
    let cases: &[(&str, String, &[u16])] = &[
        ("no key", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), &[400]),
        ("a short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), &[400]),
        ("no upgrade", format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), &[400, 426]),
        ("another method", good.replace("GET ", "POST "), &[400, 405]),
        ("another path", good.replace("/ws/connect", "/ws/disconnect"), &[404]),
        ("no host", good.replace("Host: x\r\n", ""), &[400]),
        ("two hosts", with("Host: y"), &[400]),
        ("a body", with("Content-Length: 5"), &[400]),
        ("a chunked body", with("Transfer-Encoding: chunked"), &[400]),
        ("a folded header", with("X-A: 1\r\n  2"), &[400]),
        ("a space before the colon", with("X-A : 1"), &[400]),
        ("a NUL", with("X-A: 1\u{0}"), &[400]),
        ("a bare CR", with("X-A: 1\r2"), &[400]),
        ("bare line feeds", good.replace("\r\n", "\n"), &[400]),
        ("another protocol version", good.replace("HTTP/1.1", "HTTP/2.0"), &[400, 505]),
        ("no HTTP", "hello\r\n\r\n".to_owned(), &[400]),
    ];
    for (case, request, expected) in cases {
        let answer = status(&cluster, request).await;
        assert!(expected.contains(&answer.status), "{case}: {} {}", answer.status, answer.text());
    }
    assert_eq!(status(&cluster, &good).await.status, 101);
}

async fn heads_over_the_bounds_are_refused(cluster: Cluster) {
    let target = Connect::user("ann").target();
    let good = raw::upgrade_request(&target, "x");
    let with = |header: &str| good.replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
    let many: String = (0..70).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(status(&cluster, &with(many.trim_end())).await.status, 431, "headers");
    assert_eq!(status(&cluster, &with(&format!("X-A: {}", "x".repeat(9000)))).await.status, 431, "head");
    let endless = format!("GET / HTTP/1.1\r\nX-A: {}", "x".repeat(64 << 10));
    assert_eq!(status(&cluster, &endless).await.status, 431, "a head without end");
    let long = raw::upgrade_request(&format!("{target}&pad={}", "x".repeat(5000)), "x");
    assert_eq!(status(&cluster, &long).await.status, 414, "target");
    let fits: String = (0..50).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(status(&cluster, &with(fits.trim_end())).await.status, 101);
}

async fn garbage_harms_nobody(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for listener in [cluster.a().ws, cluster.a().http] {
        for _ in 0..50 {
            let mut bytes: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
            if random.bool() {
                bytes.splice(0..0, *b"GET /ws/connect?");
            }
            let mut stream = TcpStream::connect(listener).await.expect("the listener lives");
            let _ = stream.write_all(&bytes).await;
            if random.bool() {
                let _ = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
            }
        }
    }
    client.settle().await;
    Client::user(cluster.a(), "bob").await.settle().await;
    assert!(cluster.a().metric("ws_panics_total").await == 0.0, "seed {seed}");
}

#[test]
fn a_slow_handshake_is_cut_at_its_deadline_whatever_trickles() {
    run_with(Setup::ONE, Config::new().limit("handshake_timeout", "\"1s\""), async |cluster: Cluster| {
        let mut stream = TcpStream::connect(cluster.a().ws).await.expect("a connection");
        let begun = Instant::now();
        let request = raw::upgrade_request(&Connect::user("ann").target(), "x");
        for byte in request.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            let mut answer = [0; 512];
            match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await {
                Ok(Ok(n)) if n > 0 => assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", &answer[..n]),
                Ok(_) => break,
                Err(_) => {}
            }
        }
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(4), "{waited:?}");
    });
}
