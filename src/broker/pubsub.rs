//! Plain PUBLISH and SUBSCRIBE posing as a log: the negative control of everything that checks the log's promise.
//!
//! It acknowledges what Redis has taken and loses whatever a cut connection, a restart or a slow reader loses. A check
//! of delivery that passes over this queue checks nothing. Only compiled with the feature `plain-pubsub`; never for
//! service.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use bytes::Bytes;
use ws_cluster_redis::{Channels, Lane, Link, LinkError, TlsFiles};

use super::{
    Append, Appended, Broker, BrokerError, Claim, Claimed, Content, Entry, Kind, Live, Open, Opened, OriginLast,
    Pending, Position, Retain, Retained, RetainedPage,
};
use crate::{
    limits::LOG_LIVE_MESSAGES_MAX,
    model::{Boot, NodeId},
};

/// The only epoch.
const EPOCH: u64 = 1;

#[expect(clippy::disallowed_types, reason = "held for one look-up by the node's thread")]
type Lock<T> = std::sync::Mutex<T>;

/// Plain publish and subscribe.
#[derive(Debug)]
pub struct PlainPubSub {
    link: Link,
    prefix: String,
    lasts: Lock<HashMap<u64, OriginLast>>,
}

impl PlainPubSub {
    /// Starts to connect; as [`super::redis::Redis::start`].
    pub fn start(url: &str, prefix: &str) -> Result<Self, BrokerError> {
        let link = Link::start(url, &TlsFiles::default(), LOG_LIVE_MESSAGES_MAX)
            .map_err(|error| BrokerError::Refused(error.to_string()))?;
        Ok(Self { link, prefix: prefix.to_owned(), lasts: Lock::default() })
    }

    fn channel(&self, shard: u16) -> String {
        format!("{}:{shard}:plain", self.prefix)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.link.connected(Duration::from_secs(1)).await.map_err(failure)?;
        self.link
            .server(b"ping")
            .map_err(failure)?
            .call(Lane::Write, "PING", Vec::new())
            .await
            .map(drop)
            .map_err(failure)
    }
}

fn failure(error: LinkError) -> BrokerError {
    match error {
        LinkError::Unknown(text) => BrokerError::Unknown(text),
        other => BrokerError::NotDone(other.to_string()),
    }
}

impl Broker for PlainPubSub {
    fn join(&self, _shards: u16) -> Pending<'_, ()> {
        Box::pin(self.ping())
    }

    fn open(&self, _shard: u16, open: Open) -> Pending<'_, Opened> {
        Box::pin(async move {
            self.ping().await?;
            let lasts = self.lasts.lock().unwrap_or_else(PoisonError::into_inner);
            let origins = open.origins.iter().filter_map(|origin| lasts.get(origin).copied()).collect();
            let tail = Position { epoch: EPOCH, offset: 0 };
            Ok(Opened { tail, sealed: true, grace: Duration::ZERO, origins })
        })
    }

    fn append(&self, shard: u16, append: Append) -> Pending<'_, Appended> {
        Box::pin(async move {
            let batch = append.batch;
            let channel = self.channel(shard);
            let server = self.link.server(channel.as_bytes()).map_err(failure)?;
            let publish = if self.link.channels() == Channels::OfSlots { "SPUBLISH" } else { "PUBLISH" };
            server.call(Lane::Write, publish, vec![channel.into(), batch.encode()]).await.map_err(failure)?;
            let position = Position { epoch: EPOCH, offset: append.seen_offset };
            let last = OriginLast { origin: batch.origin, seq: batch.last_seq(), position };
            self.lasts.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.origin, last);
            Ok(Appended::Stored { position, kind: Kind::New })
        })
    }

    fn read(&self, _shard: u16, _after: Position, _entries_max: usize) -> Pending<'_, Vec<Entry>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn subscribe(&self, shard: u16) -> Pending<'_, Live> {
        Box::pin(async move {
            let listener = self.link.listen(self.channel(shard)).await.map_err(failure)?;
            let mut offset = 0;
            // Numbered as it comes, so that a receiver takes everything and misses nothing that it could know of.
            Ok(Live::messages(
                listener,
                Box::new(move |bytes| {
                    offset += 1;
                    let position = Position { epoch: EPOCH, offset };
                    Some(Entry { position, kind: Kind::New, content: Content::Wire(bytes) })
                }),
            ))
        })
    }

    fn retain(&self, _shard: u16, _retain: Retain) -> Pending<'_, Retained> {
        Box::pin(std::future::ready(Ok(Retained::Stored { was_empty: false, dropped: 0 })))
    }

    fn retained(&self, _shard: u16, _cursor: Option<Bytes>, _values_max: usize) -> Pending<'_, RetainedPage> {
        Box::pin(std::future::ready(Ok(RetainedPage::default())))
    }

    fn claim(&self, _claim: Claim) -> Pending<'_, Claimed> {
        Box::pin(std::future::ready(Ok(Claimed::Held)))
    }

    fn release(&self, _node: NodeId, _boot: Boot) -> Pending<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keeps_data(&self) -> bool {
        true
    }

    fn takes_values(&self) -> bool {
        false
    }
}
