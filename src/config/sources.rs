//! What was given where, and which of it counts: flags over environment over file.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::{
    error::{ConfigError, Source, environment_name},
    file::File,
    keys,
    value::{Raw, Value},
    values::Env,
};

/// The flags that were given, by key. No `Debug`: some are secret.
#[derive(Clone, Default)]
pub struct Flags(BTreeMap<&'static str, OsString>);

impl Flags {
    /// Notes a flag; of two with one key the later counts.
    pub fn set(&mut self, key: &'static str, value: OsString) {
        self.0.insert(key, value);
    }
}

/// The process's environment, or what a test says it is. No `Debug`: some of it is secret.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Collects variables; one whose name is no UTF-8 cannot be ours.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    /// What is given for `key`. A key that begins with `ws_` may go without its second `WS_`: `WS_PORT`. That
    /// name is also what Kubernetes gives every pod beside a service called `ws`, as `tcp://…`; it is passed over.
    fn of_key(&self, key: &str) -> Option<&OsStr> {
        let short =
            || self.get(&key.to_ascii_uppercase()).filter(|value| key.starts_with("ws_") && !is_service_link(value));
        self.get(&environment_name(key)).or_else(short)
    }
}

/// A value with its source.
#[derive(Clone)]
pub struct Given {
    /// The value.
    pub raw: Raw,
    /// Where it was given.
    pub source: Source,
}

/// Where each key that is not at its default was given.
pub type Origins = BTreeMap<&'static str, Source>;

/// The file that flags or environment name.
pub fn file_named(flags: &Flags, environment: &Environment) -> Result<Option<PathBuf>, ConfigError> {
    let (path, source) = match (flags.0.get("config"), environment.of_key("config")) {
        (Some(path), _) => (PathBuf::from(path), Source::Flag),
        (None, Some(path)) => (PathBuf::from(path), Source::Environment),
        (None, None) => return Ok(None),
    };
    if path.as_os_str().is_empty() {
        return Err(ConfigError::bad_key("config", &source, "is empty; leave it out or name a file"));
    }
    Ok(Some(path))
}

/// The value that counts for each key that was given anywhere.
pub fn merge(
    flags: &Flags,
    environment: &Environment,
    file: Option<&File>,
) -> Result<BTreeMap<&'static str, Given>, ConfigError> {
    let mut given = BTreeMap::new();
    for key in keys::all() {
        let from_flag = flags.0.get(key.name).map(|value| from_text(key, value, Source::Flag));
        let from_environment = || environment.of_key(key.name).map(|value| from_text(key, value, Source::Environment));
        let from_file = || file.and_then(|file| file.settings.get(key.name)).cloned().map(Ok);
        if let Some(value) = from_flag.or_else(from_environment).or_else(from_file) {
            given.insert(key.name, value?);
        }
    }
    Ok(given)
}

fn from_text(key: &keys::Key, value: &OsStr, source: Source) -> Result<Given, ConfigError> {
    if source == Source::Environment && is_service_link(value) {
        let reason = "looks like what Kubernetes sets for a service of that name; rename the service or set enableServiceLinks: false";
        return Err(ConfigError::bad_key(key.name, &source, reason));
    }
    match value.to_str() {
        Some(text) => Ok(Given { raw: Raw::One(text.to_owned()), source }),
        None => Err(ConfigError::bad_key(key.name, &source, "is no UTF-8")),
    }
}

fn is_service_link(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.starts_with("tcp://") || text.starts_with("udp://"))
}

/// What the node is for, which decides the other defaults.
pub fn env_of(given: &BTreeMap<&'static str, Given>) -> Result<Env, ConfigError> {
    let mut env = Env::Dev;
    if let Some(given) = given.get("env") {
        let key = keys::find("env").expect("env is a key");
        let bad = |reason| ConfigError::bad_value(key.name, &given.raw.text(), &given.source, reason);
        env.read(&given.raw, &key.kind).map_err(bad)?;
    }
    Ok(env)
}

/// The sources without their values.
pub fn origins(given: &BTreeMap<&'static str, Given>) -> Origins {
    given.iter().map(|(key, given)| (*key, given.source.clone())).collect()
}
