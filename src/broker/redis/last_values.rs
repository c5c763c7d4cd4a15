//! Tags' last values in Redis.
//!
//! Invariants: a write is one step, fence and bounds included; what is read is not trusted.

use bytes::Bytes;
use ws_cluster_redis::{Lane, LinkError, Reply};

use super::{Redis, failure, nonsense, number, scripts};
use crate::{
    broker::{BrokerError, Retain, Retained, RetainedPage},
    limits::RETAINED_OVERHEAD_BYTES,
};

/// Answers that will always be the same: the key is somebody else's, or the user may not read it.
const NEVER: &[&str] = &["WRONGTYPE", "NOPERM", "ERR unknown command"];

impl Redis {
    pub(super) async fn write_last_values(&self, shard: u16, retain: Retain) -> Result<Retained, BrokerError> {
        let keys = ["last", "last_at", "meta"].map(|name| self.key(shard, name));
        let bounds = [retain.values_max, retain.bytes_max, RETAINED_OVERHEAD_BYTES].map(|bound| number(bound as u64));
        let head = [number(retain.term)].into_iter().chain(bounds);
        let values = retain.values.into_iter();
        let values = values.flat_map(|stored| [stored.name, number(stored.at_unix_ms), stored.value]);
        let arguments = scripts::arguments(scripts::RETAIN, &keys, head.chain(values));
        // On the reading connection: an append does not wait behind this.
        let reply = self.call(Lane::Read, &keys[0], "EVAL", arguments).await.map_err(failure)?;
        match reply.list().iter().map(Reply::number).collect::<Vec<_>>()[..] {
            [Some(was_empty), Some(dropped)] => Ok(Retained::Stored { was_empty: was_empty == 1, dropped }),
            [Some(term)] => Ok(Retained::Superseded(term)),
            _ => Err(nonsense()),
        }
    }

    pub(super) async fn read_last_values(
        &self,
        shard: u16,
        cursor: Option<Bytes>,
        values_max: usize,
    ) -> Result<RetainedPage, BrokerError> {
        let cursor = cursor.unwrap_or(Bytes::from_static(b"0"));
        let key = self.key(shard, "last");
        let arguments = vec![key.clone(), cursor, Bytes::from_static(b"COUNT"), number(values_max as u64)];
        let reply = match self.call(Lane::Read, &key, "HSCAN", arguments).await {
            Err(LinkError::Rejected(text)) if NEVER.iter().any(|word| text.starts_with(word)) => {
                return Err(BrokerError::Refused(text));
            }
            reply => reply.map_err(failure)?,
        };
        let mut parts = reply.list().into_iter();
        let (Some(Reply::Text(next)), Some(Reply::List(pairs))) = (parts.next(), parts.next()) else {
            return Err(nonsense());
        };
        let mut values = Vec::with_capacity(pairs.len() / 2);
        let mut pairs = pairs.into_iter();
        while let (Some(Reply::Text(name)), Some(Reply::Text(value))) = (pairs.next(), pairs.next()) {
            values.push((name, value));
        }
        Ok(RetainedPage { values, next: (next != "0").then_some(next) })
    }
}
