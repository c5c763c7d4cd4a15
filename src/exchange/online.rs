//! Questions to all nodes who is online: what this node asks, and what it answers.
//!
//! Every node answers with its first users in the order of uids; of what is merged only that part is a page on
//! which nobody can be missing. Invariants: at most `ONLINE_ASKS_MAX` questions are open, each is answered once,
//! when all living nodes have answered or `ONLINE_ASK_TIMEOUT` is over; an answer holds at most a page.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::presence::{Member, Presence};
use crate::{
    limits::{ONLINE_ASK_TIMEOUT, ONLINE_ASKS_MAX, ONLINE_CLIENTS_MAX},
    model::{
        Boot, NodeId, Pid, Refusal, Reply, Ticket,
        record::{OnlineAsk, OnlineConnection},
    },
};

/// Connections in one node's answer after which no further user is begun.
const ANSWER_CONNECTIONS_MAX: usize = 4 * ONLINE_CLIENTS_MAX;
/// Connections of which no more are listed, not even of a user who is begun.
const USER_CONNECTIONS_MAX: usize = 2 * ANSWER_CONNECTIONS_MAX;

/// Some of the users who are online, sorted by uid, and whether there are more behind them.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) connections: Vec<OnlineConnection>,
    pub(super) more: bool,
}

/// The questions that this node has asked.
#[derive(Debug, Default)]
pub(super) struct Asks {
    next: u64,
    open: BTreeMap<u64, Ask>,
}

#[derive(Debug)]
struct Ask {
    ticket: Ticket,
    deadline: Instant,
    users_max: usize,
    /// This node's own question came back: the queue works.
    heard: bool,
    answered: BTreeSet<(NodeId, Boot)>,
    merged: Vec<OnlineConnection>,
    more: bool,
    /// Behind this uid somebody may be missing.
    horizon: Option<Box<str>>,
}

impl Asks {
    /// Opens a question for at most `limit` users; its number and the bound that is asked for.
    pub(super) fn open(&mut self, ticket: Ticket, limit: u32, now: Instant) -> Result<(u64, u32), Refusal> {
        if self.open.len() >= ONLINE_ASKS_MAX {
            return Err(Refusal::Overloaded);
        }
        let limit = page_users(limit);
        self.next += 1;
        let ask = Ask {
            ticket,
            deadline: now + ONLINE_ASK_TIMEOUT,
            users_max: limit as usize,
            heard: false,
            answered: BTreeSet::new(),
            merged: Vec::new(),
            more: false,
            horizon: None,
        };
        self.open.insert(self.next, ask);
        Ok((self.next, limit))
    }

    /// The log refused a question.
    pub(super) fn refused(&mut self, ticket: Ticket) -> bool {
        let before = self.open.len();
        self.open.retain(|_, ask| ask.ticket != ticket);
        self.open.len() < before
    }

    /// A node answered; this node counts as one that hears its own question.
    pub(super) fn answered(&mut self, ask: u64, node: (NodeId, Boot), home: bool, page: Page) {
        let Some(ask) = self.open.get_mut(&ask) else { return };
        ask.heard |= home;
        if ask.answered.insert(node) {
            ask.merge(page);
        }
    }

    /// Takes out what is complete or has waited long enough, with its answer.
    pub(super) fn finished(
        &mut self,
        now: Instant,
        nodes: impl Iterator<Item = (NodeId, Boot)> + Clone,
    ) -> Vec<(Ticket, Reply)> {
        let over = |_: &u64, ask: &mut Ask| {
            let complete = ask.heard && nodes.clone().all(|node| ask.answered.contains(&node));
            complete || ask.deadline <= now
        };
        self.open.extract_if(.., over).map(|(_, ask)| (ask.ticket, ask.reply())).collect()
    }
}

impl Ask {
    fn merge(&mut self, page: Page) {
        if let (true, Some(last)) = (page.more, page.connections.last()) {
            self.more = true;
            let last = last.source.uid.clone();
            let nearer = self.horizon.as_ref().is_none_or(|horizon| last < *horizon);
            self.horizon = if nearer { Some(last) } else { self.horizon.take() };
        }
        self.merged.extend(page.connections);
    }

    fn reply(mut self) -> Reply {
        if !self.heard {
            return Reply::Refused(Refusal::QueueUnavailable);
        }
        if let Some(horizon) = &self.horizon {
            self.merged.retain(|connection| connection.source.uid <= *horizon);
        }
        self.merged.sort_unstable_by(|a, b| (&a.source.uid, a.source.cid).cmp(&(&b.source.uid, b.source.cid)));
        let kept = first_users(&self.merged, self.users_max);
        let more = self.more || kept < self.merged.len();
        self.merged.truncate(kept);
        Reply::Online { connections: self.merged, more }
    }
}

/// How many of the sorted connections are those of the first `users_max` users.
fn first_users(sorted: &[OnlineConnection], users_max: usize) -> usize {
    let uid = |connection: &OnlineConnection, other: &OnlineConnection| connection.source.uid == other.source.uid;
    sorted.chunk_by(uid).take(users_max).map(<[_]>::len).sum()
}

fn page_users(limit: u32) -> u32 {
    limit.clamp(1, u32::try_from(ONLINE_CLIENTS_MAX).unwrap_or(u32::MAX))
}

/// This node's part of the answer to a question.
pub(super) fn page(presence: &Presence, ask: &OnlineAsk, describe: impl Fn(&Member) -> OnlineConnection) -> Page {
    let mut wanted: Vec<&str> = ask.uids.iter().map(|uid| &**uid).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        let members = presence.users_behind(&ask.pid, ask.after.as_deref());
        return collect(members.map(|member| &**member), ask.limit, describe);
    }
    wanted.retain(|uid| ask.after.as_deref().is_none_or(|after| *uid > after));
    let members = wanted.iter().flat_map(|uid| connections(presence, &ask.pid, uid));
    collect(members, ask.limit, describe)
}

fn connections<'a>(presence: &'a Presence, pid: &Pid, uid: &'a str) -> impl Iterator<Item = &'a Member> {
    presence.connections(pid, uid).map(|member| &**member)
}

fn collect<'a>(
    members: impl Iterator<Item = &'a Member>,
    limit: u32,
    describe: impl Fn(&Member) -> OnlineConnection,
) -> Page {
    let users_max = page_users(limit);
    let (mut page, mut users, mut uid) = (Page::default(), 0, None);
    for member in members {
        let another = uid != Some(&*member.uid);
        if another && (users == users_max || page.connections.len() >= ANSWER_CONNECTIONS_MAX) {
            page.more = true;
            return page;
        }
        if another {
            (users, uid) = (users + 1, Some(&*member.uid));
        }
        if page.connections.len() < USER_CONNECTIONS_MAX {
            page.connections.push(describe(member));
        }
    }
    page
}
