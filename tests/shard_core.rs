//! One core on loopback: what a slow, a mad and a busy connection mean for the others on it.
//!
//! Method: a shard with one core runs in a thread, with a service that broadcasts `b…`, panics at `p…`, holds the core at
//! `hold`, tells its counters at `count` and echoes the rest; plain blocking sockets are its clients. What comes while the core
//! is held, it finds all at once. Bounds on time are an order above what is expected.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use monoio::net::TcpListener;
use ws_cluster::{
    hub::{HubSettings, NewSession},
    limits::Limits,
    metrics::{Count, Counters},
    model::{Audience, Boot, Pid, Push, Role, SessionId, Stamp, TagRules, network::Networks},
    protocol::{decoder::Message, handshake::Upgrade},
    shard::{self, Admission, Admitted, Core, Driver, Hangup, Permit, Plain, Service, Verdict},
};

struct Broadcast {
    pid: Pid,
    is_held: mpsc::SyncSender<()>,
    let_go: mpsc::Receiver<()>,
}

impl Service for Broadcast {
    type Peer = ();

    fn judge(&self, _: &Core, upgrade: &Upgrade, _: IpAddr, _: &mut Permit) -> Verdict<()> {
        let uid = upgrade.path.trim_start_matches('/').into();
        let pid = self.pid.clone();
        let session =
            NewSession { pid, role: Role::User, uid, device: None, tag_patterns: None, expires: None, deflate: None };
        Verdict::Admit(Box::new(Admitted { session, peer: () }))
    }

    fn plain(&self, _: &Core, _: &str) -> Option<Plain> {
        None
    }

    fn is_endpoint(&self, _: &str) -> bool {
        true
    }

    fn opened(&self, _: &Rc<Core>, (): &mut (), _: SessionId) {}

    fn message(&self, core: &Rc<Core>, (): &mut (), id: SessionId, message: Message<'_>) -> Result<(), Hangup> {
        let Message::Text(text) = message else { return Ok(()) };
        assert!(!text.starts_with('p'), "a panic that was asked for");
        match text {
            "hold" => {
                self.is_held.send(()).expect("the test holds it");
                self.let_go.recv().expect("the test lets go");
            }
            "count" => {
                let counted = [Count::HandshakesAccepted, Count::UserConnections, Count::ConnectionsPutOff];
                let counts = counted.map(|count| core.counters().get(count).to_string());
                core.with_hub(|hub| hub.send_text(id, counts.join(" ").as_bytes()));
                return Ok(());
            }
            _ => {}
        }
        let payload = format!("\"{text}\"");
        let audience = match text.strip_prefix("b:") {
            Some(rest) => Audience { uids: rest.split(':').take(1).map(Box::from).collect(), ..Audience::default() },
            None => {
                core.with_hub(|hub| hub.send_text(id, text.as_bytes()));
                return Ok(());
            }
        };
        let pid = self.pid.clone();
        let push = Push {
            pid,
            audience,
            affair_id: None,
            idempotency_key: None,
            payload: payload.into(),
            stamp: Stamp::default(),
        };
        core.with_hub(|hub| hub.push(&push));
        Ok(())
    }

    fn turn_ended(&self, _: &Rc<Core>, (): &mut (), _: SessionId) -> Option<LocalBoxFuture<'static, ()>> {
        None
    }

    fn closed(&self, core: &Rc<Core>, (): (), id: SessionId) {
        core.with_hub(|hub| hub.close(id));
    }

    fn message_bytes_max(&self, _: &Core, _: Role) -> usize {
        1 << 20
    }
}

/// A running core. It ends with the test process.
struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    is_held: mpsc::Receiver<()>,
    let_go: mpsc::SyncSender<()>,
}

fn core(driver: Driver) -> Running {
    let counters = Arc::<Counters>::default();
    let (tell, told) = mpsc::sync_channel(1);
    let (tell_held, is_held) = mpsc::sync_channel(1);
    let (let_go, to_go) = mpsc::sync_channel(1);
    let of_core = counters.clone();
    thread::spawn(move || {
        let served = shard::run_on_driver(driver, move |_| async move {
            let mut limits = Limits::default();
            limits.opening.connections_per_address = 0;
            limits.frames.messages_burst = 1 << 20;
            limits.frames.bytes_per_second = 0;
            limits.frames.turn_bytes_max = 16 << 10;
            let limits = Arc::new(limits);
            let admission = Admission::new(limits.opening.clone(), 1 << 20, Networks::default());
            let rules = TagRules::default();
            let settings =
                HubSettings { node: 0, boot: Boot(0), core: 0, limits, rules, outboxes_bytes_max: usize::MAX };
            let core = Core::new(settings, of_core).expect("a core");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            tell.send(listener.local_addr().expect("an address")).expect("the test waits");
            let pid = Pid::new("p").expect("a pid");
            let service = Rc::new(Broadcast { pid, is_held: tell_held, let_go: to_go });
            monoio::spawn(core.clone().walk());
            monoio::spawn(shard::tick(core.clone()));
            shard::accept(core, service, listener, admission, None).await;
        });
        served.expect("a driver");
    });
    Running { address: told.recv().expect("the core runs"), counters, is_held, let_go }
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr, uid: &str) -> Self {
        let mut client = Self::silent(address);
        client.ask(uid);
        client.read_answer();
        client
    }

    /// One that has sent nothing yet.
    fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        Self(stream)
    }

    fn ask(&mut self, uid: &str) {
        let head = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.0.write_all(format!("GET /{uid} HTTP/1.1\r\n{head}").as_bytes()).expect("a request");
    }

    fn read_answer(&mut self) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
    }

    /// A masked text frame; the mask is zero, which changes nothing.
    fn frame(text: &str) -> Vec<u8> {
        let mut frame = vec![0x81];
        match text.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        frame
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(&Self::frame(text)).expect("a write");
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a payload");
        (head[0], payload)
    }
}

fn on_both_drivers(property: impl Fn(Running)) {
    for driver in [Driver::Auto, Driver::Epoll] {
        property(core(driver));
    }
}

#[test]
fn a_reader_that_stops_reading_does_not_delay_another_one() {
    on_both_drivers(|Running { address, counters, .. }| {
        let _stopped = Client::connect(address, "slow");
        let mut other = Client::connect(address, "fast");
        let mut sender = Client::connect(address, "sender");
        // More than the kernel and the outbox take together.
        let filler = "x".repeat(60_000);
        for _ in 0..200 {
            sender.send(&format!("b:slow:{filler}"));
            sender.send("b:fast:tick");
            assert_eq!(other.receive().1, br#"{"payload":"b:fast:tick"}"#);
        }
        assert_eq!(counters.get(Count::SlowConsumers), 1);
    });
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    on_both_drivers(|Running { address, counters, .. }| {
        let mut mad = Client::connect(address, "mad");
        let mut sane = Client::connect(address, "sane");
        mad.send("panic");
        let (opcode, payload) = mad.receive();
        assert_eq!((opcode, &payload[..2]), (0x88, &1011_u16.to_be_bytes()[..]));
        sane.send("still here");
        assert_eq!(sane.receive().1, b"still here");
        assert_eq!(counters.get(Count::Panics), 1);
    });
}

#[test]
fn what_waits_for_a_socket_leaves_in_few_writes() {
    on_both_drivers(|Running { address, counters, .. }| {
        let mut client = Client::connect(address, "one");
        let before = counters.get(Count::Writes);
        let burst: Vec<u8> = (0..100).flat_map(|number| Client::frame(&format!("{number}"))).collect();
        client.0.write_all(&burst).expect("a write");
        for number in 0..100 {
            assert_eq!(client.receive().1, number.to_string().as_bytes());
        }
        let writes = counters.get(Count::Writes) - before;
        assert!(writes <= 20, "100 frames in {writes} writes");
    });
}

#[test]
fn a_sender_that_never_pauses_leaves_turns_to_the_others() {
    on_both_drivers(|Running { address, .. }| {
        let mut flood = Client::connect(address, "flood");
        let mut calm = Client::connect(address, "calm");
        let frames: Vec<u8> = (0..20_000).flat_map(|_| Client::frame("b:nobody:x")).collect();
        let writer = thread::spawn(move || flood.0.write_all(&frames).map(|()| flood));
        for number in 0..50 {
            calm.send(&format!("{number}"));
            assert_eq!(calm.receive().1, number.to_string().as_bytes());
        }
        drop(writer.join());
    });
}

/// A core on which many come or leave at once, and a few that stay.
struct Storm {
    running: Running,
    holder: Client,
    stayers: Vec<Client>,
    /// Those who come or leave.
    many: Vec<Client>,
}

impl Storm {
    const MANY: usize = 300;
    const STAYERS: usize = 10;

    /// `client` makes each of the many.
    fn new(running: Running, client: impl Fn(SocketAddr) -> Client) -> Self {
        let many: Vec<Client> = (0..Self::MANY).map(|_| client(running.address)).collect();
        // What is accepted in order is accepted when those behind it have opened.
        let stayers = (0..Self::STAYERS).map(|_| Client::connect(running.address, "stayer")).collect();
        let holder = Client::connect(running.address, "holder");
        Self { running, holder, stayers, many }
    }

    fn hold(&mut self) {
        self.holder.send("hold");
        self.running.is_held.recv().expect("the core is held");
    }

    /// Lets the core find what all have sent, and holds it again before it handles what it puts off.
    fn let_find(&mut self) {
        self.holder.send("hold");
        self.let_go();
        self.running.is_held.recv().expect("the core is held again");
    }

    fn let_go(&self) {
        self.running.let_go.send(()).expect("the core goes on");
    }

    /// What each of those who stay is told of accepted handshakes, open connections and those put off.
    fn counts(&mut self) -> Vec<[usize; 3]> {
        self.stayers.iter_mut().for_each(|stayer| stayer.send("count"));
        self.let_go();
        let told = self.stayers.iter_mut().map(|stayer| String::from_utf8(stayer.receive().1).expect("text"));
        let counts = told.map(|text| text.split(' ').map(|count| count.parse().expect("a number")).collect::<Vec<_>>());
        counts.map(|counts| counts.try_into().expect("three counts")).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "a test's thread may sleep")]
    fn wait_until_open(&self, connections: usize) {
        for _ in 0..1000 {
            let counters = &self.running.counters;
            let counts = [Count::UserConnections, Count::ConnectionsPutOff].map(|count| counters.get(count));
            if counts == [connections as u64, 0] {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} are open and not {connections}", self.running.counters.get(Count::UserConnections));
    }
}

#[test]
fn those_who_come_at_once_hold_nobody_up() {
    on_both_drivers(|running| {
        let mut storm = Storm::new(running, Client::silent);
        storm.hold();
        storm.many.iter_mut().for_each(|client| client.ask("new"));
        for [accepted, _, put_off] in storm.counts() {
            let new = accepted - Storm::STAYERS - 1;
            assert!(new < Storm::MANY / 2, "{new} were served before those who stay");
            assert!(put_off > Storm::MANY / 2 && new + put_off <= Storm::MANY, "{new}, {put_off}: each waits once");
        }
        storm.many.iter_mut().for_each(Client::read_answer);
        storm.wait_until_open(Storm::STAYERS + 1 + Storm::MANY);
    });
}

#[test]
fn those_who_leave_at_once_hold_nobody_up_and_wait_once_each() {
    on_both_drivers(|running| {
        let mut storm = Storm::new(running, |address| Client::connect(address, "old"));
        // What they have not read makes a reset of their close, of which the kernel tells as well.
        storm.many.iter_mut().for_each(|client| client.send("unread"));
        storm.many.iter_mut().for_each(|client| assert_eq!(client.0.peek(&mut [0]).expect("an echo"), 1));
        storm.hold();
        storm.many.iter_mut().for_each(|client| client.0.shutdown(Shutdown::Write).expect("an end"));
        storm.let_find();
        storm.many.clear();
        for [_, open, put_off] in storm.counts() {
            let old = open - Storm::STAYERS - 1;
            assert!(old > Storm::MANY / 2, "only {old} are left before those who stay");
            assert!(put_off > Storm::MANY / 2 && put_off <= old, "{put_off} of {old}: each waits once");
        }
        storm.wait_until_open(Storm::STAYERS + 1);
    });
}

#[test]
fn those_who_leave_behind_more_than_a_turn_takes_are_heard_and_gone() {
    on_both_drivers(|running| {
        let mut storm = Storm::new(running, |address| Client::connect(address, "old"));
        let before = storm.running.counters.get(Count::FramesIn);
        storm.hold();
        // So few that frames do not end the turn, and bytes for one and a half, two, and two and a half.
        let message = format!("b:nobody:{}", "x".repeat((4 << 10) - 17));
        for (number, client) in storm.many.iter_mut().take(30).enumerate() {
            client.0.write_all(&Client::frame(&message).repeat(6 + number % 3 * 2)).expect("a write");
        }
        storm.many.iter_mut().for_each(|client| client.0.shutdown(Shutdown::Write).expect("an end"));
        storm.let_go();
        storm.wait_until_open(Storm::STAYERS + 1);
        let heard = storm.running.counters.get(Count::FramesIn) - before;
        assert_eq!(heard, 1 + 30 * 8, "all that was sent before the end");
    });
}

#[test]
fn those_who_come_and_leave_before_their_turn_are_gone() {
    on_both_drivers(|running| {
        let mut storm = Storm::new(running, Client::silent);
        storm.hold();
        storm.many.iter_mut().for_each(|client| client.ask("new"));
        storm.let_find();
        storm.many.iter_mut().for_each(|client| client.0.shutdown(Shutdown::Write).expect("an end"));
        assert!(storm.counts().iter().all(|[_, _, put_off]| *put_off <= Storm::MANY), "each waits once");
        storm.many.iter_mut().for_each(Client::read_answer);
        storm.wait_until_open(Storm::STAYERS + 1);
    });
}
