//! How many connections a node, an address and a user may have, and how often an address may fail to sign in.
//!
//! Touched twice in a connection's life and never for a message, so one lock for the node will do.
//! Invariants: what a [`Permit`] holds goes back when it is dropped; failures are bounded in number, oldest first.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::limits::OpeningLimits;

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
    limits: OpeningLimits,
    connections_max: usize,
    hasher: ahash::RandomState,
    counts: Lock<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    addresses: HashMap<IpAddr, u32, ahash::RandomState>,
    /// By a hash of project and user: a collision refuses one connection too many at worst.
    users: HashMap<u64, u32, ahash::RandomState>,
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

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Connection(IpAddr),
    User(u64),
}

impl Admission {
    /// An account that admits at most what `limits` and the file limit (`files_max`) allow.
    pub fn new(limits: OpeningLimits, files_max: usize) -> Self {
        let connections_max = limits.connections_max.min(files_max / 5 * 4);
        Self(Arc::new(Shared { limits, connections_max, hasher: ahash::RandomState::new(), counts: Lock::default() }))
    }

    /// A place for a connection from `address`.
    pub fn connection(&self, address: IpAddr) -> Result<Permit, NotAdmitted> {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.connections >= self.0.connections_max {
            return Err(NotAdmitted::Node);
        }
        let per_address = self.0.limits.connections_per_address;
        let held = counts.addresses.entry(address).or_default();
        if per_address > 0 && *held as usize >= per_address {
            return Err(NotAdmitted::Address);
        }
        *held += 1;
        counts.connections += 1;
        Ok(Permit { admission: self.clone(), place: Place::Connection(address) })
    }

    /// A place for a connection of a user. With `kick_oldest` there always is one: somebody else ends the oldest.
    pub fn user(&self, pid: &str, uid: &str) -> Result<Permit, NotAdmitted> {
        let key = self.0.hasher.hash_one((pid, uid));
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.users.entry(key).or_default();
        let per_user = self.0.limits.connections_per_uid;
        if per_user > 0 && !self.0.limits.kick_oldest && *held as usize >= per_user {
            return Err(NotAdmitted::User);
        }
        *held += 1;
        Ok(Permit { admission: self.clone(), place: Place::User(key) })
    }

    /// Books a failure to sign in.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
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
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.failures.get(&address).is_some_and(|(since, failures)| {
            *failures >= self.0.limits.failed_credentials_per_minute && now.saturating_duration_since(*since) < MINUTE
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match self.place {
            Place::Connection(address) => {
                counts.connections -= 1;
                give_back(&mut counts.addresses, address);
            }
            Place::User(key) => give_back(&mut counts.users, key),
        }
    }
}

fn give_back<K: std::hash::Hash + Eq>(held: &mut HashMap<K, u32, ahash::RandomState>, key: K) {
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
        let admission = Admission::new(limits, 5);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.connection(a).expect("a place");
        let _second = admission.connection(a).expect("a place");
        assert_eq!(admission.connection(a).err(), Some(NotAdmitted::Address));
        let _third = admission.connection(b).expect("a place");
        let _fourth = admission.connection(b).expect("a place");
        assert_eq!(admission.connection(IpAddr::from([127, 0, 0, 3])).err(), Some(NotAdmitted::Node));
        drop(first);
        assert!(admission.connection(a).is_ok());
        let user = admission.user("1", "bob").expect("a place");
        assert_eq!(admission.user("1", "bob").err(), Some(NotAdmitted::User));
        assert!(admission.user("2", "bob").is_ok());
        drop(user);
        assert!(admission.user("1", "bob").is_ok());
    }

    #[test]
    fn an_address_that_fails_often_is_barred_for_a_minute() {
        let admission = Admission::new(OpeningLimits::default(), 1000);
        let (address, now) = (IpAddr::from([127, 0, 0, 1]), crate::clock::now());
        for _ in 0..10 {
            assert!(!admission.is_barred(address, now));
            admission.failed(address, now);
        }
        assert!(admission.is_barred(address, now));
        assert!(!admission.is_barred(address, now + MINUTE));
    }
}
