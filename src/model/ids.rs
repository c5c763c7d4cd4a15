//! Names of things: projects, tags, nodes, connections, records.

use std::{fmt, ops::Deref, str::FromStr, sync::Arc};

/// A node's number in its cluster (`--node`), 0-65535; leased in the queue, so that no two nodes hold one.
pub type NodeId = u16;

/// One boot of one node: random, so that an id made before a restart finds nobody after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Boot(pub u32);

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

macro_rules! shared_name {
    ($(#[$doc:meta])* $name:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if `text` is a well-formed one.
            pub fn new(text: &str) -> Option<Self> {
                let valid: fn(&str) -> bool = $valid;
                valid(text).then(|| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

shared_name!(
    /// A project (tenant): 1-128 bytes without commas or control characters.
    Pid,
    is_identity
);
shared_name!(
    /// What user connections subscribe to: 1-128 bytes of `A-Z a-z 0-9 _ . : @ / -`.
    Tag,
    is_tag
);

/// Longest pid, uid, device and tag, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether `text` can be a pid, uid or device: 1-128 bytes without commas or control characters.
pub fn is_identity(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c == ',' || c.is_control())
}

/// Whether `text` can be a tag: 1-128 bytes of `A-Z a-z 0-9 _ . : @ / -`.
pub fn is_tag(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:@/-".contains(&b);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed)
}

/// A connection inside its node: which core, which slot there, and the slot's how-manieth user.
///
/// A stale id (its generation is over) finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The core that owns the connection.
    pub core: u8,
    /// Its place in that core's slab.
    pub slot: u32,
    /// Distinguishes the connections that held the slot one after another.
    pub generation: u32,
}

/// A connection in the cluster, as clients and back-ends see it (`cid`, `client_id`): `200-5f3a9c21-0-1a-3`
/// (node decimal, the rest hexadecimal: boot, core, slot, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// The node that holds the connection.
    pub node: NodeId,
    /// The boot of that node in which it was made.
    pub boot: Boot,
    /// The connection inside the node.
    pub session: SessionId,
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionId { core, slot, generation } = self.session;
        write!(f, "{}-{}-{core:x}-{slot:x}-{generation:x}", self.node, self.boot)
    }
}

/// The text is no [`ClientId`] or [`RecordId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedId;

impl fmt::Display for MalformedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id is malformed")
    }
}

impl std::error::Error for MalformedId {}

impl FromStr for ClientId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(MalformedId);
        let node = part()?.parse().map_err(|_| MalformedId)?;
        let boot = Boot(hex(part()?)?);
        let core = u8::try_from(hex(part()?)?).map_err(|_| MalformedId)?;
        let session = SessionId { core, slot: hex(part()?)?, generation: hex(part()?)? };
        parts.next().is_none().then_some(Self { node, boot, session }).ok_or(MalformedId)
    }
}

fn hex(text: &str) -> Result<u32, MalformedId> {
    u32::from_str_radix(text, 16).map_err(|_| MalformedId)
}

/// A record's identity for ever, and a publication's `id`: its origin (one boot of one node, per shard) and
/// its number there, counted from 1. As text `c81f0a2b3c4d-2a`, both hexadecimal.
///
/// It is the identity and not the position in a log: what is appended again after the queue lost its data
/// keeps its id, on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// The origin: one boot of a node and one shard of the log; random and unique.
    pub origin: u64,
    /// The record's number among the origin's, from 1, without holes.
    pub seq: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.origin, self.seq)
    }
}

impl FromStr for RecordId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let (origin, seq) = text.split_once('-').ok_or(MalformedId)?;
        let number = |part: &str| u64::from_str_radix(part, 16).map_err(|_| MalformedId);
        Ok(Self { origin: number(origin)?, seq: number(seq)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_reads_back_from_its_text() {
        let session = SessionId { core: 3, slot: 0x1a, generation: 7 };
        let cid = ClientId { node: 200, boot: Boot(0x5f3a_9c21), session };
        assert_eq!(cid.to_string(), "200-5f3a9c21-3-1a-7");
        assert_eq!(cid.to_string().parse(), Ok(cid));
        for bad in
            ["", "200", "200-5f3a9c21-3-1a", "200-5f3a9c21-3-1a-7-1", "x-5f3a9c21-3-1a-7", "200-5f3a9c21-100-1a-7"]
        {
            assert_eq!(bad.parse::<ClientId>(), Err(MalformedId), "{bad}");
        }
    }

    #[test]
    fn a_record_id_reads_back_from_its_text() {
        let id = RecordId { origin: u64::MAX, seq: 42 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("nonsense".parse::<RecordId>(), Err(MalformedId));
    }

    #[test]
    fn names_are_checked() {
        assert!(Tag::new("kline.BTC-USDT@1m/x:y_z").is_some());
        for bad in ["", "a b", "a,b", "é", &"x".repeat(129)] {
            assert!(Tag::new(bad).is_none(), "{bad}");
        }
        assert!(Pid::new("502").is_some() && is_identity("müller"));
        for bad in ["", "a,b", "a\nb", &"x".repeat(129)] {
            assert!(Pid::new(bad).is_none(), "{bad}");
        }
    }
}
