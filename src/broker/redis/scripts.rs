//! The scripts, and for which server they are loaded.
//!
//! The text of the two that write begins with the server's run_id, so that after a restart or a promotion the server
//! does not know them (NOSCRIPT; Redis 7 neither saves nor replicates scripts). The run_id is read before and after
//! the loading: if it changed, they may stand on the wrong server, and are never used. A nonce makes sure that what
//! one loader put on a wrong server is not found there by another.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use ws_cluster_redis::{Lane, Link};

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

/// The scripts on the server that was last met.
#[derive(Debug, Default)]
pub(super) struct Scripts(Lock<Option<Arc<Loaded>>>);

impl Scripts {
    /// What is loaded, if the last server met has not turned out to be another.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server does not know these any more.
    pub(super) fn forget(&self, gone: &Arc<Loaded>) {
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.as_ref().is_some_and(|loaded| Arc::ptr_eq(loaded, gone)) {
            *loaded = None;
        }
    }

    /// What is loaded; loads it if nothing is.
    pub(super) async fn load(&self, link: &Link) -> Result<Arc<Loaded>, BrokerError> {
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let run = server_info(link, "run_id").await?;
        let nonce = RandomState::new().build_hasher().finish();
        let head = format!("-- {nonce:016x}\nlocal RUN = '{run}'\n");
        let loaded = Loaded { append: load(link, &head, APPEND).await?, open: load(link, &head, OPEN).await? };
        if server_info(link, "run_id").await? != run {
            return Err(BrokerError::NotDone("the server changed while the scripts were loaded".to_owned()));
        }
        let loaded = Arc::new(loaded);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded.clone());
        Ok(loaded)
    }
}

async fn load(link: &Link, head: &str, body: &str) -> Result<String, BrokerError> {
    let text = Bytes::from(format!("{head}{body}"));
    let arguments = vec![Bytes::from_static(b"LOAD"), text];
    let name = link.call(Lane::Write, "SCRIPT", arguments).await.map_err(failure)?;
    let name = name.text().map(str::to_owned);
    name.ok_or_else(|| BrokerError::NotDone("Redis did not name the script it loaded".to_owned()))
}

/// A line of `INFO server`.
pub(super) async fn server_info(link: &Link, name: &str) -> Result<String, BrokerError> {
    let info = link.call(Lane::Write, "INFO", vec![Bytes::from_static(b"server")]).await.map_err(failure)?;
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
