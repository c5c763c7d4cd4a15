//! One core's context: its hub, its sockets, its clock, and the way of a frame from an outbox to a socket.
//!
//! Invariants: the hub is borrowed for one synchronous sentence at a time; at most one write per socket is under way;
//! while a drain task owns a socket's writing, nobody else writes to it.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    clock,
    hub::{Decis, Hub, HubSettings, Millis, Phase},
    limits::Limits,
    metrics::{Count, Counters},
    model::{SessionId, TagRules},
    prefetch::prefetch,
    protocol::deflate::Inflater,
};

use super::{rate::Moment, socket::Socket, turn::Turn};

/// Frames that one write carries at most (`IOV_MAX`).
const SLICES_MAX: usize = 1024;
/// The same while few or some wait: most writes are of one frame, and an array of places costs to make.
const SLICES_FEW: usize = 8;
const SLICES_SOME: usize = 96;
/// Updates of subscriptions with a rate come at most this late.
const DUE_STEP: Duration = Duration::from_millis(5);
/// Bytes received at a time.
const RECEIVE_BYTES: usize = 64 << 10;
/// Visits between two looks at the clock: what one takes is microseconds.
const VISITS_PER_LOOK: usize = 8;
/// Writes to one socket before others get their turn.
const WRITES_PER_VISIT: usize = 4;

/// One core.
#[derive(Debug)]
pub struct Core {
    /// This core's own copy: a shared count would bounce its cache line between all cores.
    limits: RefCell<Rc<Limits>>,
    /// Counts the reloads.
    generation: Cell<u32>,
    counters: Arc<Counters>,
    hub: RefCell<Hub>,
    sockets: RefCell<Vec<Option<Rc<Socket>>>>,
    started: Instant,
    /// The wall clock at that time, Unix microseconds; looked at again now and then, because it is set at times.
    wall_at_start_us: Cell<u64>,
    /// Every connection receives into it, one at a time.
    pub(super) receive: RefCell<Box<[u8]>>,
    /// Every connection's compressed messages go through it, one at a time.
    pub(super) inflater: RefCell<Inflater>,
    turn: Turn,
    walker: RefCell<Option<Waker>>,
    /// Who sends updates when they are due, while none is.
    timekeeper: RefCell<Option<Waker>>,
}

/// What became of a visit to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    /// Nothing waits any more.
    Done,
    /// The kernel takes no more for now.
    Blocked,
    /// More waits, and the kernel would take it: the others' turn.
    More,
    /// The connection is broken.
    Broken,
}

impl Core {
    /// A core; needs a running monoio runtime.
    pub fn new(settings: HubSettings, counters: Arc<Counters>) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            limits: RefCell::new(Rc::new((*settings.limits).clone())),
            generation: Cell::new(0),
            counters: counters.clone(),
            hub: RefCell::new(Hub::new(settings, counters)),
            sockets: RefCell::default(),
            started: clock::now(),
            wall_at_start_us: Cell::new(clock::unix_us()),
            receive: RefCell::new(vec![0; RECEIVE_BYTES].into()),
            inflater: RefCell::default(),
            turn: Turn::new()?,
            walker: RefCell::default(),
            timekeeper: RefCell::default(),
        }))
    }

    /// The node's bounds, as they are now.
    pub fn limits(&self) -> Rc<Limits> {
        self.limits.borrow().clone()
    }

    /// Another number after each change of the bounds.
    pub(super) fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Replaces the bounds and the rules of tags.
    pub fn reload(&self, limits: &Limits, rules: TagRules, outboxes_bytes_max: usize) {
        self.limits.replace(Rc::new(limits.clone()));
        self.generation.set(self.generation.get().wrapping_add(1));
        self.with_hub(|hub| {
            hub.set_limits(Arc::new(limits.clone()), outboxes_bytes_max);
            hub.reload(rules);
        });
    }

    /// The core's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends a turn: lets everybody else run.
    pub async fn pass(&self) {
        self.turn.pass().await;
    }

    /// The hub's time now.
    pub fn now(&self) -> Decis {
        Decis::try_from(self.now_ms() / 100).unwrap_or(Decis::MAX)
    }

    /// Milliseconds since the core's begin, for what connections send.
    pub(super) fn moment(&self) -> Moment {
        self.now_ms() as Moment
    }

    fn now_ms(&self) -> Millis {
        self.elapsed_us() / 1000
    }

    fn elapsed_us(&self) -> u64 {
        let elapsed = clock::now().saturating_duration_since(self.started);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// The wall clock, Unix microseconds: by the monotonic one since it was last looked at.
    pub fn wall_us(&self) -> u64 {
        self.wall_at_start_us.get() + self.elapsed_us()
    }

    /// Looks at the wall clock.
    pub(super) fn set_wall(&self) {
        self.wall_at_start_us.set(clock::unix_us().saturating_sub(self.elapsed_us()));
    }

    /// Borrows the hub for one synchronous sentence. What that queues is written soon after.
    pub fn with_hub<T>(&self, sentence: impl FnOnce(&mut Hub) -> T) -> T {
        let mut hub = self.hub.borrow_mut();
        self.tell_time(&mut hub);
        let result = sentence(&mut hub);
        if hub.has_dirty()
            && let Some(walker) = self.walker.borrow_mut().take()
        {
            walker.wake();
        }
        if hub.next_due().is_some()
            && let Some(timekeeper) = self.timekeeper.borrow_mut().take()
        {
            timekeeper.wake();
        }
        result
    }

    fn tell_time(&self, hub: &mut Hub) {
        let elapsed_us = self.elapsed_us();
        hub.set_now(elapsed_us / 1000);
        hub.set_wall_us(self.wall_at_start_us.get() + elapsed_us);
    }

    /// Notes the socket of a session.
    pub fn attach(&self, id: SessionId, socket: Rc<Socket>) {
        let mut sockets = self.sockets.borrow_mut();
        let slot = id.slot as usize;
        if slot >= sockets.len() {
            sockets.resize_with(slot + 1, || None);
        }
        sockets[slot] = Some(socket);
    }

    /// Forgets the socket of a session that is closed.
    pub fn detach(&self, id: SessionId) {
        self.sockets.borrow_mut()[id.slot as usize] = None;
    }

    fn socket(&self, id: SessionId) -> Option<Rc<Socket>> {
        self.sockets.borrow().get(id.slot as usize)?.clone()
    }

    /// Shuts a session's socket: its reader finds the end.
    pub fn shut(&self, id: SessionId) {
        if let Some(socket) = self.socket(id) {
            socket.shut();
        }
    }

    /// Writes what waits, connection by connection, for ever. Between slices everybody else gets a turn: this core's other tasks,
    /// and the thread of the node, where it shares this CPU.
    pub async fn walk(self: Rc<Self>) {
        loop {
            if self.walk_slice() {
                self.pass().await;
            } else {
                self.wait_for_dirt().await;
            }
        }
    }

    /// Visits as many sockets as a slice has; whether more are to be visited.
    fn walk_slice(self: &Rc<Self>) -> bool {
        let slice = self.limits.borrow().writing.walk_slice;
        self.with_hub(|hub| {
            let sockets = self.sockets.borrow();
            for visited in 1..=slice {
                let Some(id) = hub.next_dirty() else { return false };
                if let Some(Some(socket)) = hub.upcoming().and_then(|slot| sockets.get(slot as usize)) {
                    prefetch(&**socket);
                }
                if let Some(Some(socket)) = sockets.get(id.slot as usize) {
                    self.write(hub, id, socket);
                }
                if visited % VISITS_PER_LOOK == 0 {
                    self.tell_time(hub);
                }
            }
            hub.has_dirty()
        })
    }

    /// Waits until the walk has visited every socket that has something to be written now. What comes meanwhile is not waited
    /// for: while thousands connect something always does.
    pub async fn walked(&self) {
        let mark = self.with_hub(|hub| hub.walk_mark());
        while !self.with_hub(|hub| hub.is_walked(mark)) {
            self.pass().await;
        }
    }

    async fn wait_for_dirt(&self) {
        wait_in(&self.walker).await;
    }

    /// Sends updates of subscriptions with a rate when they are due, for ever.
    pub async fn keep_time(&self) {
        loop {
            match self.with_hub(|hub| hub.next_due()) {
                None => wait_in(&self.timekeeper).await,
                Some(due) => {
                    // An earlier one may come while it sleeps, hence not longer than a moment.
                    let left = Duration::from_millis(due.saturating_sub(self.now_ms())).min(DUE_STEP);
                    monoio::time::sleep(left).await;
                    self.with_hub(Hub::release_due);
                }
            }
        }
    }

    /// Writes what waits for one session, as far as the kernel takes it; a drain task sees to the rest.
    fn write(self: &Rc<Self>, hub: &mut Hub, id: SessionId, socket: &Rc<Socket>) {
        if socket.is_blocked() {
            return;
        }
        match visit(hub, id, socket) {
            Visit::Done => finish_if_closing(hub, id, socket),
            Visit::Blocked | Visit::More => {
                socket.set_blocked(true);
                self.counters.inc(Count::WritesBlocked);
                monoio::spawn(self.clone().drain(id, socket.clone()));
            }
            Visit::Broken => socket.shut(),
        }
    }

    /// Owns a slow socket's writing until nothing waits.
    async fn drain(self: Rc<Self>, id: SessionId, socket: Rc<Socket>) {
        let patient = self.with_hub(|hub| hub.may_take_its_time(id));
        if patient {
            socket.set_patient(true, &self.limits().writing);
        }
        let visit = loop {
            socket.writable().await;
            match self.with_hub(|hub| visit(hub, id, &socket)) {
                Visit::Blocked => {}
                Visit::More => self.pass().await,
                ended => break ended,
            }
        };
        socket.set_blocked(false);
        if patient {
            socket.set_patient(false, &self.limits().writing);
        }
        match visit {
            Visit::Broken => socket.shut(),
            _ => self.with_hub(|hub| finish_if_closing(hub, id, &socket)),
        }
    }
}

/// A few writes to a socket.
fn visit(hub: &mut Hub, id: SessionId, socket: &Socket) -> Visit {
    for _ in 0..WRITES_PER_VISIT {
        let (sent, wanted) = match hub.only(id) {
            Some(frame) => match (socket.send(&[IoSlice::new(frame)]), frame.len()) {
                // Most visits are this.
                (Ok(taken), wanted) if taken == wanted => {
                    hub.wrote_only(id);
                    return Visit::Done;
                }
                sent => sent,
            },
            None => match send_waiting(hub, id, socket) {
                Some(sent) => sent,
                None => return Visit::Done,
            },
        };
        let taken = match sent {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Visit::Broken,
        };
        if !hub.wrote(id, taken, taken < wanted) {
            return Visit::Done;
        }
        if taken < wanted {
            return Visit::Blocked;
        }
    }
    Visit::More
}

/// Behind the last byte of a session that is being closed goes FIN.
fn finish_if_closing(hub: &Hub, id: SessionId, socket: &Socket) {
    let is_closing = hub.session(id).is_some_and(|session| session.phase() != Phase::Open);
    if is_closing && hub.is_flushed(id) {
        socket.end_write();
    }
}

/// One write of what waits for a session: what came of it, and how many bytes it was. None: nothing waits.
#[inline(never)]
fn send_waiting(hub: &mut Hub, id: SessionId, socket: &Socket) -> Option<(io::Result<usize>, usize)> {
    match hub.waiting(id) {
        waiting if waiting <= SLICES_FEW => send::<SLICES_FEW>(hub, id, socket),
        waiting if waiting <= SLICES_SOME => send::<SLICES_SOME>(hub, id, socket),
        _ => send::<SLICES_MAX>(hub, id, socket),
    }
}

/// The same with room for so many frames.
fn send<const SLICES: usize>(hub: &mut Hub, id: SessionId, socket: &Socket) -> Option<(io::Result<usize>, usize)> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = hub.gather(id, &mut slices);
    if filled == 0 {
        return None;
    }
    let wanted = slices[..filled].iter().map(|slice| slice.len()).sum();
    Some((socket.send(&slices[..filled]), wanted))
}

/// Waits until somebody takes the waker out of `place` and wakes it.
async fn wait_in(place: &RefCell<Option<Waker>>) {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        *place.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}
