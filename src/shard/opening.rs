//! From an accepted stream to a session: the head, the judgement, the 101.
//!
//! Invariants: one absolute deadline covers it all; nothing of the WebSocket is parsed before the judgement; who is
//! refused gets one write and is not read from again.

use std::{
    io::{ErrorKind, IoSlice},
    net::IpAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::FutureExt;
use monoio::net::TcpStream;

use crate::{
    clock,
    metrics::Count,
    protocol::{
        deflate, frame,
        handshake::{self, HandshakeError, HeadReader, Parsed, Upgrade},
    },
};

use super::{
    connection::{self, Reader},
    connections::{Accepted, Connections},
    service::{Admitted, Plain, Service, Verdict},
};

/// Another server that shares the listener: gets what is no WebSocket, with the bytes read so far.
pub type Fallback = Rc<dyn Fn(TcpStream, IpAddr, BytesMut)>;

/// How long a refused peer has to read its answer before its socket is closed.
const REFUSED_LINGER: Duration = Duration::from_secs(1);
/// With every 503.
const RETRY_SOON: (&str, &str) = ("Retry-After", "1");

/// What the head turned out to be.
enum Head {
    Upgrade(Box<Upgrade>, Vec<u8>),
    Answer(Vec<u8>, Count),
    NotOurs,
    Gone,
}

/// An accepted connection whose peer has sent something.
struct Opening<S: Service> {
    connections: Rc<Connections<S>>,
    key: usize,
    accepted: Box<Accepted>,
    /// What came while the head is not whole.
    head: Vec<u8>,
    reader: HeadReader,
    /// The socket had no more when it was last asked.
    is_drained: bool,
}

/// What is left to wait for.
enum Left {
    /// The rest of the head.
    Head,
    /// That the peer reads the answer, behind which the connection is closed.
    Farewell,
}

/// Takes a connection as far as what its peer has sent goes. Mostly that is the whole head, and then to its session.
pub(super) fn begin<S: Service>(connections: &Rc<Connections<S>>, key: usize, accepted: Box<Accepted>) {
    let connections = connections.clone();
    let guarded = connections.clone();
    let opening = Opening::new(connections, key, accepted);
    let begun = std::panic::catch_unwind(AssertUnwindSafe(|| {
        if let Some((opening, left)) = opening.step() {
            spawn(opening, left);
        }
    }));
    if begun.is_err() {
        panicked(&guarded, key);
    }
}

/// Turns away a connection whose deadline has passed without a byte.
pub(super) fn time_out<S: Service>(connections: Rc<Connections<S>>, key: usize, accepted: Box<Accepted>) {
    let opening = Opening::new(connections, key, accepted);
    if let Some((opening, left)) = opening.conclude(timed_out()) {
        spawn(opening, left);
    }
}

fn spawn<S: Service>(opening: Opening<S>, left: Left) {
    let (connections, key) = (opening.connections.clone(), opening.key);
    monoio::spawn(async move {
        if AssertUnwindSafe(opening.go_on(left)).catch_unwind().await.is_err() {
            panicked(&connections, key);
        }
    });
}

fn panicked<S: Service>(connections: &Connections<S>, key: usize) {
    connections.core.counters().inc(Count::Panics);
    tracing::error!("a handshake ended by a panic");
    connections.leave(key);
}

impl<S: Service> Opening<S> {
    fn new(connections: Rc<Connections<S>>, key: usize, accepted: Box<Accepted>) -> Self {
        Self { connections, key, accepted, head: Vec::new(), reader: HeadReader::default(), is_drained: false }
    }

    async fn go_on(self, left: Left) {
        let (mut opening, mut left) = (self, left);
        while matches!(left, Left::Head) {
            let remaining = opening.accepted.deadline.saturating_duration_since(clock::now());
            let told = monoio::time::timeout(remaining, opening.connections.news(opening.key)).await;
            let next = if told.is_ok() { opening.step() } else { opening.conclude(timed_out()) };
            let Some(next) = next else { return };
            (opening, left) = next;
        }
        let _ = monoio::time::timeout(REFUSED_LINGER, opening.connections.news(opening.key)).await;
        opening.connections.leave(opening.key);
    }

    /// Receives what is there, and goes as far as that goes; what is left to do, if anything.
    fn step(mut self) -> Option<(Self, Left)> {
        match self.read_head() {
            None => Some((self, Left::Head)),
            Some(head) => self.conclude(head),
        }
    }

    fn conclude(mut self, head: Head) -> Option<(Self, Left)> {
        match head {
            Head::Upgrade(upgrade, rest) => return self.judge(&upgrade, rest),
            Head::Answer(answer, count) => {
                self.connections.core.counters().inc(count);
                self.refuse(&answer);
                return Some((self, Left::Farewell));
            }
            Head::NotOurs => {
                let Self { connections, key, accepted, head, .. } = self;
                connections.hand_over(key, &accepted.socket);
                if let (Some(fallback), Ok(stream)) = (&connections.fallback, accepted.socket.into_stream()) {
                    fallback(stream, accepted.address, BytesMut::from(&head[..]));
                }
            }
            Head::Gone => self.connections.leave(self.key),
        }
        None
    }

    /// The head, once it is whole; nothing while it is not.
    fn read_head(&mut self) -> Option<Head> {
        let Connections { core, fallback, .. } = &*self.connections;
        let limits = (&core.limits().opening).into();
        loop {
            let mut buffer = core.receive.borrow_mut();
            // More than the largest head is not looked at before that is judged.
            let bytes_max = buffer.len().min(core.limits().opening.head_bytes_max);
            let received = match self.accepted.socket.receive(&mut buffer[..bytes_max]) {
                Ok(0) => return Some(Head::Gone),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Head::Gone),
            };
            self.is_drained = received < bytes_max;
            self.head.extend_from_slice(&buffer[..received]);
            if fallback.is_some() && self.is_not_ours() {
                return Some(Head::NotOurs);
            }
            match self.reader.read(&self.head, &limits) {
                Ok(None) => {}
                Ok(Some((Parsed::Upgrade(upgrade), used))) => {
                    return Some(Head::Upgrade(upgrade, self.head.split_off(used)));
                }
                Ok(Some((Parsed::Plain(request), _))) => return Some(self.plain(&request.path)),
                Err(error) => return Some(malformed(error)),
            }
        }
    }

    /// Whether the request line is there and asks for something else than our endpoints.
    fn is_not_ours(&self) -> bool {
        let head = &self.head;
        let Some(end) = memchr::memchr(b'\n', head) else { return head.len() > 4 && !head.starts_with(b"GET ") };
        let target = head[..end].strip_prefix(b"GET ").and_then(|line| line.split(|byte| *byte == b' ').next());
        let path = target.and_then(|target| target.split(|byte| *byte == b'?').next()).unwrap_or_default();
        std::str::from_utf8(path).map_or(true, |path| !self.connections.service.is_endpoint(path))
    }

    fn plain(&self, path: &str) -> Head {
        let Connections { core, service, .. } = &*self.connections;
        if let Some(Plain { status, headers, body }) = service.plain(core, path) {
            return Head::Answer(handshake::error_response(status, headers, &body), Count::HandshakesPlain);
        }
        let (status, err, message) = if service.is_endpoint(path) {
            (426, "upgrade_required", "this path speaks WebSocket; send an upgrade")
        } else {
            (404, "not_found", "no such path; connect to /ws/connect")
        };
        let upgrade = if status == 426 { [("Upgrade", "websocket")].as_slice() } else { &[] };
        Head::Answer(handshake::error_response(status, upgrade, &error_json(err, message)), Count::HandshakesMalformed)
    }

    fn judge(mut self, upgrade: &Upgrade, rest: Vec<u8>) -> Option<(Self, Left)> {
        let Connections { core, service, .. } = &*self.connections;
        let Accepted { address, permit, .. } = &mut *self.accepted;
        let verdict = if service.is_endpoint(&upgrade.path) {
            service.judge(core, upgrade, *address, permit)
        } else {
            Verdict::Refuse { status: 404, err: "not_found", message: "no such path; connect to /ws/connect" }
        };
        let (answer, count) = match verdict {
            Verdict::Admit(admitted) => {
                self.admit(*admitted, upgrade, rest);
                return None;
            }
            Verdict::Close { code, reason } => {
                let mut answer = handshake::accept_response(&upgrade.key, None);
                answer.extend_from_slice(&frame::close(code, reason));
                (answer, Count::HandshakesDenied)
            }
            Verdict::Refuse { status, err, message } => {
                let later = if status == 503 { [RETRY_SOON].as_slice() } else { &[] };
                (handshake::error_response(status, later, &error_json(err, message)), Count::HandshakesDenied)
            }
            Verdict::Redirect { location } => {
                let body = r#"{"code":1,"msg":"connect to the Location"}"#;
                let answer = handshake::error_response(307, &[("Location", &location)], body);
                (answer, Count::HandshakesRedirected)
            }
        };
        core.counters().inc(count);
        self.refuse(&answer);
        Some((self, Left::Farewell))
    }

    fn admit(self, admitted: Admitted<S::Peer>, upgrade: &Upgrade, rest: Vec<u8>) {
        let Self { connections, key, accepted, is_drained, .. } = self;
        let Accepted { socket, permit, .. } = *accepted;
        let Connections { core, service, .. } = &*connections;
        let Admitted { mut session, mut peer } = admitted;
        let offers = upgrade.extensions.as_deref().filter(|_| core.limits().compression.deflate);
        let agreement = offers.and_then(deflate::negotiate);
        session.deflate = agreement.as_ref().map(|agreement| agreement.deflate);
        let answer = handshake::accept_response(&upgrade.key, agreement.as_ref().map(|agreed| agreed.answer.as_str()));
        let id = core.with_hub(|hub| hub.open(session));
        let socket = Rc::new(socket);
        core.attach(id, socket.clone());
        core.counters().inc(Count::HandshakesAccepted);
        core.with_hub(|hub| hub.send_first(id, answer.into()));
        service.opened(core, &mut peer, id);
        let reader = Reader::new(core, service, socket, id, permit, peer);
        connection::serve(&connections, key, reader, rest, is_drained);
    }

    /// One write and FIN.
    fn refuse(&mut self, answer: &[u8]) {
        let socket = &self.accepted.socket;
        // A fresh socket's buffer takes this whole; if not, the peer is gone.
        let _ = socket.send(&[IoSlice::new(answer)]);
        socket.end_write();
    }
}

fn timed_out() -> Head {
    let body = error_json("timeout", "the request did not come in time");
    Head::Answer(handshake::error_response(408, &[], &body), Count::HandshakesTimedOut)
}

fn malformed(error: HandshakeError) -> Head {
    Head::Answer(error.response(), Count::HandshakesMalformed)
}

fn error_json(err: &str, message: &str) -> String {
    format!(r#"{{"code":0,"err":"{err}","msg":"{message}"}}"#)
}
