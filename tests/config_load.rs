//! What is given is what counts, and what cannot be is refused by name.
//!
//! Method: loads configurations in this process from flags, an environment and a file that the test names. Every
//! secret holds the word `hidden`, and no message may.

#[path = "config_load/files.rs"]
mod files;
#[path = "config_load/limits.rs"]
mod limits;
#[path = "config_load/sources.rs"]
mod sources;

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use ws_cluster::config::{Config, Environment, Loaded, cli, doc};

/// What a test gives.
#[derive(Default)]
struct Given<'a> {
    flags: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
}

impl Given<'_> {
    /// Loads it; an error as its text, with the file called `FILE`.
    fn load(&self) -> Result<Loaded, String> {
        let path = self.file.map(write);
        let mut args = vec![OsString::from("ws-cluster")];
        args.extend(path.iter().map(|path| format!("--config={}", path.display()).into()));
        args.extend(self.flags.iter().map(OsString::from));
        let invocation = cli::parse(args).map_err(|error| error.to_string())?;
        let env = Environment::new(self.env.iter().map(|(name, value)| (name.into(), value.into())));
        let loaded = Config::load(&invocation.flags, &env).map_err(|error| {
            let text =
                path.iter().fold(error.to_string(), |text, path| text.replace(&path.display().to_string(), "FILE"));
            assert!(!text.contains("hidden"), "a secret shows: {text}");
            text
        });
        if let Some(path) = path {
            let _ = std::fs::remove_file(path);
        }
        loaded
    }

    fn config(&self) -> Config {
        self.load().expect("a good configuration").config
    }

    fn refusal(&self) -> String {
        self.load().expect_err("a refusal")
    }
}

fn flags<'a>(flags: &'a [&'a str]) -> Given<'a> {
    Given { flags, ..Given::default() }
}

fn env<'a>(env: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given { env, ..Given::default() }
}

fn file(text: &str) -> Given<'_> {
    Given { file: Some(text), ..Given::default() }
}

/// A file of this text that no other test has.
fn write(text: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{}-{number}", std::process::id()));
    std::fs::write(&path, text).expect("a file to read");
    path
}

#[test]
fn the_reference_is_what_the_program_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == doc::markdown(), "docs/config.md differs: ws-cluster config-doc > docs/config.md");
}
