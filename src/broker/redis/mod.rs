//! The log in Redis (7.0 or later): a stream a shard, and scripts that make an append one step.
//!
//! | key | what |
//! |---|---|
//! | `{ws:0}:log` | stream; entry `<epoch>-<offset>`, one field named for its kind, with the batch's bytes |
//! | `{ws:0}:meta` | hash: the server's run_id, epoch, offset, whether sealed, since when open, bytes |
//! | `{ws:0}:seqs` | hash: origin → its last seq, that entry's place, Unix seconds |
//! | `{ws:0}:marks` | list: now and then an entry's id and the bytes up to it, by which the log is trimmed in bytes |
//! | `{ws:0}:last` | hash: a tag's name → its last value; the bytes are counted in `meta` |
//! | `{ws:0}:last_at` | sorted set: the same names by when they were published |
//! | `{ws:0}:live` | channel: a header and the batch's bytes |
//! | `ws:meta` | hash: the number of shards |
//! | `ws:node:200` | a node's lease |
//!
//! Invariants: a script runs only on the server incarnation for which it was loaded; what Redis says is not trusted.
//! Left out: Sentinel and Cluster.

mod entries;
mod last_values;
mod scripts;

use std::{
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use bytes::Bytes;
use ws_cluster_redis::{Lane, Link, LinkError, Reply};

use self::scripts::Scripts;
use super::{
    Append, Appended, Broker, BrokerError, Claim, Claimed, Durability, Entry, Live, Open, Opened, OriginLast, Pending,
    Position, Retain, Retained, RetainedPage,
};
use crate::{
    limits::{LOG_ENTRIES_MAX, LOG_LIVE_MESSAGES_MAX, LOG_ORIGIN_KEPT},
    model::{Boot, NodeId},
};

/// The log is trimmed in steps of this part of it.
const MARKS: usize = 256;
/// How long a start waits for the first connection before it says so.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// How long an append waits for replicas.
const REPLICAS_WAIT_MS: u32 = 1000;

/// How the log uses Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Begins every key and channel; `ws`.
    pub prefix: String,
    /// The log in Redis, all shards together, in bytes.
    pub log_bytes_max: usize,
}

/// The log in Redis.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    scripts: Scripts,
    settings: RedisSettings,
    /// How many shards share the bytes; known when the log was joined.
    shards: AtomicU16,
}

impl Redis {
    /// Starts to connect, and goes on doing so for ever; must be called inside a tokio runtime. An error is for the
    /// URL, and says why it cannot be used.
    pub fn start(url: &str, settings: RedisSettings) -> Result<Self, BrokerError> {
        let link = Link::start(url, LOG_LIVE_MESSAGES_MAX).map_err(failure)?;
        Ok(Self { link, scripts: Scripts::default(), settings, shards: AtomicU16::new(1) })
    }

    fn key(&self, shard: u16, name: &str) -> Bytes {
        format!("{{{}:{shard}}}:{name}", self.settings.prefix).into()
    }

    fn lease_key(&self, node: NodeId) -> Bytes {
        format!("{}:node:{node}", self.settings.prefix).into()
    }

    async fn check_server(&self) -> Result<(), BrokerError> {
        self.link.connected(CONNECT_WAIT).await.map_err(failure)?;
        let version = scripts::server_info(&self.link, "redis_version").await?;
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major < 7 => {
                Err(BrokerError::Refused(format!("Redis 7.0 or later is needed, this is {version}")))
            }
            _ => Ok(()),
        }
    }

    async fn check_shards(&self, shards: u16) -> Result<(), BrokerError> {
        let key = Bytes::from(format!("{}:meta", self.settings.prefix));
        let field = Bytes::from_static(b"shards");
        let wanted = Bytes::from(shards.to_string());
        let set = self.link.call(Lane::Read, "HSETNX", vec![key.clone(), field.clone(), wanted]);
        set.await.map_err(failure)?;
        let held = self.link.call(Lane::Read, "HGET", vec![key, field]).await.map_err(failure)?;
        match held.number() {
            Some(held) if held == u64::from(shards) => Ok(()),
            held => Err(BrokerError::Refused(format!(
                "the log has {} shards, this node is set to {shards}",
                held.map_or("an unknown number of".to_owned(), |held| held.to_string())
            ))),
        }
    }

    /// The bytes that each shard's log has.
    fn shard_bytes(&self) -> usize {
        self.settings.log_bytes_max / usize::from(self.shards.load(Ordering::Relaxed))
    }

    async fn append_once(&self, shard: u16, append: Append) -> Result<Appended, BrokerError> {
        let Some(loaded) = self.scripts.loaded() else { return Ok(Appended::Fenced) };
        let keys = ["log", "meta", "seqs", "marks", "live"].map(|name| self.key(shard, name));
        let is_sync = append.durability != Durability::Log;
        let batch = &append.batch;
        let arguments = [
            number(append.epoch),
            origin_text(batch.origin),
            number(append.prev),
            number(batch.last_seq()),
            flag(!batch.is_replay()),
            number(append.seen_offset),
            number((self.shard_bytes() / MARKS) as u64),
            number(self.shard_bytes() as u64),
            number(LOG_ENTRIES_MAX as u64),
            flag(is_sync),
            batch.encode(),
        ];
        let call = self.link.call(Lane::Write, "EVALSHA", scripts::arguments(&loaded.append, &keys, arguments));
        let answer = match append.durability {
            Durability::Log => call.await,
            Durability::Replicas(replicas) => self.with_replicas(call, replicas).await,
        };
        match answer {
            Ok(reply) => appended(reply, &append),
            Err(LinkError::Rejected(text)) if text.starts_with("NOSCRIPT") => {
                self.scripts.forget(&loaded);
                Ok(Appended::Fenced)
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// Carries `call` out and waits until so many replicas have it. WAIT looks at the connection's own last write, so
    /// all must go over one connection: its id is asked before and after.
    async fn with_replicas(
        &self,
        call: ws_cluster_redis::Pending<'_, Reply>,
        replicas: u8,
    ) -> Result<Reply, LinkError> {
        let id = || self.link.call(Lane::Write, "CLIENT", vec![Bytes::from_static(b"ID")]);
        let wait = vec![number(u64::from(replicas)), number(u64::from(REPLICAS_WAIT_MS))];
        let wait = self.link.call(Lane::Write, "WAIT", wait);
        let (before, answer, confirmed, after) = futures_util::join!(id(), call, wait, id());
        let answer = answer?;
        let is_stored = matches!(&answer, Reply::List(list)
            if list.first().and_then(Reply::text).is_some_and(|word| word == "stored" || word == "have"));
        let is_one_connection = before.is_ok() && before == after;
        let is_confirmed = confirmed?.number().is_some_and(|count| count >= u64::from(replicas));
        if is_stored && !(is_one_connection && is_confirmed) {
            return Err(LinkError::Unknown("too few replicas have confirmed".to_owned()));
        }
        Ok(answer)
    }

    async fn open_once(&self, shard: u16, open: &Open) -> Result<Option<Opened>, BrokerError> {
        let loaded = self.scripts.load(&self.link).await?;
        let keys = ["log", "meta", "seqs", "marks"].map(|name| self.key(shard, name));
        let mut arguments = vec![
            number(open.seen.epoch),
            number(open.seen.offset),
            number(millis(open.grace)),
            flag(open.all_origins),
            number(LOG_ORIGIN_KEPT.as_secs()),
        ];
        arguments.extend(open.origins.iter().map(|origin| origin_text(*origin)));
        let call = self.link.call(Lane::Write, "EVALSHA", scripts::arguments(&loaded.open, &keys, arguments));
        match call.await {
            Ok(reply) => opened(reply).map(Some),
            Err(LinkError::Rejected(text)) if text.starts_with("NOSCRIPT") => {
                self.scripts.forget(&loaded);
                Ok(None)
            }
            Err(error) => Err(failure(error)),
        }
    }
}

impl Broker for Redis {
    fn join(&self, shards: u16) -> Pending<'_, ()> {
        Box::pin(async move {
            self.check_server().await?;
            self.check_shards(shards).await?;
            self.shards.store(shards.max(1), Ordering::Relaxed);
            Ok(())
        })
    }

    fn open(&self, shard: u16, open: Open) -> Pending<'_, Opened> {
        Box::pin(async move {
            // The server may have changed since the scripts were loaded: load them for the one that is there now.
            for _ in 0..3 {
                if let Some(opened) = self.open_once(shard, &open).await? {
                    return Ok(opened);
                }
            }
            Err(BrokerError::NotDone("the server changes again and again".to_owned()))
        })
    }

    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended> {
        Box::pin(self.append_once(shard, append))
    }

    fn read(&self, shard: u16, after: Position, entries_max: usize) -> Pending<'_, Vec<Entry>> {
        let first = Bytes::from(format!("({after}"));
        let arguments = vec![
            self.key(shard, "log"),
            first,
            Bytes::from_static(b"+"),
            Bytes::from_static(b"COUNT"),
            number(entries_max as u64),
        ];
        Box::pin(async move {
            let reply = self.link.call(Lane::Read, "XRANGE", arguments).await.map_err(failure)?;
            Ok(reply.list().into_iter().filter_map(entries::from_stream).collect())
        })
    }

    fn subscribe(&self, shard: u16) -> Pending<'_, Live> {
        let channel = String::from_utf8_lossy(&self.key(shard, "live")).into_owned();
        Box::pin(async move {
            let listener = self.link.listen(channel).await.map_err(failure)?;
            Ok(Live::messages(listener, Box::new(entries::from_live)))
        })
    }

    fn retain(&self, shard: u16, retain: Retain) -> Pending<'_, Retained> {
        Box::pin(self.write_last_values(shard, retain))
    }

    fn retained(&self, shard: u16, cursor: Option<Bytes>, values_max: usize) -> Pending<'_, RetainedPage> {
        Box::pin(self.read_last_values(shard, cursor, values_max))
    }

    fn claim(&self, claim: Claim) -> Pending<'_, Claimed> {
        let arguments = scripts::arguments(
            scripts::CLAIM,
            &[self.lease_key(claim.node)],
            [claim.boot.to_string().into(), claim.text.into(), number(millis(claim.ttl))],
        );
        Box::pin(async move {
            let reply = self.link.call(Lane::Read, "EVAL", arguments).await.map_err(failure)?;
            claimed(&reply.list())
        })
    }

    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()> {
        let arguments = scripts::arguments(scripts::RELEASE, &[self.lease_key(node)], [boot.to_string().into()]);
        Box::pin(async move { self.link.call(Lane::Read, "EVAL", arguments).await.map(drop).map_err(failure) })
    }

    fn keeps_data(&self) -> bool {
        false
    }

    fn takes_values(&self) -> bool {
        false
    }
}

/// Answers with which Redis says that it has not begun to carry a command out.
const NOT_DONE: &[&str] = &[
    "OOM",
    "READONLY",
    "LOADING",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOSCRIPT",
];

fn failure(error: LinkError) -> BrokerError {
    let text = error.to_string();
    match error {
        LinkError::Url(_) => BrokerError::Refused(text),
        LinkError::NotSent(_) => BrokerError::NotDone(text),
        LinkError::Rejected(answer) if NOT_DONE.iter().any(|word| answer.starts_with(word)) => {
            BrokerError::NotDone(text)
        }
        LinkError::Rejected(_) | LinkError::Unknown(_) => BrokerError::Unknown(text),
    }
}

fn nonsense() -> BrokerError {
    BrokerError::Unknown("Redis answered something that the script never says".to_owned())
}

fn appended(reply: Reply, append: &Append) -> Result<Appended, BrokerError> {
    let list = reply.list();
    let word = list.first().and_then(Reply::text).unwrap_or_default();
    let second = list.get(1);
    match word {
        "stored" => {
            let offset = second.and_then(Reply::number).ok_or_else(nonsense)?;
            let kind = list.get(2).and_then(Reply::text).and_then(entries::kind).ok_or_else(nonsense)?;
            Ok(Appended::Stored { position: Position { epoch: append.epoch, offset }, kind })
        }
        "have" => {
            let held = second.and_then(Reply::text).ok_or_else(nonsense)?;
            origin_last(append.batch.origin, held).map(Appended::Have).ok_or_else(nonsense)
        }
        "wait" => Ok(Appended::Wait(Duration::from_millis(second.and_then(Reply::number).ok_or_else(nonsense)?))),
        "gap" => Ok(Appended::Gap),
        "fenced" => Ok(Appended::Fenced),
        _ => Err(nonsense()),
    }
}

fn opened(reply: Reply) -> Result<Opened, BrokerError> {
    let mut list = reply.list();
    let origins = list.pop().ok_or_else(nonsense)?.list();
    let [epoch, offset, sealed, grace_ms] = list.iter().map(Reply::number).collect::<Vec<_>>()[..] else {
        return Err(nonsense());
    };
    let origins = origins.chunks_exact(2).filter_map(|pair| {
        let origin = u64::from_str_radix(pair[0].text()?, 16).ok()?;
        origin_last(origin, pair[1].text()?)
    });
    Ok(Opened {
        tail: Position { epoch: epoch.ok_or_else(nonsense)?, offset: offset.ok_or_else(nonsense)? },
        sealed: sealed == Some(1),
        grace: Duration::from_millis(grace_ms.ok_or_else(nonsense)?),
        origins: origins.collect(),
    })
}

fn claimed(list: &[Reply]) -> Result<Claimed, BrokerError> {
    match list {
        [taken] if taken.number() == Some(1) => Ok(Claimed::Held),
        [_, holder, left_ms] => Ok(Claimed::Other {
            holder: holder.text().unwrap_or("somebody").chars().filter(|c| !c.is_control()).take(256).collect(),
            left: Duration::from_millis(left_ms.number().unwrap_or(0)),
        }),
        _ => Err(nonsense()),
    }
}

/// Reads what the scripts note of an origin: `seq epoch offset unix_s`.
fn origin_last(origin: u64, held: &str) -> Option<OriginLast> {
    let mut numbers = held.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(OriginLast { origin, seq: next()?, position: Position { epoch: next()?, offset: next()? } })
}

fn origin_text(origin: u64) -> Bytes {
    format!("{origin:016x}").into()
}

fn number(number: u64) -> Bytes {
    number.to_string().into()
}

fn flag(is_set: bool) -> Bytes {
    Bytes::from_static(if is_set { b"1" } else { b"0" })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
