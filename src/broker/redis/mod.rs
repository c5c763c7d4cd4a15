//! The log in Redis (7.0 or later; one server, behind sentinels, or a cluster): a stream a shard, and scripts that make an
//! append one step.
//!
//! | key | what |
//! |---|---|
//! | `{ws:0}:log` | stream; entry `<epoch>-<offset>`, one field named for its kind, with the batch's bytes |
//! | `{ws:0}:meta` | hash: the server's run_id, epoch, offset, whether sealed, since when open, bytes |
//! | `{ws:0}:seqs` | hash: origin → its last seq, that entry's place, Unix seconds |
//! | `{ws:0}:marks` | list: now and then an entry's id and the bytes up to it, by which the log is trimmed in bytes |
//! | `{ws:0}:last` | hash: a tag's name → its last value; the bytes are counted in `meta` |
//! | `{ws:0}:last_at` | sorted set: the same names by when they were published |
//! | `{ws:0}:live` | channel (in a cluster a shard channel): a header and the batch's bytes |
//! | `ws:meta` | hash: the number of shards |
//! | `ws:node:200` | a node's lease |
//!
//! In a cluster all of a shard is in one slot. A slot that moves, a replica that is promoted: the next server's run_id is
//! another, and with it the epoch. While keys of a slot move one by one, every key that a script touches is among its KEYS,
//! so that the script runs with all of them or not at all.
//!
//! Invariants: a script runs only on the server incarnation for which it was loaded; what Redis says is not trusted.

mod answers;
mod durability;
mod entries;
mod last_values;
mod scripts;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
pub use ws_cluster_redis::TlsFiles;
use ws_cluster_redis::{Lane, Link, LinkError, Reply, Server};

use self::{
    answers::{appended, claimed, failure, nonsense, opened},
    durability::safely,
    scripts::Scripts,
};
use super::{
    Append, Appended, Broker, BrokerError, Claim, Claimed, Durability, Entry, Live, Open, Opened, Pending, Position,
    Retain, Retained, RetainedPage,
};
use crate::{
    limits::{LOG_ENTRIES_MAX, LOG_LIVE_MESSAGES_MAX, LOG_ORIGIN_KEPT},
    model::{Boot, NodeId},
};

/// The log is trimmed in steps of this part of it.
const MARKS: usize = 256;
/// How long a start waits for the first connection before it says so.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// The first Redis, and the first that can say that an append is on its disk.
const REDIS_MIN: (u32, u32) = (7, 0);
const REDIS_WITH_WAITAOF: (u32, u32) = (7, 2);

/// How the log uses Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Begins every key and channel; `ws`.
    pub prefix: String,
    /// The log in Redis, all shards together, in bytes.
    pub log_bytes_max: usize,
    /// What appends will ask for: Redis must be able to do it.
    pub durability: Durability,
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
    /// URL or a file, and says why it cannot be used.
    pub fn start(url: &str, files: &TlsFiles, settings: RedisSettings) -> Result<Self, BrokerError> {
        let link = Link::start(url, files, LOG_LIVE_MESSAGES_MAX).map_err(failure)?;
        Ok(Self { link, scripts: Scripts::default(), settings, shards: AtomicU16::new(1) })
    }

    fn key(&self, shard: u16, name: &str) -> Bytes {
        format!("{{{}:{shard}}}:{name}", self.settings.prefix).into()
    }

    fn lease_key(&self, node: NodeId) -> Bytes {
        format!("{}:node:{node}", self.settings.prefix).into()
    }

    /// The server that has this shard now.
    fn server(&self, shard: u16) -> Result<Arc<Server>, LinkError> {
        self.link.server(&self.key(shard, "log"))
    }

    /// Sends a command to the server that has `key`, which must be among the arguments.
    async fn call(
        &self,
        lane: Lane,
        key: &Bytes,
        command: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<Reply, LinkError> {
        self.link.server(key)?.call(lane, command, arguments).await
    }

    async fn check_servers(&self, shards: u16) -> Result<(), BrokerError> {
        self.link.connected(CONNECT_WAIT).await.map_err(failure)?;
        let needed = if self.settings.durability == Durability::Disk { REDIS_WITH_WAITAOF } else { REDIS_MIN };
        let mut checked = Vec::new();
        for shard in 0..shards {
            let server = self.server(shard).map_err(failure)?;
            if checked.contains(&server.number()) {
                continue;
            }
            checked.push(server.number());
            let version = scripts::server_info(&server, "redis_version").await?;
            let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let held = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            if held < needed {
                let why = if needed == REDIS_MIN { "" } else { " for ack = disk (WAITAOF)" };
                let (major, minor) = needed;
                return Err(BrokerError::Refused(format!(
                    "Redis {major}.{minor} or later is needed{why}, this is {version}"
                )));
            }
        }
        Ok(())
    }

    async fn check_shards(&self, shards: u16) -> Result<(), BrokerError> {
        let key = Bytes::from(format!("{}:meta", self.settings.prefix));
        let field = Bytes::from_static(b"shards");
        let wanted = Bytes::from(shards.to_string());
        let set = self.call(Lane::Read, &key, "HSETNX", vec![key.clone(), field.clone(), wanted]);
        set.await.map_err(failure)?;
        let held = self.call(Lane::Read, &key, "HGET", vec![key.clone(), field]).await.map_err(failure)?;
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
        let server = self.server(shard).map_err(failure)?;
        let Some(loaded) = self.scripts.loaded(&server) else { return Ok(Appended::Fenced) };
        let keys = ["log", "meta", "seqs", "marks"].map(|name| self.key(shard, name));
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
            flag(append.durability != Durability::Log),
            batch.encode(),
            self.key(shard, "live"),
        ];
        let call = server.call(Lane::Write, "EVALSHA", scripts::arguments(&loaded.append, &keys, arguments));
        let answer = match append.durability {
            Durability::Log => call.await,
            safe => safely(&server, call, safe).await,
        };
        match answer {
            Ok(reply) => appended(reply, &append),
            Err(LinkError::Rejected(text)) if text.starts_with("NOSCRIPT") => {
                self.scripts.forget(&server, &loaded);
                Ok(Appended::Fenced)
            }
            Err(error) => Err(failure(error)),
        }
    }

    async fn open_once(&self, shard: u16, open: &Open) -> Result<Option<Opened>, BrokerError> {
        let server = self.server(shard).map_err(failure)?;
        let loaded = self.scripts.load(&server, self.link.channels()).await?;
        let keys = ["log", "meta", "seqs", "marks"].map(|name| self.key(shard, name));
        let mut arguments = vec![
            number(open.seen.epoch),
            number(open.seen.offset),
            number(millis(open.grace)),
            flag(open.all_origins),
            number(LOG_ORIGIN_KEPT.as_secs()),
        ];
        arguments.extend(open.origins.iter().map(|origin| origin_text(*origin)));
        let call = server.call(Lane::Write, "EVALSHA", scripts::arguments(&loaded.open, &keys, arguments));
        match call.await {
            Ok(reply) => opened(reply).map(Some),
            Err(LinkError::Rejected(text)) if text.starts_with("NOSCRIPT") => {
                self.scripts.forget(&server, &loaded);
                Ok(None)
            }
            Err(error) => Err(failure(error)),
        }
    }
}

impl Broker for Redis {
    fn join(&self, shards: u16) -> Pending<'_, ()> {
        Box::pin(async move {
            self.check_servers(shards).await?;
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
        let (key, first) = (self.key(shard, "log"), Bytes::from(format!("({after}")));
        let arguments = vec![
            key.clone(),
            first,
            Bytes::from_static(b"+"),
            Bytes::from_static(b"COUNT"),
            number(entries_max as u64),
        ];
        Box::pin(async move {
            let reply = self.call(Lane::Read, &key, "XRANGE", arguments).await.map_err(failure)?;
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
        let key = self.lease_key(claim.node);
        let arguments = scripts::arguments(
            scripts::CLAIM,
            std::slice::from_ref(&key),
            [claim.boot.to_string().into(), claim.text.into(), number(millis(claim.ttl))],
        );
        Box::pin(async move {
            let reply = self.call(Lane::Read, &key, "EVAL", arguments).await.map_err(failure)?;
            claimed(&reply.list())
        })
    }

    fn release(&self, node: NodeId, boot: Boot) -> Pending<'_, ()> {
        let key = self.lease_key(node);
        let arguments = scripts::arguments(scripts::RELEASE, std::slice::from_ref(&key), [boot.to_string().into()]);
        Box::pin(async move { self.call(Lane::Read, &key, "EVAL", arguments).await.map(drop).map_err(failure) })
    }

    fn keeps_data(&self) -> bool {
        false
    }

    fn takes_values(&self) -> bool {
        false
    }
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
