//! What a shard serves: the seam between sockets and meaning.
//!
//! The shard accepts, reads, decodes, paces and writes; a service judges who may come in and what a message means.
//! The product's service is the gateway; `examples/echo` is another one on the very same shard.

use std::{net::IpAddr, rc::Rc};

use futures_util::future::LocalBoxFuture;

use crate::{
    hub::NewSession,
    model::{Role, SessionId},
    protocol::{decoder::Message, handshake::Upgrade},
};

use super::{admission::Permit, core::Core};

/// What becomes of a request for a connection.
pub enum Verdict<Peer> {
    /// It is let in.
    Admit(Box<Admitted<Peer>>),
    /// 101 and a close in one write, the only thing a browser can read; nothing more is read.
    Close {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'static str,
    },
    /// 307: connect there.
    Redirect {
        /// The address.
        location: String,
    },
    /// A plain HTTP error.
    Refuse {
        /// The status.
        status: u16,
        /// The stable word of the answer (`err`).
        err: &'static str,
        /// What was wrong and what would be right.
        message: &'static str,
    },
}

/// The answer to a plain GET.
pub struct Plain {
    /// The status.
    pub status: u16,
    /// Headers besides the framing.
    pub headers: &'static [(&'static str, &'static str)],
    /// A JSON text.
    pub body: String,
}

/// A connection that is let in.
pub struct Admitted<Peer> {
    /// For the hub.
    pub session: NewSession,
    /// The service's own state of the connection.
    pub peer: Peer,
}

/// Why a service ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hangup {
    /// The close code.
    pub code: u16,
    /// The close reason.
    pub reason: &'static str,
}

/// What a shard serves.
pub trait Service: 'static {
    /// State of one connection.
    type Peer: 'static;

    /// Judges a valid upgrade; places that the connection takes besides the node's go into its `permit`.
    fn judge(&self, core: &Core, upgrade: &Upgrade, address: IpAddr, permit: &mut Permit) -> Verdict<Self::Peer>;

    /// Answers a plain GET on the WebSocket listener.
    fn plain(&self, core: &Core, path: &str) -> Option<Plain>;

    /// Whether the path is one of the service's WebSocket endpoints.
    fn is_endpoint(&self, path: &str) -> bool;

    /// The session is in the hub and its 101 is queued.
    fn opened(&self, core: &Rc<Core>, peer: &mut Self::Peer, id: SessionId);

    /// A text or binary message.
    fn message(
        &self,
        core: &Rc<Core>,
        peer: &mut Self::Peer,
        id: SessionId,
        message: Message<'_>,
    ) -> Result<(), Hangup>;

    /// What was received at once has been handled; reading goes on when the future is over.
    fn turn_ended(&self, core: &Rc<Core>, peer: &mut Self::Peer, id: SessionId) -> Option<LocalBoxFuture<'static, ()>>;

    /// The connection is over.
    fn closed(&self, core: &Rc<Core>, peer: Self::Peer, id: SessionId);

    /// The longest message of a connection.
    fn message_bytes_max(&self, core: &Core, role: Role) -> usize;
}
