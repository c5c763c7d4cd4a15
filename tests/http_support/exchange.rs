//! A stand-in for the node's exchange, and a signer of its own.
//! Method: the stand-in answers tickets as a push's payload tells it to, and hands every question to the test.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use ring::{digest, hmac};
use ws_cluster::{
    clock,
    health::Health,
    http::api::{Api, PageOrigin},
    inbox::{ExchangeLink, Mailbox},
    limits::Limits,
    metrics::Counters,
    model::{
        Boot, ClientId, FromCore, Pid, Project, Projects, Published, Record, RecordId, Refusal, Reply, SessionId,
        Source, Stamp, Tag,
        project::{JwtKey, RequestRouting, Secret},
        record::OnlineConnection,
    },
    traces::{Stamper, Traces},
};

use super::{Answer, Client, PATIENCE, serve_with};

pub const SECRET: &str = "current-secret";
pub const OLD_SECRET: &str = "previous-secret";

/// An API on a thread of its own, and what its exchange was asked.
pub struct Fixture {
    pub address: SocketAddr,
    pub counters: Arc<Counters>,
    pub health: Arc<Health>,
    /// Lets pushes with the payload `"hold"` be answered.
    pub release: Arc<AtomicBool>,
    questions: Receiver<FromCore>,
}

/// Serves projects `1` and `2` with the same secrets.
pub fn fixture(limits: Limits) -> Fixture {
    fixture_with_pages(limits, None)
}

/// The same, open to the scripts of pages that are there.
pub fn fixture_with_pages(limits: Limits, pages: Option<SocketAddr>) -> Fixture {
    let (tell, questions) = sync_channel(1024);
    let (release, health) = (Arc::<AtomicBool>::default(), Health::new(7));
    let (releasing, healthy) = (release.clone(), health.clone());
    let served = serve_with(limits.http.clone(), move |counters| {
        let mailbox = Mailbox::new(limits.queue.exchange_inbox_max);
        let link = ExchangeLink::new(0, mailbox.clone());
        let stamper = Stamper::new(Traces::default(), true, counters.clone());
        let api = Api::new(link.clone(), projects(), limits, counters.clone(), healthy, stamper);
        let api = api.open_to(pages.map(PageOrigin::new));
        (api, Rc::new(Exchange { link, tell, releasing }).run(mailbox))
    });
    Fixture { address: served.address, counters: served.counters, health, release, questions }
}

fn projects() -> Projects {
    let project = |pid| Project {
        pid: Pid::new(pid).expect("a pid"),
        secrets: vec![Secret::new(SECRET), Secret::new(OLD_SECRET)],
        jwt: Some(JwtKey::Hs256),
        requests: RequestRouting::One,
        origins: vec![],
    };
    Projects::new([project("1"), project("2")])
}

struct Exchange {
    link: ExchangeLink,
    tell: SyncSender<FromCore>,
    releasing: Arc<AtomicBool>,
}

impl Exchange {
    async fn run(self: Rc<Self>, mailbox: Arc<Mailbox<FromCore>>) {
        let mut batch = Vec::new();
        loop {
            mailbox.receive(&mut batch).await;
            for question in batch.drain(..) {
                let _ = self.tell.try_send(question.clone());
                monoio::spawn(self.clone().answer(question));
            }
        }
    }

    async fn answer(self: Rc<Self>, question: FromCore) {
        match question {
            FromCore::Submit { ticket, records } => {
                if payload(&records[0]) == r#""never""# {
                    return;
                }
                while payload(&records[0]) == r#""hold""# && !self.releasing.load(Ordering::Relaxed) {
                    monoio::time::sleep(Duration::from_millis(5)).await;
                }
                let results = (1..).zip(&records).map(|(seq, record)| result_of(seq, record));
                self.link.answer(ticket, Reply::Submitted(results.collect()));
            }
            FromCore::TagState { ticket, tag, pid } => {
                self.link.answer(ticket, Reply::Tag(if &*tag == "gold:x/y" { history(&pid, &tag) } else { vec![] }));
            }
            FromCore::Online { ticket, after, limit, .. } => {
                let connections = ["ann", "bob", "eve"].into_iter().filter(|uid| Some(*uid) > after.as_deref());
                let connections: Vec<_> = connections.map(connection).collect();
                let more = connections.len() > limit as usize;
                let connections = connections.into_iter().take(limit as usize).collect();
                self.link.answer(ticket, Reply::Online { connections, more });
            }
            other => panic!("not a question of the API: {other:?}"),
        }
    }
}

/// The payload of a push, as text.
pub fn payload(record: &Record) -> &str {
    let payload = match record {
        Record::Publication(publication) => &publication.payload,
        Record::Push(push) => &push.payload,
        _ => return "",
    };
    std::str::from_utf8(payload).expect("JSON is text")
}

fn result_of(seq: u64, record: &Record) -> Result<RecordId, Refusal> {
    match payload(record) {
        r#""away""# => Err(Refusal::QueueUnavailable),
        r#""full""# => Err(Refusal::QueueFull),
        r#""stopping""# => Err(Refusal::Stopping),
        r#""unknown""# => Err(Refusal::Unknown),
        _ => Ok(RecordId { origin: 0xa, seq }),
    }
}

fn history(pid: &Pid, tag: &Tag) -> Vec<Arc<Published>> {
    let id = |seq| RecordId { origin: 0xa, seq };
    let published = |seq, prev, payload: &'static str| Published {
        id: id(seq),
        prev,
        pid: pid.clone(),
        tag: tag.clone(),
        keep: false,
        affair_id: None,
        payload: payload.into(),
        stamp: Stamp::default(),
    };
    vec![Arc::new(published(1, None, "1e999")), Arc::new(published(2, Some(id(1)), "[ 2 ]"))]
}

fn connection(uid: &str) -> OnlineConnection {
    let cid = ClientId { node: 7, boot: Boot(1), session: SessionId { core: 0, slot: 1, generation: 1 } };
    OnlineConnection { source: Source { uid: uid.into(), cid, device: None }, since_unix_ms: 1_700_000_000_000 }
}

impl Fixture {
    /// The next question that the exchange was asked.
    pub fn question(&self) -> FromCore {
        self.questions.recv_timeout(PATIENCE).expect("the exchange is asked")
    }

    /// The records of the next submission.
    pub fn submitted(&self) -> Vec<Record> {
        match self.question() {
            FromCore::Submit { records, .. } => records,
            other => panic!("no submission: {other:?}"),
        }
    }

    /// Whether the exchange has been asked nothing more.
    pub fn asked_nothing(&self) -> bool {
        self.questions.try_recv().is_err()
    }

    /// A call with everything given.
    pub fn call(&self, method: &str, target: &str, kind: &str, body: &str) -> Answer {
        Client::send(self.address, request(method, target, kind, body).as_bytes()).answer()
    }

    /// A signed JSON push.
    pub fn push(&self, body: &str) -> Answer {
        self.call("POST", &json_target("/ws/push", body), JSON, body)
    }

    /// A signed batch.
    pub fn batch(&self, lines: &str) -> Answer {
        self.call("POST", &json_target("/ws/push/batch", lines), NDJSON, lines)
    }

    /// A signed GET.
    pub fn get(&self, path: &str, params: &[(&str, &str)]) -> Answer {
        self.call("GET", &target(SECRET, path, params, None), "", "")
    }
}

pub const JSON: &str = "application/json";
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const NDJSON: &str = "application/x-ndjson";

/// The bytes of a request.
pub fn request(method: &str, target: &str, kind: &str, body: &str) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n");
    if !kind.is_empty() {
        head += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    head + "\r\n" + body
}

/// A target signed for project `1` with the current secret and a JSON body.
pub fn json_target(path: &str, body: &str) -> String {
    target(SECRET, path, &[], Some(body))
}

/// A target signed for project `1`; `params` go into the query.
pub fn target(secret: &str, path: &str, params: &[(&str, &str)], body: Option<&str>) -> String {
    signed(secret, path, ("1", 60), params, &[], body)
}

/// A target signed for a project until so many seconds from now; `form` is signed and sent elsewhere.
pub fn signed(
    secret: &str,
    path: &str,
    (pid, ahead): (&str, i64),
    params: &[(&str, &str)],
    form: &[(&str, &str)],
    body: Option<&str>,
) -> String {
    let exp = (i64::try_from(clock::unix_now().as_secs()).expect("this century") + ahead).to_string();
    let digest = body.map(|body| hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref()));
    let own = [("pid", pid), ("exp", &*exp)];
    let mut covered = [&own, params, form].concat();
    covered.extend(digest.as_deref().map(|digest| ("body_sha256", digest)));
    covered.sort_unstable();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let sign = hex(hmac::sign(&key, query(&covered).as_bytes()).as_ref());
    format!("{path}?{}", query(&[&own, params, &[("sign", &*sign)]].concat()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parameters as a query or form.
pub fn query(params: &[(&str, &str)]) -> String {
    let encode = |value: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    params.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}
