//! The file: projects, tag rules, and what is no key.

use std::time::Duration;

use ws_cluster::model::{
    project::{JwtKey, RequestRouting},
    tag_rule::{Access, DeliveryClass},
};

use super::{Given, file, write};

/// The example of the documentation, with a project in full.
const FULL: &str = r#"
node = 200
[limits]
connections_per_address = 64
[[projects]]
pid = "502"
name = "Exchange"
secrets = ["hidden current", "hidden previous"]
jwt = { algorithm = "HS256" }
requests = "all"
origins = ["https://App.example.com"]
[[tags]]
match = "kline.*"
class = "latest"
history = { count = 7, age_s = 60, bytes = "1KiB" }
dedup = true
access = "public"
max_hz = 5
deflate = false
[[tags]]
match = "user.*"
access = "own"
"#;

#[test]
fn a_full_file_is_read() {
    let loaded = file(FULL).load().expect("a good file");
    let project = loaded.config.projects.get("502").expect("the project");
    assert_eq!(project.secrets.len(), 2);
    assert_eq!(project.secrets[0].expose(), b"hidden current");
    assert_eq!((project.jwt.as_ref(), project.requests), (Some(&JwtKey::Hs256), RequestRouting::All));
    assert_eq!(project.origins, [Box::<str>::from("https://app.example.com")]);

    let rule = loaded.config.tags.find("kline.BTC.1m");
    assert_eq!((rule.class, rule.dedup, rule.hz_max), (DeliveryClass::Latest, true, 5));
    assert_eq!((rule.history.count_max, rule.history.bytes_max), (7, 1024));
    assert!(!rule.deflate && loaded.config.tags.find("other").deflate);
    assert_eq!(rule.history.age_max, Duration::from_secs(60));
    assert_eq!(loaded.config.tags.find("user.bob").access, Access::Own);
    assert_eq!(loaded.config.tags.find("other").access, Access::Public);

    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_project_of_the_demos_name_takes_its_place() {
    let config = file("[[projects]]\npid = \"1\"\nsecrets = [\"hidden\"]").config();
    assert_eq!(config.projects.iter().count(), 1);
    assert_eq!(config.projects.get("1").expect("the project").secrets[0].expose(), b"hidden");
}

#[test]
fn secrets_may_come_from_files_and_the_environment() {
    let path = write("hidden in a file\n");
    let text = format!("[[projects]]\npid = \"a\"\nsecret_files = [{path:?}]\nsecret_env = [\"APP_SECRET\"]");
    let config = Given { env: &[("APP_SECRET", "hidden in the environment")], ..file(&text) }.config();
    let secrets = &config.projects.get("a").expect("the project").secrets;
    assert_eq!(secrets[0].expose(), b"hidden in a file");
    assert_eq!(secrets[1].expose(), b"hidden in the environment");
    assert!(file(&text).refusal().starts_with("projects[0].secret_env = \"APP_SECRET\" (FILE line 4): is not set"));
    let gone = "[[projects]]\npid = \"a\"\nsecret_files = [\"/nowhere/x\"]";
    assert!(
        file(gone).refusal().starts_with("projects[0].secret_files = \"/nowhere/x\" (FILE line 3): failed to read")
    );
}

#[test]
fn what_is_no_key_is_refused_with_its_line() {
    let cases = [
        ("nod = 1", "nod (FILE line 1): is unknown"),
        ("\n\nws-port = 1", "ws-port (FILE line 3): is unknown; write ws_port"),
        ("config = \"x\"", "config (FILE line 1): is unknown here; a file cannot name another"),
        ("drain = 1", "drain (FILE line 1): is unknown here; drain belongs under [limits]"),
        ("[limits]\nnode = 1", "node (FILE line 2): is unknown here; node belongs above [limits]"),
        ("[limits]\nx = 1", "x (FILE line 2): is unknown under [limits]"),
        ("limits = 1", "limits (FILE line 1): is a table"),
        ("[node]\nx = 1", "node (FILE line 1): is a table; give a value"),
        ("node = [1]", "node = \"1\" (FILE line 1): is a list; give one value"),
        ("node = 2026-01-01", "node (FILE line 1): is a date or time"),
        ("node = 1\nnode = 2", "config (FILE line 2): is no TOML: duplicate key"),
        ("operator_token = \"hidden", "config (FILE line 1): is no TOML"),
        ("projects = 1", "projects (FILE line 1): is a list of tables; begin each with [[projects]]"),
        ("[tags]\nx = 1", "tags (FILE line 1): is a list of tables"),
    ];
    for (text, start) in cases {
        let refusal = file(text).refusal();
        assert!(refusal.starts_with(start), "{text:?}: {refusal}");
    }
}

#[test]
fn a_bad_project_is_refused_with_its_line_and_never_a_secret() {
    let project = |lines: &str| format!("[[projects]]\n{lines}");
    let good = "pid = \"a\"\nsecrets = [\"hidden\"]\n";
    let cases = [
        ("secrets = [\"hidden\"]".to_owned(), "projects[0].pid (FILE line 1): is missing"),
        ("pid = \"a,b\"\nsecrets = [\"hidden\"]".to_owned(), "projects[0].pid = \"a,b\" (FILE line 2): is no pid"),
        ("pid = \"a\"".to_owned(), "projects[0].secrets (FILE line 1): is missing"),
        (
            "pid = \"a\"\nsecrets = \"hidden\"".to_owned(),
            "projects[0].secrets (FILE line 3): is one value; give a list",
        ),
        ("pid = \"a\"\nsecrets = [\"\"]".to_owned(), "projects[0].secrets (FILE line 3): holds an empty secret"),
        (
            "pid = \"a\"\nsecrets = [\"hidden\", \"hidden\", \"hidden\"]".to_owned(),
            "projects[0].secrets (FILE line 1): are 3",
        ),
        (
            "pid = \"a\"\nsecrets = [\"hidden\", {}]".to_owned(),
            "projects[0].secrets (FILE line 3): is a list of unlike",
        ),
        ("pid = \"a\"\nsecret = \"hidden\"".to_owned(), "projects[0].secrets (FILE line 1): is missing"),
        (format!("{good}secret = \"hidden\""), "projects[0].secret (FILE line 4): is unknown; allowed is pid, name,"),
        (
            format!("{good}requests = \"two\""),
            "projects[0].requests = \"two\" (FILE line 4): is unknown; allowed is one, all",
        ),
        (format!("{good}origins = [\"a.b\"]"), "projects[0].origins = \"a.b\" (FILE line 4): is no origin"),
        (format!("{good}jwt = \"HS256\""), "projects[0].jwt (FILE line 4): is no table"),
        (format!("{good}jwt = {{}}"), "projects[0].jwt.algorithm (FILE line 4): is missing"),
        (
            format!("{good}jwt = {{ algorithm = \"none\" }}"),
            "projects[0].jwt.algorithm = \"none\" (FILE line 4): is unknown",
        ),
        (format!("{good}jwt = {{ algorithm = \"ES256\" }}"), "projects[0].jwt.key (FILE line 4): is missing"),
        (
            format!("{good}jwt = {{ algorithm = \"HS256\", key = \"hidden\" }}"),
            "projects[0].jwt.key (FILE line 4): is not for",
        ),
        (
            format!("{good}jwt = {{ algorithm = \"EdDSA\", key = \"aGlkZGVu\" }}"),
            "projects[0].jwt.key (FILE line 4): is no public",
        ),
        (format!("{good}jwt = {{ algorithm = \"HS256\", kid = 1 }}"), "projects[0].jwt.kid (FILE line 4): is unknown"),
        (format!("{good}[[projects]]\n{good}"), "projects[1].pid = \"a\" (FILE line 4): is the pid of two projects"),
    ];
    for (lines, start) in cases {
        let refusal = file(&project(&lines)).refusal();
        assert!(refusal.starts_with(start), "{lines:?}: {refusal}");
    }
}

#[test]
fn a_bad_tag_rule_is_refused_with_its_line() {
    let cases = [
        ("class = \"latest\"", "tags[0].match (FILE line 1): is missing"),
        ("match = \"a*b\"", "tags[0].match = \"a*b\" (FILE line 2): is no pattern"),
        ("match = \"\"", "tags[0].match = \"\" (FILE line 2): is no pattern"),
        (
            "match = \"a\"\nclass = \"last\"",
            "tags[0].class = \"last\" (FILE line 3): is unknown; allowed is lossless, latest",
        ),
        ("match = \"a\"\naccess = \"own\"", "tags[0].access = \"own\" (FILE line 1): needs a match that ends in *"),
        ("match = \"a\"\ndedup = 1", "tags[0].dedup = \"1\" (FILE line 3): is neither"),
        ("match = \"a\"\nmax_hz = -1", "tags[0].max_hz = \"-1\" (FILE line 3): is no whole number"),
        ("match = \"a\"\nhistory = 1", "tags[0].history (FILE line 3): is no table"),
        (
            "match = \"a\"\nhistory = { count = 100001 }",
            "tags[0].history.count = \"100001\" (FILE line 3): is too large",
        ),
        (
            "match = \"a\"\nhistory = { age = 1 }",
            "tags[0].history.age (FILE line 3): is unknown; allowed is count, age_s",
        ),
        ("match = \"a\"\nhz = 1", "tags[0].hz (FILE line 3): is unknown"),
        ("match = \"a.*\"\n[[tags]]\nmatch = \"a.b\"", "tags[1].match = \"a.b\" (FILE line 3): is never reached"),
    ];
    for (lines, start) in cases {
        let refusal = file(&format!("[[tags]]\n{lines}")).refusal();
        assert!(refusal.starts_with(start), "{lines:?}: {refusal}");
    }
    let small = "[limits]\ntag_table_bytes_max = \"1MiB\"\n[[tags]]\nmatch = \"a\"\nhistory = { bytes = \"2MiB\" }";
    assert!(
        file(small).refusal().starts_with("tags[0].history.bytes = \"2097152\" (FILE line 5): is more than all tags")
    );
}
