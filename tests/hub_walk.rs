//! In which order those are visited who have something to be written: small fan-outs first, large ones not left waiting for ever.

use std::sync::Arc;

use ws_cluster::{
    hub::{Hub, HubSettings, NewSession},
    limits::Limits,
    metrics::Counters,
    model::{Boot, FollowStart, Pid, Published, RecordId, Role, SessionId, Stamp, Tag, TagRules},
};

const FRAMES_MAX: usize = 8;

fn hub() -> Hub {
    let mut limits = Limits::default();
    limits.writing.outbox_frames_max = FRAMES_MAX;
    let settings = HubSettings {
        node: 1,
        boot: Boot(1),
        core: 0,
        limits: Arc::new(limits),
        rules: TagRules::default(),
        outboxes_bytes_max: 64 << 20,
    };
    Hub::new(settings, Arc::new(Counters::default()))
}

/// So many sessions that follow a tag of their own.
fn subscribers(hub: &mut Hub, name: &str, count: usize) -> Vec<SessionId> {
    let (pid, tag) = (Pid::new("p").expect("a pid"), Tag::new(name).expect("a tag"));
    let subscriber = |number| {
        let uid = format!("{name}-{number}").into();
        let (pid, role) = (pid.clone(), Role::User);
        let id =
            hub.open(NewSession { pid, role, uid, device: None, tag_patterns: None, expires: None, deflate: None });
        hub.follow(id, &tag, None).expect("room for a tag");
        hub.followed(id, "p", &tag, FollowStart::Empty);
        id
    };
    (0..count).map(subscriber).collect()
}

fn publish(hub: &mut Hub, name: &str) {
    let published = Published {
        id: RecordId { origin: 1, seq: 1 },
        prev: None,
        pid: Pid::new("p").expect("a pid"),
        tag: Tag::new(name).expect("a tag"),
        keep: false,
        affair_id: None,
        payload: "1".to_owned().into(),
        stamp: Stamp::default(),
    };
    hub.publish(&Arc::new(published));
}

/// Visits all that is to be visited: the number of the visit to each of those who are asked for.
fn visits(hub: &mut Hub, of: &[SessionId]) -> Vec<usize> {
    let (mut found, mut number) = (Vec::new(), 0);
    while let Some(id) = hub.next_dirty() {
        number += 1;
        if of.contains(&id) {
            found.push(number);
        }
    }
    found
}

#[test]
fn a_fan_out_goes_before_one_that_is_much_larger_and_waits() {
    let mut hub = hub();
    let (large, small) = (subscribers(&mut hub, "large", 2000), subscribers(&mut hub, "small", 200));
    publish(&mut hub, "large");
    publish(&mut hub, "small");
    let last = visits(&mut hub, &small).into_iter().max();
    // One of eight visits is the others'.
    assert_eq!(last, Some(200 + 199 / 7));

    // Where it is not much smaller it takes its turn.
    let medium = subscribers(&mut hub, "medium", 300);
    publish(&mut hub, "large");
    publish(&mut hub, "medium");
    assert_eq!(visits(&mut hub, &medium).into_iter().min(), Some(large.len() + 1));
}

#[test]
fn a_large_fan_out_is_not_left_waiting_by_small_ones_that_never_end() {
    let mut hub = hub();
    let (large, small) = (subscribers(&mut hub, "large", 100), subscribers(&mut hub, "small", 16));
    publish(&mut hub, "large");
    let (mut visited, mut left) = (0, large.len());
    while left > 0 {
        // The small ones always have something.
        publish(&mut hub, "small");
        let id = hub.next_dirty().expect("somebody");
        if small.contains(&id) {
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let filled = hub.gather(id, &mut slices);
            let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
            hub.wrote(id, bytes, false);
        } else {
            left -= 1;
        }
        visited += 1;
        assert!(visited <= 8 * large.len(), "{left} of the large one were not visited in {visited} visits");
    }
}

#[test]
fn an_outbox_fills_by_what_waits_and_not_behind_a_socket_that_takes_nothing() {
    let mut hub = hub();
    let id = subscribers(&mut hub, "t", 1)[0];
    for waiting in 1..=FRAMES_MAX {
        hub.send_text(id, b"x");
        assert_eq!(hub.is_filling(id), waiting > FRAMES_MAX / 2, "{waiting}");
    }
    hub.wrote(id, 0, true);
    assert!(!hub.is_filling(id));
}
