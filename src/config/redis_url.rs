//! The address of Redis, with the passwords in it.
//!
//! Invariant: `Debug` and `Display` print stars in their place.

use std::fmt;

use super::values::split_port;

/// What would be right, for whoever wrote something else.
const FORM: &str = "write redis://[user:pass@]host:port/db, redis-sentinel://[user:pass@]host:port,host:port/db, \
                    redis-cluster://[user:pass@]host:port,host:port, or the same with rediss for TLS";
/// The parameter that names the sentinels' own password.
const SENTINEL_PASSWORD: &str = "sentinelPassword=";

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Box<str>);

impl RedisUrl {
    /// Checks scheme, hosts and ports; what stands there otherwise is for the queue to judge.
    ///
    /// # Errors
    /// What would be right, without the URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let is_one = matches!(scheme, "redis" | "rediss");
        let is_many = ["redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster"].contains(&scheme);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (address, database) = place.split_once('/').unwrap_or((place, ""));
        let hosts = address.rsplit_once('@').map_or(address, |(_, after)| after);
        let hosts_are_good = hosts.split(',').all(is_host) && (is_many || !hosts.contains(','));
        let is_database = database.is_empty() || database.parse::<u8>().is_ok();
        let is_printable = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        let is_good = hosts_are_good && is_database && is_printable && (is_many || is_one && query.is_empty());
        is_good.then(|| Self(text.into())).ok_or(FORM)
    }

    /// The URL with its password, for the connection and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("rediss")
    }

    /// What must never be shown: credentials, the passwords in them, as they stand there.
    pub fn secrets(&self) -> Vec<&str> {
        let Parts { login, sentinel, .. } = self.parts();
        let password = login.and_then(|login| login.split_once(':')).map(|(_, password)| password);
        [login, password, sentinel].into_iter().flatten().filter(|secret| !secret.is_empty()).collect()
    }

    fn parts(&self) -> Parts<'_> {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("redis", &self.0));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, place) = place.rsplit_once('@').map_or((None, place), |(login, place)| (Some(login), place));
        let sentinel = query.split('&').find_map(|part| part.strip_prefix(SENTINEL_PASSWORD));
        Parts { scheme, login, place, query, sentinel }
    }
}

/// The parts of a URL.
struct Parts<'u> {
    scheme: &'u str,
    login: Option<&'u str>,
    place: &'u str,
    query: &'u str,
    sentinel: Option<&'u str>,
}

fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

impl Default for RedisUrl {
    fn default() -> Self {
        Self("redis://127.0.0.1:6379/0".into())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { scheme, login, place, query, .. } = self.parts();
        // The name too: some write the password in its place.
        let stars = if login.is_some() { "***@" } else { "" };
        write!(f, "{scheme}://{stars}{place}")?;
        for (at, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
            let sign = if at == 0 { '?' } else { '&' };
            // Only what is known to be harmless is shown.
            let is_harmless = part.starts_with("node=") || part.starts_with("sentinelServiceName=");
            let name = part.split_once('=').map_or("", |(name, _)| name);
            if is_harmless { write!(f, "{sign}{part}")? } else { write!(f, "{sign}{name}=***")? }
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_is_checked_and_hides_its_password() {
        let shown = |text| RedisUrl::parse(text).expect(text).to_string();
        assert_eq!(shown("redis://127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0");
        assert_eq!(shown("rediss://app:pa@ss:word@redis.example:6380/2"), "rediss://***@redis.example:6380/2");
        assert_eq!(shown("redis://:secret@[::1]:6379"), "redis://***@[::1]:6379");
        assert_eq!(shown("redis://secret@host"), "redis://***@host");
        assert_eq!(shown("redis-cluster://u:p@a:1,b:2,[::1]:3"), "redis-cluster://***@a:1,b:2,[::1]:3");
        assert_eq!(
            shown("rediss-sentinel://u:p@a,b:2/1?node=c:3&sentinelUsername=w&sentinelPassword=x&sentinelServiceName=m"),
            "rediss-sentinel://***@a,b:2/1?node=c:3&sentinelUsername=***&sentinelPassword=***&sentinelServiceName=m"
        );
        assert!(!format!("{:?}", RedisUrl::parse("redis://u:hidden@h")).contains("hidden"));
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://h",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:x",
            "redis://h/300",
            "redis://h/ 0",
            "redis://h,i",
            "redis://h?node=i",
            "redis-cluster://h:1,",
            "redis-sentinel://h:1,i:0",
        ] {
            assert_eq!(RedisUrl::parse(bad), Err(FORM), "{bad}");
        }
    }

    #[test]
    fn the_secrets_of_a_url_are_known() {
        let secrets = |text| RedisUrl::parse(text).expect(text).secrets().join(" ");
        assert_eq!(secrets("redis://h"), "");
        assert_eq!(secrets("redis-sentinel://u:p:q@h?sentinelPassword=x&node=i:1"), "u:p:q p:q x");
        assert_eq!(secrets("redis://secret@h"), "secret");
    }
}
