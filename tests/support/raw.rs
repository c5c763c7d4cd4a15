//! A WebSocket connection by hand, for bytes that no client library would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Connect, Node, PATIENCE, http};

/// Frame opcodes (RFC 6455, 5.2).
pub mod opcode {
    /// Continuation of a fragmented message.
    pub const CONTINUATION: u8 = 0;
    /// Text.
    pub const TEXT: u8 = 1;
    /// Binary.
    pub const BINARY: u8 = 2;
    /// Close.
    pub const CLOSE: u8 = 8;
    /// Ping.
    pub const PING: u8 = 9;
    /// Pong.
    pub const PONG: u8 = 10;
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Raw {
    /// The stream.
    pub stream: TcpStream,
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole first byte but its final bit.
    pub opcode: u8,
    /// Whether it ends its message.
    pub last: bool,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Code and reason of a close frame.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, opcode::CLOSE, "{self:?}");
        let [high, low, reason @ ..] = self.payload.as_slice() else { return (1005, String::new()) };
        (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
    }
}

/// The bytes of a client's frame; `first` is the whole first byte.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(masked | u8::try_from(length).expect("below 126")),
        length @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend(u16::try_from(length).expect("16 bits").to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend(u64::try_from(length).expect("64 bits").to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    bytes.extend(mask.iter().flatten());
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A well-formed final frame.
pub fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, Some([1, 2, 3, 4]), payload)
}

/// The request of a handshake with everything it needs.
pub fn upgrade_request(target: &str, host: &str) -> String {
    upgrade_with(target, host, "")
}

/// The same with more headers, each with its line's end.
pub fn upgrade_with(target: &str, host: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

impl Raw {
    /// Connects as a user and takes the greeting.
    pub async fn user(node: &Node, uid: &str) -> Self {
        Self::connect(node, &Connect::user(uid)).await
    }

    /// Connects and takes the greeting.
    pub async fn connect(node: &Node, connect: &Connect<'_>) -> Self {
        let mut raw = Self::upgrade(node, &connect.target()).await;
        let greeting = raw.frame().await;
        assert_eq!(greeting.opcode, opcode::TEXT, "{greeting:?}");
        raw
    }

    /// Connects and reads the 101 and nothing behind it.
    pub async fn upgrade(node: &Node, target: &str) -> Self {
        Self::upgrade_and(node, target, b"").await
    }

    /// The same, with bytes that follow the request at once.
    pub async fn upgrade_and(node: &Node, target: &str, behind: &[u8]) -> Self {
        let mut request = upgrade_request(target, &node.ws.to_string()).into_bytes();
        request.extend_from_slice(behind);
        Self::request(node, &request).await.0
    }

    /// Connects with these `Sec-WebSocket-Extensions` and takes the greeting; what the server has agreed on.
    pub async fn offering(node: &Node, connect: &Connect<'_>, offers: &str) -> (Self, Option<String>) {
        let headers = format!("Sec-WebSocket-Extensions: {offers}\r\n");
        let request = upgrade_with(&connect.target(), &node.ws.to_string(), &headers);
        let (mut raw, head) = Self::request(node, request.as_bytes()).await;
        assert_eq!(raw.frame().await.opcode, opcode::TEXT, "the greeting");
        let agreed = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        (raw, agreed.map(str::to_owned))
    }

    /// Sends a request and reads its 101.
    async fn request(node: &Node, request: &[u8]) -> (Self, String) {
        let mut stream = TcpStream::connect(node.ws).await.expect("a connection");
        stream.write_all(request).await.expect("the request is sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.expect("a head").expect("a whole head"));
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The answer to the key of RFC 6455, 1.3.
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        (Self { stream }, head)
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is open");
    }

    /// Sends bytes to a server that may have closed already.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await;
    }

    /// The next frame; panics when the stream ends.
    pub async fn frame(&mut self) -> Frame {
        self.try_frame().await.expect("a frame before the end of the stream")
    }

    /// The next frame; none at the end of the stream.
    pub async fn try_frame(&mut self) -> Option<Frame> {
        let reading = async {
            let first = self.stream.read_u8().await.ok()?;
            let second = self.stream.read_u8().await.ok()?;
            assert_eq!(second & 0x80, 0, "a server masks nothing");
            let length = match second {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame { opcode: first & 0x7f, last: first & 0x80 != 0, payload })
        };
        timeout(PATIENCE, reading).await.expect("a frame or the end of the stream")
    }

    /// Passes over frames until the close frame; its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame().await;
            if frame.opcode == opcode::CLOSE {
                return frame.close();
            }
        }
    }

    /// Checks that the server ends the stream (FIN, or a reset) within the bound, and sends no frame before.
    pub async fn ended_within(&mut self, bound: Duration) {
        let mut buffer = [0; 1024];
        match timeout(bound, self.stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => {}
            Ok(Ok(n)) => panic!("{n} more bytes: {:?}", &buffer[..n]),
            Err(_) => panic!("the stream is still open after {bound:?}"),
        }
    }

    /// What the server answers to a request that is no upgrade.
    pub async fn refused(node: &Node, request: &str) -> http::Response {
        http::raw(node.ws, request.as_bytes()).await
    }
}
