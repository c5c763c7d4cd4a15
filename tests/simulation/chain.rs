//! What a tag's publications are, told by a naive model: the log's order, without repeats where a rule says so.

use bytes::Bytes;
use ws_cluster::model::{FollowStart, LastValue, Publication, Published, RecordId, TagRule};

/// A publication with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub id: RecordId,
    pub prev: Option<RecordId>,
    pub keep: bool,
    pub payload: Bytes,
}

/// All publications of a tag, as one node or the queue knows them.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub links: Vec<Link>,
    /// The log lost something behind the last.
    broken: bool,
    /// Nothing before this one can be resumed from.
    resumable: usize,
    /// What the queue's store had, if the log has not brought that yet; whether it is the newest.
    stored: Option<(RecordId, bool)>,
}

impl Chain {
    /// Takes a publication in; whether it is news.
    pub fn publish(&mut self, id: RecordId, publication: &Publication, dedup: bool) -> bool {
        if let Some((stored, is_newest)) = self.stored {
            if stored.origin == id.origin && id.seq < stored.seq {
                return false;
            }
            self.stored = (stored != id).then_some((stored, false));
            if stored == id && is_newest {
                return false;
            }
            // It comes once more, behind replays of what was before it.
            self.broken |= stored == id;
        }
        let last = self.links.last();
        let repeats = |last: &Link| last.payload == publication.payload && (last.keep || !publication.keep);
        if dedup && !self.broken && last.is_some_and(repeats) {
            return false;
        }
        let broken = std::mem::take(&mut self.broken);
        if broken {
            self.resumable = self.links.len();
        }
        let prev = last.filter(|_| !broken).map(|last| last.id);
        self.links.push(Link { id, prev, keep: publication.keep, payload: publication.payload.clone() });
        true
    }

    /// The queue's store had the last value; the log may know better.
    pub fn load(&mut self, value: &LastValue) {
        if self.links.is_empty() {
            let Published { id, prev, keep, payload, .. } = &*value.published;
            self.links.push(Link { id: *id, prev: *prev, keep: *keep, payload: payload.clone() });
            (self.stored, self.broken) = (Some((*id, true)), value.is_broken);
        }
    }

    /// The log has brought something from before the node's start.
    pub fn forget_stored(&mut self, id: RecordId) {
        if self.stored.is_some_and(|(stored, is_newest)| stored != id && is_newest) {
            *self = Self::default();
        }
    }

    /// The log lost records of this tag.
    pub fn lose(&mut self) {
        self.broken = true;
        self.resumable = self.links.len().saturating_sub(1);
    }

    /// A ring of so many is all that is left.
    pub fn shorten(&mut self, count: usize) {
        self.resumable = self.resumable.max(self.links.len().saturating_sub(count + 1));
    }

    /// Where a publication stands; the latest are asked for most.
    pub fn find(&self, id: RecordId) -> Option<usize> {
        self.links.iter().rposition(|link| link.id == id)
    }

    /// Whether a subscriber may be told this first; why not.
    pub fn check_start(&self, since: Option<&str>, start: &FollowStart, rule: &TagRule) -> Result<(), String> {
        let held = since.and_then(|since| since.parse::<RecordId>().ok());
        let place = held.and_then(|held| self.find(held));
        match start {
            FollowStart::Empty if since.is_none() && self.links.is_empty() => Ok(()),
            FollowStart::Gap if since.is_some() && self.links.is_empty() => Ok(()),
            FollowStart::Snapshot { last, gap } => {
                self.check_same(self.links.len().wrapping_sub(1), last)?;
                if *gap != since.is_some() {
                    return Err(format!("gap {gap} to since {since:?}"));
                }
                match place.filter(|place| *gap && self.reaches(*place, rule)) {
                    Some(place) => Err(format!("a gap to one who holds {place} of {}", self.links.len())),
                    None => Ok(()),
                }
            }
            FollowStart::Tail(tail) => {
                let first = self.links.len().checked_sub(tail.len()).ok_or("a tail longer than all")?;
                // The first of all may follow on one that is not known here.
                let is_before_all = first == 0 && held.is_some() && held == tail.first().and_then(|first| first.prev);
                if place.is_none_or(|place| place + 1 != first) && !is_before_all {
                    return Err(format!("a tail of {} to {place:?} of {}", tail.len(), self.links.len()));
                }
                (first..).zip(tail).try_for_each(|(at, published)| self.check_same(at, published))
            }
            other => Err(format!("{other:?} to since {since:?} of {}", self.links.len())),
        }
    }

    /// Whether what follows a place must be known by the rule's history, its age aside.
    fn reaches(&self, place: usize, rule: &TagRule) -> bool {
        let behind = &self.links[place + 1..];
        let bytes: usize = behind.iter().map(|link| link.payload.len()).sum();
        let is_whole = !self.broken && place >= self.resumable;
        is_whole && behind.len() <= rule.history.count_max && bytes <= rule.history.bytes_max
    }

    /// Whether a publication is the one at a place.
    pub fn check_same(&self, at: usize, published: &Published) -> Result<(), String> {
        let Published { id, prev, keep, payload, .. } = published;
        let given = Link { id: *id, prev: *prev, keep: *keep, payload: payload.clone() };
        match self.links.get(at) {
            Some(link) if *link == given => Ok(()),
            other => Err(format!("{given:?} in place of {other:?}")),
        }
    }
}
