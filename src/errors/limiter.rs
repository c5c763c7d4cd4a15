//! How many reports there may be: a burst, then so many a minute. Without a clock.

use std::time::{Duration, Instant};

/// A bucket of tokens.
#[derive(Debug)]
pub struct Limiter {
    burst: u32,
    each: Duration,
    /// When the bucket would be full, if nothing were taken any more.
    full_at: Instant,
}

impl Limiter {
    /// A full bucket of `burst` tokens that gets `per_minute` more a minute.
    pub fn new(burst: u32, per_minute: u32, now: Instant) -> Self {
        Self { burst, each: Duration::from_secs(60) / per_minute.max(1), full_at: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.each;
        let is_there = full_at.saturating_duration_since(now) <= self.each * self.burst;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_then_the_rate() {
        let start = clock::now();
        let mut limiter = Limiter::new(20, 60, start);
        let taken = |limiter: &mut Limiter, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter(|_| limiter.take(now)).count()
        };
        assert_eq!(taken(&mut limiter, 0), 20);
        assert_eq!(taken(&mut limiter, 0), 0);
        assert_eq!(taken(&mut limiter, 3), 3);
        assert_eq!(taken(&mut limiter, 1), 0, "a time before the last one gives nothing");
        assert_eq!(taken(&mut limiter, 3600), 20, "never more than the burst");
    }
}
