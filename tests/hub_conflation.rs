//! Whatever a socket takes and whenever, a subscriber of a `latest` tag, or one with a rate, ends on the newest value,
//! gets every kept publication, and can tell what was merged away.
//!
//! Method: seeded lists of operations against one hub: publications to a few tags of each class, some kept; sockets
//! that take nothing, a little or all; time; subscriptions that come, go and change their rate; some clients have agreed
//! on compression. Every frame that a socket took is read and held against the tag's true list. `WS_SEED=n` replays one
//! seed.

use std::{collections::BTreeMap, io::IoSlice, sync::Arc};

use ws_cluster::{
    hub::{Hub, HubSettings, NewSession},
    limits::Limits,
    metrics::{Count, Counters},
    model::{
        Boot, FollowStart, Pid, Published, RecordId, Role, SessionId, Stamp, Tag, TagRules,
        tag_rule::{DeliveryClass, TagRule},
    },
    protocol::deflate::{Inflater, negotiate},
};

const SEEDS: u64 = 120;
const STEPS: usize = 600;
const TAGS: usize = 4;

/// Tags 0 and 1 are `latest`, 2 is `lossless`, 3 `lossless` with a rate of 5; 1 is not compressed.
fn rules() -> TagRules {
    let rule = |pattern: &str, class, hz_max| TagRule { pattern: pattern.into(), class, hz_max, ..TagRule::default() };
    TagRules::new(vec![
        rule("t0", DeliveryClass::Latest, 0),
        TagRule { deflate: false, ..rule("t1", DeliveryClass::Latest, 0) },
        rule("t3", DeliveryClass::Lossless, 5),
    ])
}

fn tag(number: usize) -> Tag {
    Tag::new(&format!("t{number}")).expect("a tag")
}

/// What a client knows of a tag.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Places in the tag's true list: where the subscription began, and what was got last.
    begun: usize,
    last: usize,
    got: Vec<usize>,
}

#[derive(Debug, Default)]
struct Client {
    bytes: Vec<u8>,
    tags: BTreeMap<usize, Held>,
    stalled: bool,
    deflates: bool,
}

struct World {
    random: fastrand::Rng,
    hub: Hub,
    counters: Arc<Counters>,
    now: u64,
    /// Of each tag, in order.
    truth: Vec<Vec<Arc<Published>>>,
    clients: BTreeMap<SessionId, Client>,
    inflater: Inflater,
}

impl World {
    fn new(seed: u64) -> Self {
        let counters = Arc::<Counters>::default();
        let mut limits = Limits::default();
        limits.compression.deflate_bytes_min = 150;
        let settings = HubSettings {
            node: 1,
            boot: Boot(1),
            core: 0,
            limits: Arc::new(limits),
            rules: rules(),
            outboxes_bytes_max: usize::MAX,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            hub: Hub::new(settings, counters.clone()),
            counters,
            now: 0,
            truth: vec![Vec::new(); TAGS],
            clients: BTreeMap::new(),
            inflater: Inflater::default(),
        }
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..4 => self.open(),
            4..5 => self.close(),
            5..10 => self.follow(),
            10..12 => self.unfollow(),
            12..65 => {
                let burst = if self.random.u32(..20) == 0 { 100 } else { 1 };
                (0..burst).for_each(|_| self.publish());
            }
            65..70 => {
                let count = self.random.usize(2..90);
                self.publish_run(count);
            }
            70..75 => self.stall(),
            75..85 => {
                self.now += self.random.u64(..200);
                self.hub.set_now(self.now);
                self.hub.release_due();
            }
            _ => self.walk(),
        }
    }

    fn any(&mut self) -> Option<SessionId> {
        let ids: Vec<SessionId> = self.clients.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.usize(..ids.len())])
    }

    fn open(&mut self) {
        let offers = ["", "permessage-deflate", "permessage-deflate; server_max_window_bits=8"];
        let deflate = negotiate(offers[self.random.usize(..3)]).map(|agreement| agreement.deflate);
        let id = self.hub.open(NewSession {
            pid: Pid::new("p").expect("a pid"),
            role: Role::User,
            uid: "u".into(),
            device: None,
            tag_patterns: None,
            expires: None,
            deflate,
        });
        self.clients.insert(id, Client { deflates: deflate.is_some(), ..Client::default() });
    }

    fn close(&mut self) {
        if let Some(id) = self.any() {
            self.hub.close(id);
            self.clients.remove(&id);
        }
    }

    fn follow(&mut self) {
        let Some(id) = self.any() else { return };
        let number = self.random.usize(..TAGS);
        let hz_max = [None, Some(2), Some(10)][self.random.usize(..3)];
        let client = self.clients.get_mut(&id).expect("it is open");
        let last = self.truth[number].last();
        if self.hub.follow(id, &tag(number), hz_max).expect("it may") {
            client.tags.insert(number, Held { begun: self.truth[number].len(), ..Held::default() });
        } else {
            self.hub.ask_again(id, &tag(number), hz_max);
        }
        let start = match last {
            Some(last) => FollowStart::Snapshot { last: last.clone(), gap: false },
            None => FollowStart::Empty,
        };
        assert_eq!(self.hub.followed(id, "p", &tag(number), start), None);
    }

    fn unfollow(&mut self) {
        let Some(id) = self.any() else { return };
        // Its bytes are read first: what is under way for a subscription that is over is not looked at.
        self.take(id, usize::MAX);
        let client = self.clients.get_mut(&id).expect("it is open");
        let Some(number) = client.tags.keys().next().copied() else { return };
        client.tags.remove(&number);
        self.hub.unfollow(id, &tag(number));
    }

    fn publish(&mut self) {
        self.publish_run(1);
    }

    /// Publications of one tag that follow each other.
    fn publish_run(&mut self, count: usize) {
        let number = self.random.usize(..TAGS);
        let run: Vec<Arc<Published>> = (0..count).map(|_| self.published(number)).collect();
        let delivery = self.hub.publish_all(&run);
        assert_eq!(delivery.matched, delivery.queued + delivery.merged + delivery.evicted);
        let subscribed = self.clients.values().filter(|client| client.tags.contains_key(&number)).count();
        assert_eq!(delivery.matched, subscribed * count);
    }

    fn published(&mut self, number: usize) -> Arc<Published> {
        let list = &mut self.truth[number];
        let published = Arc::new(Published {
            id: RecordId { origin: 1, seq: list.len() as u64 + 1 },
            prev: list.last().map(|last| last.id),
            pid: Pid::new("p").expect("a pid"),
            tag: tag(number),
            keep: self.random.u32(..6) == 0,
            affair_id: None,
            payload: "1".repeat(self.random.usize(1..300)).into(),
            stamp: Stamp::default(),
        });
        list.push(published.clone());
        published
    }

    fn stall(&mut self) {
        if let Some(id) = self.any() {
            let client = self.clients.get_mut(&id).expect("it is open");
            client.stalled = !client.stalled;
            let room = if client.stalled { 0 } else { usize::MAX };
            self.take(id, room);
        }
    }

    fn walk(&mut self) {
        while let Some(id) = self.hub.next_dirty() {
            let room = if self.clients[&id].stalled { self.random.usize(..400) } else { usize::MAX };
            self.take(id, room);
        }
    }

    /// The session's socket takes up to `room` bytes.
    fn take(&mut self, id: SessionId, mut room: usize) {
        loop {
            // As a core does it: all that waits at once, where that is one piece.
            if let Some(all) = self.hub.only(id).filter(|all| all.len() <= room) {
                self.clients.get_mut(&id).expect("only the open write").bytes.extend(all);
                self.hub.wrote_only(id);
                break;
            }
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.hub.gather(id, &mut slices);
            let offered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            if offered.is_empty() {
                break;
            }
            let taken = offered.len().min(room);
            room -= taken;
            let blocked = taken < offered.len();
            self.hub.wrote(id, taken, blocked);
            self.clients.get_mut(&id).expect("only the open write").bytes.extend(&offered[..taken]);
            if blocked {
                break;
            }
        }
        self.read(id);
    }

    /// Reads the whole frames that a client has got.
    fn read(&mut self, id: SessionId) {
        let client = self.clients.get_mut(&id).expect("it is open");
        while let Some((message, used)) = message(&client.bytes, &mut self.inflater) {
            let is_compressed = client.bytes[0] == COMPRESSED_TEXT;
            client.bytes.drain(..used);
            let number: usize = message["tag"].as_str().expect("a tag")[1..].parse().expect("a number");
            assert!(!is_compressed || (client.deflates && number != 1), "compressed, t{number}: {client:?}");
            let Some(held) = client.tags.get_mut(&number) else { continue };
            let id: RecordId = message["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            let place = id.seq as usize;
            let merged = message["merged"].as_u64().unwrap_or(0) as usize;
            if message["snapshot"] == true {
                assert!(place >= held.last, "a snapshot is no older than what is held");
            } else {
                let base = held.last.max(held.begun);
                assert_eq!(place, base + merged + 1, "merged counts what was left out: {message} after {held:?}");
                let between = &self.truth[number][base..place - 1];
                assert!(between.iter().all(|published| !published.keep), "a kept one is merged into {message}");
            }
            held.last = place;
            held.got.push(place);
        }
    }

    fn finish(&mut self) {
        let ids: Vec<SessionId> = self.clients.keys().copied().collect();
        self.clients.values_mut().for_each(|client| client.stalled = false);
        for _ in 0..3 {
            ids.iter().for_each(|id| self.take(*id, usize::MAX));
            self.now += 2000;
            self.hub.set_now(self.now);
            self.hub.release_due();
        }
        ids.iter().for_each(|id| self.take(*id, usize::MAX));
        for (id, client) in &self.clients {
            for (number, held) in &client.tags {
                let wanted = self.truth[*number].len();
                assert!(
                    held.last == wanted || held.begun == wanted,
                    "{id:?} t{number} ends on {held:?}, not {wanted}: {:?}",
                    self.hub.session(*id)
                );
                let is_kept = |place: &usize| self.truth[*number][place - 1].keep;
                let missed = (held.begun + 1..=wanted).filter(is_kept).find(|place| !held.got.contains(place));
                assert_eq!(missed, None, "{id:?} t{number} has every kept one: {held:?}");
            }
        }
        assert_eq!(self.counters.get(Count::SubscriptionsBehind), 0);
        assert_eq!(self.hub.next_due(), None);
        ids.iter().for_each(|id| drop(self.hub.close(*id)));
        assert_eq!(self.counters.get(Count::OutboxBytes), 0);
    }
}

const TEXT: u8 = 0x81;
const COMPRESSED_TEXT: u8 = 0xc1;

/// The first whole frame's JSON and the bytes it took.
fn message(bytes: &[u8], inflater: &mut Inflater) -> Option<(serde_json::Value, usize)> {
    let (head, length) = match bytes {
        [TEXT | COMPRESSED_TEXT, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [TEXT | COMPRESSED_TEXT, length, ..] if *length < 126 => (2, usize::from(*length)),
        [] | [TEXT | COMPRESSED_TEXT, ..] => return None,
        other => panic!("no text frame: {:?}", &other[..other.len().min(20)]),
    };
    let mut text = bytes.get(head..head + length)?;
    if bytes[0] == COMPRESSED_TEXT {
        text = inflater.inflate(text, 1 << 16).expect("a compressed message");
    }
    Some((serde_json::from_slice(text).expect("JSON"), head + length))
}

#[test]
fn everybody_ends_on_the_newest_and_knows_what_was_merged() {
    let one: Option<u64> = std::env::var("WS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut compressed = 0;
    for seed in seeds {
        eprintln!("WS_SEED={seed}");
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        world.finish();
        compressed += world.counters.get(Count::DeflateCompressions);
    }
    assert!(one.is_some() || compressed > SEEDS, "only {compressed} were compressed");
}
