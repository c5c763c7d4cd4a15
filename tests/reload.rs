//! What a node takes while it runs, and what it does when the machine gives it no more.
//!
//! Method: real nodes whose configuration file the test writes anew before a SIGHUP or a call of `/admin/reload`; whose file limit
//! is lowered from outside (`prlimit`) until nothing is left; and whose bound of memory is set just above what they use.

mod support;

#[path = "reload/death.rs"]
mod death;
#[path = "reload/files.rs"]
mod files;
#[path = "reload/memory.rs"]
mod memory;
#[path = "reload/orders.rs"]
mod orders;
#[path = "reload/settings.rs"]
mod settings;
#[path = "reload/tags.rs"]
mod tags;

use support::{Cluster, Config, Node, eventually};

/// How many reloads the node has carried out.
async fn done(node: &Node) -> f64 {
    node.metric("ws_reloads_total result=\"done\"").await
}

/// Gives the node another file and waits until it is in effect.
async fn reload(node: &Node, file: &str) {
    let before = done(node).await;
    node.write_config(file);
    node.signal("HUP");
    eventually("the reload", async || done(node).await > before).await;
}

/// One node with the embedded queue and an operators' listener for orders.
async fn one_node() -> Cluster {
    Cluster::start(support::Setup::ONE, Config::new().flags(&["--pprof_port", "0"])).await
}
