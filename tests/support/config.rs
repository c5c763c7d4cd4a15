//! The configuration file of the test nodes.

use super::token;

/// The project most tests speak in, and its secrets (the first signs, the second is on its way out).
pub const PID: &str = "502";
/// Its current secret.
pub const SECRET: &str = "the-secret-of-502-that-signs";
/// Its previous secret.
pub const OLD_SECRET: &str = "the-secret-of-502-before-that";
/// The neighbour that must never hear anything.
pub const OTHER_PID: &str = "503";
/// Its secret.
pub const OTHER_SECRET: &str = "the-secret-of-503-is-another";
/// Accepts tokens with ES256.
pub const ES256_PID: &str = "66";
/// Accepts tokens with EdDSA.
pub const EDDSA_PID: &str = "77";
/// Its requests go to all back-ends.
pub const ALL_PID: &str = "578";
/// Only browsers from [`ORIGIN`] may connect.
pub const ORIGIN_PID: &str = "600";
/// The allowed origin of [`ORIGIN_PID`].
pub const ORIGIN: &str = "https://app.example.com";
/// The secret of every other project.
pub const SHARED_SECRET: &str = "a-secret-for-the-lesser-projects";

/// The secret that signs for a project.
pub fn secret_of(pid: &str) -> &'static str {
    match pid {
        PID => SECRET,
        OTHER_PID => OTHER_SECRET,
        _ => SHARED_SECRET,
    }
}

/// What differs between tests.
#[derive(Clone, Debug, Default)]
pub struct Config {
    top: Vec<String>,
    limits: Vec<String>,
    flags: Vec<String>,
}

impl Config {
    /// The defaults, with limits per address and per uid out of the tests' way.
    pub fn new() -> Self {
        Self::default().limit("connections_per_address", 0).limit("connections_per_uid", 0)
    }

    /// Sets a limit; text values come with their quotes.
    pub fn limit(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.limits.retain(|line| !line.starts_with(&format!("{key} ")));
        self.limits.push(format!("{key} = {value}"));
        self
    }

    /// Sets a key of the file's top level.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.top.push(format!("{key} = {value}"));
        self
    }

    /// Adds flags to the command line.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The extra flags.
    pub fn extra_flags(&self) -> &[String] {
        &self.flags
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let (es256, eddsa) = (token::es256_public(), token::eddsa_public());
        let (top, limits) = (self.top.join("\n"), self.limits.join("\n"));
        format!(
            r#"{top}
[limits]
{limits}
[[projects]]
pid = "{PID}"
secrets = ["{SECRET}", "{OLD_SECRET}"]
jwt = {{ algorithm = "HS256" }}
[[projects]]
pid = "{OTHER_PID}"
secrets = ["{OTHER_SECRET}"]
[[projects]]
pid = "{ES256_PID}"
secrets = ["{SHARED_SECRET}"]
jwt = {{ algorithm = "ES256", key = "{es256}" }}
[[projects]]
pid = "{EDDSA_PID}"
secrets = ["{SHARED_SECRET}"]
jwt = {{ algorithm = "EdDSA", key = "{eddsa}" }}
[[projects]]
pid = "{ALL_PID}"
secrets = ["{SHARED_SECRET}"]
requests = "all"
[[projects]]
pid = "{ORIGIN_PID}"
secrets = ["{SHARED_SECRET}"]
origins = ["{ORIGIN}"]
[[tags]]
match = "private.*"
access = "private"
[[tags]]
match = "own.*"
access = "own"
[[tags]]
match = "dedup.*"
dedup = true
[[tags]]
match = "latest.*"
class = "latest"
[[tags]]
match = "plain.*"
deflate = false
[[tags]]
match = "rated.*"
max_hz = 5
[[tags]]
match = "short.*"
history = {{ count = 2, age_s = 600, bytes = 262144 }}
"#
        )
    }
}
