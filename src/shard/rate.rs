//! How fast a connection may send: token buckets, and what happens to who is faster.
//!
//! Method: who is over its rate is not read from until a token is there; who has been held back for `pause_max`
//! altogether without having become slower in between is closed.

use std::time::{Duration, Instant};

/// Tokens that come back at a steady rate up to a burst.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_second: f32,
    burst: f32,
    tokens: f32,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = burst.max(1) as f32;
        Self { per_second: per_second as f32, burst, tokens: burst, filled_at: now }
    }

    /// Changes the rate; what is there, or owed, stays within the new burst.
    pub fn set_rate(&mut self, per_second: u32, burst: u32) {
        (self.per_second, self.burst) = (per_second as f32, burst.max(1) as f32);
        self.tokens = self.tokens.min(self.burst);
    }

    /// Takes `n` tokens, going into debt if need be; how long the debt takes to be paid.
    pub fn take(&mut self, n: u32, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f32();
        self.filled_at = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst) - n as f32;
        if self.tokens >= 0.0 || self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f32(-self.tokens / self.per_second)
    }

    /// Whether at least half of the burst is there. Without a rate nobody is ever in debt.
    fn is_relaxed(&self) -> bool {
        self.per_second <= 0.0 || self.tokens * 2.0 >= self.burst
    }
}

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Messages a second.
    pub messages_per_second: u32,
    /// Messages at once.
    pub messages_burst: u32,
    /// Control frames a second.
    pub control_per_second: u32,
    /// Bytes a second; 0: no bound.
    pub bytes_per_second: u32,
    /// How long it may be held back altogether.
    pub pause_max: Duration,
}

/// One connection's account.
#[derive(Debug)]
pub struct Throttle {
    messages: Bucket,
    control: Bucket,
    bytes: Bucket,
    pause_max: Duration,
    held_back: Duration,
}

/// What to do with a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Go on.
    Go,
    /// Do not read from it for so long.
    Wait(Duration),
    /// It does not slow down: close it (1008).
    TooFast,
}

/// What a frame is, for the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Text or binary.
    Message {
        /// Bytes that it has more than what was received of it: it was compressed.
        grown: usize,
    },
    /// Ping, pong or close.
    Control,
}

impl Throttle {
    /// A fresh account.
    pub fn new(rates: Rates, now: Instant) -> Self {
        Self {
            messages: Bucket::new(rates.messages_per_second, rates.messages_burst, now),
            control: Bucket::new(rates.control_per_second, rates.control_per_second, now),
            bytes: Bucket::new(rates.bytes_per_second, rates.bytes_per_second, now),
            pause_max: rates.pause_max,
            held_back: Duration::ZERO,
        }
    }

    /// Holds the connection to other rates from now on.
    pub fn set_rates(&mut self, rates: Rates) {
        self.messages.set_rate(rates.messages_per_second, rates.messages_burst);
        self.control.set_rate(rates.control_per_second, rates.control_per_second);
        self.bytes.set_rate(rates.bytes_per_second, rates.bytes_per_second);
        self.pause_max = rates.pause_max;
    }

    /// Books received bytes.
    pub fn received(&mut self, bytes: usize, now: Instant) -> Pace {
        let wait = self.bytes.take(narrow(bytes), now);
        self.pace(wait)
    }

    /// Books a message or a control frame.
    pub fn sent(&mut self, sent: Sent, now: Instant) -> Pace {
        let wait = match sent {
            Sent::Message { grown: 0 } => self.messages.take(1, now),
            Sent::Message { grown } => self.messages.take(1, now).max(self.bytes.take(narrow(grown), now)),
            Sent::Control => self.control.take(1, now),
        };
        self.pace(wait)
    }

    fn pace(&mut self, wait: Duration) -> Pace {
        if wait.is_zero() {
            if self.messages.is_relaxed() && self.control.is_relaxed() && self.bytes.is_relaxed() {
                self.held_back = Duration::ZERO;
            }
            return Pace::Go;
        }
        self.held_back += wait;
        if self.held_back > self.pause_max { Pace::TooFast } else { Pace::Wait(wait) }
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Sent = Sent::Message { grown: 0 };

    fn throttle(now: Instant) -> Throttle {
        let pause_max = Duration::from_secs(1);
        let rates = Rates {
            messages_per_second: 50,
            messages_burst: 100,
            control_per_second: 20,
            bytes_per_second: 0,
            pause_max,
        };
        Throttle::new(rates, now)
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_a_flood_is_closed() {
        let mut now = crate::clock::now();
        let mut throttle = throttle(now);
        for _ in 0..100 {
            assert_eq!(throttle.sent(MESSAGE, now), Pace::Go);
        }
        let mut passed = 0;
        loop {
            match throttle.sent(MESSAGE, now) {
                Pace::Go => {}
                Pace::Wait(wait) => now += wait,
                Pace::TooFast => break,
            }
            passed += 1;
            assert!(passed < 60, "a flood is not closed");
        }
        assert!(passed > 40, "closed after {passed}");
    }

    #[test]
    fn a_sender_at_its_rate_is_never_held_back() {
        let mut now = crate::clock::now();
        let mut throttle = throttle(now);
        for _ in 0..10_000 {
            assert_eq!(throttle.sent(MESSAGE, now), Pace::Go);
            now += Duration::from_millis(20);
        }
    }

    #[test]
    fn who_becomes_slower_is_forgiven_where_bytes_have_no_bound() {
        let mut now = crate::clock::now();
        let mut throttle = throttle(now);
        for round in 0..20 {
            let mut held_back = Duration::ZERO;
            while held_back < Duration::from_millis(200) {
                assert_eq!(throttle.received(1000, now), Pace::Go, "round {round}");
                match throttle.sent(MESSAGE, now) {
                    Pace::Go => {}
                    Pace::Wait(wait) => (now, held_back) = (now + wait, held_back + wait),
                    Pace::TooFast => panic!("closed in round {round}"),
                }
            }
            now += Duration::from_secs(10);
        }
    }

    #[test]
    fn what_a_message_grows_by_is_paid_for_as_bytes() {
        let now = crate::clock::now();
        let rates = Rates {
            messages_per_second: 1000,
            messages_burst: 1000,
            control_per_second: 20,
            bytes_per_second: 1000,
            pause_max: Duration::from_secs(60),
        };
        let mut throttle = Throttle::new(rates, now);
        assert_eq!(throttle.received(400, now), Pace::Go);
        assert_eq!(throttle.sent(Sent::Message { grown: 600 }, now), Pace::Go);
        assert_eq!(throttle.sent(Sent::Message { grown: 500 }, now), Pace::Wait(Duration::from_millis(500)));
        assert_eq!(throttle.received(500, now), Pace::Wait(Duration::from_secs(1)));
    }
}
