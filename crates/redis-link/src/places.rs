//! The servers that are known now.
//!
//! Invariants: connections to a server that is still a master outlive every change; listeners of what has moved end.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use fred::types::config::Server as Address;

use crate::{
    LinkError,
    listening::Channels,
    server::Server,
    topology::{Topology, slot},
    trouble::Trouble,
    url::{Shape, Target},
};

#[expect(clippy::disallowed_types, reason = "held for one look-up or one change by the node's thread, never by a core")]
pub(crate) type Lock<T> = std::sync::Mutex<T>;

/// See the module.
pub(crate) struct Places {
    pub(crate) target: Target,
    pub(crate) trouble: Arc<Trouble>,
    messages_max: usize,
    numbers: AtomicU64,
    known: Lock<Known>,
}

#[derive(Default)]
struct Known {
    topology: Topology,
    /// As the topology's masters.
    servers: Vec<Arc<Server>>,
}

impl Places {
    pub(crate) fn new(target: Target, messages_max: usize) -> Self {
        Self { target, trouble: Arc::default(), messages_max, numbers: AtomicU64::new(1), known: Lock::default() }
    }

    /// How live channels are carried.
    pub(crate) fn channels(&self) -> Channels {
        match self.target.shape {
            Shape::Cluster { .. } => Channels::OfSlots,
            Shape::One(_) | Shape::Sentinel { .. } => Channels::OfServer,
        }
    }

    /// The server that has this key or channel.
    pub(crate) fn server(&self, key: &[u8]) -> Result<Arc<Server>, LinkError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let server = known.topology.master_of(slot(key)).and_then(|master| known.servers.get(master));
        server.cloned().ok_or_else(|| {
            self.trouble.failed(0, &LinkError::NotSent(String::new()));
            LinkError::NotSent("no master is known yet".to_owned())
        })
    }

    /// All servers.
    pub(crate) fn servers(&self) -> Vec<Arc<Server>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).servers.clone()
    }

    /// Takes this as what is so from now on; whether it is new.
    pub(crate) fn adopt(&self, topology: Topology) -> Result<bool, LinkError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.topology == topology {
            return Ok(false);
        }
        let mut servers = Vec::with_capacity(topology.masters.len());
        for address in &topology.masters {
            let kept = known.topology.masters.iter().position(|master| master == address);
            servers.push(kept.map_or_else(|| self.connect(address), |kept| Ok(known.servers[kept].clone()))?);
        }
        let before = std::mem::replace(&mut *known, Known { topology: topology.clone(), servers: servers.clone() });
        drop(known);
        for server in &before.servers {
            let owner = |channel: &str| topology.master_of(slot(channel.as_bytes())).and_then(|at| servers.get(at));
            server.listening.keep_only(|channel| owner(channel).is_some_and(|owner| Arc::ptr_eq(owner, server)));
        }
        Ok(true)
    }

    fn connect(&self, address: &Address) -> Result<Arc<Server>, LinkError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (config, trouble) = (self.target.config(address), self.trouble.clone());
        Server::start((number, address), &config, (self.channels(), self.messages_max), trouble).map(Arc::new)
    }
}
