//! The end of a run: everything is healed, comes to rest, and is compared.

use std::time::Duration;

use ws_cluster::model::Refusal;

use super::{
    client::{Client, Place},
    model::TAGS,
    node::{Node, State},
    trace::count,
    world::{World, Wrong},
};

/// Steps in which everything must come to rest.
const STEPS_TO_REST: usize = 3_000;

impl World {
    /// From now on nothing goes wrong any more, and every tag gets a last value.
    pub(super) fn heal(&mut self) {
        self.trace.tell(200, 12, || "all is healed".to_owned());
        self.healed = true;
        self.queue.heal();
        for node in self.nodes.iter_mut().flatten() {
            node.link.set_cut(false);
            node.paused_until = Duration::ZERO;
        }
        self.clients.iter_mut().for_each(|client| client.stalled = false);
    }

    /// Lets all come to rest, then publishes a last value of each tag and lets that come everywhere.
    pub(super) async fn come_to_rest(&mut self) -> Result<(), Wrong> {
        self.until("rest", |world| world.is_quiet()).await?;
        self.publish_last().await?;
        self.until("last values", |world| world.is_quiet() && world.have_come()).await?;
        // What was late is still on its way.
        self.linger().await?;
        self.until("rest", |world| world.is_quiet()).await
    }

    pub(super) async fn linger(&mut self) -> Result<(), Wrong> {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(800)).await;
            self.turns()?;
        }
        Ok(())
    }

    /// Publishes a last value of each tag. A node that was cut off may think for a while that the queue is away.
    async fn publish_last(&mut self) -> Result<(), Wrong> {
        let node = self.living(true)[0];
        let mut missing: Vec<usize> = (0..TAGS).collect();
        for _ in 0..30 {
            let first = self.published;
            missing.iter().for_each(|tag| self.publish_one(node, *tag, false));
            self.until("answers", |world| world.waiting.is_empty()).await?;
            let told = |number| self.told.get(&number).copied().and_then(Result::ok);
            let ids: Vec<_> = (first..).map(told).zip(&missing).map(|(id, tag)| (*tag, id)).collect();
            self.last.extend(ids.iter().filter_map(|(tag, id)| Some((*tag, (*id)?))));
            missing = ids.into_iter().filter(|(_, id)| id.is_none()).map(|(tag, _)| tag).collect();
            if missing.is_empty() {
                return Ok(());
            }
            self.linger().await?;
        }
        Err("the queue takes nothing".to_owned())
    }

    pub(super) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), Wrong> {
        for step in 0..STEPS_TO_REST {
            tokio::time::sleep(Duration::from_millis(if step < 40 { 5 } else { 50 })).await;
            self.turns()?;
            for number in 0..self.clients.len() {
                if self.clients[number].place.is_none() {
                    self.connect_client(number);
                }
            }
            if is_so(self) {
                return Ok(());
            }
        }
        let node = |(index, node): (usize, &Option<Node>)| {
            node.as_ref().map(|node| format!("node {index} {:?} {}", node.state, node.is_quiet()))
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().filter_map(node).collect();
        let unread = self.clients.iter().filter(|client| !self.has_read(client));
        let unread: Vec<String> = unread.map(|client| self.unread(client)).collect();
        let waiting = self.waiting.len();
        Err(format!("no {what}: {nodes:?}, not read: {unread:?}, {waiting} wait to be told"))
    }

    /// Whether every node has the last value of each tag.
    fn have_come(&self) -> bool {
        let mut nodes = self.nodes.iter().flatten();
        nodes.all(|node| self.last.iter().all(|(tag, id)| node.chains[*tag].find(*id).is_some()))
    }

    fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.nodes.iter().flatten().all(|node| node.is_quiet() && node.state == State::Serves)
            && self.clients.iter().all(|client| self.has_read(client))
    }

    /// What the client has not read.
    fn unread(&self, client: &Client) -> String {
        let conn = |place: Place| Some((self.nodes[place.node].as_ref()?, place));
        let Some((node, Place { core, session, .. })) = client.place.and_then(conn) else {
            return format!("client {} is away", client.number);
        };
        let Some(conn) = node.cores[core].conns.get(&session) else { return "its connection is gone".to_owned() };
        let waits = node.cores[core].hub.waiting(session);
        let unread: Vec<_> = conn.expected.iter().enumerate().filter(|(_, expected)| !expected.is_read()).collect();
        format!("client {} at {core}: {} bytes, {waits} wait, {unread:?}", client.number, conn.kernel.len())
    }

    /// Whether the client has read all that was to come.
    fn has_read(&self, client: &Client) -> bool {
        let conn =
            client.place.and_then(|place| self.nodes[place.node].as_ref()?.cores[place.core].conns.get(&place.session));
        conn.is_some_and(|conn| conn.kernel.is_empty() && conn.expected.iter().all(|expected| expected.is_read()))
    }

    pub(super) fn check_nodes(&self) -> Result<(), Wrong> {
        self.check_refused()?;
        let nodes = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.as_ref()?)));
        for (index, node) in nodes {
            self.check_node(node).map_err(|error| format!("node {index}: {error}"))?;
        }
        Ok(())
    }

    pub(super) fn check_clients(&self) -> Result<(), Wrong> {
        self.clients.iter().try_for_each(|client| self.check_client(client))
    }

    fn check_node(&self, node: &Node) -> Result<(), Wrong> {
        (0..node.losses).for_each(|_| count("a loss is told"));
        for core in &node.cores {
            if core.outbox_bytes() != 0 || !core.hub.is_empty() {
                return Err(format!("{} bytes wait when everybody is gone", core.outbox_bytes()));
            }
        }
        if self.profile.is_certain() {
            for (number, (chain, truth)) in node.chains.iter().zip(&self.truth).enumerate() {
                if chain.links != truth.links {
                    return Err(format!(
                        "of tag {number} it has heard {} and not {}",
                        chain.links.len(),
                        truth.links.len()
                    ));
                }
            }
        }
        if self.profile.loses_nothing() {
            // What a node has read of a log that is gone before it serves anybody it may take for lost.
            if node.losses > 0 && !node.starts_in_trouble {
                return Err("a loss is told and nothing was lost".to_owned());
            }
            return self.check_acknowledged(node);
        }
        Ok(())
    }

    /// The node has heard everything that was acknowledged.
    fn check_acknowledged(&self, node: &Node) -> Result<(), Wrong> {
        let acknowledged = |number: &u64| self.told.get(number).copied().and_then(Result::ok);
        let missing = |number: &u64| acknowledged(number).filter(|id| !node.heard.contains(id)).map(|id| (*number, id));
        match self.told.keys().find_map(missing) {
            Some((number, id)) => Err(format!("{number} was acknowledged as {id} and not heard")),
            None => Ok(()),
        }
    }

    /// Nothing is heard that was surely refused.
    fn check_refused(&self) -> Result<(), Wrong> {
        for outcome in self.told.values() {
            count(match outcome {
                Ok(_) => "a push is acknowledged",
                Err(Refusal::Unknown) => "the outcome of a push is unknown",
                Err(_) => "a push is refused",
            });
        }
        for (number, id) in &self.stored {
            match self.told.get(number) {
                Some(Err(refusal)) if *refusal != Refusal::Unknown => {
                    return Err(format!("{number} was refused with {refusal:?} and stored as {id}"));
                }
                Some(Ok(told)) if told != id => return Err(format!("{number} is stored as {id} and told as {told}")),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_client(&self, client: &Client) -> Result<(), Wrong> {
        let Some(place) = client.place else { return Err(format!("client {} is away", client.number)) };
        let Some(node) = &self.nodes[place.node] else { return Err("its node is dead".to_owned()) };
        for (number, held) in client.tags.iter().enumerate().filter(|(_, held)| held.wanted) {
            let last = node.chains[number].links.last().map(|link| link.id);
            if held.last != last {
                return Err(format!("client {} ends tag {number} at {:?} and not {last:?}", client.number, held.last));
            }
        }
        Ok(())
    }
}
