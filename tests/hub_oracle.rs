//! A core's hub delivers to exactly those whom a naive model says.
//!
//! Method: seeded lists of operations (open, close, follow, unfollow, publish, push to random audiences, drain some
//! sockets) run against the hub and against a model that scans all sessions; after each delivery the matched
//! sessions and, at the end, every byte that left are compared. `WS_SEED=n` replays one seed.

use std::{collections::BTreeMap, io::IoSlice, sync::Arc};

use bytes::Bytes;
use ws_cluster::{
    hub::{Hub, HubSettings, NewSession},
    limits::Limits,
    metrics::Counters,
    model::{
        Audience, Boot, ClientId, FollowStart, Pid, Published, Push, RecordId, Role, SessionId, Stamp, Tag, TagRules,
    },
};

const SEEDS: u64 = 300;
const STEPS: usize = 400;
const NODE: u16 = 7;
const BOOT: Boot = Boot(0xabcd);

#[derive(Debug)]
struct Naive {
    pid: usize,
    role: Role,
    uid: String,
    device: Option<String>,
    tags: Vec<usize>,
    expected: Vec<u64>,
    received: Vec<u8>,
}

struct World {
    random: fastrand::Rng,
    hub: Hub,
    sessions: BTreeMap<SessionId, Naive>,
    closed: Vec<Naive>,
    stale: Vec<SessionId>,
    next_payload: u64,
}

fn pid(number: usize) -> Pid {
    Pid::new(&format!("p{number}")).expect("a pid")
}

fn tag(number: usize) -> Tag {
    Tag::new(&format!("t{number}")).expect("a tag")
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = Arc::new(Limits::default());
        let rules = TagRules::default();
        let settings = HubSettings { node: NODE, boot: BOOT, core: 3, limits, rules, outboxes_bytes_max: usize::MAX };
        Self {
            random: fastrand::Rng::with_seed(seed),
            hub: Hub::new(settings, Arc::<Counters>::default()),
            sessions: BTreeMap::new(),
            closed: Vec::new(),
            stale: Vec::new(),
            next_payload: 1000,
        }
    }

    fn any(&mut self) -> Option<SessionId> {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.usize(..ids.len())])
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..25 => self.open(),
            25..32 => self.close(),
            32..50 => self.follow(),
            50..55 => self.unfollow(),
            55..70 => self.publish(),
            70..90 => self.push(),
            _ => self.drain(usize::MAX),
        }
    }

    fn open(&mut self) {
        let role = if self.random.u32(..8) == 0 { Role::Backend } else { Role::User };
        let naive = Naive {
            pid: self.random.usize(..2),
            role,
            uid: format!("u{}", self.random.u32(..6)),
            device: self.random.bool().then(|| format!("d{}", self.random.u32(..2))),
            tags: Vec::new(),
            expected: Vec::new(),
            received: Vec::new(),
        };
        let new = NewSession {
            pid: pid(naive.pid),
            role,
            uid: naive.uid.as_str().into(),
            device: naive.device.as_deref().map(Into::into),
            tag_patterns: None,
            expires: None,
            deflate: None,
        };
        let id = self.hub.open(new);
        assert!(self.sessions.insert(id, naive).is_none(), "an id is used once");
    }

    fn close(&mut self) {
        let Some(id) = self.any() else { return };
        self.drain(usize::MAX);
        self.hub.close(id).expect("it is open");
        let naive = self.sessions.remove(&id).expect("it is open");
        self.closed.push(naive);
        self.stale.push(id);
        assert!(self.hub.close(id).is_none(), "a stale id finds nobody");
    }

    fn follow(&mut self) {
        let Some(id) = self.any() else { return };
        let number = self.random.usize(..5);
        let naive = self.sessions.get_mut(&id).expect("it is open");
        let asked = self.hub.follow(id, &tag(number), None).expect("it may");
        assert_eq!(asked, !naive.tags.contains(&number));
        if asked {
            let unused = self.hub.followed(id, &pid(naive.pid), &tag(number), FollowStart::Empty);
            assert_eq!(unused, None);
            naive.tags.push(number);
        }
    }

    fn unfollow(&mut self) {
        let Some(id) = self.any() else { return };
        let number = self.random.usize(..5);
        let naive = self.sessions.get_mut(&id).expect("it is open");
        let project = naive.pid;
        let held = naive.tags.contains(&number);
        naive.tags.retain(|other| *other != number);
        let unused = self.hub.unfollow(id, &tag(number));
        let others = self.sessions.values().any(|other| other.pid == project && other.tags.contains(&number));
        assert_eq!(unused, (held && !others).then(|| tag(number)), "the exchange is told when the last one leaves");
    }

    fn payload(&mut self) -> (u64, Bytes) {
        self.next_payload += 1;
        (self.next_payload, Bytes::from(self.next_payload.to_string()))
    }

    fn publish(&mut self) {
        let (project, name) = (self.random.usize(..2), self.random.usize(..5));
        let count = if self.random.u32(..12) == 0 { self.random.usize(2..80) } else { 1 };
        let (mut run, mut matched) = (Vec::new(), 0);
        for _ in 0..count {
            let (number, payload) = self.payload();
            run.push(Arc::new(Published {
                id: RecordId { origin: 1, seq: number },
                prev: None,
                pid: pid(project),
                tag: tag(name),
                keep: false,
                affair_id: None,
                payload,
                stamp: Stamp::default(),
            }));
            matched += self.expect(number, |naive, _| naive.pid == project && naive.tags.contains(&name));
        }
        let delivery = self.hub.publish_all(&run);
        assert_eq!((delivery.matched, delivery.queued), (matched, matched));
    }

    fn push(&mut self) {
        let (number, payload) = self.payload();
        let project = self.random.usize(..2);
        let audience = self.audience();
        let delivery = self.hub.push(&Push {
            pid: pid(project),
            audience: audience.clone(),
            affair_id: None,
            idempotency_key: None,
            payload,
            stamp: Stamp::default(),
        });
        let matched = self.expect(number, |naive, cid| {
            naive.pid == project
                && naive.role == Role::User
                && (audience.uids.is_empty() || audience.uids.iter().any(|uid| **uid == naive.uid))
                && (audience.cids.is_empty() || audience.cids.iter().any(|other| **other == cid))
                && (audience.tags.is_empty() || naive.tags.iter().any(|held| audience.tags.contains(&tag(*held))))
                && (audience.devices.is_empty()
                    || audience.devices.iter().any(|device| Some(&**device) == naive.device.as_deref()))
        });
        assert_eq!((delivery.matched, delivery.queued), (matched, matched), "{audience:?}");
    }

    fn audience(&mut self) -> Audience {
        let mut audience = Audience::default();
        for _ in 0..self.random.usize(..3) {
            audience.uids.push(format!("u{}", self.random.u32(..7)).into());
        }
        for _ in 0..self.random.usize(..3).saturating_sub(1) {
            let id = if self.random.u32(..4) == 0 { self.stale.last().copied() } else { self.any() };
            let session = id.unwrap_or(SessionId { core: 0, slot: 0, generation: 0 });
            audience.cids.push(ClientId { node: NODE, boot: BOOT, session }.to_string().into());
        }
        for _ in 0..self.random.usize(..3) {
            audience.tags.push(tag(self.random.usize(..6)));
        }
        for _ in 0..self.random.usize(..2) {
            audience.devices.push(format!("d{}", self.random.u32(..3)).into());
        }
        audience
    }

    fn expect(&mut self, number: u64, matches: impl Fn(&Naive, String) -> bool) -> usize {
        let mut matched = 0;
        for (id, naive) in &mut self.sessions {
            let cid = ClientId { node: NODE, boot: BOOT, session: *id }.to_string();
            if matches(naive, cid) {
                naive.expected.push(number);
                matched += 1;
            }
        }
        matched
    }

    fn drain(&mut self, step: usize) {
        while let Some(id) = self.hub.next_dirty() {
            loop {
                // As a core does it: all that waits at once, where that is one piece.
                if let Some(all) = self.hub.only(id).filter(|all| all.len() <= step) {
                    self.sessions.get_mut(&id).expect("only the open are dirty").received.extend(all);
                    self.hub.wrote_only(id);
                    break;
                }
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = self.hub.gather(id, &mut slices);
                if filled == 0 {
                    break;
                }
                let offered: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let bytes = offered[..offered.len().min(step)].to_vec();
                self.hub.wrote(id, bytes.len(), bytes.len() < offered.len());
                self.sessions.get_mut(&id).expect("only the open are dirty").received.extend(bytes);
            }
        }
    }
}

/// The payloads of the frames in `bytes`, which all are JSON objects with a number as `payload`.
fn payloads(mut bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    while let [0x81, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        let message: serde_json::Value = serde_json::from_slice(&rest[..length]).expect("JSON");
        found.push(message["payload"].as_u64().expect("a number"));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "only whole text frames leave");
    found
}

#[test]
fn everybody_gets_exactly_what_is_meant_for_them() {
    let one: Option<u64> = std::env::var("WS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        eprintln!("WS_SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.drain(usize::MAX);
        for naive in world.sessions.values().chain(&world.closed) {
            assert_eq!(payloads(&naive.received), naive.expected, "seed {seed}: {naive:?}");
        }
    }
}
