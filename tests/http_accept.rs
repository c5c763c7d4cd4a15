//! A full file table pauses accepting and harms nobody who is connected.
//! Method: a process of its own lowers its file limit, fills its table, and connects once more.

mod http_support;

use std::{fs::File, time::Duration};

use http_support::{Client, eventually, pause, serve};
use ws_cluster::{
    http::{Handler, Head, Preview, Request, Response},
    limits::HttpLimits,
    metrics::{Count, requests::Url},
};

struct Fine;

impl Handler for Fine {
    fn preview(&self, _: &Head) -> Preview {
        Preview::accept(Url::Other)
    }

    async fn handle(&self, _: Request) -> Response {
        Response::success("\"fine\"")
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_full_file_table_pauses_accepting_and_harms_nobody() {
    lower_file_limit(128);
    let served = serve(HttpLimits::default(), || Fine);
    let mut connected = Client::send(served.address, REQUEST);
    assert_eq!(connected.answer().status, 200);
    // One descriptor is left for this side of the next connection, and none for the other side.
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.pop();
    let mut late = Client::send(served.address, REQUEST);
    eventually("accepting pauses", || served.counters.get(Count::AcceptsPaused) > 0);
    let before = served.counters.get(Count::AcceptsPaused);
    pause(Duration::from_millis(500));
    let pauses = served.counters.get(Count::AcceptsPaused) - before;
    assert!(pauses <= 6, "{pauses} pauses of 100 ms in 500 ms");
    connected.write(REQUEST).expect("still open");
    assert_eq!(connected.answer().status, 200, "who is connected is served");
    drop(files);
    assert_eq!(late.answer().status, 200, "who waited is served");
}

#[expect(unsafe_code, reason = "the limit of this process is lowered by a system call")]
fn lower_file_limit(files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: the pointer is to a live value of the type that the call reads, and it keeps nothing of it.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0, "the limit can be lowered");
}
