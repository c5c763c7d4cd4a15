//! Flags, environment and file, at the start and on each reload, into one typed structure.
//!
//! The way of a setting: `cli` and `file` collect what was given as text with its source, `keys` says which
//! keys there are and where each stands in [`Config`], `check` refuses what cannot work together. Flags win over
//! the environment, the environment over the file, the file over the defaults.
//!
//! Invariants: a `Config` that exists has been checked; no secret is ever part of an error, a warning or `Debug`.
//! Leaves out: what the settings do. Nothing here opens a socket or logs.

mod check;
pub mod cli;
pub mod demo;
pub mod doc;
mod error;
mod file;
mod keys;
mod limit_keys;
mod listeners;
mod number;
mod projects;
mod queue_keys;
mod redis_url;
pub mod reload;
pub mod show;
pub mod sign;
mod sources;
mod tags;
mod trace_keys;
mod value;
pub mod values;

use std::net::{IpAddr, Ipv4Addr};

pub use error::{ConfigError, Source};
pub use listeners::{Group, Listener};
pub use projects::{DEMO_PID, DEMO_SECRET};
pub use redis_url::RedisUrl;
pub use reload::{Reloaded, Sources};
pub use sources::{Environment, Flags};
pub use values::{Ack, AuthReject, Driver, Env, LogFormat, LogLevel, Port, QueueKind, SentryDsn};

use crate::{
    limits::Limits,
    model::{NodeId, Projects, TagRules, network::Networks, project::Secret},
};

/// Everything a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's number, unique in its cluster.
    pub node: NodeId,
    /// What the node is for; decides defaults and what is refused.
    pub env: Env,
    /// Where the WebSocket listener binds.
    pub ws_host: IpAddr,
    /// The WebSocket listener's port.
    pub ws_port: Port,
    /// Where the HTTP API's listener binds.
    pub http_host: IpAddr,
    /// The HTTP API's port.
    pub http_port: Port,
    /// Where the operators' listeners (metrics, pprof, Swagger UI) bind.
    pub operator_host: IpAddr,
    /// What operators' requests must carry (`Authorization: Bearer …`); needed beyond loopback.
    pub operator_token: Option<Secret>,
    /// The metrics listener's port.
    pub metrics_port: Port,
    /// The port of the pprof and `/admin` listener.
    pub pprof_port: Port,
    /// Swagger UI's port; off in prod unless asked for.
    pub swagger_port: Port,
    /// Where clients reach this node's WebSocket listener from outside, `host:port` or a `ws://` or `wss://` address.
    pub public_addr: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
    /// How bad credentials are answered.
    pub auth_reject: AuthReject,
    /// Whether the demo page and its feed are there, as far as [`Config::has_demo`] lets them.
    pub demo: bool,
    /// What carries pushes between the nodes.
    pub queue: QueueKind,
    /// Where Redis is.
    pub redis_url: RedisUrl,
    /// A file of roots that are trusted in place of the system's.
    pub redis_ca_file: Option<String>,
    /// This node's certificate for Redis, and its key.
    pub redis_cert_file: Option<String>,
    /// See `redis_cert_file`.
    pub redis_key_file: Option<String>,
    /// When a push is answered.
    pub ack: Ack,
    /// How many replicas `ack` = replica waits for.
    pub ack_replicas: u8,
    /// What every key in the queue begins with: clusters with different prefixes share a Redis without meeting.
    pub key_prefix: String,
    /// Logs in the queue; the same on every node of a cluster.
    pub shards: u16,
    /// Runtime threads, one per core; 0: as many as the process may use.
    pub cores: u8,
    /// How the cores talk to the kernel.
    pub driver: Driver,
    /// The least important messages that are logged.
    pub log_level: LogLevel,
    /// Modules that are logged at another level: `ws_cluster::broker=debug`, with commas between.
    pub log_targets: Option<String>,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// Where lines go; none: the standard error.
    pub log_file: Option<String>,
    /// Whether the log file is closed for a new one when a day begins (UTC).
    pub log_rotate_daily: bool,
    /// Whether rotated log files are compressed.
    pub log_compress: bool,
    /// Where errors and panics are reported.
    pub sentry_dsn: SentryDsn,
    /// Whether the age of pushes is measured at each stage of their way.
    pub stage_latency: bool,
    /// Where traces go (OTLP over HTTP); none: there are no traces.
    pub otlp_endpoint: Option<String>,
    /// One push in so many gets a trace.
    pub trace_one_in: u32,
    /// Whether the heap is sampled from the start.
    pub heap_profile: bool,
    /// Every bound.
    pub limits: Limits,
    /// The tenants.
    pub projects: Projects,
    /// Rules for tags.
    pub tags: TagRules,
}

/// A configuration together with what its owner should be told about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One sentence each, to be logged once at the start.
    pub warnings: Vec<String>,
    /// Where each key that is not at its default was given.
    pub origins: sources::Origins,
    /// Where it can be read again.
    pub sources: Sources,
}

impl Config {
    /// The defaults of `env`, with the demo project unless it is prod.
    pub fn defaults(env: Env) -> Self {
        let prod = env == Env::Prod;
        Self {
            node: 1,
            env,
            ws_host: Ipv4Addr::UNSPECIFIED.into(),
            ws_port: Port::Number(8812),
            http_host: Ipv4Addr::UNSPECIFIED.into(),
            http_port: Port::Number(8912),
            operator_host: Ipv4Addr::LOCALHOST.into(),
            operator_token: None,
            metrics_port: Port::Number(9091),
            pprof_port: Port::Number(6060),
            swagger_port: if prod { Port::Off } else { Port::Number(9092) },
            public_addr: None,
            trusted_proxies: Networks::default(),
            auth_reject: AuthReject::Close,
            demo: env == Env::Dev,
            queue: QueueKind::Memory,
            redis_url: RedisUrl::default(),
            redis_ca_file: None,
            redis_cert_file: None,
            redis_key_file: None,
            ack: Ack::Log,
            ack_replicas: 1,
            key_prefix: "ws-cluster".to_owned(),
            shards: 1,
            cores: 0,
            driver: Driver::Auto,
            log_level: LogLevel::Info,
            log_targets: None,
            log_file: None,
            log_rotate_daily: true,
            log_compress: true,
            sentry_dsn: SentryDsn::default(),
            log_format: if prod { LogFormat::Json } else { LogFormat::Human },
            stage_latency: true,
            otlp_endpoint: None,
            trace_one_in: 1000,
            heap_profile: false,
            limits: Limits::default(),
            projects: projects::demo(env),
            tags: TagRules::default(),
        }
    }

    /// Reads flags, environment and, where one of them names it, the file.
    ///
    /// # Errors
    /// The first key that is unknown, has a bad value or cannot work together with another, and where it was given.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Loaded, ConfigError> {
        Self::load_beside(flags, environment, None)
    }

    /// The same for a node that runs: what cannot change is as it is in `running`.
    fn load_beside(flags: &Flags, environment: &Environment, running: Option<&Self>) -> Result<Loaded, ConfigError> {
        let file = sources::file_named(flags, environment)?.map(|path| file::read(&path)).transpose()?;
        let given = sources::merge(flags, environment, file.as_ref())?;
        let env = sources::env_of(&given)?;
        let mut config = Self::defaults(running.map_or(env, |running| running.env));
        for (key, given) in &given {
            keys::apply(key, &mut config, given)?;
        }
        let mut origins = sources::origins(&given);
        if let Some(running) = running {
            reload::keep(running, &mut config, &mut origins);
        }
        if let Some(file) = file {
            projects::apply(&mut config, file.projects, environment)?;
            tags::apply(&mut config, file.tags)?;
        }
        // Nobody asked for it: where it cannot be, it is not.
        config.demo &= running.is_some() || config.has_demo() || origins.contains_key("demo");
        demo::add_rules(&mut config);
        let warnings = check::check(&config, &origins)?;
        Ok(Loaded { config, warnings, origins, sources: Sources::new(flags, environment) })
    }

    /// Whether a browser's origin that no project lists is accepted (else only the node's own host is).
    pub fn any_origin_by_default(&self) -> bool {
        self.env != Env::Prod
    }
}
