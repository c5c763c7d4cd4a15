//! The process ends as it should: 64 for what is refused, 0 for help, and its tools print what a node accepts.
//!
//! Method: runs the real binary with an empty environment. Serving is not part of this.

use std::process::{Command, Output};

use ws_cluster::{
    clock,
    config::{Config, Env},
    protocol::{
        query::Params,
        sign::{verify_call, verify_connect},
    },
};

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-cluster"));
    command.args(args).env_clear().envs(env.iter().copied()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn what_is_refused_ends_with_64_and_says_why() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&["--nod", "1"], &[], "--nod"),
        (&["serve"], &[], "serve"),
        (&["--node"], &[], "--node"),
        (&["--node", "1", "--node", "2"], &[], "--node"),
        (&["--node", "x"], &[], "node = \"x\" (flag --node)"),
        (&["--ws-port=70000"], &[], "ws_port = \"70000\" (flag --ws_port)"),
        (&[], &[("WS_NODE", "x")], "node = \"x\" (environment WS_NODE)"),
        (&["--config", "/nowhere/x.toml"], &[], "/nowhere/x.toml"),
        (&["check", "--drain", "1s"], &[], "drain = \"1s\" (flag --drain)"),
        (&["sign"], &[], "connect"),
        (&["sign", "connect"], &[], "--uid"),
        (&["sign", "connect", "--uid", "a,b"], &[], "--uid: \"a,b\""),
        (&["sign", "connect", "--uid", "a", "--pid", "none"], &[], "no project \"none\""),
        (&["sign", "connect", "--uid", "a", "--ttl", "86401"], &[], "at most 86400 seconds"),
        (&["sign", "connect", "--uid", "a", "--type", "3"], &[], "--type"),
        (&["sign", "push", "--data", "1"], &[], "no audience"),
    ];
    for (args, env, word) in cases {
        let output = run(args, env);
        assert_eq!(output.status.code(), Some(64), "{args:?} {env:?}");
        assert!(text(&output.stderr).contains(word), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    for (args, word) in [
        (&["--help"][..], "--handshake_timeout"),
        (&["-h"], "--ws_port"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["sign", "connect", "--help"], "--uid"),
        (&["check", "--help"], "effective"),
        (&["config-doc"], "# Configuration"),
    ] {
        let output = run(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains(word), "{args:?}");
    }
}

#[test]
fn check_prints_what_is_in_effect_and_where_from() {
    let output = run(&["--node", "7", "check", "--ws-port", "0"], &[("WS_HTTP_PORT", "off"), ("WS_CLUSTER_X", "y")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for line in
        ["node = 7 # flag --node", "ws_port = 0 # flag --ws_port", "http_port = \"off\" # environment WS_HTTP_PORT"]
    {
        assert!(text(&output.stdout).lines().any(|printed| printed == line), "{line}");
    }
}

#[test]
fn a_signed_connect_is_one_that_a_node_accepts() {
    let output =
        run(&["sign", "connect", "--uid", "alice & co", "--device", "web", "--tags", "a,b", "--ws_port", "99"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let query = text(&output.stdout).trim_end().strip_prefix("ws://127.0.0.1:99/ws/connect?").expect("a URL");
    let params = Params::parse(query).expect("a query");
    let config = Config::defaults(Env::Dev);
    let horizon = config.limits.opening.sign_horizon_connect;
    let identity = verify_connect(&config.projects, &params, clock::unix_now(), horizon).expect("good credentials");
    assert_eq!((&*identity.uid, identity.device.as_deref()), ("alice & co", Some("web")));
    assert_eq!(params.get("tags"), Some("a,b"));
}

#[test]
fn a_signed_push_is_one_that_a_node_accepts() {
    let args = ["sign", "push", "--tags", "demo", "--data", "{\"it's\":1}", "--idempotency-key", "k", "--keep"];
    let output = run(&[&args[..], &["--addr", "https://push.example"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let command = text(&output.stdout).trim_end();
    let query =
        command.strip_prefix("curl -X POST 'https://push.example/ws/push?").and_then(|rest| rest.strip_suffix('\''));
    let query = query.expect("a command");
    assert!(!query.contains('\''), "nothing ends the shell's quotes");
    let params = Params::parse(query).expect("a query");
    let config = Config::defaults(Env::Dev);
    let horizon = config.limits.opening.sign_horizon_push;
    let pid = verify_call(&config.projects, &params, None, clock::unix_now(), horizon).expect("good credentials");
    assert_eq!((&*pid, params.get("data"), params.get("keep")), ("1", Some("{\"it's\":1}"), Some("true")));
    assert_eq!((params.get("idempotency_key"), params.get("all")), (Some("k"), None));
}

#[test]
fn a_connect_for_elsewhere_names_the_address_that_clients_see() {
    let cases: &[(&[&str], &str)] = &[
        (&["--public_addr", "wss://ws.example"], "wss://ws.example/ws/connect?"),
        (&["--public_addr", "ws.example:80"], "ws://ws.example:80/ws/connect?"),
        (&["--addr", "h:1", "--public_addr", "ws.example:80"], "ws://h:1/ws/connect?"),
        (&["--ws_host", "::1"], "ws://[::1]:8812/ws/connect?"),
    ];
    for (args, start) in cases {
        let output = run(&[&["sign", "connect", "--uid", "a"], *args].concat(), &[]);
        assert!(text(&output.stdout).starts_with(start), "{args:?}: {}", text(&output.stdout));
    }
    let chosen = run(&["sign", "connect", "--uid", "a", "--ws_port", "0"], &[]);
    assert_eq!(chosen.status.code(), Some(64), "a chosen port is not known before the node runs");
}
