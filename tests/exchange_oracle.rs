//! Whatever happens in whatever order, the exchange agrees with a naive one and keeps its laws.
//!
//! Method: seeded lists of operations. (1) One node's tags against a list of everything that was ever published,
//! searched anew for each answer. (2) Three nodes over a log of four shards, each node hearing each shard at its
//! own pace, with refusals and lost acknowledgements: laws over what was delivered and what submitters were told.
//! (3) The same nodes with users, back-ends and requests: laws over what each user is told.
//! The seed is printed; `WS_SEED` replays it.

#[path = "exchange_support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use fastrand::Rng;
use support::{CORES, Cluster, Node, SHARDS, answer, ids, pid, publication, tag};
use ws_cluster::{
    exchange::{ExchangeRules, Input, Now},
    limits::QueueLimits,
    metrics::Count,
    model::{
        AckTo, FollowStart, FromCore, Publication, Record, RecordId, Refusal, Reply, Role, SessionId, TagRule,
        TagRules, Ticket, ToCore, tag_rule::History,
    },
};

/// Runs `check` with a few seeds, or with the one of `WS_SEED`.
fn with_seeds(runs: usize, check: impl Fn(&mut Rng)) {
    let replay = std::env::var("WS_SEED").ok().map(|seed| seed.parse().expect("WS_SEED is a number"));
    let seeds: Vec<u64> = replay.map_or_else(|| (0..runs).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed]);
    for seed in seeds {
        eprintln!("WS_SEED={seed}");
        check(&mut Rng::with_seed(seed));
    }
}

const HISTORY: History = History { count_max: 5, age_max: Duration::from_secs(30), bytes_max: 12 };
const TAGS_MAX: usize = 6;

fn small_tables() -> ExchangeRules {
    let rule =
        |pattern: &str, dedup| TagRule { pattern: pattern.into(), history: HISTORY, dedup, ..TagRule::default() };
    let tags = TagRules::new(vec![rule("d*", true), rule("*", false)]);
    let limits = QueueLimits { tags_max: TAGS_MAX, ..QueueLimits::default() };
    ExchangeRules { tags, limits, ..ExchangeRules::default() }
}

/// A tag as the oracle knows it: everything since it was last forgotten, with no bound.
#[derive(Default)]
struct Naive {
    published: Vec<(RecordId, Option<RecordId>, String, Instant)>,
    followers: BTreeSet<u8>,
    last_published: u64,
    /// From here on things can be resumed: the log lost something before.
    sound_from: usize,
    /// It lost something, and nothing was published since; somebody has followed since.
    is_lost: bool,
    is_hole_news: bool,
}

impl Naive {
    /// What the ring must hold now: the longest tail within all bounds.
    fn ring(&self, now: Instant) -> &[(RecordId, Option<RecordId>, String, Instant)] {
        let newest = self.published.len().saturating_sub(1);
        let oldest = self.sound_from.min(newest);
        let fits = |from: usize| {
            let tail = &self.published[from..];
            let bytes: usize = tail.iter().map(|(_, _, payload, _)| payload.len()).sum();
            let young = tail.iter().all(|(_, _, _, at)| now - *at <= HISTORY.age_max);
            tail.len() <= HISTORY.count_max && bytes <= HISTORY.bytes_max && young
        };
        let from = (oldest..newest).find(|from| fits(*from)).unwrap_or(newest);
        &self.published[from.min(self.published.len())..]
    }

    fn start(&self, since: Option<RecordId>, asked: bool, now: Instant) -> (Vec<RecordId>, &'static str) {
        let ring = self.ring(now);
        let sound = self.sound_from < self.published.len();
        if let (Some(since), true) = (since, sound) {
            let behind = |from: usize| ring[from..].iter().map(|(id, ..)| *id).collect();
            if let Some(place) = ring.iter().position(|(id, ..)| *id == since) {
                return (behind(place + 1), "tail");
            }
            if ring[0].1 == Some(since) {
                return (behind(0), "tail");
            }
        }
        match (ring.last(), asked) {
            (Some((id, ..)), true) => (vec![*id], "snapshot with a gap"),
            (Some((id, ..)), false) => (vec![*id], "snapshot"),
            (None, true) => (Vec::new(), "gap"),
            (None, false) => (Vec::new(), "empty"),
        }
    }
}

fn kind(start: &FollowStart) -> &'static str {
    match start {
        FollowStart::Empty => "empty",
        FollowStart::Gap => "gap",
        FollowStart::Tail(_) => "tail",
        FollowStart::Snapshot { gap: true, .. } => "snapshot with a gap",
        FollowStart::Snapshot { gap: false, .. } => "snapshot",
    }
}

/// The naive table and the true one, side by side.
struct Tags {
    cluster: Cluster,
    naive: BTreeMap<String, Naive>,
    all: Vec<RecordId>,
    clock: u64,
    evicted: u64,
    refused: u64,
}

impl Tags {
    fn new() -> Self {
        let cluster = Cluster::with(1, small_tables());
        Self { cluster, naive: BTreeMap::new(), all: Vec::new(), clock: 0, evicted: 0, refused: 0 }
    }

    /// Makes room for a tag; whether there is a place for it.
    fn place(&mut self, name: &str) -> bool {
        if self.naive.contains_key(name) || self.naive.len() < TAGS_MAX {
            return true;
        }
        let idle = self.naive.iter().filter(|(_, tag)| tag.followers.is_empty());
        let Some(victim) = idle.min_by_key(|(_, tag)| tag.last_published).map(|(name, _)| name.clone()) else {
            return false;
        };
        self.naive.remove(&victim);
        self.evicted += 1;
        true
    }

    fn publish(&mut self, name: &str, payload: String) {
        let id = self.cluster.publish(0, publication(name, &payload, None));
        self.all.push(id);
        self.clock += 1;
        let mut expected: BTreeMap<u8, Vec<RecordId>> = (0..CORES).map(|core| (core, Vec::new())).collect();
        let mut told: Vec<u8> = Vec::new();
        if self.place(name) {
            let tag = self.naive.entry(name.to_owned()).or_default();
            let sound = tag.sound_from < tag.published.len();
            let last = tag.published.last().filter(|_| sound);
            if !(name.starts_with('d') && last.is_some_and(|(_, _, last, _)| *last == payload)) {
                let prev = last.map(|(id, ..)| *id);
                tag.published.push((id, prev, payload, self.cluster.now));
                (tag.last_published, tag.is_lost) = (self.clock, false);
                tag.followers.iter().for_each(|core| expected.entry(*core).or_default().push(id));
                // Who has come since the loss got the value before the hole.
                if std::mem::take(&mut tag.is_hole_news) {
                    told.extend(&tag.followers);
                }
            }
        } else {
            self.evicted += 1;
        }
        for (core, expected) in expected {
            assert_eq!(self.cluster.publications(0, core), expected, "core {core}, tag {name}");
        }
        let gaps = self.cluster.take(0).into_iter().filter(|(_, message)| matches!(message, ToCore::Gap { .. }));
        assert_eq!(gaps.map(|(core, _)| core).collect::<Vec<_>>(), told, "gaps of {name}");
    }

    fn follow(&mut self, core: u8, name: &str, since: Option<String>) {
        let place = self.place(name);
        let session = SessionId { core, slot: 1, generation: 1 };
        let follow =
            FromCore::Follow { session, pid: pid("p"), tag: tag(name), since: since.as_deref().map(Into::into) };
        self.cluster.core(0, follow);
        let got = self.cluster.take(0).pop().expect("an answer").1;
        if !place {
            self.refused += 1;
            return assert!(matches!(got, ToCore::Close { code: 1013, .. }), "{got:?}");
        }
        let ToCore::Followed { start, .. } = got else { panic!("{got:?}") };
        let naive = self.naive.entry(name.to_owned()).or_default();
        naive.followers.insert(core);
        naive.is_hole_news = naive.is_lost;
        let (expected, kind) =
            naive.start(since.as_deref().and_then(|id| id.parse().ok()), since.is_some(), self.cluster.now);
        assert_eq!((ids(&start), self::kind(&start)), (expected, kind), "tag {name} since {since:?}");
    }

    fn unfollow(&mut self, core: u8, name: &str) {
        self.cluster.core(0, FromCore::Unfollow { core, pid: pid("p"), tag: tag(name) });
        let Some(naive) = self.naive.get_mut(name) else { return };
        naive.followers.remove(&core);
        if naive.followers.is_empty() && naive.published.is_empty() {
            self.naive.remove(name);
        }
    }

    fn lose(&mut self) {
        self.cluster.apply(0, Input::Lost { shard: None });
        let mut told: Vec<(u8, String)> = Vec::new();
        for (core, message) in self.cluster.take(0) {
            let ToCore::Gap { tag, .. } = message else { panic!("{message:?}") };
            told.push((core, tag.to_string()));
        }
        told.sort();
        let mut expected: Vec<(u8, String)> = Vec::new();
        for (name, naive) in &mut self.naive {
            naive.sound_from = naive.published.len();
            (naive.is_lost, naive.is_hole_news) = (true, false);
            expected.extend(naive.followers.iter().map(|core| (*core, name.clone())));
        }
        expected.sort();
        assert_eq!(told, expected);
    }

    fn history(&mut self, name: &str) {
        let ticket = self.cluster.ticket();
        self.cluster.core(0, FromCore::TagState { ticket, pid: pid("p"), tag: tag(name) });
        let Some(Reply::Tag(history)) = self.cluster.reply(0, ticket) else { panic!("no tag state") };
        let got: Vec<_> = history.iter().map(|published| (published.id, published.prev)).collect();
        let empty = Naive::default();
        let naive = self.naive.get(name).unwrap_or(&empty);
        let expected: Vec<_> = naive.ring(self.cluster.now).iter().map(|(id, prev, ..)| (*id, *prev)).collect();
        assert_eq!(got, expected, "tag {name}");
    }

    fn check_counts(&self) {
        let valued = self.naive.values().filter(|naive| !naive.published.is_empty()).count() as u64;
        assert_eq!(self.cluster.count(0, Count::Tags), valued);
        assert_eq!(self.cluster.count(0, Count::TagsEvicted), self.evicted);
        assert_eq!(self.cluster.count(0, Count::TagsRefused), self.refused);
    }
}

#[test]
fn tags_agree_with_a_list_of_everything() {
    with_seeds(40, |random| {
        let mut tags = Tags::new();
        for _ in 0..400 {
            let name = format!("{}{}", random.choice(["d", "t"]).expect("one"), random.u8(..5));
            let core = random.u8(..CORES);
            match random.u8(..100) {
                0..45 => tags.publish(&name, "1".repeat(random.usize(1..4))),
                45..55 => tags.follow(core, &name, None),
                55..70 => {
                    let recent = tags.all.len().saturating_sub(20);
                    let known = random.choice(&tags.all[recent..]).map(RecordId::to_string);
                    tags.follow(core, &name, Some(known.unwrap_or_else(|| "none".into())));
                }
                70..80 => tags.unfollow(core, &name),
                80..90 => tags.history(&name),
                90..92 => tags.lose(),
                _ => tags.cluster.now += Duration::from_secs(random.u64(..15)),
            }
            if random.u8(..4) == 0 {
                tags.cluster.apply(0, Input::Tick);
                tags.cluster.nodes[0].outgoing.clear();
            }
            tags.check_counts();
        }
    });
}

/// Nodes that hear the shards of one log, each at its own pace.
struct Sharded {
    cluster: Cluster,
    logs: Vec<Vec<(RecordId, Record)>>,
    cursors: Vec<Vec<usize>>,
    /// Acknowledgements that are on their way to their node.
    acks: Vec<Vec<(AckTo, RecordId)>>,
}

impl Sharded {
    fn new(nodes: usize, rules: ExchangeRules) -> Self {
        let cluster = Cluster::with(nodes, rules);
        let shards = usize::from(SHARDS);
        let (logs, cursors) = (vec![Vec::new(); shards], vec![vec![0; shards]; nodes]);
        Self { cluster, logs, cursors, acks: vec![Vec::new(); nodes] }
    }

    fn node(&mut self, node: usize) -> &mut Node {
        &mut self.cluster.nodes[node]
    }

    /// The log takes the first of what a node wants, if there is any.
    fn append(&mut self, node: usize) {
        let Some((record, to)) = self.node(node).outgoing.pop_front() else { return };
        let shard = usize::from(record.shard(SHARDS));
        let id = self.cluster.put(record);
        let entry = self.cluster.log.pop().expect("just put");
        self.logs[shard].push(entry);
        self.acks[node].push((to, id));
    }

    fn refuse(&mut self, node: usize) {
        let Some((_, to)) = self.node(node).outgoing.pop_front() else { return };
        self.cluster.apply(node, Input::Appended { to, result: Err(Refusal::QueueFull) });
    }

    fn acknowledge(&mut self, node: usize, random: &mut Rng) {
        if self.acks[node].is_empty() {
            return;
        }
        let place = random.usize(..self.acks[node].len());
        let (to, id) = self.acks[node].remove(place);
        self.cluster.apply(node, Input::Appended { to, result: Ok(id) });
    }

    /// The node hears the next record of a shard; what that was.
    fn hear(&mut self, node: usize, shard: usize) -> Option<Record> {
        let (id, record) = self.logs[shard].get(self.cursors[node][shard]).cloned()?;
        self.cursors[node][shard] += 1;
        self.cluster.apply(node, Input::Heard { id, record: record.clone(), warm: false });
        Some(record)
    }

    fn step(&mut self, random: &mut Rng) {
        let (node, shard) = (random.usize(..self.cursors.len()), random.usize(..self.logs.len()));
        match random.u8(..10) {
            0..4 => drop(self.hear(node, shard)),
            4..7 => self.append(node),
            7..9 => self.acknowledge(node, random),
            _ => self.refuse(node),
        }
    }

    /// Until everything is in the log, acknowledged and heard.
    fn settle(&mut self, random: &mut Rng) {
        loop {
            let mut idle = true;
            for node in 0..self.cursors.len() {
                while !self.cluster.nodes[node].outgoing.is_empty() {
                    self.append(node);
                    idle = false;
                }
                while !self.acks[node].is_empty() {
                    self.acknowledge(node, random);
                    idle = false;
                }
                for shard in 0..self.logs.len() {
                    while self.hear(node, shard).is_some() {
                        idle = false;
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    fn tick(&mut self, step: Duration) {
        self.cluster.now += step;
        (0..self.cursors.len()).for_each(|node| self.cluster.apply(node, Input::Tick));
    }
}

/// What a submitter was told of each of its records.
struct Told {
    records: Vec<(String, Option<String>)>,
    outcomes: Option<Vec<Result<RecordId, Refusal>>>,
}

#[test]
fn every_ticket_is_answered_once_and_what_was_acknowledged_is_delivered_once_on_every_node() {
    with_seeds(40, |random| {
        let mut sharded = Sharded::new(3, ExchangeRules::default());
        let names = ["a", "b", "c", "d", "e"];
        for node in 0..3 {
            names.iter().for_each(|name| {
                drop(sharded.cluster.follow(node, SessionId { core: 0, slot: 1, generation: 1 }, name, None))
            });
        }
        let mut told: HashMap<(usize, Ticket), Told> = HashMap::new();
        for _ in 0..600 {
            if random.u8(..5) == 0 {
                let key = |random: &mut Rng| random.bool().then(|| format!("k{}", random.u8(..6)));
                let one = |random: &mut Rng| (names[random.usize(..names.len())].to_owned(), key(random));
                let records: Vec<_> = (0..random.usize(..4)).map(|_| one(random)).collect();
                let node = random.usize(..3);
                let submitted = records.iter().map(|(name, key)| publication(name, "1", key.as_deref())).collect();
                let ticket = sharded.cluster.submit(node, submitted);
                told.insert((node, ticket), Told { records, outcomes: None });
            }
            sharded.step(random);
        }
        sharded.settle(random);
        let mut delivered: Vec<Vec<RecordId>> = Vec::new();
        for node in 0..3 {
            let mut ids = sharded.cluster.publications(node, 0);
            let chains = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), chains, "node {node} delivered something twice");
            delivered.push(ids);
        }
        assert!(delivered.iter().all(|ids| *ids == delivered[0]), "nodes disagree");
        let mut owners: HashMap<(String, String), RecordId> = HashMap::new();
        for ((node, ticket), told) in &mut told {
            let outcomes = sharded.cluster.submitted(*node, *ticket);
            assert_eq!(outcomes.len(), told.records.len());
            for ((name, key), outcome) in told.records.iter().zip(&outcomes) {
                let Ok(id) = outcome else { continue };
                assert!(delivered[0].binary_search(id).is_ok(), "{id} was acknowledged and not delivered");
                if let Some(key) = key {
                    let logged = sharded.logs.iter().flatten().find(|(logged, _)| logged == id).expect("logged");
                    let Record::Publication(Publication { tag, .. }) = &logged.1 else { panic!("no publication") };
                    if **tag == **name {
                        let owner = owners.entry((name.clone(), key.clone())).or_insert(*id);
                        assert_eq!(owner, id, "one key, two ids");
                    }
                }
            }
            told.outcomes = Some(outcomes);
        }
        assert!(told.values().all(|told| told.outcomes.is_some()));
    });
}

/// The users, back-ends and questions of a run.
struct World {
    sharded: Sharded,
    users: Vec<(usize, SessionId)>,
    backends: Vec<(usize, SessionId)>,
    /// Each affair with who asked, and what ended it.
    asked: BTreeMap<String, Asked>,
}

#[derive(Debug)]
struct Asked {
    node: usize,
    user: SessionId,
    answered: bool,
    left: bool,
    notices: Vec<String>,
    acks: usize,
}

const PENDING_MAX: usize = 60;
const TIMEOUT: Duration = Duration::from_secs(5);

impl World {
    fn new() -> Self {
        let limits = QueueLimits { requests_pending_max: PENDING_MAX, ..QueueLimits::default() };
        let sharded = Sharded::new(3, ExchangeRules { limits, ..ExchangeRules::default() });
        Self { sharded, users: Vec::new(), backends: Vec::new(), asked: BTreeMap::new() }
    }

    fn act(&mut self, random: &mut Rng) {
        let node = random.usize(..3);
        match random.u8(..20) {
            0..2 => {
                let user = self.sharded.cluster.open(node, "p", Role::User, &format!("u{}", self.users.len()));
                self.users.push((node, user));
            }
            2..3 => {
                let backend = self.sharded.cluster.open(node, "p", Role::Backend, "b");
                self.backends.push((node, backend));
            }
            3..4 => self.close_one(random),
            4..10 => self.ask(random),
            10..14 => self.answer(random),
            14..16 => self.sharded.tick(Duration::from_millis(random.u64(..1500))),
            _ => {}
        }
        for _ in 0..random.usize(..6) {
            self.sharded.step(random);
        }
        self.look();
    }

    fn close_one(&mut self, random: &mut Rng) {
        let list = if random.bool() { &mut self.users } else { &mut self.backends };
        if list.is_empty() {
            return;
        }
        let (node, session) = list.swap_remove(random.usize(..list.len()));
        self.look();
        self.sharded.cluster.close(node, session);
        let of = |asked: &&mut Asked| asked.node == node && asked.user == session;
        self.asked.values_mut().filter(of).for_each(|asked| asked.left = true);
    }

    fn ask(&mut self, random: &mut Rng) {
        let Some((node, user)) = random.choice(&self.users).copied() else { return };
        let affair = format!("a{}", self.asked.len());
        let asked = Asked { node, user, answered: false, left: false, notices: Vec::new(), acks: 0 };
        self.asked.insert(affair.clone(), asked);
        self.sharded.cluster.ask(node, user, &affair, TIMEOUT);
    }

    /// Some back-end answers something that was asked; it need not be the right one, nor in time.
    fn answer(&mut self, random: &mut Rng) {
        let affairs: Vec<&String> = self.asked.keys().collect();
        let Some(affair) = random.choice(affairs).cloned() else { return };
        let asked = self.asked.get_mut(&affair).expect("asked");
        asked.answered = true;
        let to = self.sharded.cluster.cid(asked.node, asked.user);
        self.sharded.cluster.submit(random.usize(..3), vec![answer(to, &affair)]);
    }

    /// Reads what users were told.
    fn look(&mut self) {
        for (affair, asked) in &mut self.asked {
            let mine = format!("\"{affair}\"");
            self.sharded.cluster.nodes[asked.node].inboxes[usize::from(asked.user.core)].retain(|message| {
                let ToCore::Text { session, text } = message else { return true };
                let text = std::str::from_utf8(text).expect("text");
                if *session != asked.user || !text.contains(&mine) {
                    return true;
                }
                match text.split_once(r#""err":""#) {
                    Some((_, err)) => asked.notices.push(err.split('"').next().unwrap_or("").to_owned()),
                    None => asked.acks += 1,
                }
                assert!(!asked.left, "{affair} of a user who left: {text}");
                false
            });
        }
    }
}

#[test]
fn every_request_is_answered_or_told_once_and_nothing_of_it_stays() {
    with_seeds(30, |random| {
        let mut world = World::new();
        for _ in 0..500 {
            world.act(random);
        }
        for _ in 0..10 {
            world.sharded.settle(random);
            world.sharded.tick(Duration::from_secs(1));
            world.look();
        }
        world.sharded.settle(random);
        world.look();
        for (affair, asked) in &world.asked {
            assert!(asked.notices.len() + asked.acks <= 2 && asked.notices.len() <= 1, "{affair}: {asked:?}");
            let settled = asked.answered || asked.left || asked.notices.len() == 1;
            assert!(settled, "{affair} was never ended: {asked:?}");
        }
        all_places_are_free(&mut world, random);
    });
}

/// No entry stayed behind on any node: each can hold the full number again.
fn all_places_are_free(world: &mut World, random: &mut Rng) {
    world.sharded.cluster.open(0, "p", Role::Backend, "last");
    world.sharded.settle(random);
    for node in 0..3 {
        let user = world.sharded.cluster.open(node, "p", Role::User, "last");
        world.sharded.settle(random);
        for n in 0..=PENDING_MAX {
            world.sharded.cluster.ask(node, user, &format!("last{n}"), TIMEOUT);
        }
        assert_eq!(world.sharded.cluster.errs(node, user), ["overloaded"], "node {node}");
        world.sharded.settle(random);
        world.sharded.cluster.close(node, user);
        world.sharded.settle(random);
    }
}

#[test]
fn the_same_inputs_give_the_same_effects() {
    let mut random = Rng::with_seed(7);
    let start = ws_cluster::clock::now();
    let [mut a, mut b] = [(); 2].map(|()| Cluster::starting(start, 1, small_tables()));
    for n in 0..300_u64 {
        let record = publication(&format!("t{}", random.u8(..9)), &n.to_string(), None);
        let session = SessionId { core: random.u8(..CORES), slot: 1, generation: 1 };
        let follow =
            FromCore::Follow { session, pid: pid("p"), tag: tag(&format!("t{}", random.u8(..9))), since: None };
        let inputs = [
            Input::Heard { id: RecordId { origin: 1, seq: n }, record, warm: false },
            Input::Core(follow),
            Input::Core(FromCore::Opened {
                session: SessionId { core: 0, slot: u32::try_from(n).expect("few"), generation: 0 },
                pid: pid("p"),
                role: if n % 50 == 0 { Role::Backend } else { Role::User },
                uid: format!("u{}", random.u8(..)).into(),
                device: None,
                since_unix_ms: n,
            }),
            Input::Tick,
        ];
        let now = Now { mono: a.now + Duration::from_millis(100 * n), unix_ms: n };
        for input in inputs {
            let effects = [&mut a, &mut b].map(|cluster| {
                let mut out = Vec::new();
                cluster.nodes[0].exchange.apply(input.clone(), now, &mut out);
                format!("{out:?}")
            });
            assert_eq!(effects[0], effects[1]);
        }
    }
}
