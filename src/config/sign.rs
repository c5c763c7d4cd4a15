//! Signed connect URLs and pushes, ready to paste.

use std::{net::IpAddr, time::Duration};

use clap::Args;

use super::{Config, DEMO_PID, listeners::Group, values::Port};
use crate::{
    model::{
        Project, Role,
        ids::{is_identity, is_tag},
    },
    protocol::sign::{Body, call_query, connect_query, encode},
};

/// How long a connect URL is good that was asked for without a time.
const CONNECT_TTL: Duration = Duration::from_secs(3600);
/// How long a push is good that was asked for without a time.
pub const PUSH_TTL: Duration = Duration::from_secs(300);

/// What a connect URL is asked for.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case")]
pub struct SignConnect {
    /// Who connects
    #[arg(long)]
    pub uid: String,
    /// The project
    #[arg(long, default_value = DEMO_PID)]
    pub pid: String,
    /// 1: a user, 2: a back-end
    #[arg(long = "type", default_value = "1")]
    pub kind: String,
    /// Seconds for which the URL is good [default: an hour, or what sign_horizon_connect allows]
    #[arg(long)]
    pub ttl: Option<u64>,
    /// The kind of device
    #[arg(long)]
    pub device: Option<String>,
    /// Tags to subscribe to, with commas
    #[arg(long)]
    pub tags: Option<String>,
    /// host:port of the WebSocket listener, with ws:// or wss:// in front if you like
    #[arg(long)]
    pub addr: Option<String>,
}

/// What a push is asked for.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "snake_case")]
pub struct SignPush {
    /// The payload: JSON as it stands, other text becomes a JSON string
    #[arg(long, allow_hyphen_values = true)]
    pub data: String,
    /// The project
    #[arg(long, default_value = DEMO_PID)]
    pub pid: String,
    /// To these users, with commas
    #[arg(long)]
    pub uids: Option<String>,
    /// To these connections, with commas
    #[arg(long)]
    pub cids: Option<String>,
    /// To who is subscribed to these tags, with commas
    #[arg(long)]
    pub tags: Option<String>,
    /// To these kinds of device, with commas
    #[arg(long)]
    pub devices: Option<String>,
    /// To the whole project
    #[arg(long)]
    pub all: bool,
    /// Never merge this publication away
    #[arg(long)]
    pub keep: bool,
    /// The push's subject
    #[arg(long)]
    pub affair_id: Option<String>,
    /// Deliver only the first push with this key
    #[arg(long)]
    pub idempotency_key: Option<String>,
    /// Seconds for which the push is good [default: five minutes, or what sign_horizon_push allows]
    #[arg(long)]
    pub ttl: Option<u64>,
    /// host:port of the HTTP API's listener, with http:// or https:// in front if you like
    #[arg(long)]
    pub addr: Option<String>,
}

impl SignConnect {
    /// The URL, signed at `now` (since the Unix epoch).
    ///
    /// # Errors
    /// What a node would refuse, and what would be right.
    pub fn url(&self, config: &Config, now: Duration) -> Result<String, String> {
        let project = project(config, &self.pid)?;
        let role = match self.kind.as_str() {
            "1" => Role::User,
            "2" => Role::Backend,
            _ => return Err("--type is 1 (a user) or 2 (a back-end)".to_owned()),
        };
        named("uid", Some(&self.uid))?;
        named("device", self.device.as_deref())?;
        let mut tags = self.tags.iter().flat_map(|tags| tags.split(','));
        if let Some(tag) = tags.find(|tag| !is_tag(tag)) {
            return Err(format!("--tags: {tag:?} is no tag (A-Z a-z 0-9 _ . : @ / -, at most 128 bytes)"));
        }
        let horizon = config.limits.opening.sign_horizon_connect;
        let exp = expiry(now, self.ttl, CONNECT_TTL, horizon, "sign_horizon_connect")?;
        let mut query = connect_query(&project.secrets[0], &self.pid, &self.uid, role, exp);
        for (name, value) in [("device", &self.device), ("tags", &self.tags)] {
            if let Some(value) = value {
                query = format!("{query}&{}", encode([(name, value.as_str())]));
            }
        }
        let public = self.addr.as_ref().or(config.public_addr.as_ref());
        let base = base(config, Group::WebSocket, public, "ws://", &["ws://", "wss://"])?;
        Ok(format!("{base}/ws/connect?{query}"))
    }
}

impl SignPush {
    /// The command, signed at `now` (since the Unix epoch).
    ///
    /// # Errors
    /// What a node would refuse, and what would be right.
    pub fn command(&self, config: &Config, now: Duration) -> Result<String, String> {
        let project = project(config, &self.pid)?;
        let audience = [("uids", &self.uids), ("cids", &self.cids), ("tags", &self.tags), ("devices", &self.devices)];
        if !self.all && audience.iter().all(|(_, part)| part.is_none()) {
            return Err("no audience; give --uids, --cids, --tags or --devices, or --all".to_owned());
        }
        let named = [("affair_id", &self.affair_id), ("idempotency_key", &self.idempotency_key)];
        let given = audience.into_iter().chain(named);
        let mut query: Vec<(&str, &str)> = given.filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        query.extend(
            [("all", self.all), ("keep", self.keep)].into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true")),
        );
        query.push(("data", &self.data));
        let horizon = config.limits.opening.sign_horizon_push;
        let exp = expiry(now, self.ttl, PUSH_TTL, horizon, "sign_horizon_push")?;
        let query = call_query(&project.secrets[0], &self.pid, exp, &query, Body::None);
        let base = base(config, Group::Http, self.addr.as_ref(), "http://", &["http://", "https://"])?;
        Ok(format!("curl -X POST '{base}/ws/push?{query}'"))
    }
}

fn project<'c>(config: &'c Config, pid: &str) -> Result<&'c Project, String> {
    config.projects.get(pid).ok_or_else(|| format!("--pid: there is no project {pid:?} in this configuration"))
}

fn named(what: &str, name: Option<&str>) -> Result<(), String> {
    match name {
        Some(name) if !is_identity(name) => {
            Err(format!("--{what}: {name:?} is not 1 to 128 bytes without commas or control characters"))
        }
        _ => Ok(()),
    }
}

fn expiry(now: Duration, asked: Option<u64>, usual: Duration, horizon: Duration, key: &str) -> Result<u64, String> {
    let ttl = asked.map_or(usual.min(horizon), Duration::from_secs);
    if ttl > horizon {
        return Err(format!("--ttl: at most {} seconds ({key})", horizon.as_secs()));
    }
    Ok(now.as_secs() + ttl.as_secs())
}

/// Scheme, host and port of a listener as a client on this machine reaches it, or as `addr` says.
fn base(
    config: &Config,
    group: Group,
    addr: Option<&String>,
    scheme: &str,
    schemes: &[&str],
) -> Result<String, String> {
    if let Some(addr) = addr.map(|addr| addr.trim_end_matches('/')) {
        let complete = schemes.iter().any(|scheme| addr.starts_with(scheme));
        let plain = addr.chars().all(|c| c.is_ascii_graphic() && c != '\'');
        return match (plain, complete) {
            (false, _) => Err("--addr is host:port".to_owned()),
            (true, true) => Ok(addr.to_owned()),
            (true, false) => Ok(format!("{scheme}{addr}")),
        };
    }
    match config.port(group) {
        Port::Number(port) if port != 0 => {
            Ok(format!("{scheme}{}", std::net::SocketAddr::new(reachable(config.host(group)), port)))
        }
        port => Err(format!("{} is {port}; give --addr host:port", group.port_key())),
    }
}

/// The address under which a client on this machine reaches a listener that binds `host`.
pub fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(v4) if v4.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}
