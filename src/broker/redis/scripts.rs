//! The scripts, and for which servers they are loaded.
//!
//! The text of the two that write begins with the server's run_id, so that after a restart or a promotion the server
//! does not know them (NOSCRIPT; Redis 7 neither saves nor replicates scripts). The run_id is read before and after
//! the loading: if it changed, they may stand on the wrong server, and are never used. A nonce makes sure that what
//! one loader put on a wrong server is not found there by another.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use ws_cluster_redis::{Channels, Lane, Server};

use super::failure;
use crate::broker::BrokerError;

const APPEND: &str = include_str!("append.lua");
const OPEN: &str = include_str!("open.lua");
/// Takes or renews a lease.
pub(super) const CLAIM: &str = include_str!("claim.lua");
/// Stores last values.
pub(super) const RETAIN: &str = include_str!("retain.lua");
/// Gives a lease up.
pub(super) const RELEASE: &str = include_str!("release.lua");

/// The names (SHA-1) of the scripts on one incarnation of a server.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) append: String,
    pub(super) open: String,
}

#[expect(clippy::disallowed_types, reason = "held to read or replace a pointer, by the node's thread")]
type Lock<T> = std::sync::Mutex<T>;

/// Servers that are remembered; then all are forgotten, and each is asked again.
const SERVERS_MAX: usize = 64;

/// The scripts on the servers that were met, by their number.
#[derive(Debug, Default)]
pub(super) struct Scripts(Lock<HashMap<u64, Arc<Loaded>>>);

impl Scripts {
    /// What is loaded, if the server last met there has not turned out to be another.
    pub(super) fn loaded(&self, server: &Server) -> Option<Arc<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&server.number()).cloned()
    }

    /// The server does not know these any more.
    pub(super) fn forget(&self, server: &Server, gone: &Arc<Loaded>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&server.number()).is_some_and(|loaded| Arc::ptr_eq(loaded, gone)) {
            all.remove(&server.number());
        }
    }

    /// What is loaded; loads it if nothing is.
    pub(super) async fn load(&self, server: &Server, channels: Channels) -> Result<Arc<Loaded>, BrokerError> {
        if let Some(loaded) = self.loaded(server) {
            return Ok(loaded);
        }
        let run = server_info(server, "run_id").await?;
        let nonce = RandomState::new().build_hasher().finish();
        let publish = match channels {
            Channels::OfServer => "PUBLISH",
            Channels::OfSlots => "SPUBLISH",
        };
        let head = format!("-- {nonce:016x}\nlocal RUN, PUBLISH = '{run}', '{publish}'\n");
        let loaded = Loaded { append: load(server, &head, APPEND).await?, open: load(server, &head, OPEN).await? };
        if server_info(server, "run_id").await? != run {
            return Err(BrokerError::NotDone("the server changed while the scripts were loaded".to_owned()));
        }
        let loaded = Arc::new(loaded);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SERVERS_MAX {
            all.clear();
        }
        all.insert(server.number(), loaded.clone());
        Ok(loaded)
    }
}

async fn load(server: &Server, head: &str, body: &str) -> Result<String, BrokerError> {
    let text = Bytes::from(format!("{head}{body}"));
    let arguments = vec![Bytes::from_static(b"LOAD"), text];
    let name = server.call(Lane::Write, "SCRIPT", arguments).await.map_err(failure)?;
    let name = name.text().map(str::to_owned);
    name.ok_or_else(|| BrokerError::NotDone("Redis did not name the script it loaded".to_owned()))
}

/// A line of `INFO server`.
pub(super) async fn server_info(server: &Server, name: &str) -> Result<String, BrokerError> {
    let info = server.call(Lane::Write, "INFO", vec![Bytes::from_static(b"server")]).await.map_err(failure)?;
    let line = info.text().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    });
    let is_plain = |value: &String| value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    line.filter(is_plain).ok_or_else(|| BrokerError::NotDone(format!("Redis does not tell its {name}")))
}

/// The arguments of EVAL and EVALSHA.
pub(super) fn arguments(script: &str, keys: &[Bytes], rest: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let head = [Bytes::copy_from_slice(script.as_bytes()), Bytes::from(keys.len().to_string())];
    head.into_iter().chain(keys.iter().cloned()).chain(rest).collect()
}
