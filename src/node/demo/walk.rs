//! The demo's market: a price that walks as if at random, and its bars.
//!
//! Invariants: everything is a function of the time alone, so that all nodes of a cluster tell of the same market and
//! one that starts later knows its past; no clock, no state.

use std::fmt;

/// The time between two prices, in milliseconds.
pub(super) const TICK_MS: u64 = 200;
/// The length of a bar, in seconds.
pub(super) const BAR_S: u64 = 5;
/// Prices of a bar.
pub(super) const BAR_TICKS: u64 = BAR_S * 1000 / TICK_MS;

/// Around which the price walks, in cents.
const BASE: f64 = 25_000.0;
/// What it is made of: periods in ticks, and how far each goes, in cents. About the square root of the period, as in a
/// random walk.
const WAVES: [(u64, f64); 8] =
    [(24_000, 1500.0), (6000, 760.0), (1500, 380.0), (375, 180.0), (90, 95.0), (25, 48.0), (7, 24.0), (1, 10.0)];

/// A bar, prices in cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// When it begins, in Unix seconds.
    pub time: u64,
    pub open: u64,
    pub high: u64,
    pub low: u64,
    pub close: u64,
    /// Units traded.
    pub volume: u64,
    /// Whether nothing more is traded in it.
    pub closed: bool,
}

impl Bar {
    /// The bar to which a tick belongs, as it stands then.
    pub fn at(tick: u64) -> Self {
        Self::of(tick / BAR_TICKS, tick % BAR_TICKS + 1)
    }

    /// The whole bar of a slot, counted from the Unix epoch.
    pub fn closed(slot: u64) -> Self {
        Self { closed: true, ..Self::of(slot, BAR_TICKS) }
    }

    fn of(slot: u64, ticks: u64) -> Self {
        let first = slot * BAR_TICKS;
        let open = price(first.saturating_sub(1));
        let mut bar = Self { time: slot * BAR_S, open, high: open, low: open, close: open, volume: 0, closed: false };
        for tick in first..first + ticks {
            let price = price(tick);
            bar.volume += volume(tick, bar.close.abs_diff(price));
            (bar.high, bar.low, bar.close) = (bar.high.max(price), bar.low.min(price), price);
        }
        bar
    }

    /// The bar as JSON, told at `at_ms` (Unix milliseconds).
    pub fn json(&self, at_ms: u64) -> String {
        format!(
            "{{\"time\":{},\"open\":{},\"high\":{},\"low\":{},\"close\":{},\"volume\":{},\"closed\":{},\"at\":{at_ms}}}",
            self.time,
            Cents(self.open),
            Cents(self.high),
            Cents(self.low),
            Cents(self.close),
            self.volume,
            self.closed,
        )
    }
}

struct Cents(u64);

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// The price at a tick, in cents.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far above zero and far below 2^53")]
fn price(tick: u64) -> u64 {
    let walked: f64 = WAVES.iter().zip(0..).map(|((period, reach), wave)| reach * noise(tick, *period, wave)).sum();
    (BASE + walked).round() as u64
}

/// More is traded when the price moves, and at some times more than at others.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not below zero")]
fn volume(tick: u64, moved: u64) -> u64 {
    let busy = noise(tick, 80, 20).max(0.0) * 3.0 + noise(tick, 23, 21).max(0.0);
    1 + hash(tick, 22) % 8 + (busy * busy * 4.0) as u64 + moved / 2
}

/// Smooth noise between -1 and 1 with a new value every `period` ticks.
#[expect(clippy::cast_precision_loss, reason = "a rest of a division by a small number")]
fn noise(tick: u64, period: u64, wave: u64) -> f64 {
    let (knot, part) = (tick / period, (tick % period) as f64 / period as f64);
    let smooth = part * part * (3.0 - 2.0 * part);
    let (from, to) = (value(knot, wave), value(knot + 1, wave));
    from + (to - from) * smooth
}

#[expect(clippy::cast_precision_loss, reason = "of 32 bits")]
fn value(knot: u64, wave: u64) -> f64 {
    (hash(knot, wave) >> 32) as f64 / f64::from(u32::MAX) * 2.0 - 1.0
}

/// The finaliser of SplitMix64, which makes noise of neighbours.
fn hash(n: u64, salt: u64) -> u64 {
    let mut z = n.wrapping_add(salt << 48).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000 / BAR_S;

    #[test]
    fn bars_hang_together_and_are_what_their_ticks_say() {
        for slot in NOW..NOW + 1000 {
            let (bar, next) = (Bar::closed(slot), Bar::closed(slot + 1));
            assert_eq!(bar.close, next.open);
            assert!(bar.low <= bar.open.min(bar.close) && bar.open.max(bar.close) <= bar.high && bar.volume > 0);
            let last = Bar::at(slot * BAR_TICKS + BAR_TICKS - 1);
            assert_eq!(Bar { closed: true, ..last }, bar);
            assert_eq!(Bar::at(slot * BAR_TICKS).time, slot * BAR_S);
        }
    }

    #[test]
    fn the_price_walks_and_stays_in_its_range() {
        let closes: Vec<u64> = (NOW..NOW + 20_000).map(|slot| Bar::closed(slot).close).collect();
        let (least, most) = (closes.iter().min().expect("some"), closes.iter().max().expect("some"));
        assert!((22_000..25_000).contains(least) && (25_000..28_000).contains(most), "{least} {most}");
        let up = closes.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((8000..12_000).contains(&up), "{up} of 20000 go up");
    }

    #[test]
    fn a_bar_is_written_as_json() {
        let bar = Bar { time: 5, open: 25_005, high: 25_100, low: 9, close: 25_000, volume: 7, closed: true };
        let text =
            r#"{"time":5,"open":250.05,"high":251.00,"low":0.09,"close":250.00,"volume":7,"closed":true,"at":6}"#;
        assert_eq!(bar.json(6), text);
    }
}
