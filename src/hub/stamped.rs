//! A frame that many connections share, and how old what it carries is.
//!
//! Invariant: the bytes of a frame are never changed.

use std::{fmt, ops::Deref, rc::Rc};

/// When a push was received: the low 32 bits of its Unix microseconds; 0: not known. Good for half an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Born(u32);

/// Ages that a [`Born`] can tell.
const AGE_MAX_US: u64 = 1 << 31;

/// An encoded frame (or an encoded HTTP response head), shared by all the connections of a core that get it.
///
/// One copy per core: a reference count shared between cores would bounce its cache line between them. When it was
/// born stands behind its bytes, so that one that waits costs a connection no more for it.
#[derive(Clone)]
pub struct Frame(Rc<[u8]>);

impl Born {
    /// Of a push that was received at `received_us` and is on its way at `now_us`, both Unix microseconds.
    pub fn new(received_us: u64, now_us: u64) -> Self {
        let is_known = received_us > 0 && now_us.saturating_sub(received_us) < AGE_MAX_US;
        Self(if is_known { (received_us as u32).max(1) } else { 0 })
    }

    /// How old it is at `now_us`, if that is known. Clocks of two nodes may differ: the future is of no age.
    pub fn age_us(self, now_us: u64) -> Option<u64> {
        let age_us = u64::from((now_us as u32).wrapping_sub(self.0));
        (self.0 != 0).then_some(if age_us < AGE_MAX_US { age_us } else { 0 })
    }
}

impl Frame {
    /// A frame of `bytes`.
    pub fn new(mut bytes: Vec<u8>, born: Born) -> Self {
        bytes.extend(born.0.to_ne_bytes());
        Self(bytes.into())
    }

    /// When what it carries was received.
    pub fn born(&self) -> Born {
        Born(self.0.last_chunk().map_or(0, |born| u32::from_ne_bytes(*born)))
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[..self.0.len() - size_of::<Born>()]
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes, Born::default())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_bytes_and_knows_its_age() {
        let received_us = 0x0012_3456_ffff_fff0;
        let frame = Frame::new(vec![1, 2, 3], Born::new(received_us, received_us + 9));
        assert_eq!(*frame, [1, 2, 3]);
        assert_eq!(frame.born().age_us(received_us + 100), Some(100));
        assert_eq!(frame.born().age_us(received_us - 100), Some(0));
        let unknown = [Born::new(0, 5), Born::new(5, 5 + AGE_MAX_US), Frame::from(vec![]).born()];
        assert!(unknown.iter().all(|born| born.age_us(received_us).is_none()));
    }
}
