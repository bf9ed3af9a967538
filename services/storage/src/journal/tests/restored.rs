//! What becomes of what was restored, and which backups a replica takes.

use super::*;
use crate::backup::Manifest;

#[test]
fn what_was_restored_is_not_the_whole_truth_until_an_order_says_so_and_then_begins_an_epoch() {
    let order = Resume { line: 9, from: ReplicaName::default() };
    let known = |resume, restored| Known { forked: false, resume, named: true, passed: None, restored };
    let (alone, gap) = (stream(RECREATED, 1, 9, "1"), stream(CREATED, 90, 99, "1"));
    let stands = at(50);
    let refused = start(Some(&stands), &alone, known(None, true));
    assert!(matches!(refused, Err(Halt::Forked { replicas: 1, .. })), "{refused:?}");
    for (name, state, restored, new_epoch) in [
        ("another journal", &alone, true, true),
        ("another journal, and nothing was restored", &alone, false, false),
        ("something is missing", &gap, true, true),
        ("something is missing, and nothing was restored", &gap, false, true),
        ("the journal goes on, and a line began further on", &stream(CREATED, 1, 90, "1"), true, true),
    ] {
        let start = start(Some(&stands), state, known(Some(&order), restored)).unwrap();
        assert_eq!((start.ordered, start.line, start.new_epoch), (true, 9, new_epoch), "{name}");
    }
}

#[test]
fn a_backup_is_wanted_that_the_journal_carries_forward_and_that_is_of_the_line() {
    let wanted = Wanted { incarnation: CREATED, from: 40, to: 90, line: 3 };
    let backup = |incarnation, sequence, line| Manifest {
        format: crate::backup::FORMAT,
        id: "20260301T120000.000Z-0123abcd".parse().unwrap(),
        created: roam_schemas::Timestamp::default(),
        replica: "a".to_owned(),
        version: "0.1.0".to_owned(),
        store_format: crate::store::FORMAT_VERSION,
        epoch: 0,
        position: Some((&Position { incarnation, line, ..at(sequence) }).into()),
        chunks: None,
        files: Vec::new(),
    };
    for (found, expected) in [
        (backup(CREATED, 40, 3), true),
        (backup(CREATED, 90, 4), true),
        (backup(CREATED, 39, 3), false),
        (backup(CREATED, 91, 3), false),
        (backup(CREATED, 60, 2), false),
        (backup(RECREATED, 60, 3), false),
        (Manifest { store_format: 1, ..backup(CREATED, 60, 3) }, false),
        (Manifest { position: None, ..backup(CREATED, 60, 3) }, false),
    ] {
        assert_eq!(wanted.is(&found), expected, "{found:?}");
    }
}

fn restored(highest_epoch: u64) -> Restored {
    Restored {
        backup: "20260301T120000.000Z-0123abcd".parse().unwrap(),
        created: roam_schemas::Timestamp::default(),
        replica: "a".to_owned(),
        epoch: 0,
        highest_epoch,
        restored: roam_schemas::Timestamp::default(),
        position: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_replica_begins_an_epoch_with_what_was_restored_and_says_so_in_the_journal() {
    let world = World::start().await;
    for number in 1..=2 {
        world.append_batch(number).await;
    }
    let lost = Position { incarnation: CREATED, ..world.stands_at(7, 7).await };
    let mut following = world.follow_as(Some(lost), Some(restored(4)), 0);
    for expected in [Given::Epoch(5), Given::Passed(0), Given::Batch(1, 4), Given::Batch(2, 4), Given::Control(3, 4)] {
        assert_eq!(following.next().await, expected);
    }
    following.goes_on().await;
    following.end().await;
    // Whoever comes later, and knows nothing of the backup, stops at that order.
    let mut empty = world.follow_as(None, None, roam_process::clock::now_ns());
    for expected in [Given::Passed(0), Given::Batch(1, 1), Given::Batch(2, 1)] {
        assert_eq!(empty.next().await, expected);
    }
    empty.stands_still().await;
    assert!(empty.progress.halt().unwrap().reason.contains("since line 4"));
    empty.context.shutdown.cancel();
    empty.running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_older_than_the_directory_means_the_one_before_it() {
    let world = World::of(3).await;
    let order = |line| Control::Resume(Resume { line, from: ReplicaName::default() });
    world.order(order(4)).await;
    let since = roam_process::clock::now_ns();
    let lost = Position { incarnation: CREATED, ..world.stands_at(7, 7).await };
    let mut following = world.follow_as(Some(lost), Some(restored(0)), since);
    following.stands_still().await;
    assert!(following.progress.halt().unwrap().reason.contains("since line 4"));
    world.order(order(5)).await;
    for expected in [Given::Epoch(1), Given::Passed(0), Given::Control(1, 5), Given::Control(2, 5)] {
        assert_eq!(following.next().await, expected);
    }
    following.goes_on().await;
    following.end().await;
}
