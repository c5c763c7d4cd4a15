//! Memory that is needed soon is asked for before.
//!
//! Why: what the kernel touches to send one frame pushes what belongs to the next session out of the near caches. Asked for some
//! visits ahead it comes while the kernel works; a load would not do, because a system call waits for every load before it.
#![expect(unsafe_code, reason = "the instruction has no safe name")]

/// Bytes that come together.
const CACHE_LINE_BYTES: usize = 64;

/// Asks for a value, and goes on. A hint: nothing depends on it, and where the processor has no such instruction it does nothing.
pub fn prefetch<T>(value: &T) {
    prefetch_neighbour(value, 0);
}

/// Asks for what stands so many values behind this one (or before it), where values of one size stand in a row. Neither is read.
pub fn prefetch_neighbour<T>(value: &T, distance: isize) {
    let begin = std::ptr::from_ref(value).wrapping_offset(distance).cast::<i8>();
    for at in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        line(begin.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
fn line(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction reads nothing that a program can see, and passes over an address that it cannot reach.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
}

#[cfg(not(target_arch = "x86_64"))]
fn line(_: *const i8) {}
