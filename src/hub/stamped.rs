//! A frame that many connections share, or several of them in a row, and how old what they carry is.
//!
//! Invariant: the bytes of a frame are never changed.

use std::{fmt, ops::Deref, rc::Rc};

/// When a push was received: the low 32 bits of its Unix microseconds; 0: not known. Good for half an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Born(u32);

/// Ages that a [`Born`] can tell.
const AGE_MAX_US: u64 = 1 << 31;

/// An encoded frame (or an encoded HTTP response head), shared by all the connections of a core that get it; or several in a
/// row, which so many connections get together that each is spared the visit for each of them.
///
/// One copy per core: a reference count shared between cores would bounce its cache line between them. When it was
/// born stands behind its bytes, so that one that waits costs a connection no more for it: of several, each one's end and
/// birth (`u32` both); then, of any, the birth of the last and how many there are.
#[derive(Clone)]
pub struct Frame(Rc<[u8]>);

/// A frame as it waits, with what it takes of a queue: those who hand thousands of references to it out look it up once.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The frame.
    pub frame: Frame,
    /// Its bytes. They fit: what waits for one connection is bounded far below.
    pub bytes: u32,
    /// How many frames it is.
    pub frames: u32,
}

/// Bytes behind those of a frame.
const TRAILER_BYTES: usize = 2 * size_of::<u32>();
/// Bytes behind those of several, for each of them.
const PART_BYTES: usize = 2 * size_of::<u32>();

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
        close(&mut bytes, born, 1);
        Self(bytes.into())
    }

    /// Several frames in a row: their bytes, and where each ends and when it was born.
    pub fn several(mut bytes: Vec<u8>, parts: &[(u32, Born)]) -> Self {
        debug_assert!(
            parts.last().is_some_and(|(end, _)| *end as usize == bytes.len()),
            "the last ends with the bytes"
        );
        let born = parts.last().map_or(Born::default(), |(_, born)| *born);
        if parts.len() > 1 {
            parts.iter().for_each(|(end, born)| {
                bytes.extend(end.to_ne_bytes());
                bytes.extend(born.0.to_ne_bytes());
            });
        }
        close(&mut bytes, born, parts.len());
        Self(bytes.into())
    }

    /// When what it carries was received; of several, the last.
    pub fn born(&self) -> Born {
        Born(self.word(TRAILER_BYTES))
    }

    /// How many frames it is.
    pub fn count(&self) -> usize {
        self.word(size_of::<u32>()) as usize
    }

    /// Where each of them ends, and when it was born.
    pub fn parts(&self) -> impl Iterator<Item = (usize, Born)> {
        let count = self.count();
        let table = TRAILER_BYTES + count * PART_BYTES;
        (0..count).map(move |part| match count {
            1 => (self.len(), self.born()),
            _ => {
                let back = table - part * PART_BYTES;
                (self.word(back) as usize, Born(self.word(back - size_of::<u32>())))
            }
        })
    }

    /// What would be left to a socket that took `sent` bytes, if only what has begun to leave were finished: its frame, how many
    /// bytes of that are taken, and how many frames come behind it. None: a frame ends there.
    pub fn begun(&self, sent: usize) -> (Option<(Frame, usize)>, usize) {
        let (mut begin, mut at) = (0, 0);
        for (end, born) in self.parts() {
            at += 1;
            if sent < end {
                let behind = self.count() - at;
                return match sent == begin {
                    true => (None, behind + 1),
                    false => (Some((Frame::new(self[begin..end].to_vec(), born), sent - begin)), behind),
                };
            }
            begin = end;
        }
        (None, 0)
    }

    /// Its first bytes, at most as many as it has.
    pub fn first(&self, bytes: u32) -> &[u8] {
        &self.0[..bytes as usize]
    }

    /// The word that begins so many bytes before the end.
    fn word(&self, back: usize) -> u32 {
        let tail = &self.0[self.0.len() - back..];
        tail.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word))
    }
}

fn close(bytes: &mut Vec<u8>, born: Born, count: usize) {
    bytes.extend(born.0.to_ne_bytes());
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_ne_bytes());
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let count = self.count();
        let table = if count > 1 { count * PART_BYTES } else { 0 };
        &self.0[..self.0.len() - TRAILER_BYTES - table]
    }
}

impl From<Frame> for Piece {
    fn from(frame: Frame) -> Self {
        let [bytes, frames] = [frame.len(), frame.count()].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        Self { frame, bytes, frames }
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

    #[test]
    fn several_frames_know_their_parts_and_what_has_begun() {
        let frames = [vec![1_u8; 3], vec![2; 5], vec![3; 4]];
        let mut end = 0;
        let parts: Vec<(u32, Born)> = frames
            .iter()
            .zip(7..)
            .map(|(frame, born)| {
                end += frame.len() as u32;
                (end, Born(born))
            })
            .collect();
        let several = Frame::several(frames.concat(), &parts);
        assert_eq!((&*several, several.count(), several.born()), (&*frames.concat(), 3, Born(9)));
        assert_eq!(several.parts().collect::<Vec<_>>(), [(3, Born(7)), (8, Born(8)), (12, Born(9))]);
        for sent in 0..=several.len() {
            let (begun, behind) = several.begun(sent);
            let whole = [0, 3, 8, 12].into_iter().position(|end| end == sent);
            match (begun, whole) {
                (None, Some(whole)) => assert_eq!(behind, 3 - whole),
                (Some((frame, taken)), None) => {
                    let at = [3, 8, 12].into_iter().position(|end| sent < end).expect("a part");
                    assert_eq!((&*frame, frame.count(), behind), (&*frames[at], 1, 2 - at));
                    assert_eq!(frame.born(), parts[at].1);
                    assert_eq!(taken, sent - [0, 3, 8][at]);
                }
                other => panic!("{sent}: {other:?}"),
            }
        }
        let single = Frame::several(frames[0].clone(), &parts[..1]);
        assert_eq!((&*single, single.count()), (&*frames[0], 1));
        assert_eq!(single.parts().collect::<Vec<_>>(), [(3, Born(7))]);
    }
}
