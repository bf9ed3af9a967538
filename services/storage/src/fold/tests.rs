//! Two threads that take turns come to the same as one that does one thing after the other.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::Path};

use roam_process::Context;
use roam_schemas::{Erase, Expect, Operation, Origin, Skip, StampedChange};
use tokio::task::JoinSet;

use super::*;
use crate::{
    erasure::erasures,
    fixture::{Fixture, delete, put, with_ttl},
    store::{self, Passed, Reader, StoreSettings, TABLES},
};

const PROFILES: [&str; 5] = ["acme/alice/mail", "acme/alice/todo", "acme/bob/mail", "acme/carol/mail", "acme/carol/x"];
const KEYS: u64 = 12;

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % end
    }
}

/// Batches large enough that the threads take turns, over few keys, so that each stands on the ones before; in between what is
/// no batch.
fn journal(seed: u64, entries: u64) -> Vec<Work> {
    let (mut random, mut fixture) = (Random(seed), Fixture::new());
    let (mut sent, mut journal) = (Vec::<StampedChange>::new(), Vec::new());
    for sequence in 1..=entries {
        let position = fixture.position(sequence);
        journal.push(match random.below(40) {
            0 => Work::Clean,
            1 => {
                let erase = Erase { tenant: fixture.profile.tenant.clone(), user: fixture.profile.user.clone() };
                Work::Control(position, Control::Erase(erase))
            }
            2 => Work::Control(position, Control::Skip(Skip { origin: Origin::default(), batch: None })),
            3 => Work::PassedOver(passed(sequence)),
            _ => {
                let count = 1 + random.below(3 * WORTH_A_TURN as u64);
                let changes = (0..count).map(|_| change(&mut random, &mut fixture, &mut sent)).collect();
                Work::Batch(position.clone(), fixture.journal_batch(&position, changes))
            }
        });
    }
    journal
}

/// An entry of that journal that had nothing to apply.
fn passed(sequence: u64) -> Passed {
    Passed { incarnation: 1, line: 1, sequence }
}

/// A change to some keys, or one that was sent before.
fn change(random: &mut Random, fixture: &mut Fixture, sent: &mut Vec<StampedChange>) -> StampedChange {
    if !sent.is_empty() && random.below(6) == 0 {
        return random.one_of(&sent[sent.len().saturating_sub(80)..]).clone();
    }
    let first = random.below(KEYS);
    let operation = |random: &mut Random, key: u64| {
        let name = format!("key {}", key % KEYS);
        match random.below(6) {
            0 => delete(&name),
            1 => with_ttl(put(&name, "for a while"), 30),
            2 => Operation { expect: Expect::Absent, ..put(&name, "new") },
            _ => put(&name, format!("value {}", random.below(1_000))),
        }
    };
    let ops = (first..=first + random.below(3)).map(|key| operation(random, key)).collect();
    let base = (random.below(4) == 0).then(|| random.below(200));
    let mut change = fixture.change(base, ops);
    change.profile = random.one_of(&PROFILES).parse().unwrap();
    if random.below(8) == 0 {
        // One that was on its way for long.
        change.stamp.time = Timestamp::from_nanos(change.stamp.time.as_nanos() / 2);
    }
    sent.push(change.clone());
    change
}

/// All that a store holds.
fn digests(reader: &Reader) -> Vec<(&'static str, store::Digest)> {
    let tables = TABLES.into_iter().filter(|table| *table != "meta");
    tables.map(|table| (table, reader.snapshot().table_digest(table).unwrap())).collect()
}

/// Has the threads apply it, and gives what the store holds and how far it was told to be applied.
async fn by_turns(journal: Vec<Work>) -> (Vec<(&'static str, store::Digest)>, u64) {
    let directory = tempfile::tempdir().unwrap();
    let (reader, applied) = by_turns_in(directory.path(), journal).await;
    (digests(&reader), applied)
}

/// The same with a store that stays.
async fn by_turns_in(directory: &Path, journal: Vec<Work>) -> (Reader, u64) {
    let (writer, reader) = store::open(directory, &StoreSettings::default()).unwrap();
    let context = Context::new(Duration::from_secs(5));
    let (erasures, _compactor, _given_up) = erasures(reader.clone(), context.shutdown.clone());
    let (stuck, _) = watch::channel(None);
    let progress = Progress::default();
    let fold = Fold {
        applier: Applier::new(writer, reader.clone()).unwrap(),
        progress: progress.clone(),
        metrics: Metrics::new(&context.metrics),
        condition: context.health.condition("store"),
        room: Room::default(),
        shutdown: context.shutdown.clone(),
        stuck,
        erasures,
    };
    let (work, batches) = mpsc::channel(4);
    let mut running = JoinSet::new();
    running.spawn(fold.run(batches));
    for entry in journal {
        work.send(entry).await.ok().unwrap();
    }
    drop(work);
    context.shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    (reader, progress.applied_to())
}

/// Applies it by hand.
fn one_after_the_other(journal: Vec<Work>) -> Vec<(&'static str, store::Digest)> {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(directory.path(), &StoreSettings::default()).unwrap();
    let mut applier = Applier::new(writer, reader.clone()).unwrap();
    for entry in journal {
        match entry {
            Work::Batch(position, batch) => {
                let prepared = applier.prepare(&batch, &position).unwrap();
                applier.commit(&prepared).unwrap();
            }
            Work::Control(position, control) => drop(applier.control(&control, &position).unwrap()),
            _ => {}
        }
    }
    digests(&reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_turns_comes_to_the_same() {
    const ENTRIES: u64 = 250;
    for seed in 1..=4 {
        let (held, applied) = by_turns(journal(seed, ENTRIES)).await;
        assert_eq!(held, one_after_the_other(journal(seed, ENTRIES)), "seed {seed}");
        assert!(applied + 10 >= ENTRIES, "{applied}");
        assert!(held.iter().map(|(_, digest)| digest.rows).collect::<BTreeSet<_>>().len() > 2, "{held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_passed_over_is_written_down_while_it_is_the_last_and_the_position_stays() {
    let mut fixture = Fixture::new();
    let mut write = |sequence| {
        let position = fixture.position(sequence);
        let changes = vec![fixture.change(None, vec![put("key", "value")])];
        Work::Batch(position.clone(), fixture.journal_batch(&position, changes))
    };
    let stored = |reader: &Reader| {
        let position = reader.snapshot().position().unwrap().map(|position| position.sequence);
        (position, reader.snapshot().passed().unwrap())
    };
    let directory = tempfile::tempdir().unwrap();
    let journal = vec![write(1), Work::PassedOver(passed(2)), Work::PassedOver(passed(3)), Work::Clean];
    let (reader, applied) = by_turns_in(directory.path(), journal).await;
    assert_eq!((stored(&reader), applied), ((Some(1), Some(passed(3))), 3));
    drop(reader);
    let journal = vec![Work::PassedOver(passed(4)), write(5), Work::Clean];
    let (reader, applied) = by_turns_in(directory.path(), journal).await;
    assert_eq!((stored(&reader), applied), ((Some(5), Some(passed(3))), 5), "the batch says the same");
    drop(reader);
    let journal = vec![Work::PassedOver(passed(7)), Work::Clean];
    let (reader, _) = by_turns_in(directory.path(), journal).await;
    assert_eq!(stored(&reader), (Some(5), Some(passed(7))));
    drop(reader);
    // The journal was rolled back to 5: 6 is another entry than before, and so would 7 be.
    let (reader, applied) = by_turns_in(directory.path(), vec![write(6), Work::Clean]).await;
    assert_eq!((stored(&reader), applied), ((Some(6), None), 6));
}
