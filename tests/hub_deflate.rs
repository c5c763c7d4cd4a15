//! A broadcast is compressed once a core and window, not once a recipient, and only where it is wanted and pays.
//!
//! Method: a hub with sessions of many agreements; the counter of compressions, and every byte that would have gone to
//! each socket, inflated.

use std::{io::IoSlice, sync::Arc};

use ws_cluster::{
    hub::{Hub, HubSettings, NewSession},
    limits::Limits,
    metrics::{Count, Counters},
    model::{
        Audience, Boot, FollowStart, Pid, Published, Push, RecordId, Role, SessionId, Stamp, Tag, TagRules,
        tag_rule::TagRule,
    },
    protocol::{
        deflate::{Inflater, negotiate},
        frame::OpCode,
    },
};

const EACH: usize = 100;
const TAG: &str = "kline.BTC.1m";

struct World {
    hub: Hub,
    counters: Arc<Counters>,
    sequence: u64,
}

impl World {
    fn new(rules: Vec<TagRule>) -> Self {
        let counters = Arc::<Counters>::default();
        let settings = HubSettings {
            node: 1,
            boot: Boot(1),
            core: 0,
            limits: Arc::new(Limits::default()),
            rules: TagRules::new(rules),
            outboxes_bytes_max: usize::MAX,
        };
        Self { hub: Hub::new(settings, counters.clone()), counters, sequence: 0 }
    }

    /// Sessions that follow the tag, with this window or without compression.
    fn open(&mut self, window_bits: Option<u8>) -> Vec<SessionId> {
        let offer = window_bits.map(|bits| format!("permessage-deflate; server_max_window_bits={bits}"));
        let deflate = offer.map(|offer| negotiate(&offer).expect("a window").deflate);
        let open = |_| {
            let pid = Pid::new("p").expect("a pid");
            let role = Role::User;
            let new =
                NewSession { pid, role, uid: "u".into(), device: None, tag_patterns: None, expires: None, deflate };
            let id = self.hub.open(new);
            let tag = Tag::new(TAG).expect("a tag");
            assert_eq!(self.hub.follow(id, &tag, None), Ok(true));
            assert_eq!(self.hub.followed(id, "p", &tag, FollowStart::Empty), None);
            id
        };
        (0..EACH).map(open).collect()
    }

    fn publish(&mut self, payload: &str) {
        self.sequence += 1;
        let published = Published {
            id: RecordId { origin: 1, seq: self.sequence },
            prev: None,
            pid: Pid::new("p").expect("a pid"),
            tag: Tag::new(TAG).expect("a tag"),
            keep: false,
            affair_id: None,
            payload: payload.to_owned().into(),
            stamp: Stamp::default(),
        };
        self.hub.publish(&Arc::new(published));
    }

    fn push(&mut self, payload: &str) {
        let audience = Audience::default();
        let pid = Pid::new("p").expect("a pid");
        let push = Push {
            pid,
            audience,
            affair_id: None,
            idempotency_key: None,
            payload: payload.to_owned().into(),
            stamp: Stamp::default(),
        };
        self.hub.push(&push);
    }

    /// What waits for a session: each message's text, and whether it is compressed.
    fn take(&mut self, id: SessionId) -> Vec<(String, bool)> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = self.hub.gather(id, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        self.hub.wrote(id, bytes.len(), false);
        let (mut rest, mut messages) = (&bytes[..], Vec::new());
        while let [first, second, after @ ..] = rest {
            let (length, payload) = match second {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                127 => (usize::from_be_bytes(after[..8].try_into().expect("a length")), &after[8..]),
                length => (usize::from(*length), after),
            };
            let (payload, behind) = payload.split_at(length);
            messages.push(match first {
                0x81 => (text(payload), false),
                0x82 => (String::new(), false),
                0xc1 => (text(Inflater::default().inflate(payload, 1 << 20).expect("compressed")), true),
                first => panic!("{first:x}"),
            });
            rest = behind;
        }
        messages
    }

    fn compressions(&self) -> u64 {
        self.counters.get(Count::DeflateCompressions)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// JSON of about so many bytes.
fn payload(bytes: usize) -> String {
    let mut payload = "[".to_owned();
    let mut number: u32 = 1;
    while payload.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        payload.push_str(&format!("\"{}.{:04}\",", number >> 20, number % 10_000));
    }
    payload + "0]"
}

#[test]
fn a_publication_is_compressed_once_for_all_whose_window_holds_it() {
    let mut world = World::new(Vec::new());
    let plain = world.open(None);
    let agreed: Vec<SessionId> = [15, 12, 11].into_iter().flat_map(|bits| world.open(Some(bits))).collect();
    assert_eq!(world.counters.get(Count::DeflateConnections), 3 * EACH as u64);
    let payload = payload(1500);
    world.publish(&payload);
    world.push(&payload);
    assert_eq!(world.compressions(), 2, "one for each message");
    let before = world.counters.get(Count::DeflatePlainBytes);
    let after = world.counters.get(Count::DeflateCompressedBytes);
    assert!(before > 3000 && after < before * 3 / 4, "{before} to {after} bytes");
    for (ids, is_compressed) in [(plain, false), (agreed, true)] {
        for id in ids {
            let got = world.take(id);
            assert_eq!(got.len(), 2);
            for (text, compressed) in got {
                assert!(text.contains(&payload) && compressed == is_compressed, "{text}");
            }
        }
    }
}

#[test]
fn a_message_larger_than_windows_is_compressed_once_for_each() {
    let mut world = World::new(Vec::new());
    let ids: Vec<Vec<SessionId>> = [15, 12, 9, 8].into_iter().map(|bits| world.open(Some(bits))).collect();
    let payload = payload(9000);
    world.publish(&payload);
    assert_eq!(world.compressions(), 3, "15, 12 and 9; none can be made for 8");
    for (place, ids) in ids.into_iter().enumerate() {
        for id in ids {
            let got = world.take(id);
            assert!(got.len() == 1 && got[0].0.contains(&payload) && got[0].1 == (place < 3), "{place}");
        }
    }
}

#[test]
fn what_is_short_or_gets_no_smaller_or_is_ruled_out_goes_plain() {
    let rules = vec![TagRule { pattern: "kline.*".into(), deflate: false, ..TagRule::default() }];
    let mut world = World::new(rules);
    let id = world.open(Some(15))[0];
    world.publish(&payload(2000));
    assert_eq!((world.compressions(), world.take(id)[0].1), (0, false), "the tag's rule");
    world.hub.reload(TagRules::default());
    world.publish(&payload(2000));
    assert_eq!((world.compressions(), world.take(id)[0].1), (1, true), "a rule that was reloaded");
    world.publish(&payload(64 << 10));
    assert_eq!((world.compressions(), world.take(id)[0].1), (1, false), "above the bound");
    world.publish("1");
    assert_eq!((world.compressions(), world.take(id)[0].1), (1, false), "below the bound");
    let noise: Vec<u8> = (0..2000).map(|_| fastrand::u8(..)).collect();
    world.hub.send_message(id, OpCode::Binary, &noise);
    assert_eq!((world.compressions(), world.take(id).len()), (2, 1), "tried once, and sent as it was");
    world.hub.send_text(id, payload(2000).as_bytes());
    assert_eq!((world.compressions(), world.take(id)[0].1), (2, false), "an answer");
}
