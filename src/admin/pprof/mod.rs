//! Profiles of the running node under `/debug/pprof/`, in the forms that Go's tools know.
//!
//! The way of a CPU profile: [`sampler`] interrupts threads and notes their stacks, [`collect`] counts equal ones,
//! [`symbols`] names them, [`proto`] or [`flame`] writes them. All but the first happens in a [`job`] of its own.
//!
//! Invariants: one job at a time in the process, of [`PROFILE_SECONDS_MAX`] at most, gone with its client; no core
//! ever waits for one; addresses, names and counts are shown, never what memory holds.

mod job;

mod collect;
mod heap;
mod maps;
mod sampler;
mod symbols;
mod symtab;
mod threads;

mod flame;
mod proto;
mod symbolz;

use std::{fmt::Write, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_DISPOSITION, LOCATION, X_CONTENT_TYPE_OPTIONS},
};

pub use heap::{Memory, give_back as give_back_freed_memory, memory};

use crate::{
    clock,
    http::{Fault, Request, Response},
    limits::{PROFILE_HZ, PROFILE_SECONDS_DEFAULT, PROFILE_SECONDS_MAX},
    metrics::{Count, Counters, requests::Url},
};
use collect::Gathered;
use job::Cancel;
use proto::{Builder, Counted, Kind};
use symbols::Symbols;

const TEXT: &str = "text/plain; charset=utf-8";
const BAD_SECONDS: Fault = Fault::bad_request("seconds must be a whole number from 1 to 60");
const TOO_MANY_ADDRESSES: Fault = Fault::bad_request("more than 1024 addresses: ask for fewer at a time");
const NO_HEAP_PROFILE: Fault =
    Fault::new(StatusCode::NOT_IMPLEMENTED, "not_supported", "this program's allocator keeps no profile of the heap");

const CPU: Kind = Kind {
    values: [("samples", "count"), ("cpu", "nanoseconds")],
    period_of: ("cpu", "nanoseconds"),
    period: NANOSECONDS_A_SAMPLE,
    default: "cpu",
};
const NANOSECONDS_A_SAMPLE: i64 = 1_000_000_000 / PROFILE_HZ as i64;
const HEAP: Kind = Kind {
    values: [("inuse_objects", "count"), ("inuse_space", "bytes")],
    period_of: ("space", "bytes"),
    period: 1 << 19,
    default: "inuse_space",
};
/// The allocator's own functions: without them a profile begins with who called it.
const ALLOCATOR: &str =
    r"_rjem_.*|.*\btikv_jemallocator::.*|.*\b__rust_(alloc|alloc_zeroed|realloc)|.*\balloc::(alloc|raw_vec)::.*";

/// The path, its route and what it gives, as the index shows them.
const PAGES: &[(&str, Url, &str)] = &[
    (
        "profile",
        Url::PprofProfile,
        "CPU profile for <code>go tool pprof</code>; takes <code>?seconds=</code>, 30 without",
    ),
    ("flamegraph", Url::PprofFlamegraph, "the same as a picture"),
    (
        "heap",
        Url::PprofHeap,
        "what is on the heap, sampled; switched on by the first request or <code>heap_profile</code>",
    ),
    ("allocs", Url::PprofHeap, "the same as heap"),
    ("threads", Url::PprofThreads, "every thread with its CPU time and its stack now"),
    ("cmdline", Url::PprofCmdline, "the command line, secrets starred"),
    ("symbol", Url::PprofSymbol, "names for addresses"),
];
const ROOT: &str = "/debug/pprof/";

/// The route of a path, if it is one of these.
pub fn route(path: &str) -> Option<Url> {
    if path == ROOT.trim_end_matches('/') {
        return Some(Url::PprofIndex);
    }
    let name = path.strip_prefix(ROOT)?;
    if name.is_empty() {
        return Some(Url::PprofIndex);
    }
    PAGES.iter().find(|(page, ..)| *page == name).map(|(_, url, _)| *url)
}

/// Whether a route is one of these.
pub fn serves(url: Url) -> bool {
    url == Url::PprofIndex || PAGES.iter().any(|(_, page, _)| *page == url)
}

/// Whether a route takes long, so that its request should end with its client.
pub fn takes_long(url: Url) -> bool {
    matches!(url, Url::PprofProfile | Url::PprofFlamegraph | Url::PprofHeap | Url::PprofThreads | Url::PprofSymbol)
}

/// Begins to sample the heap. Errors: the allocator cannot.
pub fn sample_heap() -> io::Result<()> {
    heap::switch_on().map(drop)
}

/// Answers requests for profiles.
pub struct Pprof {
    cmdline: Bytes,
    counters: Arc<Counters>,
}

impl Pprof {
    /// `cmdline` is shown to operators: the program and its arguments, secrets starred.
    pub fn new(cmdline: &[String], counters: Arc<Counters>) -> Self {
        Self { cmdline: cmdline.join("\0").into(), counters }
    }

    /// Answers a request to one of these routes. Dropping the future ends the profile.
    pub async fn answer(&self, url: Url, request: Request) -> Response {
        let answered = match url {
            Url::PprofProfile => self.profile(&request).await,
            Url::PprofFlamegraph => self.flamegraph(&request).await,
            Url::PprofHeap => heap_profile(&request).await,
            Url::PprofThreads => thread_list().await,
            Url::PprofCmdline => Ok(Response::new(StatusCode::OK, TEXT, self.cmdline.clone())),
            Url::PprofSymbol => symbol(&request).await,
            _ => Ok(index(request.head.path())),
        };
        let nosniff = HeaderValue::from_static("nosniff");
        answered.unwrap_or_else(Response::from).with(X_CONTENT_TYPE_OPTIONS, nosniff)
    }

    async fn profile(&self, request: &Request) -> Result<Response, Fault> {
        let length = seconds(request.head.query())?.unwrap_or(PROFILE_SECONDS_DEFAULT);
        let (profile, dropped) = job::run(move |cancel| written(&gather(cancel, length)?, cpu_profile)).await?;
        self.note(dropped);
        Ok(attachment("profile", profile))
    }

    async fn flamegraph(&self, request: &Request) -> Result<Response, Fault> {
        let length = seconds(request.head.query())?.unwrap_or(PROFILE_SECONDS_DEFAULT);
        let (svg, dropped) = job::run(move |cancel| written(&gather(cancel, length)?, flame::draw)).await?;
        self.note(dropped);
        Ok(Response::new(StatusCode::OK, "image/svg+xml", svg))
    }

    fn note(&self, dropped: u64) {
        self.counters.inc(Count::ProfilesTaken);
        self.counters.add(Count::ProfileSamplesDropped, dropped);
    }
}

/// The one `seconds` of a query. Errors: it is given twice, is no whole number, or out of bounds.
fn seconds(query: &str) -> Result<Option<u64>, Fault> {
    let mut values = query.split('&').filter_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        ("seconds", value) => Some(value),
        _ => None,
    });
    let Some(value) = values.next() else { return Ok(None) };
    let all_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse().ok().filter(|seconds| (1..=PROFILE_SECONDS_MAX).contains(seconds));
    seconds.filter(|_| all_digits && values.next().is_none()).map(Some).ok_or(BAD_SECONDS)
}

fn gather(cancel: &Cancel, seconds: u64) -> Result<Gathered, Fault> {
    Ok(collect::cpu(cancel, Duration::from_secs(seconds)).map_err(|error| failed(&error))??)
}

/// What is written of the samples, and how many were lost.
fn written(
    gathered: &Gathered,
    write: impl FnOnce(&Gathered, &mut Symbols) -> io::Result<Vec<u8>>,
) -> Result<(Vec<u8>, u64), Fault> {
    sampler::yield_to_everybody();
    let bytes = write(gathered, &mut Symbols::load()).map_err(|error| failed(&error))?;
    Ok((bytes, gathered.dropped))
}

fn cpu_profile(gathered: &Gathered, symbols: &mut Symbols) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(CPU, gathered.began, gathered.lasted, symbols);
    for ((tid, stack), count) in &gathered.stacks {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let values = [count, count.saturating_mul(NANOSECONDS_A_SAMPLE)];
        builder.add(&Counted { stack, values, thread: Some((*tid, &gathered.name(*tid))) });
    }
    if gathered.dropped > 0 {
        builder.comment(&format!("{} samples were dropped: a buffer was full", gathered.dropped));
    }
    if gathered.unwatched > 0 {
        builder.comment(&format!("{} threads are missing: there was no timer for them", gathered.unwatched));
    }
    builder.finish()
}

async fn heap_profile(request: &Request) -> Result<Response, Fault> {
    let wait = seconds(request.head.query())?;
    let profile = job::run(move |cancel| {
        let was_on = heap::switch_on().map_err(|_| NO_HEAP_PROFILE)?;
        if let Some(seconds) = wait {
            cancel.wait(Duration::from_secs(seconds))?;
        }
        let allocated = heap::dump().map_err(|error| failed(&error))?;
        sampler::yield_to_everybody();
        write_heap(&allocated, was_on).map_err(|error| failed(&error))
    });
    Ok(attachment("heap", profile.await?))
}

fn write_heap(allocated: &[heap::Allocated], was_on: bool) -> io::Result<Vec<u8>> {
    let mut symbols = Symbols::load();
    let mut builder = Builder::new(HEAP, clock::unix_now(), Duration::ZERO, &mut symbols);
    builder.leave_out(ALLOCATOR);
    for site in allocated {
        builder.add(&Counted { stack: &site.stack, values: [site.objects, site.bytes], thread: None });
    }
    if !was_on {
        builder
            .comment("this request switched sampling on: only what is allocated from now on is known; ask again later");
    }
    builder.finish()
}

async fn thread_list() -> Result<Response, Fault> {
    let text = job::run(|cancel| {
        let threads = threads::list();
        let awake: Vec<_> = threads.iter().filter(|thread| thread.takes_signals()).map(|thread| thread.tid).collect();
        let stacks = collect::once(&awake, cancel).map_err(|error| failed(&error))??;
        sampler::yield_to_everybody();
        let mut symbols = Symbols::load();
        let mut text = format!("{} threads\n", threads.len());
        for thread in &threads {
            describe(&mut text, thread, stacks.get(&thread.tid).map(Vec::as_slice), &mut symbols);
        }
        Ok(text)
    });
    Ok(Response::new(StatusCode::OK, TEXT, text.await?))
}

fn describe(text: &mut String, thread: &threads::Thread, stack: Option<&[usize]>, symbols: &mut Symbols) {
    let threads::Thread { tid, name, user, system, .. } = thread;
    let (user, system) = (user.as_secs_f64(), system.as_secs_f64());
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{name} (tid {tid}), {}, {user:.2} s user, {system:.2} s system\n", thread.state_text());
    let Some(stack) = stack else { return text.push_str("    its stack cannot be had\n") };
    for address in stack {
        for function in symbols.at(*address) {
            let _ = writeln!(text, "    {address:#x} {}", function.name);
        }
    }
}

async fn symbol(request: &Request) -> Result<Response, Fault> {
    let body = String::from_utf8_lossy(&request.body);
    let asked = if body.is_empty() { request.head.query() } else { &body };
    let addresses = symbolz::addresses(asked).ok_or(TOO_MANY_ADDRESSES)?;
    if addresses.is_empty() {
        return Ok(Response::new(StatusCode::OK, TEXT, "num_symbols: 1\n"));
    }
    let text = job::run(move |_| {
        sampler::yield_to_everybody();
        Ok(symbolz::answer(&addresses, &mut Symbols::load()))
    });
    Ok(Response::new(StatusCode::OK, TEXT, text.await?))
}

fn index(path: &str) -> Response {
    if path != ROOT {
        // The links are relative.
        return Response::new(StatusCode::MOVED_PERMANENTLY, TEXT, "").with(LOCATION, HeaderValue::from_static(ROOT));
    }
    let row = |(name, _, what): &(&str, Url, &str)| format!("<tr><td><a href=\"{name}\">{name}</a><td>{what}\n");
    let rows: String = PAGES.iter().map(row).collect();
    let page = format!(
        "<!doctype html><title>/debug/pprof/</title><h1>/debug/pprof/</h1>\n<table>\n{rows}</table>\n\
         <p>One at a time, {PROFILE_SECONDS_MAX} seconds at most; a request that is given up ends its profile.\n"
    );
    Response::new(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn attachment(name: &'static str, body: Vec<u8>) -> Response {
    let disposition = if name == "heap" { "attachment; filename=\"heap\"" } else { "attachment; filename=\"profile\"" };
    let response = Response::new(StatusCode::OK, "application/octet-stream", body);
    response.with(CONTENT_DISPOSITION, HeaderValue::from_static(disposition))
}

fn failed(error: &io::Error) -> Fault {
    tracing::error!(%error, "failed to take a profile");
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the profile could not be taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_bounded() {
        for (query, expected) in [("", None), ("debug=1", None), ("seconds=1", Some(1)), ("gc=1&seconds=60", Some(60))]
        {
            assert_eq!(seconds(query), Ok(expected), "{query}");
        }
        for query in ["seconds", "seconds=", "seconds=0", "seconds=61", "seconds=-1", "seconds=+5", "seconds=1.5"]
            .into_iter()
            .chain(["seconds=x", "seconds=1&seconds=2", "seconds=99999999999999999999"])
        {
            assert_eq!(seconds(query), Err(BAD_SECONDS), "{query}");
        }
    }

    #[test]
    fn every_page_has_a_route() {
        for (name, url, _) in PAGES {
            assert_eq!(route(&format!("/debug/pprof/{name}")), Some(*url));
        }
        assert_eq!(route("/debug/pprof"), Some(Url::PprofIndex));
        assert_eq!(route("/debug/pprof/"), Some(Url::PprofIndex));
        assert_eq!(route("/debug/pprof/profile/"), None);
    }
}
