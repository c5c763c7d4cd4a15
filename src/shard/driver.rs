//! Which system interface drives a core: io_uring where the kernel allows it, epoll otherwise.

use std::{fmt, future::Future, io, str::FromStr, sync::Once};

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Submission entries of a core's ring; completions get four times as many.
const RING_ENTRIES: u32 = 4096;

/// What is asked for (`--driver`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring if the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// What drives a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

impl FromStr for Driver {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err("the driver is one of auto, uring, epoll"),
        }
    }
}

impl fmt::Display for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Runs a future on this thread to its end.
///
/// Errors: the driver that was asked for cannot be had. `Auto` falls back to epoll whatever io_uring's refusal was.
pub fn run_on_driver<F, Fut>(driver: Driver, main: F) -> io::Result<Fut::Output>
where
    F: FnOnce(Driven) -> Fut,
    Fut: Future + 'static,
    Fut::Output: 'static,
{
    if driver != Driver::Epoll {
        let mut ring = io_uring::IoUring::builder();
        ring.setup_cqsize(RING_ENTRIES * 4);
        let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(RING_ENTRIES);
        match builder.enable_timer().build() {
            Ok(mut runtime) => return Ok(runtime.block_on(main(Driven::Uring))),
            Err(error) if driver == Driver::Uring => return Err(error),
            Err(error) => warn_once(&error),
        }
    }
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok(runtime.block_on(main(Driven::Epoll)))
}

/// All cores meet the same kernel; one line tells of it.
fn warn_once(error: &io::Error) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| tracing::warn!(%error, "io_uring is not to be had; epoll drives the cores"));
}
