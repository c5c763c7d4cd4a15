//! What a message passes on its way, each station set up and ready to be called: shared by the timings and the counts.

pub mod counted;
pub mod in_turns;

use std::{
    io::{IoSlice, Read},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Runtime, task::LocalSet};
use ws_cluster::{
    broker::{
        Durability,
        log::{Log, LogEvent, LogEvents, LogSettings},
        memory::Memory,
    },
    hub::{Hub, HubSettings, NewSession},
    limits::{FrameLimits, Limits, QueueLimits},
    metrics::Counters,
    model::{
        AckTo, Boot, FollowStart, Pid, Publication, Published, Record, RecordId, Role, SessionId, Stamp, Tag, TagRules,
        Ticket,
    },
    protocol::{
        command,
        decoder::Decoder,
        handshake::{self, HandshakeLimits},
        message,
        wire::{Batch, encode_batch},
    },
};

/// A bar as feeds send it.
pub const KLINE: &str = r#"{"s":"BTCUSDT","i":"1m","t":1795460000000,"o":"68012.10","h":"68020.00","l":"68001.55","c":"68011.07","v":"12.334"}"#;
/// Most frames of one write of a delivery.
const SLICES: usize = 4;

/// A masked frame of 40 bytes, as a user's client sends it.
pub fn small_frame() -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 40, 1, 2, 3, 4];
    frame.extend((0..40_usize).map(|at| b'x' ^ [1, 2, 3, 4][at % 4]));
    frame
}

/// Decodes a copy of [`small_frame`].
pub fn decode() -> impl FnMut() -> usize {
    let (frame, mut copy, mut decoder) = (small_frame(), small_frame(), Decoder::new(64 << 10, 1024));
    move || {
        copy.copy_from_slice(&frame);
        decoder.feed(&mut copy).expect("a good frame").0
    }
}

/// Reads the head of a connect as browsers send it.
pub fn read_a_head() -> impl FnMut() -> usize {
    let head = "GET /ws/connect?pid=502&uid=u1&type=1&exp=1795460000&sign=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef HTTP/1.1\r\nHost: push.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: https://app.example.com\r\nUser-Agent: Mozilla/5.0\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let limits = HandshakeLimits::from(&Limits::default().opening);
    move || handshake::parse(head.as_bytes(), &limits).expect("a good head").expect("a whole one").1
}

/// Parses a subscription as users send it.
pub fn parse_a_subscribe() -> impl FnMut() -> bool {
    let text =
        r#"{"type":"subscribe","ack_id":"17","tags":["kline.BTCUSDT.1m",{"tag":"kline.ETHUSDT.1m","since":"a-1"}]}"#;
    let limits = FrameLimits::default();
    move || command::parse_user(text, &limits).command.is_ok()
}

/// Parses a push as back-ends send it.
pub fn parse_a_push() -> impl FnMut() -> bool {
    let text = format!(r#"{{"ack_id":"17","to":{{"tags":["kline.BTCUSDT.1m"]}},"payload":{KLINE}}}"#);
    let (pid, limits) = (Pid::new("502").expect("a pid"), FrameLimits::default());
    move || command::parse_backend(&text, &pid, &limits).command.is_ok()
}

/// Writes the text of a publication, which happens once a core.
pub fn write_a_publication() -> impl FnMut() -> usize {
    let (published, mut text) = (published(), Vec::new());
    move || {
        text.clear();
        message::publication(&mut text, &published, message::Arrival::Live { merged: 0 });
        text.len()
    }
}

/// Writes a batch of so many publications for the queue.
pub fn encode_for_the_queue(records: usize) -> impl FnMut() -> usize {
    let records = vec![publication(); records];
    move || encode_batch(7, 1, &records).len()
}

/// Reads a batch of so many publications as every node hears them.
pub fn decode_from_the_queue(records: usize) -> impl FnMut() -> usize {
    let batch = encode_batch(7, 1, &vec![publication(); records]);
    move || Batch::decode(batch.clone()).expect("a batch").count()
}

/// A core as it is when nothing is configured.
pub fn settings() -> HubSettings {
    HubSettings {
        node: 1,
        boot: Boot(1),
        core: 0,
        limits: Arc::new(Limits::default()),
        rules: TagRules::default(),
        outboxes_bytes_max: usize::MAX,
    }
}

/// One core's sessions, all of which follow the tag of [`published`].
pub fn hub(subscribers: usize) -> Hub {
    let mut hub = Hub::new(settings(), Arc::<Counters>::default());
    for _ in 0..subscribers {
        follower(&mut hub);
    }
    hub
}

/// One more session, which follows the tag of [`published`].
pub fn follower(hub: &mut Hub) -> SessionId {
    let published = published();
    let id = hub.open(NewSession {
        pid: published.pid.clone(),
        role: Role::User,
        uid: format!("u{}", hub.len()).into(),
        device: None,
        tag_patterns: None,
        expires: None,
        deflate: None,
    });
    hub.follow(id, &published.tag, None).expect("it may");
    hub.followed(id, &published.pid, &published.tag, FollowStart::Empty);
    id
}

/// Routes, encodes and queues a publication for all subscribers of a core, and takes it off again.
pub fn deliver(subscribers: usize) -> impl FnMut() -> usize {
    deliver_run(1, subscribers)
}

/// The same for so many publications of one tag that follow each other.
pub fn deliver_run(publications: usize, subscribers: usize) -> impl FnMut() -> usize {
    let mut hub = hub(subscribers);
    let run: Vec<Arc<Published>> = (0..publications).map(|_| Arc::new(published())).collect();
    move || publish(&mut hub, &run, |_, slices| slices.iter().map(|slice| slice.len()).sum())
}

/// The same, with a socket for each: written as it is by the kernel's TCP.
pub struct Sockets {
    hub: Hub,
    published: Arc<Published>,
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Sockets {
    /// So many subscribers on the loopback.
    pub fn new(subscribers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let pair = |_| {
            let client = TcpStream::connect(address).expect("a connection");
            let (server, _) = listener.accept().expect("its other end");
            server.set_nodelay(true).expect("an option");
            (server, client)
        };
        Self { hub: hub(subscribers), published: Arc::new(published()), pairs: (0..subscribers).map(pair).collect() }
    }

    /// Delivers one publication to all; the bytes of one of them.
    pub fn deliver(&mut self) -> usize {
        let Self { hub, published, pairs } = self;
        publish(hub, std::slice::from_ref(published), |at, slices| {
            std::io::Write::write_vectored(&mut &pairs[at].0, slices).expect("it takes a few bytes")
        })
    }

    /// Reads so many bytes at every subscriber.
    pub fn drain(&mut self, bytes: usize) {
        let mut buffer = vec![0; bytes];
        self.pairs.iter_mut().for_each(|(_, client)| client.read_exact(&mut buffer).expect("what was written"));
    }
}

/// Publications of a tag through a hub; `write` gets what each session is owed, by its turn. The bytes of the last.
fn publish(hub: &mut Hub, run: &[Arc<Published>], mut write: impl FnMut(usize, &[IoSlice<'_>]) -> usize) -> usize {
    hub.publish_all(run);
    let (mut at, mut bytes) = (0, 0);
    while let Some(id) = hub.next_dirty() {
        match hub.only(id) {
            Some(frame) => {
                bytes = write(at, &[IoSlice::new(frame)]);
                hub.wrote_only(id);
            }
            None => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = hub.gather(id, &mut slices);
                bytes = write(at, &slices[..filled]);
                hub.wrote(id, bytes, false);
            }
        }
        at += 1;
    }
    bytes
}

/// A node's log over the embedded queue.
pub struct Appending {
    runtime: Runtime,
    local: LocalSet,
    log: Log,
    events: LogEvents,
    number: u64,
}

impl Appending {
    /// A log that is ready.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let settings = LogSettings {
            node: 1,
            boot: Boot(1),
            seed: 1,
            shards: 1,
            lease_text: String::new(),
            durability: Durability::Log,
            limits: QueueLimits::default(),
        };
        let (log, events) = local.block_on(&runtime, async {
            let (log, mut events) = Log::start(Arc::new(Memory::new(64 << 20)), settings, Arc::default());
            while events.next().await != LogEvent::Ready {}
            (log, events)
        });
        Self { runtime, local, log, events, number: 0 }
    }

    /// Appends so many publications at once, and waits until all are acknowledged and heard.
    pub fn append(&mut self, records: usize) -> usize {
        let Self { runtime, local, log, events, number } = self;
        *number += 1;
        let ticket = Ticket { core: 0, number: *number };
        local.block_on(runtime, async {
            for index in 0..records as u32 {
                log.append(publication(), AckTo::Submission { ticket, index }).expect("there is room");
            }
            let (mut told, mut heard) = (0, 0);
            let all = async {
                while told < records || heard < records {
                    match events.next().await {
                        LogEvent::Appended { result, .. } => told += usize::from(result.is_ok()),
                        LogEvent::Heard { .. } => heard += 1,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), all).await.expect("all in time");
            heard
        })
    }
}

/// A publication as it is delivered.
pub fn published() -> Published {
    Published {
        id: RecordId { origin: 0xc81f_0a2b_3c4d, seq: 42 },
        prev: Some(RecordId { origin: 0xc81f_0a2b_3c4d, seq: 41 }),
        pid: Pid::new("502").expect("a pid"),
        tag: Tag::new("kline.BTCUSDT.1m").expect("a tag"),
        keep: false,
        affair_id: None,
        payload: Bytes::from_static(KLINE.as_bytes()),
        stamp: Stamp::default(),
    }
}

/// A publication as it goes into the log.
pub fn publication() -> Record {
    let Published { pid, tag, keep, affair_id, payload, stamp, .. } = published();
    Record::Publication(Publication { pid, tag, keep, affair_id, idempotency_key: None, payload, stamp })
}
