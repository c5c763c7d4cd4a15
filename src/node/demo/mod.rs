//! The demo's feed: a small publisher of the demo project beside the node, which goes through the public protocol.
//!
//! Method: a thread of its own calls the node's own HTTP listener, signed as any publisher's calls are: the current bar
//! some times a second, closed bars with `keep`, and at the start the bars before. Every push has an idempotency key
//! made of its time, so that several nodes of one cluster publish the market once. Invariants: one call at a time, each
//! with a deadline; a failure is counted, and the next call tells what is current then; it ends when the node drains,
//! and nothing waits for it.

mod client;
mod walk;

use std::{io, net::SocketAddr, ops::Range, sync::Arc, thread, time::Duration};

use self::{
    client::{Client, Failed},
    walk::{BAR_S, BAR_TICKS, Bar, TICK_MS},
};
use crate::{
    clock,
    config::{
        Config,
        demo::{DEMO_BARS_TAG, DEMO_TAG},
        sign::reachable,
    },
    health::{Health, State},
    http::demo::{Demo, Sockets},
    limits::{DEMO_BARS_MAX, DEMO_RETRY},
    metrics::{Count, Registry},
};

/// The demo page, if this node has one; `ws` is its WebSocket listener.
pub(super) fn page(config: &Config, ws: Option<SocketAddr>) -> Option<Demo> {
    let project = config.demo_project().filter(|_| config.has_demo())?.clone();
    let sockets = match &config.public_addr {
        Some(address) if address.contains("://") => Sockets::At(address.trim_end_matches('/').to_owned()),
        Some(address) => Sockets::At(format!("ws://{address}")),
        None => Sockets::Port(ws?.port()),
    };
    Some(Demo::new(project, sockets))
}

/// Starts the feed if this node has a demo; `http` is its HTTP listener.
///
/// Errors: there is no thread to be had.
pub(super) fn start(
    config: &Config,
    http: Option<SocketAddr>,
    health: &Arc<Health>,
    registry: &Registry,
) -> io::Result<()> {
    let Some((project, http)) = config.demo_project().filter(|_| config.has_demo()).zip(http) else { return Ok(()) };
    let http = SocketAddr::new(reachable(http.ip()), http.port());
    let lines_max = config.limits.http.batch_lines_max;
    let feed = Feed { client: Client::new(http, project.clone()), lines_max, told: None };
    let (health, counters) = (health.clone(), registry.register("demo"));
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        run(feed, &health, || counters.inc(Count::DemoFailed));
    })?;
    Ok(())
}

fn run(mut feed: Feed, health: &Health, failed: impl Fn()) {
    while health.state() != State::Draining {
        let told = if health.state() == State::Ready { feed.tell(clock::unix_ms()) } else { Ok(()) };
        let pause = match told {
            Ok(()) => Duration::from_millis(TICK_MS - clock::unix_ms() % TICK_MS),
            Err(why) => {
                failed();
                tracing::debug!(%why, "a call of the demo's feed failed");
                DEMO_RETRY
            }
        };
        thread::park_timeout(pause);
    }
}

/// What has been told of the market, and how it is told.
struct Feed {
    client: Client,
    /// Pushes of one call.
    lines_max: usize,
    /// The last tick that was told; none: it is not known what the cluster knows.
    told: Option<u64>,
}

impl Feed {
    /// Tells the market as it stands at `now_ms` (since the Unix epoch), and what has been closed since it was last told.
    fn tell(&mut self, now_ms: u64) -> Result<(), Failed> {
        let tick = now_ms / TICK_MS;
        let told = self.told.take();
        if told == Some(tick) {
            self.told = told;
            return Ok(());
        }
        let slot = tick / BAR_TICKS;
        let oldest = slot.saturating_sub(DEMO_BARS_MAX as u64);
        let mut lines = match told.map(|told| told / BAR_TICKS) {
            Some(last) => closed(last.max(oldest)..slot),
            None => self.missing(oldest..slot)?,
        };
        lines.push(line(DEMO_TAG, &format!("demo.{tick}"), &Bar::at(tick).json(now_ms), false));
        lines.chunks(self.lines_max.max(1)).try_for_each(|lines| self.client.push(lines))?;
        self.told = Some(tick);
        Ok(())
    }

    /// The bars of `slots` that the history lacks.
    fn missing(&self, slots: Range<u64>) -> Result<Vec<String>, Failed> {
        let known = self.client.bar_times()?;
        Ok(slots.filter(|slot| !known.contains(&(slot * BAR_S))).map(history_line).collect())
    }
}

/// Closed bars, for those who watch and for the history.
fn closed(slots: Range<u64>) -> Vec<String> {
    let told = |slot| line(DEMO_TAG, &format!("demo.closed.{slot}"), &Bar::closed(slot).json(ended_ms(slot)), true);
    slots.flat_map(|slot| [told(slot), history_line(slot)]).collect()
}

fn history_line(slot: u64) -> String {
    line(DEMO_BARS_TAG, &format!("demo.bars.{slot}"), &Bar::closed(slot).json(ended_ms(slot)), true)
}

/// When a bar is closed: the same on every node.
fn ended_ms(slot: u64) -> u64 {
    (slot + 1) * BAR_S * 1000
}

/// One push as a line of a batch; nothing in it needs escaping.
fn line(tag: &str, key: &str, payload: &str, keep: bool) -> String {
    format!(r#"{{"tags":["{tag}"],"keep":{keep},"idempotency_key":"{key}","data":{payload}}}"#)
}
