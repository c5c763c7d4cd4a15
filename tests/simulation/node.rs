//! One node: the exchange between its cores and its log.
//!
//! Method: a turn does what the node's thread does in one round of its loop. What the log brings goes into a naive
//! model of every tag too, and what the exchange sends to the cores is compared with it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::FutureExt;
use ws_cluster::{
    broker::{
        Durability,
        log::{Log, LogEvent, LogEvents, LogSettings},
    },
    exchange::{Effect, Exchange, ExchangeRules, ExchangeSettings, Input, Now},
    limits::Limits,
    metrics::Counters,
    model::{Boot, FromCore, NodeId, Record, RecordId, TagRule, ToCore, record::shard_of},
};

use super::{
    chain::Chain,
    core::Core,
    model::{self, SHARDS, TAGS},
    plant::{Fault, strikes},
    queue::Link,
};

/// How often the exchange is told that time passes.
const TICK: Duration = Duration::from_millis(250);
/// Messages in a core's inbox before the node stops hearing the log.
const INBOX_MAX: usize = 48;

/// What the node says of itself, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Serves,
    Fenced,
}

/// How a node is made.
pub struct Birth {
    pub number: NodeId,
    pub boot: Boot,
    pub seed: u64,
    pub cores: u8,
    pub limits: Arc<Limits>,
    pub rules: Vec<TagRule>,
}

/// See the module.
pub struct Node {
    pub number: NodeId,
    pub link: Arc<Link>,
    exchange: Exchange,
    pub log: Log,
    events: LogEvents,
    limits: Arc<Limits>,
    pub rules: Vec<TagRule>,
    pub cores: Vec<Core>,
    effects: Vec<Effect>,
    next_tick: Duration,
    pub state: State,
    /// It takes no turns before this.
    pub paused_until: Duration,
    pub chains: Vec<Chain>,
    /// Publications that the log has brought.
    pub heard: HashSet<RecordId>,
    /// Losses that the log has told.
    pub losses: u32,
    /// The queue has failed while it started.
    pub starts_in_trouble: bool,
}

impl Node {
    /// Starts a node; must be called inside a tokio `LocalSet`.
    pub fn start(birth: Birth, link: Arc<Link>) -> Self {
        let Birth { number, boot, seed, cores, limits, rules } = birth;
        let counters = Arc::<Counters>::default();
        let settings = LogSettings {
            node: number,
            boot,
            seed,
            shards: SHARDS,
            lease_text: format!("node {number}"),
            durability: Durability::Log,
            limits: limits.queue.clone(),
        };
        let (log, events) = Log::start(link.clone(), settings, counters.clone());
        let exchange_rules = exchange_rules(&limits, &rules);
        let settings = ExchangeSettings {
            node: number,
            boot,
            cores,
            shards: SHARDS,
            retains: true,
            public_addr: String::new(),
            rules: exchange_rules,
        };
        let now = model::now();
        Self {
            number,
            link,
            exchange: Exchange::new(settings, counters),
            log,
            events,
            cores: (0..cores).map(|core| Core::new((number, boot), core, limits.clone(), &rules)).collect(),
            limits,
            rules,
            effects: Vec::new(),
            next_tick: now,
            state: State::Starting,
            paused_until: now,
            chains: (0..TAGS).map(|_| Chain::default()).collect(),
            heard: HashSet::new(),
            losses: 0,
            starts_in_trouble: false,
        }
    }

    /// Replaces the rules of the exchange and of every hub.
    pub fn reload(&mut self, rules: Vec<TagRule>) {
        for ((chain, before), after) in self.chains.iter_mut().zip(&self.rules).zip(&rules) {
            chain.shorten(before.history.count_max.min(after.history.count_max));
        }
        self.exchange.reload(exchange_rules(&self.limits, &rules));
        self.cores.iter_mut().for_each(|core| core.new_rules = Some(rules.clone()));
        self.rules = rules;
    }

    /// One round of the node's loop, with at most so many events of the log.
    pub fn turn(&mut self, events_max: usize) -> Result<(), String> {
        let now = model::now();
        self.cores.iter_mut().for_each(|core| core.set_now(now));
        if now < self.paused_until || self.cores.iter().any(|core| core.inbox.len() >= INBOX_MAX) {
            return Ok(());
        }
        for core in 0..self.cores.len() {
            for message in std::mem::take(&mut self.cores[core].to_exchange) {
                self.core_says(message)?;
            }
        }
        for _ in 0..events_max {
            let Some(event) = self.events.next().now_or_never() else { break };
            self.log_says(event)?;
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.apply(Input::Tick);
        }
        self.carry_out()
    }

    fn apply(&mut self, input: Input) {
        let now = Now { mono: tokio::time::Instant::now().into_std(), unix_ms: model::unix_ms() };
        self.exchange.apply(input, now, &mut self.effects);
    }

    fn core_says(&mut self, message: FromCore) -> Result<(), String> {
        let FromCore::Follow { tag, since, .. } = &message else {
            self.apply(Input::Core(message));
            return Ok(());
        };
        let (number, since, before) = (model::number(tag), since.clone(), self.effects.len());
        self.apply(Input::Core(message));
        match self.effects.get(before) {
            Some(Effect::ToCore(_, ToCore::Followed { start, .. })) => self.chains[number]
                .check_start(since.as_deref(), start, &self.rules[number])
                .map_err(|error| format!("node {} answers for {number}: {error}", self.number)),
            other => Err(format!("a follower is answered with {other:?}")),
        }
    }

    fn log_says(&mut self, event: LogEvent) -> Result<(), String> {
        match event {
            LogEvent::Heard { id, record, warm } => return self.hear(id, record, warm),
            LogEvent::Appended { to, result } => self.apply(Input::Appended { to, result }),
            LogEvent::Lost { shard } => {
                self.losses += 1;
                for number in (0..TAGS).filter(|number| shard_of(&model::pid(), &model::tag(*number), SHARDS) == shard)
                {
                    self.chains[number].lose();
                }
                self.apply(Input::Lost { shard: Some(shard) });
            }
            LogEvent::LastValue(value) => {
                self.chains[model::number(&value.published.tag)].load(&value);
                self.apply(Input::LastValue(value));
            }
            LogEvent::Retained(outcome) => self.apply(Input::Retained(outcome)),
            LogEvent::NewEpoch => self.apply(Input::NewEpoch),
            LogEvent::Ready => {
                self.apply(Input::Warmed);
                self.state = State::Serves;
            }
            LogEvent::LeaseRegained => self.state = State::Serves,
            LogEvent::LeaseLost { .. } => self.state = State::Fenced,
            LogEvent::Up | LogEvent::Down => {}
            LogEvent::Failed(why) => return Err(format!("node {} fails: {why}", self.number)),
        }
        Ok(())
    }

    fn hear(&mut self, id: RecordId, record: Record, warm: bool) -> Result<(), String> {
        let Record::Publication(publication) = &record else {
            self.apply(Input::Heard { id, record, warm });
            return Ok(());
        };
        if strikes(Fault::NodeIsDeaf) {
            return Ok(());
        }
        let number = model::number(&publication.tag);
        self.heard.insert(id);
        let chain = &mut self.chains[number];
        if warm {
            chain.forget_stored(id);
        }
        let is_news = chain.publish(id, publication, self.rules[number].dedup);
        let before = self.effects.len();
        self.apply(Input::Heard { id, record, warm });
        for effect in &self.effects[before..] {
            let Effect::ToCore(_, ToCore::Publication(published)) = effect else { continue };
            if !is_news || warm {
                return Err(format!("node {} delivers {id} of {number}, which is old", self.number));
            }
            let chain = &self.chains[number];
            chain.check_same(chain.links.len() - 1, published)?;
        }
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), String> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::ToCore(core, message) => self.cores[usize::from(core)].inbox.push_back(message),
                    Effect::Retain { term, values } => self.log.retain(term, values),
                    Effect::Append(record, to) => {
                        if let Err((to, refusal)) = self.log.append(record, to) {
                            self.apply(Input::Appended { to, result: Err(refusal) });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is left to do, the log's timers aside.
    pub fn is_quiet(&self) -> bool {
        self.cores.iter().all(Core::is_quiet)
    }
}

fn exchange_rules(limits: &Limits, rules: &[TagRule]) -> ExchangeRules {
    ExchangeRules { limits: limits.queue.clone(), tags: model::tag_rules(rules), ..ExchangeRules::default() }
}
