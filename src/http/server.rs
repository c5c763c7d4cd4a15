//! One core's HTTP server: how many it serves at once, and who answers.
//!
//! Invariants: connections and requests in flight are bounded, and what is beyond is told 503; a panic costs one
//! connection and is counted.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::BytesMut;
use futures_util::FutureExt;
use monoio::net::TcpStream;

use super::{
    connection::Connection,
    encode::{Encoder, Envelope},
    message::{Fault, Head, Request, Response},
    neighbour::{Moved, Neighbour},
    socket::Socket,
};
use crate::{
    inbox::Mailbox,
    limits::{HTTP_REFUSALS_MAX, HttpLimits},
    metrics::{Count, Counters, requests::Url},
};

/// Answers requests.
pub trait Handler: 'static {
    /// Looks at a request before its body is read: which route it is, and whether it can be answered already.
    fn preview(&self, head: &Head) -> Preview;

    /// Answers a whole request that [`Handler::preview`] let through.
    fn handle(&self, request: Request) -> impl Future<Output = Response>;

    /// Whether the node ends soon: connections close with their next answer, so that their peers go to another in time.
    fn is_leaving(&self) -> bool {
        false
    }
}

/// What a handler says to a head.
#[derive(Debug)]
pub struct Preview {
    /// The route, for the metrics.
    pub url: Url,
    /// The answer, if the body does not matter for it. The connection closes when there is a body.
    pub answer: Option<Response>,
    /// Whether the request takes one of the bounded places; probes do not, so that a busy node still shows life.
    pub counted: bool,
    /// Whether the request ends when its peer goes away or closes its side, as Go's server takes it. Its connection
    /// closes after the answer.
    pub watched: bool,
}

impl Preview {
    /// The body is wanted.
    pub fn accept(url: Url) -> Self {
        Self { url, answer: None, counted: true, watched: false }
    }

    /// The body is wanted, and the request is let in however busy the core is.
    pub fn accept_always(url: Url) -> Self {
        Self { url, answer: None, counted: false, watched: false }
    }

    /// The body is wanted, and the answer takes so long that it is not worked out for nobody.
    pub fn accept_while_connected(url: Url) -> Self {
        Self { url, answer: None, counted: true, watched: true }
    }

    /// The answer is known.
    pub fn answer(url: Url, response: impl Into<Response>) -> Self {
        Self { url, answer: Some(response.into()), counted: false, watched: false }
    }
}

/// The server of one core: never shared between threads.
pub struct Server<H> {
    handler: H,
    limits: RefCell<Rc<HttpLimits>>,
    counters: Arc<Counters>,
    encoder: Encoder,
    connections: Places,
    refusals: Places,
    in_flight: Places,
    stopping: Cell<bool>,
    neighbour: Option<Neighbour>,
    /// Whether a connection closes after its first answer.
    answers_once: bool,
    /// Listeners that wait for the stop.
    waiting: RefCell<Vec<Waker>>,
}

impl<H: Handler> Server<H> {
    /// A server that answers with `handler`.
    pub fn new(handler: H, limits: HttpLimits, counters: Arc<Counters>) -> Self {
        Self {
            handler,
            limits: RefCell::new(Rc::new(limits)),
            counters,
            encoder: Encoder::default(),
            connections: Places::default(),
            refusals: Places::default(),
            in_flight: Places::default(),
            stopping: Cell::new(false),
            neighbour: None,
            answers_once: false,
            waiting: RefCell::default(),
        }
    }

    /// Its listeners are shared with another server.
    pub fn beside(self, neighbour: Option<Neighbour>) -> Self {
        Self { neighbour, ..self }
    }

    /// Serves connections that come from another server, to which their next request may belong: each has one request
    /// answered and is closed.
    pub async fn take_over(self, mailbox: Arc<Mailbox<Moved>>) {
        let server = Rc::new(Self { answers_once: true, ..self });
        let mut batch = Vec::new();
        loop {
            mailbox.receive(&mut batch).await;
            for Moved { stream, peer, already_read } in batch.drain(..) {
                match TcpStream::from_std(stream) {
                    Ok(stream) => server.accept(stream, peer, already_read),
                    Err(_) => server.counters.inc(Count::HttpRejected),
                }
            }
        }
    }

    /// No more connections are accepted, and each one closes with its next answer.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for [`Server::stop`].
    pub(super) async fn stopped(&self) {
        std::future::poll_fn(|context| {
            if self.stopping.get() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Serves one connection, of which `already_read` was read before, in a task of its own. Over the bound it is
    /// told 503; over the bound of those too, it is closed.
    pub fn accept(self: &Rc<Self>, stream: TcpStream, peer: IpAddr, already_read: BytesMut) {
        let server = self.clone();
        let socket = Socket::new(stream, already_read);
        if let Some(place) = self.connections.enter(self.limits().connections_max) {
            drop(monoio::spawn(async move {
                server.serve(socket, peer).await;
                drop(place);
            }));
        } else if let Some(place) = self.refusals.enter(HTTP_REFUSALS_MAX) {
            drop(monoio::spawn(async move {
                server.turn_away(socket).await;
                drop(place);
            }));
        } else {
            self.counters.inc(Count::HttpRejected);
        }
    }

    async fn serve(&self, socket: Socket, peer: IpAddr) {
        let connection = Connection::new(self, socket, peer).run();
        if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
            self.counters.inc(Count::Panics);
        }
    }

    async fn turn_away(&self, mut socket: Socket) {
        self.counters.inc(Count::HttpRejected);
        let envelope = Envelope { head_only: false, keep_alive: false, http_11: true };
        let bytes = self.encoder.encode(Fault::OVERLOADED.into(), envelope);
        if socket.write(bytes, self.limits().write_timeout).await.is_ok() {
            socket.linger().await;
        }
    }

    pub(super) fn enter(&self) -> Option<InFlight> {
        let place = self.in_flight.enter(self.limits().in_flight_max);
        self.counters.inc(if place.is_none() { Count::HttpRejected } else { Count::HttpInFlight });
        place.map(|place| InFlight { _place: place, counters: self.counters.clone() })
    }

    /// Who answers.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The bounds as they are now.
    pub(super) fn limits(&self) -> Rc<HttpLimits> {
        self.limits.borrow().clone()
    }

    /// Replaces the bounds; what is under way is held to those it began with.
    pub fn set_limits(&self, limits: HttpLimits) {
        self.limits.replace(Rc::new(limits));
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub(super) fn neighbour(&self) -> Option<&Neighbour> {
        self.neighbour.as_ref()
    }

    /// Whether a connection may have another request answered.
    pub(super) fn goes_on(&self) -> bool {
        !self.stopping.get() && !self.answers_once && !self.handler.is_leaving()
    }
}

/// Counts what is there at once.
#[derive(Debug, Default)]
struct Places(Rc<Cell<usize>>);

/// One that is there, until dropped.
#[derive(Debug)]
struct Place(Rc<Cell<usize>>);

/// A request that is being answered, until dropped.
pub(super) struct InFlight {
    _place: Place,
    counters: Arc<Counters>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counters.sub(Count::HttpInFlight, 1);
    }
}

impl Places {
    fn enter(&self, places_max: usize) -> Option<Place> {
        let taken = self.0.get();
        (taken < places_max).then(|| {
            self.0.set(taken + 1);
            Place(self.0.clone())
        })
    }

    fn taken(&self) -> usize {
        self.0.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
