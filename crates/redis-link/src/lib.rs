//! Redis for the log: connections, raw commands and live channels, behind an API without generics, so that what is
//! built on it does not compile fred again.
//!
//! A [`Link`] leads to one server, to the master that sentinels name, or to the masters of a cluster; a [`Server`] is the
//! connections to one of them, and [`Link::server`] says which has a key. fred's own clients for Sentinel and Cluster are
//! not used: the one stays with a master that is none any more for as long as it answers, the other sends a command
//! again. Nothing is ever sent twice here: a command whose answer is lost fails as [`LinkError::Unknown`], and who sent it decides.
//!
//! Invariants: every call ends within [`CALL_TIMEOUT`] and a bit; a live channel that cannot keep up drops messages
//! and says so, and never grows. No secret of the URL reaches an error or a log line.
//! Left out: what the commands mean.

mod connect;
mod finder;
mod listening;
mod places;
mod reply;
mod server;
mod tls;
mod topology;
mod trouble;
mod url;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use self::{
    finder::Finder,
    places::Places,
    topology::Topology,
    url::{Shape, Target},
};
pub use self::{
    listening::{Channels, Listener, Said},
    reply::Reply,
    server::Server,
    tls::TlsFiles,
};

/// What a call gives back, later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send + 'a>>;

/// No call waits longer for its answer.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often is looked whether connections stand that somebody waits for.
const CONNECTED_LOOK: Duration = Duration::from_millis(10);

/// Why a call failed. Divides by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The URL cannot be used. Says why, without the URL.
    Url(String),
    /// A file for TLS cannot be used. Says which and why.
    Tls(String),
    /// There is no connection: nothing was sent.
    NotSent(String),
    /// The server answered with this error.
    Rejected(String),
    /// There was no answer: the command may have been carried out.
    Unknown(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Url(text) => write!(f, "the queue's URL: {text}"),
            LinkError::Tls(text) => write!(f, "TLS to the queue: {text}"),
            LinkError::NotSent(text) => write!(f, "not connected to Redis: {text}"),
            LinkError::Rejected(text) => write!(f, "Redis answered: {text}"),
            LinkError::Unknown(text) => write!(f, "no answer from Redis: {text}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// Which connection carries a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What must not wait behind large answers.
    Write,
    /// Everything else.
    Read,
}

/// The way to one Redis, however many servers it is. Dropping it closes everything.
pub struct Link {
    places: Arc<Places>,
    finding: JoinHandle<()>,
}

impl Link {
    /// Starts to connect, and goes on doing so for ever; must be called inside a tokio runtime. Live channels of a server
    /// hold at most `messages_max` messages that nobody has taken yet.
    ///
    /// Takes `redis://`, `redis-sentinel://`, `redis-cluster://` and the same with `rediss`, which `files` are for; an
    /// error says what is wrong.
    pub fn start(url: &str, files: &TlsFiles, messages_max: usize) -> Result<Self, LinkError> {
        let target = Target::parse(url, files)?;
        let only = match &target.shape {
            Shape::One(address) => Some(Topology::one(address.clone())),
            Shape::Sentinel { .. } | Shape::Cluster { .. } => None,
        };
        let places = Arc::new(Places::new(target, messages_max));
        if let Some(only) = only {
            places.adopt(only)?;
        }
        let finder = Finder::start(places.clone())?;
        Ok(Self { places, finding: tokio::spawn(finder.run()) })
    }

    /// The server that has this key, or channel, now.
    pub fn server(&self, key: &[u8]) -> Result<Arc<Server>, LinkError> {
        self.places.server(key)
    }

    /// To whom live channels belong, and so how one publishes to them.
    pub fn channels(&self) -> Channels {
        self.places.channels()
    }

    /// Waits until the servers are known and the connections for commands stand, for at most `limit`.
    pub fn connected(&self, limit: Duration) -> Pending<'_, ()> {
        let all_stand = || {
            let servers = self.places.servers();
            !servers.is_empty() && servers.iter().all(|server| server.is_connected())
        };
        Box::pin(async move {
            let standing = async {
                while !all_stand() {
                    tokio::time::sleep(CONNECTED_LOOK).await;
                }
            };
            let stood = tokio::time::timeout(limit, standing).await;
            stood.map_err(|_| LinkError::NotSent("no connection yet".to_owned()))
        })
    }

    /// Listens to a live channel, across reconnections, until the channel moves to another server.
    pub fn listen(&self, channel: String) -> Pending<'_, Listener> {
        Box::pin(async move {
            let server = self.server(channel.as_bytes())?;
            server.listening.listen(channel).await
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.finding.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("servers", &self.places.servers()).finish_non_exhaustive()
    }
}
