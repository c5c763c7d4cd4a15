//! What the HTTP tests share: a server on a thread of its own over loopback, and a client that writes raw bytes.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod exchange;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use ws_cluster::{
    clock,
    http::{Handler, Server, listen},
    limits::HttpLimits,
    metrics::Counters,
};

/// Patience with a server on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server that lives as long as the test's process.
pub struct Served {
    pub address: SocketAddr,
    pub counters: Arc<Counters>,
}

/// Serves what `make` makes on its own thread; `beside` runs on the same thread.
pub fn serve_with<H: Handler, F: Future<Output = ()> + 'static>(
    limits: HttpLimits,
    make: impl FnOnce(&Arc<Counters>) -> (H, F) + Send + 'static,
) -> Served {
    let counters = Arc::<Counters>::default();
    let (told, tell) = (counters.clone(), mpsc::sync_channel(1));
    std::thread::spawn(move || {
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::FusionDriver>::new().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = monoio::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            tell.0.send(listener.local_addr().expect("an address")).expect("the test waits");
            let (handler, beside) = make(&told);
            monoio::spawn(beside);
            listen(listener, Rc::new(Server::new(handler, limits, told))).await;
        });
    });
    Served { address: tell.1.recv_timeout(PATIENCE).expect("the server starts"), counters }
}

/// Serves what `make` makes on its own thread.
pub fn serve<H: Handler>(limits: HttpLimits, make: impl FnOnce() -> H + Send + 'static) -> Served {
    serve_with(limits, move |_| (make(), std::future::ready(())))
}

/// One answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
    }
}

/// A connection that writes raw bytes and reads answers.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, read: Vec::new() }
    }

    /// A connection that has sent `bytes`. The server may close before it took all of them.
    pub fn send(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut client = Self::connect(address);
        let _ = client.write(bytes);
        client
    }

    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer with its body.
    pub fn answer(&mut self) -> Answer {
        self.next_answer(false)
    }

    /// The next answer, of which the body is left out (HEAD, 100).
    pub fn answer_without_body(&mut self) -> Answer {
        self.next_answer(true)
    }

    fn next_answer(&mut self, bodiless: bool) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read_more(), "closed inside a head: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("a head is text").to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: String::new() };
        if !bodiless {
            let length = answer.header("content-length").expect("a length").parse().expect("a number");
            while self.read.len() < length {
                assert!(self.read_more(), "closed inside a body");
            }
            answer.body = String::from_utf8(self.read.drain(..length).collect()).expect("a body is text");
        }
        answer
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let length = self.stream.read(&mut buffer).expect("the server answers in time");
        self.read.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// Whether the server closes, having sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 256];
        assert_eq!(self.read, b"", "bytes nobody asked for");
        match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => panic!("more than was asked for: {:?}", String::from_utf8_lossy(&buffer[..length])),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(_) => false,
        }
    }

    /// Whether nothing comes for `time` and the connection stays.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let mut byte = [0];
        let silent = matches!(self.stream.read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent && self.read.is_empty()
    }
}

/// One request, one answer, on a connection of its own.
pub fn ask(address: SocketAddr, request: &str) -> Answer {
    Client::send(address, request.as_bytes()).answer()
}

/// Waits until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !holds() {
        assert!(clock::now() < deadline, "never: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "a test's thread is no core")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
