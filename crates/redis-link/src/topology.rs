//! Which server has which slot, out of what a server answers.
//!
//! Pure. Invariant: anything may be answered; what is no topology is none.

use fred::{types::config::Server as Address, util::redis_keyslot};

use crate::Reply;

/// The last slot of a cluster.
const SLOT_LAST: u16 = 16_383;
/// More masters than this are somebody's mistake.
const MASTERS_MAX: usize = 256;

/// The slot of a key or a shard channel.
pub(crate) fn slot(key: &[u8]) -> u16 {
    redis_keyslot(key)
}

/// Slots, ends included, and the number of their master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: u16,
    last: u16,
    pub(crate) master: usize,
}

/// The masters, and which of them has which slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) masters: Vec<Address>,
    pub(crate) ranges: Vec<Range>,
}

impl Topology {
    /// One server that has everything.
    pub(crate) fn one(address: Address) -> Self {
        Self { masters: vec![address], ranges: vec![Range { first: 0, last: SLOT_LAST, master: 0 }] }
    }

    /// The number of the master that has this slot.
    pub(crate) fn master_of(&self, slot: u16) -> Option<usize> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        range.map(|range| range.master)
    }

    /// Out of the answer to CLUSTER SLOTS; `asked` stands for itself where the answer does not name it.
    pub(crate) fn from_slots(reply: Reply, asked: &Address) -> Option<Self> {
        let mut topology = Self::default();
        for part in reply.list() {
            let mut part = part.list().into_iter();
            let (first, last) = (part.next()?.number()?, part.next()?.number()?);
            let address = node(part.next()?, asked)?;
            let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
            let known = topology.masters.iter().position(|master| *master == address);
            let master = known.unwrap_or(topology.masters.len());
            if known.is_none() {
                topology.masters.push(address);
            }
            topology.ranges.push(Range { first, last, master });
        }
        let is_sound = (1..=MASTERS_MAX).contains(&topology.masters.len());
        topology.ranges.sort_by_key(|range| range.first);
        is_sound.then_some(topology)
    }

    /// Out of a sentinel's answer to SENTINEL GET-MASTER-ADDR-BY-NAME.
    pub(crate) fn from_sentinel(reply: Reply) -> Option<Self> {
        let list = reply.list();
        let [host, port] = &list[..] else { return None };
        let port = u16::try_from(port.number()?).ok()?;
        Some(Self::one(Address::new(host.text()?, port)))
    }
}

/// `[host, port, id, …]`
fn node(reply: Reply, asked: &Address) -> Option<Address> {
    let list = reply.list();
    let port = u16::try_from(list.get(1)?.number()?).ok()?;
    let host = list.first()?.text().unwrap_or_default();
    match host {
        "" => Some(Address::new(asked.host.clone(), port)),
        "?" => None,
        host => Some(Address::new(host, port)),
    }
}

/// A value out of a list of names and values by turns.
pub(crate) fn value_of(list: &[Reply], name: &str) -> Option<u64> {
    list.chunks_exact(2).find(|pair| pair[0].text() == Some(name)).and_then(|pair| pair[1].number())
}

/// A value out of lines `name:value`.
pub(crate) fn line_of(reply: &Reply, name: &str) -> Option<u64> {
    let lines = reply.text()?.lines();
    lines.filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn text(text: &'static str) -> Reply {
        Reply::Text(Bytes::from_static(text.as_bytes()))
    }

    fn range(first: i64, last: i64, host: Reply, port: i64) -> Reply {
        let node = |host, port| Reply::List(vec![host, Reply::Int(port), text("id"), Reply::List(vec![])]);
        Reply::List(vec![Reply::Int(first), Reply::Int(last), node(host, port), node(text("replica"), 1)])
    }

    #[test]
    fn the_owner_of_a_slot_is_its_first_node() {
        let asked = Address::new("asked", 7000);
        let reply = Reply::List(vec![
            range(5001, 16_383, text("b"), 7001),
            range(0, 99, text(""), 7002),
            range(100, 5000, text("b"), 7001),
        ]);
        let topology = Topology::from_slots(reply, &asked).expect("a topology");
        assert_eq!(topology.masters, [Address::new("b", 7001), Address::new("asked", 7002)]);
        let owners: Vec<_> = [0, 99, 100, 5000, 5001, 16_383].map(|slot| topology.master_of(slot)).into();
        assert_eq!(owners, [Some(1), Some(1), Some(0), Some(0), Some(0), Some(0)]);
        let half = Topology::from_slots(Reply::List(vec![range(0, 9, text("b"), 1)]), &asked).expect("a part");
        assert_eq!(half.master_of(10), None);
    }

    #[test]
    fn what_is_no_topology_is_none() {
        let asked = Address::new("asked", 7000);
        let short = Reply::List(vec![Reply::List(vec![Reply::Int(0)])]);
        for reply in
            [Reply::Nil, text("what"), Reply::List(vec![]), short, Reply::List(vec![range(0, 70_000, text("a"), 1)])]
        {
            assert_eq!(Topology::from_slots(reply, &asked), None);
        }
        assert_eq!(Topology::from_slots(Reply::List(vec![range(0, 9, text("?"), 1)]), &asked), None);
        assert_eq!(Topology::from_sentinel(Reply::Nil), None);
        assert_eq!(Topology::from_sentinel(Reply::List(vec![text("h"), text("x")])), None);
    }

    #[test]
    fn a_sentinel_names_one_server_for_everything() {
        let topology = Topology::from_sentinel(Reply::List(vec![text("h"), text("6379")])).expect("a master");
        assert_eq!(topology.masters, [Address::new("h", 6379)]);
        assert_eq!(topology.master_of(slot(b"ws:meta")), Some(0));
        assert_eq!(value_of(&[text("a"), text("1"), text("config-epoch"), text("7")], "config-epoch"), Some(7));
        assert_eq!(line_of(&text("x:1\r\ncluster_current_epoch:9\r\n"), "cluster_current_epoch"), Some(9));
    }

    #[test]
    fn the_keys_of_a_shard_share_a_slot() {
        assert_eq!(slot(b"{ws:3}:log"), slot(b"{ws:3}:live"));
        assert_eq!(slot(b"123456789"), 0x31C3, "the cluster specification's example");
    }
}
