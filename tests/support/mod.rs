//! What the black-box tests stand on: real nodes, a private Redis, independent clients, and nothing of the server's code.
//!
//! Invariants: every process that is started ends with its value; every wait has a bound.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub mod api;
pub mod checker;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod config;
pub mod http;
pub mod load;
pub mod node;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod scenario;
pub mod sign;
pub mod tls;
pub mod token;
pub mod topology;
pub mod trace;

use std::time::Duration;

pub use api::Api;
pub use client::{Client, Connect};
pub use cluster::{Cluster, Setup, bounded, bounded_by, run, run_with};
pub use config::Config;
pub use load::Load;
pub use node::Node;
pub use redis::Redis;
pub use serde_json::{Value, json};
pub use topology::{RedisCluster, Sentinels};

/// How long anything that must happen may take. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must happen before we believe that it will not.
pub const QUIET: Duration = Duration::from_millis(250);

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "a test is its own clock")]
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A name that no other test run uses.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{:08x}", fastrand::u32(..))
}

/// Waits until `condition` holds, or panics after [`PATIENCE`].
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}: not within {PATIENCE:?}");
}
