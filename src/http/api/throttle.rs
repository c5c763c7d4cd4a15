//! Addresses that failed with their credentials: so many a minute, then they wait.
//!
//! Invariants: pure; the table is bounded, and a full one forgets the address that failed first; an address that
//! waits is not extended by trying. Each core counts for itself.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::limits::FAILED_ADDRESSES_MAX;

/// The time that failures are counted over, from the first.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts failures by address.
#[derive(Debug)]
pub(super) struct Throttle {
    failures_max: u32,
    addresses: HashMap<IpAddr, Failures, ahash::RandomState>,
}

#[derive(Debug)]
struct Failures {
    first: Instant,
    count: u32,
}

impl Throttle {
    /// Lets `failures_max` a minute and address pass; 0: any number.
    pub(super) fn new(failures_max: u32) -> Self {
        Self { failures_max, addresses: HashMap::default() }
    }

    /// Changes how many may fail.
    pub(super) fn set_failures_max(&mut self, failures_max: u32) {
        self.failures_max = failures_max;
    }

    /// How long `address` has to wait, if it has.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.addresses.get(&network(address))?;
        let left = (failures.first + WINDOW).saturating_duration_since(now);
        (self.failures_max > 0 && failures.count >= self.failures_max && !left.is_zero()).then_some(left)
    }

    /// Notes a failure.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.addresses.len() >= FAILED_ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.make_room(now);
        }
        let failures = self.addresses.entry(address).or_insert(Failures { first: now, count: 0 });
        if now.saturating_duration_since(failures.first) >= WINDOW {
            *failures = Failures { first: now, count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
    }

    fn make_room(&mut self, now: Instant) {
        self.addresses.retain(|_, failures| now.saturating_duration_since(failures.first) < WINDOW);
        if self.addresses.len() >= FAILED_ADDRESSES_MAX {
            let oldest = self.addresses.iter().min_by_key(|(_, failures)| failures.first);
            let oldest = oldest.map(|(address, _)| *address);
            oldest.and_then(|address| self.addresses.remove(&address));
        }
    }
}

/// One customer has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        },
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn the_eleventh_call_of_a_minute_waits_and_the_next_minute_does_not() {
        let (mut throttle, start) = (Throttle::new(10), clock::now());
        for n in 0..10 {
            assert_eq!(throttle.wait(address(1), start), None, "after {n}");
            throttle.failed(address(1), start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(throttle.wait(address(1), later), Some(Duration::from_secs(40)));
        assert_eq!(throttle.wait(address(2), later), None);
        let next = start + WINDOW;
        assert_eq!(throttle.wait(address(1), next), None);
        throttle.failed(address(1), next);
        assert_eq!(throttle.wait(address(1), next), None);
    }

    #[test]
    fn a_full_table_forgets_who_failed_first() {
        let (mut throttle, start) = (Throttle::new(1), clock::now());
        for n in 0..=u32::try_from(FAILED_ADDRESSES_MAX).expect("a small number") {
            throttle.failed(address(n), start + Duration::from_millis(n.into()));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(throttle.addresses.len(), FAILED_ADDRESSES_MAX);
        assert!(throttle.wait(address(0), now).is_none() && throttle.wait(address(1), now).is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_zero_is_no_bound() {
        let (mut throttle, now) = (Throttle::new(1), clock::now());
        throttle.failed("2001:db8::1".parse().expect("an address"), now);
        assert!(throttle.wait("2001:db8::2".parse().expect("an address"), now).is_some());
        assert!(throttle.wait("2001:db8:1::1".parse().expect("an address"), now).is_none());
        let mut off = Throttle::new(0);
        off.failed(address(1), now);
        assert_eq!(off.wait(address(1), now), None);
    }
}
