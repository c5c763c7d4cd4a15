//! The node's own thread: what cores say and what the log brings meet in the exchange here.
//!
//! Method: await one event, take what waits beside it, apply, then carry out the effects with one wake per core.
//! Invariants: a core's messages keep their order; when a core's inbox is full the log is not heard until there is
//! room, so nothing that was acknowledged is dropped on the way to a core.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    broker::{Log, LogEvent, LogEvents},
    clock,
    exchange::{Effect, Exchange, Input, Now},
    health::{Health, State},
    inbox::Mailbox,
    metrics::{Count, Counters},
    model::{FromCore, ToCore},
};


/// How often the exchange is told that time passes.
const TICK: Duration = Duration::from_millis(100);
/// Events of the log that are applied before their effects are carried out.
const EVENTS_PER_TURN: usize = 256;

/// The exchange with its ways in and out.
pub(super) struct ExchangeLoop {
    pub exchange: Exchange,
    pub log: Log,
    pub events: LogEvents,
    pub from_cores: Arc<Mailbox<FromCore>>,
    pub to_cores: Vec<Arc<Mailbox<ToCore>>>,
    pub health: Arc<Health>,
    pub counters: Arc<Counters>,
    /// Effects that wait to be carried out.
    pub effects: Vec<Effect>,
}

impl ExchangeLoop {
    /// Runs until the future is dropped. `warm` is called once, when the tables are filled.
    pub async fn run(&mut self, mut warm: impl FnMut()) {
        let mut ticks = ticks();
        let mut batch = Vec::new();
        let from_cores = self.from_cores.clone();
        loop {
            tokio::select! {
                () = from_cores.receive(&mut batch) => {
                    for message in batch.drain(..) {
                        self.apply(Input::Core(message));
                    }
                }
                event = self.events.next() => {
                    self.log_says(event, &mut warm);
                    for _ in 1..EVENTS_PER_TURN {
                        let Some(event) = self.events.try_next() else { break };
                        self.log_says(event, &mut warm);
                    }
                }
                _ = ticks.tick() => self.apply(Input::Tick),
            }
            self.carry_out().await;
        }
    }

    /// Says good-bye to the other nodes and stops every core's connections with `code`.
    pub async fn say_goodbye(&mut self, code: u16) {
        self.exchange.goodbye(&mut self.effects);
        for core in 0..self.to_cores.len() {
            let core = u8::try_from(core).unwrap_or(u8::MAX);
            self.effects.push(Effect::ToCore(core, ToCore::Stop { code }));
        }
        self.carry_out().await;
    }

    fn log_says(&mut self, event: LogEvent, warm: &mut impl FnMut()) {
        match event {
            LogEvent::Heard { id, record, warm } => self.apply(Input::Heard { id, record, warm }),
            LogEvent::Appended { to, result } => self.apply(Input::Appended { to, result }),
            LogEvent::Lost { shard } => self.apply(Input::Lost { shard: Some(shard) }),
            LogEvent::Ready => {
                self.health.set(State::Ready);
                warm();
            }
            LogEvent::Up => self.health.set(State::Ready),
            LogEvent::Down => self.health.set(State::QueueUnavailable),
            LogEvent::LeaseLost => self.health.set(State::Fenced),
        }
    }

    fn apply(&mut self, input: Input) {
        let now = Now { mono: clock::now(), unix_ms: clock::unix_ms() };
        self.exchange.apply(input, now, &mut self.effects);
    }

    /// Carries out every effect, and those that follow from them.
    async fn carry_out(&mut self) {
        let mut staged: Vec<Vec<ToCore>> = self.to_cores.iter().map(|_| Vec::new()).collect();
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::ToCore(core, message) => staged[usize::from(core)].push(message),
                    Effect::Append(record, to) => {
                        if let Err((to, refusal)) = self.log.append(record, to) {
                            self.apply(Input::Appended { to, result: Err(refusal) });
                        }
                    }
                }
            }
        }
        for (inbox, messages) in self.to_cores.iter().zip(staged) {
            if messages.is_empty() {
                continue;
            }
            if inbox.is_full() {
                self.counters.inc(Count::InboxFull);
                inbox.room().await;
            }
            inbox.send_all(messages);
        }
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
