//! How connections are made and watched: time-outs, pauses, and no second attempt at a command.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::EventInterface,
    types::{
        Builder, RespVersion,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectError, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
        },
    },
};
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle, time::Instant};

use crate::{CALL_TIMEOUT, LinkError};

/// A connection on which an answer is overdue by this much is given up.
const UNRESPONSIVE: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect, in milliseconds.
const RECONNECT_MS: (u32, u32) = (25, 1000);
/// Commands that may wait for a connection; more fail at once.
const COMMANDS_MAX: usize = 1024;

/// That a connection is lost is told at most once in this time.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

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

pub(crate) fn client(config: &Config) -> Result<Client, LinkError> {
    builder(config, 32).build().map_err(|_| LinkError::Url("its parts do not fit together".to_owned()))
}

/// The subscriber speaks RESP3, in which other commands may pass between messages.
pub(crate) fn subscriber_builder(config: &Config, messages_max: usize) -> Builder {
    let mut builder = builder(config, messages_max);
    builder.with_config(|config| config.version = RespVersion::RESP3);
    builder
}

/// Says once that a connection is lost, and that it is back. Of one that is lost again and again, as those to a cluster
/// that is down, not every time is told.
pub(crate) fn watch<C: EventInterface>(client: &C, name: &'static str) -> JoinHandle<()> {
    let (mut errors, mut connects) = (client.error_rx(), client.reconnect_rx());
    tokio::spawn(async move {
        let (mut is_lost, mut told_at) = (false, None::<Instant>);
        let mut is_told = true;
        loop {
            tokio::select! {
                error = errors.recv() => match error {
                    Ok((error, _)) if !is_lost => {
                        is_lost = true;
                        is_told = told_at.is_none_or(|at| at.elapsed() > TOLD_AGAIN);
                        if is_told {
                            told_at = Some(Instant::now());
                            tracing::warn!(connection = name, %error, "lost the connection to Redis; connecting again");
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                connect = connects.recv() => match connect {
                    Ok(server) => {
                        is_lost = false;
                        if is_told {
                            tracing::info!(connection = name, %server, "connected to Redis");
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    })
}
