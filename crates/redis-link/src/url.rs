//! What a URL says: which servers, how they are found, and as whom one speaks to them.
//!
//! Invariant: no error repeats the URL or a part of it that may be secret.

use fred::types::config::{Config, Server as Address, ServerConfig};

use crate::{LinkError, TlsFiles, tls};

/// The service that sentinels are asked for when the URL does not say.
const SERVICE: &str = "mymaster";
/// What fred reads in place of our hosts: one may be an IPv6 address in brackets, which it would not look up.
const STAND_IN: &str = "host.invalid";
/// What may stand behind the `?`, in fred's names.
const PARAMETERS: &[&str] = &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"];

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// There is one.
    One(Address),
    /// Sentinels know it.
    Sentinel {
        /// Where the sentinels are.
        sentinels: Vec<Address>,
        /// What they call the master.
        service: String,
        /// As whom they are asked.
        login: (Option<String>, Option<String>),
    },
    /// Every member of the cluster knows all masters.
    Cluster {
        /// Members.
        seeds: Vec<Address>,
    },
}

/// What a URL says.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// How one speaks to a server; which one is filled in.
    pub(crate) base: Config,
    pub(crate) shape: Shape,
}

impl Target {
    /// How one speaks to the server at `address`.
    pub(crate) fn config(&self, address: &Address) -> Config {
        Config { server: ServerConfig::Centralized { server: address.clone() }, ..self.base.clone() }
    }

    /// How one speaks to a member that is asked for the others.
    pub(crate) fn scout_config(&self, address: &Address) -> Config {
        let config = self.config(address);
        match &self.shape {
            Shape::Sentinel { login: (username, password), .. } => {
                Config { username: username.clone(), password: password.clone(), database: None, ..config }
            }
            Shape::One(_) | Shape::Cluster { .. } => config,
        }
    }

    /// Reads a URL.
    pub(crate) fn parse(url: &str, files: &TlsFiles) -> Result<Self, LinkError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (bare, is_tls) = match scheme {
            "redis" | "redis-sentinel" | "redis-cluster" => (scheme.to_owned(), false),
            "rediss" | "rediss-sentinel" | "rediss-cluster" => (scheme.replacen("rediss", "redis", 1), true),
            _ => return Err(wrong("it must begin with redis://, redis-sentinel://, redis-cluster:// or rediss…://")),
        };
        let default_port = if bare == "redis-sentinel" { 26379 } else { 6379 };
        let (hosts, one_host) = split(&bare, rest)?;
        // fred's own text may hold the URL, and with it a password.
        let mut base = Config::from_url(&one_host).map_err(|_| wrong("it is malformed"))?;
        let mut addresses: Vec<Address> = hosts
            .iter()
            .map(|host| address(host, default_port))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("it is malformed"))?;
        let shape = match std::mem::take(&mut base.server) {
            ServerConfig::Sentinel { hosts, service_name, username, password } => {
                addresses.extend(hosts.into_iter().filter(|host| host.host != STAND_IN));
                Shape::Sentinel { sentinels: addresses, service: service_name, login: (username, password) }
            }
            ServerConfig::Clustered { hosts, .. } => {
                addresses.extend(hosts.into_iter().filter(|host| host.host != STAND_IN));
                Shape::Cluster { seeds: addresses }
            }
            _ if addresses.len() > 1 => {
                return Err(wrong("redis:// takes one host; name more with redis-sentinel:// or redis-cluster://"));
            }
            _ => Shape::One(addresses.remove(0)),
        };
        base.fail_fast = false;
        base.tls = is_tls.then(|| tls::connector(files).map(Into::into)).transpose()?;
        Ok(Self { base, shape })
    }
}

/// Divides what follows the scheme: the hosts, and a URL with one of them as fred reads it.
fn split<'a>(scheme: &str, rest: &'a str) -> Result<(Vec<&'a str>, String), LinkError> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
    let hosts: Vec<&str> = hosts.split(',').collect();
    let mut parameters: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    let name = |part: &&str| part.split_once('=').map_or(*part, |(name, _)| name).to_owned();
    if let Some(unknown) = parameters.iter().map(name).find(|name| !PARAMETERS.contains(&name.as_str())) {
        let known = PARAMETERS.join(", ");
        return Err(wrong(&format!("it has a parameter {:?}; known are {known}", shortened(&unknown))));
    }
    let service = format!("sentinelServiceName={SERVICE}");
    if scheme == "redis-sentinel" && !parameters.iter().any(|part| name(part) == "sentinelServiceName") {
        parameters.push(&service);
    }
    if scheme == "redis" && !parameters.is_empty() {
        return Err(wrong("redis:// has no parameters"));
    }
    if scheme == "redis-cluster" && !matches!(database, "" | "0") {
        return Err(wrong("a cluster has only the database 0"));
    }
    let at = if login.is_empty() { "" } else { "@" };
    let (database, query) = (database.trim_end_matches('/'), parameters.join("&"));
    Ok((hosts, format!("{scheme}://{login}{at}{STAND_IN}/{database}?{query}")))
}

/// `host`, `host:port` or `[v6]:port`.
fn address(text: &str, default_port: u16) -> Option<Address> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (text, default_port),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty() && port != 0).then(|| Address::new(host, port))
}

fn wrong(why: &str) -> LinkError {
    LinkError::Url(why.to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Target {
        Target::parse(url, &TlsFiles::default()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn places(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(|address| format!("{}:{}", address.host, address.port)).collect()
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_repeated() {
        for (url, why) in [
            ("http://secret@a", "redis://"),
            ("secret", "redis://"),
            ("redis://:secret@host:notaport", "malformed"),
            ("redis://:secret@", "malformed"),
            ("redis://:secret@a,b", "one host"),
            ("redis://:secret@a/0?node=b:1", "no parameters"),
            ("redis-cluster://:secret@a/3", "database 0"),
            ("redis-sentinel://a?sentinelPasswort=secret", "parameter"),
            ("redis-sentinel://a:1,:2", "malformed"),
        ] {
            let error = Target::parse(url, &TlsFiles::default()).expect_err(url).to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn one_server_has_a_database_and_a_user() {
        let target = parse("redis://user:p%40ss@[::1]:6380/3");
        assert_eq!(target.shape, Shape::One(Address::new("::1", 6380)));
        assert_eq!((target.base.username.as_deref(), target.base.password.as_deref()), (Some("user"), Some("p@ss")));
        assert_eq!(target.base.database, Some(3));
        assert_eq!(parse("redis://host").shape, Shape::One(Address::new("host", 6379)));
    }

    #[test]
    fn sentinels_are_named_with_commas_or_parameters_and_have_a_user_of_their_own() {
        let target = parse(
            "redis-sentinel://app:one@a,b:27000/2?node=c:3&sentinelServiceName=feed&sentinelUsername=watch&sentinelPassword=two",
        );
        let Shape::Sentinel { sentinels, service, login } = &target.shape else { panic!("{:?}", target.shape) };
        assert_eq!(places(sentinels), ["a:26379", "b:27000", "c:3"]);
        assert_eq!((service.as_str(), login.0.as_deref(), login.1.as_deref()), ("feed", Some("watch"), Some("two")));
        let (to_master, to_sentinel) = (target.config(&sentinels[0]), target.scout_config(&sentinels[0]));
        assert_eq!((to_master.password.as_deref(), to_master.database), (Some("one"), Some(2)));
        assert_eq!((to_sentinel.password.as_deref(), to_sentinel.database), (Some("two"), None));
        let plain = parse("redis-sentinel://a");
        assert!(matches!(plain.shape, Shape::Sentinel { service, .. } if service == SERVICE));
    }

    #[test]
    fn a_cluster_has_seeds() {
        let target = parse("redis-cluster://u:p@a:7000,b:7001/0?node=c:7002");
        let Shape::Cluster { seeds } = &target.shape else { panic!("{:?}", target.shape) };
        assert_eq!(places(seeds), ["a:7000", "b:7001", "c:7002"]);
        assert_eq!(target.scout_config(&seeds[0]).password.as_deref(), Some("p"));
    }

    #[test]
    fn a_file_of_roots_that_has_none_is_refused() {
        let files = TlsFiles { roots: Some("/nonexistent/roots.pem".into()), identity: None };
        let error = Target::parse("rediss://:secret@host", &files).expect_err("no roots").to_string();
        assert!(error.contains("roots.pem") && !error.contains("secret"), "{error}");
    }
}
