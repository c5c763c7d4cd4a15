//! Just enough of a node to test the harness against, and to spoil a feed in a chosen way. Tests only.
//!
//! It takes pushes over HTTP (single and batch) and from a back-end's WebSocket, and sends them to every subscriber. Leaves
//! out everything else: no signatures are checked, nothing is bounded but the fan-out channel.

use std::{collections::HashMap, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex, broadcast},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

/// How the feed is spoiled, at its twentieth publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    Nothing,
    Lose,
    Duplicate,
    Swap,
    Alter,
    Refuse,
    Hang,
    WrongAnswer,
}

const SPOILED: u64 = 20;

/// A running fake node.
pub struct FakeNode {
    pub ws: String,
    pub http: String,
}

struct Shared {
    spoil: Spoil,
    state: Mutex<State>,
    feed: broadcast::Sender<(String, String)>,
}

#[derive(Default)]
struct State {
    published: u64,
    last: HashMap<String, (u64, String)>,
    held_back: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(default)]
    ack_id: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    to: Audience,
    #[serde(borrow, alias = "data")]
    payload: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Audience {
    #[serde(default)]
    tags: Vec<String>,
}

impl FakeNode {
    pub async fn start(spoil: Spoil) -> Self {
        let ws = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let node = Self {
            ws: format!("ws://{}", ws.local_addr().expect("an address")),
            http: format!("http://{}", http.local_addr().expect("an address")),
        };
        let shared = Arc::new(Shared { spoil, state: Mutex::default(), feed: broadcast::channel(20_000).0 });
        let for_http = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = ws.accept().await {
                tokio::spawn(serve_socket(Arc::clone(&shared), stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                tokio::spawn(serve_http(Arc::clone(&for_http), stream));
            }
        });
        node
    }
}

impl Shared {
    /// Takes a push and answers it.
    async fn push(&self, text: &str) -> Value {
        let push: Push<'_> = serde_json::from_str(text).expect("a push");
        let tag = push.tags.first().or(push.to.tags.first()).expect("a tag").clone();
        let mut state = self.state.lock().await;
        state.published += 1;
        let number = state.published;
        if number == SPOILED && self.spoil == Spoil::Refuse {
            return json!({"ack_id": push.ack_id, "code": 0, "err": "queue_unavailable", "msg": "later"});
        }
        let payload = push.payload.get().to_owned();
        let prev = state.last.insert(tag.clone(), (number, payload.clone()));
        let prev = prev.map_or(String::new(), |(id, _)| id.to_string());
        let payload = if number == SPOILED && self.spoil == Spoil::Alter { "{}".to_owned() } else { payload };
        let frame = format!(r#"{{"tag":"{tag}","id":"{number}","prev":"{prev}","payload":{payload}}}"#);
        for frame in self.spoiled(&mut state, number, (tag, frame)) {
            // Nobody listens before the first subscriber.
            let _ = self.feed.send(frame);
        }
        let told = if number == SPOILED && self.spoil == Spoil::WrongAnswer { 7 } else { number };
        json!({"ack_id": push.ack_id, "code": 1, "msg": "success", "payload": {"id": told.to_string()}})
    }

    fn spoiled(&self, state: &mut State, number: u64, frame: (String, String)) -> Vec<(String, String)> {
        match (self.spoil, state.held_back.take()) {
            (Spoil::Swap, Some(held)) if held.0 == frame.0 => vec![frame, held],
            (_, Some(held)) => {
                state.held_back = Some(held);
                vec![frame]
            }
            (Spoil::Lose, None) if number == SPOILED => Vec::new(),
            (Spoil::Duplicate, None) if number == SPOILED => vec![frame.clone(), frame],
            (Spoil::Swap, None) if number == SPOILED => {
                state.held_back = Some(frame);
                Vec::new()
            }
            _ => vec![frame],
        }
    }

    async fn subscribe(&self, command: &Value) -> Vec<String> {
        let tags = command["tags"].as_array().expect("tags");
        let answer =
            json!({"ack_id": command["ack_id"], "code": 1, "msg": "", "payload": {"granted": tags, "denied": []}});
        let state = self.state.lock().await;
        let snapshot = |tag: &Value| {
            let (id, payload) = state.last.get(tag.as_str()?)?;
            Some(format!(r#"{{"tag":{tag},"id":"{id}","prev":"x","snapshot":true,"payload":{payload}}}"#))
        };
        std::iter::once(answer.to_string()).chain(tags.iter().filter_map(snapshot)).collect()
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the library's")]
async fn serve_socket(shared: Arc<Shared>, stream: TcpStream) {
    stream.set_nodelay(true).expect("an option");
    let mut feed = shared.feed.subscribe();
    let accept = |_: &Request, response: Response| Ok::<Response, ErrorResponse>(response);
    let Ok(mut socket) = accept_hdr_async(stream, accept).await else { return };
    let greeting = json!({"type": "connect", "ack_id": "", "code": 1, "msg": "", "payload": {"node": 1}});
    if socket.send(Message::text(greeting.to_string())).await.is_err() {
        return;
    }
    let mut subscribed = false;
    loop {
        tokio::select! {
            frame = feed.recv() => {
                let Ok((_, frame)) = frame else { return };
                if subscribed && socket.send(Message::text(frame)).await.is_err() { return }
            }
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                if message.is_text() {
                    subscribed |= answer(&shared, &mut socket, message.to_text().expect("text")).await;
                }
            }
        }
    }
}

/// Answers a command; whether it was a subscription.
async fn answer(shared: &Shared, socket: &mut WebSocketStream<TcpStream>, text: &str) -> bool {
    let command: Value = serde_json::from_str(text).expect("a command");
    let subscribes = command["type"] == "subscribe";
    let answers = if subscribes { shared.subscribe(&command).await } else { vec![shared.push(text).await.to_string()] };
    for answer in answers {
        if socket.send(Message::text(answer)).await.is_err() {
            break;
        }
    }
    subscribes
}

async fn serve_http(shared: Arc<Shared>, mut stream: TcpStream) {
    stream.set_nodelay(true).expect("an option");
    let mut received = Vec::new();
    loop {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            if matches!(stream.read_buf(&mut received).await, Ok(0) | Err(_)) {
                return;
            }
            continue;
        };
        let head = String::from_utf8(received[..end].to_vec()).expect("a head");
        let (_, length) = head.split_once("Content-Length: ").expect("a length");
        let total = end + 4 + length.lines().next().expect("a number").parse::<usize>().expect("a number");
        while received.len() < total {
            stream.read_buf(&mut received).await.expect("a body");
        }
        let body = String::from_utf8(received.drain(..total).skip(end + 4).collect()).expect("text");
        let mut answers = Vec::new();
        for line in body.lines() {
            answers.push(shared.push(line).await);
        }
        if shared.spoil == Spoil::Hang && shared.state.lock().await.published >= SPOILED {
            return;
        }
        let body = answers.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}
