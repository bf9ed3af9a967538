//! Who is woken, and what is remembered.
#![allow(clippy::unwrap_used)]

use futures_util::FutureExt;
use roam_schemas::{BatchId, Halted, JournalBatch, Profile, RULES, Remedy, Terms};

use super::*;
use crate::fixture::{Fixture, put};

fn batch(sequence: u64) -> AppliedBatch {
    let id = BatchId::from_bytes(u128::from(sequence).to_be_bytes());
    let batch = JournalBatch { id, rules: RULES, terms: Terms::default(), quotas: Vec::new(), changes: Vec::new() };
    AppliedBatch { sequence, batch, verdicts: Vec::new() }
}

fn profile(name: &str) -> ProfileKey {
    ProfileKey::new(&format!("acme/{name}/mail").parse::<Profile>().unwrap())
}

/// As many waiters as there are, by both counts.
fn waiters(progress: &Progress) -> usize {
    let counted = progress.shared.waiters.load(Ordering::Acquire);
    assert_eq!(lock(&progress.shared.waiting).values().map(Vec::len).sum::<usize>(), counted);
    counted
}

#[test]
fn a_sequence_is_reached_once_it_is_applied_or_passed() {
    let progress = Progress::default();
    assert!(progress.reached(0).now_or_never().is_some());
    assert!(progress.reached(1).now_or_never().is_none());
    progress.passed(1);
    assert!(progress.reached(1).now_or_never().is_some());
    progress.applied([batch(2), batch(3)].into_iter(), &Vec::new());
    assert!(progress.reached(3).now_or_never().is_some());
    assert!(progress.reached(4).now_or_never().is_none());
}

#[test]
fn a_replica_is_current_while_it_follows_the_journal_and_has_what_was_there_when_it_began() {
    let progress = Progress::default();
    assert!(progress.current().now_or_never().is_none(), "it does not follow yet");
    assert!(progress.outdated().now_or_never().is_some());
    progress.follows(Some(2));
    assert!(progress.current().now_or_never().is_none(), "nothing is applied yet");
    assert!(progress.outdated().now_or_never().is_none());
    progress.passed(2);
    assert!(progress.current().now_or_never().is_some());
    progress.set_halted(Some(Halted { reason: "a gap".to_owned(), remedy: Remedy::BackupOrResume }));
    assert!(progress.current().now_or_never().is_none() && progress.outdated().now_or_never().is_some());
    progress.set_halted(None);
    assert!(progress.current().now_or_never().is_some() && progress.outdated().now_or_never().is_none());
    progress.follows(None);
    assert!(progress.current().now_or_never().is_none() && progress.outdated().now_or_never().is_some());
}

#[test]
fn whoever_becomes_current_waits_for_the_newest_beginning() {
    let progress = Progress::default();
    progress.follows(Some(2));
    let mut current = std::pin::pin!(progress.current());
    assert!(current.as_mut().now_or_never().is_none());
    progress.follows(None);
    progress.passed(2);
    assert!(current.as_mut().now_or_never().is_none(), "more may have come meanwhile");
    progress.follows(Some(3));
    assert!(current.as_mut().now_or_never().is_none());
    progress.passed(3);
    assert!(current.as_mut().now_or_never().is_some());
}

#[test]
fn whoever_waits_is_woken_at_the_revision_and_not_before() {
    let progress = Progress::default();
    let mut third = progress.revision(&profile("a"), Revision::new(3));
    let mut fifth = progress.revision(&profile("a"), Revision::new(5));
    let mut other = progress.revision(&profile("b"), Revision::new(1));
    assert_eq!(waiters(&progress), 3);
    progress.applied([batch(1)].into_iter(), &vec![(profile("a"), Revision::new(2))]);
    assert!((&mut third).now_or_never().is_none());
    progress.applied([batch(2)].into_iter(), &vec![(profile("a"), Revision::new(4))]);
    assert_eq!((&mut third).now_or_never(), Some(Ok(())));
    assert!((&mut fifth).now_or_never().is_none());
    assert!((&mut other).now_or_never().is_none());
    assert_eq!(waiters(&progress), 2);
    progress.applied([batch(3)].into_iter(), &vec![(profile("a"), Revision::new(5)), (profile("b"), Revision::new(9))]);
    assert_eq!((&mut fifth).now_or_never(), Some(Ok(())));
    assert_eq!((&mut other).now_or_never(), Some(Ok(())));
    assert_eq!(waiters(&progress), 0);
    assert!(lock(&progress.shared.waiting).is_empty());
}

#[test]
fn those_who_gave_up_waiting_are_forgotten() {
    let progress = Progress::default();
    let mut patient = progress.revision(&profile("patient"), Revision::new(9));
    for number in 0..100 {
        drop(progress.revision(&profile(&format!("{number}")), Revision::new(9)));
        drop(progress.revision(&profile("patient"), Revision::new(9)));
    }
    assert_eq!(waiters(&progress), 1);
    assert_eq!(lock(&progress.shared.waiting).len(), 1, "of all those profiles nothing is left");
    progress.applied([batch(1)].into_iter(), &vec![(profile("patient"), Revision::new(9))]);
    assert_eq!((&mut patient).now_or_never(), Some(Ok(())));
    drop(patient);
    assert_eq!(waiters(&progress), 0);
    assert!(lock(&progress.shared.waiting).is_empty());
}

#[test]
fn the_last_batches_are_remembered_and_older_ones_forgotten() {
    let progress = Progress::default();
    let many = REMEMBERED_BATCHES as u64 + 10;
    // Not every entry of the journal is a batch.
    progress.applied((1..=many).map(|number| batch(number * 2)), &Vec::new());
    assert!(progress.recent(20).is_none());
    assert_eq!(progress.recent(22).unwrap().sequence, 22);
    assert_eq!(progress.recent(many * 2).unwrap().sequence, many * 2);
    assert!(progress.recent(many * 2 - 1).is_none());
    assert!(progress.recent(many * 2 + 2).is_none());
}

#[test]
fn what_is_announced_is_forgotten() {
    let progress = Progress::default();
    progress.applied((1..=9).map(batch), &Vec::new());
    progress.announced(&[1, 2, 5, 70]);
    let known: Vec<_> = (1..=9).filter(|sequence| progress.recent(*sequence).is_some()).collect();
    assert_eq!(known, [3, 4, 6, 7, 8, 9]);
    progress.announced(&[3, 4, 6, 7, 8, 9]);
    assert_eq!(lock(&progress.shared.recent).bytes, 0);
    progress.applied([batch(5)].into_iter(), &Vec::new());
    assert_eq!(progress.recent(5).unwrap().sequence, 5);
}

#[test]
fn large_batches_are_forgotten_sooner() {
    let mut fixture = Fixture::new();
    let large = fixture.write_each((0..8).map(|number| put(&format!("{number}"), "x".repeat(100_000))));
    let fit = (REMEMBERED_BYTES / large.weight()) as u64;
    assert!((25..32).contains(&fit), "{fit} batches of 800 kB");
    let progress = Progress::default();
    let batches = (1..=100).map(|sequence| AppliedBatch { sequence, batch: large.batch.clone(), verdicts: Vec::new() });
    progress.applied(batches, &Vec::new());
    assert!(progress.recent(100 - fit).is_none());
    assert!(progress.recent(100 - fit + 1).is_some());
}

#[test]
fn a_new_line_of_the_journal_forgets_the_batches_of_the_old_one() {
    let progress = Progress::default();
    progress.applied((1..=9).map(batch), &Vec::new());
    progress.applied([batch(5)].into_iter(), &Vec::new());
    assert!(progress.recent(4).is_none());
    assert!(progress.recent(9).is_none());
    assert_eq!(progress.recent(5).unwrap().sequence, 5);
    assert!(progress.reached(6).now_or_never().is_none());
}
