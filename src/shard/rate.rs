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

/// One connection's account. The rates are not in it: all connections of a kind have the same.
#[derive(Debug)]
pub struct Throttle {
    messages: f32,
    control: f32,
    bytes: f32,
    held_back_s: f32,
    filled_at: Moment,
}

/// Milliseconds on the core's clock; they wrap after 49 days, and then somebody is given a burst too early.
pub type Moment = u32;

// An idle connection pays for this.
const _: () = assert!(size_of::<Throttle>() <= 20);

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
    pub fn new(rates: &Rates, now: Moment) -> Self {
        let [messages, control, bytes] = rates.bursts();
        Self { messages, control, bytes, held_back_s: 0.0, filled_at: now }
    }

    /// Books received bytes.
    pub fn received(&mut self, bytes: usize, rates: &Rates, now: Moment) -> Pace {
        self.fill(rates, now);
        self.bytes -= bytes as f32;
        let wait_s = owed_s(self.bytes, rates.bytes_per_second);
        self.pace(wait_s, rates)
    }

    /// Books a message or a control frame.
    pub fn sent(&mut self, sent: Sent, rates: &Rates, now: Moment) -> Pace {
        self.fill(rates, now);
        let wait_s = match sent {
            Sent::Message { grown } => {
                self.messages -= 1.0;
                let of_messages = owed_s(self.messages, rates.messages_per_second);
                // What came uncompressed has been paid for as it was received.
                if grown == 0 {
                    of_messages
                } else {
                    self.bytes -= grown as f32;
                    of_messages.max(owed_s(self.bytes, rates.bytes_per_second))
                }
            }
            Sent::Control => {
                self.control -= 1.0;
                owed_s(self.control, rates.control_per_second)
            }
        };
        self.pace(wait_s, rates)
    }

    fn fill(&mut self, rates: &Rates, now: Moment) {
        let elapsed_s = now.wrapping_sub(self.filled_at) as f32 / 1000.0;
        self.filled_at = now;
        let [messages, control, bytes] = rates.bursts();
        self.messages = (self.messages + elapsed_s * rates.messages_per_second as f32).min(messages);
        self.control = (self.control + elapsed_s * rates.control_per_second as f32).min(control);
        self.bytes = (self.bytes + elapsed_s * rates.bytes_per_second as f32).min(bytes);
    }

    fn pace(&mut self, wait_s: f32, rates: &Rates) -> Pace {
        if wait_s <= 0.0 {
            if self.is_relaxed(rates) {
                self.held_back_s = 0.0;
            }
            return Pace::Go;
        }
        self.held_back_s += wait_s;
        if self.held_back_s > rates.pause_max.as_secs_f32() {
            Pace::TooFast
        } else {
            Pace::Wait(Duration::from_secs_f32(wait_s))
        }
    }

    /// Whether at least half of every burst is there. Without a rate nobody is ever in debt.
    fn is_relaxed(&self, rates: &Rates) -> bool {
        let per_second = [rates.messages_per_second, rates.control_per_second, rates.bytes_per_second];
        let tokens = [self.messages, self.control, self.bytes];
        let mut kinds = per_second.into_iter().zip(tokens).zip(rates.bursts());
        kinds.all(|((per_second, tokens), burst)| per_second == 0 || tokens * 2.0 >= burst)
    }
}

impl Rates {
    /// What may come at once: messages, control frames, bytes.
    fn bursts(&self) -> [f32; 3] {
        [self.messages_burst, self.control_per_second, self.bytes_per_second].map(|burst| burst.max(1) as f32)
    }
}

/// How many seconds a debt of tokens takes to be paid.
fn owed_s(tokens: f32, per_second: u32) -> f32 {
    if tokens >= 0.0 || per_second == 0 { 0.0 } else { -tokens / per_second as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Sent = Sent::Message { grown: 0 };

    const RATES: Rates = Rates {
        messages_per_second: 50,
        messages_burst: 100,
        control_per_second: 20,
        bytes_per_second: 0,
        pause_max: Duration::from_secs(1),
    };

    fn throttle(now: Moment) -> Throttle {
        Throttle::new(&RATES, now)
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_a_flood_is_closed() {
        let mut now = 1;
        let mut throttle = throttle(now);
        for _ in 0..100 {
            assert_eq!(throttle.sent(MESSAGE, &RATES, now), Pace::Go);
        }
        let mut passed = 0;
        loop {
            match throttle.sent(MESSAGE, &RATES, now) {
                Pace::Go => {}
                Pace::Wait(wait) => now += wait.as_millis() as Moment + 1,
                Pace::TooFast => break,
            }
            passed += 1;
            assert!(passed < 60, "a flood is not closed");
        }
        assert!(passed > 40, "closed after {passed}");
    }

    #[test]
    fn a_sender_at_its_rate_is_never_held_back() {
        let mut now = 1;
        let mut throttle = throttle(now);
        for _ in 0..10_000 {
            assert_eq!(throttle.sent(MESSAGE, &RATES, now), Pace::Go);
            now += 20;
        }
    }

    #[test]
    fn who_becomes_slower_is_forgiven_where_bytes_have_no_bound() {
        let mut now = 1;
        let mut throttle = throttle(now);
        for round in 0..20 {
            let mut held_back = Duration::ZERO;
            while held_back < Duration::from_millis(200) {
                assert_eq!(throttle.received(1000, &RATES, now), Pace::Go, "round {round}");
                match throttle.sent(MESSAGE, &RATES, now) {
                    Pace::Go => {}
                    Pace::Wait(wait) => (now, held_back) = (now + wait.as_millis() as Moment + 1, held_back + wait),
                    Pace::TooFast => panic!("closed in round {round}"),
                }
            }
            now += 10_000;
        }
    }

    #[test]
    fn what_a_message_grows_by_is_paid_for_as_bytes() {
        let now = 1;
        let rates = Rates {
            messages_per_second: 1000,
            messages_burst: 1000,
            control_per_second: 20,
            bytes_per_second: 1000,
            pause_max: Duration::from_secs(60),
        };
        let mut throttle = Throttle::new(&rates, now);
        assert_eq!(throttle.received(400, &rates, now), Pace::Go);
        assert_eq!(throttle.sent(Sent::Message { grown: 600 }, &rates, now), Pace::Go);
        assert_eq!(throttle.sent(Sent::Message { grown: 500 }, &rates, now), Pace::Wait(Duration::from_millis(500)));
        assert_eq!(throttle.received(500, &rates, now), Pace::Wait(Duration::from_secs(1)));
    }
}
