//! What cannot work together is refused before anything starts.

use super::{
    Config, DEMO_PID,
    error::{ConfigError, Source},
    keys,
    listeners::{Group, Listener, overlap},
    projects::SECRET_BYTES_MIN,
    sources::Origins,
    values::{Ack, Env, Port, QueueKind},
};

/// The first key's value is at most the second's, because; a second of 0 is no bound.
const RELATIONS: &[(&str, &str, &str)] = &[
    ("target_bytes_max", "head_bytes_max", "the target is part of the head"),
    ("http_target_bytes_max", "http_head_bytes_max", "the target is part of the head"),
    ("push_bytes_max", "outbox_bytes_max", "the largest push must fit an empty outbox"),
    ("push_bytes_max", "batch_bytes_max", "the largest push must fit one append"),
    ("batch_bytes_max", "pending_bytes_max", "an append gathers from what is pending"),
    ("batch_bytes_max", "replay_bytes_max", "what is replayed are whole appends"),
    ("batch_bytes_max", "log_bytes_max", "the log holds whole appends"),
    ("outbox_bytes_max", "outboxes_bytes_max", "one outbox is part of all"),
    ("log_rotate_bytes", "log_keep_bytes", "a rotated file must fit what is kept"),
    ("deflate_bytes_min", "deflate_bytes_max", "what is between them is compressed"),
    ("heartbeat", "ping_after", "a client that keeps its heartbeat needs no ping"),
    ("request_timeout", "request_timeout_max", "the default is one of the allowed"),
    ("memory_soft_percent", "memory_hard_percent", "refusing new ones comes before cutting others"),
    ("close_timeout", "drain", "a drain waits for its closes"),
    ("pending_timeout", "http_answer_timeout", "a caller waits for as long as its push does"),
    ("pending_timeout", "idempotency_window", "a retry after a refusal must find its key"),
];

/// Refuses what cannot work together; returns what the node's owner should be told.
///
/// # Errors
/// The first key that cannot be what it is, with the other one and why.
pub fn check(config: &Config, origins: &Origins) -> Result<Vec<String>, ConfigError> {
    let check = Check { config, origins };
    RELATIONS.iter().try_for_each(|(small, large, why)| check.relation(small, large, why))?;
    check.listeners()?;
    check.queue()?;
    check.demo()?;
    check.prod()?;
    check.opening()?;
    Ok(check.warnings())
}

struct Check<'a> {
    config: &'a Config,
    origins: &'a Origins,
}

impl Check<'_> {
    fn source(&self, key: &str) -> Source {
        self.origins.get(key).cloned().unwrap_or(Source::Default)
    }

    fn is_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    fn shown(&self, key: &str) -> String {
        let shown = keys::find(key).and_then(|key| key.show(self.config)).unwrap_or_default();
        shown.trim_matches('"').to_owned()
    }

    fn refuse(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::bad_value(key, &self.shown(key), &self.source(key), reason)
    }

    fn relation(&self, small: &str, large: &str, why: &str) -> Result<(), ConfigError> {
        let number = |key| keys::find(key).and_then(|key| key.amount_in(self.config)).unwrap_or(0);
        if number(large) == 0 || number(small) <= number(large) {
            return Ok(());
        }
        let told = |key| format!("{key} = {} ({})", self.shown(key), self.source(key).of(key));
        // The one that was given is the one that can be mended.
        if self.is_given(large) {
            return Err(self.refuse(large, format!("is less than {}: {why}", told(small))));
        }
        Err(self.refuse(small, format!("is more than {}: {why}", told(large))))
    }

    fn listeners(&self) -> Result<(), ConfigError> {
        if self.config.ws_port == Port::Off && self.config.http_port == Port::Off {
            return Err(self.refuse("ws_port", "is off, and so is http_port: nobody could reach the node"));
        }
        if self.config.public_addr.is_some() && self.config.ws_port == Port::Off {
            return Err(self.refuse("public_addr", "sends clients to a listener that is off; give ws_port"));
        }
        let listeners = self.config.listeners();
        for (index, listener) in listeners.iter().enumerate() {
            self.operators_are_guarded(listener)?;
            for other in &listeners[..index] {
                self.no_clash(other, listener)?;
            }
        }
        Ok(())
    }

    fn operators_are_guarded(&self, listener: &Listener) -> Result<(), ConfigError> {
        let (operators, public): (Vec<Group>, Vec<Group>) =
            listener.groups.iter().partition(|group| group.is_for_operators());
        let Some(group) = operators.first() else { return Ok(()) };
        if let Some(public) = public.first()
            && self.is_given("operator_host")
            && self.config.operator_host != listener.host
        {
            let reason = format!(
                "is also {}, whose host is {}; give both the same host, or another port",
                public.port_key(),
                listener.host
            );
            return Err(self.refuse(group.port_key(), reason));
        }
        if listener.host.to_canonical().is_loopback() || self.config.operator_token.is_some() {
            return Ok(());
        }
        Err(match public.first() {
            Some(public) => {
                let (port, host) = (public.port_key(), public.host_key());
                let reason = format!(
                    "is also {port}, which other machines reach ({host}); give operator_token too, or another port"
                );
                self.refuse(group.port_key(), reason)
            }
            None => self.refuse(
                "operator_host",
                "is reachable from other machines; give operator_token too, or keep to 127.0.0.1",
            ),
        })
    }

    fn no_clash(&self, first: &Listener, second: &Listener) -> Result<(), ConfigError> {
        if first.port == 0 || first.port != second.port || !overlap(first.host, second.host) {
            return Ok(());
        }
        let (one, other): (Group, Group) = (second.groups[0], first.groups[0]);
        let reason = format!("give both the same host ({} or {}) or another port", second.host, first.host);
        Err(self.refuse(one.port_key(), format!("is also {}; {reason}", other.port_key())))
    }

    fn queue(&self) -> Result<(), ConfigError> {
        let is_memory = self.config.queue == QueueKind::Memory;
        if is_memory && self.is_given("redis_url") && !self.is_given("queue") {
            // Nodes that were meant as a cluster would each be alone, and nothing would say so.
            return Err(self.refuse("redis_url", "is not used by queue = memory (default); give queue = redis too"));
        }
        if is_memory && self.config.ack != Ack::Log {
            return Err(self.refuse("ack", "needs queue = redis: the embedded queue has neither replicas nor a disk"));
        }
        self.redis_files()
    }

    fn redis_files(&self) -> Result<(), ConfigError> {
        let Config { redis_ca_file, redis_cert_file, redis_key_file, redis_url, .. } = self.config;
        let files = [redis_ca_file, redis_cert_file, redis_key_file];
        let keys = ["redis_ca_file", "redis_cert_file", "redis_key_file"];
        if let Some((key, _)) = keys.iter().zip(files).find(|(_, file)| file.is_some() && !redis_url.is_tls()) {
            return Err(self.refuse(key, "is not used by this redis_url; write rediss for TLS"));
        }
        match (redis_cert_file, redis_key_file) {
            (Some(_), None) => Err(self.refuse("redis_cert_file", "needs its key; give redis_key_file too")),
            (None, Some(_)) => Err(self.refuse("redis_key_file", "needs its certificate; give redis_cert_file too")),
            _ => Ok(()),
        }
    }

    fn demo(&self) -> Result<(), ConfigError> {
        if !self.config.demo {
            return Ok(());
        }
        if self.config.env == Env::Prod {
            return Err(
                self.refuse("demo", "signs for whoever asks, with a secret that everyone knows; env = prod refuses it")
            );
        }
        if [self.config.ws_port, self.config.http_port].contains(&Port::Off) {
            return Err(self.refuse("demo", "needs both ws_port and http_port"));
        }
        Ok(())
    }

    fn prod(&self) -> Result<(), ConfigError> {
        if self.config.env != Env::Prod {
            return Ok(());
        }
        if self.config.projects.iter().next().is_none() {
            return Err(self.refuse("env", "has no demo project; give [[projects]] in a file named by --config"));
        }
        let token = self.config.operator_token.as_ref();
        if let Some(length) = token.map(|token| token.expose().len()).filter(|length| *length < SECRET_BYTES_MIN) {
            let reason = format!("is {length} bytes long; env = prod asks for at least {SECRET_BYTES_MIN}");
            return Err(ConfigError::bad_key("operator_token", &self.source("operator_token"), reason));
        }
        Ok(())
    }

    fn opening(&self) -> Result<(), ConfigError> {
        let opening = &self.config.limits.opening;
        if opening.kick_oldest && opening.connections_per_uid == 0 {
            return Err(self.refuse("kick_oldest", "is never reached: connections_per_uid = 0 is no bound"));
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.config.queue == QueueKind::Memory && self.is_given("redis_url") {
            warnings.push("redis_url is given but not used: queue = memory".to_owned());
        }
        if self.config.env == Env::Prod && self.config.swagger_port != Port::Off {
            warnings.push("swagger_port is on though env = prod".to_owned());
        }
        if self.config.demo && !self.config.has_demo() {
            warnings.push(format!(
                "demo is given, but the file's project {DEMO_PID:?} has a secret of its own: there is no page"
            ));
        }
        warnings
    }
}
