//! The process: reads its configuration, then runs a node or one of the tools.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use ws_cluster::{
    config::{
        Config, Environment,
        cli::{self, Command},
    },
    node,
};

/// The exit status of wrong usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let invocation = match cli::parse(args) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Help and version come as errors too; nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let environment = Environment::new(std::env::vars_os());
    let loaded = match Config::load(&invocation.flags, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ws-cluster: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match invocation.command {
        Command::Serve => node::run(loaded),
        _ => ExitCode::SUCCESS,
    }
}
