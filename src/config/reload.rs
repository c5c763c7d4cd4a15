//! The same sources again: what a running node takes over of them, and what it cannot.
//!
//! Invariants: what is refused leaves the running configuration as it was; what comes out has been checked twice, as a whole
//! (what a restart would run with) and mixed with what cannot change while the node runs; no secret is told.

use std::fmt;

use super::{
    Config, ConfigError, Environment, Flags, Loaded, Source,
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
        let Loaded { config: wanted, origins, .. } = Config::load(&self.flags, &self.environment)?;
        let differs = |key: &&keys::Key| key.applies() == Applies::Restart && !key.is_same(running, &wanted);
        let source = |key| origins.get(key).cloned().unwrap_or(Source::Default);
        let waiting = keys::all().filter(differs).map(|key| Waiting { key: key.name, source: source(key.name) });
        let waiting: Vec<Waiting> = waiting.collect();
        let mixed = Config::load_beside(&self.flags, &self.environment, Some(running));
        let Loaded { config, warnings, .. } = mixed.map_err(|error| error.because(&blame(&waiting)))?;
        Ok(Reloaded { changed: changed(running, &config), config, waiting, warnings })
    }
}

/// Gives `config` what cannot change while a node runs; where that was given once is not known any more.
pub(super) fn keep(running: &Config, config: &mut Config, origins: &mut Origins) {
    for key in keys::all().filter(|key| key.applies() == Applies::Restart) {
        if !key.is_same(running, config) {
            key.copy(config, running);
            origins.remove(key.name);
        }
    }
}

/// Why what is good by itself cannot be had now.
fn blame(waiting: &[Waiting]) -> String {
    let keys: Vec<&str> = waiting.iter().map(|waiting| waiting.key).collect();
    format!("{} cannot change before a restart", keys.join(", "))
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{keys::Key, value::Kind};

    /// Values of the keys whose form does not say any.
    const GIVEN: &[(&str, &str)] = &[
        ("public_addr", "ws.example.com:1"),
        ("ws_host", "127.0.0.2"),
        ("http_host", "127.0.0.2"),
        ("operator_host", "127.0.0.2"),
        ("operator_token", "a-token-of-operators"),
        ("ws_port", "1"),
        ("http_port", "2"),
        ("metrics_port", "3"),
        ("pprof_port", "4"),
        ("swagger_port", "5"),
        ("trusted_proxies", "10.0.0.0/8"),
        ("redis_url", "redis://127.0.0.1:1/0"),
        ("redis_ca_file", "other.pem"),
        ("redis_cert_file", "other.pem"),
        ("redis_key_file", "other.pem"),
        ("key_prefix", "other"),
        ("log_targets", "ws_cluster=warn"),
        ("log_file", "other.log"),
        ("sentry_dsn", "http://key@127.0.0.1:1/1"),
        ("otlp_endpoint", "http://127.0.0.1:1/v1/traces"),
    ];

    /// What is given beside a key that would be refused alone.
    fn company(key: &str) -> &'static [(&'static str, &'static str)] {
        match key {
            "redis_url" | "ack" => &[("queue", "redis")],
            "redis_ca_file" => &[("queue", "redis"), ("redis_url", "rediss://127.0.0.1:1/0")],
            "redis_cert_file" | "redis_key_file" => &[
                ("queue", "redis"),
                ("redis_url", "rediss://127.0.0.1:1/0"),
                ("redis_cert_file", "one.pem"),
                ("redis_key_file", "one.pem"),
            ],
            _ => &[],
        }
    }

    fn sources(flags: &[(&'static str, &str)]) -> Sources {
        let mut given = Flags::default();
        flags.iter().for_each(|(key, value)| given.set(key, OsString::from(value)));
        Sources::new(&given, &Environment::default())
    }

    /// Texts that a key may be given, one of which is another value than the running one.
    fn texts(key: &Key) -> Vec<String> {
        if let Some((_, text)) = GIVEN.iter().find(|(name, _)| *name == key.name) {
            return vec![(*text).to_owned()];
        }
        match key.kind {
            Kind::Number(bounds) => {
                let (min, max) = (bounds.min, bounds.max);
                let numbers = [min, min + 1, max, max - 1, min.midpoint(max), (min * 100).clamp(min, max)];
                let text = |number: u64| match bounds.unit {
                    crate::config::value::Unit::Time => format!("{number}ms"),
                    _ => number.to_string(),
                };
                numbers.map(text).into()
            }
            Kind::Word(form) => form.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            Kind::Text(form, _) => panic!("{}: give it a value that is {form}", key.name),
        }
    }

    #[test]
    fn every_key_is_put_into_effect_or_waits_for_a_restart_by_name() {
        for key in keys::all() {
            let company = company(key.name);
            let running = Config::load(&sources(company).flags, &Environment::default()).expect("the defaults").config;
            let reload = |text: &String| {
                let flags = [company, &[(key.name, text.as_str())]].concat();
                sources(&flags).reload(&running).ok()
            };
            let differs = |reloaded: &Reloaded| {
                !key.is_same(&running, &reloaded.config)
                    || reloaded.waiting.iter().any(|waiting| waiting.key == key.name)
            };
            let reloaded = texts(key).iter().filter_map(reload).find(differs);
            let Reloaded { config, changed, waiting, .. } =
                reloaded.unwrap_or_else(|| panic!("{}: no text gives it another value", key.name));
            if key.applies() == Applies::Restart {
                assert!(key.is_same(&running, &config), "{} is in effect", key.name);
                assert!(waiting[0].to_string().contains(&format!("{} (flag --{})", key.name, key.name)), "{waiting:?}");
                assert!(changed.is_empty(), "{}: {changed:?}", key.name);
            } else {
                assert_eq!((changed, waiting), (vec![key.name], vec![]));
            }
        }
    }

    #[test]
    fn what_cannot_work_with_what_stays_is_refused_and_says_so() {
        let running = Config::load(&Flags::default(), &Environment::default()).expect("the defaults").config;
        // Good together, but the log in the queue cannot grow before a restart.
        let flags = [
            ("batch_bytes_max", "64MiB"),
            ("pending_bytes_max", "1GiB"),
            ("replay_bytes_max", "1GiB"),
            ("log_bytes_max", "1GiB"),
        ];
        let small = Config::load(&sources(&[("log_bytes_max", "2MiB")]).flags, &Environment::default());
        let running = Config { limits: small.expect("good").config.limits, ..running };
        let told = sources(&flags).reload(&running).expect_err("a refusal").to_string();
        assert!(told.contains("batch_bytes_max = \"64MiB\""), "{told}");
        assert!(told.contains("log_bytes_max cannot change before a restart"), "{told}");
    }

    #[test]
    fn nothing_new_changes_nothing() {
        let running = Config::load(&Flags::default(), &Environment::default()).expect("the defaults").config;
        let Reloaded { changed, waiting, .. } = Sources::default().reload(&running).expect("the same");
        assert_eq!((changed, waiting), (vec![], vec![]));
    }
}
