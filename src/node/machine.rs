//! What the machine gives this process: open files, cores.
#![expect(unsafe_code, reason = "the file limit is read and raised by system calls that std does not have")]

use std::{num::NonZero, thread};

/// Cores that the process may run on.
pub(super) fn cores() -> u8 {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    u8::try_from(cores).unwrap_or(u8::MAX)
}

/// Raises the file limit to what the process may have; how many files that is.
pub(super) fn raise_file_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes a `rlimit` into the one that the pointer borrows for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: the kernel reads a `rlimit` from the one that the pointer borrows for the call.
    let is_raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0;
    let files = if is_raised { raised.rlim_cur } else { limit.rlim_cur };
    usize::try_from(files).unwrap_or(usize::MAX)
}
