//! What lives on the heap and where it was allocated, as jemalloc samples it: about one allocation in 512 KiB.
//!
//! Sampling costs nothing while it is off and is off unless it is asked for; what was allocated before it was
//! switched on is never known. The dump goes through a file in memory, so that no folder has to be writable.
//! Invariant: in a program with another allocator (a test) everything here says so and does nothing.
#![expect(unsafe_code, reason = "the allocator's switches and a file in memory are C interfaces")]

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd},
};

use tikv_jemalloc_ctl::{Error, arenas, epoch, raw, stats};

/// Allocations from one place that have not been freed.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocated {
    /// Addresses of instructions, the innermost call first.
    pub stack: Vec<usize>,
    /// How many, estimated from the sample.
    pub objects: i64,
    /// Their bytes, estimated from the sample.
    pub bytes: i64,
}

/// The allocator's account of the process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Asked for and not given back.
    pub allocated: u64,
    /// In pages that hold some of it.
    pub active: u64,
    /// In physical memory that the allocator holds.
    pub resident: u64,
}

/// Reads the account; none if the allocator keeps none.
pub fn memory() -> Option<Memory> {
    epoch::advance().ok()?;
    let bytes = |read: Result<usize, Error>| read.ok().map(|bytes| bytes as u64);
    Some(Memory {
        allocated: bytes(stats::allocated::read())?,
        active: bytes(stats::active::read())?,
        resident: bytes(stats::resident::read())?,
    })
}

/// Has the allocator give back to the kernel what was freed and waits to be used again (some ten seconds by default): a decay time of
/// nothing does that at once, and then the time is what it was. An arena that is not in use refuses both.
pub fn give_back() {
    for arena in 0..arenas::narenas::read().unwrap_or(0) {
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        // SAFETY: `arena.<i>.dirty_decay_ms` is documented to be read and written as a `ssize_t`.
        let before = unsafe { raw::update::<isize>(name.as_bytes(), 0) };
        if let Ok(before) = before {
            // SAFETY: as above.
            let _ = unsafe { raw::write::<isize>(name.as_bytes(), before) };
        }
    }
}

/// Whether this program's allocator can sample.
pub fn is_available() -> bool {
    // SAFETY: `opt.prof` is documented to be read as a bool.
    unsafe { raw::read::<bool>(b"opt.prof\0") }.unwrap_or(false)
}

/// Begins to sample; whether it did so already. Errors: the allocator cannot.
pub fn switch_on() -> io::Result<bool> {
    if !is_available() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: `prof.active` is documented to be read and written as a bool.
    unsafe { raw::update(b"prof.active\0", true) }.map_err(|error| io::Error::other(error.to_string()))
}

/// What is known to be allocated now.
pub fn dump() -> io::Result<Vec<Allocated>> {
    let mut file = file_in_memory()?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: `prof.dump` is documented to be written as a pointer to a path, which outlives the call.
    unsafe { raw::write(b"prof.dump\0", path.as_ptr()) }.map_err(|error| io::Error::other(error.to_string()))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other("jemalloc's dump has an unknown form"))
}

fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name is a C string that outlives the call.
    let descriptor = unsafe { libc::memfd_create(c"heap".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// `heap_v2/<bytes a sample>`, totals, then for each stack `@ 0x… 0x…` and `  t*: objects: bytes [0: 0]` with what
/// single threads have of it, then the mapped files.
fn parse(text: &str) -> Option<Vec<Allocated>> {
    let (first, rest) = text.split_once('\n')?;
    let rate: f64 = first.strip_prefix("heap_v2/")?.trim().parse().ok()?;
    let rest = rest.split("\nMAPPED_LIBRARIES").next().unwrap_or_default();
    rest.split('@').skip(1).map(|block| allocated(block, rate)).collect()
}

fn allocated(block: &str, rate: f64) -> Option<Allocated> {
    let mut lines = block.lines();
    let addresses = lines.next()?.split_ascii_whitespace();
    let addresses = addresses.map(|word| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    // Return addresses: one less is within the call.
    let stack = addresses.map(|address| Some(address?.saturating_sub(1))).collect::<Option<_>>()?;
    let total = lines.find_map(|line| line.trim_start().strip_prefix("t*:"))?;
    let mut numbers = total.split([':', '[', ' ']).filter_map(|word| word.parse::<f64>().ok());
    let (objects, bytes) = (numbers.next()?, numbers.next()?);
    let scale = scale(objects, bytes, rate);
    #[expect(clippy::cast_possible_truncation, reason = "an estimate of what fits into memory")]
    let whole = |value: f64| (value * scale).round() as i64;
    Some(Allocated { stack, objects: whole(objects), bytes: whole(bytes) })
}

/// How many allocations one sampled one stands for: an allocation of `n` bytes is sampled with the probability
/// `1 - exp(-n / rate)`.
fn scale(objects: f64, bytes: f64, rate: f64) -> f64 {
    if objects <= 0.0 || bytes <= 0.0 {
        return 0.0;
    }
    1.0 / (1.0 - (-bytes / objects / rate).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "heap_v2/524288\n  t*: 3: 1049000 [0: 0]\n  t0: 3: 1049000 [0: 0]\n@ 0x11 0x21 0x31\n  \
                        t*: 2: 1048576 [0: 0]\n  t0: 2: 1048576 [0: 0]\n@ 0x41\n  t*: 0: 0 [1: 64]\n\
                        \nMAPPED_LIBRARIES:\n00400000-00500000 r-xp 00000000 fe:00 1 /bin/a@b\n";

    #[test]
    fn a_dump_is_read_and_scaled_up() {
        let stacks = parse(DUMP).expect("a dump");
        assert_eq!(stacks.len(), 2);
        assert_eq!(stacks[0].stack, [0x10, 0x20, 0x30]);
        // 512 KiB each at a rate of 512 KiB: 1 / (1 - 1/e).
        assert_eq!((stacks[0].objects, stacks[0].bytes), (3, 1_658_823));
        assert_eq!(stacks[1], Allocated { stack: vec![0x40], objects: 0, bytes: 0 });
        for bad in ["", "heap_v1/1\n", "heap_v2/1\n@ 0xzz\n t*: 1: 1 [0: 0]\n", "heap_v2/1\n@ 0x1\n"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_allocator_is_told_of() {
        assert!(!is_available());
        assert_eq!(switch_on().map_err(|error| error.kind()), Err(io::ErrorKind::Unsupported));
    }
}
