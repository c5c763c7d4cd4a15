//! The command line: a flag for every key, and the subcommands.
//!
//! Dashes and underscores mean the same in flag names; the canonical form is the file's.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Args, Command as Clap, FromArgMatches};

use super::{
    Config, doc, keys,
    sign::{SignConnect, SignPush},
    sources::Flags,
    values::Env,
};

/// What the command line asks for.
pub struct Invocation {
    /// The keys that were given as flags.
    pub flags: Flags,
    /// What to do.
    pub command: Command,
}

/// What the process is started for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Runs the node.
    Serve,
    /// Prints a signed connect URL.
    SignConnect(SignConnect),
    /// Prints a signed push as a command to paste.
    SignPush(SignPush),
    /// Prints the effective configuration, if it is a good one.
    Check,
    /// Prints the HTTP API as an OpenAPI document.
    OpenApi,
    /// Prints the reference of all keys.
    ConfigDoc,
}

/// Reads the command line; the first argument is the program's name.
///
/// # Errors
/// What clap says, which may also be the help or the version.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches =
        command().try_get_matches_from(args.into_iter().scan(false, |ended, arg| Some(underscored(arg, ended))))?;
    let mut flags = Flags::default();
    collect(&matches, &mut flags);
    let command = match matches.subcommand() {
        Some(("check", matches)) => {
            collect(matches, &mut flags);
            Command::Check
        }
        Some(("sign", matches)) => match matches.subcommand() {
            Some(("connect", matches)) => {
                collect(matches, &mut flags);
                Command::SignConnect(SignConnect::from_arg_matches(matches)?)
            }
            Some((_, matches)) => {
                collect(matches, &mut flags);
                Command::SignPush(SignPush::from_arg_matches(matches)?)
            }
            None => unreachable!("clap asks for one"),
        },
        Some(("openapi", _)) => Command::OpenApi,
        Some(_) => Command::ConfigDoc,
        None => Command::Serve,
    };
    Ok(Invocation { flags, command })
}

/// The flag `arg` with underscores in its name; what is no flag, and everything after `--`, stays as it is.
fn underscored(arg: OsString, ended: &mut bool) -> OsString {
    *ended |= arg == "--";
    match arg.to_str().and_then(|text| text.strip_prefix("--")) {
        Some(flag) if !*ended && !flag.is_empty() => {
            let (name, value) = flag.find('=').map_or((flag, ""), |at| flag.split_at(at));
            format!("--{}{value}", name.replace('-', "_")).into()
        }
        _ => arg,
    }
}

/// The arguments as operators may see them: what a secret key was given is starred.
pub fn shown(args: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let (mut ended, mut next_is_secret) = (false, false);
    let mut show = |arg: OsString| {
        let arg = underscored(arg, &mut ended).to_string_lossy().into_owned();
        if std::mem::take(&mut next_is_secret) {
            return STARS.to_owned();
        }
        let (name, value) = arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
        if !name.strip_prefix("--").and_then(keys::find).is_some_and(|key| key.secret) {
            return arg;
        }
        next_is_secret = value.is_none();
        if value.is_none() { arg } else { format!("{name}={STARS}") }
    };
    args.into_iter().map(&mut show).collect()
}

const STARS: &str = "***";

fn collect(matches: &ArgMatches, flags: &mut Flags) {
    for name in std::iter::once("config").chain(keys::all().map(|key| key.name)) {
        if let Some(value) = matches.get_one::<OsString>(name) {
            flags.set(name, value.clone());
        }
    }
}

fn command() -> Clap {
    let sign_connect = SignConnect::augment_args(Clap::new("connect").about("Prints a signed connect URL"));
    let sign_push = SignPush::augment_args(Clap::new("push").about("Prints a signed push as a curl command"));
    let sign = Clap::new("sign")
        .about("Prints a signed connect URL or push request")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([with_keys(sign_connect, false), with_keys(sign_push, false)]);
    let check = Clap::new("check").about("Validates the configuration and prints the effective one, secrets starred");
    let openapi = Clap::new("openapi").about("Prints the HTTP API as an OpenAPI 3.1 document (JSON)");
    let reference = Clap::new("config-doc").hide(true).about("Prints the reference of all keys as Markdown");
    with_keys(Clap::new("ws-cluster"), true)
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebSocket push cluster. Without a subcommand: runs a node.")
        .after_help(
            "Every flag is also an environment variable (WS_NODE, WS_HTTP_PORT, …) and a key of the file; flags win over the \
             environment, the environment over the file. docs/config.md is the reference.",
        )
        .subcommands([sign, with_keys(check, false), openapi, reference.alias("config_doc")])
}

/// Adds a flag for every key; the bounds show only in the long help, and none of them where `told` is false.
fn with_keys(command: Clap, told: bool) -> Clap {
    let config = Arg::new("config").long("config").value_name("FILE").help("The configuration file (TOML)");
    let mut command = command.arg(config.value_parser(clap::value_parser!(OsString)).help_heading("File"));
    let defaults = Config::defaults(Env::Dev);
    for section in keys::sections() {
        for key in section.keys {
            let arg = Arg::new(key.name)
                .long(key.name)
                .value_name("VALUE")
                .help(doc::help(key, &defaults))
                .help_heading(section.title);
            let arg = arg.value_parser(clap::value_parser!(OsString)).allow_negative_numbers(true);
            command = command.arg(arg.hide_short_help(section.limits).hide(!told));
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn dashes_turn_into_underscores_in_flag_names_alone() {
        let turned = |args: &[&str]| -> Vec<OsString> {
            args.iter().map(OsString::from).scan(false, |ended, arg| Some(underscored(arg, ended))).collect()
        };
        assert_eq!(
            turned(&["--ws-port", "a-b", "--log-level=x-y", "-a-b"]),
            ["--ws_port", "a-b", "--log_level=x-y", "-a-b"]
        );
        assert_eq!(turned(&["--", "--a-b"]), ["--", "--a-b"]);
    }

    #[test]
    fn secrets_in_arguments_are_starred() {
        let shown = |args: &[&str]| shown(args.iter().map(OsString::from));
        assert_eq!(
            shown(&["ws-cluster", "--operator-token", "a-b", "--redis_url=redis://u:p@h", "--node", "7"]),
            ["ws-cluster", "--operator_token", "***", "--redis_url=***", "--node", "7"]
        );
        assert_eq!(shown(&["--redis-url", "--operator_token", "--log_level=debug"])[1..], ["***", "--log_level=debug"]);
        for key in keys::all().filter(|key| key.secret) {
            assert!(!shown(&[&format!("--{}", key.name), "hidden"]).concat().contains("hidden"), "{}", key.name);
        }
    }
}
