//! The thread that turns reports into Sentry's events and hands them to its client.

use std::{
    ffi::c_void,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use sentry::{
    Client, ClientOptions, Transport, TransportFactory, TransportOptions,
    protocol::{Event, Exception, Frame, Level, Mechanism, Stacktrace},
    transports::UreqHttpTransportOptions,
};

use crate::{
    clock,
    limits::{REPORT_TIMEOUT, REPORTS_WAITING_MAX},
    metrics::{Count, Counters},
};

use super::{
    Known, Settings,
    queue::{Queue, Task},
    report::Report,
};

/// Sources of what a stack begins with that is not where the error was: telling of it. By files, because an inlined
/// function has no path in its name.
const TELLING: &[&str] = &[
    "/backtrace-",
    "/tracing-",
    "/src/errors/",
    "library/std/src/panicking.rs",
    "library/std/src/sys/backtrace.rs",
    "library/std/src/thread/local.rs",
    "library/core/src/panicking.rs",
    "library/core/src/option.rs",
    "library/core/src/result.rs",
    "library/core/src/ops/function.rs",
    "library/alloc/src/boxed.rs",
];

/// Sends what comes into the queue, for ever.
pub(super) fn run(queue: &Queue, settings: Settings, known: Arc<Known>, counters: &Counters) {
    let node = settings.node;
    let client = Client::from_config(options(settings, known));
    loop {
        match queue.next() {
            Task::Send(report, turned_away) => {
                client.capture_event(event(&report, node, turned_away), None);
                counters.add_shared(Count::ReportsSent, 1);
            }
            Task::Flush(until) => {
                queue.flushed(client.flush(Some(until.saturating_duration_since(clock::now()))));
            }
            // What maps the program's names is large, and the next error may be days away.
            Task::Rest => backtrace::clear_symbol_cache(),
        }
    }
}

fn options(settings: Settings, known: Arc<Known>) -> ClientOptions {
    let Settings { dsn, node, environment, .. } = settings;
    let mut options = ClientOptions::new()
        .release(format!("ws-cluster@{}", env!("CARGO_PKG_VERSION")))
        .environment(environment)
        .server_name(format!("node-{node}"))
        .default_integrations(false)
        .send_default_pii(false)
        .max_breadcrumbs(0)
        // Its own 30 would be less than what may come here.
        .transport_channel_capacity(REPORTS_WAITING_MAX)
        .before_send(move |event| Some(known.read().unwrap_or_else(PoisonError::into_inner).event(event)))
        .add_integration(sentry::integrations::contexts::ContextIntegration::new())
        .transport(Patient);
    options.dsn = Some(dsn);
    options
}

/// Sentry's HTTP transport with a bound on each request: its own would wait for ever for a peer that has fallen silent.
struct Patient;

impl TransportFactory for Patient {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(REPORT_TIMEOUT)).build().new_agent();
        Arc::new(UreqHttpTransportOptions::from(options).with_agent(agent).build())
    }
}

fn event(report: &Report, node: u16, turned_away: u64) -> Event<'static> {
    let mut event = Event {
        level: if report.is_panic { Level::Fatal } else { Level::Error },
        logger: Some(report.target.clone()),
        timestamp: SystemTime::UNIX_EPOCH + report.unix,
        ..Event::default()
    };
    event.exception = vec![exception(report)].into();
    let tags = [("node", Some(node.to_string())), ("thread", Some(report.thread.clone()))];
    let core = ("core", report.core().map(str::to_owned));
    event.tags.extend(tags.into_iter().chain([core]).filter_map(|(name, value)| Some((name.to_owned(), value?))));
    event.extra.extend(report.fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())));
    if turned_away > 0 {
        event.extra.insert("reports_turned_away_before".to_owned(), turned_away.into());
    }
    event
}

fn exception(report: &Report) -> Exception {
    let kind = if report.is_panic { "panic" } else { "error" };
    Exception {
        ty: if report.is_panic { "panic".to_owned() } else { report.target.clone() },
        value: Some(report.message.clone()),
        stacktrace: Stacktrace::from_frames_reversed(frames(&report.stack)),
        mechanism: Some(Mechanism { ty: kind.to_owned(), handled: Some(!report.is_panic), ..Mechanism::default() }),
        ..Exception::default()
    }
}

/// The frames of a stack, innermost first, from where the error was.
fn frames(stack: &[usize]) -> Vec<Frame> {
    let mut frames: Vec<(Frame, String)> = stack.iter().flat_map(|address| frames_at(*address)).collect();
    // Without a file: what the compiler made.
    let tells = |(_, path): &(Frame, String)| path.is_empty() || TELLING.iter().any(|part| path.contains(part));
    let first = frames.iter().take_while(|frame| tells(frame)).count();
    if first < frames.len() {
        frames.drain(..first);
    }
    frames.into_iter().map(|(frame, _)| frame).collect()
}

/// The frames at one address, several where functions were inlined, with their files' whole paths.
fn frames_at(address: usize) -> Vec<(Frame, String)> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        let path = symbol.filename().map(|path| path.display().to_string()).unwrap_or_default();
        let file = without_the_machine(&path);
        let frame = Frame {
            function: symbol.name().map(|name| format!("{name:#}")),
            in_app: Some(file.starts_with("src/")),
            filename: (!file.is_empty()).then(|| file.to_owned()),
            lineno: symbol.lineno().map(u64::from),
            instruction_addr: Some(sentry::protocol::Addr::from(address as u64)),
            ..Frame::default()
        };
        frames.push((frame, path));
    });
    frames
}

/// A source file's path without that of the machine it was built on: `src/…` is this program's, `library/…` the
/// language's, others begin with their crate.
fn without_the_machine(path: &str) -> &str {
    if let Some(at) = path.find("/library/") {
        return &path[at + 1..];
    }
    let of_crate = path.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    match (of_crate, path.rfind("/src/")) {
        (Some((_, file)), _) => file,
        (None, Some(at)) => &path[at + 1..],
        (None, None) => path.rsplit('/').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_not_tell_of_the_machine() {
        for (path, shown) in [
            ("/home/ann/ws-cluster/src/shard/core.rs", "src/shard/core.rs"),
            ("/rustc/59807616/library/core/src/panicking.rs", "library/core/src/panicking.rs"),
            ("/home/ann/.cargo/registry/src/index-19/monoio-0.2.4/src/driver/mod.rs", "monoio-0.2.4/src/driver/mod.rs"),
            ("/build/glibc/clone3.S", "clone3.S"),
            ("", ""),
        ] {
            assert_eq!(without_the_machine(path), shown);
        }
    }

    #[test]
    fn a_stack_has_names_files_and_lines() {
        let here = a_stack_has_names_files_and_lines as *const () as usize;
        let (frame, _) = frames_at(here + 8).pop().expect("a frame");
        assert!(frame.function.is_some_and(|name| name.ends_with("a_stack_has_names_files_and_lines")));
        assert_eq!((frame.filename.as_deref(), frame.in_app), (Some("src/errors/sender.rs"), Some(true)));
        assert!(frame.lineno.is_some());
    }
}
