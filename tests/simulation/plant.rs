//! Faults that are planted to see whether the checks find them. Each strikes once in a run, at a moment of the seed's.

use std::cell::Cell;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame does not come to its client.
    FrameLost,
    /// A frame comes twice.
    FrameTwice,
    /// Two frames change places.
    FramesSwapped,
    /// A core does not hear a publication.
    CoreIsDeaf,
    /// A core hears a publication twice.
    CoreHearsTwice,
    /// A node does not hear what all others hear.
    NodeIsDeaf,
    /// A connection that is gone is not taken out.
    ConnectionForgotten,
    /// A publisher is told that what the queue has stored is not there.
    StoredAndRefused,
    /// A publisher is told that what was refused is stored.
    RefusedAndTold,
}

/// All faults.
pub const ALL: [Fault; 9] = [
    Fault::FrameLost,
    Fault::FrameTwice,
    Fault::FramesSwapped,
    Fault::CoreIsDeaf,
    Fault::CoreHearsTwice,
    Fault::NodeIsDeaf,
    Fault::ConnectionForgotten,
    Fault::StoredAndRefused,
    Fault::RefusedAndTold,
];

thread_local! {
    static PLANTED: Cell<Option<(Fault, u64)>> = const { Cell::new(None) };
}

/// Plants a fault in the run of this thread that comes next; none: there is none.
pub fn plant(fault: Option<Fault>, seed: u64) {
    PLANTED.set(fault.map(|fault| (fault, seed % 24)));
}

/// Whether a fault strikes here and now.
pub fn strikes(fault: Fault) -> bool {
    match PLANTED.get() {
        Some((planted, left)) if planted == fault => {
            PLANTED.set((left > 0).then(|| (fault, left - 1)));
            left == 0
        }
        _ => false,
    }
}

/// Whether the planted fault has struck.
pub fn has_struck() -> bool {
    PLANTED.get().is_none()
}
