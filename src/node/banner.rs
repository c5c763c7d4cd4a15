//! What a node prints at its start: where it listens, that it is ready, and in dev how to try it.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    clock,
    config::{Config, Group, demo},
};

use super::start::Bound;

/// One line a listener, to be read by people and scripts.
pub(super) fn addresses(bound: &[Bound]) {
    for bound in bound {
        for group in &bound.groups {
            line(format_args!("listening {} {}", word(*group), bound.address));
        }
    }
}

/// The node takes traffic; in dev, how to try it.
pub(super) fn ready(config: &Config, bound: &[Bound]) {
    line(format_args!("ready"));
    let (ws, http) = (address_of(bound, Group::WebSocket), address_of(bound, Group::Http));
    if let Some(text) = demo::try_it(config, ws, http, clock::unix_now()) {
        line(format_args!("{}", text.trim_end()));
    }
    if let Some(page) = demo::page(config, http) {
        line(format_args!("demo page:\n  {page}"));
    }
}

/// Where clients reach this node: as configured, or its own WebSocket address.
pub(super) fn public_address(config: &Config, bound: &[Bound]) -> String {
    let own = || address_of(bound, Group::WebSocket).map(|address| reachable(address).to_string());
    config.public_addr.clone().or_else(own).unwrap_or_default()
}

/// A listener on every address is reached by this machine's own; from outside only the operator knows.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Where a group listens, if it does.
pub(super) fn address_of(bound: &[Bound], group: Group) -> Option<SocketAddr> {
    bound.iter().find(|bound| bound.groups.contains(&group)).map(|bound| bound.address)
}

fn word(group: Group) -> &'static str {
    match group {
        Group::WebSocket => "ws",
        Group::Http => "http",
        Group::Metrics => "metrics",
        Group::Pprof => "pprof",
        Group::Swagger => "swagger",
    }
}

fn line(text: std::fmt::Arguments<'_>) {
    // Nobody reads it: that is no reason not to serve.
    let _ = writeln!(io::stdout(), "{text}");
}
