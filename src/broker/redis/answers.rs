//! What Redis and the scripts answer, as the log's answers and errors.
//!
//! Invariant: what could have been carried out is never called not done.

use std::time::Duration;

use ws_cluster_redis::{LinkError, Reply};

use super::entries;
use crate::broker::{Append, Appended, BrokerError, Claimed, Opened, OriginLast, Position};

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
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOSCRIPT",
];

pub(super) fn failure(error: LinkError) -> BrokerError {
    let text = error.to_string();
    match error {
        LinkError::Url(_) | LinkError::Tls(_) => BrokerError::Refused(text),
        LinkError::NotSent(_) => BrokerError::NotDone(text),
        LinkError::Rejected(answer) if NOT_DONE.iter().any(|word| answer.starts_with(word)) => {
            BrokerError::NotDone(text)
        }
        LinkError::Rejected(_) | LinkError::Unknown(_) => BrokerError::Unknown(text),
    }
}

pub(super) fn nonsense() -> BrokerError {
    BrokerError::Unknown("Redis answered something that the script never says".to_owned())
}

pub(super) fn appended(reply: Reply, append: &Append) -> Result<Appended, BrokerError> {
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

pub(super) fn opened(reply: Reply) -> Result<Opened, BrokerError> {
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

pub(super) fn claimed(list: &[Reply]) -> Result<Claimed, BrokerError> {
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
