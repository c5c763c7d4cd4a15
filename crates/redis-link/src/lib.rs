//! Redis for the log: connections, raw commands and live channels, behind an API without generics, so that what is
//! built on it does not compile fred again.
//!
//! Two connections carry commands (one for what must not wait, one for reading), a third the live channels. Nothing
//! is ever sent twice: a command whose answer is lost fails as [`LinkError::Unknown`], and who sent it decides.
//!
//! Invariants: every call ends within [`CALL_TIMEOUT`] and a bit; a live channel that cannot keep up drops messages
//! and says so, and never grows. No secret of the URL reaches an error or a log line.
//! Left out: what the commands mean.

mod listening;
mod reply;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::{ClientLike, EventInterface},
    types::{
        Builder, ClusterHash, ConnectHandle, CustomCommand, RespVersion, Value,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
        },
    },
};
use tokio::task::JoinHandle;

pub use self::{
    listening::{Listener, Listening, Said},
    reply::Reply,
};

/// What a call gives back, later.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send + 'a>>;

/// No call waits longer for its answer.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
/// A connection on which an answer is overdue by this much is given up.
const UNRESPONSIVE: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect, in milliseconds.
const RECONNECT_MS: (u32, u32) = (25, 1000);
/// Commands that may wait for a connection; more fail at once.
const COMMANDS_MAX: usize = 1024;

/// Why a call failed. Divides by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The URL cannot be used. Says why, without the URL.
    Url(String),
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

/// The connections to one Redis. Dropping it closes them.
pub struct Link {
    write: Client,
    read: Client,
    listening: Listening,
    tasks: Vec<ConnectHandle>,
    watchers: Vec<JoinHandle<()>>,
}

impl Link {
    /// Starts to connect, and goes on doing so for ever; must be called inside a tokio runtime. Live channels hold
    /// at most `messages_max` messages that nobody has taken yet.
    ///
    /// Takes `redis://` and `rediss://`; an error says what is wrong with the URL.
    pub fn start(url: &str, messages_max: usize) -> Result<Self, LinkError> {
        let config = config(url)?;
        let write = client(&config)?;
        let read = client(&config)?;
        let (listening, subscriber_task) = Listening::start(&config, messages_max)?;
        let watchers = vec![watch(&write, "write"), watch(&read, "read")];
        let tasks = vec![write.connect(), read.connect(), subscriber_task];
        Ok(Self { write, read, listening, tasks, watchers })
    }

    /// Sends a command with its arguments and waits for the answer.
    pub fn call(&self, lane: Lane, command: &'static str, arguments: Vec<Bytes>) -> Pending<'_, Reply> {
        let client = match lane {
            Lane::Write => &self.write,
            Lane::Read => &self.read,
        };
        Box::pin(async move {
            if !client.is_connected() {
                return Err(LinkError::NotSent("waiting for a connection".to_owned()));
            }
            let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
            let arguments: Vec<Value> = arguments.into_iter().map(Value::Bytes).collect();
            match client.custom_raw(command, arguments).await {
                Ok(frame) => Reply::from_frame(frame),
                Err(error) => Err(LinkError::Unknown(error.to_string())),
            }
        })
    }

    /// Waits until the commands' connections stand, for at most `limit`.
    pub fn connected(&self, limit: Duration) -> Pending<'_, ()> {
        Box::pin(async move {
            let both = async {
                self.write.wait_for_connect().await?;
                self.read.wait_for_connect().await
            };
            match tokio::time::timeout(limit, both).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(LinkError::NotSent(error.to_string())),
                Err(_) => Err(LinkError::NotSent("no connection yet".to_owned())),
            }
        })
    }

    /// Listens to a live channel, across reconnections.
    pub fn listen(&self, channel: String) -> Pending<'_, Listener> {
        self.listening.listen(channel)
    }

    /// Gives the write connection up and makes a new one.
    pub fn reconnect(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let again = self.write.force_reconnection().await;
            again.map_err(|error| LinkError::NotSent(error.to_string()))
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

fn config(url: &str) -> Result<Config, LinkError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "redis" | "rediss" => {}
        "redis-sentinel" | "redis-cluster" | "rediss-sentinel" | "rediss-cluster" => {
            return Err(LinkError::Url(format!("{scheme} is not yet supported; use redis:// or rediss://")));
        }
        _ => return Err(LinkError::Url("it must begin with redis:// or rediss://".to_owned())),
    }
    // fred's own text may hold the URL, and with it a password.
    let mut config = Config::from_url(url).map_err(|_| LinkError::Url("it is malformed".to_owned()))?;
    config.fail_fast = false;
    Ok(config)
}

fn connection() -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: Duration::from_secs(2),
        internal_command_timeout: CALL_TIMEOUT,
        max_command_attempts: 1,
        max_command_buffer_len: COMMANDS_MAX,
        reconnect_on_auth_error: true,
        unresponsive: UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE), interval: Duration::from_millis(500) },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        reconnect_errors: vec![
            ReconnectError::ClusterDown,
            ReconnectError::Loading,
            ReconnectError::MasterDown,
            ReconnectError::ReadOnly,
        ],
        ..ConnectionConfig::default()
    }
}

fn builder(config: &Config, messages_max: usize) -> Builder {
    let (first_ms, longest_ms) = RECONNECT_MS;
    let mut policy = ReconnectPolicy::new_exponential(0, first_ms, longest_ms, 2);
    policy.set_jitter(first_ms);
    let mut builder = Builder::from_config(config.clone());
    builder.set_policy(policy);
    builder.set_connection_config(connection());
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: CALL_TIMEOUT,
        broadcast_channel_capacity: messages_max,
        ..PerformanceConfig::default()
    });
    builder
}

fn client(config: &Config) -> Result<Client, LinkError> {
    builder(config, 32).build().map_err(|_| LinkError::Url("its parts do not fit together".to_owned()))
}

/// The subscriber speaks RESP3, in which other commands may pass between messages.
fn subscriber_builder(config: &Config, messages_max: usize) -> Builder {
    let mut builder = builder(config, messages_max);
    builder.with_config(|config| config.version = RespVersion::RESP3);
    builder
}

/// Says once that a connection is lost, and that it is back.
fn watch<C: EventInterface>(client: &C, name: &'static str) -> JoinHandle<()> {
    let (mut errors, mut connects) = (client.error_rx(), client.reconnect_rx());
    tokio::spawn(async move {
        let mut is_lost = false;
        loop {
            tokio::select! {
                error = errors.recv() => match error {
                    Ok((error, _)) if !is_lost => {
                        is_lost = true;
                        tracing::warn!(connection = name, %error, "lost the connection to Redis; connecting again");
                    }
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                connect = connects.recv() => match connect {
                    Ok(_) => {
                        is_lost = false;
                        tracing::info!(connection = name, "connected to Redis");
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_repeated() {
        for (url, why) in [
            ("redis-sentinel://:secret@a:1,b:2", "not yet supported"),
            ("redis-cluster://:secret@a:1", "not yet supported"),
            ("http://secret@a", "redis://"),
            ("secret", "redis://"),
            ("redis://:secret@host:notaport", "malformed"),
        ] {
            let error = config(url).expect_err(url).to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
        assert!(config("rediss://user:pass@host:6380/3").is_ok());
    }
}
