//! One connection from its 101 to its end: receive, decode, inflate, pace, hand to the service.
//!
//! Invariants: at most `turn_bytes_max` bytes and `turn_frames_max` frames are handled before others get their turn, and
//! no message more once messages have inflated to so many bytes;
//! a panic ends this connection and no other; behind a close frame nothing is decoded.

use std::{io, panic::AssertUnwindSafe, rc::Rc, time::Duration};

use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    hub::{Frame, Phase},
    metrics::Count,
    model::{Role, SessionId},
    protocol::{
        decoder::{Decoder, Message},
        frame,
        frame::{OpCode, close_code},
    },
};

use super::{
    admission::Permit,
    connections::Connections,
    core::Core,
    rate::{Pace, Rates, Sent, Throttle},
    service::{Hangup, Service},
    socket::Socket,
};

/// A connection's reading side.
pub(super) struct Reader<S: Service> {
    socket: Rc<Socket>,
    id: SessionId,
    /// Whose bounds the decoder has (see [`Core::generation`]).
    generation: u32,
    decoder: Decoder,
    throttle: Throttle,
    role: Role,
    /// Its socket has told of its end, which waits for its turn.
    end_waits: bool,
    /// Its place among the node's connections, given back with it.
    permit: Permit,
    peer: S::Peer,
}

/// How a turn ended.
enum Turn {
    /// Everything received is handled.
    Idle,
    /// Something is left for the next turn: this of what was received, or what the socket still has.
    More(Vec<u8>),
    /// The peer is over its rate: nothing is read from it for so long; this was received before.
    Wait(Duration, Vec<u8>),
    /// The connection is to be closed.
    Close(Hangup),
    /// The peer closes, with this code.
    Closed(Option<u16>),
    /// The socket is at its end.
    End,
    /// The turn panicked.
    Panicked,
}

/// What a turn has left to wait for.
pub(super) struct Unfinished {
    turn: Turn,
    /// What the service waits for before more is read.
    service: Option<LocalBoxFuture<'static, ()>>,
}

/// Goes on with an entry whose turn did not leave it idle, until it is idle again or over.
async fn go_on<S: Service>(
    connections: Rc<Connections<S>>,
    key: usize,
    mut reader: Box<Reader<S>>,
    unfinished: Unfinished,
) {
    let mut run = Run { connections: &connections, key, reader: &mut reader };
    let is_over = match AssertUnwindSafe(run.run(unfinished)).catch_unwind().await {
        Ok(is_over) => is_over,
        Err(_) => {
            run.reader.panicked(&connections.core);
            let _ = AssertUnwindSafe(run.linger()).catch_unwind().await;
            true
        }
    };
    if is_over { reader.end(&connections, key) } else { connections.sit(key, *reader) }
}

/// Begins to serve a session that is in the hub. `rest` came behind its handshake; `is_drained` says that its socket had
/// no more.
pub(super) fn serve<S: Service>(
    connections: &Rc<Connections<S>>,
    key: usize,
    reader: Reader<S>,
    rest: Vec<u8>,
    is_drained: bool,
) {
    if is_drained && rest.is_empty() && !connections.has_news(key) && !reader.stays_in_task() {
        return connections.sit(key, reader);
    }
    connections.share(key, reader.socket.clone());
    let unfinished = Unfinished { turn: Turn::More(rest), service: None };
    reader.go_on(connections, key, unfinished);
}

fn rates(core: &Core, role: Role) -> Rates {
    let limits = core.limits();
    let frames = &limits.frames;
    let user = Rates {
        messages_per_second: frames.messages_per_second,
        messages_burst: frames.messages_burst,
        control_per_second: frames.control_frames_per_second,
        bytes_per_second: frames.bytes_per_second,
        pause_max: frames.rate_pause_max,
    };
    let messages = frames.backend_messages_per_second;
    match role {
        Role::User => user,
        Role::Backend => Rates { messages_per_second: messages, messages_burst: messages, bytes_per_second: 0, ..user },
    }
}

impl<S: Service> Reader<S> {
    /// The reading side of a session that is in the hub.
    pub fn new(core: &Core, service: &Rc<S>, socket: Rc<Socket>, id: SessionId, permit: Permit, peer: S::Peer) -> Self {
        let known = core.with_hub(|hub| hub.session(id).map(|session| (session.role(), session.deflate())));
        let (role, deflate) = known.unwrap_or((Role::User, None));
        let bytes_max = service.message_bytes_max(core, role);
        let decoder = Decoder::new(bytes_max, core.limits().frames.fragments_max).with_deflate(deflate.is_some());
        let throttle = Throttle::new(&rates(core, role), core.moment());
        Self { socket, id, generation: core.generation(), decoder, throttle, role, end_waits: false, permit, peer }
    }

    /// Its socket.
    pub fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    /// Its socket tells of its end, which has to wait for its turn; whether it did not yet.
    pub fn note_end(&mut self) -> bool {
        !std::mem::replace(&mut self.end_waits, true)
    }

    /// Its turn has come: whether its end waited for that.
    pub fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.end_waits)
    }

    /// A turn of an entry that waited for its peer; what is left of it, if anything.
    pub fn turn_in_place(&mut self, connections: &Rc<Connections<S>>, is_ending: bool) -> Option<Unfinished> {
        let Connections { core, service, .. } = &**connections;
        let turned = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let turn = self.turn(core, service, Vec::new());
            (turn, service.turn_ended(core, &mut self.peer, self.id))
        }));
        let (turn, after) = turned.unwrap_or((Turn::Panicked, None));
        match (turn, after) {
            (Turn::Idle, None) if !is_ending && !self.is_closing(core) => None,
            // What ends tells nothing more: its end must be read now.
            (Turn::Idle, after) if is_ending => Some(Unfinished { turn: Turn::More(Vec::new()), service: after }),
            (turn, after) => Some(Unfinished { turn, service: after }),
        }
    }

    /// Goes on in a task with what a turn has left, or ends what is at its end.
    pub fn go_on(self, connections: &Rc<Connections<S>>, key: usize, unfinished: Unfinished) {
        if matches!(unfinished, Unfinished { turn: Turn::End, service: None }) {
            return self.end(connections, key);
        }
        drop(monoio::spawn(go_on(connections.clone(), key, Box::new(self), unfinished)));
    }

    /// A back-end's socket tells something all the time, and its turns mostly wait for the queue.
    fn stays_in_task(&self) -> bool {
        self.role == Role::Backend
    }

    /// Takes over what a reload has changed.
    fn keep_up(&mut self, core: &Core, service: &S) {
        let generation = core.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let bytes_max = service.message_bytes_max(core, self.role);
        self.decoder.set_bounds(bytes_max, core.limits().frames.fragments_max);
    }

    /// Handles what was left over, or else what the socket has.
    fn turn(&mut self, core: &Rc<Core>, service: &S, mut rest: Vec<u8>) -> Turn {
        self.keep_up(core, service);
        if !rest.is_empty() {
            return match self.handle(core, service, &mut rest) {
                // The socket has not been asked.
                Turn::Idle => Turn::More(Vec::new()),
                turn => turn,
            };
        }
        let mut buffer = core.receive.borrow_mut();
        let bytes_max = buffer.len().min(core.limits().frames.turn_bytes_max);
        let received = match self.socket.receive(&mut buffer[..bytes_max]) {
            Ok(0) => return Turn::End,
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Idle,
            Err(_) => return Turn::End,
        };
        let pace = self.throttle.received(received, &rates(core, self.role), core.moment());
        let turn = match self.handle(core, service, &mut buffer[..received]) {
            // As much as was asked for: the socket may have more, and does not tell that again.
            Turn::Idle if received == bytes_max => Turn::More(Vec::new()),
            turn => turn,
        };
        let assembling = self.decoder.mid_message();
        core.with_hub(|hub| hub.heard_from(self.id, received, assembling));
        match (turn, pace) {
            (Turn::Idle, Pace::Wait(wait)) => Turn::Wait(wait, Vec::new()),
            (Turn::More(rest), Pace::Wait(wait)) => Turn::Wait(wait, rest),
            (Turn::Idle | Turn::More(_) | Turn::Wait(..), Pace::TooFast) => Turn::Close(too_fast(core)),
            (turn, _) => turn,
        }
    }

    /// Decodes and hands on; what is not handled is left.
    fn handle(&mut self, core: &Rc<Core>, service: &S, input: &mut [u8]) -> Turn {
        let mut inflater = core.inflater.borrow_mut();
        let bytes_max = self.decoder.message_bytes_max();
        let (mut at, mut grown_bytes) = (0, 0);
        let (limits, rates) = (core.limits(), rates(core, self.role));
        for _ in 0..limits.frames.turn_frames_max {
            let (used, message) = match self.decoder.feed(&mut input[at..]) {
                Ok(fed) => fed,
                Err(error) => return broken(core, error.close_code(), "the frame breaks the protocol"),
            };
            at += used;
            let Some(message) = message else { return Turn::Idle };
            core.counters().inc(Count::FramesIn);
            let (message, grown) = match message {
                Message::Deflated(deflated) => match inflater.open(deflated, bytes_max) {
                    Ok(message) => {
                        core.counters().inc(Count::Inflations);
                        (message, message.data_bytes().saturating_sub(deflated.data.len()))
                    }
                    Err(error) => return broken(core, error.close_code(), error.reason()),
                },
                message => (message, 0),
            };
            let sent = match message {
                Message::Text(_) | Message::Binary(_) => Sent::Message { grown },
                _ => Sent::Control,
            };
            let pace = self.throttle.sent(sent, &rates, core.moment());
            if pace == Pace::TooFast {
                return Turn::Close(too_fast(core));
            }
            let handled = match message {
                Message::Ping(payload) => {
                    let pong: Frame = frame::encode(OpCode::Pong, payload).into();
                    core.with_hub(|hub| hub.send_first(self.id, pong));
                    Ok(())
                }
                Message::Pong(_) => Ok(()),
                Message::Close(close) => return Turn::Closed(close.map(|(code, _)| code)),
                message => service.message(core, &mut self.peer, self.id, message),
            };
            if let Err(hangup) = handled {
                return Turn::Close(hangup);
            }
            if let Pace::Wait(wait) = pace {
                return Turn::Wait(wait, input[at..].to_vec());
            }
            grown_bytes += grown;
            if grown_bytes >= limits.frames.turn_bytes_max {
                break;
            }
        }
        Turn::More(input[at..].to_vec())
    }

    fn close(&self, core: &Core, hangup: Hangup) {
        core.with_hub(|hub| hub.begin_close(self.id, hangup.code, hangup.reason, false));
    }

    fn panicked(&self, core: &Core) {
        core.counters().inc(Count::Panics);
        tracing::error!(session = ?self.id, "a connection ended by a panic");
        self.close(core, Hangup { code: close_code::INTERNAL, reason: "internal error" });
    }

    fn is_closing(&self, core: &Core) -> bool {
        core.with_hub(|hub| hub.session(self.id).is_none_or(|session| session.phase() != Phase::Open))
    }

    /// Takes the session out of the hub, and the connection out of its entry.
    fn end(self, connections: &Connections<S>, key: usize) {
        let Self { socket, id, permit, peer, .. } = self;
        let Connections { core, service, .. } = connections;
        // The session's id must still find it: the service tells others of it before it is gone.
        if std::panic::catch_unwind(AssertUnwindSafe(|| service.closed(core, peer, id))).is_err() {
            core.counters().inc(Count::Panics);
            core.with_hub(|hub| hub.close(id));
        }
        core.detach(id);
        socket.shut();
        connections.leave(key);
        drop(permit);
    }
}

/// An entry in the hands of a task.
struct Run<'a, S: Service> {
    connections: &'a Rc<Connections<S>>,
    key: usize,
    reader: &'a mut Reader<S>,
}

impl<S: Service> Run<'_, S> {
    /// Goes on until the entry is idle or over; whether it is over.
    async fn run(&mut self, unfinished: Unfinished) -> bool {
        let Connections { core, service, .. } = &**self.connections;
        let stays = self.reader.stays_in_task();
        let Unfinished { mut turn, service: mut after } = unfinished;
        loop {
            if let Some(after) = after.take() {
                after.await;
            }
            let (is_idle, mut rest) = (matches!(turn, Turn::Idle), Vec::new());
            match turn {
                Turn::Idle if !stays && !self.connections.has_news(self.key) && !self.reader.is_closing(core) => {
                    return false;
                }
                Turn::Idle => {}
                Turn::More(left) => {
                    core.pass().await;
                    rest = left;
                }
                Turn::Wait(wait, left) => {
                    monoio::time::sleep(wait).await;
                    rest = left;
                }
                Turn::Close(hangup) => self.reader.close(core, hangup),
                Turn::Closed(code) => {
                    self.reader.close(core, Hangup { code: code.unwrap_or(close_code::NORMAL), reason: "" });
                }
                Turn::Panicked => self.reader.panicked(core),
                Turn::End => return true,
            }
            if self.reader.is_closing(core) {
                drop(rest);
                self.linger().await;
                return true;
            }
            if is_idle {
                self.connections.news(self.key).await;
            }
            turn = self.reader.turn(core, service, rest);
            after = service.turn_ended(core, &mut self.reader.peer, self.reader.id);
        }
    }

    /// Reads and throws away until the peer's end, so that the close frame is not lost to a reset. The hub's deadline
    /// shuts the socket of a peer that does not end.
    async fn linger(&mut self) {
        let Connections { core, .. } = &**self.connections;
        loop {
            let received = self.reader.socket.receive(&mut core.receive.borrow_mut());
            match received {
                Ok(0) => return,
                Ok(_) => core.pass().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.connections.news(self.key).await,
                Err(_) => return,
            }
        }
    }
}

fn broken(core: &Core, code: u16, reason: &'static str) -> Turn {
    core.counters().inc(Count::ClosedProtocol);
    Turn::Close(Hangup { code, reason })
}

fn too_fast(core: &Core) -> Hangup {
    core.counters().inc(Count::ClosedRate);
    Hangup { code: close_code::POLICY, reason: "too many messages; slow down" }
}
