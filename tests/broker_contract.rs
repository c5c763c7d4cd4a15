//! Every queue answers the same: the contract of `Broker`, held to by the embedded queue and by a real Redis.
//!
//! Method: each behaviour is a function over a queue; two tests run all of them, each on shards of its own.

mod broker_support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use broker_support::{
    publication, run,
    server::{Keeps, RedisServer, is_available},
    text,
};
use bytes::Bytes;
use ws_cluster::{
    broker::{
        Append, Appended, Batch, Body, Broker, BrokerError, Claim, Claimed, Durability, Entry, Kind, News, Open,
        Opened, OriginLast, Position, Retain, Retained, StoredValue,
        memory::Memory,
        redis::{Redis, RedisSettings, TlsFiles},
    },
    model::Boot,
    protocol::wire::LogPosition,
};

/// A queue and a shard of it that nobody else uses.
struct Shard<'a> {
    queue: &'a dyn Broker,
    number: u16,
}

impl Shard<'_> {
    async fn open_seen(&self, seen: Position, grace: Duration) -> Opened {
        let open = Open { seen, origins: vec![], all_origins: true, grace };
        let mut opened = self.queue.open(self.number, open).await.expect("opened");
        opened.origins.sort_by_key(|last| last.origin);
        opened
    }

    async fn open(&self) -> Opened {
        self.open_seen(Position::default(), Duration::ZERO).await
    }

    async fn append(&self, append: Append) -> Appended {
        self.queue.append(self.number, append).await.expect("an answer")
    }

    async fn read(&self, after: Position) -> Vec<Entry> {
        self.queue.read(self.number, after, 100).await.expect("a page")
    }
}

fn batch(origin: u64, first_seq: u64, count: u64) -> Batch {
    let body = |seq: u64| Body::new(publication("t", &seq.to_string()), false);
    Batch::new(origin, first_seq, (first_seq..first_seq + count).map(body).collect())
}

fn append(epoch: u64, prev: u64, batch: Batch) -> Append {
    Append { epoch, seen_offset: 0, prev, batch: Arc::new(batch), durability: Durability::Log }
}

fn replay(epoch: u64, prev: u64, mut batch: Batch) -> Append {
    let place = |index| LogPosition { epoch: 1, offset: 1, index };
    batch.originals = (0..batch.bodies.len() as u32).map(place).collect();
    append(epoch, prev, batch)
}

fn stored(epoch: u64, offset: u64, kind: Kind) -> Appended {
    Appended::Stored { position: Position { epoch, offset }, kind }
}

fn seqs(entry: &Entry) -> Vec<u64> {
    let records = entry.content.clone().open().expect("readable");
    let seq = |record: &str| record.parse().expect("a number");
    records.into_iter().flatten().map(|entry| seq(&text(&entry.record.expect("a record")))).collect()
}

async fn appends_are_read_back_in_order(shard: Shard<'_>) {
    let epoch = shard.open().await.tail.epoch;
    assert_eq!(shard.append(append(epoch, 0, batch(7, 1, 3))).await, stored(epoch, 1, Kind::New));
    assert_eq!(shard.append(append(epoch, 0, batch(8, 1, 1))).await, stored(epoch, 2, Kind::New));
    assert_eq!(shard.append(append(epoch, 3, batch(7, 4, 2))).await, stored(epoch, 3, Kind::New));
    let entries = shard.read(Position::default()).await;
    assert_eq!(entries.iter().map(seqs).collect::<Vec<_>>(), [vec![1, 2, 3], vec![1], vec![4, 5]]);
    assert_eq!(shard.read(entries[0].position).await.len(), 2, "a page begins behind its cursor");
    assert_eq!(shard.queue.read(shard.number, Position::default(), 2).await.expect("a page").len(), 2);
    assert!(shard.read(entries[2].position).await.is_empty());
}

async fn a_second_attempt_is_told_that_it_is_there_and_a_gap_is_a_gap(shard: Shard<'_>) {
    let epoch = shard.open().await.tail.epoch;
    let first = append(epoch, 0, batch(7, 1, 3));
    shard.append(first.clone()).await;
    let place = Position { epoch, offset: 1 };
    assert_eq!(shard.append(first).await, Appended::Have(OriginLast { origin: 7, seq: 3, position: place }));
    assert_eq!(shard.append(append(epoch, 5, batch(7, 6, 1))).await, Appended::Gap);
    assert_eq!(shard.append(append(epoch, 0, batch(7, 1, 5))).await, Appended::Gap, "only a part is there");
    assert_eq!(shard.read(Position::default()).await.len(), 1);
    let opened = shard.open().await;
    assert_eq!(opened.tail, place);
    assert_eq!(opened.origins, [OriginLast { origin: 7, seq: 3, position: place }]);
}

async fn only_the_asked_origins_are_told(shard: Shard<'_>) {
    let epoch = shard.open().await.tail.epoch;
    shard.append(append(epoch, 0, batch(7, 1, 1))).await;
    shard.append(append(epoch, 0, batch(u64::MAX, 1, 1))).await;
    let open =
        Open { seen: Position::default(), origins: vec![9, u64::MAX], all_origins: false, grace: Duration::ZERO };
    let opened = shard.queue.open(shard.number, open).await.expect("opened");
    assert_eq!(opened.origins.iter().map(|last| last.origin).collect::<Vec<_>>(), [u64::MAX]);
}

async fn a_wrong_epoch_and_a_log_that_fell_back_are_fences(shard: Shard<'_>) {
    let epoch = shard.open().await.tail.epoch;
    assert_eq!(shard.append(append(epoch + 1, 0, batch(7, 1, 1))).await, Appended::Fenced);
    shard.append(append(epoch, 0, batch(7, 1, 1))).await;
    let ahead = Append { seen_offset: 2, ..append(epoch, 1, batch(7, 2, 1)) };
    assert_eq!(shard.append(ahead).await, Appended::Fenced);
    let again = shard.open_seen(Position { epoch, offset: 1 }, Duration::ZERO).await;
    assert_eq!(again.tail.epoch, epoch, "nothing is lost: the same epoch");
    let next = shard.open_seen(Position { epoch, offset: 2 }, Duration::ZERO).await;
    assert!(next.tail.epoch > epoch && next.tail.offset == 0);
    assert!(next.origins.is_empty(), "two histories: publishers bring everything");
    let higher = Position { epoch: next.tail.epoch + 1_000_000_000_000, offset: 5 };
    assert!(shard.open_seen(higher, Duration::ZERO).await.tail.epoch > higher.epoch);
}

async fn a_new_epoch_takes_replays_first_and_the_first_new_entry_seals_it(shard: Shard<'_>) {
    let first = shard.open().await.tail.epoch;
    let opened = shard.open_seen(Position { epoch: first, offset: 9 }, Duration::from_millis(200)).await;
    let epoch = opened.tail.epoch;
    assert!(!opened.sealed && opened.grace > Duration::from_millis(100));
    let wait = shard.append(append(epoch, 0, batch(8, 1, 1))).await;
    assert!(matches!(wait, Appended::Wait(pause) if pause <= Duration::from_millis(200)), "{wait:?}");
    assert_eq!(shard.append(replay(epoch, 0, batch(7, 4, 2))).await, stored(epoch, 1, Kind::Replayed));
    tokio::time::sleep(Duration::from_millis(250)).await;
    let seal = append(epoch, 5, batch(7, 6, 0));
    assert_eq!(shard.append(seal).await, stored(epoch, 2, Kind::New));
    assert_eq!(shard.append(replay(epoch, 0, batch(9, 1, 1))).await, stored(epoch, 3, Kind::ReplayedLate));
    assert_eq!(shard.append(append(epoch, 5, batch(7, 6, 1))).await, stored(epoch, 4, Kind::New));
    let opened = shard.open().await;
    assert!(opened.sealed && opened.grace.is_zero());
    let entries = shard.read(Position::default()).await;
    assert_eq!(entries.iter().map(seqs).collect::<Vec<_>>(), [vec![4, 5], vec![], vec![1], vec![6]]);
    let originals = entries[0].content.clone().open().expect("readable").into_iter().flatten();
    assert_eq!(originals.map(|entry| entry.original.map(|place| place.index)).collect::<Vec<_>>(), [Some(0), Some(1)]);
}

async fn news_come_to_a_subscriber(shard: Shard<'_>) {
    let epoch = shard.open().await.tail.epoch;
    let mut live = shard.queue.subscribe(shard.number).await.expect("subscribed");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let pushed = append(epoch, 0, batch(7, 1, 2));
    shard.append(pushed).await;
    let mut cursor = Position::default();
    loop {
        let news = tokio::time::timeout(Duration::from_secs(5), live.next()).await.expect("news");
        let entries = match news {
            News::Entry(entry) => vec![entry],
            News::Nudge | News::Missed => shard.read(cursor).await,
            News::Ended => panic!("it ended"),
        };
        if let Some(entry) = entries.first() {
            assert_eq!((entry.position, entry.kind), (Position { epoch, offset: 1 }, Kind::New));
            assert_eq!(seqs(entry), [1, 2]);
            return;
        }
        cursor = Position::default();
    }
}

async fn a_lease_belongs_to_one_boot_until_it_runs_out(shard: Shard<'_>) {
    let node = 100 + shard.number;
    let claim = |boot, ttl_ms| {
        let claim =
            Claim { node, boot: Boot(boot), text: "10.0.0.1:80".to_owned(), ttl: Duration::from_millis(ttl_ms) };
        async move { shard.queue.claim(claim).await.expect("an answer") }
    };
    assert_eq!(claim(1, 10_000).await, Claimed::Held);
    assert_eq!(claim(1, 300).await, Claimed::Held, "its own boot renews it");
    let other = claim(2, 10_000).await;
    assert!(matches!(&other, Claimed::Other { holder, left }
        if holder.contains("00000001") && holder.contains("10.0.0.1:80") && *left <= Duration::from_millis(300)));
    shard.queue.release(node, Boot(2)).await.expect("an answer");
    assert!(matches!(claim(2, 10_000).await, Claimed::Other { .. }), "only the holder gives it up");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(claim(2, 10_000).await, Claimed::Held);
    shard.queue.release(node, Boot(2)).await.expect("an answer");
    assert_eq!(claim(1, 10_000).await, Claimed::Held);
}

async fn all_nodes_have_the_same_number_of_shards(shard: Shard<'_>) {
    shard.queue.join(4).await.expect("the first says how many");
    shard.queue.join(4).await.expect("the same again");
    let refused = shard.queue.join(5).await;
    assert!(
        matches!(&refused, Err(BrokerError::Refused(why)) if why.contains('4') && why.contains('5')),
        "{refused:?}"
    );
}

/// Values of these names with their ages and texts.
fn values<'v>(values: impl IntoIterator<Item = (&'v str, u64, &'v str)>) -> Vec<StoredValue> {
    let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let stored = |(name, at_unix_ms, value)| StoredValue { name: owned(name), at_unix_ms, value: owned(value) };
    values.into_iter().map(stored).collect()
}

impl Shard<'_> {
    /// Stores values; whether the store was empty before, and how many were dropped.
    async fn retain(&self, values: Vec<StoredValue>, values_max: usize, bytes_max: usize) -> (bool, u64) {
        let retain = Retain { term: 0, values, values_max, bytes_max };
        match self.queue.retain(self.number, retain).await.expect("an answer") {
            Retained::Stored { was_empty, dropped } => (was_empty, dropped),
            superseded @ Retained::Superseded(_) => panic!("{superseded:?}"),
        }
    }

    /// Every last value, read in pages of about so many.
    async fn retained(&self, values_max: usize) -> BTreeMap<String, String> {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        let (mut all, mut cursor) = (BTreeMap::new(), None);
        loop {
            let page = self.queue.retained(self.number, cursor, values_max).await.expect("a page");
            all.extend(page.values.into_iter().map(|(name, value)| (text(name), text(value))));
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    }
}

async fn last_values_are_read_back_and_the_later_of_a_name_stands(shard: Shard<'_>) {
    assert!(shard.retained(10).await.is_empty());
    let first = shard.retain(values([("1\0a", 1, "old"), ("1\0b", 2, "\0 b")]), 10, 10_000).await;
    assert_eq!(first, (true, 0));
    let second = shard.retain(values([("1\0c", 3, "c"), ("1\0a", 4, "new, and longer")]), 10, 10_000).await;
    assert_eq!(second, (false, 0));
    let all = shard.retained(10).await;
    let pairs: Vec<_> = all.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(pairs, [("1\0a", "new, and longer"), ("1\0b", "\0 b"), ("1\0c", "c")]);
}

async fn many_last_values_come_in_pages_and_none_is_left_out(shard: Shard<'_>) {
    // Longer values than Redis packs into one piece, so that its pages are pages.
    let texts: Vec<_> = (0..1000).map(|n| (format!("name {n}"), format!("{n:0>100}"))).collect();
    let all: Vec<_> = (1..).zip(&texts).map(|(at, (name, text))| (&**name, at, &**text)).collect();
    shard.retain(values(all), 1000, 1_000_000).await;
    assert_eq!(shard.retained(50).await, texts.into_iter().collect());
    let first = shard.queue.retained(shard.number, None, 50).await.expect("a page");
    assert!((50..500).contains(&first.values.len()) && first.next.is_some(), "{} values", first.values.len());
}

async fn too_many_last_values_drop_those_published_longest_ago(shard: Shard<'_>) {
    shard.retain(values([("d", 40, "-"), ("a", 10, "-"), ("c", 30, "-"), ("b", 20, "-")]), 4, 10_000).await;
    shard.retain(values([("a", 50, "-")]), 4, 10_000).await;
    let fifth = shard.retain(values([("e", 60, "-")]), 4, 10_000).await;
    assert_eq!(fifth, (false, 1));
    assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["a", "c", "d", "e"]);
    let fewer = shard.retain(values([("f", 70, "-")]), 2, 10_000).await;
    assert_eq!(fewer, (false, 3));
    assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["e", "f"]);
}

async fn last_values_are_bound_in_bytes_too(shard: Shard<'_>) {
    let long = "x".repeat(1000);
    let cost = values([("a", 1, &*long)])[0].cost();
    assert!(cost > 1000);
    let bytes_max = 3 * cost;
    for (at, name) in (1..).zip(["a", "b", "c", "a"]) {
        assert_eq!(shard.retain(values([(name, at, &*long)]), 100, bytes_max).await.1, 0, "{name}");
    }
    assert_eq!(shard.retain(values([("d", 5, &*long)]), 100, bytes_max).await.1, 1);
    assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["a", "c", "d"]);
    // What gets shorter makes room, what gets longer needs it.
    shard.retain(values([("a", 6, "-"), ("e", 7, "-")]), 100, bytes_max).await;
    assert_eq!(shard.retained(10).await.len(), 4);
    assert_eq!(shard.retain(values([("e", 8, &*long)]), 100, bytes_max).await.1, 1);
    assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["a", "d", "e"]);
}

async fn last_values_of_an_earlier_term_are_refused(shard: Shard<'_>) {
    let in_term = |term, name: &'static str| {
        let retain = Retain { term, values: values([(name, 1, "-")]), values_max: 10, bytes_max: 10_000 };
        async move { shard.queue.retain(shard.number, retain).await.expect("an answer") }
    };
    let stored = |was_empty| Retained::Stored { was_empty, dropped: 0 };
    assert_eq!(in_term(3 << 16 | 7, "a").await, stored(true));
    assert_eq!(in_term(3 << 16 | 7, "b").await, stored(false));
    assert_eq!(in_term(3 << 16 | 6, "c").await, Retained::Superseded(3 << 16 | 7));
    assert_eq!(in_term(4 << 16 | 6, "d").await, stored(false));
    assert_eq!(in_term(3 << 16 | 7, "e").await, Retained::Superseded(4 << 16 | 6));
    assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["a", "b", "d"]);
}

async fn contract(queue: &dyn Broker) {
    let shard = |number| Shard { queue, number };
    appends_are_read_back_in_order(shard(0)).await;
    a_second_attempt_is_told_that_it_is_there_and_a_gap_is_a_gap(shard(1)).await;
    only_the_asked_origins_are_told(shard(2)).await;
    a_wrong_epoch_and_a_log_that_fell_back_are_fences(shard(3)).await;
    a_new_epoch_takes_replays_first_and_the_first_new_entry_seals_it(shard(4)).await;
    news_come_to_a_subscriber(shard(5)).await;
    a_lease_belongs_to_one_boot_until_it_runs_out(shard(6)).await;
    all_nodes_have_the_same_number_of_shards(shard(7)).await;
    last_values_are_read_back_and_the_later_of_a_name_stands(shard(8)).await;
    many_last_values_come_in_pages_and_none_is_left_out(shard(9)).await;
    too_many_last_values_drop_those_published_longest_ago(shard(10)).await;
    last_values_are_bound_in_bytes_too(shard(11)).await;
    last_values_of_an_earlier_term_are_refused(shard(12)).await;
}

async fn redis(server: &RedisServer, log_bytes_max: usize) -> Redis {
    let settings = RedisSettings { prefix: "ws".to_owned(), log_bytes_max, durability: Durability::Log };
    let redis = Redis::start(&server.url(), &TlsFiles::default(), settings).expect("a good URL");
    connected(&redis).await;
    redis
}

async fn connected(redis: &Redis) {
    for _ in 0..250 {
        if redis.join(4).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no connection");
}

#[test]
fn the_embedded_queue_keeps_the_contract() {
    run(async { contract(&Memory::new(1 << 20)).await });
}

#[test]
fn redis_keeps_the_contract() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        contract(&redis(&server, 1 << 20).await).await;
    });
}

#[test]
fn a_redis_cluster_keeps_the_contract() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start_with(Keeps::Nothing, &["--cluster-enabled", "yes"]);
        server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let url = format!("redis-cluster://127.0.0.1:{}", server.port);
        let settings = RedisSettings { prefix: "ws".to_owned(), log_bytes_max: 1 << 20, durability: Durability::Log };
        let redis = Redis::start(&url, &TlsFiles::default(), settings).expect("a good URL");
        connected(&redis).await;
        contract(&redis).await;
        assert_eq!(server.cli(&["PUBSUB", "SHARDCHANNELS"]), "{ws:5}:live", "it is heard by its slot");
    });
}

#[test]
fn a_redis_that_cannot_say_what_is_on_its_disk_is_refused_for_that() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Everything);
        let has_waitaof = !server.cli(&["COMMAND", "INFO", "WAITAOF"]).is_empty();
        let settings = RedisSettings { prefix: "ws".to_owned(), log_bytes_max: 1 << 20, durability: Durability::Disk };
        let redis = Redis::start(&server.url(), &TlsFiles::default(), settings).expect("a good URL");
        let mut joined = redis.join(4).await;
        while matches!(joined, Err(BrokerError::NotDone(_))) {
            joined = redis.join(4).await;
        }
        if !has_waitaof {
            assert!(matches!(&joined, Err(BrokerError::Refused(why)) if why.contains("7.2")), "{joined:?}");
            return;
        }
        let shard = Shard { queue: &redis, number: 0 };
        let epoch = shard.open().await.tail.epoch;
        let safe = Append { durability: Durability::Disk, ..append(epoch, 0, batch(7, 1, 1)) };
        assert_eq!(shard.append(safe).await, stored(epoch, 1, Kind::New));
    });
}

#[test]
fn the_log_in_redis_is_trimmed_by_its_bytes_shared_by_its_shards() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let redis = redis(&server, 4 * (256 << 10)).await;
        let shard = Shard { queue: &redis, number: 0 };
        let epoch = shard.open().await.tail.epoch;
        for seq in 1..=2000 {
            let record = publication("t", &format!("\"{}\"", "x".repeat(1000)));
            let batch = Batch::new(7, seq, vec![Body::new(record, false)]);
            shard.append(append(epoch, seq - 1, batch)).await;
        }
        let entries = redis.read(0, Position::default(), 10_000).await.expect("a page");
        let bytes: usize = entries.iter().map(|entry| entry.content.bytes()).sum();
        assert!((128 << 10..512 << 10).contains(&bytes), "{bytes} bytes are left of 2 MB");
        assert_eq!(entries.last().map(|entry| entry.position), Some(Position { epoch, offset: 2000 }));
    });
}

#[test]
fn an_epoch_ends_with_the_incarnation_of_redis_and_with_its_data() {
    if !is_available() {
        return;
    }
    run(async {
        let mut server = RedisServer::start(Keeps::Everything);
        let redis = redis(&server, 1 << 20).await;
        let shard = Shard { queue: &redis, number: 0 };
        let first = shard.open().await.tail.epoch;
        shard.append(append(first, 0, batch(7, 1, 1))).await;
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(shard.append(append(first, 1, batch(7, 2, 1))).await, Appended::Fenced);
        assert_eq!(shard.open().await.tail, Position { epoch: first, offset: 1 }, "the same server, the same epoch");
        server.kill();
        server.launch();
        connected(&redis).await;
        assert_eq!(shard.append(append(first, 1, batch(7, 2, 1))).await, Appended::Fenced);
        let opened = shard.open().await;
        assert!(opened.tail.epoch > first, "another incarnation, another epoch");
        assert_eq!(opened.origins[0].seq, 1, "with what the data hold");
        server.cli(&["FLUSHALL"]);
        assert_eq!(shard.append(append(opened.tail.epoch, 1, batch(7, 2, 1))).await, Appended::Fenced);
        let emptied = shard.open_seen(opened.tail, Duration::ZERO).await;
        assert!(emptied.tail.epoch > opened.tail.epoch && emptied.origins.is_empty());
    });
}

#[test]
fn an_append_that_asks_for_replicas_is_not_answered_without_them() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start_with(Keeps::Nothing, &["--repl-diskless-sync-delay", "0"]);
        let redis = redis(&server, 1 << 20).await;
        let shard = Shard { queue: &redis, number: 0 };
        let epoch = shard.open().await.tail.epoch;
        let safe = Append { durability: Durability::Replicas(1), ..append(epoch, 0, batch(7, 1, 1)) };
        let alone = redis.append(0, safe.clone()).await;
        assert!(matches!(alone, Err(BrokerError::Unknown(_))), "{alone:?}");
        let port = server.port.to_string();
        let _replica = RedisServer::start_with(Keeps::Nothing, &["--replicaof", "127.0.0.1", &port]);
        let mut answer = redis.append(0, safe.clone()).await;
        for _ in 0..10 {
            if answer.is_err() {
                answer = redis.append(0, safe.clone()).await;
            }
        }
        assert!(matches!(answer, Ok(Appended::Have(_))), "{answer:?}");
    });
}

#[test]
fn last_values_in_redis_that_lost_a_part_begin_anew_and_a_strangers_key_is_refused() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let redis = redis(&server, 1 << 20).await;
        let shard = Shard { queue: &redis, number: 0 };
        shard.retain(values([("a", 1, "-"), ("b", 2, "-")]), 10, 10_000).await;
        assert_eq!(server.cli(&["HGET", "{ws:0}:meta", "last_bytes"]), (2 * (128 + 2 + 1)).to_string());
        server.cli(&["DEL", "{ws:0}:last_at"]);
        assert!(shard.retain(values([("c", 3, "-")]), 10, 10_000).await.0);
        assert_eq!(shard.retained(10).await.into_keys().collect::<Vec<_>>(), ["c"]);
        server.cli(&["FLUSHALL"]);
        assert!(shard.retain(values([("d", 4, "-")]), 10, 10_000).await.0);
        assert_eq!(server.cli(&["HGET", "{ws:0}:meta", "last_bytes"]), (128 + 2 + 1).to_string());
        server.cli(&["SET", "{ws:1}:last", "what is this"]);
        let read = redis.retained(1, None, 10).await;
        assert!(matches!(read, Err(BrokerError::Refused(_))), "{read:?}");
        let retain = Retain { term: 0, values: values([("a", 1, "-")]), values_max: 10, bytes_max: 10_000 };
        assert!(redis.retain(1, retain).await.is_err());
    });
}

#[test]
fn an_origin_is_forgotten_when_it_is_old_and_the_log_holds_nothing_of_it() {
    if !is_available() {
        return;
    }
    run(async {
        let server = RedisServer::start(Keeps::Nothing);
        let redis = redis(&server, 1 << 20).await;
        let shard = Shard { queue: &redis, number: 0 };
        let epoch = shard.open().await.tail.epoch;
        shard.append(append(epoch, 0, batch(7, 1, 1))).await;
        let note = |origin: &str, what: &str| server.cli(&["HSET", "{ws:0}:seqs", origin, what]);
        note("0000000000000007", &format!("1 {epoch} 1 1000"));
        note("0000000000000008", "5 1 1 1000");
        note("0000000000000009", "nonsense");
        let opened = shard.open().await;
        assert_eq!(opened.origins.iter().map(|last| (last.origin, last.seq)).collect::<Vec<_>>(), [(7, 1)]);
        assert_eq!(server.cli(&["HLEN", "{ws:0}:seqs"]), "1");
    });
}
