//! Which listeners there are, and which groups of endpoints share one.

use std::{fmt, net::IpAddr};

use super::{Config, values::Port};

/// A group of endpoints that has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Users and back-ends.
    WebSocket,
    /// The push API.
    Http,
    /// Metrics.
    Metrics,
    /// Profiles and `/admin`.
    Pprof,
    /// Swagger UI.
    Swagger,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Http, Self::Metrics, Self::Pprof, Self::Swagger];

    /// Whether the group is for operators alone: it needs loopback or the token.
    pub fn is_for_operators(self) -> bool {
        matches!(self, Self::Metrics | Self::Pprof | Self::Swagger)
    }

    /// The key of the group's port.
    pub fn port_key(self) -> &'static str {
        match self {
            Self::WebSocket => "ws_port",
            Self::Http => "http_port",
            Self::Metrics => "metrics_port",
            Self::Pprof => "pprof_port",
            Self::Swagger => "swagger_port",
        }
    }

    /// The key of the group's host.
    pub fn host_key(self) -> &'static str {
        match self {
            Self::WebSocket => "ws_host",
            Self::Http => "http_host",
            Self::Metrics | Self::Pprof | Self::Swagger => "operator_host",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "WebSocket",
            Self::Http => "HTTP API",
            Self::Metrics => "metrics",
            Self::Pprof => "pprof",
            Self::Swagger => "Swagger UI",
        })
    }
}

/// One listener to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it binds.
    pub host: IpAddr,
    /// Its port; 0: one that the kernel chooses.
    pub port: u16,
    /// What it serves, at least one.
    pub groups: Vec<Group>,
}

impl Config {
    /// Where a group binds.
    pub fn host(&self, group: Group) -> IpAddr {
        match group {
            Group::WebSocket => self.ws_host,
            Group::Http => self.http_host,
            Group::Metrics | Group::Pprof | Group::Swagger => self.operator_host,
        }
    }

    /// A group's port.
    pub fn port(&self, group: Group) -> Port {
        match group {
            Group::WebSocket => self.ws_port,
            Group::Http => self.http_port,
            Group::Metrics => self.metrics_port,
            Group::Pprof => self.pprof_port,
            Group::Swagger => self.swagger_port,
        }
    }

    /// The listeners to bind. Groups with the same host and port share one, and operators' groups that of whoever has their
    /// port; ports that the kernel chooses differ.
    pub fn listeners(&self) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for group in Group::ALL {
            let Some(port) = self.port(group).number() else { continue };
            let host = self.host(group);
            let shares = |other: &Listener| other.host == host || group.is_for_operators() && overlap(other.host, host);
            match listeners.iter_mut().find(|other| port != 0 && other.port == port && shares(other)) {
                Some(shared) => shared.groups.push(group),
                None => listeners.push(Listener { host, port, groups: vec![group] }),
            }
        }
        listeners
    }
}

/// Whether two hosts cannot both be bound with one port. `::` takes IPv4 in too on most systems.
pub(super) fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let takes_in = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one == other || takes_in(one, other) || takes_in(other, one)
}
