//! `[[projects]]`: the tenants with their secrets, and the demo project of dev and test.

use std::collections::HashMap;

use data_encoding::{BASE64, HEXLOWER};

use super::{
    Config, Environment,
    error::{ConfigError, Source},
    file::Table,
    values::Env,
};
use crate::model::{
    Pid, Project, Projects,
    project::{JwtKey, RequestRouting, Secret},
};

/// The demo project's name.
pub const DEMO_PID: &str = "1";
/// The demo project's secret. Everyone knows it, so prod refuses it.
pub const DEMO_SECRET: &str = "demo-secret-known-to-everyone";
/// Shortest secret in prod, in bytes.
pub(super) const SECRET_BYTES_MIN: usize = 16;
/// Most secrets of a project: the one in use and the one before or after it.
const SECRETS_MAX: usize = 2;

/// The projects of a node that was told none.
pub(super) fn demo(env: Env) -> Projects {
    let project = || Project {
        pid: Pid::new(DEMO_PID).expect("the demo project's name is well-formed"),
        secrets: vec![Secret::new(DEMO_SECRET)],
        jwt: Some(JwtKey::Hs256),
        requests: RequestRouting::One,
        origins: Vec::new(),
    };
    Projects::new((env != Env::Prod).then(project))
}

/// Adds the file's projects to `config`; one with the demo project's name replaces it.
pub(super) fn apply(config: &mut Config, tables: Vec<Table>, environment: &Environment) -> Result<(), ConfigError> {
    let mut sources: HashMap<Pid, Source> = HashMap::new();
    let mut projects: Vec<Project> = config.projects.iter().cloned().collect();
    for mut table in tables {
        let source = table.source.clone();
        let project = read(&mut table, config.env, environment)?;
        if let Some(first) = sources.insert(project.pid.clone(), source) {
            let reason = format!("is the pid of two projects; the other is at {}", first.of("pid"));
            return Err(ConfigError::bad_value(&table.path("pid"), &project.pid, &table.source, reason));
        }
        table.finish("pid, name, secrets, secret_files, secret_env, jwt, requests, origins")?;
        projects.push(project);
    }
    config.projects = Projects::new(projects);
    Ok(())
}

fn read(table: &mut Table, env: Env, environment: &Environment) -> Result<Project, ConfigError> {
    let pid = pid(table)?;
    let secrets = secrets(table, env, environment)?;
    let jwt = table.take_table("jwt")?.map(jwt).transpose()?;
    let requests = requests(table)?;
    let origins = origins(table)?;
    // A name is for whoever reads the file.
    table.take_text("name")?;
    Ok(Project { pid, secrets, jwt, requests, origins })
}

fn pid(table: &mut Table) -> Result<Pid, ConfigError> {
    let Some((text, source)) = table.take_text("pid")? else {
        return Err(table.refuse("pid", &table.source, "is missing: pid = \"502\""));
    };
    let bad = || {
        let reason = "is no pid; allowed is 1 to 128 bytes without commas or control characters";
        ConfigError::bad_value(&table.path("pid"), &text, &source, reason)
    };
    Pid::new(&text).ok_or_else(bad)
}

fn secrets(table: &mut Table, env: Env, environment: &Environment) -> Result<Vec<Secret>, ConfigError> {
    let mut found: Vec<(&str, Source, String)> = Vec::new();
    let (texts, source) = table.take_list("secrets")?;
    found.extend(texts.into_iter().map(|text| ("secrets", source.clone(), text)));
    let (files, source) = table.take_list("secret_files")?;
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let reason = format!("failed to read the secret: {error}");
            ConfigError::bad_value(&table.path("secret_files"), &file, &source, reason)
        })?;
        // Editors and `echo` end a file with a line feed that nobody means.
        found.push(("secret_files", source.clone(), text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let (names, source) = table.take_list("secret_env")?;
    for name in names {
        let Some(text) = environment.get(&name).and_then(|value| value.to_str()) else {
            let reason = "is not set in the environment, or is no UTF-8";
            return Err(ConfigError::bad_value(&table.path("secret_env"), &name, &source, reason));
        };
        found.push(("secret_env", source.clone(), text.to_owned()));
    }
    for (key, source, text) in &found {
        is_strong(text, env).map_err(|reason| table.refuse(key, source, reason))?;
    }
    match found.len() {
        1..=SECRETS_MAX => Ok(found.into_iter().map(|(_, _, text)| Secret::new(&text)).collect()),
        0 => Err(table.refuse("secrets", &table.source, "is missing: one secret, or two while they are rotated")),
        count => Err(table.refuse("secrets", &table.source, format!("are {count}; allowed is 1 or 2"))),
    }
}

/// Whether a secret may be used, without saying more of it than its length.
fn is_strong(secret: &str, env: Env) -> Result<(), String> {
    if secret.is_empty() {
        return Err("holds an empty secret".to_owned());
    }
    if env == Env::Prod && secret == DEMO_SECRET {
        return Err("holds the built-in demo secret, which everyone knows; env = prod refuses it".to_owned());
    }
    if env == Env::Prod && secret.len() < SECRET_BYTES_MIN {
        let length = secret.len();
        return Err(format!("holds a secret of {length} bytes; env = prod asks for at least {SECRET_BYTES_MIN}"));
    }
    Ok(())
}

fn requests(table: &mut Table) -> Result<RequestRouting, ConfigError> {
    match table.take_text("requests")? {
        None => Ok(RequestRouting::One),
        Some((text, _)) if text == "one" => Ok(RequestRouting::One),
        Some((text, _)) if text == "all" => Ok(RequestRouting::All),
        Some((text, source)) => {
            Err(ConfigError::bad_value(&table.path("requests"), &text, &source, "is unknown; allowed is one, all"))
        }
    }
}

fn origins(table: &mut Table) -> Result<Vec<Box<str>>, ConfigError> {
    let (origins, source) = table.take_list("origins")?;
    for origin in &origins {
        if !is_origin(origin) {
            let reason = "is no origin; write what browsers send: \"https://app.example.com\", with a port where it is unusual; or \"*\"";
            return Err(ConfigError::bad_value(&table.path("origins"), origin, &source, reason));
        }
    }
    Ok(origins.into_iter().map(|origin| origin.to_ascii_lowercase().into()).collect())
}

/// Whether a browser can send `text` as `Origin` (RFC 6454, section 6.2): `scheme://host[:port]` or `null`; or `*`, any.
fn is_origin(text: &str) -> bool {
    let is_host =
        |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*,".contains(&b));
    let is_scheme = |scheme: &str| scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    matches!(text, "*" | "null")
        || text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && is_scheme(scheme) && is_host(host))
}

fn jwt(mut table: Table) -> Result<JwtKey, ConfigError> {
    let Some((algorithm, source)) = table.take_text("algorithm")? else {
        return Err(table.refuse("algorithm", &table.source, "is missing: HS256, ES256 or EdDSA"));
    };
    let key = table.take_text("key")?;
    let key = match (algorithm.as_str(), &key) {
        ("HS256", None) => JwtKey::Hs256,
        ("HS256", Some((_, source))) => {
            return Err(table.refuse("key", source, "is not for HS256, which uses the project's secrets"));
        }
        ("ES256", Some((text, source))) => JwtKey::Es256(
            public_key(text, P256_PREFIX, P256_POINT_BYTES, Some(4))
                .map_err(|reason| table.refuse("key", source, reason))?,
        ),
        ("EdDSA", Some((text, source))) => JwtKey::EdDsa(
            public_key(text, ED25519_PREFIX, ED25519_BYTES, None)
                .map_err(|reason| table.refuse("key", source, reason))?,
        ),
        ("ES256" | "EdDSA", None) => {
            let reason = "is missing: the public key as PEM (-----BEGIN PUBLIC KEY-----) or base64";
            return Err(table.refuse("key", &table.source, reason));
        }
        _ => {
            let reason = "is unknown; allowed is HS256, ES256, EdDSA";
            return Err(ConfigError::bad_value(&table.path("algorithm"), &algorithm, &source, reason));
        }
    };
    table.finish("algorithm, key")?;
    Ok(key)
}

/// What precedes the point in the DER of a P-256 public key: id-ecPublicKey with prime256v1 (RFC 5480, section 2).
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const P256_POINT_BYTES: usize = 65;
/// What precedes the key in the DER of an Ed25519 public key (RFC 8410, section 4).
const ED25519_PREFIX: &str = "302a300506032b6570032100";
const ED25519_BYTES: usize = 32;

/// The raw bytes of a public key that is given as PEM, or as base64 of its DER or of itself.
fn public_key(text: &str, prefix: &str, bytes: usize, first: Option<u8>) -> Result<Box<[u8]>, String> {
    if text.contains("PRIVATE KEY") {
        return Err("is a private key; give the public one, the other belongs to whoever signs".to_owned());
    }
    let body: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let decoded = BASE64.decode(body.as_bytes()).map_err(|_| "is neither PEM nor base64".to_owned())?;
    let prefix = HEXLOWER.decode(prefix.as_bytes()).expect("the constants are hexadecimal");
    let raw = decoded.strip_prefix(prefix.as_slice()).unwrap_or(&decoded);
    if raw.len() != bytes || first.is_some_and(|first| raw[0] != first) {
        return Err(format!("is no public key of this algorithm: {bytes} bytes, alone or as SubjectPublicKeyInfo"));
    }
    Ok(raw.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_read_from_pem_der_and_raw() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let raw = public_key(pem, ED25519_PREFIX, ED25519_BYTES, None).expect("PEM");
        assert_eq!(raw.len(), 32);
        assert_eq!(public_key(&BASE64.encode(&raw), ED25519_PREFIX, ED25519_BYTES, None), Ok(raw.clone()));
        let mut point = vec![4];
        point.extend([7; 64]);
        let der = [HEXLOWER.decode(P256_PREFIX.as_bytes()).expect("hex"), point.clone()].concat();
        for form in [&der, &point] {
            let read = public_key(&BASE64.encode(form), P256_PREFIX, P256_POINT_BYTES, Some(4));
            assert_eq!(read.as_deref(), Ok(point.as_slice()));
        }
        point[0] = 2;
        for bad in ["", "!", pem, &BASE64.encode(&point), "-----BEGIN PRIVATE KEY-----"] {
            assert!(public_key(bad, P256_PREFIX, P256_POINT_BYTES, Some(4)).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for good in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:80",
            "null",
            "*",
            "capacitor://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "**", "app.example.com", "https://", "https://a/", "https://*.a", "https://a b", "://a"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
