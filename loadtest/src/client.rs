//! A WebSocket client of a node, written from the specification and independent of the server's own code.
//!
//! Times are bounded. Leaves out: TLS, deflate, reconnecting (a lost connection is a finding).

use std::{borrow::Cow, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message, Utf8Bytes,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Longest wait for a step of opening or closing.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub struct Session {
    socket: WebSocketStream<TcpStream>,
}

/// The fields of any text that a node sends; what is not there is empty.
#[derive(Debug, Default, Deserialize)]
pub struct Frame<'a> {
    /// `connect`, `gap`, `heart` and so on; a push has none.
    #[serde(borrow, default, rename = "type")]
    pub kind: Cow<'a, str>,
    /// Which command it answers.
    #[serde(borrow, default)]
    pub ack_id: Cow<'a, str>,
    /// 1 done, 0 not.
    pub code: Option<i64>,
    /// Why not, as a stable word.
    #[serde(borrow, default)]
    pub err: Cow<'a, str>,
    /// The tag of a publication or a gap.
    #[serde(borrow, default)]
    pub tag: Cow<'a, str>,
    /// A publication's place in the queue.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// The id of the tag's publication before.
    pub prev: Option<String>,
    /// The value at the time of subscribing.
    #[serde(default)]
    pub snapshot: bool,
    /// Something is missing before it.
    #[serde(default)]
    pub gap: bool,
    /// How many others it stands for.
    #[serde(default)]
    pub merged: u64,
    /// The payload, byte for byte.
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subscribed {
    #[serde(default)]
    granted: Vec<String>,
    #[serde(default)]
    denied: Vec<serde_json::Value>,
}

impl<'a> Frame<'a> {
    /// The fields of a text.
    pub fn parse(text: &'a str) -> Result<Self> {
        serde_json::from_str(text).context("a text that is no JSON object of the protocol")
    }
}

impl Session {
    /// Opens `ws://authority` with `target` (path and query) and waits for the greeting.
    pub async fn connect(authority: &str, target: &str) -> Result<Self> {
        timeout(STEP_TIMEOUT, Self::open(authority, target)).await.context("no greeting in time")?
    }

    async fn open(authority: &str, target: &str) -> Result<Self> {
        let stream = TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
        stream.set_nodelay(true)?;
        // The library's default takes 128 KiB a connection.
        let config = WebSocketConfig::default().read_buffer_size(8192).write_buffer_size(0);
        let url = format!("ws://{authority}{target}");
        let (socket, _) =
            client_async_with_config(url, stream, Some(config)).await.context("the upgrade was not accepted")?;
        let mut session = Self { socket };
        let greeting = session.next_text().await?;
        let frame = Frame::parse(&greeting)?;
        ensure!(frame.kind == "connect" && frame.code == Some(1), "the first frame is no greeting");
        Ok(session)
    }

    /// Subscribes to `tags`. The answer is what came meanwhile: snapshots.
    pub async fn subscribe(&mut self, tags: &[String]) -> Result<Vec<Utf8Bytes>> {
        let command = serde_json::json!({ "type": "subscribe", "ack_id": "subscribe", "tags": tags });
        self.send_text(command.to_string()).await?;
        timeout(STEP_TIMEOUT, self.await_granted(tags)).await.context("no answer to subscribe in time")?
    }

    async fn await_granted(&mut self, tags: &[String]) -> Result<Vec<Utf8Bytes>> {
        let mut before = Vec::new();
        loop {
            let text = self.next_text().await?;
            let frame = Frame::parse(&text)?;
            if frame.ack_id != "subscribe" {
                ensure!(before.len() <= tags.len(), "more frames than snapshots before the answer to subscribe");
                before.push(text);
                continue;
            }
            let payload = frame.payload.context("an answer to subscribe without payload")?;
            let answer: Subscribed = serde_json::from_str(payload.get()).context("the answer to subscribe")?;
            ensure!(
                frame.code == Some(1) && answer.granted.len() == tags.len() && answer.denied.is_empty(),
                "subscribe: {} of {} tags granted, denied: {:?}",
                answer.granted.len(),
                tags.len(),
                answer.denied
            );
            return Ok(before);
        }
    }

    /// The next text. An error tells why the connection ended. May be dropped while it waits without losing a frame.
    pub async fn next_text(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    bail!("closed by the node: {} {}", u16::from(frame.code), frame.reason)
                }
                Some(Ok(Message::Close(None))) | None => bail!("the connection ended"),
                Some(Ok(_)) => {}
                Some(Err(problem)) => return Err(problem).context("the connection failed"),
            }
        }
    }

    /// Sends a text.
    pub async fn send_text(&mut self, text: String) -> Result<()> {
        self.socket.send(Message::text(text)).await.context("sending a text")
    }

    /// Closes with 1000 and waits for the other side, within bounds.
    pub async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("done") };
        let farewell = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // A node that does not answer a close is not what is measured here.
        let _ = timeout(Duration::from_secs(2), farewell).await;
    }
}

#[cfg(test)]
mod tests {
    //! Method: texts by hand.
    use super::*;

    #[test]
    fn a_publication_keeps_its_payload_byte_for_byte() {
        let text =
            r#"{"tag":"k","id":"1-2","prev":"","affair_id":"a","payload":{"o": 1.10, "big":123456789012345678901} }"#;
        let frame = Frame::parse(text).expect("a frame");
        assert_eq!((frame.tag.as_ref(), frame.id.as_ref(), frame.prev.as_deref()), ("k", "1-2", Some("")));
        assert_eq!(frame.payload.expect("a payload").get(), r#"{"o": 1.10, "big":123456789012345678901}"#);
        assert!(!frame.snapshot && !frame.gap && frame.merged == 0 && frame.kind.is_empty());
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(Frame::parse("[1]").is_err());
        assert!(Frame::parse("{").is_err());
    }
}
