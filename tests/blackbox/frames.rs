//! RFC 6455, strictly: every violation has its close code, and nothing is buffered for a message that is too large.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Config, Connect, Setup, json,
    raw::{Raw, frame, opcode, whole},
    run_with,
};

on_one_node!(
    violations_are_closed_with_their_code,
    a_users_message_over_64_kib_is_1009_by_its_header_alone,
    a_back_ends_message_may_have_a_mebibyte,
    fragments_make_one_message_with_control_frames_between,
    bad_utf8_is_refused_as_soon_as_it_is_bad,
    too_many_fragments_are_refused,
    valid_edges_are_accepted,
);

const MASK: Option<[u8; 4]> = Some([0xa5, 0x5a, 0x0f, 0xf0]);
const FINAL: u8 = 0x80;

async fn expect_close(cluster: &Cluster, case: &str, bytes: &[u8], codes: &[u16]) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    client.try_send(bytes).await;
    let (code, reason) = client.closed().await;
    assert!(codes.contains(&code), "{case}: {code} {reason}");
    client.ended_within(Duration::from_secs(8)).await;
}

async fn violations_are_closed_with_their_code(cluster: Cluster) {
    let text = br#"{"type":"heart"}"#;
    let mut top_bit = vec![FINAL | opcode::TEXT, 0x80 | 127];
    top_bit.extend([0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]);
    let mut wide16 = vec![FINAL | opcode::TEXT, 0x80 | 126, 0, 5, 0, 0, 0, 0];
    wide16.extend(b"hello");
    let mut wide64 = vec![FINAL | opcode::TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0x01, 0, 0, 0, 0, 0];
    wide64.extend([b' '; 256]);
    let mut two_starts = frame(opcode::TEXT, MASK, b"{");
    two_starts.extend(frame(FINAL | opcode::TEXT, MASK, b"}"));
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("binary", whole(opcode::BINARY, b"\x00"), 1003),
        ("unmasked", frame(FINAL | opcode::TEXT, None, text), 1002),
        ("unmasked ping", frame(FINAL | opcode::PING, None, b""), 1002),
        ("RSV1", frame(FINAL | 0x40 | opcode::TEXT, MASK, text), 1002),
        ("RSV2", frame(FINAL | 0x20 | opcode::TEXT, MASK, text), 1002),
        ("RSV3", frame(FINAL | 0x10 | opcode::PING, MASK, b""), 1002),
        ("opcode 3", frame(FINAL | 3, MASK, text), 1002),
        ("opcode 11", frame(FINAL | 11, MASK, b""), 1002),
        ("a fragmented ping", frame(opcode::PING, MASK, b""), 1002),
        ("a long ping", whole(opcode::PING, &[b'x'; 126]), 1002),
        ("a continuation of nothing", frame(FINAL | opcode::CONTINUATION, MASK, b"x"), 1002),
        ("a second start", two_starts, 1002),
        ("a length with its top bit", top_bit, 1002),
        ("a wider length than needed, 16 bits", wide16, 1002),
        ("a wider length than needed, 64 bits", wide64, 1002),
        ("a close of one byte", whole(opcode::CLOSE, b"\x03"), 1002),
        ("close code 999", whole(opcode::CLOSE, &999_u16.to_be_bytes()), 1002),
        ("close code 1005", whole(opcode::CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("close code 1006", whole(opcode::CLOSE, &1006_u16.to_be_bytes()), 1002),
        ("close code 5000", whole(opcode::CLOSE, &5000_u16.to_be_bytes()), 1002),
        ("a close reason that is no UTF-8", whole(opcode::CLOSE, b"\x03\xe8\xff"), 1007),
        ("text that is no UTF-8", whole(opcode::TEXT, b"{\"a\":\"\xc3\x28\"}"), 1007),
        ("a surrogate in UTF-8", whole(opcode::TEXT, b"\"\xed\xa0\x80\""), 1007),
        ("text that ends within a character", whole(opcode::TEXT, b"\"\xe6\xbc"), 1007),
    ];
    for (case, bytes, code) in cases {
        expect_close(&cluster, case, &bytes, &[code]).await;
    }
}

/// The header of a frame that announces `length` bytes.
fn announcing(length: u64) -> Vec<u8> {
    let mut header = vec![FINAL | opcode::TEXT, 0x80 | 127];
    header.extend(length.to_be_bytes());
    header.extend([1, 2, 3, 4]);
    header
}

async fn a_users_message_over_64_kib_is_1009_by_its_header_alone(cluster: Cluster) {
    expect_close(&cluster, "one byte too many", &announcing((64 << 10) + 1), &[1009]).await;
    expect_close(&cluster, "a terabyte", &announcing(1 << 40), &[1009]).await;
    let half = vec![b' '; 40_000];
    let mut in_parts = frame(opcode::TEXT, MASK, &half);
    in_parts.extend(frame(opcode::CONTINUATION, MASK, &half));
    expect_close(&cluster, "in fragments", &in_parts, &[1009]).await;
    let mut client = Raw::user(cluster.a(), "ann").await;
    let mut exact = br#"{"type":"heart","ack_id":"big","pad":""#.to_vec();
    exact.resize((64 << 10) - 2, b'x');
    exact.extend(br#""}"#);
    client.send(&whole(opcode::TEXT, &exact)).await;
    assert!(String::from_utf8_lossy(&client.frame().await.payload).contains("big"), "exactly the bound is taken");
}

async fn a_back_ends_message_may_have_a_mebibyte(cluster: Cluster) {
    let mut client = Client::user(cluster.a(), "ann").await;
    let mut backend = Client::backend(cluster.a(), "biz").await;
    let text = "x".repeat(1_000_000);
    backend.send(json!({"to": {"uids": ["ann"]}, "payload": text})).await;
    assert_eq!(client.next().await["payload"], text);
    let mut raw = Raw::connect(cluster.a(), &Connect::backend("biz")).await;
    raw.send(&announcing((1 << 20) + 1)).await;
    assert_eq!(raw.closed().await.0, 1009);
}

async fn fragments_make_one_message_with_control_frames_between(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    let text = r#"{"type":"heart","ack_id":"päng-漢"}"#.as_bytes();
    // Every cut of the text, also within a character, with a ping between.
    for cut in 1..text.len() {
        let mut bytes = frame(opcode::TEXT, MASK, &text[..cut]);
        bytes.extend(whole(opcode::PING, b"between"));
        bytes.extend(frame(opcode::CONTINUATION, MASK, b""));
        bytes.extend(frame(FINAL | opcode::CONTINUATION, MASK, &text[cut..]));
        client.send(&bytes).await;
        let pong = client.frame().await;
        assert_eq!((pong.opcode, pong.payload.as_slice()), (opcode::PONG, b"between".as_slice()), "cut at {cut}");
        let answer = client.frame().await;
        assert!(String::from_utf8_lossy(&answer.payload).contains("päng-漢"), "cut at {cut}: {answer:?}");
        // Below the rates of messages and of control frames.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

async fn bad_utf8_is_refused_as_soon_as_it_is_bad(cluster: Cluster) {
    // The message never ends; the bad byte alone decides.
    expect_close(&cluster, "in a first fragment", &frame(opcode::TEXT, MASK, b"abc\xff"), &[1007]).await;
    let mut later = frame(opcode::TEXT, MASK, b"\xe6\xbc");
    later.extend(frame(opcode::CONTINUATION, MASK, b"\x28"));
    expect_close(&cluster, "across fragments", &later, &[1007]).await;
}

async fn too_many_fragments_are_refused(cluster: Cluster) {
    let mut bytes = frame(opcode::TEXT, MASK, b"{");
    for _ in 0..1100 {
        bytes.extend(frame(opcode::CONTINUATION, MASK, b" "));
    }
    expect_close(&cluster, "1,101 fragments", &bytes, &[1008, 1009]).await;
}

async fn valid_edges_are_accepted(cluster: Cluster) {
    let mut client = Raw::user(cluster.a(), "ann").await;
    client.send(&whole(opcode::PING, &[b'x'; 125])).await;
    assert_eq!(client.frame().await.payload.len(), 125);
    for length in [125, 126, 127, 65_535 - 1] {
        let mut text = br#"{"type":"heart","pad":""#.to_vec();
        text.resize(length - 2, b'x');
        text.extend(br#""}"#);
        client.send(&whole(opcode::TEXT, &text)).await;
        assert_eq!(client.frame().await.opcode, opcode::TEXT, "{length} bytes");
    }
    for mask in [[0; 4], [0xff; 4]] {
        client.send(&frame(FINAL | opcode::TEXT, Some(mask), br#"{"type":"heart"}"#)).await;
        assert_eq!(client.frame().await.opcode, opcode::TEXT);
    }
    client.send(&whole(opcode::CLOSE, &4999_u16.to_be_bytes())).await;
    assert_eq!(client.frame().await.opcode, opcode::CLOSE);
}

#[test]
fn a_message_that_is_not_completed_in_time_is_refused() {
    run_with(Setup::ONE, Config::new().limit("fragments_timeout", "\"1s\""), async |cluster: Cluster| {
        let mut client = Raw::user(cluster.a(), "ann").await;
        client.send(&frame(opcode::TEXT, MASK, b"{")).await;
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.try_send(&frame(opcode::CONTINUATION, MASK, b" ")).await;
        }
        assert_eq!(client.closed().await.0, 1008);
    });
}
