//! The process: reads its configuration, then runs a node or one of the tools.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use ws_cluster::{
    clock,
    config::{
        Config, Environment, Loaded,
        cli::{self, Command},
        doc, show,
    },
    http::api::openapi,
    node,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads at its start. Profiling is built in and off until asked for (`heap_profile`); a thread of its own
/// gives freed pages back after ten seconds, because a core that sleeps frees nothing that would remind it. Arenas stay at four
/// a CPU: more than there are threads that allocate much, so each has its own and never waits for another's.
#[expect(unsafe_code, reason = "jemalloc finds its settings by this name; the type is that of the C declaration")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: Option<&'static std::ffi::c_char> = {
    let settings = c"prof:true,prof_active:false,lg_prof_sample:19,background_thread:true,max_background_threads:1";
    // SAFETY: the first byte of a C string, from which jemalloc reads on to its end, in memory that is never freed.
    Some(unsafe { &*settings.as_ptr() })
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
    match invocation.command {
        Command::ConfigDoc => return print(&doc::markdown()),
        Command::OpenApi => return print(&openapi::json()),
        _ => {}
    }
    match Config::load(&invocation.flags, &environment) {
        Ok(loaded) => run(&invocation.command, loaded),
        Err(error) => refuse(&error),
    }
}

fn run(command: &Command, loaded: Loaded) -> ExitCode {
    let signed = |result: Result<String, String>| match result {
        Ok(text) => print(&format!("{text}\n")),
        Err(reason) => refuse(&reason),
    };
    match command {
        Command::Serve => node::run(loaded),
        Command::SignConnect(what) => signed(what.url(&loaded.config, clock::unix_now())),
        Command::SignPush(what) => signed(what.command(&loaded.config, clock::unix_now())),
        Command::Check => {
            for warning in &loaded.warnings {
                let _ = writeln!(io::stderr(), "ws-cluster: warning: {warning}");
            }
            print(&show::effective(&loaded.config, &loaded.origins))
        }
        Command::ConfigDoc | Command::OpenApi => ExitCode::SUCCESS,
    }
}

fn refuse(reason: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "ws-cluster: {reason}");
    ExitCode::from(USAGE)
}

/// Prints; a reader that went away is no reason to panic.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
