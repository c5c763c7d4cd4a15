//! What waits to be written or sent when the process ends: log lines and reports of errors.
//!
//! Invariant: every way out of a node goes through here, and none of them takes longer than it is given.

use std::{
    io::{self, Write},
    process,
    time::Duration,
};

use crate::{clock, errors, logs};

/// Of the time at the end so much is kept for the log, which comes last, because it also tells of what was not sent.
const FOR_THE_LOG: u32 = 8;

/// Speaks the last words when it is dropped: also when the node's thread panics.
pub(super) struct AtTheEnd(pub Duration);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        speak(self.0);
    }
}

/// Ends the process with `status` after at most `within`.
pub(super) fn exit(status: i32, within: Duration) -> ! {
    speak(within);
    process::exit(status);
}

fn speak(within: Duration) {
    let (begin, for_the_log) = (clock::now(), within / FOR_THE_LOG);
    // What is there already gets out at once, so that little is left for the end.
    let log = |end| logs::installed().map_or(0, |logs| logs.flush(end));
    log(begin + for_the_log);
    if errors::installed().is_some_and(|reports| !reports.flush(begin + within - for_the_log)) {
        tracing::warn!("not every report of an error could be sent before the end");
    }
    let bytes = log(begin + within);
    if bytes > 0 {
        let _ = writeln!(io::stderr(), "ws-cluster: {bytes} bytes of log lines could not be written before the end");
    }
}
