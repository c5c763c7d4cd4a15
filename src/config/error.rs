//! Why a configuration is refused: which key, which value, and where that was given.

use std::{fmt, path::Path, sync::Arc};

use crate::limits::USER_TEXT_BYTES_MAX;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In the file, on this line (counted from 1).
    File(Arc<Path>, usize),
    /// Nowhere.
    Default,
}

impl Source {
    /// The source as a reader finds it again: `flag --ws_port`, `environment WS_WS_PORT`, `conf.toml line 3`.
    pub fn of(&self, key: &str) -> String {
        match self {
            Self::Flag => format!("flag --{key}"),
            Self::Environment => format!("environment {}", environment_name(key)),
            Self::File(path, line) => format!("{} line {line}", path.display()),
            Self::Default => "default".to_owned(),
        }
    }
}

/// The environment variable of a key: `WS_` and the key in capitals.
pub fn environment_name(key: &str) -> String {
    format!("WS_{}", key.to_ascii_uppercase())
}

/// A configuration that is refused. Its text names key, value and source, and says what would be right; it
/// never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    value: Option<String>,
    source: Source,
    reason: String,
}

impl ConfigError {
    /// Refuses `value` of `key`.
    pub(super) fn bad_value(key: &str, value: &str, source: &Source, reason: impl Into<String>) -> Self {
        let value = Some(quoted(value));
        Self { key: key.to_owned(), value, source: source.clone(), reason: reason.into() }
    }

    /// Refuses `key` without showing its value: because there is none, or because it is secret.
    pub(super) fn bad_key(key: &str, source: &Source, reason: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: None, source: source.clone(), reason: reason.into() }
    }

    /// The same, and `why` on top.
    pub(super) fn because(mut self, why: &str) -> Self {
        self.reason = format!("{}; {why}", self.reason);
        self
    }

    /// The key that is refused.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where it was given.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.source.of(&self.key), self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// A value as it is shown: quoted, escaped and cut.
fn quoted(value: &str) -> String {
    if value.len() <= USER_TEXT_BYTES_MAX {
        return format!("{value:?}");
    }
    let end = value.floor_char_boundary(USER_TEXT_BYTES_MAX);
    format!("{:?}…", &value[..end])
}
