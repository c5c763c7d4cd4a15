//! A WebSocket client of its own make (tokio-tungstenite): typed receiving, a bound on every wait.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue, protocol::Role},
};

use super::{
    Node, PATIENCE, QUIET,
    config::{PID, secret_of},
    sign, unix_now,
};

/// Who connects, and with what.
#[derive(Clone, Debug)]
pub struct Connect<'a> {
    /// The project.
    pub pid: &'a str,
    /// The user, or a back-end's name for itself.
    pub uid: &'a str,
    /// `1` a user, `2` a back-end.
    pub kind: &'a str,
    /// Kind of device.
    pub device: Option<&'a str>,
    /// Subscribed from the start.
    pub tags: Option<&'a str>,
    /// In place of a signature.
    pub token: Option<&'a str>,
    /// In place of the project's secret.
    pub secret: Option<&'a str>,
    /// Seconds from now.
    pub expires_in: i64,
    /// `/ws/connect` or `/connect`
    pub path: &'a str,
    /// A browser's page.
    pub origin: Option<&'a str>,
    /// `SO_RCVBUF` of its socket: how little it takes before it is felt that nobody reads.
    pub receive_buffer: Option<u32>,
}

impl<'a> Connect<'a> {
    /// A user of the usual project.
    pub fn user(uid: &'a str) -> Self {
        Self {
            pid: PID,
            uid,
            kind: "1",
            device: None,
            tags: None,
            token: None,
            secret: None,
            expires_in: 60,
            path: "/ws/connect",
            origin: None,
            receive_buffer: None,
        }
    }

    /// A back-end of the usual project.
    pub fn backend(uid: &'a str) -> Self {
        Self { kind: "2", ..Self::user(uid) }
    }

    /// Somebody with a token.
    pub fn token(token: &'a str) -> Self {
        Self { token: Some(token), ..Self::user("") }
    }

    /// Path and query.
    pub fn target(&self) -> String {
        let mut params: Vec<(&str, &str)> = Vec::new();
        params.extend(self.device.map(|device| ("device", device)));
        params.extend(self.tags.map(|tags| ("tags", tags)));
        if let Some(token) = self.token {
            params.push(("token", token));
            return format!("{}?{}", self.path, sign::query(&params));
        }
        let exp = (i64::try_from(unix_now()).expect("this century") + self.expires_in).to_string();
        let signed = [("exp", exp.as_str()), ("pid", self.pid), ("type", self.kind), ("uid", self.uid)];
        let signature = sign::sign(self.secret.unwrap_or_else(|| secret_of(self.pid)), &signed);
        params.extend(signed);
        params.push(("sign", &signature));
        format!("{}?{}", self.path, sign::query(&params))
    }

    /// Connects and takes the greeting.
    pub async fn to(&self, node: &Node) -> Client {
        let mut client = self.upgrade(node).await;
        let greeting = client.next().await;
        assert_eq!(greeting["type"], "connect", "{greeting}");
        assert_eq!(greeting["code"], 1, "{greeting}");
        client.cid = greeting["payload"]["client_id"].as_str().expect("a client_id").to_owned();
        client.greeting = greeting;
        client
    }

    /// Connects and takes nothing.
    pub async fn upgrade(&self, node: &Node) -> Client {
        let connected = self.try_upgrade(node.ws).await;
        connected.unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    /// Connects, or says why not (an HTTP answer that is no 101 is an error).
    pub async fn try_upgrade(&self, address: SocketAddr) -> Result<Client, Box<Error>> {
        let mut request = format!("ws://{address}{}", self.target()).into_client_request().map_err(Box::new)?;
        if let Some(origin) = self.origin {
            request.headers_mut().insert("origin", HeaderValue::from_str(origin).expect("an origin"));
        }
        let stream = self.stream(address).await.map_err(|error| Box::new(error.into()))?;
        let opening = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await;
        let (socket, _) = opening.expect("an answer to the handshake").map_err(Box::new)?;
        Ok(Client { socket, cid: String::new(), greeting: Value::Null, put_back: VecDeque::new() })
    }

    async fn stream(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    /// The open socket.
    pub socket: WebSocketStream<TcpStream>,
    /// Its `client_id`.
    pub cid: String,
    /// The first frame.
    pub greeting: Value,
    put_back: VecDeque<String>,
}

impl Client {
    /// A user of the usual project.
    pub async fn user(node: &Node, uid: &str) -> Self {
        Connect::user(uid).to(node).await
    }

    /// A back-end of the usual project.
    pub async fn backend(node: &Node, uid: &str) -> Self {
        Connect::backend(uid).to(node).await
    }

    /// Over an open stream on which the handshake has been done by hand.
    pub async fn over(stream: TcpStream) -> Self {
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self { socket, cid: String::new(), greeting: Value::Null, put_back: VecDeque::new() }
    }

    /// Sends a JSON object.
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends a text.
    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) {
        let sent = timeout(PATIENCE, self.socket.send(message)).await;
        sent.expect("the socket takes a message").expect("the connection is open");
    }

    /// The next text, as it came; panics at anything else but pings and pongs.
    pub async fn next_text(&mut self) -> String {
        if let Some(text) = self.put_back.pop_front() {
            return text;
        }
        loop {
            match timeout(PATIENCE, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return text.to_string(),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(other) => panic!("{}: wanted a text, got {other:?}", self.cid),
                Err(_) => panic!("{}: no message within {PATIENCE:?}", self.cid),
            }
        }
    }

    /// The next message as JSON.
    pub async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }

    /// The next message that `wanted` accepts; others are passed over.
    pub async fn next_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    /// The answer to the command with this `ack_id`; what comes before it stays to be received.
    pub async fn answer(&mut self, ack_id: &str) -> Value {
        let mut before = VecDeque::new();
        loop {
            let text = self.next_text().await;
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["ack_id"] == ack_id {
                before.append(&mut self.put_back);
                self.put_back = before;
                return message;
            }
            before.push_back(text);
        }
    }

    /// Sends a command with an `ack_id` and returns its answer.
    pub async fn ask(&mut self, mut command: Value) -> Value {
        let ack_id = super::unique("ack");
        command["ack_id"] = ack_id.as_str().into();
        self.send(command).await;
        self.answer(&ack_id).await
    }

    /// Subscribes and expects every tag to be granted. Snapshots come as messages afterwards (or before the answer).
    pub async fn subscribe(&mut self, tags: &[&str]) {
        let answer = self.ask(json!({"type": "subscribe", "tags": tags})).await;
        assert_eq!(answer["code"], 1, "{answer}");
        assert_eq!(answer["payload"]["granted"], json!(tags), "{answer}");
        assert_eq!(answer["payload"]["denied"], json!([]), "{answer}");
    }

    /// Waits until the server has handled everything that was sent before.
    pub async fn settle(&mut self) {
        let pong = self.ask(json!({"type": "heart"})).await;
        assert_eq!(pong["type"], "heart", "{pong}");
    }

    /// Checks that nothing comes for a while.
    pub async fn silent(&mut self) {
        self.silent_for(QUIET).await;
    }

    /// Checks that no message comes for this long.
    pub async fn silent_for(&mut self, duration: Duration) {
        assert!(self.put_back.is_empty(), "{}: unexpected {:?}", self.cid, self.put_back);
        let listening = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return other,
                }
            }
        };
        if let Ok(unexpected) = timeout(duration, listening).await {
            panic!("{}: unexpected {unexpected:?}", self.cid);
        }
    }

    /// The next text, or the close frame that came instead.
    pub async fn next_or_close(&mut self) -> Result<String, (u16, String)> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a message or a close") {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => return Err((frame.code.into(), frame.reason.to_string())),
                Some(Ok(_)) => {}
                other => return Err((1006, format!("{other:?}"))),
            }
        }
    }

    /// Waits for the server's close frame, passing over other messages; code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        self.closed_within(PATIENCE).await
    }

    /// The same with another bound.
    pub async fn closed_within(&mut self, bound: Duration) -> (u16, String) {
        let closing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                    Some(Ok(Message::Close(None))) => return (1005, String::new()),
                    Some(Ok(_)) => {}
                    other => panic!("{}: the connection ended without a close frame: {other:?}", self.cid),
                }
            }
        };
        timeout(bound, closing).await.unwrap_or_else(|_| panic!("{}: not closed within {bound:?}", self.cid))
    }

    /// Closes in good order and waits for the server's answer.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
        let draining = async { while let Some(Ok(_)) = self.socket.next().await {} };
        assert!(timeout(PATIENCE, draining).await.is_ok(), "the close handshake ends");
    }
}
