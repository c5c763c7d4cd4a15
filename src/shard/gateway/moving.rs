//! Where clients should connect, and what those are told whose node drains.
//!
//! Invariants: nobody is sent to this node while it drains; each connection is told once, and closed once its own time and
//! the margin are over, what waits for it first.

use std::rc::Rc;

use crate::{
    clock,
    hub::Phase,
    limits::MOVES_PER_TURN,
    metrics::Count,
    model::{MovePlan, SessionId},
    protocol::{frame::close_code, handshake::Upgrade, message},
};

use super::{
    super::{
        core::Core,
        service::{Plain, Verdict},
    },
    Gateway, GatewayPeer,
};

/// Asks for a node to connect to.
pub(super) const ROUTE: &str = "/ws/route";
/// With every 503.
pub(super) const RETRY_SOON: (&str, &str) = ("Retry-After", "1");
/// The answer is public, and a page has to ask before it connects: a browser's WebSocket follows no redirect.
const FOR_ALL_PAGES: (&str, &str) = ("Access-Control-Allow-Origin", "*");
const NO_NODE: &str = "no node takes connections now; try again";

impl Gateway {
    /// The node with the fewest connections.
    pub(super) fn route(&self, core: &Core) -> Plain {
        let Some(place) = self.settings.router.choose() else {
            core.counters().inc(Count::RoutedNowhere);
            let body = format!(r#"{{"code":0,"err":"no_node","msg":"{NO_NODE}"}}"#);
            return Plain { status: 503, headers: &[RETRY_SOON, FOR_ALL_PAGES], body };
        };
        core.counters().inc(Count::Routed);
        let mut body = Vec::new();
        message::routed(&mut body, &place);
        let body = String::from_utf8(body).unwrap_or_default();
        Plain { status: 200, headers: &[FOR_ALL_PAGES], body }
    }

    /// Sends who wants to connect there; whether it may is judged there.
    pub(super) fn redirect(&self, core: &Core, upgrade: &Upgrade) -> Verdict<GatewayPeer> {
        let Some(place) = self.settings.router.choose() else {
            core.counters().inc(Count::RoutedNowhere);
            return Verdict::Refuse { status: 503, err: "no_node", message: NO_NODE };
        };
        core.counters().inc(Count::Routed);
        Verdict::Redirect { location: place.connect_url(&upgrade.query) }
    }

    /// Tells every connection of the core when to move, and closes those that have not, each in its time.
    pub(super) async fn move_all(self: Rc<Self>, core: Rc<Core>, plan: MovePlan) {
        let begun = clock::now();
        let ids = core.with_hub(|hub| hub.ids());
        for (place, id) in ids.iter().enumerate() {
            self.tell_to_move(&core, *id, plan, (place, ids.len()));
            if (place + 1) % MOVES_PER_TURN == 0 {
                core.pass().await;
            }
        }
        for (place, id) in ids.iter().enumerate() {
            let due = begun + plan.after(place, ids.len()) + plan.margin;
            let left = due.saturating_duration_since(clock::now());
            if !left.is_zero() {
                monoio::time::sleep(left).await;
            } else if (place + 1) % MOVES_PER_TURN == 0 {
                core.pass().await;
            }
            close_moved(&core, *id);
        }
    }

    fn tell_to_move(&self, core: &Core, id: SessionId, plan: MovePlan, (place, count): (usize, usize)) {
        let next =
            self.settings.names_next.then(|| self.settings.router.choose_but(Some(self.settings.node))).flatten();
        let mut text = Vec::new();
        message::move_away(&mut text, plan.after(place, count), next.as_ref().map(|next| &*next.addr));
        let told = core.with_hub(|hub| hub.send_text(id, &text));
        core.counters().add(Count::Moves, told.queued as u64);
    }
}

fn close_moved(core: &Core, id: SessionId) {
    core.with_hub(|hub| {
        if hub.session(id).is_some_and(|session| session.phase() == Phase::Open) {
            core.counters().inc(Count::ClosedDrained);
            hub.begin_close(id, close_code::RESTART, "the node is stopping; reconnect", false);
        }
    });
}
