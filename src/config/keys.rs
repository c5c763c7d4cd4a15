//! The table of keys: every flag, environment variable and file key there is, with what the reference says of it.
//!
//! Invariant: a setting without a line here cannot be set, so the reference and the program cannot differ.

use super::{
    Config,
    error::ConfigError,
    limit_keys, queue_keys,
    sources::Given,
    trace_keys,
    value::{Bounds, Kind, Unit, Value},
    values::split_port,
};
use crate::logs::level::Directives;

/// One key.
pub struct Key {
    /// Its name in the file, as a flag and, in capitals behind `WS_`, in the environment.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Where it stands in the configuration.
    pub place: fn(&mut Config) -> &mut dyn Value,
    /// Whether its value never shows.
    pub secret: bool,
    /// When a reload puts it into effect, where that is not the default.
    applies: Option<Applies>,
    /// What it is.
    pub what: &'static str,
    /// What a value that is too small does.
    pub too_small: &'static str,
    /// What a value that is too large does.
    pub too_large: &'static str,
}

/// What a reload does with a key that has got another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// It is in effect as soon as the reload is done.
    AtOnce,
    /// It is in effect for connections that are opened from then on.
    NewConnections,
    /// It stays as it is, with a warning, until the process is started again.
    Restart,
}

impl Applies {
    /// For the reference.
    pub fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NewConnections => "new connections",
            Self::Restart => "restart",
        }
    }
}

/// Keys that are told together.
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// Whether they stand under `[limits]` in the file.
    pub limits: bool,
    /// The keys.
    pub keys: &'static [Key],
}

type Place = fn(&mut Config) -> &mut dyn Value;

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind, place: Place) -> Self {
        Self { name, kind, place, secret: false, applies: None, what: "", too_small: "", too_large: "" }
    }

    /// A number of `unit` between `min` and `max`; times in milliseconds.
    pub(super) const fn number(name: &'static str, unit: Unit, min: u64, max: u64, place: Place) -> Self {
        Self::new(name, Kind::Number(Bounds { unit, min, max, zero: None }), place)
    }

    /// A word or something else that its type reads.
    pub(super) const fn word(name: &'static str, form: &'static str, place: Place) -> Self {
        Self::new(name, Kind::Word(form), place)
    }

    /// Allows 0, which means `meaning`.
    pub(super) const fn or_zero(mut self, meaning: &'static str) -> Self {
        if let Kind::Number(bounds) = &mut self.kind {
            bounds.zero = Some(meaning);
        }
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A reload puts it into effect at once.
    pub(super) const fn live(mut self) -> Self {
        self.applies = Some(Applies::AtOnce);
        self
    }

    /// A reload puts it into effect for new connections.
    pub(super) const fn for_new(mut self) -> Self {
        self.applies = Some(Applies::NewConnections);
        self
    }

    /// A reload leaves it as it is.
    pub(super) const fn at_restart(mut self) -> Self {
        self.applies = Some(Applies::Restart);
        self
    }

    /// What the key is.
    pub(super) const fn is(mut self, what: &'static str) -> Self {
        self.what = what;
        self
    }

    /// What too small and too large a value do.
    pub(super) const fn extremes(mut self, too_small: &'static str, too_large: &'static str) -> Self {
        self.too_small = too_small;
        self.too_large = too_large;
        self
    }

    /// When a reload puts a new value into effect.
    pub fn applies(&self) -> Applies {
        self.applies.unwrap_or(Applies::Restart)
    }

    /// Whether its value is the same in both.
    pub fn is_same(&self, one: &Config, other: &Config) -> bool {
        (self.place)(&mut one.clone()).is_same((self.place)(&mut other.clone()).as_any())
    }

    /// Gives it in `config` the value that it has in `from`.
    pub fn copy(&self, config: &mut Config, from: &Config) {
        (self.place)(config).copy_from((self.place)(&mut from.clone()).as_any());
    }

    /// The value in `config` as TOML.
    pub fn show(&self, config: &Config) -> Option<String> {
        (self.place)(&mut config.clone()).show(&self.kind)
    }

    /// The value in `config` as a number, if it is one (see [`Value::amount`]).
    pub fn amount_in(&self, config: &Config) -> Option<u64> {
        (self.place)(&mut config.clone()).amount()
    }
}

/// Keys that a reload puts into effect at once where they do not say otherwise.
pub(super) const fn live<const N: usize>(mut keys: [Key; N]) -> [Key; N] {
    let mut place = 0;
    while place < N {
        if keys[place].applies.is_none() {
            keys[place].applies = Some(Applies::AtOnce);
        }
        place += 1;
    }
    keys
}

/// Every section in the order in which it is told.
pub fn sections() -> impl Iterator<Item = &'static Section> {
    NODE.iter().chain(trace_keys::SECTIONS).chain(limit_keys::SECTIONS).chain(queue_keys::SECTIONS)
}

/// Every key in the order in which it is told.
pub fn all() -> impl Iterator<Item = &'static Key> {
    sections().flat_map(|section| section.keys)
}

/// The key called `name`.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Reads what was given for the key called `name` into `config`.
pub fn apply(name: &str, config: &mut Config, given: &Given) -> Result<(), ConfigError> {
    let key = find(name).expect("only known keys are collected");
    (key.place)(config).read(&given.raw, &key.kind).map_err(|reason| match key.secret {
        true => ConfigError::bad_key(name, &given.source, reason),
        false => ConfigError::bad_value(name, &given.raw.text(), &given.source, reason),
    })
}

const PORT: &str = "1-65535, 0 (chosen by the kernel and printed) or `off`";
const REDIS_URL: &str = "`redis://[user:pass@]host:port/db`, `redis-sentinel://[user:pass@]host:port,host:port/db`, \
                         `redis-cluster://[user:pass@]host:port,host:port`; `rediss` in place of `redis` for TLS";
const A_FILE: &str = "a path that ends in a file's name";
const HOST: &str = "IP address or `localhost`";

static NODE: &[Section] = &[
    Section {
        title: "Node",
        limits: false,
        keys: &[
            Key::number("node", Unit::Of("node id"), 0, 65_535, |c| &mut c.node)
                .is("The node's number, leased in the queue: a second node with the same one refuses to start."),
            Key::word("env", "`dev`, `test`, `prod`", |c| &mut c.env).is(
                "What the node is for. dev and test have a demo project (pid `1`, a secret that everyone knows) unless the file \
                 has a project `1`, and log for people; dev prints a ready connect URL and push command. prod refuses a secret that is \
                 built in, empty or shorter than 16 bytes, logs JSON, and leaves Swagger UI off.",
            ),
            Key::number("cores", Unit::Of("threads"), 1, 255, |c| &mut c.cores).or_zero("as many as the process may use")
                .is("Runtime threads, each pinned to a core.")
                .extremes("Cores idle while others are full.", "Threads share cores and wait for each other."),
            Key::word("driver", "`auto`, `uring`, `epoll`", |c| &mut c.driver).is(
                "How the cores talk to the kernel: io_uring where it is allowed, else epoll (auto), or one of them by force. Forced \
                 io_uring that the kernel refuses ends the start.",
            ),
            Key::new("public_addr", Kind::Text("host:port, or an address with ws:// or wss://", is_public_addr), |c| &mut c.public_addr)
                .is("Where clients reach this node's WebSocket listener from outside; other nodes send clients there."),
        ],
    },
    Section {
        title: "Listeners",
        limits: false,
        keys: &[
            Key::word("ws_host", HOST, |c| &mut c.ws_host).is("Where the WebSocket listener binds."),
            Key::word("ws_port", PORT, |c| &mut c.ws_port).is("The WebSocket listener's port."),
            Key::word("http_host", HOST, |c| &mut c.http_host).is("Where the HTTP API's listener binds."),
            Key::word("http_port", PORT, |c| &mut c.http_port)
                .is("The HTTP API's port. Given `ws_host` and `ws_port` it shares that listener."),
            Key::word("operator_host", HOST, |c| &mut c.operator_host)
                .is("Where the operators' listeners (metrics, pprof, Swagger UI) bind. Beyond loopback they need `operator_token`."),
            Key::new(
                "operator_token",
                Kind::Text("printable ASCII without spaces; in prod at least 16 bytes", |_| true),
                |c| &mut c.operator_token,
            )
            .secret()
            .is("What a request to an operators' listener must carry as `Authorization: Bearer`. Better in the environment or the file \
                 than in a flag, which every user of the machine can read."),
            Key::word("metrics_port", PORT, |c| &mut c.metrics_port).is("The metrics listener's port. Groups given the same port share a listener; operators' endpoints on one that is public are served where that one binds, and need `operator_token` beyond loopback."),
            Key::word("pprof_port", PORT, |c| &mut c.pprof_port).is("The port of profiles and of `/admin`."),
            Key::word("swagger_port", PORT, |c| &mut c.swagger_port)
                .is("The port of the API's pages (`/swagger/index.html`) and of its description (`/openapi.json`). While it is on, the API lets scripts of these pages read its answers (CORS)."),
            Key::word("trusted_proxies", "list of networks (`10.0.0.0/8`); commas in a flag", |c| &mut c.trusted_proxies)
                .is("Proxies whose `X-Forwarded-For` is believed when WebSocket connections and failed credentials are counted by address: the last one named that is no trusted proxy itself counts. HTTP calls are counted by their peer.")
                .extremes(
                    "All clients behind an unlisted proxy count as one address.",
                    "A client inside a listed network can name any address as its own.",
                ),
            Key::word("auth_reject", "`close`, `http`", |c| &mut c.auth_reject).is(
                "How bad credentials of a valid upgrade are answered: 101 and a close 4401, which a browser can read, or a plain 401 or 403.",
            ),
            Key::word("demo", "`true`, `false`", |c| &mut c.demo).is(
                "Whether the HTTP API's listener serves the demo page (`/demo`) and the node publishes what it shows, as project `1`. On in dev \
                 only, unless it is given. It signs for whoever asks, so it needs the built-in secret, and prod refuses it.",
            ),
        ],
    },
    Section {
        title: "Compression",
        limits: false,
        keys: &[
            Key::word("deflate", "`true`, `false`", |c| &mut c.limits.compression.deflate).for_new().is(
                "Whether permessage-deflate is agreed on with clients that offer it. A broadcast is compressed once a core, not once a \
                 recipient. A rule of `[[tags]]` can leave tags out.",
            ),
            Key::number("deflate_level", Unit::Of("level"), 1, 9, |c| &mut c.limits.compression.deflate_level)
                .live()
                .is("How hard the compressor tries.")
                .extremes("Messages of some hundred bytes get a third longer than they need be.", "More time on every core for hardly a byte."),
            Key::number("deflate_bytes_min", Unit::Bytes, 0, 1 << 20, |c| &mut c.limits.compression.deflate_bytes_min)
                .live()
                .is("Messages below this are sent plain. So is what does not get smaller.")
                .extremes("Time on every core for a few bytes of a packet.", "Nothing is compressed."),
            Key::number("deflate_bytes_max", Unit::Bytes, 256, 16 << 20, |c| &mut c.limits.compression.deflate_bytes_max)
                .live()
                .is("Messages above this are sent plain: a core does nothing else while it compresses one, about 10 us for each KiB.")
                .extremes("What would gain most is not compressed.", "One large message delays all others of the core."),
        ],
    },
    Section {
        title: "Queue",
        limits: false,
        keys: &[
            Key::word("queue", "`memory`, `redis`", |c| &mut c.queue)
                .is("What carries pushes between the nodes. memory is inside the process: one node alone."),
            Key::word("redis_url", REDIS_URL, |c| &mut c.redis_url).secret().is(
                "Where Redis (7.0 or later) is, for queue = redis. Several hosts are sentinels or members of a cluster; the rest is found. Behind \
                 a `?`: `sentinelServiceName` (`mymaster`), `sentinelUsername`, `sentinelPassword`, `node=host:port` for one more host. Given \
                 without a `queue` anywhere it is refused.",
            ),
            Key::new("redis_ca_file", Kind::Text(A_FILE, is_file), |c| &mut c.redis_ca_file)
                .is("Roots, in PEM, that are trusted in place of the system's when `redis_url` begins with `rediss`."),
            Key::new("redis_cert_file", Kind::Text(A_FILE, is_file), |c| &mut c.redis_cert_file)
                .is("This node's own certificate, in PEM, where Redis asks for one; `redis_key_file` belongs to it."),
            Key::new("redis_key_file", Kind::Text(A_FILE, is_file), |c| &mut c.redis_key_file)
                .is("The key of `redis_cert_file`, in PEM."),
            Key::word("ack", "`log`, `replica`, `disk`", |c| &mut c.ack).is(
                "When a push is answered, with queue = redis: when it is in the log; when `ack_replicas` replicas have it too (WAIT); when it is on \
                 the master's disk (WAITAOF: Redis 7.2 or later with `appendonly yes`; an older one is refused at the start). What is not confirmed \
                 within a second is tried again, and refused (503) after `pending_timeout`.",
            ),
            Key::number("ack_replicas", Unit::Of("replicas"), 1, 16, |c| &mut c.ack_replicas)
                .is("How many replicas ack = replica waits for.")
                .extremes("A fail-over to another replica has to be made good by the nodes.", "Without so many replicas every push is refused."),
            Key::new("key_prefix", Kind::Text("1 to 64 of A-Z a-z 0-9 _ . : -", is_key_prefix), |c| &mut c.key_prefix)
                .is("What every key in the queue begins with. The same on every node of a cluster; clusters with different ones can share a Redis."),
            Key::number("shards", Unit::Of("logs"), 1, 256, |c| &mut c.shards)
                .is("Logs in the queue. The same on every node of a cluster, and for as long as the queue remembers it. In a Redis Cluster each is on one master: at least as many as masters; with one Redis 1 is best.")
                .extremes("One append in flight each: fewer pushes a second; a Redis Cluster has masters without work.", "More polls of an idle queue; smaller batches."),
        ],
    },
    Section {
        title: "Logs and errors",
        limits: false,
        keys: &[
            Key::word("log_level", "`off`, `error`, `warn`, `info`, `debug`", |c| &mut c.log_level)
                .live()
                .is("The least important messages that are logged. `POST /admin/log-level` changes it until the next reload."),
            Key::new("log_targets", Kind::Text("`module=level`, with commas between", is_log_targets), |c| &mut c.log_targets)
                .live()
                .is("Modules that are logged at another level, as `ws_cluster::broker=debug,ws_cluster::http=warn`."),
            Key::word("log_format", "`human`, `json`", |c| &mut c.log_format)
                .is("How a log line looks. Times are UTC; control characters are escaped, values cut at 256 bytes."),
            Key::new("log_file", Kind::Text(A_FILE, is_file), |c| &mut c.log_file).is(
                "Where lines go; without it to the standard error. One process a file. Rotated files stand beside it and are called \
                 after the moment, in UTC, and a number: `ws-cluster.2026-11-27T00-12-33.001.log.gz`. A file that somebody else \
                 moves away is made anew within a second, without a signal.",
            ),
            Key::word("log_rotate_daily", "`true`, `false`", |c| &mut c.log_rotate_daily)
                .is("Whether the first line of a day (UTC) begins a new `log_file`; `log_rotate_bytes` bounds its length too."),
            Key::word("log_compress", "`true`, `false`", |c| &mut c.log_compress).is("Whether rotated log files are compressed (gzip)."),
            Key::word("sentry_dsn", "a DSN, `https://key@host/project`; empty is off", |c| &mut c.sentry_dsn).secret().is(
                "Where errors and panics are reported: Sentry, or what speaks its protocol. Each has release, environment, node, core and a stack, \
                 and neither payloads, queries nor secrets.",
            ),
        ],
    },
    Section {
        title: "Profiles",
        limits: false,
        keys: &[
            Key::word("heap_profile", "`true`, `false`", |c| &mut c.heap_profile).is(
                "Whether allocations are sampled from the start, one in 512 KiB. Otherwise the first request for \
                 `/debug/pprof/heap` switches it on, and nothing is known of what was allocated before it.",
            ),
        ],
    },
];

fn is_public_addr(text: &str) -> bool {
    let bare = text.strip_prefix("ws://").or_else(|| text.strip_prefix("wss://"));
    let address = bare.unwrap_or(text).trim_end_matches('/');
    let (host, port) = split_port(address);
    let port_is_good = port.map_or(bare.is_some(), |port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let host_is_good = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
    port_is_good && !host.is_empty() && host.chars().all(host_is_good)
}

fn is_key_prefix(text: &str) -> bool {
    // No braces: they would force all keys onto one slot of a Redis Cluster.
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

fn is_log_targets(text: &str) -> bool {
    Directives::parse(&format!("info,{text}")).is_ok()
}

fn is_file(text: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    text.len() < 4096 && !text.contains('\0') && text.rsplit('/').next().is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_key_has_a_name_of_its_own_and_is_told() {
        let mut names = HashSet::new();
        for key in all() {
            assert!(names.insert(key.name), "{} twice", key.name);
            assert!(key.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", key.name);
            assert!(!key.what.is_empty(), "{}", key.name);
        }
        for key in sections().filter(|section| section.limits).flat_map(|section| section.keys) {
            let told = !key.too_small.is_empty() && !key.too_large.is_empty();
            assert!(told || !matches!(key.kind, Kind::Number(_)), "{}", key.name);
        }
    }

    #[test]
    fn log_files_and_targets_are_checked() {
        assert!(["ws.log", "/var/log/ws-cluster.log", "a/b"].iter().all(|path| is_file(path)));
        assert!(["", "/", "logs/", "a/..", ".", "a\0b"].iter().all(|path| !is_file(path)));
        assert!(is_log_targets("ws_cluster::broker=debug, ws_cluster::http=warn"));
        assert!(["", "debug", "ws_cluster=trace", "a=b=debug"].iter().all(|text| !is_log_targets(text)));
    }

    #[test]
    fn public_addresses_are_checked() {
        for good in ["ws.example.com:8812", "10.0.0.1:80", "[::1]:8812", "wss://ws.example.com", "ws://a:1/"] {
            assert!(is_public_addr(good), "{good}");
        }
        for bad in ["", "ws.example.com", ":80", "a:0", "a:b", "http://a:1", "ws://", "a b:1", "ws://a/path"] {
            assert!(!is_public_addr(bad), "{bad}");
        }
    }
}
