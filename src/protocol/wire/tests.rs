//! Every record reads back as it was written, and nothing that comes from the queue panics or grows.
//! Method: proptest over all kinds of records; then the same batches cut, flipped, and random bytes.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::model::{
    Audience, Boot, ClientId, Control, ControlOp, Pid, Publication, Push, Request, SessionId, Stamp, Tag, TraceParent,
    record::{
        BackendChange, Beat, BeatPhase, OnlineAnswer, OnlineAsk, OnlineClients, OnlineConnection, Presence, Source,
        Standing, Taking,
    },
};

fn name() -> impl Strategy<Value = Box<str>> {
    "[a-zA-Z0-9 é→]{1,12}".prop_map(Box::from)
}

fn pid() -> impl Strategy<Value = Pid> {
    "[a-z0-9]{1,8}".prop_map(|text| Pid::new(&text).unwrap())
}

fn tag() -> impl Strategy<Value = Tag> {
    "[a-zA-Z0-9_.:@/-]{1,20}".prop_map(|text| Tag::new(&text).unwrap())
}

fn cid() -> impl Strategy<Value = ClientId> {
    any::<(u16, u32, u8, u32, u32)>().prop_map(|(node, boot, core, slot, generation)| ClientId {
        node,
        boot: Boot(boot),
        session: SessionId { core, slot, generation },
    })
}

fn source() -> impl Strategy<Value = Source> {
    (name(), cid(), option::of(name())).prop_map(|(uid, cid, device)| Source { uid, cid, device })
}

fn payload() -> impl Strategy<Value = Bytes> {
    ".{1,300}".prop_map(Bytes::from)
}

fn audience() -> impl Strategy<Value = Audience> {
    (vec(name(), 0..4), vec(name(), 0..4), vec(tag(), 0..4), vec(name(), 0..4))
        .prop_map(|(uids, cids, tags, devices)| Audience { uids, cids, tags, devices })
}

fn pushed() -> impl Strategy<Value = Record> {
    let ids = || (option::of(name()), option::of(name()));
    prop_oneof![
        (pid(), tag(), any::<bool>(), ids(), payload()).prop_map(
            |(pid, tag, keep, (affair_id, idempotency_key), payload)| {
                Record::Publication(Publication {
                    pid,
                    tag,
                    keep,
                    affair_id,
                    idempotency_key,
                    payload,
                    stamp: Stamp::default(),
                })
            }
        ),
        (pid(), audience(), ids(), payload()).prop_map(|(pid, audience, (affair_id, idempotency_key), payload)| {
            Record::Push(Push { pid, audience, affair_id, idempotency_key, payload, stamp: Stamp::default() })
        }),
        (pid(), 0..3_usize, audience(), vec(tag(), 0..4)).prop_map(|(pid, op, audience, tags)| {
            let op = [ControlOp::Subscribe, ControlOp::Unsubscribe, ControlOp::Kick][op];
            Record::Control(Control { pid, op, audience, tags })
        }),
        (pid(), source(), name(), option::of(cid()), any::<u32>(), payload()).prop_map(
            |(pid, source, affair_id, backend, timeout_ms, payload)| {
                let timeout = Duration::from_millis(timeout_ms.into());
                Record::Request(Request { pid, source, affair_id, backend, timeout, payload })
            }
        ),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    let taking = prop_oneof![Just(Taking::Yes), Just(Taking::NotNow), Just(Taking::Leaving)];
    ("(wss://)?[a-z0-9.-]{1,20}:[0-9]{1,5}", any::<u32>(), taking).prop_map(|(addr, users, taking)| Standing {
        addr: addr.into(),
        users,
        taking,
    })
}

fn known() -> impl Strategy<Value = Record> {
    let node = || (any::<u16>(), any::<u32>().prop_map(Boot));
    let connection =
        (source(), any::<u64>()).prop_map(|(source, since_unix_ms)| OnlineConnection { source, since_unix_ms });
    prop_oneof![
        (pid(), any::<bool>(), source()).prop_map(|(pid, online, source)| Record::Presence(Presence {
            pid,
            online,
            source
        })),
        (pid(), vec(source(), 0..5)).prop_map(|(pid, users)| Record::OnlineClients(OnlineClients { pid, users })),
        (pid(), cid(), any::<bool>()).prop_map(|(pid, cid, online)| Record::Backend(BackendChange {
            pid,
            cid,
            online
        })),
        (node(), 0..3_usize, vec((pid(), cid()), 0..5), option::of(standing())).prop_map(
            |((node, boot), phase, backends, standing)| {
                let phase = [BeatPhase::Hello, BeatPhase::Alive, BeatPhase::Goodbye][phase];
                Record::Beat(Beat { node, boot, phase, backends, standing })
            }
        ),
        (node(), any::<u64>(), pid(), vec(name(), 0..4), option::of(name()), any::<u32>()).prop_map(
            |((node, boot), ask, pid, uids, after, limit)| {
                Record::OnlineAsk(OnlineAsk { node, boot, ask, pid, uids, after, limit })
            }
        ),
        (node(), any::<u64>(), node(), any::<bool>(), vec(connection, 0..5)).prop_map(
            |((to_node, to_boot), ask, (node, boot), more, connections)| {
                Record::OnlineAnswer(OnlineAnswer { to_node, to_boot, ask, node, boot, more, connections })
            }
        ),
    ]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    let trace = (1..u128::MAX, 1..u64::MAX).prop_map(|(trace_id, span_id)| Box::new(TraceParent { trace_id, span_id }));
    (any::<u64>(), option::of(trace)).prop_map(|(received_us, trace)| Stamp { received_us, trace })
}

fn record() -> impl Strategy<Value = Record> {
    let stamped = (pushed(), stamp()).prop_map(|(mut record, stamp)| {
        record.stamp_mut().into_iter().for_each(|place| *place = stamp.clone());
        record
    });
    prop_oneof![stamped, known()]
}

/// A stamp without a trace, as it is written.
const STAMP_BYTES: usize = 9;

fn example(payload: &'static str) -> Record {
    Record::Publication(Publication {
        pid: Pid::new("502").unwrap(),
        tag: Tag::new("kline.BTC").unwrap(),
        keep: false,
        affair_id: None,
        idempotency_key: None,
        payload: Bytes::from_static(payload.as_bytes()),
        stamp: Stamp::default(),
    })
}

proptest! {
    #[test]
    fn a_batch_reads_back(records in vec(record(), 1..6), origin: u64, first_seq in 1..u64::MAX - 10) {
        let batch = Batch::decode(encode_batch(origin, first_seq, &records)).unwrap();
        let count = records.len() as u32;
        prop_assert_eq!(batch.header, BatchHeader { origin, first_seq, count, replay: false });
        let expected = (first_seq..).zip(records).map(|(seq, record)| Entry { seq, original: None, record: Ok(record) });
        prop_assert_eq!(batch.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_replayed_batch_reads_back_with_the_places_its_records_had(
        records in vec((record(), any::<(u64, u64, u32)>()), 1..6)
    ) {
        let at = |(epoch, offset, index)| LogPosition { epoch, offset, index };
        let mut builder = BatchBuilder::replay(7, 40);
        records.iter().for_each(|(record, place)| builder.push_replayed(&encode_record(record), at(*place)));
        let batch = Batch::decode(builder.finish()).unwrap();
        prop_assert!(batch.header.replay);
        for (entry, (record, place)) in batch.zip(records) {
            prop_assert_eq!((entry.original, entry.record), (Some(at(place)), Ok(record)));
        }
    }

    #[test]
    fn a_spoilt_batch_gives_every_seq_and_no_panic(
        records in vec(record(), 1..4), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut: prop::sample::Index, replay: bool,
    ) {
        let place = LogPosition { epoch: 1, offset: 2, index: 3 };
        let mut builder = if replay { BatchBuilder::replay(7, 1) } else { BatchBuilder::new(7, 1) };
        for record in records.iter().map(encode_record) {
            if replay { builder.push_replayed(&record, place) } else { builder.push(&record) }
        }
        let mut bytes = builder.finish().to_vec();
        bytes.truncate(cut.index(bytes.len() + 1));
        for (index, byte) in flips {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Ok(batch) = Batch::decode(bytes.into()) {
            let (first, count) = (batch.header.first_seq, u64::from(batch.header.count));
            let seqs: Vec<u64> = batch.map(|entry| entry.seq).collect();
            prop_assert_eq!(seqs, (first..first + count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in vec(any::<u8>(), 0..400), kind in 0..12_u8) {
        let mut record = vec![kind];
        record.extend_from_slice(&bytes);
        let _ = decode::decode_record(record.into());
        if let Ok(batch) = Batch::decode(bytes.into()) {
            prop_assert!(batch.count() <= 100);
        }
    }
}

#[test]
fn a_payload_is_a_slice_of_its_batch_byte_for_byte() {
    let odd = r#" {"b" : 18446744073709551616, "a":"\u00e9\ud800\/", "b":1e999 }"#;
    let bytes = encode_batch(1, 1, &[example(odd)]);
    let within = bytes.as_ptr_range();
    let entry = Batch::decode(bytes.clone()).unwrap().next().unwrap();
    let Ok(Record::Publication(publication)) = entry.record else { panic!("{entry:?}") };
    assert_eq!(publication.payload, odd.as_bytes());
    assert!(within.contains(&publication.payload.as_ptr()), "it was copied");
}

#[test]
fn an_unknown_kind_and_a_bad_record_are_passed_over_and_the_rest_is_read() {
    let mut builder = BatchBuilder::new(1, 5);
    builder.push(&[200, 1, 2, 3]);
    builder.push(&[]);
    builder.push(&[1, 0xff, 0xff]);
    builder.push(&encode_record(&example("1")));
    let entries: Vec<Entry> = Batch::decode(builder.finish()).unwrap().collect();
    assert_eq!(entries[0].record, Err(RecordError::UnknownKind(200)));
    assert_eq!(entries[1].record, Err(RecordError::Torn));
    assert!(entries[2].record.is_err());
    assert_eq!((entries[3].seq, &entries[3].record), (8, &Ok(example("1"))));
}

#[test]
fn a_tail_that_a_later_version_adds_is_passed_over() {
    let mut record = encode_record(&example("1")).to_vec();
    record.extend_from_slice(b"more");
    assert_eq!(decode::decode_record(record.into()), Ok(example("1")));
}

#[test]
fn a_record_of_the_version_before_has_no_stamp_and_half_a_stamp_is_none() {
    let mut stamped = example("1");
    let trace = Some(Box::new(TraceParent { trace_id: 2, span_id: 3 }));
    *stamped.stamp_mut().expect("a push") = Stamp { received_us: 7, trace };
    let bytes = encode_record(&stamped);
    assert_eq!(decode::decode_record(bytes.clone()), Ok(stamped));
    let before = bytes.len() - STAMP_BYTES - 24;
    for cut in before..bytes.len() {
        assert_eq!(decode::decode_record(bytes.slice(..cut)), Ok(example("1")), "{cut}");
    }
}

#[test]
fn a_torn_batch_still_gives_every_seq() {
    let bytes = encode_batch(1, 1, &[example("1"), example("2"), example("3")]);
    let entries: Vec<Entry> = Batch::decode(bytes.slice(..bytes.len() - 40)).unwrap().collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].record, Ok(example("1")));
    assert_eq!(entries[2].record, Err(RecordError::Torn));
}

#[test]
fn behind_an_entry_whose_length_is_wrong_nothing_is_guessed() {
    let mut bytes = encode_batch(1, 1, &[example("1"), example("2"), example("3")]).to_vec();
    bytes[HEADER_BYTES..HEADER_BYTES + ENTRY_BYTES].copy_from_slice(&1000_u32.to_le_bytes());
    let entries: Vec<_> = Batch::decode(bytes.into()).unwrap().map(|entry| (entry.seq, entry.record)).collect();
    assert_eq!(entries, [1, 2, 3].map(|seq| (seq, Err(RecordError::Torn))));
}

#[test]
fn a_list_gets_room_for_what_is_there_and_not_for_what_it_claims() {
    // 2^35 - 1 names would be half a terabyte.
    let push = b"\x02\x01a\xff\xff\xff\xff\x7f\x01a";
    assert_eq!(decode::decode_record(Bytes::from_static(push)), Err(RecordError::Torn));
}

#[test]
fn a_header_that_says_the_impossible_is_refused() {
    let good = encode_batch(1, 1, &[example("1")]);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Batch::decode(changed.into()).map(|batch| batch.header)
    };
    assert_eq!(with(0, &[9]), Err(BatchError::UnknownVersion(9)));
    assert_eq!(with(1, &[2]), Err(BatchError::UnknownVersion(1)));
    for (at, bytes) in [(2, &[0_u8; 4][..]), (2, &[0xff; 4]), (14, &[0; 8]), (14, &[0xff; 8])] {
        assert_eq!(with(at, bytes), Err(BatchError::Malformed), "{at} {bytes:?}");
    }
    for cut in 0..HEADER_BYTES {
        assert_eq!(Batch::decode(good.slice(..cut)).err(), Some(BatchError::Malformed), "{cut}");
    }
}

#[test]
fn a_payload_that_is_no_utf8_is_refused() {
    let mut record = encode_record(&example("\"x\"")).to_vec();
    let at = record.len() - STAMP_BYTES - 2;
    record[at] = 0xff;
    assert_eq!(decode::decode_record(record.into()), Err(RecordError::Malformed("payload")));
}

#[test]
fn a_batch_written_by_another_program_is_read() {
    let bytes = Bytes::from_static(include_bytes!("../../../fuzz/seeds/wire/batch"));
    let entries: Vec<Entry> = Batch::decode(bytes).unwrap().collect();
    let read: Vec<_> = entries.iter().map(|entry| entry.record.as_ref().err()).collect();
    assert_eq!(read[..10], [None; 10]);
    assert_eq!(read[10..], [Some(&RecordError::UnknownKind(200))]);
    let replayed = Batch::decode(Bytes::from_static(include_bytes!("../../../fuzz/seeds/wire/replay"))).unwrap();
    let places: Vec<_> = replayed.map(|entry| (entry.original, entry.record.is_ok())).collect();
    let at = |index| (Some(LogPosition { epoch: 1, offset: 2, index }), true);
    assert_eq!(places, [at(0), at(1), at(2)]);
}

#[test]
fn the_written_form_does_not_change_unnoticed() {
    let bytes = encode_batch(0x0102, 3, &[example("{}")]);
    let expected = [
        &[1, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0][..],
        b"\x01\x03502\x09kline.BTC\x00\x00\x00\x02{}",
        &[0; STAMP_BYTES],
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn a_beat_of_the_version_before_has_no_standing_and_a_bad_one_is_none() {
    let standing = Some(Standing { addr: "a.b:1".into(), users: 3, taking: Taking::Yes });
    let beat = Beat { node: 1, boot: Boot(2), phase: BeatPhase::Alive, backends: Vec::new(), standing };
    let whole = encode_record(&Record::Beat(beat.clone()));
    let without = Record::Beat(Beat { standing: None, ..beat.clone() });
    let before = encode_record(&without);
    assert_eq!(decode_record(before.clone()), Ok(without.clone()));
    assert_eq!(decode_record(whole.clone()), Ok(Record::Beat(beat)));
    for cut in before.len()..whole.len() {
        assert_eq!(decode_record(whole.slice(..cut)), Ok(without.clone()), "cut at {cut}");
    }
    // What would end a header ends nothing here.
    let split = [&before[..], b"\x03a\r\n", &whole[before.len() + 6..]].concat();
    assert_eq!(decode_record(split.into()), Ok(without));
}
