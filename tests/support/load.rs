//! Pushers and subscribers for the fault tests: two thousand acknowledged pushes a second over all nodes.
//!
//! On every node one back-end connection and one HTTP batch connection push, each a fixed share, and subscribers
//! take everything. A push that is refused is not tried again: the next number follows.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Api, Client, Connect, Node,
    checker::{Pushed, Received, Report, check},
    http,
};

/// Pushes of one pusher that go out together, and how often.
const TOGETHER: u64 = 20;
const TAGS: u64 = 8;
/// The user that all subscribers are.
const SUBSCRIBER: &str = "subscriber";
/// Unanswered pushes of one back-end connection: about three seconds' worth.
const IN_FLIGHT_MAX: usize = 2000;

/// A run in the making: everybody is connected.
#[derive(Debug)]
pub struct Load {
    subscribers: Vec<Client>,
    backends: Vec<Client>,
    apis: Vec<Api>,
    every: Duration,
}

/// Where a push goes: mostly to one of a few tags, every tenth to a user.
fn channel(number: u64) -> String {
    if number.is_multiple_of(10) { format!("uid:{SUBSCRIBER}") } else { format!("tag{}", number % TAGS) }
}

fn audience(channel: &str) -> serde_json::Value {
    match channel.strip_prefix("uid:") {
        Some(uid) => json!({"uids": [uid]}),
        None => json!({"tags": [channel]}),
    }
}

fn payload(pusher: u32, number: u64, channel: &str) -> serde_json::Value {
    json!({"pusher": pusher, "number": number, "channel": channel})
}

#[derive(Deserialize)]
struct Delivery {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    tag: String,
    id: Option<String>,
    prev: Option<String>,
    payload: Option<Label>,
}

#[derive(Deserialize)]
struct Label {
    pusher: u32,
    number: u64,
    channel: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ack_id: String,
    #[serde(default)]
    code: i64,
}

impl Load {
    /// Connects `subscribers` to each of the first `watched` nodes, and pushers to all, who will push `rate` a second
    /// together.
    pub async fn connect(nodes: &[Node], watched: usize, subscribers: usize, rate: u64) -> Self {
        let mut load = Self { subscribers: Vec::new(), backends: Vec::new(), apis: Vec::new(), every: Duration::ZERO };
        let tags: Vec<String> = (0..TAGS).map(|n| format!("tag{n}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        for (number, node) in nodes.iter().enumerate() {
            for _ in 0..if number < watched { subscribers } else { 0 } {
                let mut subscriber = Client::user(node, SUBSCRIBER).await;
                subscriber.subscribe(&tags).await;
                load.subscribers.push(subscriber);
            }
            load.backends.push(Connect::backend("pusher").to(node).await);
            load.apis.push(node.api());
        }
        let pushers = load.backends.len() + load.apis.len();
        load.every = Duration::from_secs_f64(TOGETHER as f64 * pushers as f64 / rate as f64);
        load
    }

    /// Pushes for `duration`, waits until what was acknowledged has arrived (or arrives no more), and compares.
    pub async fn run(self, duration: Duration) -> Report {
        let Self { subscribers, backends, apis, every } = self;
        let until = Instant::now() + duration;
        let owed = Rc::new(Cell::new(None));
        let receipts = join_all(subscribers.into_iter().map(|client| receive(client, owed.clone())));
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        let over_sockets = join_all(backends.into_iter().map(|client| push_over_socket(client, next(), every, until)));
        let over_http = join_all(apis.into_iter().map(|api| push_over_http(api, next(), every, until)));
        let pushing = async {
            let (mut pushed, more) = tokio::join!(over_sockets, over_http);
            pushed.extend(more);
            let pushed: Vec<Pushed> = pushed.into_iter().flatten().collect();
            owed.set(Some(pushed.iter().filter(|push| push.acknowledged).count()));
            pushed
        };
        let (pushed, received) = tokio::join!(pushing, receipts);
        check(&pushed, &received)
    }
}

/// Collects until as many as are owed have come and a moment's silence follows, or nothing has come for long.
async fn receive(mut client: Client, owed: Rc<Cell<Option<usize>>>) -> Vec<Received> {
    let mut received = Vec::new();
    let mut last = Instant::now();
    loop {
        let (enough, patience) = match owed.get() {
            None => (false, Duration::MAX),
            Some(owed) if received.len() >= owed => (true, Duration::from_millis(500)),
            Some(_) => (false, Duration::from_secs(10)),
        };
        match timeout(Duration::from_millis(200), client.socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                last = Instant::now();
                received.extend(parse(&text));
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(other) => {
                received.push(Received::Closed { how: format!("{other:?}") });
                return received;
            }
            Err(_) if last.elapsed() > patience => {
                if !enough {
                    eprintln!("{}: gave up waiting for what was acknowledged", client.cid);
                }
                return received;
            }
            Err(_) => {}
        }
    }
}

fn parse(text: &str) -> Option<Received> {
    let delivery: Delivery = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    if delivery.kind == "gap" {
        return Some(Received::Gap { channel: delivery.tag });
    }
    let Label { pusher, number, channel } = delivery.payload?;
    Some(Received::Message { pusher, number, channel, link: delivery.id.zip(delivery.prev) })
}

/// Pushes over a back-end connection; answers come as they come.
async fn push_over_socket(client: Client, pusher: u32, every: Duration, until: Instant) -> Vec<Pushed> {
    let (mut sink, mut stream) = client.socket.split();
    let pushed: RefCell<Vec<Pushed>> = RefCell::default();
    let answered = Cell::new(0);
    let sending = async {
        let mut number = 0;
        while Instant::now() < until {
            let round = Instant::now();
            for _ in 0..TOGETHER {
                let channel = channel(number);
                let (to, payload) = (audience(&channel), payload(pusher, number, &channel));
                let push = json!({"type": "push", "ack_id": number.to_string(), "to": to, "payload": payload});
                pushed.borrow_mut().push(Pushed { pusher, number, channel, acknowledged: false });
                number += 1;
                if sink.feed(Message::text(push.to_string())).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
            while pushed.borrow().len() - answered.get() > IN_FLIGHT_MAX && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep_until(round + every).await;
        }
    };
    let answering = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Text(text) = message else { continue };
            let Ok(answer) = serde_json::from_str::<Answer>(&text) else { continue };
            let Ok(number) = answer.ack_id.parse::<usize>() else { continue };
            answered.set(answered.get() + 1);
            pushed.borrow_mut()[number].acknowledged = answer.code == 1;
        }
    };
    let answers_after = async {
        sending.await;
        let patience = Instant::now() + Duration::from_secs(10);
        while answered.get() < pushed.borrow().len() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = answering => eprintln!("pusher {pusher}: its connection ended"),
        () = answers_after => {}
    }
    pushed.into_inner()
}

/// Pushes batches over a kept HTTP connection; a broken one is opened again.
async fn push_over_http(api: Api, pusher: u32, every: Duration, until: Instant) -> Vec<Pushed> {
    let mut pushed = Vec::new();
    let mut connection = None;
    while Instant::now() < until {
        let round = Instant::now();
        let first = pushed.len() as u64;
        let mut lines = String::new();
        for number in first..first + TOGETHER {
            let channel = channel(number);
            let mut line = audience(&channel);
            line["data"] = payload(pusher, number, &channel);
            lines += &format!("{line}\n");
            pushed.push(Pushed { pusher, number, channel, acknowledged: false });
        }
        let answers = timeout(Duration::from_secs(15), exchange(&mut connection, &api, &lines)).await;
        match answers {
            Ok(Ok(answers)) => {
                for (push, answer) in pushed[first as usize..].iter_mut().zip(answers) {
                    push.acknowledged = answer.code == 1;
                }
            }
            _ => connection = None,
        }
        // After a stall the share is caught up, as clients would.
        tokio::time::sleep_until(round + every).await;
    }
    pushed
}

async fn exchange(connection: &mut Option<TcpStream>, api: &Api, lines: &str) -> std::io::Result<Vec<Answer>> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(TcpStream::connect(api.address).await?),
    };
    stream.write_all(&api.batch_request(lines)).await?;
    let response = http::read(stream).await?;
    if response.header("connection") == Some("close") {
        *connection = None;
    }
    if response.status != 200 {
        return Ok(Vec::new());
    }
    Ok(response.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
