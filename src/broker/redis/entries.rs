//! Entries as Redis holds and sends them.
//!
//! Invariant: anything can come; what is no entry of ours is passed over or becomes one that cannot be read.

use bytes::{Buf, Bytes};
use ws_cluster_redis::Reply;

use crate::broker::{Content, Entry, Kind, Position};

/// The version of the live channel's header.
const LIVE_VERSION: u8 = 1;
/// Version, kind, epoch, offset.
const LIVE_HEADER_BYTES: usize = 18;

/// The kind with this name.
pub(super) fn kind(name: &str) -> Option<Kind> {
    match name {
        "n" => Some(Kind::New),
        "r" => Some(Kind::Replayed),
        "l" => Some(Kind::ReplayedLate),
        _ => None,
    }
}

/// An entry out of XRANGE: `[id, [name, bytes]]`. A stranger's entry cannot be read, but has its place.
pub(super) fn from_stream(reply: Reply) -> Option<Entry> {
    let mut parts = reply.list().into_iter();
    let position = position(parts.next()?.text()?)?;
    let mut fields = parts.next()?.list().into_iter();
    let (name, value) = (fields.next()?, fields.next()?);
    let (Some(kind), Reply::Text(bytes)) = (name.text().and_then(kind), value) else {
        return Some(Entry { position, kind: Kind::New, content: Content::Wire(Bytes::from_static(b"?")) });
    };
    Some(Entry { position, kind, content: Content::Wire(bytes) })
}

/// An entry out of the live channel.
pub(super) fn from_live(mut bytes: Bytes) -> Option<Entry> {
    if bytes.len() < LIVE_HEADER_BYTES || bytes.get_u8() != LIVE_VERSION {
        return None;
    }
    let kind = kind(char::from(bytes.get_u8()).encode_utf8(&mut [0; 4]))?;
    let position = Position { epoch: bytes.get_u64(), offset: bytes.get_u64() };
    Some(Entry { position, kind, content: Content::Wire(bytes) })
}

fn position(id: &str) -> Option<Position> {
    let (epoch, offset) = id.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_message_is_read_and_nonsense_is_passed_over() {
        let mut message = vec![1, b'r'];
        message.extend(7_u64.to_be_bytes());
        message.extend(9_u64.to_be_bytes());
        message.extend(b"batch");
        let entry = from_live(message.clone().into()).expect("an entry");
        assert_eq!((entry.position, entry.kind), (Position { epoch: 7, offset: 9 }, Kind::Replayed));
        assert!(matches!(entry.content, Content::Wire(bytes) if bytes == "batch"));
        for end in 0..LIVE_HEADER_BYTES {
            assert!(from_live(Bytes::copy_from_slice(&message[..end])).is_none());
        }
        message[1] = 0xff;
        assert!(from_live(message.into()).is_none());
    }

    #[test]
    fn a_strangers_entry_has_its_place_and_cannot_be_read() {
        let text = |text: &'static str| Reply::Text(Bytes::from_static(text.as_bytes()));
        let reply = Reply::List(vec![text("5-6"), Reply::List(vec![text("who"), text("knows")])]);
        let entry = from_stream(reply).expect("an entry");
        assert_eq!(entry.position, Position { epoch: 5, offset: 6 });
        assert!(entry.content.open().is_err());
        assert!(from_stream(Reply::Nil).is_none());
    }
}
