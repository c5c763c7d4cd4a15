//! Profiles of a node that works: read by `go tool pprof`, and the hot path is named down to its leaf.
//!
//! Method: a real node under the fault tests' load; what its pprof listener gives goes through Go's own tool, which
//! knows nothing of how it was made. One node a test, because a process takes one profile at a time.

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use support::{
    Config, Load, Node, Setup,
    cluster::{Cluster, bounded},
    eventually,
    http::{self, Response},
    json, unique,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A node with a pprof listener, and where that is.
async fn node(flags: &[&str]) -> (Cluster, SocketAddr) {
    let config = Config::new().flags(&["--pprof_port", "0"]).flags(flags);
    let cluster = Cluster::start(Setup::ONE, config).await;
    let address = cluster.a().address("pprof").await;
    (cluster, address)
}

async fn get(address: SocketAddr, page: &str) -> Response {
    let answer = http::get(address, &format!("/debug/pprof/{page}")).await;
    assert_eq!(answer.status, 200, "{page}: {}", answer.text());
    answer
}

/// A profile in a file, as `go tool pprof` wants it; the file goes with its value.
struct Profile(PathBuf);

impl Profile {
    fn new(answer: &Response) -> Self {
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("profile"));
        std::fs::write(&file, &answer.body).expect("a file for the profile");
        Self(file)
    }

    /// What the tool says with these options. It may not look for names itself.
    fn read(&self, options: &[&str]) -> String {
        let tool = Command::new("go")
            .args(["tool", "pprof", "-symbolize=none"])
            .args(options)
            .arg(&self.0)
            .envs([("HOME", env!("CARGO_TARGET_TMPDIR")), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")])
            .stdin(Stdio::null())
            .output()
            .expect("go is not installed; `make test` installs it (Debian: golang-go)");
        let said = String::from_utf8_lossy(&tool.stderr);
        assert!(tool.status.success(), "go tool pprof {options:?}: {said}");
        String::from_utf8_lossy(&tool.stdout).into_owned()
    }

    /// The rows of `-top`: a function, its own and its accumulated share in percent.
    fn top(&self, options: &[&str]) -> HashMap<String, (f64, f64)> {
        let text = self.read(&[&["-top", "-nodecount=100000", "-nodefraction=0"], options].concat());
        let rows = text.lines().skip_while(|line| !line.trim_start().starts_with("flat")).skip(1);
        let row = |line: &str| {
            let mut rest = line;
            let mut fields = Vec::new();
            for _ in 0..5 {
                let (field, behind) = rest.trim_start().split_once(char::is_whitespace)?;
                fields.push(field.trim_end_matches('%').parse().unwrap_or(0.0));
                rest = behind;
            }
            Some((rest.trim().trim_end_matches(" (inline)").to_owned(), (fields[1], fields[4])))
        };
        let top: HashMap<_, _> = rows.filter_map(row).collect();
        assert!(!top.is_empty(), "{text}");
        top
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The share of the functions whose name has `part`, their own or with what they call.
fn share(top: &HashMap<String, (f64, f64)>, part: &str) -> (f64, f64) {
    let named = top.iter().filter(|(name, _)| name.contains(part));
    named.fold((0.0, 0.0_f64), |(own, with), (_, (flat, cum))| (own + flat, with.max(*cum)))
}

/// Functions of the C library that a node under load is often found in.
const LIBRARY_LEAVES: &[&str] = &["syscall", "recv", "__libc_recv", "epoll_wait", "sched_yield", "__GI_sched_yield"];

/// A page that was asked for while the node delivers.
async fn under_load(cluster: &Cluster, address: SocketAddr, page: &str) -> Response {
    let load = Load::connect(&cluster.nodes, 1, 24, 2000).await;
    let (answer, report) = tokio::join!(get(address, page), load.run(Duration::from_secs(3)));
    // What is interrupted goes on: nothing is lost or late for ever.
    assert_eq!(report.faults(), 0, "{report}");
    answer
}

#[test]
fn a_profile_under_load_names_the_hot_path_down_to_its_leaf() {
    bounded(async {
        let (cluster, address) = node(&[]).await;
        let profile = Profile::new(&under_load(&cluster, address, "profile?seconds=2").await);
        let threads = get(address, "threads").await.text();

        let top = profile.top(&[]);
        let (sent, _) = share(&top, "rustix::backend");
        assert!(sent > 0.0, "deliveries end in a system call, which is no leaf of\n{top:#?}");
        let callers = profile.read(&["-peek", "rustix::net::send_recv"]);
        assert!(callers.contains("Socket::send"), "{callers}");
        for ours in
            ["ws_cluster::node::cores::run", "ws_cluster::shard::core::Core::walk", "ws_cluster::shard::gateway"]
        {
            assert!(share(&top, ours).1 > 0.0, "{ours} is not in\n{top:#?}");
        }
        // The C library has no frames: who called its leaf must be known all the same.
        for (leaf, _) in top.iter().filter(|(name, (own, _))| *own >= 2.0 && LIBRARY_LEAVES.contains(&name.as_str())) {
            let callers = profile.read(&["-peek", &format!("^{leaf}$")]);
            assert!(callers.contains("::"), "nobody calls {leaf}: {callers}");
        }
        let unnamed = top.iter().filter(|(name, _)| name.starts_with("0x")).map(|(_, (own, _))| own).sum::<f64>();
        assert!(unnamed < 2.0, "{unnamed} % have no name\n{top:#?}");
        let tags = profile.read(&["-tags"]);
        assert!(["core-0", "core-1", "ws-cluster"].iter().all(|thread| tags.contains(thread)), "{tags}");
        names_come_back(&profile, address).await;

        for thread in ["core-0 (tid ", "core-1 (tid ", "operators (tid ", "ws_cluster::node::cores::run\n"] {
            assert!(threads.contains(thread), "{thread} is not in\n{threads}");
        }
        let metric = async |name| cluster.a().metric(name).await;
        assert_eq!((metric("ws_profiles_total").await, metric("ws_profile_samples_dropped_total").await), (1.0, 0.0));
        assert_eq!(metric("ws_driver").await, 2.0);
    });
}

#[test]
fn a_flame_graph_under_load_shows_the_hot_path() {
    bounded(async {
        let (cluster, address) = node(&[]).await;
        let picture = under_load(&cluster, address, "flamegraph?seconds=2").await;
        assert_eq!(picture.header("content-type"), Some("image/svg+xml"));
        let picture = picture.text();
        assert!(picture.trim_end().ends_with("</svg>"));
        for name in ["Socket::send", "ws_cluster::shard::core::Core::walk", "<title>core-0"] {
            assert!(picture.contains(name), "{name} is not in the picture");
        }
    });
}

/// Addresses of a profile, asked for one by one and together, have the names that the profile has.
async fn names_come_back(profile: &Profile, address: SocketAddr) {
    let raw = profile.read(&["-raw"]);
    // `     7: 0x55… M=1 name file:line s=0`; lines without an address are the functions it was inlined into.
    let named = raw.lines().filter_map(|line| {
        let (_, rest) = line.trim_start().split_once(": 0x")?;
        let (address, rest) = rest.split_once(" M=1 ")?;
        Some((format!("0x{address}"), rest.split(" /").next()?.to_owned()))
    });
    let named: Vec<(String, String)> = named.filter(|(_, name)| name.starts_with("ws_cluster::")).take(20).collect();
    assert!(named.len() > 5, "{raw}");
    let all: Vec<&str> = named.iter().map(|(address, _)| address.as_str()).collect();
    let path = "/debug/pprof/symbol";
    let answers = [
        http::request(address, "POST", path, "text/plain", all.join("+").as_bytes()).await,
        http::get(address, &format!("{path}?{}", all.join("+"))).await,
    ];
    for answer in answers {
        let text = answer.text();
        assert!(text.starts_with("num_symbols: 1\n"), "{text}");
        for (address, name) in &named {
            assert!(text.lines().any(|line| line == format!("{address} {name}")), "{address} {name} is not in\n{text}");
        }
    }
}

#[test]
fn the_heap_is_known_by_who_allocated_it() {
    bounded(async {
        let (cluster, address) = node(&["--heap_profile", "true"]).await;
        // The embedded queue's log holds them.
        let payload = "x".repeat(256 << 10);
        for number in 0..48 {
            cluster.a().api().push_ok(&json!({"tags": [format!("heap{number}")], "data": payload})).await;
        }
        let profile = Profile::new(&get(address, "heap").await);
        let top = profile.top(&["-sample_index=inuse_space"]);
        let (_, ours) = share(&top, "ws_cluster::");
        assert!(ours > 50.0, "ws_cluster has {ours} % of\n{top:#?}");
        let own = top.iter().filter(|(name, (own, _))| name.contains("_rjem_") && *own > 0.0);
        assert_eq!(own.count(), 0, "the allocator stands before its callers in\n{top:#?}");
        let text = profile.read(&["-top", "-unit=mb", "-sample_index=inuse_space"]);
        assert!(!profile.read(&["-comments"]).contains("switched sampling on"), "it was on from the start");
        let total =
            text.lines().find_map(|line| line.split_once("% of ")?.1.strip_suffix("MB total")?.parse::<f64>().ok());
        assert!(total.is_some_and(|megabytes| megabytes > 6.0), "12 MB and more are held:\n{text}");
        let resident = cluster.a().metric("ws_memory_bytes kind=\"resident\"").await;
        let allocated = cluster.a().metric("ws_memory_bytes kind=\"allocated\"").await;
        assert!(allocated > 12e6 && resident > allocated, "allocated {allocated}, resident {resident}");
    });
}

#[test]
fn the_first_look_at_the_heap_switches_sampling_on() {
    bounded(async {
        let (cluster, address) = node(&[]).await;
        let first = Profile::new(&get(address, "heap").await).read(&["-comments"]);
        assert!(first.contains("this request switched sampling on"), "{first}");
        for number in 0..32 {
            let payload = "x".repeat(256 << 10);
            cluster.a().api().push_ok(&json!({"tags": [format!("heap{number}")], "data": payload})).await;
        }
        let second = Profile::new(&get(address, "allocs").await);
        assert!(!second.read(&["-comments"]).contains("switched"), "it is on");
        assert!(share(&second.top(&[]), "ws_cluster::").1 > 50.0);
    });
}

#[test]
fn one_profile_at_a_time_and_it_ends_with_its_client() {
    bounded(async {
        let (cluster, address) = node(&[]).await;
        let mut client = TcpStream::connect(address).await.expect("the listener");
        client.write_all(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("a request");
        let threads = || http::get(address, "/debug/pprof/threads");
        eventually("the profile runs", async || threads().await.status == 409).await;
        for page in ["profile?seconds=1", "flamegraph?seconds=1", "heap", "symbol?0x1"] {
            let answer = http::get(address, &format!("/debug/pprof/{page}")).await;
            assert_eq!((answer.status, answer.err().as_str()), (409, "busy"), "{page}");
        }
        // What needs no profile is served meanwhile, and so are the metrics on the same thread.
        for page in ["", "cmdline", "symbol"] {
            get(address, page).await;
        }
        assert_eq!(cluster.a().metric("ws_profiles_total").await, 0.0);
        drop(client);
        eventually("the profile is given up", async || threads().await.status == 200).await;
        get(address, "profile?seconds=1").await;
        assert_eq!(cluster.a().metric("ws_profiles_total").await, 1.0);
    });
}

#[test]
fn the_command_line_shows_no_secret_and_head_is_get_without_its_body() {
    bounded(async {
        let secrets = ["--operator-token", "the-operators-own-token", "--redis_url=redis://u:the-password@127.0.0.1/0"];
        let (cluster, address) = node(&secrets).await;
        let ask = async |method: &str, path: &str| {
            let token = "Authorization: Bearer the-operators-own-token";
            let head =
                format!("{method} /debug/pprof/{path} HTTP/1.1\r\nHost: a\r\n{token}\r\nConnection: close\r\n\r\n");
            raw(address, head.as_bytes()).await
        };
        let (head, body) = ask("GET", "cmdline").await;
        let arguments: Vec<&str> = body.split('\0').collect();
        assert!(arguments[0].ends_with("ws-cluster") && arguments.contains(&"--pprof_port"), "{body:?}");
        let token_at =
            arguments.iter().position(|argument| *argument == "--operator_token").expect("the flag is shown");
        assert_eq!(arguments[token_at + 1], "***");
        assert!(arguments.contains(&"--redis_url=***"), "{arguments:?}");
        assert!(!body.contains("the-operators-own-token") && !body.contains("the-password"), "{body}");

        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let (head_of_head, nothing) = ask("HEAD", "cmdline").await;
        assert_eq!((head_of_head.lines().next(), nothing.as_str()), (head.lines().next(), ""));
        assert!(head_of_head.contains(&format!("content-length: {}\r\n", body.len())), "{head_of_head}");
        for path in ["", "threads", "profile?seconds=1"] {
            let (head, body) = ask("HEAD", path).await;
            assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{path}: {head}{body}");
        }
        let printed = cluster.a().printed().join("\n");
        assert!(!printed.contains("the-operators-own-token") && !printed.contains("the-password"), "{printed}");
    });
}

/// Head in lower case, and body, up to the end of the connection.
async fn raw(address: SocketAddr, request: &[u8]) -> (String, String) {
    use tokio::io::AsyncReadExt;
    let mut stream = TcpStream::connect(address).await.expect("the listener");
    stream.write_all(request).await.expect("a request");
    let mut bytes = Vec::new();
    tokio::time::timeout(support::PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer").expect("bytes");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase() + "\r\n", body.to_owned())
}

#[test]
fn a_node_on_epoll_is_profiled_too() {
    bounded(async {
        let config = Config::new().flags(&["--pprof_port", "0"]);
        let cluster = Cluster::start(Setup::ONE_EPOLL, config).await;
        let address = cluster.a().address("pprof").await;
        let threads = get(address, "threads").await.text();
        let core = threads.split("\n\n").find(|thread| thread.starts_with("core-0 ")).expect("the core");
        let mut lines = core.lines().skip(1);
        assert!(lines.next().is_some_and(|leaf| leaf.contains("epoll_")), "{core}");
        assert!(lines.next().is_some_and(|caller| caller.contains("mio::")), "{core}");
        assert!(core.contains("ws_cluster::node::cores::run"), "{core}");
        alive(cluster.a()).await;
    });
}

/// It still delivers after its threads were interrupted.
async fn alive(node: &Node) {
    let mut user = support::Client::user(node, "somebody").await;
    user.subscribe(&["after"]).await;
    node.api().push_ok(&json!({"tags": ["after"], "data": 7})).await;
    assert_eq!(user.next().await["payload"], 7);
}
