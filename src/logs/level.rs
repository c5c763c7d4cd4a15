//! Which lines are logged, as it is told at the start and changed while the node runs: `info`, or
//! `info,ws_cluster::broker=debug`.
//!
//! Invariant: what is not understood changes nothing; a typo is refused and not taken for a module's name.

use std::{fmt, sync::PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::limits::LOG_DIRECTIVES_BYTES_MAX;

#[expect(clippy::disallowed_types, reason = "taken for an operator's order or question only")]
type Lock<T> = std::sync::RwLock<T>;

/// The levels in words, from nothing to everything that is built in.
const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
];

/// What directives look like.
pub const FORM: &str = "a level (off, error, warn, info, debug), or that and exceptions: info,ws_cluster::broker=debug";

/// Directives that were understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Directives {
    default: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

/// Directives that were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood;

impl Directives {
    /// Reads directives: one level and any number of `module=level`, in any order, with commas between.
    ///
    /// # Errors
    /// An unknown level, none or two for everything, a module with other characters than a path has, or too long a text.
    pub fn parse(text: &str) -> Result<Self, NotUnderstood> {
        if text.len() > LOG_DIRECTIVES_BYTES_MAX {
            return Err(NotUnderstood);
        }
        let (mut default, mut targets) = (None, Vec::new());
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((target, level)) => targets.push((target_of(target)?, level_of(level)?)),
                None if default.is_none() => default = Some(level_of(part)?),
                None => return Err(NotUnderstood),
            }
        }
        Ok(Self { default: default.ok_or(NotUnderstood)?, targets })
    }

    fn filter(&self) -> Targets {
        Targets::new().with_default(self.default).with_targets(self.targets.iter().cloned())
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(self.default))?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ",{target}={}", word(*level)))
    }
}

fn level_of(word: &str) -> Result<LevelFilter, NotUnderstood> {
    LEVELS.iter().find(|(known, _)| *known == word.trim()).map(|(_, level)| *level).ok_or(NotUnderstood)
}

fn word(level: LevelFilter) -> &'static str {
    LEVELS.iter().find(|(_, known)| *known == level).map_or("debug", |(word, _)| word)
}

fn target_of(text: &str) -> Result<String, NotUnderstood> {
    let text = text.trim();
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    if text.is_empty() || !text.chars().all(is_path) { Err(NotUnderstood) } else { Ok(text.to_owned()) }
}

/// Changes the level of what is installed.
pub struct Control {
    apply: Box<dyn Fn(Targets) + Send + Sync>,
    now: Lock<Directives>,
}

impl Control {
    /// A control over a filter that `apply` replaces; `first` is in effect already.
    pub fn new(first: Directives, apply: impl Fn(Targets) + Send + Sync + 'static) -> Self {
        Self { apply: Box::new(apply), now: Lock::new(first) }
    }

    /// What is in effect.
    pub fn now(&self) -> Directives {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `directives` into effect; what was before.
    pub fn set(&self, directives: Directives) -> Directives {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        (self.apply)(directives.filter());
        std::mem::replace(&mut now, directives)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The filter of directives, for the first time.
pub(super) fn filter(directives: &Directives) -> Targets {
    directives.filter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_read_back_as_they_are_shown() {
        for (text, shown) in [
            ("info", "info"),
            ("off", "off"),
            (" warn , ws_cluster::broker = debug ", "warn,ws_cluster::broker=debug"),
            ("ws_cluster=off,error", "error,ws_cluster=off"),
        ] {
            let directives = Directives::parse(text).expect(text);
            assert_eq!(directives.to_string(), shown);
            assert_eq!(Directives::parse(shown), Ok(directives));
        }
    }

    #[test]
    fn a_typo_is_refused() {
        let long = "x".repeat(2000) + "=info,info";
        for bad in [
            "",
            "debgu",
            "INFO",
            "trace",
            "5",
            "info,",
            "info,warn",
            "ws_cluster=debug",
            "info,ws_cluster=",
            "info,=debug",
            "info,ws cluster=debug",
            "info,ws_cluster=debgu",
            "info,a=b=debug",
            &long,
        ] {
            assert_eq!(Directives::parse(bad), Err(NotUnderstood), "{bad}");
        }
    }
}
