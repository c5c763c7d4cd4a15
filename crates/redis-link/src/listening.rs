//! Live channels over one connection.
//!
//! In a cluster they are shard channels, which belong to a slot as keys do; a server that gives the slot away ends the
//! subscription, and asking again is how one hears of it.
//!
//! Invariants: a message that finds no room is dropped, and its listener is nudged; so are all listeners when the
//! connection was lost, or when fred itself dropped messages. Of shard channels one is asked for at a time: fred takes
//! each of the answers to a list of them for the answer to a command of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{ConnectHandle, Message, Value, config::Config},
};
use tokio::{
    sync::{Notify, broadcast, mpsc},
    task::JoinHandle,
};

use crate::{
    LinkError, Pending,
    connect::{subscriber_builder, watch},
    places::Lock,
    trouble::Trouble,
};

/// Messages of one channel that wait for its listener.
const CHANNEL_MESSAGES_MAX: usize = 1024;
/// The same in bytes; one message may go beyond it.
const CHANNEL_BYTES_MAX: usize = 8 << 20;
/// How often the connection is asked whether it lives: a dead one brings nothing, and nothing else would notice.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// A channel's messages.
#[derive(Debug)]
pub struct Listener {
    messages: mpsc::Receiver<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
    nudge: Arc<Notify>,
}

/// What [`Listener::next`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message.
    Message(Bytes),
    /// Messages may have been missed.
    Missed,
    /// The link is gone.
    Ended,
}

impl Listener {
    /// Waits for what comes next. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Said {
        tokio::select! {
            biased;
            message = self.messages.recv() => message.map_or(Said::Ended, |message| {
                self.waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
                Said::Message(message)
            }),
            () = self.nudge.notified() => Said::Missed,
        }
    }
}

/// The other end of a listener.
#[derive(Clone)]
struct Ear {
    messages: mpsc::Sender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
    nudge: Arc<Notify>,
}

fn ear() -> (Ear, Listener) {
    let (sender, messages) = mpsc::channel(CHANNEL_MESSAGES_MAX);
    let (waiting_bytes, nudge) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let ear = Ear { messages: sender, waiting_bytes: waiting_bytes.clone(), nudge: nudge.clone() };
    (ear, Listener { messages, waiting_bytes, nudge })
}

impl Ear {
    /// Hands a message on if there is room; whether there still is a listener.
    fn offer(&self, message: Bytes) -> bool {
        let bytes = message.len();
        let is_full = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > CHANNEL_BYTES_MAX;
        if !is_full && self.messages.try_send(message).is_ok() {
            return true;
        }
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.nudge.notify_one();
        !self.messages.is_closed()
    }
}

type Ears = Arc<Lock<HashMap<String, Vec<Ear>>>>;

/// To whom live channels belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// To the server: SUBSCRIBE and PUBLISH.
    OfServer,
    /// To the slots of a cluster: SSUBSCRIBE and SPUBLISH.
    OfSlots,
}

/// The connection that carries live channels.
pub(crate) struct Listening {
    line: Line,
    ears: Ears,
    tasks: Vec<JoinHandle<()>>,
}

impl Listening {
    /// Starts to connect; `told` is who hears that a channel is elsewhere, and as which server.
    pub(crate) fn start(
        config: &Config,
        channels: Channels,
        messages_max: usize,
        told: (u64, Arc<Trouble>),
    ) -> Result<(Self, ConnectHandle), LinkError> {
        let client = subscriber_builder(config, messages_max)
            .build_subscriber_client()
            .map_err(|_| LinkError::Url("its parts do not fit together".to_owned()))?;
        let (ears, line) = (Ears::default(), Line { client: client.clone(), channels, told, turn: Arc::default() });
        let tasks = vec![
            watch(&client, "live"),
            tokio::spawn(dispatch(client.clone(), ears.clone())),
            tokio::spawn(keep(line.clone(), ears.clone())),
        ];
        let connecting = client.connect();
        Ok((Self { line, ears, tasks }, connecting))
    }

    /// Listens to a channel. Who did so before was not served: then the connection is made anew.
    pub(crate) fn listen(&self, channel: String) -> Pending<'_, Listener> {
        let (ear, listener) = ear();
        Box::pin(async move {
            let is_again = {
                let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
                let all = ears.entry(channel.clone()).or_default();
                let before = all.len();
                all.retain(|ear| !ear.messages.is_closed());
                all.push(ear);
                all.len() <= before
            };
            if is_again && self.line.client.is_connected() {
                // It may fail: the keeper goes on.
                let _ = self.line.client.force_reconnection().await;
            }
            // Whatever becomes of this attempt, the keeper goes on.
            let subscribed = self.line.subscribe(vec![channel]).await;
            subscribed.map(|()| listener).map_err(|error| LinkError::Unknown(error.to_string()))
        })
    }

    /// Ends the listeners of all channels but these.
    pub(crate) fn keep_only(&self, is_kept: impl Fn(&str) -> bool) {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner).retain(|channel, _| is_kept(channel));
    }
}

/// The connection as those see it who ask for channels.
#[derive(Clone)]
struct Line {
    client: SubscriberClient,
    channels: Channels,
    told: (u64, Arc<Trouble>),
    /// Whose turn it is to ask for a shard channel.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Line {
    async fn subscribe(&self, channels: Vec<String>) -> Result<(), fred::error::Error> {
        if self.channels == Channels::OfServer {
            return self.client.subscribe(channels).await;
        }
        let _turn = self.turn.lock().await;
        let mut all = Ok(());
        for channel in channels {
            if let Err(error) = self.client.ssubscribe(channel).await {
                let (server, trouble) = &self.told;
                trouble.answered(*server, error.details());
                all = Err(error);
            }
        }
        all
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Hands messages to the listeners of their channels.
async fn dispatch(client: SubscriberClient, ears: Ears) {
    let (mut messages, mut connects) = (client.message_rx(), client.reconnect_rx());
    loop {
        tokio::select! {
            biased;
            connect = connects.recv() => match connect {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => nudge_all(&ears),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            message = messages.recv() => match message {
                Ok(message) => hand_on(&ears, message),
                Err(broadcast::error::RecvError::Lagged(_)) => nudge_all(&ears),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

fn hand_on(ears: &Ears, message: Message) {
    let Value::Bytes(bytes) = (match message.value {
        Value::String(text) => Value::Bytes(text.into_inner()),
        other => other,
    }) else {
        return;
    };
    let mut ears = ears.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(listeners) = ears.get_mut(&*message.channel) else { return };
    listeners.retain(|ear| ear.offer(bytes.clone()));
}

fn nudge_all(ears: &Ears) {
    let ears = ears.lock().unwrap_or_else(PoisonError::into_inner);
    ears.values().flatten().for_each(|ear| ear.nudge.notify_one());
}

/// Subscribes after every connect, and again now and then: fred takes a subscription for done when it was written,
/// and does not hear when the server ends one. A ping that is not answered makes it give the connection up.
async fn keep(line: Line, ears: Ears) {
    let client = &line.client;
    let mut connects = client.reconnect_rx();
    loop {
        tokio::select! {
            connect = connects.recv() => if connect == Err(broadcast::error::RecvError::Closed) {
                return;
            },
            () = tokio::time::sleep(PING_INTERVAL) => {}
        }
        if !client.is_connected() {
            continue;
        }
        let channels: Vec<String> = ears.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let kept: Result<(), _> = async {
            if !channels.is_empty() {
                line.subscribe(channels).await?;
            }
            client.ping(None).await
        }
        .await;
        if let Err(error) = kept {
            tracing::debug!(%error, "the live connection does not answer");
        }
    }
}
