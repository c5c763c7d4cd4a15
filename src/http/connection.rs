//! One connection: request after request, each with deadlines, until either side has had enough.
//!
//! Invariants: requests are answered in order; after an answer to a request whose body was not read to its end the
//! connection closes, so that leftover bytes are never taken for a request.

use std::{
    cell::Cell,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use http::{Method, StatusCode};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::RequestHeadDecoder;

use super::{
    chunked::Chunked,
    encode::Envelope,
    head::{self, Framing, Scan, Verdict},
    message::{Fault, Head, Request, Response},
    server::{Handler, Preview, Server},
    socket::{Dry, Socket},
};
use crate::{
    clock,
    metrics::{Count, requests as metrics},
};

/// Requests that one connection may have answered without ever waiting, before others get their turn.
const TURNS_MAX: u32 = 64;
/// The pause that makes room: long enough that timers and other threads' wakes are looked at.
const TURN_PAUSE: Duration = Duration::from_millis(1);

/// A body of at most so many bytes is read before its request takes a place in flight. Times the connections of a
/// core, this bounds what bodies without a place hold.
const SMALL_BODY_BYTES: usize = 32 << 10;

const HEAD_TIMED_OUT: Fault =
    Fault::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the head did not come within its deadline");
const BODY_TIMED_OUT: Fault =
    Fault::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come within its deadline");
const PANICKED: Fault = Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed");

/// A connection being served.
pub struct Connection<'a, H> {
    server: &'a Server<H>,
    socket: Socket,
    peer: IpAddr,
    /// For the first request's head: nothing has been promised to a peer that has sent nothing.
    accepted: Option<Instant>,
}

/// Why there is no request.
enum End {
    /// Nobody is there to be answered.
    Gone,
    /// The peer is told.
    Fault(Fault),
    /// The request is for the server beside this one.
    Elsewhere,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        End::Fault(fault)
    }
}

/// An answer, and whether the connection can go on after it.
struct Outcome {
    response: Response,
    keep_alive: bool,
}

/// What the connection does after a request.
enum Next {
    Request,
    Close,
    /// Close, but the peer may still be sending.
    Linger,
    /// Let the server beside this one have the connection.
    Move,
}

impl<'a, H: Handler> Connection<'a, H> {
    /// A connection that was accepted just now.
    pub fn new(server: &'a Server<H>, socket: Socket, peer: IpAddr) -> Self {
        Self { server, socket, peer, accepted: Some(clock::now()) }
    }

    /// Serves until the connection ends.
    pub async fn run(mut self) {
        let mut turns = 0;
        loop {
            let waited = Cell::new(false);
            match note_waiting(self.turn(), &waited).await {
                Next::Request => {}
                Next::Close => return,
                Next::Linger => return self.socket.linger().await,
                Next::Move => return self.move_on(),
            }
            turns = if waited.get() { 0 } else { turns + 1 };
            if turns >= TURNS_MAX {
                turns = 0;
                monoio::time::sleep(TURN_PAUSE).await;
            }
        }
    }

    fn move_on(self) {
        let (stream, already_read) = self.socket.into_parts();
        if let Some(neighbour) = self.server.neighbour() {
            neighbour.take(stream, self.peer, already_read);
        }
    }

    async fn turn(&mut self) -> Next {
        self.socket.shrink();
        let (head, verdict) = match self.read_head().await {
            Ok(request) => request,
            Err(End::Gone) => return Next::Close,
            Err(End::Fault(fault)) => return self.refuse(fault).await,
            Err(End::Elsewhere) => return Next::Move,
        };
        let began = clock::now();
        let (method, head_only) = (label(&head.method), head.method == Method::HEAD);
        let preview = self.server.handler().preview(&head);
        let url = preview.url;
        let outcome = match self.respond(head, verdict, preview).await {
            Ok(outcome) => outcome,
            Err(End::Fault(fault)) => Outcome { response: fault.into(), keep_alive: false },
            Err(End::Gone | End::Elsewhere) => return Next::Close,
        };
        let took = clock::now().saturating_duration_since(began);
        self.server.counters().requests().record(method, url, outcome.response.status.as_u16(), took);
        let keep_alive = outcome.keep_alive && verdict.keep_alive && self.server.goes_on();
        let envelope = Envelope { head_only, keep_alive, http_11: verdict.http_11 };
        let more_may_come = !outcome.keep_alive || !self.socket.input.is_empty();
        self.write(outcome.response, envelope, more_may_come).await
    }

    /// Answers what is no request, and ends the connection.
    async fn refuse(&mut self, fault: Fault) -> Next {
        let counters = self.server.counters();
        counters.inc(Count::HttpRejected);
        let (method, url) = (metrics::Method::Other, metrics::Url::Other);
        counters.requests().record(method, url, fault.status.as_u16(), Duration::ZERO);
        self.write(fault.into(), Envelope { head_only: false, keep_alive: false, http_11: true }, true).await
    }

    async fn write(&mut self, response: Response, envelope: Envelope, linger: bool) -> Next {
        let bytes = self.server.encoder().encode(response, envelope);
        match self.socket.write(bytes, self.server.limits().write_timeout).await {
            Ok(()) if envelope.keep_alive => Next::Request,
            Ok(()) if linger => Next::Linger,
            _ => Next::Close,
        }
    }

    async fn respond(&mut self, head: Head, verdict: Verdict, preview: Preview) -> Result<Outcome, End> {
        if let Some(response) = preview.answer {
            return Ok(Outcome { response, keep_alive: verdict.framing == Framing::Empty });
        }
        // Who is slow with a small body keeps nobody out; who has a large one must have a place for its memory.
        let large = match verdict.framing {
            Framing::Empty => false,
            Framing::Length(length) => length > SMALL_BODY_BYTES,
            Framing::Chunked => true,
        };
        let mut place = None;
        if preview.counted && large {
            place = Some(self.server.enter().ok_or(Fault::OVERLOADED)?);
        }
        if verdict.expects_continue && self.socket.input.is_empty() {
            let interim = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.socket.write(interim, self.server.limits().write_timeout).await.map_err(|_| End::Gone)?;
        }
        let body = self.read_body(verdict.framing).await?;
        if preview.counted && place.is_none() {
            place = self.server.enter();
            if place.is_none() {
                return Ok(Outcome { response: Fault::OVERLOADED.into(), keep_alive: true });
            }
        }
        let response = self.answer(Request { head, body }, preview.watched).await?;
        drop(place);
        // While the peer was watched it may have begun another request, of which bytes are lost.
        Ok(Outcome { response, keep_alive: !preview.watched })
    }

    /// What the handler answers; if the peer is watched, only while it is there.
    async fn answer(&mut self, request: Request, watched: bool) -> Result<Response, End> {
        let server = self.server;
        let answer = AssertUnwindSafe(server.handler().handle(request)).catch_unwind();
        let answered = if watched {
            match select(pin!(answer), pin!(self.socket.gone())).await {
                Either::Left((answered, _)) => answered,
                Either::Right(_) => return Err(End::Gone),
            }
        } else {
            answer.await
        };
        answered.map_err(|_| {
            server.counters().inc(Count::Panics);
            PANICKED.into()
        })
    }

    async fn read_head(&mut self) -> Result<(Head, Verdict), End> {
        let length = self.find_head().await?;
        if self.server.neighbour().is_some_and(|neighbour| neighbour.is_asked_by(&self.socket.input[..length])) {
            return Err(End::Elsewhere);
        }
        let verdict = head::examine(&self.socket.input[..length], &self.server.limits())?;
        match RequestHeadDecoder.decode(&mut self.socket.input.split_to(length)) {
            Ok(Decoded::Some(parts)) => {
                let head = Head { method: parts.method, uri: parts.uri, headers: parts.headers, peer: self.peer };
                Ok((head, verdict))
            }
            _ => Err(Fault::bad_request("the request target is malformed").into()),
        }
    }

    /// Reads until the whole head is there, and says how long it is.
    async fn find_head(&mut self) -> Result<usize, End> {
        let limits = self.server.limits();
        let mut patience = Patience::new(self.accepted.take(), limits.idle_timeout, limits.head_timeout);
        let (mut scan, mut blank_line_allowed) = (Scan::default(), true);
        loop {
            let input = &mut self.socket.input;
            // RFC 9112 §2.2: one empty line before the request line is passed over.
            if blank_line_allowed && input.starts_with(b"\r\n") {
                input.advance(2);
                blank_line_allowed = false;
            }
            let undecided = blank_line_allowed && b"\r\n".starts_with(input);
            if !undecided {
                blank_line_allowed = false;
                if let Some(length) = scan.advance(input, &limits)? {
                    return Ok(length);
                }
            }
            let begun = !input.is_empty();
            self.socket.fill(patience.deadline(begun)).await.map_err(|dry| match dry {
                Dry::TimedOut if begun => HEAD_TIMED_OUT.into(),
                _ => End::Gone,
            })?;
        }
    }

    async fn read_body(&mut self, framing: Framing) -> Result<Bytes, End> {
        let limits = self.server.limits();
        let deadline = clock::now() + limits.body_timeout;
        let mut chunked = Chunked::new(limits.body_bytes_max);
        loop {
            let input = &mut self.socket.input;
            match framing {
                Framing::Empty => return Ok(Bytes::new()),
                Framing::Length(length) if input.len() >= length => return Ok(input.split_to(length).freeze()),
                Framing::Length(_) => {}
                Framing::Chunked => {
                    if let Some(body) = chunked.advance(input)? {
                        return Ok(body);
                    }
                }
            }
            self.socket.fill(deadline).await.map_err(|dry| match dry {
                Dry::TimedOut => BODY_TIMED_OUT.into(),
                Dry::Gone => End::Gone,
            })?;
        }
    }
}

/// How long a head is waited for: absolute, so that a byte now and then does not move it.
struct Patience {
    deadline: Instant,
    head_timeout: Duration,
    /// Whether the deadline is that of the head already, and not that of an idle connection.
    running: bool,
}

impl Patience {
    fn new(accepted: Option<Instant>, idle_timeout: Duration, head_timeout: Duration) -> Self {
        let deadline = accepted.map_or_else(|| clock::now() + idle_timeout, |accepted| accepted + head_timeout);
        Self { deadline, head_timeout, running: accepted.is_some() }
    }

    fn deadline(&mut self, begun: bool) -> Instant {
        if begun && !self.running {
            self.running = true;
            self.deadline = clock::now() + self.head_timeout;
        }
        self.deadline
    }
}

/// Drives `future` and notes whether it ever had to wait.
async fn note_waiting<F: Future>(future: F, waited: &Cell<bool>) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        waited.set(waited.get() || matches!(poll, Poll::Pending));
        poll
    })
    .await
}

fn label(method: &Method) -> metrics::Method {
    match *method {
        Method::GET => metrics::Method::Get,
        Method::HEAD => metrics::Method::Head,
        Method::POST => metrics::Method::Post,
        _ => metrics::Method::Other,
    }
}
