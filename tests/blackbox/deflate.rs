//! permessage-deflate, seen from outside: what is agreed on, what is compressed and how often, and what a compressed
//! message may not be.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use crate::support::{
    Cluster, Config, Connect, Setup, Value, json,
    raw::{Frame, Raw, frame, opcode},
    run_with,
};

on_one_node!(
    offers_are_answered_or_passed_over,
    compressed_messages_are_understood_and_answers_are_plain,
    a_compressed_message_that_is_none_is_closed,
    a_bomb_is_refused_and_costs_no_more_than_its_bound,
    what_messages_inflate_to_is_held_to_the_rate,
    a_broadcast_is_compressed_once_a_core_however_many_get_it,
    what_a_rule_leaves_out_or_is_short_goes_plain,
);

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const MASK: Option<[u8; 4]> = Some([0xa5, 0x5a, 0x0f, 0xf0]);
const FINAL: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// As a client sends it: compressed by itself, without its tail.
fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(payload.len() / 8 + 1024);
    let mut engine = Compress::new(Compression::best(), false);
    engine.compress_vec(payload, &mut data, FlushCompress::Sync).expect("room");
    assert_eq!(engine.total_in(), payload.len() as u64);
    data.strip_suffix(&TAIL).expect("a sync flush").to_vec()
}

fn compressed(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(FINAL | COMPRESSED | first, MASK, &deflate(payload))
}

/// A frame's JSON, with a window of so many bits; whether it was compressed.
fn read(frame: &Frame, window_bits: u8) -> (Value, bool) {
    let is_compressed = frame.opcode == COMPRESSED | opcode::TEXT;
    assert!(frame.last && (is_compressed || frame.opcode == opcode::TEXT), "{frame:?}");
    let mut text = frame.payload.clone();
    if is_compressed {
        let data = [&frame.payload[..], &TAIL].concat();
        let mut engine = Decompress::new_with_window_bits(false, window_bits);
        text = Vec::with_capacity(1 << 20);
        engine.decompress_vec(&data, &mut text, FlushDecompress::Sync).expect("a compressed message");
    }
    (serde_json::from_slice(&text).expect("JSON"), is_compressed)
}

async fn deflating(cluster: &Cluster, uid: &str) -> Raw {
    let (raw, agreed) = Raw::offering(cluster.a(), &Connect::user(uid), OFFER).await;
    assert_eq!(agreed.as_deref(), Some(AGREED));
    raw
}

async fn offers_are_answered_or_passed_over(cluster: Cluster) {
    for (offers, expected) in [
        (OFFER, Some("")),
        ("permessage-deflate", Some("")),
        ("permessage-deflate; server_max_window_bits=10", Some("; server_max_window_bits=10")),
        ("permessage-deflate; client_max_window_bits=9", Some("; client_max_window_bits=9")),
        ("permessage-deflate; server_max_window_bits=7, permessage-deflate", Some("")),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; what_is_this", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; =", None),
        (";;;\"", None),
    ] {
        let (mut raw, agreed) = Raw::offering(cluster.a(), &Connect::user("ann"), offers).await;
        assert_eq!(agreed, expected.map(|extra| format!("{AGREED}{extra}")), "{offers}");
        raw.send(&frame(FINAL | opcode::TEXT, MASK, br#"{"type":"heart","ack_id":"h"}"#)).await;
        assert_eq!(read(&raw.frame().await, 15).0["ack_id"], "h", "{offers}");
    }
}

async fn compressed_messages_are_understood_and_answers_are_plain(cluster: Cluster) {
    let mut raw = deflating(&cluster, "ann").await;
    let tags: Vec<String> = (0..200).map(|number| format!("kline.{number}.1m")).collect();
    let subscribe = json!({"type": "subscribe", "ack_id": "s", "tags": tags}).to_string();
    let data = deflate(subscribe.as_bytes());
    let (head, tail) = data.split_at(data.len() / 2);
    let pieces = [
        frame(COMPRESSED | opcode::TEXT, MASK, head),
        frame(FINAL | opcode::PING, MASK, b"p"),
        frame(FINAL, MASK, tail),
        compressed(opcode::TEXT, br#"{"type":"heart","ack_id":"h"}"#),
        frame(FINAL | opcode::TEXT, MASK, br#"{"type":"heart","ack_id":"plain"}"#),
    ];
    raw.send(&pieces.concat()).await;
    assert_eq!(raw.frame().await.opcode, opcode::PONG);
    let (answer, is_compressed) = read(&raw.frame().await, 15);
    assert_eq!((answer["payload"]["granted"].as_array().map(Vec::len), is_compressed), (Some(200), false));
    for ack_id in ["h", "plain"] {
        let (answer, is_compressed) = read(&raw.frame().await, 15);
        assert_eq!((answer["ack_id"].as_str(), is_compressed), (Some(ack_id), false));
    }
    assert_eq!(cluster.a().metric("ws_deflate_inflations_total").await, 2.0);
    assert_eq!(cluster.a().metric("ws_deflate_connections").await, 1.0);
}

async fn a_compressed_message_that_is_none_is_closed(cluster: Cluster) {
    let heart = br#"{"type":"heart","payload":"a heart that is long enough to be compressed"}"#;
    let data = deflate(heart);
    let cut = &data[..data.len() - 3];
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("no DEFLATE", frame(FINAL | COMPRESSED | opcode::TEXT, MASK, heart), 1007),
        ("cut off", frame(FINAL | COMPRESSED | opcode::TEXT, MASK, cut), 1007),
        ("no UTF-8", compressed(opcode::TEXT, b"\"\xff\""), 1007),
        ("binary", compressed(opcode::BINARY, heart), 1003),
        (
            "the bit on a continuation",
            [frame(COMPRESSED | opcode::TEXT, MASK, cut), frame(FINAL | COMPRESSED, MASK, b"x")].concat(),
            1002,
        ),
        ("the bit on a ping", frame(FINAL | COMPRESSED | opcode::PING, MASK, b""), 1002),
    ];
    for (case, bytes, expected) in cases {
        let mut raw = deflating(&cluster, "ann").await;
        raw.try_send(bytes).await;
        let (code, reason) = raw.closed().await;
        assert_eq!(code, *expected, "{case}: {reason}");
    }
    let mut raw = deflating(&cluster, "ann").await;
    raw.send(&compressed(opcode::TEXT, br#"{"type":"heart","ack_id":"h"}"#)).await;
    assert_eq!(read(&raw.frame().await, 15).0["ack_id"], "h", "the core goes on");
}

async fn a_bomb_is_refused_and_costs_no_more_than_its_bound(cluster: Cluster) {
    let bomb = compressed(opcode::TEXT, &vec![b' '; 60 << 20]);
    assert!(bomb.len() < 64 << 10, "{} bytes pass the frame's bound", bomb.len());
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.a().pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak").to_owned();
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("kibibytes") << 10
    };
    deflating(&cluster, "warm").await;
    let before = memory();
    for number in 0..20 {
        let mut raw = deflating(&cluster, &format!("bomber{number}")).await;
        raw.try_send(&bomb).await;
        assert_eq!(raw.closed().await.0, 1009);
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for 20 bombs of 60 MiB");
    let mut raw = deflating(&cluster, "ann").await;
    let at_bound = format!("{{\"type\":\"heart\",\"ack_id\":\"h\"}}{}", " ".repeat((64 << 10) - 30));
    assert!(at_bound.len() <= 64 << 10);
    raw.send(&compressed(opcode::TEXT, at_bound.as_bytes())).await;
    assert_eq!(read(&raw.frame().await, 15).0["ack_id"], "h");
}

async fn what_messages_inflate_to_is_held_to_the_rate(cluster: Cluster) {
    let mut raw = deflating(&cluster, "ann").await;
    let message = compressed(opcode::TEXT, format!("{{\"type\":\"heart\"}}{}", " ".repeat(60_000)).as_bytes());
    assert!(message.len() < 200, "{} bytes as they are sent", message.len());
    // 60 are 12 kB as they are sent, and 3.6 MB as they are understood, at 256 KiB a second.
    raw.try_send(&message.repeat(60)).await;
    assert_eq!(raw.closed().await.0, 1008);
}

/// A kline of about 1000 bytes.
fn kline(number: usize) -> Value {
    let bars: Vec<Value> =
        (0..12).map(|bar| json!({"t": number * 60 + bar, "o": "37000.51", "c": "37001.02"})).collect();
    json!({"number": number, "bars": bars, "symbol": "BTCUSDT", "interval": "1m"})
}

async fn a_broadcast_is_compressed_once_a_core_however_many_get_it(cluster: Cluster) {
    const PUBLICATIONS: usize = 10;
    let mut clients = Vec::new();
    for number in 0..200_usize {
        // One client in ten wants none, and the others' windows differ, but each holds a kline whole.
        let bits = [15, 12, 11, 13, 15][number % 5];
        let (uid, tagged) = (format!("u{number}"), Some("kline.deflate"));
        let connect = Connect { tags: tagged, ..Connect::user(&uid) };
        if number % 10 == 9 {
            clients.push((Raw::connect(cluster.a(), &connect).await, bits, false));
        } else {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            clients.push((Raw::offering(cluster.a(), &connect, &offer).await.0, bits, true));
        }
    }
    // What was asked for with the connect has come to be when a command that followed it is answered.
    for (raw, ..) in &mut clients {
        raw.send(&frame(FINAL | opcode::TEXT, MASK, br#"{"type":"subscribe","ack_id":"s","tags":["kline.deflate"]}"#))
            .await;
        assert_eq!(read(&raw.frame().await, 15).0["ack_id"], "s");
    }
    for number in 0..PUBLICATIONS {
        cluster.a().api().publish("kline.deflate", kline(number)).await;
        cluster.a().api().push_ok(&json!({"all": true, "data": kline(1000 + number)})).await;
    }
    for (raw, bits, deflates) in &mut clients {
        let (mut published, mut pushed) = (0, 0);
        while published + pushed < 2 * PUBLICATIONS {
            let (message, is_compressed) = read(&raw.frame().await, *bits);
            assert_eq!(is_compressed, *deflates, "{message}");
            let is_publication = message.get("tag").is_some();
            let (count, expected) = if is_publication { (&mut published, 0) } else { (&mut pushed, 1000) };
            assert_eq!(message["payload"], kline(expected + *count), "in order and whole");
            *count += 1;
        }
    }
    for core in 0..2 {
        let series = format!("ws_deflate_compressions_total core=\"{core}\"");
        let compressions = cluster.a().metric(&series).await;
        assert_eq!(compressions, 2.0 * PUBLICATIONS as f64, "core {core} has compressed each once for its ~90 clients");
    }
    let before = cluster.a().metric("ws_deflate_bytes_total stage=\"plain\"").await;
    let after = cluster.a().metric("ws_deflate_bytes_total stage=\"compressed\"").await;
    assert!(before > 2.0 * 2.0 * PUBLICATIONS as f64 * 500.0 && after < before / 2.0, "{before} to {after} bytes");
}

async fn what_a_rule_leaves_out_or_is_short_goes_plain(cluster: Cluster) {
    let connect = Connect { tags: Some("plain.kline,kline.short"), ..Connect::user("ann") };
    let (mut raw, _) = Raw::offering(cluster.a(), &connect, OFFER).await;
    raw.send(&compressed(opcode::TEXT, br#"{"type":"subscribe","ack_id":"s","tags":["plain.kline","kline.short"]}"#))
        .await;
    assert_eq!(read(&raw.frame().await, 15).0["ack_id"], "s");
    for (tag, payload) in [("plain.kline", kline(1)), ("kline.short", json!(1)), ("kline.short", kline(1))] {
        cluster.a().api().publish(tag, payload.clone()).await;
        let (message, is_compressed) = read(&raw.frame().await, 15);
        assert_eq!(message["payload"], payload);
        assert_eq!(is_compressed, tag == "kline.short" && payload != json!(1), "{tag}");
    }
    assert_eq!(cluster.a().metric("ws_deflate_compressions_total").await, 1.0);
}

#[test]
fn a_node_may_agree_on_no_compression() {
    run_with(Setup::ONE, Config::new().set("deflate", "false"), async |cluster: Cluster| {
        let (mut raw, agreed) = Raw::offering(cluster.a(), &Connect::user("ann"), OFFER).await;
        assert_eq!(agreed, None);
        raw.try_send(&compressed(opcode::TEXT, br#"{"type":"heart"}"#)).await;
        assert_eq!(raw.closed().await.0, 1002);
    });
}
