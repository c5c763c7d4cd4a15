//! Flags win over the environment, the environment over the file, the file over the defaults.

use std::net::SocketAddr;

use ws_cluster::config::{AuthReject, Driver, Env, Group, LogFormat, LogLevel, Port, QueueKind, Source, show};

use super::{Given, env, file, flags};

#[test]
fn nothing_given_is_a_complete_single_node() {
    let config = Given::default().config();
    assert_eq!((config.node, config.env, config.queue), (1, Env::Dev, QueueKind::Memory));
    assert_eq!((config.driver, config.cores, config.auth_reject), (Driver::Auto, 0, AuthReject::Close));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Human));
    let listeners: Vec<String> = config
        .listeners()
        .iter()
        .map(|listener| format!("{} {:?}", SocketAddr::new(listener.host, listener.port), listener.groups))
        .collect();
    assert_eq!(
        listeners,
        [
            "0.0.0.0:8812 [WebSocket]",
            "0.0.0.0:8912 [Http]",
            "127.0.0.1:9091 [Metrics]",
            "127.0.0.1:6060 [Pprof]",
            "127.0.0.1:9092 [Swagger]"
        ]
    );
    assert!(config.projects.get("1").is_some(), "the demo project");
    assert!(config.any_origin_by_default());
}

#[test]
fn the_example_of_the_specification_is_accepted() {
    let config =
        flags(&["--node", "200", "--ws_port", "8812", "--http_port", "8912", "--queue", "redis", "--env", "dev"])
            .config();
    assert_eq!((config.node, config.queue), (200, QueueKind::Redis));
    assert_eq!(config.redis_url.expose(), "redis://127.0.0.1:6379/0");
}

#[test]
fn the_stronger_source_wins_for_every_pair() {
    let text = "node = 3\nws_port = 3\n[limits]\ndrain = \"9s\"";
    let given = |flags, env| Given { flags, env, file: Some(text) };
    let all = given(&["--node", "1", "--drain", "7s"], &[("WS_NODE", "2"), ("WS_WS_PORT", "2"), ("WS_DRAIN", "8s")]);
    let loaded = all.load().expect("a good configuration");
    assert_eq!((loaded.config.node, loaded.config.ws_port), (1, Port::Number(2)));
    assert_eq!(loaded.config.limits.life.drain.as_secs(), 7);
    assert_eq!(loaded.origins.get("node"), Some(&Source::Flag));
    assert_eq!(loaded.origins.get("ws_port"), Some(&Source::Environment));
    assert_eq!(loaded.origins.get("http_port"), None);

    let config = given(&[], &[("WS_NODE", "2")]).config();
    assert_eq!((config.node, config.ws_port, config.limits.life.drain.as_secs()), (2, Port::Number(3), 9));
    assert_eq!(given(&["--node", "1"], &[]).config().node, 1);
}

#[test]
fn a_bad_value_that_a_stronger_source_hides_is_not_read() {
    let given = Given { flags: &["--node", "1"], env: &[("WS_NODE", "x")], file: Some("node = \"y\"") };
    assert_eq!(given.config().node, 1);
}

#[test]
fn dashes_and_underscores_mean_the_same() {
    for form in ["--ws_port=77", "--ws-port=77"] {
        assert_eq!(flags(&[form]).config().ws_port, Port::Number(77), "{form}");
    }
    for name in ["--connections_per_address", "--connections-per-address", "--connections-per_address"] {
        assert_eq!(flags(&[name, "7"]).config().limits.opening.connections_per_address, 7, "{name}");
    }
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let path = super::write("node = 9");
    let path = path.to_str().expect("a path");
    assert_eq!(env(&[("WS_CONFIG", path)]).config().node, 9);
    assert!(env(&[("WS_CONFIG", "/nowhere/x.toml")]).refusal().starts_with("config = \"/nowhere/x.toml\""));
    assert!(env(&[("WS_CONFIG", "")]).refusal().contains("environment WS_CONFIG"));
}

#[test]
fn what_kubernetes_sets_for_services_is_told_from_ours() {
    let services = [("WS_CLUSTER_PORT", "tcp://10.0.0.1:80"), ("WS_PORT", "tcp://10.0.0.1:80"), ("WS_ANYTHING", "x")];
    assert_eq!(env(&services).config().ws_port, Port::Number(8812));
    assert_eq!(env(&[("WS_PORT", "80")]).config().ws_port, Port::Number(80));
    assert_eq!(env(&[("WS_PORT", "80"), ("WS_WS_PORT", "81")]).config().ws_port, Port::Number(81));
    assert!(env(&[("WS_HTTP_PORT", "tcp://10.0.0.1:80")]).refusal().contains("enableServiceLinks"));
}

#[test]
fn ports_may_be_chosen_or_off() {
    let config = flags(&["--ws_port", "0", "--http_port", "0", "--metrics_port", "off"]).config();
    let listeners = config.listeners();
    assert_eq!(listeners.iter().filter(|listener| listener.port == 0).count(), 2, "chosen ports are not shared");
    assert!(!listeners.iter().any(|listener| listener.groups.contains(&Group::Metrics)));
    assert_eq!(file("pprof_port = \"off\"").config().pprof_port, Port::Off);
    assert_eq!(env(&[("WS_PPROF_PORT", "off")]).config().pprof_port, Port::Off);
}

#[test]
fn groups_with_one_host_and_port_share_a_listener() {
    let groups = |given: &[&str]| -> Vec<Vec<Group>> {
        flags(given).config().listeners().into_iter().map(|listener| listener.groups).collect()
    };
    use Group::{Http, Metrics, Pprof, Swagger, WebSocket};
    assert_eq!(groups(&["--http_port", "8812"])[0], [WebSocket, Http]);
    assert_eq!(groups(&["--pprof_port", "9091", "--swagger_port", "9091"])[2], [Metrics, Pprof, Swagger]);
    // Operators' groups, whose host nobody gave, come to whoever has their port.
    let one_port = ["--ws_port", "80", "--http_port", "80", "--metrics_port", "80", "--operator_token", "t"];
    assert_eq!(groups(&one_port)[0], [WebSocket, Http, Metrics]);
    let apart = ["--http_host", "127.0.0.2", "--http_port", "9091"];
    assert_eq!(groups(&apart).len(), 5, "two addresses are two listeners");
}

#[test]
fn what_cannot_work_together_is_refused() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--ws_port", "off", "--http_port", "off"],
            "ws_port = \"off\" (flag --ws_port): is off, and so is http_port",
        ),
        (&["--operator_host", "0.0.0.0"], "operator_host = \"0.0.0.0\" (flag --operator_host): is reachable"),
        (
            &["--metrics_port", "8912"],
            "metrics_port = \"8912\" (flag --metrics_port): is also http_port, which other machines reach (http_host); give operator_token",
        ),
        (
            &["--http_host", "127.0.0.1", "--http_port", "8812"],
            "http_port = \"8812\" (flag --http_port): is also ws_port",
        ),
        (
            &["--redis_url", "redis://u:hidden@h"],
            "redis_url = \"redis://***@h\" (flag --redis_url): is not used by queue",
        ),
        (&["--ack", "replica"], "ack = \"replica\" (flag --ack): needs queue = redis"),
        (
            &["--queue", "redis", "--redis_url", "redis://h", "--redis_ca_file", "ca.pem"],
            "redis_ca_file = \"ca.pem\" (flag --redis_ca_file): is not used by this redis_url",
        ),
        (
            &["--queue", "redis", "--redis_url", "rediss://h", "--redis_cert_file", "node.pem"],
            "redis_cert_file = \"node.pem\" (flag --redis_cert_file): needs its key",
        ),
        (
            &["--kick_oldest", "true", "--connections_per_uid", "0"],
            "kick_oldest = \"true\" (flag --kick_oldest): is never",
        ),
        (&["--ws_port", "off", "--public_addr", "h:1"], "public_addr = \"h:1\" (flag --public_addr): sends clients"),
        (
            &["--metrics_port", "8912", "--operator_host", "127.0.0.1", "--operator_token", "t"],
            "metrics_port = \"8912\" (flag --metrics_port): is also http_port, whose host is 0.0.0.0; give both",
        ),
        (&["--env", "prod"], "env = \"prod\" (flag --env): has no demo project"),
        (&["--demo", "true", "--http_port", "off"], "demo = \"true\" (flag --demo): needs both ws_port and http_port"),
        (&["--env", "prod", "--demo", "true"], "demo = \"true\" (flag --demo): signs for whoever asks"),
    ];
    for (given, start) in cases {
        let refusal = flags(given).refusal();
        assert!(refusal.starts_with(start), "{given:?}: {refusal}");
    }
    for good in [
        &["--operator_host", "127.0.0.9"][..],
        &["--operator_host", "::1"],
        &["--operator_host", "0.0.0.0", "--operator_token", "t"],
        &["--operator_host", "0.0.0.0", "--metrics_port", "off", "--pprof_port", "off", "--swagger_port", "off"],
        &["--queue", "redis", "--redis_url", "rediss://u:p@h:6380/1"],
        &["--queue", "redis", "--redis_url", "redis-sentinel://u:p@h:1,i/0?sentinelPassword=q", "--ack", "replica"],
        &["--queue", "redis", "--redis_url", "rediss-cluster://h:1,i:2", "--redis_ca_file", "ca.pem"],
    ] {
        flags(good).config();
    }
    let own = Given { file: Some("[[projects]]\npid = \"1\"\nsecrets = [\"hidden\"]"), ..Given::default() };
    assert!(!own.config().has_demo(), "the demo is not there, and nobody is told off for not having asked for it");
    let asked = Given { flags: &["--demo", "true"], ..own }.load().expect("a good configuration");
    assert_eq!(asked.warnings.len(), 1, "{:?}", asked.warnings);
    let unused = flags(&["--queue", "memory", "--redis_url", "redis://h"]).load().expect("a good configuration");
    assert_eq!(unused.warnings, ["redis_url is given but not used: queue = memory"]);
}

#[test]
fn a_bad_value_is_refused_with_key_value_and_source() {
    let cases: &[(&str, &str, &str)] = &[
        ("node", "65536", "is too large; allowed is 0 to 65535"),
        ("node", "-1", "is no whole number"),
        ("node", "1.5", "is no whole number"),
        ("node", "", "is empty"),
        ("env", "production", "is unknown; allowed is dev, test, prod"),
        ("queue", "nats", "is unknown; allowed is memory, redis"),
        ("driver", "iocp", "is unknown; allowed is auto, uring, epoll"),
        ("auth_reject", "none", "is unknown; allowed is close, http"),
        ("log_level", "verbose", "is unknown"),
        ("log_format", "xml", "is unknown"),
        ("cores", "256", "is too large; allowed is 1 to 255, or 0 (as many as"),
        ("shards", "0", "is too small; allowed is 1 to 256"),
        ("ws_port", "65536", "is no port"),
        ("ws_port", "OFF", "is no port"),
        ("http_host", "example.com", "is no address"),
        ("public_addr", "example.com", "is not host:port"),
        ("key_prefix", "{a}", "is not 1 to 64"),
        ("trusted_proxies", "10.0.0.0/8,10.0.0.1/8", "holds what is no network"),
        ("kick_oldest", "yes", "is neither true nor false"),
        ("handshake_timeout", "10 parsecs", "is no duration"),
        ("handshake_timeout", "1ms", "is too small; allowed is 100ms to 10m"),
        ("push_bytes_max", "1MB", "is no size"),
    ];
    for (key, value, reason) in cases {
        let variable = format!("WS_{}", key.to_uppercase());
        let sources = [
            (flags(&[&format!("--{key}={value}")]).refusal(), format!("flag --{key}")),
            (env(&[(&variable, value)]).refusal(), format!("environment {variable}")),
        ];
        for (refusal, source) in sources {
            let start = format!("{key} = {value:?} ({source}): {reason}");
            assert!(refusal.starts_with(&start), "{refusal}\n{start}");
        }
    }
}

#[test]
fn a_bad_secret_is_refused_without_being_shown() {
    for (given, start) in [
        (&["--operator_token", "hidden hidden"][..], "operator_token (flag --operator_token): holds what cannot"),
        (&["--queue", "redis", "--redis_url", "hidden"], "redis_url (flag --redis_url): write redis://"),
        (
            &["--queue", "redis", "--redis_url", "redis-ring://:hidden@h"],
            "redis_url (flag --redis_url): write redis://",
        ),
    ] {
        let refusal = flags(given).refusal();
        assert!(refusal.starts_with(start), "{refusal}");
    }
}

#[test]
fn prod_refuses_weak_secrets_and_logs_json() {
    let text = "env = \"prod\"\n[[projects]]\npid = \"502\"\nsecrets = [\"hidden-hidden-16\"]";
    let config = file(text).config();
    assert_eq!((config.log_format, config.swagger_port), (LogFormat::Json, Port::Off));
    assert!(!config.any_origin_by_default());
    assert!(config.projects.get("1").is_none(), "no demo project");
    let given =
        Given { flags: &["--log_format", "human", "--swagger_port", "1"], file: Some(text), ..Given::default() };
    let loaded = given.load().expect("a good configuration");
    assert_eq!((loaded.config.log_format, loaded.warnings.len()), (LogFormat::Human, 1));

    for (secret, reason) in [
        ("", "holds an empty secret"),
        ("hidden-hidden-1", "holds a secret of 15 bytes; env = prod asks for at least 16"),
        (ws_cluster::config::DEMO_SECRET, "holds the built-in demo secret"),
    ] {
        let refusal = file(&text.replace("hidden-hidden-16", secret)).refusal();
        assert!(refusal.starts_with(&format!("projects[0].secrets (FILE line 4): {reason}")), "{refusal}");
    }
    let token = Given { flags: &["--operator_token", "hidden"], file: Some(text), ..Given::default() };
    assert!(token.refusal().contains("is 6 bytes long"));
}

#[test]
fn what_check_shows_reads_back_and_stars_secrets() {
    let text = "
        operator_token = \"hidden-hidden-16\"
        queue = \"redis\"
        redis_url = \"redis://u:hidden@h:1/2\"
        trusted_proxies = [\"10.0.0.0/8\", \"::1\"]
        [limits]
        drain = 12.5
        outbox_bytes_max = \"2MiB\"
        [[projects]]
        pid = 'a\"b'
        secrets = [\"hidden\", \"hidden too\"]
        origins = [\"https://App.example\"]
        [[tags]]
        match = \"k.*\"
        history = { age_s = 1.5 }";
    let loaded = file(text).load().expect("a good configuration");
    let shown = show::effective(&loaded.config, &loaded.origins);
    assert!(!shown.contains("hidden"), "{shown}");
    for line in [
        "operator_token = \"***\" # ",
        "redis_url = \"redis://***@h:1/2\" # ",
        "trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"] # ",
        "drain = \"12500ms\" # ",
        "outbox_bytes_max = \"2MiB\" # ",
        "ws_port = 8812 # default",
        "pid = \"a\\\"b\"",
        "secrets = [\"***\", \"***\"]",
        "origins = [\"https://app.example\"]",
        "history = { count = 128, age_s = 1.5, bytes = 262144 }",
    ] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}\n{shown}");
    }
    assert!(!format!("{loaded:?}").contains("hidden"), "Debug shows no secret");
    let again = file(&shown).load().expect("what is shown is a good file");
    assert_eq!(again.config.limits, loaded.config.limits);
    let tags = |config: &ws_cluster::config::Config| config.tags.iter().cloned().collect::<Vec<_>>();
    assert_eq!(tags(&again.config), tags(&loaded.config));
}
