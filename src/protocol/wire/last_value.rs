//! A tag's last value as it stands in the queue's store.
//!
//! ```text
//! name    project | 0 | tag
//! value   version u8 | flags u8 | origin u64 | seq u64 | [flag PREV: origin u64 | seq u64] | at_unix_ms u64
//!         | affair_id option | payload length and bytes
//! ```
//!
//! Invariant: as for a record, nothing that is read is trusted, and a tail that a reader does not know is passed over.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{RecordError, reader::Reader, writer};
use crate::{
    limits::RETAINED_VALUE_BYTES_MAX,
    model::{LastValue, Pid, Published, RecordId, Stamp, Tag},
};

/// The version this node writes.
const LAST_VALUE_VERSION: u8 = 1;

const FLAG_KEEP: u8 = 1;
const FLAG_PREV: u8 = 2;
const FLAG_BROKEN: u8 = 4;

/// The name under which the last value of a tag is stored.
pub fn last_value_name(pid: &Pid, tag: &Tag) -> Bytes {
    // Neither holds a control character.
    format!("{pid}\0{tag}").into()
}

/// The value's bytes, without its name.
pub fn encode_last_value(value: &LastValue) -> Bytes {
    let LastValue { published, at_unix_ms, is_broken } = value;
    let mut out = Vec::with_capacity(64 + published.payload.len());
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    out.push(LAST_VALUE_VERSION);
    let prev = flag(published.prev.is_some(), FLAG_PREV);
    out.push(flag(published.keep, FLAG_KEEP) | prev | flag(*is_broken, FLAG_BROKEN));
    id(&mut out, published.id);
    published.prev.into_iter().for_each(|prev| id(&mut out, prev));
    out.put_u64_le(*at_unix_ms);
    writer::option(&mut out, published.affair_id.as_deref());
    writer::blob(&mut out, &published.payload);
    out.into()
}

/// Reads what [`last_value_name`] and [`encode_last_value`] wrote.
pub fn decode_last_value(name: &[u8], value: Bytes) -> Result<LastValue, RecordError> {
    let (pid, tag) = names(name).ok_or(RecordError::Malformed("name"))?;
    if value.len() > RETAINED_VALUE_BYTES_MAX {
        return Err(RecordError::Malformed("length"));
    }
    let mut reader = Reader::new(value);
    if reader.byte()? != LAST_VALUE_VERSION {
        return Err(RecordError::Malformed("version"));
    }
    let flags = reader.byte()?;
    if flags & !(FLAG_KEEP | FLAG_PREV | FLAG_BROKEN) != 0 {
        return Err(RecordError::Malformed("flag"));
    }
    let published = Published {
        id: read_id(&mut reader)?,
        prev: if flags & FLAG_PREV == 0 { None } else { Some(read_id(&mut reader)?) },
        pid,
        tag,
        keep: flags & FLAG_KEEP != 0,
        affair_id: None,
        payload: Bytes::new(),
        stamp: Stamp::default(),
    };
    let at_unix_ms = reader.u64()?;
    let published = Published { affair_id: reader.affair_option()?, payload: reader.payload()?, ..published };
    Ok(LastValue { published: Arc::new(published), at_unix_ms, is_broken: flags & FLAG_BROKEN != 0 })
}

fn names(name: &[u8]) -> Option<(Pid, Tag)> {
    let (pid, tag) = std::str::from_utf8(name).ok()?.split_once('\0')?;
    Some((Pid::new(pid)?, Tag::new(tag)?))
}

fn id(out: &mut Vec<u8>, id: RecordId) {
    out.put_u64_le(id.origin);
    out.put_u64_le(id.seq);
}

fn read_id(reader: &mut Reader) -> Result<RecordId, RecordError> {
    Ok(RecordId { origin: reader.u64()?, seq: reader.u64()? })
}

#[cfg(test)]
mod tests {
    //! Whatever is written reads back; whatever else comes is refused and never panics.

    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    prop_compose! {
        fn last_value()(
            (pid, tag) in ("[a-z0-9 é]{1,12}", "[a-zA-Z0-9_.:@/-]{1,20}"),
            ids in any::<[u64; 4]>(),
            has_prev in any::<bool>(),
            (keep, is_broken, at_unix_ms) in any::<(bool, bool, u64)>(),
            affair_id in option::of("[a-z→]{0,12}"),
            payload in ".{1,300}",
        ) -> LastValue {
            let published = Published {
                id: RecordId { origin: ids[0], seq: ids[1] },
                prev: has_prev.then_some(RecordId { origin: ids[2], seq: ids[3] }),
                pid: Pid::new(&pid).expect("a pid"),
                tag: Tag::new(&tag).expect("a tag"),
                keep,
                affair_id: affair_id.map(Into::into),
                payload: payload.into(),
                stamp: Stamp::default(),
            };
            LastValue { published: Arc::new(published), at_unix_ms, is_broken }
        }
    }

    fn name_of(value: &LastValue) -> Bytes {
        last_value_name(&value.published.pid, &value.published.tag)
    }

    proptest! {
        #[test]
        fn a_value_reads_back_as_it_was_written(value in last_value(), tail in vec(any::<u8>(), 0..9)) {
            let mut bytes = encode_last_value(&value).to_vec();
            bytes.extend(tail);
            prop_assert_eq!(decode_last_value(&name_of(&value), bytes.into()), Ok(value));
        }

        #[test]
        fn a_cut_value_is_refused_and_a_changed_one_never_panics(value in last_value(), at: prop::sample::Index, byte: u8) {
            let bytes = encode_last_value(&value);
            let at = at.index(bytes.len());
            prop_assert!(decode_last_value(&name_of(&value), bytes.slice(..at)).is_err());
            let mut changed = bytes.to_vec();
            changed[at] = byte;
            let _ = decode_last_value(&name_of(&value), changed.into());
        }

        #[test]
        fn nonsense_never_panics(name in vec(any::<u8>(), 0..40), value in vec(any::<u8>(), 0..80)) {
            let _ = decode_last_value(&name, value.into());
        }
    }

    fn example() -> LastValue {
        let published = Published {
            id: RecordId { origin: 0x0102, seq: 3 },
            prev: Some(RecordId { origin: 4, seq: 5 }),
            pid: Pid::new("502").expect("a pid"),
            tag: Tag::new("kline.BTC").expect("a tag"),
            keep: true,
            affair_id: Some("a".into()),
            payload: Bytes::from_static(b"{}"),
            stamp: Stamp::default(),
        };
        LastValue { published: Arc::new(published), at_unix_ms: 6, is_broken: false }
    }

    #[test]
    fn the_written_form_does_not_change_unnoticed() {
        let numbers = [0x0102_u64, 3, 4, 5, 6].map(u64::to_le_bytes).concat();
        let expected = [&[1, 3][..], &numbers, b"\x01\x01a\x02{}"].concat();
        assert_eq!(encode_last_value(&example()), expected);
        assert_eq!(name_of(&example()), &b"502\0kline.BTC"[..]);
    }

    #[test]
    fn another_version_another_name_and_what_is_too_long_are_refused() {
        let good = encode_last_value(&example());
        let with = |at: usize, byte: u8| {
            let mut changed = good.to_vec();
            changed[at] = byte;
            decode_last_value(&name_of(&example()), changed.into()).map(drop)
        };
        assert_eq!(with(0, 2), Err(RecordError::Malformed("version")));
        assert_eq!(with(1, 8), Err(RecordError::Malformed("flag")));
        for name in [&b"502"[..], b"502\0", b"\0t", b"502\0no tag", b"5\x0702\0t", b"502\0t\0u", b"\xff\0t"] {
            assert_eq!(decode_last_value(name, good.clone()), Err(RecordError::Malformed("name")), "{name:?}");
        }
        let long = [good.to_vec(), vec![0; RETAINED_VALUE_BYTES_MAX]].concat();
        assert_eq!(decode_last_value(&name_of(&example()), long.into()), Err(RecordError::Malformed("length")));
    }
}
