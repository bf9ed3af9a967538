//! Which receipt and which PubAck reach which change, and what they do to it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use roam_schemas::{Applied, Code, Problem, Revision, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::super::timeline::Patience;
use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

type Outcomes = oneshot::Receiver<Result<Saved, ChangeError>>;

/// A table with changes in flight, and what their callers hold.
struct World {
    table: Table,
    window: Arc<Semaphore>,
    start: Instant,
}

struct Caller {
    accepted: oneshot::Receiver<Accepted>,
    outcome: Outcomes,
}

impl Caller {
    fn outcome(&mut self) -> Option<Result<Saved, ChangeError>> {
        self.outcome.try_recv().ok()
    }
}

fn id(number: u8) -> ChangeId {
    ChangeId::from_bytes([number; 16])
}

fn ack(sequence: u64) -> Result<PubAck, PublishError> {
    Ok(PubAck { stream: "ROAM_CHANGES".to_owned(), sequence, duplicate: false })
}

fn full() -> Result<PubAck, PublishError> {
    Err(PublishError::Busy { code: 10_077 })
}

fn applied(id: Option<ChangeId>, sequence: u64) -> Receipt {
    let applied = Applied {
        revision: Revision::new(sequence),
        time: Timestamp::from_nanos(1),
        conflicts: Vec::new(),
        superseded: Vec::new(),
        nearly_full: false,
    };
    Receipt { sequence, id, again: false, outcome: Outcome::Applied(applied) }
}

fn rejected(id: Option<ChangeId>, sequence: u64, code: Code) -> Receipt {
    let outcome = Outcome::Rejected(Problem::new(code, "no"));
    Receipt { sequence, id, again: false, outcome }
}

impl World {
    fn new() -> Self {
        Self { table: Table::default(), window: Arc::new(Semaphore::new(8)), start: Instant::now() }
    }

    fn moment(&self, millis: u64) -> Moment {
        let now = self.start + Duration::from_millis(millis);
        Moment { now, connected: true, generation: 1, dice: 0.5 }
    }

    /// Registers a change with these keys.
    fn register(&mut self, number: u8, keys: &[u64]) -> Result<Caller, Refusal> {
        let (accepted, when_accepted) = oneshot::channel();
        let (outcome, when_decided) = oneshot::channel();
        let entry = Entry {
            payload: Bytes::from(vec![number]),
            keys: keys.into(),
            timeline: Timeline::new(self.start, Patience::within(TIMEOUT)),
            accepted: Some(accepted),
            outcome,
            _permit: Arc::clone(&self.window).try_acquire_owned().unwrap(),
            order: 0,
        };
        self.table.register(id(number), entry)?;
        Ok(Caller { accepted: when_accepted, outcome: when_decided })
    }

    fn published(&mut self, number: u8, answer: Result<PubAck, PublishError>) {
        let settled = self.table.published(id(number), answer, self.moment(0));
        settled.into_iter().for_each(Settled::tell);
    }

    fn received(&mut self, receipt: Receipt) -> bool {
        let (matched, settled) = self.table.received(receipt, self.moment(0));
        settled.into_iter().for_each(Settled::tell);
        matched
    }

    fn sweep(&mut self, millis: u64) -> Vec<ChangeId> {
        let (again, settled) = self.table.sweep(self.moment(millis));
        settled.into_iter().for_each(Settled::tell);
        again
    }

    fn room(&self) -> usize {
        self.window.available_permits()
    }
}

#[test]
fn what_was_in_a_refused_bulk_goes_again_whether_its_pub_ack_came_or_not() {
    let mut world = World::new();
    let mut callers: Vec<_> = (1..=4).map(|number| world.register(number, &[number.into()]).unwrap()).collect();
    for number in [1, 2] {
        world.published(number, ack(11));
    }
    let moment = world.moment(0);
    assert!(world.table.refused_in_bulk(11, moment).is_empty());
    // Of those that were without a PubAck one was in it, one was not.
    world.published(3, ack(11));
    world.published(4, ack(12));
    assert_eq!(world.sweep(10_000), [id(1), id(2), id(3)]);
    assert!(callers.iter_mut().all(|caller| caller.outcome().is_none()));
    assert!(world.received(applied(Some(id(4)), 12)));
    assert!(callers[3].outcome().unwrap().is_ok());
}

#[test]
fn what_was_in_a_refused_bulk_is_busy_if_a_later_change_has_one_of_its_keys() {
    let mut world = World::new();
    let mut first = world.register(1, &[1]).unwrap();
    world.published(1, ack(11));
    let mut second = world.register(2, &[1]).unwrap();
    let moment = world.moment(0);
    world.table.refused_in_bulk(11, moment).into_iter().for_each(Settled::tell);
    assert_eq!(first.outcome(), Some(Err(ChangeError::Busy)));
    assert_eq!(second.outcome(), None);
}

#[test]
fn a_receipt_settles_the_change_with_its_id_and_a_second_one_nothing() {
    let mut world = World::new();
    let (mut one, mut two) = (world.register(1, &[1]).unwrap(), world.register(2, &[2]).unwrap());
    world.published(1, ack(11));
    assert_eq!(one.accepted.try_recv(), Ok(Accepted { sequence: 11 }));
    assert_eq!(one.outcome(), None);
    assert_eq!(world.room(), 6, "a change is in flight until its receipt");

    assert!(world.received(applied(Some(id(1)), 11)));
    let saved = one.outcome().unwrap().unwrap();
    assert_eq!((saved.id, saved.sequence, saved.revision), (id(1), 11, Revision::new(11)));
    assert_eq!((two.outcome(), world.room()), (None, 7));
    assert!(!world.received(applied(Some(id(1)), 11)), "repeated");
    assert!(!world.received(applied(Some(id(9)), 12)), "nobody's");
}

#[test]
fn a_receipt_without_an_id_finds_its_change_by_the_sequence_even_before_the_pub_ack() {
    let mut world = World::new();
    let mut caller = world.register(1, &[1]).unwrap();
    world.published(1, ack(11));
    assert!(!world.received(rejected(None, 12, Code::UnsupportedVersion)), "another's");
    assert!(world.received(rejected(None, 11, Code::UnsupportedVersion)));
    assert!(
        matches!(caller.outcome(), Some(Err(ChangeError::Rejected(problem))) if problem.code == Code::UnsupportedVersion)
    );

    let mut caller = world.register(2, &[1]).unwrap();
    assert!(world.received(rejected(None, 13, Code::UnsupportedVersion)), "kept");
    assert_eq!(caller.outcome(), None);
    world.published(2, ack(13));
    assert!(matches!(caller.outcome(), Some(Err(ChangeError::Rejected(_)))));
    assert!(!world.received(rejected(None, 14, Code::Invalid)), "nothing is in flight");
}

#[test]
fn a_receipt_before_the_pub_ack_settles_the_change_and_the_pub_ack_does_nothing() {
    let mut world = World::new();
    let mut caller = world.register(1, &[1]).unwrap();
    assert!(world.received(applied(Some(id(1)), 11)));
    assert_eq!(caller.accepted.try_recv(), Ok(Accepted { sequence: 11 }));
    assert!(caller.outcome().unwrap().is_ok());
    world.published(1, ack(11));
    assert!(world.table.is_empty());
}

#[test]
fn a_rejection_is_final_and_busy_is_not() {
    let mut world = World::new();
    let mut caller = world.register(1, &[1]).unwrap();
    world.published(1, ack(11));
    assert!(world.received(rejected(Some(id(1)), 11, Code::Busy)));
    assert_eq!(caller.outcome(), None);
    assert!(matches!(world.register(2, &[1]), Err(Refusal::KeyHeld(_))), "it goes out before any later one");
    assert_eq!(world.sweep(49), []);
    assert_eq!(world.sweep(50), [id(1)]);
    assert_eq!(world.table.payload(id(1)), Some(Bytes::from_static(&[1])), "the same bytes");
    world.published(1, ack(12));
    assert!(world.received(rejected(Some(id(1)), 12, Code::Conflict)));
    assert!(matches!(caller.outcome(), Some(Err(ChangeError::Rejected(problem))) if problem.code == Code::Conflict));
}

#[test]
fn a_busy_change_is_not_sent_again_after_a_later_one_with_its_key() {
    let mut world = World::new();
    let mut one = world.register(1, &[1]).unwrap();
    world.published(1, ack(11));
    let _two = world.register(2, &[1]).unwrap();
    assert!(world.received(rejected(Some(id(1)), 11, Code::Busy)));
    assert_eq!(one.outcome(), Some(Err(ChangeError::Busy)));
}

#[test]
fn an_overdue_change_is_not_sent_again_after_a_later_one_with_its_key_and_ends_as_unknown() {
    let mut world = World::new();
    let mut one = world.register(1, &[1, 2]).unwrap();
    world.published(1, ack(10));
    let mut two = world.register(2, &[1]).unwrap();
    world.published(2, ack(11));
    assert!(world.received(applied(Some(id(2)), 11)));
    assert!(two.outcome().unwrap().is_ok());
    // It may have been turned away, and a copy would take effect after the later one.
    assert_eq!(world.sweep(15_000), []);
    assert_eq!(one.outcome(), None, "its receipt may still come");
    assert_eq!(world.sweep(30_000), []);
    assert_eq!(one.outcome(), Some(Err(ChangeError::Unknown { id: id(1) })));
    assert_eq!((world.room(), world.table.is_empty()), (8, true));
}

#[test]
fn a_change_that_was_overtaken_is_saved_if_its_receipt_comes_late() {
    let mut world = World::new();
    let mut one = world.register(1, &[1]).unwrap();
    world.published(1, ack(10));
    let _two = world.register(2, &[1]).unwrap();
    assert_eq!(world.sweep(15_000), []);
    assert!(world.received(applied(Some(id(1)), 10)));
    assert!(one.outcome().unwrap().is_ok());
}

#[test]
fn later_changes_wait_while_an_overdue_one_is_sent_again() {
    let mut world = World::new();
    let _one = world.register(1, &[1]).unwrap();
    world.published(1, ack(10));
    assert_eq!(world.sweep(15_000), [id(1)]);
    assert!(matches!(world.register(2, &[1]), Err(Refusal::KeyHeld(_))), "it would be overtaken by the copy");
    world.published(1, ack(11));
    assert!(world.register(2, &[1]).is_ok());
}

#[test]
fn what_a_full_stream_refused_is_sent_again_in_order_and_is_busy_in_the_end() {
    let mut world = World::new();
    let mut callers: Vec<Caller> = (1..=4).map(|number| world.register(number, &[number.into()]).unwrap()).collect();
    for number in [3, 1, 4, 2] {
        world.published(number, full());
    }
    assert_eq!(world.sweep(60), [id(1), id(2), id(3), id(4)]);
    (1..=4).for_each(|number| world.published(number, full()));
    assert_eq!(world.sweep(30_000), []);
    assert!(callers.iter_mut().all(|caller| caller.outcome() == Some(Err(ChangeError::Busy))));
    assert_eq!((world.room(), world.table.is_empty()), (8, true));
}

#[test]
fn a_change_that_may_take_effect_ends_as_unknown() {
    let unavailable = |source| Err(PublishError::Unavailable { source });
    let cases = [
        (vec![ack(11)], true),
        (vec![unavailable(Failure::TimedOut), full()], true),
        (vec![unavailable(Failure::TimedOut), Err(PublishError::Denied)], true),
        (vec![unavailable(Failure::NoStream)], false),
    ];
    for (answers, unknown) in cases {
        let mut world = World::new();
        let mut caller = world.register(1, &[1]).unwrap();
        for (number, answer) in answers.iter().enumerate() {
            world.published(1, answer.clone());
            if number + 1 < answers.len() {
                assert_eq!(world.sweep(200), [id(1)], "{answers:?}");
            }
        }
        world.sweep(30_000);
        let expected = if unknown { ChangeError::Unknown { id: id(1) } } else { ChangeError::Busy };
        assert_eq!(caller.outcome(), Some(Err(expected)), "{answers:?}");
    }
}

#[test]
fn what_the_bus_refuses_for_good_is_told_at_once() {
    let refused = PublishError::Refused { code: 10_060, text: "no".to_owned() };
    let cases = [
        (PublishError::Denied, ChangeError::Denied),
        (PublishError::TooLarge, ChangeError::Refused(PublishError::TooLarge)),
        (refused.clone(), ChangeError::Refused(refused)),
    ];
    for (answer, expected) in cases {
        let mut world = World::new();
        let mut caller = world.register(1, &[1]).unwrap();
        world.published(1, Err(answer));
        assert_eq!(caller.outcome(), Some(Err(expected)));
        assert!(world.register(2, &[1]).is_ok(), "its key is free");
    }
}

#[test]
fn an_id_is_in_flight_once_and_a_key_without_its_pub_ack_waits() {
    let mut world = World::new();
    let _one = world.register(1, &[1]).unwrap();
    assert!(matches!(world.register(1, &[2]), Err(Refusal::InFlight)));
    assert!(matches!(world.register(2, &[2, 1]), Err(Refusal::KeyHeld(_))));
    assert_eq!(world.room(), 7, "what was refused gave its room back");
    world.published(1, ack(11));
    assert!(world.register(2, &[2, 1]).is_ok());
}
