//! The same sources again: what a running node takes over of them, and what it cannot.
//!
//! Invariants: what is refused leaves the running configuration as it was; what comes out has been checked twice, as a whole
//! (what a restart would run with) and mixed with what cannot change while the node runs; no secret is told.

use std::fmt;

use super::{
    Config, ConfigError, Environment, Flags, Loaded, Source, check,
    keys::{self, Applies},
    sources::Origins,
};

/// Where a configuration came from, to be read again.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Flags,
    environment: Environment,
}

/// What a reload comes to.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// What the node runs with from now on.
    pub config: Config,
    /// Keys that have another value, and `projects` or `tags` where those differ.
    pub changed: Vec<&'static str>,
    /// Keys whose new value waits for a restart, with where it was given.
    pub waiting: Vec<Waiting>,
    /// One sentence each, for the log.
    pub warnings: Vec<String>,
}

/// A key that cannot change while the node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The key.
    pub key: &'static str,
    /// Where its new value was given.
    pub source: Source,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) has changed and waits for a restart", self.key, self.source.of(self.key))
    }
}

impl Sources {
    /// These flags and this environment, and the file that one of them names.
    pub fn new(flags: &Flags, environment: &Environment) -> Self {
        Self { flags: flags.clone(), environment: environment.clone() }
    }

    /// Reads everything again for a node that runs with `running`.
    ///
    /// # Errors
    /// Those of [`Config::load`]; or a key's new value cannot work with what another one has until a restart.
    pub fn reload(&self, running: &Config) -> Result<Reloaded, ConfigError> {
        let Loaded { config: wanted, origins, warnings, .. } = Config::load(&self.flags, &self.environment)?;
        let mut config = wanted.clone();
        let mut waiting = Vec::new();
        for key in keys::all().filter(|key| key.applies() == Applies::Restart) {
            if !key.is_same(running, &wanted) {
                let source = origins.get(key.name).cloned().unwrap_or(Source::Default);
                waiting.push(Waiting { key: key.name, source });
            }
            key.copy(&mut config, running);
        }
        if !waiting.is_empty() {
            check_mixed(&config, &origins, &waiting)?;
        }
        Ok(Reloaded { changed: changed(running, &config), config, waiting, warnings })
    }
}

/// What is new must also work with what stays.
fn check_mixed(config: &Config, origins: &Origins, waiting: &[Waiting]) -> Result<(), ConfigError> {
    let mut origins = origins.clone();
    // Where a value that stays was given is not known any more; what was given now is another.
    waiting.iter().for_each(|waiting| drop(origins.remove(waiting.key)));
    check::check(config, &origins).map(drop).map_err(|error| {
        let keys: Vec<&str> = waiting.iter().map(|waiting| waiting.key).collect();
        error.because(&format!("{} cannot change before a restart", keys.join(", ")))
    })
}

fn changed(running: &Config, config: &Config) -> Vec<&'static str> {
    let mut changed: Vec<&str> = keys::all().filter(|key| !key.is_same(running, config)).map(|key| key.name).collect();
    changed.extend((running.projects != config.projects).then_some("projects"));
    changed.extend((!running.tags.iter().eq(config.tags.iter())).then_some("tags"));
    changed
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}
