//! What waits for one socket leaves together, and a socket for which nothing else waits is not kept waiting.
//!
//! Method: the node's count of its writes, and `strace` on the running node: how many bytes one write takes, and whether
//! a core slept between what it received and what it answered.

use crate::support::{
    Client, Cluster, Config, Connect, Setup, Value, json,
    raw::{Raw, opcode, whole},
    run_with,
    trace::{Call, Trace},
};

/// Runs a test with both drivers.
fn with_both(config: impl Fn() -> Config, test: impl AsyncFn(Cluster)) {
    for setup in [Setup::ONE, Setup::ONE_EPOLL] {
        run_with(setup, config(), &test);
    }
}

/// Pings, and every other one a `heart`, in one segment.
fn burst(count: usize, hearts: bool) -> Vec<u8> {
    let frame = |n: usize| match hearts && n % 2 == 1 {
        true => whole(opcode::TEXT, format!(r#"{{"type":"heart","ack_id":"{n}"}}"#).as_bytes()),
        false => whole(opcode::PING, n.to_string().as_bytes()),
    };
    (0..count).flat_map(frame).collect()
}

async fn expect_answers(raw: &mut Raw, count: usize, hearts: bool) {
    for n in 0..count {
        let frame = raw.frame().await;
        if hearts && n % 2 == 1 {
            let heart: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            assert_eq!((&heart["type"], &heart["ack_id"]), (&json!("heart"), &json!(n.to_string())), "in order");
        } else {
            assert_eq!((frame.opcode, frame.payload), (opcode::PONG, n.to_string().into_bytes()), "in order");
        }
    }
}

#[test]
fn what_came_in_one_segment_is_answered_in_one_write() {
    const FRAMES: usize = 100;
    let rates = || Config::new().limit("control_frames_per_second", 1000).limit("messages_per_second", 1000);
    with_both(rates, async |cluster: Cluster| {
        let mut raw = Raw::user(cluster.a(), "ann").await;
        for hearts in [false, true] {
            let before = saved(&cluster, &mut raw).await;
            raw.send(&burst(FRAMES, hearts)).await;
            expect_answers(&mut raw, FRAMES, hearts).await;
            let after = saved(&cluster, &mut raw).await;
            assert_eq!(after - before, (FRAMES - 1) as f64, "one write for {FRAMES} answers (hearts: {hearts})");
        }
    });
}

/// How many writes were saved by frames that went together: frames less writes.
async fn saved(cluster: &Cluster, raw: &mut Raw) -> f64 {
    // A write is counted after its bytes are on their way. Before this answer is written, all earlier ones are counted;
    // itself it is one frame and one write, and makes no difference.
    raw.send(&burst(1, false)).await;
    expect_answers(raw, 1, false).await;
    let node = cluster.a();
    let mut last = f64::NAN;
    loop {
        let frames = node.metric(r#"ws_frames_total direction="out""#).await;
        let now = frames - node.metric("ws_writes_total").await;
        // Its write may be counted between the two looks, but not twice.
        if now == last {
            return now;
        }
        last = now;
    }
}

/// The calls between receiving something on a descriptor and the next write to it, for each time that happened.
fn answers(thread: &[Call]) -> Vec<&[Call]> {
    let received = |call: &Call| call.name.starts_with("recv") && call.result > 0;
    let starts = thread.iter().enumerate().filter(|(_, call)| received(call));
    let answer = |(at, call): (usize, &Call)| {
        let rest = &thread[at..];
        let end = rest.iter().position(|sent| sent.is_write() && sent.descriptor() == call.descriptor())?;
        Some(&rest[..=end])
    };
    starts.filter_map(answer).collect()
}

#[test]
fn an_idle_socket_is_answered_before_its_core_sleeps_again() {
    const TIMES: usize = 20;
    with_both(Config::new, async |cluster: Cluster| {
        let mut raw = Raw::user(cluster.a(), "ann").await;
        let calls = "trace=recvfrom,recvmsg,sendto,sendmsg,io_uring_enter,epoll_wait,epoll_pwait,epoll_pwait2";
        let Some(trace) = Trace::of(cluster.a(), &["-ff", "-s", "0", "-e", calls]).await else { return };
        for n in 0..TIMES {
            raw.send(&burst(1 + n % 2, true)).await;
            expect_answers(&mut raw, 1 + n % 2, true).await;
        }
        let threads = trace.threads().await;
        let answers: Vec<&[Call]> = threads.iter().flat_map(|thread| answers(thread)).collect();
        assert_eq!(answers.len(), TIMES, "each was received at once and answered: {answers:?}");
        for answer in answers {
            // Nothing else has to happen: no timer, no further byte, no company.
            assert!(!answer.iter().any(Call::waits), "the core slept before it answered: {answer:?}");
            assert_eq!(answer.iter().filter(|call| call.is_write()).count(), 1, "{answer:?}");
        }
    });
}

#[test]
fn a_backlog_leaves_in_writes_of_up_to_64_kib() {
    const BACKLOG: usize = 600;
    // A tracer takes its time, and a reader that does not read is closed when that takes too long. On one core what
    // one subscriber has got was queued for the other too.
    let config = || Config::new().limit("write_timeout", "\"60s\"").flags(&["--cores", "1"]);
    with_both(config, async |cluster: Cluster| {
        let api = cluster.a().api();
        let tags = Connect { tags: Some("heavy,bars"), ..Connect::user("ann") };
        let mut raw = Raw::connect(cluster.a(), &tags).await;
        let mut witness = Client::user(cluster.a(), "bob").await;
        witness.subscribe(&["bars"]).await;
        // The kernel is filled up first; then what is published has to wait.
        let filler = "x".repeat(50_000);
        let mut fillers = 0;
        while cluster.a().metric("ws_outbox_bytes").await == 0.0 {
            api.publish("heavy", json!(filler)).await;
            fillers += 1;
            assert!(fillers < 1000, "the kernel takes everything");
        }
        let payload = "y".repeat(198);
        let line = format!("{}\n", json!({"tags": ["bars"], "data": payload}));
        let (_, published) = api.batch(&line.repeat(BACKLOG)).await;
        assert!(published.iter().all(|answer| answer["code"] == 1), "{published:?}");
        for _ in 0..BACKLOG {
            witness.next().await;
        }
        let Some(trace) = Trace::of(cluster.a(), &["-ff", "-s", "0", "-e", "trace=sendto,sendmsg"]).await else {
            return;
        };
        let mut bars = 0;
        while bars < BACKLOG {
            let frame = raw.frame().await;
            let message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            if message["tag"] == "bars" {
                assert_eq!(message["id"], published[bars]["payload"]["id"], "in order");
                bars += 1;
            }
        }
        let writes: Vec<Call> = trace.threads().await.into_iter().flatten().collect();
        let bytes = writes.iter().map(|write| write.result).max();
        // How much of it the kernel takes at a time is the kernel's business; a segment's worth would be too little.
        assert!(bytes > Some(16 << 10) && bytes <= Some(64 << 10), "the largest took {bytes:?} bytes: {writes:?}");
    });
}
