//! Pushers that lose nothing: what was refused or not answered is pushed again, under the same idempotency key.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    subscriber::{LATEST, TAGS},
    town::Town,
};
use crate::support::{Api, Client, Connect, Value, checker::Pushed, http, json};

/// Pushes that go out together: at most one to each tag, so that what is tried again overtakes nothing.
const TOGETHER: u64 = TAGS;
/// After so long without an answer another node is tried.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Set when nothing new is to be pushed.
pub type Over = Rc<Cell<bool>>;

/// Whether and how often something was tried again, and how it was closed.
#[derive(Debug, Default)]
pub struct Pushing {
    pub pushed: Vec<Pushed>,
    pub again: usize,
    pub closes: Vec<u16>,
    pub moves: usize,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ack_id: String,
    #[serde(default)]
    code: u64,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    payload: Value,
}

fn channel(number: u64) -> String {
    format!("tag{}", number % TAGS)
}

fn key(pusher: u32, number: u64) -> String {
    format!("{pusher}-{number}")
}

fn payload(pusher: u32, number: u64) -> Value {
    json!({"pusher": pusher, "number": number})
}

fn noted(pusher: u32, number: u64) -> Pushed {
    Pushed { pusher, number, channel: channel(number), acknowledged: false }
}

/// A back-end that pushes over its socket and moves when it is told to, with nothing unanswered.
pub async fn over_socket(town: Town, pusher: u32, every: Duration, over: Over) -> Pushing {
    let mut it = OverSocket { pusher, unanswered: BTreeMap::new(), told: Pushing::default() };
    let mut client = town.connect(&Connect::backend("pusher")).await;
    while it.has_more(&over) {
        let (code, moved) = it.serve(&mut client, every, &over).await;
        it.told.closes.extend(code);
        if moved {
            let _ = timeout(Duration::from_secs(5), client.socket.close(None)).await;
        }
        if !it.has_more(&over) {
            break;
        }
        client = town.connect(&Connect::backend("pusher")).await;
    }
    it.told
}

struct OverSocket {
    pusher: u32,
    unanswered: BTreeMap<u64, String>,
    told: Pushing,
}

impl OverSocket {
    fn has_more(&self, over: &Over) -> bool {
        !over.get() || !self.unanswered.is_empty()
    }

    /// Pushes on one connection until it ends, or it is time to move and all is answered: how it was closed, and whether
    /// it is to be left.
    async fn serve(&mut self, client: &mut Client, every: Duration, over: &Over) -> (Option<u16>, bool) {
        let again: Vec<String> = self.unanswered.values().cloned().collect();
        self.told.again += again.len();
        for text in again {
            if client.socket.send(Message::text(text)).await.is_err() {
                return (None, false);
            }
        }
        let (mut round, mut moves_at) = (Instant::now(), None);
        loop {
            let now = Instant::now();
            let is_over = over.get() || moves_at.is_some_and(|at| now >= at);
            if is_over && self.unanswered.is_empty() {
                return (None, true);
            }
            tokio::select! {
                () = sleep_until(round), if !is_over => {
                    round += every;
                    if self.push_some(client).await.is_err() {
                        return (None, false);
                    }
                }
                message = timeout(ANSWER_PATIENCE, client.socket.next()) => match message {
                    Ok(Some(Ok(Message::Text(text)))) => {
                        if let Some(after) = self.hear(&text) {
                            moves_at = Some(Instant::now() + after);
                        }
                    }
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        return (Some(frame.map_or(1005, |frame| frame.code.into())), false);
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(_)) | None) => return (Some(1006), false),
                    Err(_) => return (None, false),
                }
            }
        }
    }

    async fn push_some(&mut self, client: &mut Client) -> Result<(), Box<tokio_tungstenite::tungstenite::Error>> {
        for _ in 0..TOGETHER {
            let number = self.told.pushed.len() as u64;
            self.told.pushed.push(noted(self.pusher, number));
            let (key, payload) = (key(self.pusher, number), payload(self.pusher, number));
            let push = json!({"type": "push", "ack_id": number.to_string(), "to": {"tags": [channel(number)]},
                              "idempotency_key": key, "payload": payload});
            self.unanswered.insert(number, push.to_string());
            client.socket.feed(Message::text(push.to_string())).await?;
        }
        client.socket.flush().await?;
        Ok(())
    }

    fn hear(&mut self, text: &str) -> Option<Duration> {
        let answer: Answer = serde_json::from_str(text).ok()?;
        if answer.kind == "move" {
            self.told.moves += 1;
            return Some(Duration::from_millis(answer.payload["after_ms"].as_u64().expect("a time")));
        }
        let number: u64 = answer.ack_id.parse().ok()?;
        if answer.code == 1 {
            self.unanswered.remove(&number);
            self.told.pushed[usize::try_from(number).expect("a small number")].acknowledged = true;
        }
        None
    }
}

/// Pushes batches over a kept connection to any node, perhaps with a value of the tag of class `latest`; the last such value.
pub async fn over_http(town: Town, pusher: u32, with_values: bool, every: Duration, over: Over) -> (Pushing, u64) {
    let (mut told, mut connection, mut values) = (Pushing::default(), None, 0);
    while !over.get() {
        let round = Instant::now();
        let first = told.pushed.len() as u64;
        let mut lines = String::new();
        for number in first..first + TOGETHER {
            let line = json!({"tags": [channel(number)], "data": payload(pusher, number), "idempotency_key": key(pusher, number)});
            lines += &format!("{line}\n");
            told.pushed.push(noted(pusher, number));
        }
        if with_values {
            values += 1;
            let key = format!("{pusher}-v{values}");
            let value = json!({"tags": [LATEST], "data": {"number": values}, "idempotency_key": key});
            lines += &format!("{value}\n");
        }
        while !batch(&mut connection, &town, &lines).await {
            told.again += 1;
            sleep(Duration::from_millis(20)).await;
        }
        told.pushed[first as usize..].iter_mut().for_each(|push| push.acknowledged = true);
        sleep_until(round + every).await;
    }
    (told, values)
}

/// One try; whether every line was accepted.
async fn batch(connection: &mut Option<(TcpStream, Api)>, town: &Town, lines: &str) -> bool {
    let exchanged = timeout(Duration::from_secs(15), exchange(connection, town, lines)).await;
    let accepted = matches!(exchanged, Ok(Some(true)));
    if !accepted {
        *connection = None;
    }
    accepted
}

async fn exchange(connection: &mut Option<(TcpStream, Api)>, town: &Town, lines: &str) -> Option<bool> {
    if connection.is_none() {
        let api = town.api()?;
        *connection = Some((TcpStream::connect(api.address).await.ok()?, api));
    }
    let (stream, api) = connection.as_mut()?;
    stream.write_all(&api.batch_request(lines)).await.ok()?;
    let response = http::read(stream).await.ok()?;
    let leaves = response.header("connection") == Some("close");
    let answers = response.text();
    let accepted =
        answers.lines().filter(|line| serde_json::from_str::<Answer>(line).is_ok_and(|answer| answer.code == 1));
    let all = response.status == 200 && accepted.count() == lines.lines().count();
    if leaves {
        *connection = None;
    }
    Some(all)
}
