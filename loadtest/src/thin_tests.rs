//! Method: a listener that plays prepared bytes in pieces of every size, and the masked frames read back by hand.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const GREETING: &str = r#"{"type":"connect","ack_id":"","code":1,"msg":"","payload":{}}"#;

fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// A peer that accepts the upgrade and sends `bytes` behind it, `piece` at a time; what the client sent comes back.
async fn peer(bytes: Vec<u8>, piece: usize) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.expect("a head") > 0);
        }
        let head = String::from_utf8(head).expect("text");
        let (_, key) = head.split_once("Sec-WebSocket-Key: ").expect("a key");
        let accept = derive_accept_key(key.lines().next().expect("a line").as_bytes());
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        let all = [answer.as_bytes(), &server_frame(OPCODE_TEXT, GREETING.as_bytes()), &bytes].concat();
        for piece in all.chunks(piece) {
            stream.write_all(piece).await.expect("sent");
            tokio::task::yield_now().await;
        }
        let mut sent = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(100), stream.read_to_end(&mut sent)).await;
        sent
    });
    (authority, task)
}

async fn texts(thin: &mut Thin) -> (Vec<(u64, String)>, Ending) {
    let (scratch, mut texts) = (Scratch::default(), Vec::new());
    loop {
        let taken = thin
            .receive(&scratch, |text| texts.push((text.at, String::from_utf8(text.bytes.to_vec()).expect("text"))))
            .await;
        if let Err(ending) = taken {
            return (texts, ending);
        }
    }
}

#[tokio::test]
async fn frames_come_whole_with_their_place_however_the_stream_is_cut() {
    let long = "x".repeat(300);
    let stream = [
        server_frame(OPCODE_TEXT, b"one"),
        server_frame(OPCODE_PING, b"p"),
        server_frame(OPCODE_TEXT, long.as_bytes()),
        server_frame(OPCODE_CLOSE, &4008_u16.to_be_bytes()),
    ]
    .concat();
    let first = (GREETING.len() + 2) as u64;
    for piece in [1, 2, 3, 7, 100, 10_000] {
        let (authority, peer) = peer(stream.clone(), piece).await;
        let mut thin = Thin::open(&authority, "/x", 0).await.expect("a connection");
        let (texts, ending) = texts(&mut thin).await;
        assert_eq!(texts, [(first, "one".to_owned()), (first + 8, long.clone())], "pieces of {piece}");
        assert_eq!(ending, Ending::Closed(4008));
        assert_eq!(thin.received(), first + stream.len() as u64);
        drop(thin);
        let sent = peer.await.expect("the peer");
        assert_eq!((sent.len(), sent[0], sent[1]), (7, 0x80 | OPCODE_PONG, 0x80 | 1), "the ping is answered");
        assert_eq!(sent[6] ^ sent[2], b'p');
    }
}

#[tokio::test]
async fn what_a_server_must_not_send_is_told() {
    for (bytes, what) in [
        (vec![0x01, 0x00], "a fragment"),
        (vec![0xC1, 0x00], "a compressed frame"),
        (vec![0x81, 0x80, 0, 0, 0, 0], "a masked frame"),
        (vec![0x82, 0x00], "a binary frame"),
        (vec![0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255], "a length beyond any bound"),
    ] {
        let (authority, _peer) = peer(bytes, 100).await;
        let opened = Thin::open(&authority, "/x", 4096).await.expect("a connection");
        let ending = texts(&mut { opened }).await.1;
        assert!(matches!(ending, Ending::Broken(_)), "{what}: {ending:?}");
    }
}

#[test]
fn client_frames_are_masked_and_minimal() {
    for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let mut out = Vec::new();
        let payload = vec![7; length];
        encode(&mut out, OPCODE_TEXT, &payload, [1, 2, 3, 4]);
        assert_eq!(out.len(), header + 4 + length);
        assert_eq!((out[0], out[1] & 0x80), (0x81, 0x80));
        assert_eq!(out[header..header + 4], [1, 2, 3, 4]);
        assert!(out[header + 4..].iter().enumerate().all(|(at, byte)| byte ^ [1, 2, 3, 4][at % 4] == 7));
    }
}
