//! The node's own thread: what cores say and what the log brings meet in the exchange here.
//!
//! Method: await one event, take what waits beside it, apply, then carry out the effects with one wake per core.
//! Invariants: a core's messages keep their order; when a core's inbox is full the log is not heard until there is
//! room, so nothing that was acknowledged is dropped on the way to a core.

use std::{
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    broker::log::{Log, LogEvent, LogEvents},
    clock,
    exchange::{Effect, Exchange, ExchangeRules, Input, Now},
    health::{Facts, Health, State},
    inbox::Mailbox,
    metrics::{Count, Counters, latency::Stage},
    model::{AckTo, FromCore, MovePlan, Record, ToCore, record::Taking},
    router::Router,
    shard::Admission,
    traces::{Part, Stamper},
};

use super::{canary::Canary, resuming::Resuming};

/// How often the exchange is told that time passes.
const TICK: Duration = Duration::from_millis(100);
/// Events of the log that are applied before their effects are carried out.
const EVENTS_PER_TURN: usize = 256;

/// What a reload replaces in the exchange, and who is told that it has.
#[derive(Debug)]
pub(super) struct NewRules {
    /// The rules.
    pub rules: ExchangeRules,
    /// Told once they are in effect.
    pub done: SyncSender<()>,
}

/// The exchange with its ways in and out.
pub(super) struct ExchangeLoop {
    exchange: Exchange,
    log: Rc<Log>,
    events: LogEvents,
    from_cores: Arc<Mailbox<FromCore>>,
    to_cores: Vec<Arc<Mailbox<ToCore>>>,
    reloads: Arc<Mailbox<NewRules>>,
    admission: Option<Admission>,
    /// What the other nodes were told last.
    taking: Taking,
    health: Arc<Health>,
    counters: Arc<Counters>,
    stamper: Stamper,
    facts: Facts,
    canary: Canary,
    resuming: Resuming,
    router: Router,
    /// What the router knows: the signs of life heard until then.
    beats_routed: u64,
    /// What waits to be carried out, and for each core's inbox; kept here, so that nothing is lost when a run is cut.
    effects: Vec<Effect>,
    staged: Vec<Vec<ToCore>>,
}

impl ExchangeLoop {
    /// A loop between the cores' mailboxes and the log.
    pub fn new(
        exchange: Exchange,
        (log, events): (Rc<Log>, LogEvents),
        (from_cores, to_cores): (Arc<Mailbox<FromCore>>, Vec<Arc<Mailbox<ToCore>>>),
        health: Arc<Health>,
        stamper: Stamper,
        counters: Arc<Counters>,
        (canary, router): (Canary, Router),
    ) -> Self {
        let staged = to_cores.iter().map(|_| Vec::new()).collect();
        Self {
            exchange,
            log,
            events,
            from_cores,
            to_cores,
            reloads: Mailbox::new(1),
            admission: None,
            taking: Taking::default(),
            health,
            counters,
            stamper,
            facts: Facts::default(),
            canary,
            resuming: Resuming::default(),
            router,
            beats_routed: 0,
            effects: Vec::new(),
            staged,
        }
    }

    /// The same, taking new rules from `reloads`, and no more connections than `admission` has memory for.
    pub fn beside(self, reloads: Arc<Mailbox<NewRules>>, admission: Admission) -> Self {
        Self { reloads, admission: Some(admission), ..self }
    }

    /// Runs until the future is dropped, which loses nothing, or the log says that it can never work. `ready` is
    /// called once, when the tables are filled.
    pub async fn run(&mut self, mut ready: impl FnMut()) -> String {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        let (from_cores, reloads, mut new_rules) = (self.from_cores.clone(), self.reloads.clone(), Vec::new());
        loop {
            tokio::select! {
                () = reloads.receive(&mut new_rules) => new_rules.drain(..).for_each(|new| self.reload(new)),
                () = from_cores.receive(&mut messages) => {
                    let now = clock::now();
                    for message in messages.drain(..) {
                        self.core_says(message, now);
                    }
                }
                () = self.events.next_batch(&mut events, EVENTS_PER_TURN) => {
                    for event in events.drain(..) {
                        if let LogEvent::Failed(why) = event {
                            return why;
                        }
                        self.log_says(event, &mut ready);
                    }
                    self.resume();
                }
                _ = ticks.tick() => self.tick(),
            }
            if self.exchange.beats_heard() != self.beats_routed {
                self.route();
            }
            self.carry_out().await;
        }
    }

    /// Takes no connections from now on, which the other nodes are told, and has every connection told when to move.
    pub async fn begin_drain(&mut self, plan: MovePlan) {
        self.facts.drains = true;
        self.judge();
        let cores = self.staged.len();
        for (core, staged) in self.staged.iter_mut().enumerate() {
            staged.push(ToCore::Drain(plan.of_core(core, cores)));
        }
        self.carry_out().await;
    }

    /// Says good-bye to the other nodes and closes what connections are left with `code`.
    pub async fn say_goodbye(&mut self, code: u16) {
        self.exchange.goodbye(&mut self.effects);
        for staged in &mut self.staged {
            staged.push(ToCore::Stop { code });
        }
        self.carry_out().await;
    }

    /// The log, to be closed while this runs on.
    pub fn log(&self) -> Rc<Log> {
        self.log.clone()
    }

    fn reload(&mut self, new: NewRules) {
        self.log.reload(new.rules.limits.clone());
        self.exchange.reload(new.rules);
        // Nobody waits any more: then it took too long, and that has been told.
        let _ = new.done.try_send(());
    }

    fn core_says(&mut self, message: FromCore, now: Instant) {
        if let Some(message) = self.resuming.take(message, now) {
            self.apply(Input::Core(message));
        }
    }

    /// Asks for those whose `since` has been heard by now.
    fn resume(&mut self) {
        for (question, caught_up) in self.resuming.ready(clock::now()) {
            self.counters.inc(if caught_up { Count::ResumesCaughtUp } else { Count::ResumesGivenUp });
            self.apply(Input::Core(question));
        }
    }

    fn log_says(&mut self, event: LogEvent, ready: &mut impl FnMut()) {
        match event {
            LogEvent::Heard { id, mut record, warm } => {
                self.resuming.heard(id);
                if !warm {
                    self.heard(&mut record);
                    self.look_for_canary(&record);
                }
                return self.apply(Input::Heard { id, record, warm });
            }
            LogEvent::Appended { to, result } => return self.apply(Input::Appended { to, result }),
            LogEvent::Lost { shard } => {
                tracing::error!(shard, "the queue has lost records for good; subscribers are told");
                self.apply(Input::Lost { shard: Some(shard) });
            }
            LogEvent::LastValue(value) => {
                self.resuming.heard(value.published.id);
                self.apply(Input::LastValue(value));
            }
            LogEvent::Retained(outcome) => self.apply(Input::Retained(outcome)),
            LogEvent::NewEpoch => self.apply(Input::NewEpoch),
            LogEvent::Ready => {
                self.apply(Input::Warmed);
                self.facts.is_filled = true;
                self.judge();
                ready();
            }
            LogEvent::Up => self.facts.is_queue_down = false,
            LogEvent::Down => self.facts.is_queue_down = true,
            LogEvent::LeaseRegained => self.facts.is_fenced = false,
            LogEvent::LeaseLost { holder } => {
                tracing::error!(
                    holder,
                    "another boot holds this node's id; nothing is accepted until it is given back"
                );
                self.facts.is_fenced = true;
            }
            LogEvent::Failed(_) => {}
        }
        self.judge();
    }

    fn tick(&mut self) {
        self.apply(Input::Tick);
        self.resume();
        let now = clock::now();
        if self.facts.is_filled {
            for (shard, record) in self.canary.due(now) {
                self.counters.inc(Count::CanariesSent);
                // One that is refused does not come back, which says it all.
                let _ = self.log.append_in(shard, record, AckTo::Nobody);
            }
        }
        let late = self.canary.late(now);
        self.counters.set(Count::CanaryLateShards, late as u64);
        self.facts.is_canary_late = late > 0;
        self.judge();
        self.route();
    }

    fn look_for_canary(&mut self, record: &Record) {
        // The clock is not asked for every push.
        if !matches!(record, Record::OnlineAnswer(_)) {
            return;
        }
        if let Some(took) = self.canary.heard(record, clock::now()) {
            self.counters.inc(Count::CanariesHeard);
            self.counters.latency().record_round_trip(took);
        }
    }

    /// Tells the router which nodes take connections.
    fn route(&mut self) {
        self.beats_routed = self.exchange.beats_heard();
        self.router.set(self.exchange.places(clock::now()));
    }

    /// Books the age of a push, and ends the part of its trace that led here; what comes next belongs to that.
    fn heard(&self, record: &mut Record) {
        let Some(stamp) = record.stamp_mut() else { return };
        let now_us = clock::unix_us();
        self.counters.latency().record_since(Stage::Heard, stamp.received_us, now_us);
        let span = self.stamper.follow(stamp, Part::Log, stamp.received_us);
        stamp.trace = span.as_ref().map(|span| Box::new(span.own));
        if let Some(span) = span {
            let tag = if let Record::Publication(publication) = record { Some(&publication.tag) } else { None };
            self.stamper.end(&span, now_us, tag, true);
        }
    }

    /// Where the facts put the node; if that is somewhere else, everybody learns it.
    fn judge(&mut self) {
        let state = self.facts.state();
        let is_short = self.admission.as_ref().is_some_and(Admission::is_short_of_memory);
        let taking = match state {
            State::Ready if is_short => Taking::NotNow,
            State::Ready => Taking::Yes,
            State::Draining => Taking::Leaving,
            State::Starting | State::QueueUnavailable | State::Fenced => Taking::NotNow,
        };
        if state != self.health.state() {
            tracing::info!(state = state.word(), "the node's state");
            self.health.set(state);
        }
        if std::mem::replace(&mut self.taking, taking) == taking {
            return;
        }
        self.exchange.take_users(taking, &mut self.effects);
        self.route();
    }

    fn apply(&mut self, input: Input) {
        let now = Now { mono: clock::now(), unix_ms: clock::unix_ms() };
        self.exchange.apply(input, now, &mut self.effects);
    }

    /// Carries out every effect, and those that follow from them.
    async fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::ToCore(core, message) => self.staged[usize::from(core)].push(message),
                    Effect::Retain { term, values } => self.log.retain(term, values),
                    Effect::Append(record, to) => {
                        if let Err((to, refusal)) = self.log.append(record, to) {
                            self.apply(Input::Appended { to, result: Err(refusal) });
                        }
                    }
                }
            }
        }
        for (inbox, staged) in self.to_cores.iter().zip(&mut self.staged) {
            if staged.is_empty() {
                continue;
            }
            if inbox.is_full() {
                self.counters.inc(Count::InboxFull);
                inbox.room().await;
            }
            inbox.send_all(std::mem::take(staged));
        }
    }
}
