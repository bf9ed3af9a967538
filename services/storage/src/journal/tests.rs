//! Every case of the position check, and every kind of entry.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod following;
mod restored;
mod world;

use roam_nats::{BusSettings, Headers, PublishSettings, Publisher, STORAGE_REPLICAS_KEY};
use roam_schemas::{BatchId, ControlEntry, Encoding, Epoch, Origin, RULES, Resume, Skip, Terms, encode};
use time::OffsetDateTime;

use self::world::{Given, World};
use super::*;
use crate::{backup::Restored, keeper::Keeper, settings::BackupSettings};

const CREATED: u64 = 1_700_000_000_000_000_123;
const RECREATED: u64 = CREATED + 1;
const PATIENCE: Duration = Duration::from_secs(20);
const BATCH: BatchId = BatchId::from_bytes([7; 16]);

fn at(sequence: u64) -> Position {
    Position { incarnation: CREATED, sequence, batch: BATCH, published: 0, line: 3, terms: Terms::default() }
}

/// A stream that holds `first..=last`; with `last + 1` for `first` it is empty.
fn stream(created: u64, first: u64, last: u64, replicas: &str) -> StreamState {
    StreamState {
        created: OffsetDateTime::from_unix_timestamp_nanos(created.into()).unwrap(),
        first_sequence: first,
        first_time: None,
        last_sequence: last,
        messages: last + 1 - first,
        bytes: 0,
        metadata: [(STORAGE_REPLICAS_KEY.to_owned(), replicas.to_owned())].into(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    /// Read from there, on that line, and demand that the first delivery is the stored batch.
    Check(u64, u64),
    /// Read from there, on that line.
    Read(u64, u64),
    Gap(u64, u64),
    Forked,
    /// Another replica counts.
    Outdated,
}

fn found(position: Option<&Position>, state: &StreamState, forked: bool, resume: Option<&Resume>) -> Expected {
    let named = resume.is_some_and(|resume| resume.from == ReplicaName::default());
    found_with(position, state, Known { forked, resume, named, passed: None, restored: false })
}

fn found_with(position: Option<&Position>, state: &StreamState, known: Known<'_>) -> Expected {
    match start(position, state, known) {
        Ok(Start { sequence, stored: Some(BATCH), line, incarnation: CREATED, .. }) => Expected::Check(sequence, line),
        Ok(Start { sequence, stored: None, line, incarnation, .. }) => {
            assert_eq!(incarnation, nanos(state.created));
            Expected::Read(sequence, line)
        }
        Ok(other) => panic!("{other:?}"),
        Err(Halt::Gap { first, needed }) => Expected::Gap(first, needed),
        Err(Halt::Outdated { .. }) => Expected::Outdated,
        Err(Halt::Forked { position: at, batch: BATCH, replicas: 3 }) => {
            assert_eq!(Some(at), position.map(|position| position.sequence));
            Expected::Forked
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn where_to_read_from_follows_from_what_is_stored_and_what_the_stream_says() {
    use Expected::{Check, Forked, Gap, Read};
    let stands = Some(at(50));
    let table = [
        // An empty replica.
        ("a stream that nothing ever came into", None, (CREATED, 0, 0), false, Read(1, 1), Read(1, 1)),
        ("a stream that was just begun", None, (CREATED, 1, 9), false, Read(1, 1), Read(1, 1)),
        ("an empty replica and a journal whose beginning is gone", None, (CREATED, 2, 9), false, Gap(2, 1), Gap(2, 1)),
        ("the same with nothing left in it", None, (CREATED, 10, 9), false, Gap(10, 1), Gap(10, 1)),
        // The stream that the replica knows.
        ("the batch is the newest", stands.clone(), (CREATED, 1, 50), false, Check(50, 3), Check(50, 3)),
        ("there is more behind the batch", stands.clone(), (CREATED, 1, 90), false, Check(50, 3), Check(50, 3)),
        ("the batch is the oldest", stands.clone(), (CREATED, 50, 90), false, Check(50, 3), Check(50, 3)),
        ("the batch aged out", stands.clone(), (CREATED, 51, 90), false, Read(51, 3), Read(51, 3)),
        ("all aged out", stands.clone(), (CREATED, 51, 50), false, Read(51, 3), Read(51, 3)),
        ("more than the batch aged out", stands.clone(), (CREATED, 52, 90), false, Gap(52, 51), Gap(52, 51)),
        ("all and more aged out", stands.clone(), (CREATED, 91, 90), false, Gap(91, 51), Gap(91, 51)),
        // Rolled back.
        ("the stream ends before the batch", stands.clone(), (CREATED, 1, 49), false, Read(1, 4), Forked),
        ("what is left begins later", stands.clone(), (CREATED, 20, 49), false, Read(20, 4), Forked),
        ("nothing is left", stands.clone(), (CREATED, 0, 0), false, Read(1, 4), Forked),
        ("another batch is at the position", stands.clone(), (CREATED, 1, 90), true, Read(1, 4), Forked),
        ("another batch, and the beginning is gone", stands.clone(), (CREATED, 30, 90), true, Read(30, 4), Forked),
        // Created anew.
        ("a new stream with nothing in it", stands.clone(), (RECREATED, 0, 0), false, Read(1, 4), Forked),
        ("a new stream that is shorter", stands.clone(), (RECREATED, 1, 10), false, Read(1, 4), Forked),
        ("a new stream that is longer", stands.clone(), (RECREATED, 1, 90), false, Read(1, 4), Forked),
        ("a new stream whose beginning is gone", stands, (RECREATED, 5, 90), false, Gap(5, 1), Forked),
    ];
    for (name, position, (created, first, last), forked, alone, of_three) in table {
        for (replicas, expected) in [("1", alone), ("3", of_three)] {
            let state = stream(created, first, last, replicas);
            assert_eq!(found(position.as_ref(), &state, forked, None), expected, "{name}, {replicas} replicas");
            let counts = expected_with_an_order(expected, &state, "storage");
            let order = |from: &str| Resume { line: 9, from: ReplicaName::parse(from).unwrap() };
            assert_eq!(found(position.as_ref(), &state, forked, Some(&order("storage"))), counts, "{name}, ordered");
            let other = expected_with_an_order(found(position.as_ref(), &state, forked, None), &state, "another");
            assert_eq!(found(position.as_ref(), &state, forked, Some(&order("another"))), other, "{name}, outdated");
        }
    }
}

/// What an order changes: one that is named goes on in any case, others only if they could anyhow, up to the order.
fn expected_with_an_order(expected: Expected, state: &StreamState, from: &str) -> Expected {
    match (expected, from) {
        (Expected::Gap(..) | Expected::Forked, "storage") => Expected::Read(state.first_sequence.max(1), 9),
        (Expected::Read(sequence, _), "storage") => Expected::Read(sequence, 9),
        (Expected::Check(sequence, _), "storage") => Expected::Check(sequence, 9),
        (Expected::Gap(..) | Expected::Forked, _) => Expected::Outdated,
        (expected, _) => expected,
    }
}

#[test]
fn what_had_nothing_to_apply_may_age_out_with_the_batch_before_it_and_nothing_else_may() {
    use Expected::{Check, Gap, Read};
    let stands = Some(at(50));
    let over = |incarnation, line, sequence| Passed { incarnation, line, sequence };
    let table = [
        ("the batch is there", &stands, over(CREATED, 3, 55), (50, 55), Check(50, 3)),
        ("the batch aged out", &stands, over(CREATED, 3, 55), (51, 55), Read(51, 3)),
        ("so did some of what is behind it", &stands, over(CREATED, 3, 55), (54, 60), Read(54, 3)),
        ("so did all of it", &stands, over(CREATED, 3, 55), (56, 60), Read(56, 3)),
        ("and nothing came since", &stands, over(CREATED, 3, 55), (56, 55), Read(56, 3)),
        ("the journal lost some of it before", &stands, over(CREATED, 3, 55), (53, 54), Read(53, 3)),
        ("something else aged out", &stands, over(CREATED, 3, 55), (57, 60), Gap(57, 56)),
        ("it was before the position", &stands, over(CREATED, 3, 40), (52, 60), Gap(52, 51)),
        ("it was on another line", &stands, over(CREATED, 2, 55), (52, 60), Gap(52, 51)),
        ("it was in another journal", &stands, over(RECREATED, 3, 55), (52, 60), Gap(52, 51)),
        ("nothing was applied before it", &None, over(CREATED, 1, 5), (6, 5), Read(6, 1)),
        ("nothing was, and something else aged out", &None, over(CREATED, 1, 5), (7, 9), Gap(7, 6)),
        ("nothing was, and the journal is another", &None, over(RECREATED, 1, 5), (6, 9), Gap(6, 1)),
    ];
    for (name, position, passed, (first, last), expected) in table {
        for replicas in ["1", "3"] {
            let state = stream(CREATED, first, last, replicas);
            let known = Known { forked: false, resume: None, named: false, passed: Some(passed), restored: false };
            assert_eq!(found_with(position.as_ref(), &state, known), expected, "{name}, {replicas} replicas");
        }
    }
}

#[test]
fn a_stream_that_does_not_say_how_many_replicas_there_are_has_one() {
    for metadata in ["", "many"] {
        let state = stream(RECREATED, 1, 9, metadata);
        assert_eq!(found(Some(&at(50)), &state, false, None), Expected::Read(1, 4));
    }
    let mut state = stream(RECREATED, 1, 9, "3");
    state.metadata.clear();
    assert_eq!(found(Some(&at(50)), &state, false, None), Expected::Read(1, 4));
}

fn entry(subject: &str, headers: Headers, payload: Vec<u8>) -> Entry {
    let published = OffsetDateTime::UNIX_EPOCH;
    Entry { subject: subject.to_owned(), headers, payload: payload.into(), sequence: 9, published }
}

fn batch() -> JournalBatch {
    JournalBatch { id: BATCH, rules: RULES, terms: Terms::default(), quotas: Vec::new(), changes: Vec::new() }
}

const SUBJECT: &str = "roam.v1.journal.0";
const CONTROL: &str = "roam.v1.journal.0.control";

#[test]
fn an_entry_of_an_access_server_is_read() {
    let payload = encode(&batch(), Encoding::Postcard).unwrap();
    let read = read_entry(&entry(SUBJECT, Headers::new().with_batch(BATCH.to_string()), payload));
    assert_eq!(read.unwrap(), Read::Batch(batch()));
}

#[test]
fn an_entry_without_a_batch_id_is_none_of_ours_whatever_is_in_it() {
    let payload = encode(&batch(), Encoding::Postcard).unwrap();
    for subject in [SUBJECT, "roam.v1.journal.0.control"] {
        for payload in [payload.clone(), Vec::new(), b"{\"stream\":\"ROAM_CHANGES\",\"seq\":1}".to_vec()] {
            assert_eq!(read_entry(&entry(subject, Headers::new(), payload)).unwrap(), Read::Foreign);
        }
    }
}

#[test]
fn what_is_ours_and_not_understood_is_never_skipped() {
    let whole = encode(&batch(), Encoding::Postcard).unwrap();
    let ours = || Headers::new().with_batch(BATCH.to_string());
    let control = read_entry(&entry("roam.v1.journal.0.control", ours(), whole.clone()));
    assert!(matches!(control, Err(Halt::Undecodable { sequence: 9, .. })), "{control:?}");
    let mut newer = whole.clone();
    newer[0] += 1 << 5;
    for payload in [Vec::new(), whole[..whole.len() - 1].to_vec(), newer] {
        let read = read_entry(&entry(SUBJECT, ours(), payload));
        assert!(matches!(read, Err(Halt::Undecodable { sequence: 9, .. })), "{read:?}");
    }
    for id in ["rubbish", &BatchId::from_bytes([8; 16]).to_string()] {
        let read = read_entry(&entry(SUBJECT, Headers::new().with_batch(id.to_owned()), whole.clone()));
        assert!(matches!(read, Err(Halt::Undecodable { .. })), "{read:?}");
    }
}

#[test]
fn what_an_operator_ordered_is_read_from_their_subject_alone() {
    let order = ControlEntry { id: BATCH, control: Control::Epoch(Epoch { epoch: 1 }) };
    let payload = encode(&order, Encoding::Postcard).unwrap();
    let ours = || Headers::new().with_batch(BATCH.to_string());
    let read = read_entry(&entry(CONTROL, ours(), payload.clone()));
    assert_eq!(read.unwrap(), Read::Control(BATCH, order.control));
    let elsewhere = read_entry(&entry(SUBJECT, ours(), payload));
    assert!(matches!(elsewhere, Err(Halt::Undecodable { .. })), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_hands_over_what_comes_behind_its_position_and_says_what_is_applied_first() {
    use Given::{Batch, Passed, PassedOver};
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    world.append(Headers::new(), b"{\"stream\":\"ROAM_CHANGES\",\"seq\":1}".to_vec()).await;
    world.append_batch(4).await;

    let empty = world.handed_over(None, 5).await;
    assert_eq!(empty, [Passed(0), Batch(1, 1), Batch(2, 1), PassedOver(3, 1), Batch(4, 1)]);
    let stands = world.stands_at(2, 2).await;
    assert_eq!(world.handed_over(Some(stands), 3).await, [Passed(2), PassedOver(3, 3), Batch(4, 3)]);
    let newest = world.stands_at(4, 4).await;
    assert_eq!(world.handed_over(Some(newest), 1).await, [Passed(4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_reads_a_journal_that_is_another_one_from_its_beginning() {
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    let whole = [Given::Passed(0), Given::Batch(1, 4), Given::Batch(2, 4)];
    let other_batch = world.stands_at(2, 9).await;
    assert_eq!(world.handed_over(Some(other_batch), 3).await, whole);
    let beyond = world.stands_at(7, 7).await;
    assert_eq!(world.handed_over(Some(beyond), 3).await, whole);
    let recreated = Position { incarnation: CREATED, ..world.stands_at(2, 2).await };
    assert_eq!(world.handed_over(Some(recreated), 3).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_stops_before_what_is_missing_in_the_middle_of_the_journal() {
    let world = World::start().await;
    // A damaged block of the server's leaves a hole such as this.
    world.let_entries_be_removed().await;
    for number in 1..=4 {
        world.append_batch(number).await;
    }
    world.api("STREAM.MSG.DELETE.ROAM_JOURNAL", r#"{"seq": 3}"#.to_owned()).await;

    let mut following = world.follow(None);
    for expected in [Given::Passed(0), Given::Batch(1, 1), Given::Batch(2, 1)] {
        assert_eq!(following.next().await, expected);
    }
    // It looks again and again, and never goes beyond.
    following.stands_still().await;
    assert_eq!(following.next().await, Given::Passed(2));
    assert_eq!(following.next().await, Given::Passed(2));
    assert!(following.progress.is_halted());
    following.context.shutdown.cancel();
    following.running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_replicas_the_one_that_an_operator_names_goes_on_with_another_journal() {
    let world = World::of(3).await;
    world.append_batch(1).await;
    let mut following = world.follow(Some(world.stands_at(7, 7).await));
    following.stands_still().await;

    let from = ReplicaName::default();
    let order = world.order(Control::Resume(Resume { line: 4, from })).await;
    for expected in [Given::Passed(0), Given::Batch(1, 4), Given::Control(order, 4)] {
        assert_eq!(following.next().await, expected);
    }
    following.goes_on().await;
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stops_at_the_order_that_another_one_counts_unless_it_has_a_backup_of_that() {
    let world = World::of(3).await;
    world.append_batch(1).await;
    let from = ReplicaName::parse("another").unwrap();
    let order = world.order(Control::Resume(Resume { line: 4, from })).await;
    world.append_batch(3).await;

    let mut before = world.follow(Some(world.stands_at(1, 1).await));
    assert_eq!(before.next().await, Given::Passed(1));
    before.stands_still().await;
    before.end().await;
    let of_a_backup = Position { line: 4, ..world.stands_at(1, 1).await };
    let given = world.handed_over(Some(of_a_backup), 3).await;
    assert_eq!(given, [Given::Passed(1), Given::Control(order, 4), Given::Batch(3, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_stops_a_replica_until_an_operator_has_it_passed_over() {
    let world = World::start().await;
    for number in 1..=3 {
        world.append_batch(number).await;
    }
    let mut following = world.follow(Some(world.stands_at(1, 1).await));
    for expected in [Given::Passed(1), Given::Batch(2, 3), Given::Batch(3, 3)] {
        assert_eq!(following.next().await, expected);
    }
    let stuck = world.stands_at(2, 2).await;
    let incarnation = stuck.incarnation;
    following.stuck.send_replace(Some(Stuck { position: stuck, reason: "it panics".to_owned() }));
    following.stands_still().await;

    let skip = |sequence, number| {
        let origin = Origin { incarnation, sequence };
        Control::Skip(Skip { origin, batch: Some(BatchId::from_bytes([number; 16])) })
    };
    // Those of other entries do not help.
    world.order(skip(2, 9)).await;
    world.order(skip(3, 2)).await;
    world.order(skip(2, 2)).await;
    // The store of this test is empty, so it is read from the beginning.
    assert_eq!(following.next().await, Given::Begin);
    following.waits().await;
    following.stuck.send_replace(None);
    for expected in [Given::Passed(0), Given::Batch(1, 1), Given::Skipped(2, 1)] {
        assert_eq!(following.next().await, expected);
    }
    following.goes_on().await;
    for expected in [Given::Batch(3, 1), Given::Control(4, 1), Given::Control(5, 1), Given::Control(6, 1)] {
        assert_eq!(following.next().await, expected);
    }
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decode_is_passed_over_by_order_too_also_without_an_id() {
    let world = World::start().await;
    world.append_batch(1).await;
    world.append(Headers::new().with_batch("rubbish"), b"rubbish".to_vec()).await;
    world.append_batch(3).await;
    let mut following = world.follow(None);
    assert_eq!(following.next().await, Given::Passed(0));
    assert_eq!(following.next().await, Given::Batch(1, 1));
    following.stands_still().await;
    let incarnation = world.stands_at(2, 2).await.incarnation;
    world.order(Control::Skip(Skip { origin: Origin { incarnation, sequence: 2 }, batch: None })).await;
    for expected in [Given::Passed(1), Given::PassedOver(2, 1), Given::Batch(3, 1), Given::Control(4, 1)] {
        assert_eq!(following.next().await, expected);
    }
    following.goes_on().await;
    following.end().await;
}
