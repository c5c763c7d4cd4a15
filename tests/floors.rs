//! The drawing of `docs/ARCHITECTURE.md` holds: who imports whom, who names which outside crate, how long things get.
//!
//! Method: reads the sources, blanks comments and literals, and looks for paths. Each rule is also shown a bad
//! snippet that it must report, so that a rule that has gone blind fails here.

#[path = "floors/source.rs"]
mod source;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use source::Source;

/// Longest file and longest function, in lines.
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The modules with the floor they stand on and the highest floor they may import from. Equal floors never
/// import each other: `hub` does not know `exchange`. The composition root (floor 8) may import all.
const FLOORS: &[(&str, u8, Option<u8>)] = &[
    ("clock", 0, None),
    ("health", 0, None),
    ("limits", 0, None),
    ("metrics", 0, None),
    ("model", 0, None),
    ("prefetch", 0, None),
    ("logs", 1, Some(0)),
    ("protocol", 1, Some(0)),
    ("router", 1, Some(0)),
    ("traces", 1, Some(0)),
    ("errors", 2, Some(1)),
    ("exchange", 2, Some(1)),
    ("hub", 2, Some(1)),
    ("inbox", 3, Some(1)),
    ("broker", 4, Some(3)),
    ("shard", 5, Some(3)),
    ("http", 6, Some(5)),
    ("admin", 7, Some(6)),
    ("config", 8, Some(8)),
    ("node", 8, Some(8)),
    ("main", 8, Some(8)),
];

/// Which modules may name which outside crate in product code; `*` is every module. A dependency without a line
/// here is a fault.
const CRATES: &[(&str, &[&str])] = &[
    ("ahash", &["*"]),
    ("backtrace", &["admin", "errors"]),
    ("bytes", &["*"]),
    ("chrono", &["clock"]),
    ("clap", &["config", "main"]),
    ("crc32fast", &["protocol"]),
    ("data_encoding", &["protocol", "http", "admin", "config", "node", "main"]),
    ("flate2", &["logs", "protocol", "admin"]),
    ("futures_util", &["inbox", "broker", "shard", "http", "admin", "node"]),
    ("http", &["protocol", "http", "admin", "node"]),
    ("httparse", &["protocol", "http"]),
    ("inferno", &["admin"]),
    ("io_uring", &["shard", "node"]),
    ("libc", &["logs", "shard", "admin", "node"]),
    ("memchr", &["protocol", "http", "shard"]),
    ("monoio", &["shard", "http", "admin", "node"]),
    ("monoio_codec", &["http"]),
    ("monoio_http", &["http"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_http", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("percent_encoding", &["protocol", "http", "errors"]),
    ("prometheus", &["admin"]),
    ("prost", &["admin"]),
    ("ring", &["protocol", "node", "main"]),
    ("rustix", &["shard"]),
    ("sentry", &["config", "errors"]),
    ("serde", &["*"]),
    ("serde_json", &["protocol", "http", "node"]),
    ("simd_json", &["protocol", "http"]),
    ("slab", &["hub", "shard"]),
    ("smallvec", &["*"]),
    ("socket2", &["shard", "node"]),
    ("tikv_jemalloc_ctl", &["admin"]),
    ("tikv_jemallocator", &["main"]),
    ("tokio", &["broker", "node"]),
    ("toml", &["config"]),
    ("tracing", &["*"]),
    ("tracing_subscriber", &["logs", "errors", "node", "main"]),
    ("tungstenite", &["protocol"]),
    ("ureq", &["errors", "node", "traces"]),
    ("utoipa", &["http"]),
    ("utoipa_swagger_ui", &["admin"]),
    ("ws_cluster_redis", &["broker", "node"]),
];

/// What only a certain machine knows; written in halves, because this file is searched too.
const MACHINE_WORDS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/opt/", "wheels"),
    concat!(".py", "env"),
    concat!("arti", "factory"),
    concat!("jf", "rog"),
    concat!("nexus", "."),
    concat!("/tmp/bash", "_jobs"),
];

#[test]
fn modules_import_only_downwards() {
    expect_none(over(&["src"], imports_upwards));
}

#[test]
fn outside_crates_are_named_only_where_the_table_says() {
    expect_none(over(&["src"], crates_out_of_place));
}

#[test]
fn every_dependency_has_a_line_in_the_table() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    expect_none(dependencies_without_a_line(&manifest));
}

#[test]
fn the_load_harness_shares_no_code_with_the_server() {
    let shares = |source: &Source| {
        let roots = source.roots_named();
        roots
            .into_iter()
            .filter(|(_, root)| root == "ws_cluster")
            .map(|(line, _)| format!("{line}: names ws_cluster"))
            .collect()
    };
    expect_none(over(&["loadtest/src"], shares));
}

#[test]
fn files_and_functions_stay_short_and_files_say_what_they_are_for() {
    expect_none(over(&["src", "crates", "loadtest/src", "tests", "benches"], too_long_or_silent));
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let mut faults = Vec::new();
    for file in text_files(&root()) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        faults.extend(machine_words(&text).into_iter().map(|fault| format!("{}:{fault}", file.display())));
    }
    expect_none(faults);
}

#[test]
fn each_rule_reports_a_bad_snippet() {
    let hub = Source::new("hub/mod.rs", "//! Doc.\nuse crate::{model::Pid, exchange::{Tag, Last}};\n", false);
    assert_eq!(imports_upwards(&hub), ["2: hub (floor 2) imports exchange (floor 2)"]);
    let climbing =
        Source::new("protocol/jwt.rs", "//! Doc.\nfn f() { super::super::shard::run(super::frame::X) }", false);
    assert_eq!(imports_upwards(&climbing), ["2: protocol (floor 1) imports shard (floor 5)"]);
    let innocent = "//! crate::shard\n// crate::node\nconst A: &str = \"crate::http { \"; use crate::limits::X;";
    assert!(imports_upwards(&Source::new("hub/a.rs", innocent, false)).is_empty());
    assert_eq!(imports_upwards(&Source::new("stray/mod.rs", "", false)).len(), 1, "a module without a floor");

    let redis = Source::new("shard/a.rs", "//! Doc.\nuse std::fmt;\nfn f() { tokio::spawn(x.tokio::y) }", false);
    assert_eq!(crates_out_of_place(&redis), ["3: shard names the crate tokio"]);
    let tested = "#[cfg(test)]\nmod tests { use tokio::time; }\nfn f() { slab::Slab::new() }";
    assert_eq!(crates_out_of_place(&Source::new("exchange/a.rs", tested, false)), ["3: exchange names the crate slab"]);
    let own_http = "use crate::{http::serve, model::Pid}; fn f() { crate::http::x() }";
    assert!(crates_out_of_place(&Source::new("node/a.rs", own_http, false)).is_empty());
    assert_eq!(dependencies_without_a_line("[dependencies]\nbytes = \"1\"\nleft-pad = \"1\"\n[x]\ny = 1\n").len(), 1);

    let long = |attribute: &str| format!("//! Doc.\n{attribute}fn f() {{\n{}}}\n", "let c = '{';\n".repeat(70));
    assert_eq!(too_long_or_silent(&Source::new("a.rs", &long(""), false)), ["2: the function f has 72 lines"]);
    let excused = long("#[expect(clippy::too_many_lines, reason = \"x\")]\n");
    assert!(too_long_or_silent(&Source::new("a.rs", &excused, false)).is_empty());
    assert_eq!(too_long_or_silent(&Source::new("a.rs", &"\n".repeat(601), false)).len(), 2);

    assert_eq!(machine_words(concat!("a\ncd /wo", "rk/main\n")).len(), 1);
}

fn imports_upwards(source: &Source) -> Vec<String> {
    let own = source.module();
    if own == "lib" {
        return Vec::new();
    }
    let Some((_, floor, highest)) = FLOORS.iter().find(|(name, ..)| *name == own) else {
        return vec![format!("1: the module {own} has no floor")];
    };
    let upwards = |(line, module): (usize, String)| {
        let (_, other, _) = FLOORS.iter().find(|(name, ..)| *name == module && *name != own)?;
        let allowed = highest.is_some_and(|highest| *other <= highest);
        (!allowed).then(|| format!("{line}: {own} (floor {floor}) imports {module} (floor {other})"))
    };
    source.modules_named().into_iter().filter_map(upwards).collect()
}

fn crates_out_of_place(source: &Source) -> Vec<String> {
    let own = source.module();
    let misplaced = |(line, root): (usize, String)| {
        let (_, modules) = CRATES.iter().find(|(name, _)| *name == root)?;
        let allowed = modules.contains(&"*") || modules.contains(&own.as_str());
        (!allowed).then(|| format!("{line}: {own} names the crate {root}"))
    };
    source.roots_named().into_iter().filter_map(misplaced).collect()
}

fn dependencies_without_a_line(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let names = section.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split([' ', '.', '=']).next());
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(|name| name.replace('-', "_"));
    names
        .filter(|name| !CRATES.iter().any(|(known, _)| known == name))
        .map(|name| format!("{name}: no line in CRATES"))
        .collect()
}

fn too_long_or_silent(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("1: the file has {lines} lines"));
    }
    if !source.text.starts_with("//!") {
        faults.push("1: the file does not begin with what it is for (//!)".to_owned());
    }
    let long =
        source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX && !function.excused);
    faults.extend(
        long.map(|function| format!("{}: the function {} has {} lines", function.line, function.name, function.lines)),
    );
    faults
}

fn machine_words(text: &str) -> Vec<String> {
    let numbered = text.lines().enumerate();
    let named = |(at, line): (usize, &str)| {
        let word = MACHINE_WORDS.iter().find(|word| line.to_lowercase().contains(**word))?;
        Some(format!("{}: speaks of a machine: {word}", at + 1))
    };
    numbered.filter_map(named).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn expect_none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Applies a rule to every Rust file below `folders`; its faults come back with the file's name before them.
fn over(folders: &[&str], rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for folder in folders {
        let base = root().join(folder);
        let files: Vec<PathBuf> =
            text_files(&base).into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")).collect();
        let test_only = test_only_files(&base, &files);
        for file in &files {
            let source = read(&base, file, test_only.contains(file));
            faults.extend(rule(&source).into_iter().map(|fault| format!("{folder}/{}:{fault}", source.path)));
        }
    }
    faults
}

fn read(base: &Path, file: &Path, test_only: bool) -> Source {
    let relative = file.strip_prefix(base).expect("below its base").to_string_lossy().into_owned();
    Source::new(&relative, &fs::read_to_string(file).expect("a source in UTF-8"), test_only)
}

/// The files that are only compiled for tests: `#[cfg(test)] mod name;` beside or above them.
fn test_only_files(base: &Path, files: &[PathBuf]) -> HashSet<PathBuf> {
    let mut found = HashSet::new();
    for file in files {
        let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => file.with_file_name(""),
            _ => file.with_extension(""),
        };
        for name in read(base, file, false).test_modules() {
            found.insert(folder.join(format!("{name}.rs")));
            found.insert(folder.join(name).join("mod.rs"));
        }
    }
    found
}

/// Every file below `folder` that a person wrote.
fn text_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let generated =
            ["target", ".git", "node_modules", "reports", "__pycache__", "corpus"].iter().any(|known| name == *known);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !generated => found.extend(text_files(&path)),
            Ok(kind) if kind.is_file() && !generated => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}
