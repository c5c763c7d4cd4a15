//! The parts that records are read of, out of bytes that nobody vouches for.
//!
//! Invariant: room is made for what the bytes can hold, never for what they claim.

use bytes::{Buf, Bytes, TryGetError};

use super::RecordError;
use crate::limits::{ADDR_BYTES_MAX, AFFAIR_ID_BYTES_MAX};
use crate::model::{
    Audience, Boot, ClientId, Pid, SessionId, Stamp, Tag, TraceParent,
    ids::{NAME_BYTES_MAX, is_identity},
    record::{Source, Standing, Taking},
};

type Read<T> = Result<T, RecordError>;

/// Reads one record from front to back.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(self.0.try_get_u8()?)
    }

    pub(super) fn u16(&mut self) -> Read<u16> {
        Ok(self.0.try_get_u16_le()?)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        Ok(self.0.try_get_u32_le()?)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        Ok(self.0.try_get_u64_le()?)
    }

    pub(super) fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Malformed("flag")),
        }
    }

    /// A LEB128 of at most 32 bits: nothing here is longer.
    fn length(&mut self) -> Read<usize> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| RecordError::Malformed("length"));
            }
        }
        Err(RecordError::Malformed("length"))
    }

    fn blob(&mut self) -> Read<Bytes> {
        let length = self.length()?;
        if length > self.0.len() {
            return Err(RecordError::Torn);
        }
        Ok(self.0.split_to(length))
    }

    /// A JSON text, as a slice of the batch.
    pub(super) fn payload(&mut self) -> Read<Bytes> {
        let payload = self.blob()?;
        // It leaves in text frames, and one that is no UTF-8 would make every receiver hang up.
        match std::str::from_utf8(&payload) {
            Ok(text) if !text.is_empty() => Ok(payload),
            _ => Err(RecordError::Malformed("payload")),
        }
    }

    /// A text made into something by `build`, which knows what is valid.
    fn text<T>(&mut self, what: &'static str, build: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        let bytes = self.blob()?;
        std::str::from_utf8(&bytes).ok().and_then(build).ok_or(RecordError::Malformed(what))
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list whose members are at least `item_bytes` long.
    pub(super) fn list<T>(&mut self, item_bytes: usize, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.length()?;
        if count > self.0.len() / item_bytes {
            return Err(RecordError::Torn);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub(super) fn pid(&mut self) -> Read<Pid> {
        self.text("pid", Pid::new)
    }

    pub(super) fn tag(&mut self) -> Read<Tag> {
        self.text("tag", Tag::new)
    }

    pub(super) fn tags(&mut self) -> Read<Vec<Tag>> {
        self.list(2, Self::tag)
    }

    /// A uid or device.
    fn identity(&mut self) -> Read<Box<str>> {
        self.text("name", |text| is_identity(text).then(|| text.into()))
    }

    pub(super) fn identities(&mut self) -> Read<Vec<Box<str>>> {
        self.list(2, Self::identity)
    }

    /// A uid to compare with, which may be empty.
    pub(super) fn bound(&mut self) -> Read<Option<Box<str>>> {
        self.option(|reader| reader.text("name", |text| (text.len() <= NAME_BYTES_MAX).then(|| text.into())))
    }

    /// An `affair_id` or `idempotency_key`.
    pub(super) fn affair(&mut self) -> Read<Box<str>> {
        self.text("affair_id", |text| (text.len() <= AFFAIR_ID_BYTES_MAX).then(|| text.into()))
    }

    pub(super) fn affair_option(&mut self) -> Read<Option<Box<str>>> {
        self.option(Self::affair)
    }

    pub(super) fn boot(&mut self) -> Read<Boot> {
        self.u32().map(Boot)
    }

    pub(super) fn cid(&mut self) -> Read<ClientId> {
        let (node, boot) = (self.u16()?, self.boot()?);
        let session = SessionId { core: self.byte()?, slot: self.u32()?, generation: self.u32()? };
        Ok(ClientId { node, boot, session })
    }

    pub(super) fn cid_option(&mut self) -> Read<Option<ClientId>> {
        self.option(Self::cid)
    }

    pub(super) fn source(&mut self) -> Read<Source> {
        Ok(Source { uid: self.identity()?, cid: self.cid()?, device: self.option(Self::identity)? })
    }

    /// The stamp of a push, which a node of the version before did not write. Nothing depends on it, so one that cannot
    /// be read is none.
    pub(super) fn stamp(&mut self) -> Stamp {
        let read = |reader: &mut Self| Ok((reader.u64()?, reader.option(Self::trace)?));
        read(self).map_or_else(|_: RecordError| Stamp::default(), |(received_us, trace)| Stamp { received_us, trace })
    }

    /// A node's standing, which a node of the version before did not write. One that cannot be read is none: such a node is
    /// routed to by nobody.
    pub(super) fn standing(&mut self) -> Option<Standing> {
        let addr = self.text("addr", |text| is_addr(text).then(|| text.into())).ok()?;
        let users = self.u32().ok()?;
        let taking = match self.byte().ok()? {
            1 => Taking::Yes,
            2 => Taking::NotNow,
            3 => Taking::Leaving,
            _ => return None,
        };
        Some(Standing { addr, users, taking })
    }

    fn trace(&mut self) -> Read<Box<TraceParent>> {
        let (trace_id, span_id) = (self.0.try_get_u128_le()?, self.u64()?);
        let is_valid = trace_id != 0 && span_id != 0;
        is_valid.then(|| Box::new(TraceParent { trace_id, span_id })).ok_or(RecordError::Malformed("trace"))
    }

    pub(super) fn audience(&mut self) -> Read<Audience> {
        Ok(Audience {
            uids: self.identities()?,
            cids: self.identities()?,
            tags: self.tags()?,
            devices: self.identities()?,
        })
    }
}

impl From<TryGetError> for RecordError {
    fn from(_: TryGetError) -> Self {
        RecordError::Torn
    }
}

/// What may stand in a `Location`, whoever wrote it.
fn is_addr(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-[]:/".contains(&byte);
    text.len() <= ADDR_BYTES_MAX && text.bytes().all(is_fine)
}
