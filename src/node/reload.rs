//! The same configuration read again, and put into effect in every part of the running node.
//!
//! Invariants: one at a time; a configuration that is refused reaches no part; each core takes what is new in one turn, so
//! that nothing is judged half by the old and half by the new; no connection is dropped, those of removed projects aside.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use crate::{
    clock,
    config::{Config, ConfigError, Reloaded, Sources},
    exchange::ExchangeRules,
    http::message::json_string,
    inbox::Mailbox,
    limits::{LifeLimits, ORDER_TIMEOUT},
    metrics::{Count, Counters},
    shard::Admission,
};

use super::{
    exchange_loop::NewRules,
    memory::{Thresholds, outboxes_bytes_max},
    observe,
    orders::{NewSettings, Order, gather},
};

#[expect(clippy::disallowed_types, reason = "held by whoever reloads, never by a core")]
type Lock<T> = std::sync::Mutex<T>;

/// Reloads a running node.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Sources,
    /// Held for as long as a reload takes.
    turn: Lock<()>,
    /// What is in effect; held for a copy.
    running: Lock<Config>,
    /// A thread is on its way to reload and has not begun.
    is_coming: AtomicBool,
    parts: Parts,
}

/// What takes new settings.
#[derive(Debug)]
pub(super) struct Parts {
    /// The cores.
    pub cores: Vec<Arc<Mailbox<Order>>>,
    /// The exchange.
    pub exchange: Arc<Mailbox<NewRules>>,
    /// The account of connections.
    pub admission: Admission,
    /// The watch over memory.
    pub memory: Arc<Thresholds>,
    /// The node's counters, of which the reloads are this one's.
    pub counters: Arc<Counters>,
}

impl Reloader {
    /// For a node that was started with `config`.
    pub fn new(sources: Sources, config: Config, parts: Parts) -> Arc<Self> {
        let (turn, running) = (Lock::default(), Lock::new(config));
        Arc::new(Self { sources, turn, running, is_coming: AtomicBool::new(false), parts })
    }

    /// The bounds of a connection's life, as they are now.
    pub fn life(&self) -> LifeLimits {
        self.running().limits.life.clone()
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reloads on a thread of its own. One that has not begun reads what is there then, so another is not needed.
    pub fn in_background(self: &Arc<Self>) {
        if self.is_coming.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        let spawned = thread::Builder::new().name("reload".to_owned()).spawn(move || drop(this.reload()));
        if let Err(error) = spawned {
            self.is_coming.store(false, Ordering::Release);
            tracing::error!(%error, "failed to start a thread for a reload");
        }
    }

    /// Reads the sources again and puts them into effect; what came of it.
    ///
    /// # Errors
    /// Why nothing is changed.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_coming.store(false, Ordering::Release);
        let (counters, running) = (&self.parts.counters, self.running().clone());
        let reloaded = match self.sources.reload(&running) {
            Ok(reloaded) => reloaded,
            Err(error) => {
                counters.inc(Count::ReloadsRefused);
                tracing::error!("the reload is refused and changes nothing: {error}");
                return Err(error);
            }
        };
        self.parts.take(&reloaded.config);
        *self.running() = reloaded.config.clone();
        counters.inc(Count::ReloadsDone);
        counters.set(Count::ReloadTime, clock::unix_now().as_secs());
        tell(&reloaded);
        Ok(reloaded)
    }

    /// The same for operators: JSON of what came of it, or why nothing is changed.
    pub fn order(&self) -> Result<String, String> {
        let reloaded = self.reload().map_err(|error| error.to_string())?;
        let list = |texts: Vec<String>| format!("[{}]", texts.join(","));
        let changed = list(reloaded.changed.iter().map(|key| json_string(key)).collect());
        let waiting = list(reloaded.waiting.iter().map(|waiting| json_string(waiting.key)).collect());
        let warnings = list(reloaded.warnings.iter().map(|warning| json_string(warning)).collect());
        Ok(format!(r#"{{"changed":{changed},"restart":{waiting},"warnings":{warnings}}}"#))
    }
}

impl Parts {
    fn take(&self, config: &Config) {
        // First of all, so that no report can hold a secret that it does not know.
        observe::reload(config);
        self.admission.reload(config.limits.opening.clone());
        self.memory.set(config.limits.memory.clone());
        let (done, all_done) = mpsc::sync_channel(self.cores.len() + 1);
        let rules = NewRules { rules: exchange_rules(config), done: done.clone() };
        let mut parts = usize::from(self.exchange.offer(rules).is_ok());
        let settings = NewSettings {
            limits: Arc::new(config.limits.clone()),
            projects: config.projects.clone(),
            rules: config.tags.clone(),
            outboxes_bytes_max: outboxes_bytes_max(&config.limits, u8::try_from(self.cores.len()).unwrap_or(u8::MAX)),
        };
        let order = |core: &&Arc<Mailbox<Order>>| core.offer(Order::Reload(settings.clone(), done.clone())).is_ok();
        parts += self.cores.iter().filter(order).count();
        if gather(&all_done, parts, ORDER_TIMEOUT).len() <= self.cores.len() {
            tracing::error!(
                "a part of the node is too busy and takes the new configuration later, or with the next reload"
            );
        }
    }
}

/// What the exchange takes of a configuration.
pub(super) fn exchange_rules(config: &Config) -> ExchangeRules {
    ExchangeRules {
        limits: config.limits.queue.clone(),
        opening: config.limits.opening.clone(),
        tags: config.tags.clone(),
        projects: config.projects.clone(),
    }
}

fn tell(reloaded: &Reloaded) {
    let changed = reloaded.changed.join(" ");
    tracing::info!(changed, "the configuration was reloaded");
    reloaded.waiting.iter().for_each(|waiting| tracing::warn!("{waiting}"));
    reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}
