//! The thread that turns reports into Sentry's events and hands them to its client.

use std::{
    ffi::c_void,
    sync::Arc,
    time::{Duration, SystemTime},
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
    Settings,
    queue::{Queue, Task},
    report::Report,
};

/// What a stack begins with that is not where the error was.
const OWN_FRAMES: &[&str] = &[
    "backtrace::",
    "ws_cluster::errors::",
    "<ws_cluster::errors::",
    "tracing",
    "<tracing",
    "std::panicking::",
    "core::panicking::",
    "std::sys::backtrace::",
    "rust_begin_unwind",
    "__rustc",
    "core::ops::function::",
    "core::option::",
    "core::result::",
    "<alloc::boxed::",
    "std::thread::local::",
    "std::thread::current",
];

/// Sends what comes into the queue, for ever.
pub(super) fn run(queue: &Queue, settings: Settings, counters: &Counters) {
    let node = settings.node;
    let client = Client::from_config(options(settings));
    loop {
        match queue.next() {
            Task::Send(report, turned_away) => {
                client.capture_event(event(&report, node, turned_away), None);
                counters.add_shared(Count::ReportsSent, 1);
            }
            Task::Flush(until) => {
                client.flush(Some(until.saturating_duration_since(clock::now())));
                queue.flushed();
            }
        }
    }
}

fn options(settings: Settings) -> ClientOptions {
    let Settings { dsn, node, environment, scrub, .. } = settings;
    let mut options = ClientOptions::new()
        .release(format!("ws-cluster@{}", env!("CARGO_PKG_VERSION")))
        .environment(environment)
        .server_name(format!("node-{node}"))
        .default_integrations(false)
        .send_default_pii(false)
        .max_breadcrumbs(0)
        // Its own 30 would be less than what may come here.
        .transport_channel_capacity(REPORTS_WAITING_MAX)
        .before_send(move |event| Some(scrub.event(event)))
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
    let mut frames: Vec<Frame> = stack.iter().flat_map(|address| frames_at(*address)).collect();
    // What maps the program's names is large, and the next error may be days away.
    backtrace::clear_symbol_cache();
    let is_own = |frame: &Frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        OWN_FRAMES.iter().any(|start| name.starts_with(start))
    };
    let first = frames.iter().take_while(|frame| is_own(frame)).count();
    if first < frames.len() {
        frames.drain(..first);
    }
    frames
}

/// The frames at one address: several where functions were inlined.
fn frames_at(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        let function = symbol.name().map(|name| format!("{name:#}"));
        let is_ours = function.as_deref().is_some_and(|name| name.contains("ws_cluster::"));
        frames.push(Frame {
            filename: symbol.filename().map(|path| below_src(&path.display().to_string())),
            lineno: symbol.lineno().map(u64::from),
            in_app: Some(is_ours),
            instruction_addr: Some(sentry::protocol::Addr::from(address as u64)),
            function,
            ..Frame::default()
        });
    });
    frames
}

/// A source file's path without the machine it was built on.
fn below_src(path: &str) -> String {
    path.rfind("/src/").map_or(path, |at| &path[at + 1..]).to_owned()
}

const _: () = assert!(REPORT_TIMEOUT.as_millis() > Duration::from_secs(1).as_millis());
