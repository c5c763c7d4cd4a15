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
    /// When a push is answered.
    Ack {
        /// When it is in the log.
        Log = "log",
        /// When replicas have it too.
        Replica = "replica",
        /// When it is on the disk of the queue.
        Disk = "disk",
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

/// Divides `host:port`, `[::1]:port` or a host alone.
pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
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
}
