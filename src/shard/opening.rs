//! From an accepted stream to a session: the head, the judgement, the 101.
//!
//! Invariants: one absolute deadline covers it all; nothing of the WebSocket is parsed before the judgement; who is
//! refused gets one write and is not read from again.

use std::{
    io::IoSlice,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
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
    admission::Permit,
    connection,
    core::Core,
    service::{Admitted, Plain, Service, Verdict},
    socket::Socket,
};

/// Another server that shares the listener: gets what is no WebSocket, with the bytes read so far.
pub type Fallback = Rc<dyn Fn(TcpStream, IpAddr, BytesMut)>;

/// How long a refused peer has to read its answer before its socket is closed.
const REFUSED_LINGER: Duration = Duration::from_secs(1);
/// With every 503.
const RETRY_SOON: (&str, &str) = ("Retry-After", "1");
/// Bytes received at a time while the head is incomplete.
const HEAD_CHUNK_BYTES: usize = 2048;

/// An accepted connection.
pub(super) struct Opening<S: Service> {
    pub core: Rc<Core>,
    pub service: Rc<S>,
    pub socket: Socket,
    /// The connection's place, and its address' unless a trusted proxy will name that.
    pub permits: (Permit, Option<Permit>),
    pub fallback: Option<Fallback>,
}

/// What the head turned out to be.
enum Head {
    Upgrade(Box<Upgrade>, Vec<u8>),
    Answer(Vec<u8>, Count),
    NotOurs(Vec<u8>),
    Gone,
}

impl<S: Service> Opening<S> {
    /// Takes the connection to its session, which goes on in a task of its own: this one's memory is given back.
    pub async fn run(self) {
        let deadline = clock::now() + self.core.limits().opening.handshake_timeout;
        match self.read_head(deadline).await {
            Head::Upgrade(upgrade, rest) => self.judge(&upgrade, rest).await,
            Head::Answer(answer, count) => {
                self.core.counters().inc(count);
                self.refuse(&answer).await;
            }
            Head::NotOurs(bytes) => {
                if let Some(fallback) = &self.fallback {
                    let address = self.socket.address();
                    fallback(self.socket.into_stream(), address, BytesMut::from(&bytes[..]));
                }
            }
            Head::Gone => {}
        }
    }

    async fn read_head(&self, deadline: Instant) -> Head {
        let limits = handshake_limits(&self.core);
        let (mut head, mut reader) = (Vec::new(), HeadReader::default());
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            match monoio::time::timeout(left, self.socket.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Head::Gone,
                Err(_) => return timed_out(),
            }
            let begin = head.len();
            head.resize(begin + HEAD_CHUNK_BYTES, 0);
            let received = match self.socket.receive(&mut head[begin..]) {
                Ok(0) => return Head::Gone,
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return Head::Gone,
            };
            head.truncate(begin + received);
            if self.fallback.is_some() && self.is_not_ours(&head) {
                return Head::NotOurs(head);
            }
            match reader.read(&head, &limits) {
                Ok(None) => {}
                Ok(Some((Parsed::Upgrade(upgrade), used))) => {
                    return Head::Upgrade(upgrade, head.split_off(used));
                }
                Ok(Some((Parsed::Plain(request), _))) => return self.plain(&request.path),
                Err(error) => return malformed(error),
            }
        }
    }

    /// Whether the request line is there and asks for something else than our endpoints.
    fn is_not_ours(&self, head: &[u8]) -> bool {
        let Some(end) = memchr::memchr(b'\n', head) else { return head.len() > 4 && !head.starts_with(b"GET ") };
        let target = head[..end].strip_prefix(b"GET ").and_then(|line| line.split(|byte| *byte == b' ').next());
        let path = target.and_then(|target| target.split(|byte| *byte == b'?').next()).unwrap_or_default();
        std::str::from_utf8(path).map_or(true, |path| !self.service.is_endpoint(path))
    }

    fn plain(&self, path: &str) -> Head {
        if let Some(Plain { status, headers, body }) = self.service.plain(&self.core, path) {
            return Head::Answer(handshake::error_response(status, headers, &body), Count::HandshakesPlain);
        }
        let (status, err, message) = if self.service.is_endpoint(path) {
            (426, "upgrade_required", "this path speaks WebSocket; send an upgrade")
        } else {
            (404, "not_found", "no such path; connect to /ws/connect")
        };
        let upgrade = if status == 426 { [("Upgrade", "websocket")].as_slice() } else { &[] };
        Head::Answer(handshake::error_response(status, upgrade, &error_json(err, message)), Count::HandshakesMalformed)
    }

    async fn judge(self, upgrade: &Upgrade, rest: Vec<u8>) {
        let verdict = if self.service.is_endpoint(&upgrade.path) {
            self.service.judge(&self.core, upgrade, self.socket.address())
        } else {
            Verdict::Refuse { status: 404, err: "not_found", message: "no such path; connect to /ws/connect" }
        };
        match verdict {
            Verdict::Admit(admitted) => self.admit(*admitted, upgrade, rest),
            Verdict::Close { code, reason } => {
                let mut answer = handshake::accept_response(&upgrade.key, None);
                answer.extend_from_slice(&frame::close(code, reason));
                self.core.counters().inc(Count::HandshakesDenied);
                self.refuse(&answer).await;
            }
            Verdict::Refuse { status, err, message } => {
                self.core.counters().inc(Count::HandshakesDenied);
                let later = if status == 503 { [RETRY_SOON].as_slice() } else { &[] };
                self.refuse(&handshake::error_response(status, later, &error_json(err, message))).await;
            }
            Verdict::Redirect { location } => {
                self.core.counters().inc(Count::HandshakesRedirected);
                let body = r#"{"code":1,"msg":"connect to the Location"}"#;
                self.refuse(&handshake::error_response(307, &[("Location", &location)], body)).await;
            }
        }
    }

    fn admit(self, admitted: Admitted<S::Peer>, upgrade: &Upgrade, rest: Vec<u8>) {
        let Self { core, service, socket, permits, .. } = self;
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
        service.opened(&core, &mut peer, id);
        monoio::spawn(async move {
            connection::serve(core, service, socket, id, peer, rest).await;
            drop(permits);
        });
    }

    /// One write, FIN, and a moment for the peer to read it.
    async fn refuse(&self, answer: &[u8]) {
        // A fresh socket's buffer takes this whole; if not, the peer is gone.
        let _ = self.socket.send(&[IoSlice::new(answer)]);
        self.socket.end_write();
        let _ = monoio::time::timeout(REFUSED_LINGER, self.socket.readable()).await;
    }
}

fn handshake_limits(core: &Core) -> handshake::HandshakeLimits {
    let limits = core.limits();
    let opening = &limits.opening;
    handshake::HandshakeLimits {
        head_bytes_max: opening.head_bytes_max,
        headers_max: opening.headers_max,
        target_bytes_max: opening.target_bytes_max,
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
