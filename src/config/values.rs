//! The closed sets of values that settings have.

use std::fmt;

use sentry::types::Dsn;

/// A listener's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// This port; 0: one that the kernel chooses, printed at the start.
    Number(u16),
    /// No listener.
    Off,
}

impl Port {
    /// The number to bind, unless the listener is off.
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Number(number) => Some(number),
            Self::Off => None,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// A value from a closed set of words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The words with what they mean, in the order in which they are told.
    const WORDS: &'static [(&'static str, Self)];

    /// The value's word.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $variant,)+
        }

        // The variants' attributes are repeated for the sake of `cfg`; their docs come along.
        #[expect(unused_doc_comments, reason = "see above")]
        impl Choice for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$($(#[$about])* ($word, Self::$variant),)+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

choice! {
    /// What a node is for.
    Env {
        /// A developer's machine: a demo project with a printed secret, logs for people.
        Dev = "dev",
        /// A test system: as dev, but nothing ready to paste is printed.
        Test = "test",
        /// The real thing: weak secrets are refused, logs are JSON.
        Prod = "prod",
    }
}

choice! {
    /// What carries pushes between the nodes.
    QueueKind {
        /// Inside the process: one node alone.
        Memory = "memory",
        /// Redis streams.
        Redis = "redis",
        /// Redis pub/sub, which promises nothing: for tests of the tests.
        #[cfg(feature = "plain-pubsub")]
        PubSub = "pubsub",
    }
}

choice! {
    /// How the cores talk to the kernel.
    Driver {
        /// io_uring where the kernel allows it, else epoll.
        Auto = "auto",
        /// io_uring, or the node does not start.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
}

choice! {
    /// How bad credentials are answered.
    AuthReject {
        /// 101 and a close 4401, which a browser can read.
        Close = "close",
        /// 401 or 403.
        Http = "http",
    }
}

choice! {
    /// The least important messages that are logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What needs someone.
        Error = "error",
        /// What may need someone.
        Warn = "warn",
        /// What happens to the node.
        Info = "info",
        /// What happens to a connection.
        Debug = "debug",
    }
}

choice! {
    /// How a log line looks.
    LogFormat {
        /// For people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Where Redis is. The password in it never shows itself: `Debug` and `Display` print stars.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Box<str>);

impl RedisUrl {
    /// Checks scheme, host and port; what stands there otherwise is for the queue to judge.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "write redis://[user:pass@]host:port/db, or rediss:// for TLS";
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        match scheme {
            "redis" | "rediss" => {}
            "redis-sentinel" | "rediss-sentinel" | "redis-cluster" | "rediss-cluster" => {
                return Err(
                    "Sentinel and Cluster are not served by this version; name one Redis with redis:// or rediss://",
                );
            }
            _ => return Err(FORM),
        }
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let host_and_port = address.rsplit_once('@').map_or(address, |(_, after)| after);
        let (host, port) = split_port(host_and_port);
        let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        let database_is_good = database.is_empty() || database.parse::<u8>().is_ok();
        let printable = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        (!host.is_empty() && port_is_good && database_is_good && printable).then(|| Self(text.into())).ok_or(FORM)
    }

    /// The URL with its password, for the connection and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Divides `host:port`, `[::1]:port` or a host alone.
pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

impl Default for RedisUrl {
    fn default() -> Self {
        Self("redis://127.0.0.1:6379/0".into())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://").zip(self.0.rsplit_once('@')) {
            // The name too: some write the password in its place.
            Some(((scheme, _), (_, address))) => write!(f, "{scheme}://***@{address}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where errors and panics are reported, if anywhere. The key in it never shows itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SentryDsn(Option<Dsn>);

impl SentryDsn {
    /// Reads a DSN; an empty text is none.
    ///
    /// # Errors
    /// What would be right, without the DSN.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is no DSN; write https://key@host/project as Sentry shows it, or nothing";
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|dsn| Self(Some(dsn))).map_err(|_| FORM)
    }

    /// The DSN, for the client and nothing else.
    pub fn dsn(&self) -> Option<&Dsn> {
        self.0.as_ref()
    }
}

impl fmt::Debug for SentryDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "SentryDsn(***)" } else { "SentryDsn(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_is_checked_and_hides_its_key() {
        assert!(SentryDsn::parse("").expect("none is fine").dsn().is_none());
        let dsn = SentryDsn::parse("https://hidden@sentry.example/42").expect("a DSN");
        assert_eq!(dsn.dsn().map(|dsn| dsn.host()), Some("sentry.example"));
        assert!(!format!("{dsn:?}").contains("hidden"));
        for bad in ["hidden", "https://sentry.example/42", "https://hidden@sentry.example", "ftp://hidden@h/1"] {
            assert!(!SentryDsn::parse(bad).expect_err(bad).contains("hidden"), "{bad}");
        }
    }

    #[test]
    fn a_redis_url_is_checked_and_hides_its_password() {
        let shown = |text| RedisUrl::parse(text).expect(text).to_string();
        assert_eq!(shown("redis://127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0");
        assert_eq!(shown("rediss://app:pa@ss:word@redis.example:6380/2"), "rediss://***@redis.example:6380/2");
        assert_eq!(shown("redis://:secret@[::1]:6379"), "redis://***@[::1]:6379");
        assert_eq!(shown("redis://secret@host"), "redis://***@host");
        assert!(!format!("{:?}", RedisUrl::parse("redis://u:hidden@h")).contains("hidden"));
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://h",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:x",
            "redis://h/300",
            "redis://h/ 0",
            "redis-cluster://h:1",
        ] {
            assert!(RedisUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
