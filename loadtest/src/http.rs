//! A small HTTP/1.1 client on one kept connection: GET and POST, and an answer with a length or in chunks.
//!
//! It never sends a request twice: whoever calls cannot know otherwise whether a push was made. An error of `post` means
//! that the outcome is unknown. Sizes and times are bounded. Leaves out: TLS, redirects, pipelining.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body of an answer.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest line that tells a chunk's size.
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// A client of one server.
#[derive(Debug)]
pub struct HttpClient {
    authority: String,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
}

struct Head {
    status: u16,
    bytes: usize,
    body: BodyLength,
    close: bool,
}

enum BodyLength {
    Known(usize),
    Chunked,
    ToTheEnd,
}

impl HttpClient {
    /// A client of the server at `authority` (`host:port`); connects on the first call.
    pub fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned(), stream: None, received: Vec::new() }
    }

    /// Posts `body` to `target` (path and query) and reads the answer.
    pub async fn post(&mut self, target: &str, content_type: &str, body: &[u8]) -> Result<Response> {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.authority,
            body.len()
        );
        self.request([head.as_bytes(), body].concat()).await
    }

    /// Gets `target` (path and query).
    pub async fn get(&mut self, target: &str) -> Result<Response> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        self.request(head.into_bytes()).await
    }

    async fn request(&mut self, request: Vec<u8>) -> Result<Response> {
        let answered = timeout(ANSWER_TIMEOUT, self.exchange(&request)).await;
        let response = answered.context("no answer in time").flatten();
        if response.is_err() {
            self.stream = None;
        }
        response
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        self.drop_if_closed();
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.authority).await.context("connecting")?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
            self.received.clear();
        }
        self.stream().write_all(request).await.context("sending")?;
        let head = self.read_head().await?;
        let body = match head.body {
            BodyLength::Known(bytes) => self.take(bytes).await?,
            BodyLength::Chunked => self.read_chunks().await?,
            BodyLength::ToTheEnd => self.read_to_the_end().await?,
        };
        if head.close {
            self.stream = None;
        }
        Ok(Response { status: head.status, body })
    }

    /// A server may close an idle connection; then the next request goes over a new one, before anything was sent.
    fn drop_if_closed(&mut self) {
        let mut byte = [0];
        let open = |stream: &TcpStream| {
            stream.try_read(&mut byte).is_err_and(|problem| problem.kind() == std::io::ErrorKind::WouldBlock)
        };
        if !self.stream.as_ref().is_some_and(open) {
            self.stream = None;
        }
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream.as_mut().expect("connected before use")
    }

    /// Reads more of the answer; 0 at its end.
    async fn fill(&mut self) -> Result<usize> {
        let mut buffer = std::mem::take(&mut self.received);
        let read = self.stream().read_buf(&mut buffer).await;
        self.received = buffer;
        read.context("receiving")
    }

    async fn fill_some(&mut self) -> Result<()> {
        ensure!(self.fill().await? > 0, "the connection ended within an answer");
        Ok(())
    }

    async fn read_head(&mut self) -> Result<Head> {
        loop {
            if let Some(head) = parse_head(&self.received)? {
                self.received.drain(..head.bytes);
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            ensure!(self.received.len() <= HEAD_BYTES_MAX, "the answer's head is too large");
            self.fill_some().await?;
        }
    }

    async fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        ensure!(bytes <= BODY_BYTES_MAX, "the answer is too large: {bytes} bytes");
        while self.received.len() < bytes {
            self.fill_some().await?;
        }
        Ok(self.received.drain(..bytes).collect())
    }

    async fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("a chunk without a size")?;
            ensure!(body.len().saturating_add(size) <= BODY_BYTES_MAX, "the answer is too large");
            if size == 0 {
                while !self.take_line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size).await?);
            ensure!(self.take_line().await?.is_empty(), "a chunk longer than it says");
        }
    }

    async fn take_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line)?);
            }
            ensure!(self.received.len() <= CHUNK_LINE_BYTES_MAX, "an endless line in the answer");
            self.fill_some().await?;
        }
    }

    async fn read_to_the_end(&mut self) -> Result<Vec<u8>> {
        while self.fill().await? > 0 {
            ensure!(self.received.len() <= BODY_BYTES_MAX, "the answer is too large");
        }
        Ok(std::mem::take(&mut self.received))
    }
}

fn parse_head(received: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(received).context("the answer's head")? else {
        return Ok(None);
    };
    let (mut body, mut close) = (BodyLength::ToTheEnd, response.version == Some(0));
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value).trim().to_ascii_lowercase();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => body = BodyLength::Known(value.parse().context("content-length")?),
            "transfer-encoding" if value == "chunked" => body = BodyLength::Chunked,
            "transfer-encoding" => bail!("transfer-encoding {value}"),
            "connection" => close = value.split(',').any(|token| token.trim() == "close"),
            _ => {}
        }
    }
    let status = response.code.unwrap_or_default();
    if status < 200 || status == 204 {
        body = BodyLength::Known(0);
    }
    close |= matches!(body, BodyLength::ToTheEnd);
    Ok(Some(Head { status, bytes, body, close }))
}

#[cfg(test)]
mod tests {
    //! Method: a listener that plays one prepared answer per connection, cut into small writes.
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answers: &'static [&'static str]) -> (HttpClient, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = HttpClient::new(&listener.local_addr().expect("an address").to_string());
        let server = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.expect("a request") > 0);
                for piece in answer.as_bytes().chunks(7) {
                    stream.write_all(piece).await.expect("sent");
                    tokio::task::yield_now().await;
                }
            }
        });
        (client, server)
    }

    #[tokio::test]
    async fn answers_with_a_length_in_chunks_or_to_the_end_are_read() {
        let (mut client, server) = answered(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\nhello",
        ])
        .await;
        for status in [200, 200, 503] {
            let response = client.post("/x", "text/plain", b"{}").await.expect("an answer");
            assert_eq!((response.status, response.body.as_slice()), (status, b"hello".as_slice()));
            // The server closes after each answer: the next call must notice before it sends.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.await.expect("the server");
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error_and_not_a_wait() {
        let (mut client, server) = answered(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ])
        .await;
        for _ in 0..4 {
            assert!(client.post("/x", "text/plain", b"{}").await.is_err());
        }
        server.await.expect("the server");
    }
}
