//! Where a client may be sent.

use super::ids::NodeId;

/// A node that takes connections, as it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Where clients reach it: host and port, perhaps behind `ws://` or `wss://`.
    pub addr: Box<str>,
    /// Its open user connections.
    pub users: u32,
    /// Names the sign of life that said so: another one has another number.
    pub beat: u64,
}

impl Place {
    /// The address of its WebSocket endpoint with this query, as it stood in a target.
    pub fn connect_url(&self, query: &str) -> String {
        let addr = self.addr.trim_end_matches('/');
        let scheme = if addr.contains("://") { "" } else { "ws://" };
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{scheme}{addr}/ws/connect{mark}{query}")
    }
}
