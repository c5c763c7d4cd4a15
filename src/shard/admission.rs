//! How many connections a node, an address and a user may have, and how often an address may fail to sign in.
//!
//! Touched twice in a connection's life and never for a message, so one lock for the node will do.
//! Invariants: what a [`Permit`] holds goes back when it is dropped; failures are bounded in number, oldest first.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{limits::OpeningLimits, model::network::Networks};

#[expect(clippy::disallowed_types, reason = "held for a few map operations at a connection's begin and end")]
type Lock<T> = std::sync::Mutex<T>;

/// Addresses whose failures are remembered.
const FAILURES_MAX: usize = 65_536;
const MINUTE: Duration = Duration::from_secs(60);

/// The node's account of connections.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    files_max: usize,
    is_short_of_memory: AtomicBool,
    trusted_proxies: Networks,
    hasher: ahash::RandomState,
    counts: Lock<Counts>,
}

#[derive(Debug)]
struct Counts {
    limits: OpeningLimits,
    connections: usize,
    /// Connections by a hash of their address, and of their project and user: a collision refuses one too many at worst.
    addresses: HashMap<Hashed, u32, ahash::RandomState>,
    users: HashMap<Hashed, u32, ahash::RandomState>,
    failures: HashMap<IpAddr, (Instant, u32), ahash::RandomState>,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The node has as many as it may.
    Node,
    /// The address has.
    Address,
    /// The user has.
    User,
}

/// A connection's places, given back when this is dropped: one of the node's, and those of its address and user once they
/// are taken.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    address: Option<Hashed>,
    user: Option<Hashed>,
}

// An idle connection pays for this, and for its two counts.
const _: () = assert!(size_of::<Permit>() <= 16);

/// 31 bits of a hash with a key of this process.
type Hashed = NonZeroU32;

impl Admission {
    /// An account that admits at most what `limits` and the file limit (`files_max`) allow. Connections of
    /// `trusted_proxies` count for the addresses that those name.
    pub fn new(limits: OpeningLimits, files_max: usize, trusted_proxies: Networks) -> Self {
        let (hasher, is_short_of_memory) = (ahash::RandomState::new(), AtomicBool::new(false));
        let counts = Lock::new(Counts {
            limits,
            connections: 0,
            addresses: HashMap::default(),
            users: HashMap::default(),
            failures: HashMap::default(),
        });
        Self(Arc::new(Shared { files_max, is_short_of_memory, trusted_proxies, hasher, counts }))
    }

    /// Replaces the bounds. Who is there stays, also beyond them.
    pub fn reload(&self, limits: OpeningLimits) {
        self.counts().limits = limits;
    }

    /// Says whether memory is too short for new connections.
    pub fn set_short_of_memory(&self, is_short: bool) {
        self.0.is_short_of_memory.store(is_short, Ordering::Relaxed);
    }

    /// Whether memory is too short for new connections.
    pub fn is_short_of_memory(&self) -> bool {
        self.0.is_short_of_memory.load(Ordering::Relaxed)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection.
    pub fn connection(&self) -> Result<Permit, NotAdmitted> {
        let mut counts = self.counts();
        if counts.connections >= counts.limits.connections_max.min(self.0.files_max / 5 * 4) {
            return Err(NotAdmitted::Node);
        }
        counts.connections += 1;
        drop(counts);
        Ok(Permit { admission: self.clone(), address: None, user: None })
    }

    /// Whether `peer` is a proxy that says the truth about whom it speaks for.
    pub fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        self.0.trusted_proxies.contains(peer)
    }

    /// Whom a connection is from: `peer`, or the last of `X-Forwarded-For` that is no trusted proxy itself.
    pub fn real_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let mut address = peer;
        for named in forwarded_for.unwrap_or_default().rsplit(',') {
            if !self.is_trusted_proxy(address) {
                break;
            }
            let Ok(named) = named.trim().parse::<IpAddr>() else { break };
            address = named.to_canonical();
        }
        address
    }

    /// Books a failure to sign in.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut counts = self.counts();
        if counts.failures.len() >= FAILURES_MAX {
            counts.failures.retain(|_, (since, _)| now.saturating_duration_since(*since) < MINUTE);
        }
        if counts.failures.len() >= FAILURES_MAX {
            // An attack from many addresses: forgetting all is better than remembering without end.
            counts.failures.clear();
        }
        let (since, failures) = counts.failures.entry(address).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= MINUTE {
            (*since, *failures) = (now, 0);
        }
        *failures += 1;
    }

    /// Whether the address has failed too often in the last minute to be listened to.
    pub fn is_barred(&self, address: IpAddr, now: Instant) -> bool {
        let counts = self.counts();
        let failures_max = counts.limits.failed_credentials_per_minute;
        counts.failures.get(&address).is_some_and(|(since, failures)| {
            *failures >= failures_max && now.saturating_duration_since(*since) < MINUTE
        })
    }
}

impl Permit {
    /// Takes a place of `address`.
    pub fn take_address(&mut self, address: IpAddr) -> Result<(), NotAdmitted> {
        let key = hashed(self.admission.0.hasher.hash_one(address));
        let mut counts = self.admission.counts();
        let per_address = counts.limits.connections_per_address;
        let held = counts.addresses.entry(key).or_default();
        if per_address > 0 && *held as usize >= per_address {
            return Err(NotAdmitted::Address);
        }
        *held += 1;
        drop(counts);
        self.address = Some(key);
        Ok(())
    }

    /// Takes a place of a user. With `kick_oldest` there always is one: somebody else ends the oldest.
    pub fn take_user(&mut self, pid: &str, uid: &str) -> Result<(), NotAdmitted> {
        let key = hashed(self.admission.0.hasher.hash_one((pid, uid)));
        let mut counts = self.admission.counts();
        let (per_user, kicks) = (counts.limits.connections_per_uid, counts.limits.kick_oldest);
        let held = counts.users.entry(key).or_default();
        if per_user > 0 && !kicks && *held as usize >= per_user {
            return Err(NotAdmitted::User);
        }
        *held += 1;
        drop(counts);
        self.user = Some(key);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.connections -= 1;
        if let Some(address) = self.address {
            give_back(&mut counts.addresses, address);
        }
        if let Some(user) = self.user {
            give_back(&mut counts.users, user);
        }
    }
}

fn hashed(hash: u64) -> Hashed {
    NonZeroU32::MIN.saturating_add((hash >> 33) as u32)
}

fn give_back(held: &mut HashMap<Hashed, u32, ahash::RandomState>, key: Hashed) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = held.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_bounds_hold() {
        let limits = OpeningLimits { connections_per_address: 2, connections_per_uid: 1, ..OpeningLimits::default() };
        let admission = Admission::new(limits, 5, Networks::default());
        let address = IpAddr::from([127, 0, 0, 1]);
        let held: Vec<Permit> = (0..4).map(|_| admission.connection().expect("a place")).collect();
        assert_eq!(admission.connection().err(), Some(NotAdmitted::Node));
        drop(held);
        assert!(admission.connection().is_ok());
        let from = |address| {
            let mut permit = admission.connection().expect("a place");
            permit.take_address(address).map(|()| permit)
        };
        let first = from(address).expect("a place");
        let _second = from(address).expect("a place");
        assert_eq!(from(address).err(), Some(NotAdmitted::Address));
        assert!(from(IpAddr::from([127, 0, 0, 2])).is_ok());
        drop(first);
        assert!(from(address).is_ok());
        let of = |pid, uid| {
            let mut permit = admission.connection().expect("a place");
            permit.take_user(pid, uid).map(|()| permit)
        };
        let user = of("1", "bob").expect("a place");
        assert_eq!(of("1", "bob").err(), Some(NotAdmitted::User));
        assert!(of("2", "bob").is_ok());
        drop(user);
        assert!(of("1", "bob").is_ok());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = Networks::new(["10.0.0.0/8".parse().expect("a network")]);
        let admission = Admission::new(OpeningLimits::default(), 1000, trusted);
        let (proxy, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([203, 0, 113, 7]));
        assert_eq!(admission.real_address(proxy, Some("1.2.3.4, 203.0.113.7")), client);
        assert_eq!(admission.real_address(proxy, Some("203.0.113.7, 10.9.9.9")), client);
        assert_eq!(admission.real_address(proxy, Some("nonsense")), proxy);
        assert_eq!(admission.real_address(proxy, None), proxy);
        assert_eq!(admission.real_address(client, Some("1.2.3.4")), client);
    }

    #[test]
    fn an_address_that_fails_often_is_barred_for_a_minute() {
        let admission = Admission::new(OpeningLimits::default(), 1000, Networks::default());
        let (address, now) = (IpAddr::from([127, 0, 0, 1]), crate::clock::now());
        for _ in 0..10 {
            assert!(!admission.is_barred(address, now));
            admission.failed(address, now);
        }
        assert!(admission.is_barred(address, now));
        assert!(!admission.is_barred(address, now + MINUTE));
    }
}
