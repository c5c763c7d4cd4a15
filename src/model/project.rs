//! Projects (tenants): their secrets, tokens and rules.

use std::{collections::HashMap, fmt, sync::Arc};

use super::ids::Pid;

/// A signing secret. It never shows itself: `Debug` prints stars, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps the text of a secret.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret's bytes, for a MAC and nothing else.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a project's tokens are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKey {
    /// HMAC-SHA256 with any of the project's secrets.
    Hs256,
    /// ECDSA P-256: the public key as an uncompressed SEC 1 point (65 bytes).
    Es256(Box<[u8]>),
    /// Ed25519: the public key (32 bytes).
    EdDsa(Box<[u8]>),
}

/// To how many back-ends a user's request goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestRouting {
    /// Exactly one: the one with the least pending.
    #[default]
    One,
    /// All of the project's, as the Go service did.
    All,
}

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub pid: Pid,
    /// One or two signing secrets; either is accepted (rotation), the first signs.
    pub secrets: Vec<Secret>,
    /// Accepts tokens of this kind in place of `sign`; none are accepted without it.
    pub jwt: Option<JwtKey>,
    /// To how many back-ends a request goes.
    pub requests: RequestRouting,
    /// Browser origins that may connect; empty: any in dev, the own host in prod.
    pub origins: Vec<Box<str>>,
}

/// All projects of a node, by pid; replaced whole on a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projects(Arc<HashMap<Pid, Project, ahash::RandomState>>);

impl Projects {
    /// Collects projects; of two with one pid the later wins (the config refuses them before).
    pub fn new(projects: impl IntoIterator<Item = Project>) -> Self {
        Self(Arc::new(projects.into_iter().map(|project| (project.pid.clone(), project)).collect()))
    }

    /// The project named `pid`.
    pub fn get(&self, pid: &str) -> Option<&Project> {
        self.0.get(pid)
    }

    /// Every project, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Project> {
        self.0.values()
    }
}
