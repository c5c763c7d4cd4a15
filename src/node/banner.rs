//! What a node prints at its start: where it listens, that it is ready, and in dev how to try it.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    clock,
    config::{Config, DEMO_PID, DEMO_SECRET, Env, Group},
    model::{Role, project::Secret},
    protocol::sign::{self, Body},
};

use super::start::Bound;

/// How long the printed credentials hold.
const TRY_CONNECT_S: u64 = 86_400;
const TRY_PUSH_S: u64 = 600;

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
    if config.env == Env::Dev && config.projects.get(DEMO_PID).is_some() {
        try_it(bound);
    }
}

/// Where clients reach this node: as configured, or its own WebSocket address.
pub(super) fn public_address(config: &Config, bound: &[Bound]) -> String {
    let own = || address_of(bound, Group::WebSocket).map(|address| address.to_string());
    config.public_addr.clone().or_else(own).unwrap_or_default()
}

fn try_it(bound: &[Bound]) {
    let secret = Secret::new(DEMO_SECRET);
    let now = clock::unix_now().as_secs();
    if let Some(address) = address_of(bound, Group::WebSocket) {
        let query = sign::connect_query(&secret, DEMO_PID, "demo", Role::User, now + TRY_CONNECT_S);
        line(format_args!("\nconnect (a day long):\n  ws://{address}/ws/connect?{query}&tags=demo"));
    }
    if let Some(address) = address_of(bound, Group::Http) {
        let push = [("tags", "demo"), ("data", r#"{"hello":1}"#)];
        let query = sign::call_query(&secret, DEMO_PID, now + TRY_PUSH_S, &push, Body::None);
        line(format_args!(
            "push to its subscribers (ten minutes long):\n  curl -X POST 'http://{address}/ws/push?{query}'"
        ));
        line(format_args!("the demo project is {DEMO_PID}, its secret {DEMO_SECRET}"));
    }
}

/// A group's address as one on this machine reaches it.
fn address_of(bound: &[Bound], group: Group) -> Option<SocketAddr> {
    let mut address = bound.iter().find(|bound| bound.groups.contains(&group))?.address;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Some(address)
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
