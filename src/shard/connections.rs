//! The connections of one listener on one core, from their accept to their end, and what becomes of what their sockets tell.
//!
//! Method: a connection that waits for its peer is an entry here and no task. What its socket tells is handled in the turn
//! in which it comes; whatever has to wait for anything else (a rate, the others' turn, the end of a close) goes on in a task
//! of its own and comes back.
//! Invariants: an entry is in nobody's hands or in those of exactly one task; a turn serves at most [`EVENTS_PER_TURN`]
//! sockets before everybody else on the core gets theirs; begins and ends wait behind those that stay, one a connection.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

use slab::Slab;

use crate::{
    clock,
    limits::{ACCEPT_PAUSE, OPENINGS_PER_TURN},
    metrics::Count,
};

use super::{
    admission::{Admission, Permit},
    connection::Reader,
    core::Core,
    opening::{self, Fallback},
    readiness::{EVENTS_PER_TURN, Event, Readiness},
    service::Service,
    socket::Socket,
};

/// See the module.
pub(super) struct Connections<S: Service> {
    pub core: Rc<Core>,
    pub service: Rc<S>,
    pub admission: Admission,
    pub fallback: Option<Fallback>,
    readiness: Readiness,
    seats: RefCell<Slab<Seat<S>>>,
    /// Begins and ends that wait behind those that stay.
    later: RefCell<VecDeque<Event>>,
    /// Who has not sent a byte yet, by their deadlines; some have sent one since.
    silent: RefCell<VecDeque<Silent>>,
}

/// One connection.
enum Seat<S: Service> {
    /// Accepted; nothing has come yet.
    New(Box<Accepted>),
    /// Has a session, and waits for its peer; or its end, which has come, for its turn.
    Waiting(Reader<S>),
    /// In the hands of a task.
    Away(Away),
}

/// An accepted connection.
pub(super) struct Accepted {
    pub socket: Socket,
    pub address: IpAddr,
    pub permit: Permit,
    /// When its head must be here.
    pub deadline: Instant,
    /// Something has come, and waits for its turn.
    is_put_off: bool,
    /// Nothing comes behind that.
    is_ending: bool,
}

struct Away {
    socket: Option<Rc<Socket>>,
    /// So many times the task should receive because of what its socket has told since: once, or twice if it tells nothing
    /// more, because its end comes behind what is read first.
    news: u8,
    task: Option<Waker>,
}

struct Silent {
    key: usize,
    deadline: Instant,
}

impl<S: Service> Connections<S> {
    /// None yet.
    pub fn new(
        core: Rc<Core>,
        service: Rc<S>,
        admission: Admission,
        fallback: Option<Fallback>,
    ) -> io::Result<Rc<Self>> {
        let readiness = Readiness::new()?;
        let (seats, later, silent) = Default::default();
        Ok(Rc::new(Self { core, service, admission, fallback, readiness, seats, later, silent }))
    }

    /// Takes in an accepted connection.
    pub fn enter(&self, descriptor: OwnedFd, address: IpAddr, permit: Permit) -> io::Result<()> {
        let limits = self.core.limits();
        let socket = Socket::new(descriptor, &limits.writing)?;
        let deadline = clock::now() + limits.opening.handshake_timeout;
        let mut seats = self.seats.borrow_mut();
        let seat = seats.vacant_entry();
        let key = seat.key();
        self.readiness.add(socket.descriptor(), key)?;
        seat.insert(Seat::New(Box::new(Accepted {
            socket,
            address,
            permit,
            deadline,
            is_put_off: false,
            is_ending: false,
        })));
        let mut silent = self.silent.borrow_mut();
        // Mostly all of them have sent something: then nothing waits here.
        while silent.front().is_some_and(|silent| !is_silent(&seats, silent)) {
            silent.pop_front();
        }
        silent.push_back(Silent { key, deadline });
        Ok(())
    }

    /// Handles what sockets tell, for ever.
    pub async fn watch(self: Rc<Self>) {
        let (mut events, mut handled) = (Vec::new(), 0);
        loop {
            if self.later.borrow().is_empty()
                && let Err(error) = self.readiness.wait().await
            {
                tracing::error!(%error, "the core's sockets cannot be watched");
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
            let mut has_more = true;
            while has_more {
                has_more = self.readiness.take(&mut events);
                for event in events.drain(..) {
                    if !self.put_off(event) {
                        handled += 1;
                        self.happened(event);
                    }
                }
                // Also over several waits: one that finds something does not wait at all under epoll.
                if handled >= EVENTS_PER_TURN {
                    handled = 0;
                    self.core.pass().await;
                }
            }
            if self.handle_put_off() {
                handled = 0;
                self.core.pass().await;
            }
        }
    }

    /// Whether it is about a connection's begin or end, and has its turn behind those that stay: in a storm there are
    /// thousands. It waits there once a connection, whatever comes meanwhile.
    fn put_off(&self, event: Event) -> bool {
        let is_first = match self.seats.borrow_mut().get_mut(event.key) {
            Some(Seat::New(accepted)) if event.is_readable => {
                accepted.is_ending |= event.is_ending;
                !std::mem::replace(&mut accepted.is_put_off, true)
            }
            Some(Seat::Waiting(reader)) if event.is_ending => reader.note_end(),
            _ => return false,
        };
        if is_first {
            self.later.borrow_mut().push_back(event);
            self.core.counters().inc(Count::ConnectionsPutOff);
        }
        true
    }

    /// Handles some of those that were put off; whether more wait.
    fn handle_put_off(self: &Rc<Self>) -> bool {
        for _ in 0..OPENINGS_PER_TURN {
            let Some(event) = self.later.borrow_mut().pop_front() else { return false };
            self.core.counters().sub(Count::ConnectionsPutOff, 1);
            self.happened(event);
        }
        !self.later.borrow().is_empty()
    }

    /// Turns away who has sent nothing by its deadline, for ever.
    pub async fn expire(self: Rc<Self>) {
        loop {
            let due = self.silent.borrow().front().map(|silent| silent.deadline);
            let left = due.map_or(ACCEPT_PAUSE, |due| due.saturating_duration_since(clock::now()));
            if left.is_zero() {
                self.expire_first();
            } else {
                // A deadline may come to be nearer by a reload.
                monoio::time::sleep(left.min(ACCEPT_PAUSE)).await;
            }
        }
    }

    fn expire_first(self: &Rc<Self>) {
        let Some(silent) = self.silent.borrow_mut().pop_front() else { return };
        let is_silent = is_silent(&self.seats.borrow(), &silent);
        if is_silent && let Some(accepted) = self.take_new(silent.key) {
            opening::time_out(self.clone(), silent.key, accepted);
        }
    }

    fn happened(self: &Rc<Self>, event: Event) {
        let mut seats = self.seats.borrow_mut();
        match seats.get_mut(event.key) {
            // A descriptor that outlives its connection for a moment.
            None => {}
            Some(Seat::Waiting(reader)) => {
                if event.is_writable {
                    reader.socket().note_writable();
                }
                let is_ending = reader.take_end();
                if event.is_readable
                    && let Some(turn) = reader.turn_in_place(self, is_ending)
                {
                    let socket = Some(reader.socket().clone());
                    // Its end is not told again, and may stand behind more than this turn has taken.
                    let away = Seat::Away(Away { socket, news: u8::from(is_ending), task: None });
                    let Seat::Waiting(reader) = std::mem::replace(&mut seats[event.key], away) else { return };
                    drop(seats);
                    reader.go_on(self, event.key, turn);
                }
            }
            Some(Seat::Away(away)) => away.note(event),
            Some(Seat::New(_)) if !event.is_readable => {}
            Some(Seat::New(_)) => {
                drop(seats);
                if let Some(accepted) = self.take_new(event.key) {
                    opening::begin(self, event.key, accepted);
                }
            }
        }
    }

    fn take_new(&self, key: usize) -> Option<Box<Accepted>> {
        let mut seats = self.seats.borrow_mut();
        let seat = seats.get_mut(key)?;
        let Seat::New(accepted) = seat else { return None };
        let news = u8::from(accepted.is_ending);
        let away = Seat::Away(Away { socket: None, news, task: None });
        let Seat::New(accepted) = std::mem::replace(seat, away) else { return None };
        Some(accepted)
    }

    /// Waits until the socket of an entry that is away has told something that was not waited for yet.
    pub async fn news(&self, key: usize) {
        std::future::poll_fn(|context| {
            let mut seats = self.seats.borrow_mut();
            let Some(Seat::Away(away)) = seats.get_mut(key) else { return Poll::Ready(()) };
            if away.news > 0 {
                away.news -= 1;
                return Poll::Ready(());
            }
            away.task = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether [`Self::news`] would not wait.
    pub fn has_news(&self, key: usize) -> bool {
        let seats = self.seats.borrow();
        matches!(seats.get(key), Some(Seat::Away(away)) if away.news > 0)
    }

    /// An entry has a session and waits for its peer.
    pub fn sit(&self, key: usize, reader: Reader<S>) {
        if let Some(seat) = self.seats.borrow_mut().get_mut(key) {
            *seat = Seat::Waiting(reader);
        }
    }

    /// Somebody else writes to the socket of an entry that is away, too.
    pub fn share(&self, key: usize, socket: Rc<Socket>) {
        if let Some(Seat::Away(away)) = self.seats.borrow_mut().get_mut(key) {
            away.socket = Some(socket);
        }
    }

    /// An entry is over.
    pub fn leave(&self, key: usize) {
        let _ = self.seats.borrow_mut().try_remove(key);
    }

    /// An entry is over here: its socket is somebody else's now.
    pub fn hand_over(&self, key: usize, socket: &Socket) {
        self.readiness.remove(socket.descriptor());
        self.leave(key);
    }
}

impl Away {
    fn note(&mut self, event: Event) {
        if event.is_writable
            && let Some(socket) = &self.socket
        {
            socket.note_writable();
        }
        if event.is_readable {
            self.news = self.news.max(1 + u8::from(event.is_ending));
            if let Some(task) = self.task.take() {
                task.wake();
            }
        }
    }
}

/// Whether an entry is still the one that has sent nothing.
fn is_silent<S: Service>(seats: &Slab<Seat<S>>, silent: &Silent) -> bool {
    matches!(seats.get(silent.key), Some(Seat::New(accepted)) if accepted.deadline == silent.deadline)
}
