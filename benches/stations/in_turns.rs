//! A core's fan-out against a bare loop of `send(2)` of the same frame over the same sockets, in one process and in turns.
//!
//! Why: two processes have different memory and different luck, and a machine with neighbours gives each of them another hour;
//! publications in turns share all that, so the ratio holds to a hundredth where that of whole servers moves by a tenth. What is
//! compared is the core alone: routing, encoding, queueing, the walk with its pauses. What a publication takes before its core
//! hears it (the back-end's frame, the log) is not in it; `loadtest compare` has that.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use ws_cluster::{
    limits::Limits,
    model::Published,
    shard::{Core, Driver, Socket, run_on_driver},
};

use super::{follower, published, settings};

/// Subscribers, and bytes of a frame.
const CASES: [(usize, usize); 4] = [(100, 200), (1000, 200), (1000, 1200), (4000, 200)];
/// Publications of each kind, and before that those in which buffers grow.
const ROUNDS: usize = 400;
const ROUNDS_BEFORE: usize = 20;

/// The sockets of a case, and who reads them.
struct Fan {
    core: Rc<Core>,
    sockets: Vec<Rc<Socket>>,
    /// Bytes that each subscriber gets next.
    read: mpsc::SyncSender<usize>,
    /// All of them have got them.
    has_read: mpsc::Receiver<Vec<u8>>,
}

/// Prints what a delivery costs both ways, case by case.
pub fn run() {
    say("subscribers  bytes  core us  bare us  core/bare: median (quarter to quarter)");
    for (subscribers, bytes) in CASES {
        run_on_driver(Driver::Auto, |_| async move {
            let fan = Fan::new(subscribers);
            let (published, frame) = fan.publication_of(bytes).await;
            fan.compare(published, &frame).await;
        })
        .expect("a driver");
    }
}

impl Fan {
    fn new(subscribers: usize) -> Self {
        let core = Core::new(settings(), Arc::default()).expect("a core");
        let (mut sockets, mut clients) = (Vec::new(), Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        for _ in 0..subscribers {
            let client = TcpStream::connect(address).expect("a connection");
            let (server, _) = listener.accept().expect("its other end");
            server.set_nodelay(true).expect("an option");
            server.set_nonblocking(true).expect("an option");
            let socket = Socket::new(OwnedFd::from(server), &Limits::default().writing).expect("a socket");
            let (id, socket) = (core.with_hub(follower), Rc::new(socket));
            core.attach(id, socket.clone());
            sockets.push(socket);
            clients.push(client);
        }
        monoio::spawn(core.clone().walk());
        let (read, to_read) = mpsc::sync_channel(1);
        let (tell, has_read) = mpsc::sync_channel(1);
        thread::spawn(move || to_read.into_iter().try_for_each(|bytes| tell.send(read_all(&mut clients, bytes))));
        Self { core, sockets, read, has_read }
    }

    /// A publication whose frame has so many bytes (more than a short header tells of), and the frame.
    async fn publication_of(&self, bytes: usize) -> (Arc<Published>, Vec<u8>) {
        let of_payload =
            |payload: usize| Arc::new(Published { payload: Bytes::from(vec![b'1'; payload]), ..published() });
        let (probe, header) = (100, 4);
        self.read.send(header).expect("a reader");
        self.deliver(&of_payload(probe)).await;
        let head = self.has_read.recv().expect("a head");
        let around = usize::from(u16::from_be_bytes([head[2], head[3]])) + header - probe;
        self.read.send(around + probe - header).expect("a reader");
        self.has_read.recv().expect("the rest");
        let published = of_payload(bytes - around);
        self.deliver(&published).await;
        self.read.send(bytes).expect("a reader");
        (published, self.has_read.recv().expect("a frame"))
    }

    /// As a node's core does it.
    async fn deliver(&self, published: &Arc<Published>) {
        self.core.with_hub(|hub| hub.publish_all(std::slice::from_ref(published)));
        self.core.walked().await;
    }

    /// As nothing does it.
    fn send_bare(&self, frame: &[u8]) {
        for socket in &self.sockets {
            let sent = socket.send(&[IoSlice::new(frame)]).expect("it takes a frame");
            assert_eq!(sent, frame.len(), "it takes all of it");
        }
    }

    async fn compare(&self, published: Arc<Published>, frame: &[u8]) {
        let deliveries = self.sockets.len() as f64;
        let (mut cores, mut bares) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS_BEFORE + ROUNDS {
            // Who is first alternates too.
            for is_core in [round % 2 == 0, round % 2 == 1] {
                let began = thread_us();
                if is_core {
                    self.deliver(&published).await
                } else {
                    self.send_bare(frame)
                }
                let took_us = (thread_us() - began) / deliveries;
                if is_core {
                    cores.push(took_us)
                } else {
                    bares.push(took_us)
                }
                self.read.send(frame.len()).expect("a reader");
                assert_eq!(self.has_read.recv().expect("the frame"), frame, "both ways send the same");
            }
        }
        let (cores, bares) = (&cores[ROUNDS_BEFORE..], &bares[ROUNDS_BEFORE..]);
        let ratios: Vec<f64> = cores.iter().zip(bares).map(|(core, bare)| core / bare).collect();
        let [core, bare] = [cores, bares].map(|times| quartiles(times)[1]);
        let [low, ratio, high] = quartiles(&ratios);
        let bytes = frame.len();
        say(&format!("{deliveries:11}  {bytes:5}  {core:7.3}  {bare:7.3}  {ratio:.3} ({low:.3} to {high:.3})"));
    }
}

/// Reads so many bytes at every subscriber; those of the last.
fn read_all(clients: &mut [TcpStream], bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    for client in clients {
        match client.read_exact(&mut buffer) {
            Err(problem) if problem.kind() == ErrorKind::UnexpectedEof => return Vec::new(),
            read => read.expect("what was written"),
        }
    }
    buffer
}

fn say(line: &str) {
    writeln!(io::stdout(), "{line}").expect("standard output");
}

/// CPU time of this thread, microseconds.
fn thread_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}
