//! A small HTTP/1.1 client of its own: one request a connection, or raw bytes for what no client would send.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, dechunked.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The payload of a 200 with `code` 1.
    pub fn payload(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        let answer = self.json();
        assert_eq!(answer["code"], 1, "{answer}");
        answer["payload"].clone()
    }

    /// The stable word of a refusal, after checking its shape.
    pub fn err(&self) -> String {
        let answer = self.json();
        assert_eq!(answer["code"], 0, "{answer}");
        assert!(answer["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{answer}");
        answer["err"].as_str().unwrap_or_else(|| panic!("no err: {answer}")).to_owned()
    }
}

/// Sends one request and reads its answer; the connection is not kept.
pub async fn request(address: SocketAddr, method: &str, target: &str, content_type: &str, body: &[u8]) -> Response {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    raw(address, &bytes).await
}

/// `GET target`.
pub async fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, "", b"").await
}

/// Sends these bytes and reads one answer.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Response {
    try_raw(address, bytes).await.unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// The same, for when the server may be away.
pub async fn try_raw(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // A server may refuse and close before it has read all: what it answered counts.
        let _ = stream.write_all(bytes).await;
        read(&mut stream).await
    };
    timeout(PATIENCE * 2, exchange).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Reads one answer.
pub async fn read(stream: &mut TcpStream) -> std::io::Result<Response> {
    let mut received = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(response) = parse(&received, false) {
            return Ok(response);
        }
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => received.extend_from_slice(&buffer[..n]),
            // What the server wrote before it reset the connection is already here.
            Err(_) if !received.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    parse(&received, true).ok_or_else(|| std::io::Error::other(format!("no answer in {} bytes", received.len())))
}

fn parse(received: &[u8], at_end: bool) -> Option<Response> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(received) else { return None };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = head.headers.iter().map(|header| (header.name.to_lowercase(), text(header.value))).collect();
    let mut response = Response { status: head.code?, headers, body: Vec::new() };
    let body = &received[length..];
    if response.status == 101 || response.status == 204 {
        return Some(response);
    }
    response.body = if response.header("transfer-encoding") == Some("chunked") {
        dechunk(body)?
    } else if let Some(expected) = response.header("content-length") {
        let expected: usize = expected.parse().ok()?;
        body.get(..expected)?.to_vec()
    } else if at_end {
        body.to_vec()
    } else {
        return None;
    };
    Some(response)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 4 + size..)?;
    }
}
