//! Applying random histories to a real store: what lies in every table afterwards is what the model says, and it is the
//! same however often the replica was stopped in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use crate::support::{
    batches::{batch, batch_of, position},
    cases,
    histories::{History, Scene, any_history, history_within_terms},
    memory::answer,
    model::{Model, Said, Written},
    stores::{Replica, digests, rows},
};
use proptest::{collection::vec, prelude::*, sample::select};
use roam_schemas::{BatchId, ChangeId, Key, Profile, Revision, StampedChange, Terms, Timestamp};
use roam_storage::{
    apply::Verdict,
    store::{AsOf, Place, Position, ProfileKey, Reader, RecordRow, RowState, VersionRow},
};

/// How many profiles share a store.
const PROFILES: usize = 12;

/// What several profiles are told, in the order of the journal.
struct Play {
    models: BTreeMap<Profile, Model>,
    changes: Vec<(StampedChange, Said)>,
}

/// Plays histories side by side, one profile each, so that their changes share batches. The terms are the first's.
fn play(histories: &[History]) -> Play {
    let mut scenes: Vec<_> =
        (0..).zip(histories).map(|(number, history)| (Scene::new(profile(number)), history)).collect();
    let mut changes = Vec::new();
    for at in 0..histories.iter().map(|history| history.steps.len()).max().unwrap_or(0) {
        for (scene, history) in &mut scenes {
            let Some(stamped) = history.steps.get(at).and_then(|step| scene.take(step)) else { continue };
            let said = scene.model.hear(&stamped, &histories[0].terms);
            changes.push((stamped, said));
        }
    }
    let models = (0..).zip(scenes).map(|(number, (scene, _))| (profile(number), scene.model)).collect();
    Play { models, changes }
}

/// Profiles whose names are beginnings of each other.
fn profile(number: usize) -> Profile {
    let odd = ["acme/alice/mail", "acme/alice\0/mail", "acme/alice/mail\0x"];
    odd.get(number).map_or_else(|| format!("acme/alice {number}/mail"), |name| (*name).to_owned()).parse().unwrap()
}

fn said(verdict: &Verdict) -> Said {
    match verdict {
        Verdict::Decided(outcome) => Said::First(answer(outcome)),
        Verdict::Again(outcome) => Said::Again(answer(outcome)),
        Verdict::Mismatch(_) => Said::Mismatch,
    }
}

fn written(row: &VersionRow<'_>) -> Written {
    Written {
        time: row.time.as_nanos(),
        device: row.device.to_owned(),
        id: *row.change.as_bytes(),
        base: row.base.map(Revision::get),
        incarnation: row.stamp.origin.incarnation,
        sequence: row.stamp.origin.sequence,
        raw: row.stamp.time.as_nanos(),
        conflict: row.conflict,
        value: match &row.state {
            RowState::Deleted => None,
            RowState::Value { content_type, expires, value } => {
                Some(((*content_type).to_owned(), value.to_vec(), expires.map(|end| end.as_nanos())))
            }
        },
    }
}

/// All that the store says of a profile is what the model says.
fn compare(reader: &Reader, profile: &Profile, model: &Model) {
    let (key, snapshot) = (ProfileKey::new(profile), reader.snapshot());
    let head = snapshot.head(&key).unwrap().unwrap_or_default();
    assert_eq!((head.revision.get(), head.time.as_nanos()), (model.revision, model.time));
    assert_eq!((head.records, head.bytes), model.count());

    let mut records = Vec::new();
    let visit = |found: RecordRow<'_>| {
        records.push((
            found.key()?.as_str().to_owned(),
            found.place.revision.get(),
            found.place.rank,
            written(&found.row),
        ));
        Ok(ControlFlow::Continue(()))
    };
    snapshot.records(&key, "", None, visit).unwrap();
    let expected = model.records().into_iter();
    let expected: Vec<_> =
        expected.map(|(name, (revision, record))| (name.to_owned(), revision, 0, record.clone())).collect();
    assert_eq!(records, expected);

    for name in model.records().keys() {
        let mut versions = Vec::new();
        let visit = |place: Place, row: VersionRow<'_>| {
            versions.push((place.revision.get(), place.rank, written(&row)));
            Ok(ControlFlow::Continue(()))
        };
        snapshot.versions(&key, &Key::parse(*name).unwrap(), visit).unwrap();
        assert_eq!(versions, history(model, name), "versions of {name:?}");
    }

    let mut feed = Vec::new();
    let visit = |revision: Revision, name: Key| {
        feed.push((revision.get(), name.as_str().to_owned()));
        Ok(ControlFlow::Continue(()))
    };
    snapshot.feed(&key, Revision::ZERO, visit).unwrap();
    let expected: BTreeSet<_> =
        model.records().into_iter().map(|(name, (revision, _))| (revision, name.to_owned())).collect();
    assert_eq!(feed, expected.into_iter().collect::<Vec<_>>());

    for (id, decided) in &model.decided {
        let seen = snapshot.seen(&key, ChangeId::from_bytes(*id)).unwrap().expect("a decided change is seen");
        assert_eq!(answer(&seen.outcome), decided.answer);
        assert_eq!(seen.time.as_nanos(), decided.time);
    }
}

/// Newest revision first; behind each version the operations that it beat, with ranks 1, 2, ... as they came.
fn history(model: &Model, key: &str) -> Vec<(u64, u32, Written)> {
    let mut all = Vec::new();
    for ((name, revision), version) in model.versions.iter().rev().filter(|((name, _), _)| name == key) {
        all.push((*revision, 0, version.clone()));
        let late = model.late.get(&(name.clone(), *revision)).into_iter().flatten();
        all.extend((1..).zip(late).map(|(rank, late)| (*revision, rank, late.clone())));
    }
    all
}

/// The whole of table `expiry`, written by hand from its layout.
fn expected_expiry(models: &BTreeMap<Profile, Model>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let part = |text: &str| [text.replace('\0', "\0\u{2}").as_bytes(), &[0, 1]].concat();
    let mut all = BTreeSet::new();
    for (profile, model) in models {
        for (key, (_, record)) in model.records() {
            let (time, kind) = match &record.value {
                Some((_, _, Some(end))) => (*end, 1),
                Some((_, _, None)) => continue,
                None => (record.time, 2),
            };
            let names = [profile.tenant.as_str(), profile.user.as_str(), profile.app.as_str(), key];
            let names: Vec<u8> = names.into_iter().flat_map(part).collect();
            all.insert([&[kind][..], &time.to_be_bytes(), &names].concat());
        }
    }
    all.into_iter().map(|key| (key, Vec::new())).collect()
}

/// Cuts a list into pieces of these sizes, over and over.
fn cut<T: Clone>(all: &[T], sizes: &[usize]) -> Vec<Vec<T>> {
    let (mut pieces, mut rest) = (Vec::new(), all);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}

proptest! {
    #![proptest_config(cases(25))]

    #[test]
    fn every_table_holds_what_the_model_says(
        histories in vec(any_history(60), PROFILES),
        sizes in vec(1_usize..40, 1..5),
        compact_at in 0_usize..20,
    ) {
        let Play { models, changes } = play(&histories);
        let mut replica = Replica::new();
        for (index, piece) in cut(&changes, &sizes).into_iter().enumerate() {
            let (stamped, expected): (Vec<_>, Vec<_>) = piece.into_iter().unzip();
            let sequence = index as u64 + 1;
            let batch = batch_of(sequence, &histories[0].terms, stamped);
            let verdicts = replica.apply(sequence, &batch);
            prop_assert_eq!(verdicts.iter().map(said).collect::<Vec<_>>(), expected);
            if index == compact_at {
                replica.compact();
            }
            prop_assert_eq!(replica.reader().snapshot().position().unwrap(), Some(position(sequence, &batch)));
        }
        replica.compact();
        for (profile, model) in &models {
            compare(replica.reader(), profile, model);
        }
        prop_assert_eq!(rows(replica.reader(), "expiry"), expected_expiry(&models));
        let counted = digests(replica.reader()).unwrap();
        let sum = |count: fn(&Model) -> usize| models.values().map(count).sum::<usize>() as u64;
        let versions = sum(|model| model.versions.len() + model.late.values().map(Vec::len).sum::<usize>());
        prop_assert_eq!(counted["version"].rows, versions);
        prop_assert_eq!(counted["feed"].rows, sum(|model| model.records().len()));
        prop_assert_eq!(counted["seen"].rows, sum(|model| model.decided.len()));
        prop_assert_eq!(counted["head"].rows, sum(|model| usize::from(model.revision > 0)));
    }

    #[test]
    fn replicas_that_stop_and_write_at_different_points_hold_the_same(
        histories in vec(history_within_terms(60), PROFILES),
        sizes in vec(1_usize..40, 1..5),
        groups in vec(1_usize..8, 1..5),
        stops in vec(any::<bool>(), 1..9),
        compacts in any::<bool>(),
    ) {
        let Play { models, changes } = play(&histories);
        let changes: Vec<_> = changes.into_iter().map(|(stamped, _)| stamped).collect();
        let terms = &histories[0].terms;
        let batch = |(sequence, piece)| (sequence, batch_of(sequence, terms, piece));
        let batches: Vec<_> = (1..).zip(cut(&changes, &sizes)).map(batch).collect();
        let (mut straight, mut stopping) = (Replica::new(), Replica::new());
        for (group, stops) in cut(&batches, &groups).into_iter().zip(stops.iter().cycle()) {
            let each: Vec<_> = group.iter().flat_map(|(sequence, batch)| straight.apply(*sequence, batch)).collect();
            prop_assert_eq!(stopping.apply_together(&group), each);
            if *stops {
                if compacts {
                    stopping.compact();
                }
                stopping.reopen();
                // A journal is read from the stored batch on, which decides nothing again.
                let (sequence, last) = group.last().unwrap();
                let again = stopping.apply(*sequence, last);
                prop_assert!(!again.iter().any(|verdict| matches!(verdict, Verdict::Decided(_))), "{again:?}");
            }
        }
        prop_assert_eq!(digests(stopping.reader()).unwrap(), digests(straight.reader()).unwrap());
        for profile in models.keys() {
            let key = ProfileKey::new(profile);
            let digest = |replica: &Replica| replica.reader().snapshot().profile_digest(&key).unwrap();
            prop_assert_eq!(digest(&stopping), digest(&straight));
        }
    }
}

/// A second of a history becomes 100,000, more than a day: what is forgotten is only gone from disk a day later.
fn slowed(mut stamped: StampedChange) -> StampedChange {
    stamped.stamp.time = Timestamp::from_nanos(stamped.stamp.time.as_nanos() * SLOWER);
    stamped
}

const SLOWER: u64 = 100_000;

proptest! {
    #![proptest_config(cases(25))]

    #[test]
    fn what_is_gone_from_disk_makes_no_difference_to_anybody(
        histories in vec(any_history(80), 3),
        sizes in vec(1_usize..9, 1..5),
        history_seconds in select(&[10 * SLOWER, 30 * SLOWER][..]),
    ) {
        let Play { models, changes } = play(&histories);
        let Terms { seen_seconds, tombstone_seconds, .. } = histories[0].terms;
        let terms = Terms {
            seen_seconds: seen_seconds * SLOWER,
            tombstone_seconds: tombstone_seconds * SLOWER,
            history_seconds,
            history_versions: 3,
            ..histories[0].terms.clone()
        };
        let changes: Vec<_> = changes.into_iter().map(|(stamped, _)| slowed(stamped)).collect();
        let (mut hoarding, mut tidy) = (Replica::new(), Replica::new());
        let mut time = Timestamp::default();
        for (sequence, piece) in (1..).zip(cut(&changes, &sizes)) {
            time = piece.iter().map(|stamped| stamped.stamp.time).fold(time, Timestamp::max);
            let batch = batch_of(sequence, &terms, piece);
            let position = Position { published: time.as_nanos(), ..position(sequence, &batch) };
            prop_assert_eq!(hoarding.apply_at(&position, &batch), tidy.apply_at(&position, &batch));
            tidy.clean(time);
            tidy.compact();
            for profile in models.keys() {
                let key = ProfileKey::new(profile);
                let as_of = AsOf { time, terms: &terms };
                let digest = |replica: &Replica| replica.reader().snapshot().whole_digest(&key, as_of).unwrap();
                prop_assert_eq!(digest(&hoarding), digest(&tidy));
            }
        }
    }
}

#[test]
fn a_batch_under_unknown_rules_is_not_applied_and_leaves_nothing_behind() {
    let mut replica = Replica::new();
    let first = batch(1);
    replica.apply(1, &first);
    let before = digests(replica.reader()).unwrap();
    let mut unknown = batch(2);
    unknown.rules += 1;
    let error = replica.prepare(2, &unknown).err().unwrap();
    assert!(matches!(error, roam_storage::apply::ApplyError::Rules { batch, rules: 2 } if batch == unknown.id));
    assert_eq!(digests(replica.reader()).unwrap(), before);
    // Also when it comes behind one that is prepared already: none of them counts, and none is remembered.
    assert!(replica.prepare_together(&[(2, batch(2)), (3, unknown)]).is_err());
    assert_eq!(digests(replica.reader()).unwrap(), before);
    let mut straight = Replica::new();
    straight.apply(1, &first);
    assert_eq!(replica.apply(2, &batch(2)), straight.apply(2, &batch(2)));
    assert_eq!(digests(replica.reader()).unwrap(), digests(straight.reader()).unwrap());
}

#[test]
fn a_prepared_batch_is_visible_to_nobody_before_it_is_committed() {
    let mut replica = Replica::new();
    let before = digests(replica.reader()).unwrap();
    let prepared = replica.prepare(1, &batch(1)).unwrap();
    assert_eq!(digests(replica.reader()).unwrap(), before);
    replica.commit(&prepared);
    assert_ne!(digests(replica.reader()).unwrap(), before);
}

#[test]
fn a_prepared_batch_may_be_committed_again_after_a_full_disk() {
    // A commit that fails with a full disk is tried again as it is: its rows must not have been used up.
    let (mut twice, mut once) = (Replica::new(), Replica::new());
    let prepared = twice.prepare(1, &batch(1)).unwrap();
    twice.commit(&prepared);
    twice.commit(&prepared);
    once.apply(1, &batch(1));
    assert_eq!(digests(twice.reader()).unwrap(), digests(once.reader()).unwrap());
}

#[test]
fn a_row_names_the_batch_and_the_index_that_decided_it() {
    let mut replica = Replica::new();
    let batch = batch(3);
    replica.apply(3, &batch);
    for (index, stamped) in batch.changes.iter().enumerate() {
        let profile = ProfileKey::new(&stamped.profile);
        let seen = replica.reader().snapshot().seen(&profile, stamped.change.id()).unwrap().unwrap();
        assert_eq!((seen.batch, seen.index as usize), (batch.id, index));
        assert_eq!(seen.digest, stamped.digest);
        assert_ne!(seen.batch, BatchId::from_bytes([0; 16]));
    }
}
