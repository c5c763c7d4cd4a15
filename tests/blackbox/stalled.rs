//! Many readers of `latest` tags stall beside as many that read: what waits for them does not grow, everybody ends on the last
//! value, and every kept one arrives.
//!
//! Method: narrow sockets on both sides, so that a few dozen publications fill them; a closed bar every tenth. Frames are
//! checked one by one against the ids that the publisher was told. `loadtest slow` does the same with thousands, and times it.

use std::{cell::Cell, ops::RangeInclusive};

use futures_util::future::join_all;

use crate::support::{Client, Cluster, Config, Connect, Setup, Value, eventually, json, node::Driver, run_with};

const TAGS: usize = 10;
/// Readers of each kind; each follows one of the tags.
const READERS: usize = 100;
/// Publications of each tag, before and after the first look at what waits.
const ROUNDS: usize = 40;
const KEEP_EVERY: usize = 10;
const FILLER_BYTES: usize = 2000;
/// A frame with its fields, or a kept publication as a tag remembers it.
const FRAME_BYTES: usize = FILLER_BYTES + 300;

#[test]
fn uring() {
    run_with(Setup::ONE, config(), stalled_readers_cost_nothing_and_miss_nothing_that_is_kept);
}

#[test]
fn epoll() {
    let setup = Setup { driver: Driver::Epoll, ..Setup::ONE };
    run_with(setup, config(), stalled_readers_cost_nothing_and_miss_nothing_that_is_kept);
}

fn config() -> Config {
    let narrow = Config::new().limit("send_buffer_bytes", "\"4KiB\"").limit("notsent_lowat_bytes", "\"1KiB\"");
    // Who does not read does not see a ping; how long it may be silent is not what is tried here.
    narrow.limit("ping_after", "\"5m\"")
}

fn tag(number: usize) -> String {
    format!("latest.{}", number % TAGS)
}

fn is_kept(n: usize) -> bool {
    n.is_multiple_of(KEEP_EVERY)
}

/// Subscribers of one tag each. Those that will stall have little room of their own.
async fn readers(cluster: &Cluster, what: &str, receive_buffer: Option<u32>) -> Vec<Client> {
    let mut readers = Vec::new();
    for number in 0..READERS {
        let uid = format!("{what}-{number}");
        let mut client = Connect { receive_buffer, ..Connect::user(&uid) }.to(cluster.a()).await;
        client.subscribe(&[&tag(number)]).await;
        readers.push(client);
    }
    readers
}

/// Publishes these numbers to every tag; ids are added by tag. Kept ones are 10, 20, …
async fn publish(cluster: &Cluster, numbers: RangeInclusive<usize>, ids: &mut [Vec<String>]) {
    let filler = "x".repeat(FILLER_BYTES);
    for n in numbers {
        let data = json!({"n": n, "filler": filler});
        let line = |number: usize| json!({"tags": [tag(number)], "data": data, "keep": is_kept(n)}).to_string();
        let lines: Vec<String> = (0..TAGS).map(line).collect();
        let (response, answers) = cluster.a().api().batch(&lines.join("\n")).await;
        assert_eq!((response.status, answers.len()), (200, TAGS), "{response:?}");
        for (ids, answer) in ids.iter_mut().zip(&answers) {
            ids.push(answer["payload"]["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned());
        }
    }
}

/// What a reader makes of its tag's frames. The publication with number n has the id `ids[n - 1]`.
#[derive(Debug, Default)]
struct Seen {
    frames: Vec<(usize, usize, String, String)>,
}

impl Seen {
    /// Takes frames up to the one with number `last`.
    async fn read(client: &mut Client, number: usize, last: usize) -> Self {
        let mut seen = Self::default();
        while seen.frames.last().is_none_or(|(n, ..)| *n < last) {
            let message: Value = client.next().await;
            assert_eq!(message["tag"], tag(number), "a tag that was not asked for");
            let field = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
            let n = message["payload"]["n"].as_u64().expect("a number") as usize;
            let merged = message["merged"].as_u64().unwrap_or(0) as usize;
            seen.frames.push((n, merged, field("id"), field("prev")));
        }
        seen
    }

    /// Every publication came or was counted, under the id that its publisher was told; kept ones came. How many merged.
    fn check(&self, who: &str, ids: &[String]) -> usize {
        let mut before = 0;
        for (n, merged, id, prev) in &self.frames {
            assert_eq!(*n, before + merged + 1, "{who}: after {before} came {n}, which says it stands for {merged}");
            assert_eq!(*id, ids[n - 1], "{who}: number {n}");
            let prev_wanted = n.checked_sub(2).map_or("", |at| ids[at].as_str());
            assert_eq!(prev, prev_wanted, "{who}: number {n}");
            let skipped = (before + 1..*n).find(|skipped| is_kept(*skipped));
            assert_eq!(skipped, None, "{who}: a kept publication was merged into number {n}");
            before = *n;
        }
        assert_eq!(before, ids.len(), "{who}: the last value");
        self.frames.iter().map(|(_, merged, ..)| merged).sum()
    }
}

async fn stalled_readers_cost_nothing_and_miss_nothing_that_is_kept(cluster: Cluster) {
    let mut stalled = readers(&cluster, "stalled", Some(2304)).await;
    let mut live = readers(&cluster, "live", None).await;
    let mut ids = vec![Vec::new(); TAGS];
    let waited = Cell::new(0.0);
    let publishing = async {
        publish(&cluster, 1..=ROUNDS, &mut ids).await;
        eventually("everybody who does not read is behind", async || behind(&cluster).await >= READERS as f64).await;
        waited.set(waiting(&cluster).await);
        publish(&cluster, 1 + ROUNDS..=2 * ROUNDS, &mut ids).await;
    };
    let reading = live.iter_mut().enumerate().map(|(number, client)| Seen::read(client, number, 2 * ROUNDS));
    let ((), seen) = tokio::join!(publishing, join_all(reading));
    for (number, seen) in seen.iter().enumerate() {
        seen.check(&format!("live {number}"), &ids[number % TAGS]);
    }

    // A queue would have grown by 80 KB a reader. What may come is a frame that has begun to leave, and for each tag and core
    // the kept ones.
    let owed = (2 * TAGS * ROUNDS / KEEP_EVERY + READERS) * FRAME_BYTES;
    let bound = waited.get() + owed as f64;
    eventually("what waits has not grown", async || waiting(&cluster).await <= bound).await;
    eventually("only who does not read is behind", async || behind(&cluster).await == READERS as f64).await;

    let reading = stalled.iter_mut().enumerate().map(|(number, client)| Seen::read(client, number, 2 * ROUNDS));
    for (number, seen) in join_all(reading).await.iter().enumerate() {
        let merged = seen.check(&format!("stalled {number}"), &ids[number % TAGS]);
        assert!(merged > 0, "stalled {number} was not held back: {} frames", seen.frames.len());
    }
    eventually("nobody is behind", async || behind(&cluster).await == 0.0).await;
    let kept = (2 * TAGS * 2 * ROUNDS / KEEP_EVERY * FRAME_BYTES) as f64;
    eventually("nothing waits but what tags remember", async || waiting(&cluster).await <= kept).await;
    for series in ["ws_slow_consumers_total", "ws_kept_lost_total", "ws_closes_total"] {
        assert_eq!(cluster.a().metric(series).await, 0.0, "{series}");
    }
}

async fn waiting(cluster: &Cluster) -> f64 {
    cluster.a().metric("ws_outbox_bytes").await
}

async fn behind(cluster: &Cluster) -> f64 {
    cluster.a().metric("ws_subscriptions_behind").await
}
