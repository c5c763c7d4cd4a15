//! Every bound has the default it is documented with, a range, and a relation to its neighbours.

use std::collections::BTreeMap;

use ws_cluster::config::show;

use super::{Given, file, flags};

/// The effective defaults, by the order of the documented list of limits.
const DEFAULTS: &[(&str, &str)] = &[
    // 1-6: opening
    ("handshake_timeout", "10s"),
    ("head_bytes_max", "8KiB"),
    ("headers_max", "64"),
    ("target_bytes_max", "4KiB"),
    ("auth_reject", "close"),
    ("connections_per_address", "64"),
    ("connections_per_uid", "8"),
    ("kick_oldest", "false"),
    ("connections_max", "200000"),
    ("accepts_per_second", "500"),
    ("failed_credentials_per_minute", "10"),
    ("sign_horizon_connect", "1d"),
    ("sign_horizon_push", "10m"),
    // 7-12: frames
    ("user_message_bytes_max", "64KiB"),
    ("backend_message_bytes_max", "1MiB"),
    ("fragments_max", "1024"),
    ("fragments_timeout", "30s"),
    ("messages_per_second", "50"),
    ("messages_burst", "100"),
    ("control_frames_per_second", "20"),
    ("bytes_per_second", "256KiB"),
    ("rate_pause_max", "1s"),
    ("backend_messages_per_second", "20000"),
    ("turn_bytes_max", "64KiB"),
    ("turn_frames_max", "128"),
    ("json_depth_max", "32"),
    ("bad_messages_max", "10"),
    ("tags_per_connection", "256"),
    ("audience_max", "10000"),
    ("push_bytes_max", "1MiB"),
    // 10: deflate
    ("deflate", "true"),
    ("deflate_level", "3"),
    ("deflate_bytes_min", "256B"),
    ("deflate_bytes_max", "64KiB"),
    // 13-15: writing
    ("outbox_bytes_max", "1MiB"),
    ("outbox_frames_max", "1024"),
    ("outboxes_bytes_max", "0"),
    ("kept_bytes_max", "256KiB"),
    ("write_timeout", "10s"),
    ("unacknowledged_timeout", "20s"),
    ("notsent_lowat_bytes", "4KiB"),
    ("send_buffer_bytes", "256KiB"),
    ("write_bytes_max", "64KiB"),
    ("walk_slice", "128"),
    ("payload_guidance_bytes", "1460B"),
    // 9, 16, 17: life
    ("close_timeout", "5s"),
    ("ping_after", "25s"),
    ("pong_timeout", "10s"),
    ("heartbeat", "8s"),
    ("drain", "20s"),
    // 19: memory
    ("memory_max_bytes", "0"),
    ("memory_soft_percent", "70"),
    ("memory_hard_percent", "85"),
    // 24: the queue
    ("pending_bytes_max", "64MiB"),
    ("pending_timeout", "3s"),
    ("batch_bytes_max", "1MiB"),
    ("batch_records_max", "512"),
    ("replay_window", "30s"),
    ("replay_bytes_max", "256MiB"),
    ("log_bytes_max", "256MiB"),
    ("inbox_messages_max", "65536"),
    ("exchange_inbox_max", "65536"),
    ("requests_pending_max", "65536"),
    ("request_timeout", "10s"),
    ("request_timeout_max", "1m"),
    ("idempotency_window", "5m"),
    ("idempotency_keys_max", "131072"),
    ("tags_max", "1048576"),
    ("tag_table_bytes_max", "1GiB"),
    ("retained_bytes_max", "256MiB"),
    ("canary_timeout", "3s"),
    // 25: HTTP
    ("http_head_bytes_max", "16KiB"),
    ("http_headers_max", "64"),
    ("http_target_bytes_max", "8KiB"),
    ("http_body_bytes_max", "1MiB"),
    ("http_head_timeout", "10s"),
    ("http_body_timeout", "10s"),
    ("http_idle_timeout", "1m"),
    ("http_write_timeout", "10s"),
    ("http_answer_timeout", "15s"),
    ("http_in_flight_max", "256"),
    ("http_connections_max", "1024"),
    ("http_batch_lines_max", "1000"),
    ("http_online_page_max", "1000"),
    // 22: logs
    ("log_buffer_bytes_max", "8MiB"),
    ("log_rotate_bytes", "64MiB"),
    ("log_keep_files", "30"),
    ("log_keep_bytes", "1GiB"),
    ("log_keep_age", "30d"),
    ("sentry_events_per_minute", "60"),
    // 26: operators
    ("operator_host", "127.0.0.1"),
];

/// What is in effect by default, by key.
fn effective() -> BTreeMap<String, String> {
    let loaded = Given::default().load().expect("the defaults");
    let shown = show::effective(&loaded.config, &loaded.origins);
    let lines = shown.lines().filter_map(|line| line.strip_suffix(" # default")?.split_once(" = "));
    lines.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[test]
fn every_limit_has_its_documented_default() {
    let effective = effective();
    for (key, value) in DEFAULTS {
        assert_eq!(effective.get(*key).map(String::as_str), Some(*value), "{key}");
    }
}

#[test]
fn every_limit_is_in_the_list_above_and_can_be_given_back() {
    let loaded = Given::default().load().expect("the defaults");
    let shown = show::effective(&loaded.config, &loaded.origins);
    let limits = shown.split("[limits]").nth(1).and_then(|rest| rest.split("[[").next()).expect("the limits");
    for (key, value) in limits.lines().filter_map(|line| line.strip_suffix(" # default")?.split_once(" = ")) {
        assert!(DEFAULTS.iter().any(|(known, _)| known == &key), "{key} has no line in this test");
        let given = format!("[limits]\n{key} = {value}");
        assert_eq!(file(&given).config().limits, loaded.config.limits, "{given}");
    }
}

#[test]
fn every_field_of_the_limits_has_a_key() {
    // What `Debug` names that is no group is a field.
    let fields = format!("{:#?}", Given::default().config().limits);
    let fields = fields.lines().filter_map(|line| line.strip_prefix("        "));
    let fields: Vec<_> = fields.filter_map(|line| line.split_once(": ")).map(|(field, _)| field.trim()).collect();
    let limits = DEFAULTS.len() - 2; // without auth_reject and operator_host
    assert_eq!(fields.len(), limits, "{fields:?}");
    for field in fields {
        let http = format!("http_{field}");
        assert!(DEFAULTS.iter().any(|(key, _)| *key == field || *key == http), "{field}");
    }
}

#[test]
fn numbers_and_words_say_the_same() {
    for (key, forms) in [
        ("drain", &["30", "30.0", "\"30s\"", "\"30000ms\"", "\"0.5m\""][..]),
        ("outbox_bytes_max", &["2097152", "\"2MiB\"", "\"2048KiB\"", "0x200000"]),
    ] {
        let limits = |form: &str| file(&format!("[limits]\n{key} = {form}")).config().limits;
        for form in forms {
            assert_eq!(limits(form), limits(forms[0]), "{key} = {form}");
        }
    }
}

#[test]
fn limits_that_contradict_each_other_are_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--target_bytes_max", "16KiB"],
            "target_bytes_max = \"16KiB\" (flag --target_bytes_max): is more than head_bytes_max = 8KiB (default)",
        ),
        (
            &["--head_bytes_max", "2KiB"],
            "head_bytes_max = \"2KiB\" (flag --head_bytes_max): is less than target_bytes_max = 4KiB (default)",
        ),
        (
            &["--push_bytes_max", "2MiB"],
            "push_bytes_max = \"2MiB\" (flag --push_bytes_max): is more than outbox_bytes_max = 1MiB (default)",
        ),
        (
            &["--push_bytes_max", "2MiB", "--outbox_bytes_max", "2MiB"],
            "push_bytes_max = \"2MiB\" (flag --push_bytes_max): is more than batch_bytes_max",
        ),
        (
            &["--outboxes_bytes_max", "1MiB", "--outbox_bytes_max", "2MiB"],
            "outboxes_bytes_max = \"1MiB\" (flag --outboxes_bytes_max): is less than outbox_bytes_max = 2MiB (flag --outbox_bytes_max)",
        ),
        (
            &["--deflate_bytes_min", "128KiB"],
            "deflate_bytes_min = \"128KiB\" (flag --deflate_bytes_min): is more than deflate_bytes_max = 64KiB",
        ),
        (&["--heartbeat", "26s"], "heartbeat = \"26s\" (flag --heartbeat): is more than ping_after = 25s (default)"),
        (
            &["--request_timeout_max", "1s"],
            "request_timeout_max = \"1s\" (flag --request_timeout_max): is less than request_timeout = 10s",
        ),
        (&["--drain", "1s"], "drain = \"1s\" (flag --drain): is less than close_timeout = 5s"),
        (
            &["--pending_timeout", "16s"],
            "pending_timeout = \"16s\" (flag --pending_timeout): is more than http_answer_timeout",
        ),
        (
            &["--replay_bytes_max", "1MiB", "--batch_bytes_max", "2MiB"],
            "replay_bytes_max = \"1MiB\" (flag --replay_bytes_max): is less than batch",
        ),
    ];
    for (given, start) in cases {
        let refusal = flags(given).refusal();
        assert!(refusal.starts_with(start), "{refusal}\n{start}");
    }
}
