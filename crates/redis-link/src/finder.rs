//! The task that finds the masters: by Sentinel, or by the members of a cluster.
//!
//! Everybody who can be reached is asked, up to [`ASKED_MAX`], and the one with the highest epoch is believed: who was
//! cut off may name a master that is none any more. Looked is at intervals, so that a stale master that still takes
//! writes is left soon, and as soon as a call fails.
//!
//! Invariant: while nobody can be reached, what was known last stands.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{ConnectHandle, config::Server as Address},
};
use tokio::task::JoinSet;

use crate::{
    LinkError, Reply,
    connect::client,
    places::Places,
    server::call,
    topology::{Topology, line_of, value_of},
    url::Shape,
};

/// Time between looks while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while calls fail, or nothing has been found yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Who has not answered by then is passed over.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Servers asked at a time.
const ASKED_MAX: usize = 5;

/// A connection that is there to ask on.
#[derive(Clone)]
struct Scout {
    address: Address,
    client: Client,
    /// The server's number, if it is one of the link's own.
    number: u64,
}

/// So many looks in a row at which nobody answers are told.
const FAILURES_TOLD: u32 = 10;

/// See the module.
pub(crate) struct Finder {
    places: Arc<Places>,
    seeds: Vec<Scout>,
    tasks: Vec<ConnectHandle>,
    /// Whom to begin with.
    turn: usize,
    /// Looks in a row at which nobody answered, and whether that was told.
    failures: u32,
    is_lost: bool,
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(ConnectHandle::abort);
    }
}

impl Finder {
    /// Starts to connect to those that the URL names.
    pub(crate) fn start(places: Arc<Places>) -> Result<Self, LinkError> {
        let addresses = match &places.target.shape {
            Shape::One(_) => &Vec::new(),
            Shape::Sentinel { sentinels: addresses, .. } | Shape::Cluster { seeds: addresses } => addresses,
        };
        let scout = |address: &Address| {
            let client = client(&places.target.scout_config(address))?;
            Ok(Scout { address: address.clone(), client, number: 0 })
        };
        let seeds: Vec<Scout> = addresses.iter().map(scout).collect::<Result<_, LinkError>>()?;
        let tasks = seeds.iter().map(|scout| scout.client.connect()).collect();
        Ok(Self { places, seeds, tasks, turn: 0, failures: 0, is_lost: false })
    }

    /// Looks for ever.
    pub(crate) async fn run(mut self) {
        if self.seeds.is_empty() {
            return;
        }
        loop {
            let found = self.look().await;
            self.tell(found);
            let pause = if self.places.servers().is_empty() { LOOK_AGAIN } else { LOOK_EVERY };
            tokio::select! {
                () = self.places.trouble.comes() => tokio::time::sleep(LOOK_AGAIN).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Asks and takes over what is found; whether somebody knew.
    async fn look(&mut self) -> bool {
        let knows = self.places.trouble.take_knowing();
        let mut asking = JoinSet::new();
        for scout in self.scouts(knows) {
            let shape = self.places.target.shape.clone();
            asking.spawn(async move {
                let (epoch, topology) = tokio::time::timeout(ANSWER_WAIT, ask(&shape, &scout)).await.ok()??;
                Some(((epoch, knows != 0 && scout.number == knows), topology))
            });
        }
        let mut best: Option<((u64, bool), Topology)> = None;
        while let Some(answer) = asking.join_next().await {
            let Ok(Some((rank, topology))) = answer else { continue };
            if best.as_ref().is_none_or(|(highest, _)| *highest < rank) {
                best = Some((rank, topology));
            }
        }
        let Some((_, topology)) = best else { return false };
        let masters = topology.masters.len();
        match self.places.adopt(topology) {
            Ok(true) => tracing::info!(masters, "the masters of Redis have changed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "a master of Redis cannot be used"),
        }
        true
    }

    /// Who is asked now: who has just sent a caller elsewhere, then the others by turns.
    fn scouts(&mut self, knows: u64) -> Vec<Scout> {
        let mut all = self.seeds.clone();
        if matches!(self.places.target.shape, Shape::Cluster { .. }) {
            all.extend(self.places.servers().iter().map(|server| Scout {
                address: server.address().clone(),
                client: server.scout().clone(),
                number: server.number(),
            }));
        }
        all.retain(|scout| scout.client.is_connected());
        self.turn = (self.turn + 1) % all.len().max(1);
        all.rotate_left(self.turn);
        all.sort_by_key(|scout| knows == 0 || scout.number != knows); // Stable: the others keep their turns.
        all.truncate(ASKED_MAX);
        all
    }

    /// Says once that nobody answers for long, and that somebody does again.
    fn tell(&mut self, found: bool) {
        self.failures = if found { 0 } else { self.failures.saturating_add(1) };
        let is_lost = self.failures >= FAILURES_TOLD;
        match (!is_lost, std::mem::replace(&mut self.is_lost, is_lost)) {
            (false, false) => tracing::warn!("nobody tells where the masters of Redis are; asking again"),
            (true, true) => tracing::info!("the masters of Redis are known again"),
            _ => {}
        }
    }
}

/// What this one says, and how new it is.
async fn ask(shape: &Shape, scout: &Scout) -> Option<(u64, Topology)> {
    let words = |words: &[&str]| words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    let ask = async |command, arguments| -> Option<Reply> { call(&scout.client, command, arguments).await.ok() };
    match shape {
        Shape::One(_) => None,
        Shape::Sentinel { service, .. } => {
            let place = ask("SENTINEL", words(&["GET-MASTER-ADDR-BY-NAME", service])).await?;
            let about = ask("SENTINEL", words(&["MASTER", service])).await?.list();
            Some((value_of(&about, "config-epoch")?, Topology::from_sentinel(place)?))
        }
        Shape::Cluster { .. } => {
            let about = ask("CLUSTER", words(&["INFO"])).await?;
            let slots = ask("CLUSTER", words(&["SLOTS"])).await?;
            Some((line_of(&about, "cluster_current_epoch")?, Topology::from_slots(slots, &scout.address)?))
        }
    }
}
