//! One connection from its 101 to its end: receive, decode, inflate, pace, hand to the service.
//!
//! Invariants: at most `turn_bytes_max` bytes and `turn_frames_max` frames are handled before others get their turn, and
//! no message more once messages have inflated to so many bytes;
//! a panic ends this connection and no other; behind a close frame nothing is decoded.

use std::{io, panic::AssertUnwindSafe, rc::Rc, time::Duration};

use futures_util::FutureExt;

use crate::{
    clock,
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
    core::Core,
    rate::{Pace, Rates, Sent, Throttle},
    service::{Hangup, Service},
    socket::Socket,
};

/// A connection's reading side.
struct Reader<S: Service> {
    core: Rc<Core>,
    service: Rc<S>,
    socket: Rc<Socket>,
    id: SessionId,
    peer: S::Peer,
    decoder: Decoder,
    throttle: Throttle,
    /// Whose bounds the decoder and the throttle have (see [`Core::generation`]).
    generation: u32,
    /// Received and not handled yet: what came behind the handshake, or the rest of a turn that was over.
    rest: Vec<u8>,
}

/// How a turn ended.
enum Turn {
    /// Everything received is handled.
    Idle,
    /// Something received is left for the next turn.
    More,
    /// The peer is over its rate: nothing is read from it for so long.
    Wait(Duration),
    /// The connection is to be closed.
    Close(Hangup),
    /// The peer closes, with this code.
    Closed(Option<u16>),
    /// The socket is at its end.
    End,
}

/// Serves a session that is in the hub until its socket is at its end, and takes it out again.
pub async fn serve<S: Service>(
    core: Rc<Core>,
    service: Rc<S>,
    socket: Rc<Socket>,
    id: SessionId,
    peer: S::Peer,
    rest: Vec<u8>,
) {
    let known = core.with_hub(|hub| hub.session(id).map(|session| (session.role(), session.deflate())));
    let (role, deflate) = known.unwrap_or((Role::User, None));
    let bytes_max = service.message_bytes_max(&core, role);
    let decoder = Decoder::new(bytes_max, core.limits().frames.fragments_max).with_deflate(deflate.is_some());
    let throttle = Throttle::new(rates(&core, role), clock::now());
    let generation = core.generation();
    let mut reader = Reader { core, service, socket, id, peer, decoder, throttle, generation, rest };
    if AssertUnwindSafe(reader.run()).catch_unwind().await.is_err() {
        reader.core.counters().inc(Count::Panics);
        tracing::error!(session = ?id, "a connection ended by a panic");
        reader.close(Hangup { code: close_code::INTERNAL, reason: "internal error" });
        let _ = AssertUnwindSafe(reader.linger()).catch_unwind().await;
    }
    let Reader { core, service, socket, peer, .. } = reader;
    // The session's id must still find it: the service tells others of it before it is gone.
    if std::panic::catch_unwind(AssertUnwindSafe(|| service.closed(&core, peer, id))).is_err() {
        core.counters().inc(Count::Panics);
        core.with_hub(|hub| hub.close(id));
    }
    core.detach(id);
    socket.shut();
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
    async fn run(&mut self) {
        loop {
            if self.rest.is_empty() && self.socket.readable().await.is_err() {
                return;
            }
            let turn = self.turn();
            let after = self.service.turn_ended(&self.core, &mut self.peer, self.id);
            if let Some(after) = after {
                after.await;
            }
            match turn {
                Turn::Idle => {}
                Turn::More => self.core.pass().await,
                Turn::Wait(wait) => monoio::time::sleep(wait).await,
                Turn::Close(hangup) => {
                    self.close(hangup);
                    return self.linger().await;
                }
                Turn::Closed(code) => {
                    self.close(Hangup { code: code.unwrap_or(close_code::NORMAL), reason: "" });
                    return self.linger().await;
                }
                Turn::End => return,
            }
            if self.is_closing() {
                return self.linger().await;
            }
        }
    }

    /// Takes over what a reload has changed.
    fn keep_up(&mut self) {
        let generation = self.core.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let role = self.core.with_hub(|hub| hub.session(self.id).map_or(Role::User, |session| session.role()));
        let bytes_max = self.service.message_bytes_max(&self.core, role);
        self.decoder.set_bounds(bytes_max, self.core.limits().frames.fragments_max);
        self.throttle.set_rates(rates(&self.core, role));
    }

    /// Handles what was left over, or else what the socket has.
    fn turn(&mut self) -> Turn {
        self.keep_up();
        if !self.rest.is_empty() {
            let mut input = std::mem::take(&mut self.rest);
            return self.handle(&mut input);
        }
        let core = self.core.clone();
        let mut buffer = core.receive.borrow_mut();
        let bytes_max = buffer.len().min(core.limits().frames.turn_bytes_max);
        let received = match self.socket.receive(&mut buffer[..bytes_max]) {
            Ok(0) => return Turn::End,
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Idle,
            Err(_) => return Turn::End,
        };
        let pace = self.throttle.received(received, clock::now());
        let turn = self.handle(&mut buffer[..received]);
        let assembling = self.decoder.mid_message();
        core.with_hub(|hub| hub.heard_from(self.id, received, assembling));
        match (turn, pace) {
            (Turn::Idle | Turn::More, Pace::Wait(wait)) => Turn::Wait(wait),
            (Turn::Idle | Turn::More | Turn::Wait(_), Pace::TooFast) => Turn::Close(self.too_fast()),
            (turn, _) => turn,
        }
    }

    /// Decodes and hands on; what is not handled goes into `rest`.
    fn handle(&mut self, input: &mut [u8]) -> Turn {
        let core = self.core.clone();
        let mut inflater = core.inflater.borrow_mut();
        let bytes_max = self.decoder.message_bytes_max();
        let (mut at, mut grown_bytes) = (0, 0);
        let limits = core.limits();
        for _ in 0..limits.frames.turn_frames_max {
            let (used, message) = match self.decoder.feed(&mut input[at..]) {
                Ok(fed) => fed,
                Err(error) => return self.broken(error.close_code(), "the frame breaks the protocol"),
            };
            at += used;
            let Some(message) = message else { return Turn::Idle };
            self.core.counters().inc(Count::FramesIn);
            let (message, grown) = match message {
                Message::Deflated(deflated) => match inflater.open(deflated, bytes_max) {
                    Ok(message) => {
                        self.core.counters().inc(Count::Inflations);
                        (message, message.data_bytes().saturating_sub(deflated.data.len()))
                    }
                    Err(error) => return self.broken(error.close_code(), error.reason()),
                },
                message => (message, 0),
            };
            let sent = match message {
                Message::Text(_) | Message::Binary(_) => Sent::Message { grown },
                _ => Sent::Control,
            };
            let pace = self.throttle.sent(sent, clock::now());
            if pace == Pace::TooFast {
                return Turn::Close(self.too_fast());
            }
            let handled = match message {
                Message::Ping(payload) => {
                    let pong: Frame = frame::encode(OpCode::Pong, payload).into();
                    self.core.with_hub(|hub| hub.send_first(self.id, pong));
                    Ok(())
                }
                Message::Pong(_) => Ok(()),
                Message::Close(close) => return Turn::Closed(close.map(|(code, _)| code)),
                message => self.service.message(&self.core, &mut self.peer, self.id, message),
            };
            if let Err(hangup) = handled {
                return Turn::Close(hangup);
            }
            if let Pace::Wait(wait) = pace {
                self.rest = input[at..].to_vec();
                return Turn::Wait(wait);
            }
            grown_bytes += grown;
            if grown_bytes >= limits.frames.turn_bytes_max {
                break;
            }
        }
        self.rest = input[at..].to_vec();
        Turn::More
    }

    fn broken(&self, code: u16, reason: &'static str) -> Turn {
        self.core.counters().inc(Count::ClosedProtocol);
        Turn::Close(Hangup { code, reason })
    }

    fn too_fast(&self) -> Hangup {
        self.core.counters().inc(Count::ClosedRate);
        Hangup { code: close_code::POLICY, reason: "too many messages; slow down" }
    }

    fn close(&self, hangup: Hangup) {
        self.core.with_hub(|hub| hub.begin_close(self.id, hangup.code, hangup.reason, false));
    }

    fn is_closing(&self) -> bool {
        self.core.with_hub(|hub| hub.session(self.id).is_none_or(|session| session.phase() != Phase::Open))
    }

    /// Reads and throws away until the peer's end, so that the close frame is not lost to a reset. The hub's deadline
    /// shuts the socket of a peer that does not end.
    async fn linger(&mut self) {
        self.rest = Vec::new();
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            let received = self.socket.receive(&mut self.core.receive.borrow_mut());
            match received {
                Ok(0) => return,
                Ok(_) => self.core.pass().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
