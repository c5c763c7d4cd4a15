//! What submitters are told, and which seqs and places records get.

use bytes::Bytes;

use super::*;
use crate::{
    broker::{Appended, BrokerError, Opened, OriginLast},
    model::Ticket,
};

struct Fixture {
    publisher: Publisher,
    now: Instant,
    told: Told,
}

fn to(number: u64) -> AckTo {
    AckTo::Submission { ticket: Ticket { core: 0, number }, index: 0 }
}

fn place(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

impl Fixture {
    fn new() -> Self {
        let settings = PublisherSettings {
            pending_bytes_max: 1000,
            pending_timeout: Duration::from_secs(3),
            batch_bytes_max: 1000,
            batch_records_max: 2,
            replay_window: Duration::from_secs(30),
            replay_bytes_max: 1 << 20,
        };
        let publisher = Publisher::new(settings, Durability::Log, 1);
        Self { publisher, now: crate::clock::now(), told: Told::default() }
    }

    fn offer(&mut self, number: u64) -> Result<(), Refusal> {
        let body = Body::Encoded(Bytes::from_static(b"0123456789"));
        self.publisher.offer(body, to(number), self.now).map_err(|(_, refusal)| refusal)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.publisher.expire(self.now, &mut self.told);
    }

    fn open(&mut self, epoch: u64, origins: Vec<OriginLast>) -> Open {
        let Step::Open(open) = self.publisher.step(self.now) else { panic!("it opens first") };
        let opened = Opened { tail: place(epoch, 0), sealed: true, grace: Duration::ZERO, origins };
        self.publisher.opened(&opened, self.now, &mut self.told);
        open
    }

    fn append(&mut self) -> Append {
        match self.publisher.step(self.now) {
            Step::Append(append) => append,
            other => panic!("no append: {other:?}"),
        }
    }

    fn stored(&mut self, epoch: u64, offset: u64) {
        let stored = Appended::Stored { position: place(epoch, offset), kind: Kind::New };
        self.publisher.appended(stored, self.now, &mut self.told);
    }

    fn fail(&mut self, error: BrokerError) {
        self.publisher.failed(&error, self.now);
        self.now += LOG_RETRY_MIN * 8;
    }

    fn outcomes(&mut self) -> Vec<(u64, Result<u64, Refusal>)> {
        let number = |to: AckTo| match to {
            AckTo::Submission { ticket, .. } => ticket.number,
            other => panic!("never offered: {other:?}"),
        };
        let outcomes = std::mem::take(&mut self.told).outcomes.into_iter();
        outcomes.map(|(to, result)| (number(to), result.map(|id| id.seq))).collect()
    }
}

fn unknown() -> BrokerError {
    BrokerError::Unknown("lost".to_owned())
}

fn not_done() -> BrokerError {
    BrokerError::NotDone("away".to_owned())
}

#[test]
fn what_gathers_is_the_next_batch_and_each_submitter_gets_its_own_seq() {
    let mut it = Fixture::new();
    (1..=3).for_each(|number| it.offer(number).expect("taken"));
    it.open(5, vec![]);
    let first = it.append();
    assert_eq!((first.epoch, first.prev, first.batch.first_seq, first.batch.last_seq()), (5, 0, 1, 2));
    assert!(matches!(it.publisher.step(it.now), Step::Wait(_)), "one call at a time");
    it.stored(5, 1);
    let second = it.append();
    assert_eq!((second.prev, second.seen_offset, second.batch.first_seq), (2, 1, 3));
    it.stored(5, 2);
    assert_eq!(it.outcomes(), [(1, Ok(1)), (2, Ok(2)), (3, Ok(3))]);
}

#[test]
fn a_record_that_was_never_sent_leaves_no_hole() {
    let mut it = Fixture::new();
    it.open(5, vec![]);
    it.offer(1).expect("taken");
    assert_eq!(it.append().batch.first_seq, 1);
    it.fail(not_done());
    it.pass(4);
    assert_eq!(it.outcomes(), [(1, Err(Refusal::QueueUnavailable))]);
    assert_eq!(it.offer(2), Err(Refusal::QueueUnavailable), "the queue has been away for longer than the wait");
    it.open(5, vec![]);
    it.offer(2).expect("taken");
    assert_eq!(it.append().batch.first_seq, 1, "the seq was given back");
}

#[test]
fn a_batch_of_unknown_outcome_keeps_its_seqs_and_is_offered_again_unchanged() {
    let mut it = Fixture::new();
    it.open(5, vec![]);
    it.offer(1).expect("taken");
    let batch = it.append().batch;
    it.fail(unknown());
    it.offer(2).expect("taken");
    assert!(Arc::ptr_eq(&batch, &it.append().batch));
    it.fail(not_done());
    it.pass(4);
    assert_eq!(it.outcomes(), [(1, Err(Refusal::Unknown)), (2, Err(Refusal::QueueUnavailable))]);
    assert!(it.publisher.is_settled());
    let last = OriginLast { origin: batch.origin, seq: 1, position: place(5, 1) };
    it.open(5, vec![last]);
    it.offer(3).expect("taken");
    assert_eq!(it.append().batch.first_seq, 2, "it was there");
    it.stored(5, 2);
    assert_eq!(it.outcomes(), [(3, Ok(2))], "nobody is told twice");
}

#[test]
fn a_batch_that_was_heard_before_its_epoch_ended_is_replayed_in_its_place() {
    let mut it = Fixture::new();
    it.open(5, vec![]);
    it.offer(1).expect("taken");
    let batch = it.append().batch;
    it.publisher.observed(place(5, 7), Kind::New, Some((batch.origin, 1)));
    it.publisher.failed(&unknown(), it.now);
    it.publisher.observed(place(6, 1), Kind::Replayed, None);
    it.now += LOG_RETRY_MIN;
    let open = it.open(6, vec![]);
    assert_eq!(open.seen, place(6, 1));
    assert_eq!(it.outcomes(), [(1, Ok(1))], "it was in the log");
    let replay = it.append();
    let original = replay.batch.originals[0];
    assert_eq!((original.epoch, original.offset, original.index, replay.prev), (5, 7, 0, 0));
}

#[test]
fn an_epoch_that_holds_less_than_it_did_is_left() {
    let mut it = Fixture::new();
    it.open(5, vec![]);
    it.offer(1).expect("taken");
    it.append();
    it.stored(5, 1);
    it.pass(2);
    it.open(5, vec![]);
    let Step::Open(open) = it.publisher.step(it.now) else { panic!("it opens again") };
    assert_eq!(open.seen, place(5, u64::MAX), "so that the queue starts another");
}

#[test]
fn the_buffer_is_bounded_and_a_node_without_its_id_takes_nothing() {
    let mut it = Fixture::new();
    let taken = (0..1000).take_while(|number| it.offer(*number).is_ok()).count();
    assert_eq!(it.offer(1), Err(Refusal::QueueFull));
    it.publisher.suspend(&mut it.told);
    assert_eq!(it.outcomes().len(), taken);
    assert_eq!(it.offer(1), Err(Refusal::Stopping));
    let before = it.publisher.origin;
    it.publisher.resume();
    assert_ne!(it.publisher.origin, before, "others may have taken it for gone");
    it.publisher.close();
    assert_eq!(it.offer(1), Err(Refusal::Stopping));
}

#[test]
fn an_idle_publisher_makes_sure_of_its_epoch_and_leaves_an_old_origin() {
    let mut it = Fixture::new();
    it.open(5, vec![]);
    it.offer(1).expect("taken");
    let origin = it.append().batch.origin;
    it.stored(5, 1);
    it.pass(1);
    it.pass(LOG_ORIGIN_IDLE_MAX.as_secs());
    it.open(5, vec![]);
    it.offer(2).expect("taken");
    let append = it.append();
    assert!(append.batch.origin != origin && append.batch.first_seq == 1);
}

#[test]
fn a_batch_is_full_when_one_append_takes_no_more() {
    let mut fixture = Fixture::new();
    assert!(!fixture.publisher.has_full_batch());
    fixture.offer(1).expect("room");
    assert!(!fixture.publisher.has_full_batch());
    fixture.offer(2).expect("room");
    assert!(fixture.publisher.has_full_batch(), "two records are an append here");
}
