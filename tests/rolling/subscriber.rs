//! A user that follows `move` and resumes: what it got over all its connections, as one.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::town::Town;
use crate::support::{Client, Connect, checker::Received, json};

/// The tags that everybody follows.
pub const TAGS: u64 = 8;
/// A tag of class `latest`.
pub const LATEST: &str = "latest.price";

/// What a run is told of itself.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How many publications were acknowledged, when that is known.
    pub owed: Rc<Cell<Option<usize>>>,
    /// The last value of [`LATEST`], when that is known.
    pub last: Rc<Cell<Option<u64>>>,
}

/// What a user has to tell.
#[derive(Debug, Default)]
pub struct Story {
    pub received: Vec<Received>,
    /// Values of [`LATEST`] as they came.
    pub values: Vec<u64>,
    /// How the server closed it, or that it broke (1006).
    pub closes: Vec<u16>,
    /// How often it was told to move.
    pub moves: usize,
    pub connections: usize,
}

/// How a user takes the word to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It connects again in its time.
    Follows,
    /// It waits for the close.
    Waits,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    tag: String,
    id: Option<String>,
    prev: Option<String>,
    #[serde(default)]
    gap: bool,
    #[serde(default)]
    payload: serde_json::Value,
}

/// How a connection ended.
enum End {
    Moves,
    Closed(u16),
    Enough,
}

/// See the module.
pub struct Subscriber {
    town: Town,
    uid: String,
    manner: Manner,
    progress: Progress,
    held: BTreeMap<String, String>,
    story: Story,
    last_news: Instant,
}

impl Subscriber {
    pub fn new(town: Town, uid: String, manner: Manner, progress: Progress) -> Self {
        let (held, story, last_news) = (BTreeMap::new(), Story::default(), Instant::now());
        Self { town, uid, manner, progress, held, story, last_news }
    }

    /// Connects, subscribes and resumes.
    pub async fn arrive(&mut self) -> Client {
        loop {
            let mut client = self.town.connect(&Connect::user(&self.uid)).await;
            let tags = (0..TAGS).map(|n| format!("tag{n}")).chain([LATEST.to_owned()]);
            let tags: Vec<_> = tags.map(|tag| json!({"tag": tag, "since": self.held.get(&tag)})).collect();
            let tags: Vec<_> = tags.into_iter().map(without_null).collect();
            self.story.connections += 1;
            let sent = client.socket.send_text(json!({"type": "subscribe", "tags": tags}).to_string()).await;
            if sent {
                return client;
            }
        }
    }

    /// Lives until it has what it is owed, or nothing has come for long.
    pub async fn live(mut self, mut client: Client) -> Story {
        loop {
            match self.listen(&mut client).await {
                End::Enough => return self.story,
                End::Moves => {
                    let _ = timeout(Duration::from_secs(5), leave(client)).await;
                    self.story.closes.push(1000);
                }
                End::Closed(code) => self.story.closes.push(code),
            }
            client = self.arrive().await;
        }
    }

    async fn listen(&mut self, client: &mut Client) -> End {
        let mut moves_at = None;
        loop {
            if self.has_enough() {
                return End::Enough;
            }
            let moving = async {
                match moves_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = timeout(Duration::from_millis(100), client.socket.next()) => message,
                () = moving => return End::Moves,
            };
            match message {
                Ok(Some(Ok(Message::Text(text)))) => {
                    if let Some(after) = self.hear(&text)
                        && self.manner == Manner::Follows
                    {
                        moves_at = Some(Instant::now() + after);
                    }
                }
                Ok(Some(Ok(Message::Close(frame)))) => {
                    return End::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(Some(Err(_)) | None) => return End::Closed(1006),
            }
        }
    }

    /// Takes a message; when to move, if it says so.
    fn hear(&mut self, text: &str) -> Option<Duration> {
        let frame: Frame = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match frame.kind.as_str() {
            "move" => {
                self.story.moves += 1;
                return Some(Duration::from_millis(frame.payload["after_ms"].as_u64().expect("a time")));
            }
            "gap" => self.story.received.push(Received::Gap { channel: frame.tag }),
            _ => self.publication(frame),
        }
        None
    }

    fn publication(&mut self, frame: Frame) {
        let (Some(id), Some(prev)) = (frame.id, frame.prev) else { return };
        self.last_news = Instant::now();
        self.held.insert(frame.tag.clone(), id.clone());
        if frame.gap {
            self.story.received.push(Received::Gap { channel: frame.tag.clone() });
        }
        let number = frame.payload["number"].as_u64().expect("a number");
        if frame.tag == LATEST {
            return self.story.values.push(number);
        }
        let pusher = u32::try_from(frame.payload["pusher"].as_u64().expect("a pusher")).expect("a small number");
        self.story.received.push(Received::Message { pusher, number, channel: frame.tag, link: Some((id, prev)) });
    }

    fn has_enough(&self) -> bool {
        let (Some(owed), last) = (self.progress.owed.get(), self.progress.last.get()) else { return false };
        let patience = if self.story.received.len() >= owed && self.story.values.last().copied() == last {
            Duration::from_millis(300)
        } else {
            Duration::from_secs(10)
        };
        self.last_news.elapsed() > patience
    }
}

fn without_null(mut tag: serde_json::Value) -> serde_json::Value {
    if let Some(members) = tag.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    tag
}

/// Closes in good order; what still comes is not counted, because the next connection resumes behind what was.
async fn leave(mut client: Client) {
    let _ = client.socket.close(None).await;
    while let Some(Ok(_)) = client.socket.next().await {}
}

/// Sends, or says that the connection is gone.
trait SendText {
    async fn send_text(&mut self, text: String) -> bool;
}

impl<S: futures_util::Sink<Message> + Unpin> SendText for S {
    async fn send_text(&mut self, text: String) -> bool {
        futures_util::SinkExt::send(self, Message::text(text)).await.is_ok()
    }
}
