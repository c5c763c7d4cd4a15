//! Appends that are answered only when they are safer than in the memory of one server.
//!
//! Invariant: whatever is not confirmed is unknown, and the same append is made again.

use bytes::Bytes;
use ws_cluster_redis::{Lane, LinkError, Pending, Reply, Server};

use super::number;
use crate::broker::Durability;

/// How long an append waits for replicas, or for the disk.
const SAFE_WAIT_MS: u32 = 1000;

/// Carries `call` out and waits until it is as safe as is asked for. WAIT and WAITAOF look at the connection's own last
/// write, so all must go over one connection: its id is asked before and after.
pub(super) async fn safely(server: &Server, call: Pending<'_, Reply>, safe: Durability) -> Result<Reply, LinkError> {
    let id = || server.call(Lane::Write, "CLIENT", vec![Bytes::from_static(b"ID")]);
    let limit = number(u64::from(SAFE_WAIT_MS));
    let (command, wait, least) = match safe {
        Durability::Disk => ("WAITAOF", vec![number(1), number(0), limit], 1),
        Durability::Replicas(replicas) => ("WAIT", vec![number(u64::from(replicas)), limit], u64::from(replicas)),
        Durability::Log => return call.await,
    };
    let (before, answer, confirmed, after) =
        futures_util::join!(id(), call, server.call(Lane::Write, command, wait), id());
    let answer = answer?;
    let is_stored = matches!(&answer, Reply::List(list)
        if list.first().and_then(Reply::text).is_some_and(|word| word == "stored" || word == "have"));
    let is_one_connection = before.is_ok() && before == after;
    // WAITAOF tells of its own disk first, then of the replicas'.
    let count = match confirmed? {
        Reply::List(counts) => counts.first().and_then(Reply::number),
        count => count.number(),
    };
    if is_stored && !(is_one_connection && count.is_some_and(|count| count >= least)) {
        return Err(LinkError::Unknown(format!("{command} has confirmed too little")));
    }
    Ok(answer)
}
