//! The store: what a snapshot sees, what scans hand out, what is left in the tables after many overwrites, and which
//! directories do not open.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
};

use crate::support::{
    batches::{Random, batch, batch_of, one, put},
    cases,
    stores::{Replica, open, rows},
};
use proptest::{collection::btree_set, option, prelude::*, test_runner::TestRunner};
use roam_schemas::{
    Action, ChangeId, ContentType, Expect, Key, Operation, Origin, Put, Revision, StampedChange, Terms, Timestamp,
    Value,
};
use roam_storage::store::{Place, ProfileKey, Reader, RecordRow, Snapshot, StoreError, TABLES, VersionRow};

const PROFILE: &str = "acme/alice/mail";

fn key_of(profile: &str) -> ProfileKey {
    ProfileKey::new(&profile.parse().unwrap())
}

/// The keys that a scan hands out, and the revisions of their records.
fn scan(snapshot: &Snapshot<'_>, profile: &str, prefix: &str, after: Option<&str>) -> Vec<(String, u64)> {
    let after = after.map(|key| Key::parse(key).unwrap());
    let mut found = Vec::new();
    let visit = |row: RecordRow<'_>| {
        assert_eq!(row.place.rank, 0, "only a version that was not too late is a record");
        found.push((row.key()?.as_str().to_owned(), row.place.revision.get()));
        Ok(ControlFlow::Continue(()))
    };
    snapshot.records(&key_of(profile), prefix, after.as_ref(), visit).unwrap();
    found
}

/// Everything that a snapshot can be asked.
fn all_of(snapshot: &Snapshot<'_>) -> String {
    let key = key_of(PROFILE);
    let mut feed = Vec::new();
    let visit = |revision: Revision, key: Key| {
        feed.push((revision, key));
        Ok(ControlFlow::Continue(()))
    };
    snapshot.feed(&key, Revision::ZERO, visit).unwrap();
    let mut versions = Vec::new();
    let visit = |place, row: VersionRow<'_>| {
        versions.push(format!("{place:?} {row:?}"));
        Ok(ControlFlow::Continue(()))
    };
    snapshot.versions(&key, &Key::parse("a").unwrap(), visit).unwrap();
    let seen = [1, 2, 3].map(|id: u128| snapshot.seen(&key, ChangeId::from_bytes(id.to_be_bytes())).unwrap());
    let digests = TABLES.map(|table| snapshot.table_digest(table).unwrap());
    format!(
        "{:?} {:?} {feed:?} {versions:?} {seen:?} {:?} {digests:?} {:?}",
        snapshot.position().unwrap(),
        snapshot.head(&key).unwrap(),
        scan(snapshot, PROFILE, "", None),
        snapshot.profile_digest(&key).unwrap(),
    )
}

#[test]
fn a_snapshot_sees_one_state_whatever_is_written_after_it() {
    let mut replica = Replica::new();
    let change = |sequence, changes| batch_of(sequence, &Terms::default(), changes);
    replica.apply(1, &change(1, vec![put(PROFILE, 1, "a", "1"), put(PROFILE, 2, "b", "1")]));
    let reader = replica.reader().clone();
    let snapshot = reader.snapshot();
    let before = all_of(&snapshot);
    let delete = one(PROFILE, 4, Operation::delete(Key::parse("b").unwrap()));
    replica.apply(2, &change(2, vec![put(PROFILE, 3, "a", "2"), delete]));
    assert_eq!(all_of(&snapshot), before);
    replica.compact();
    assert_eq!(all_of(&snapshot), before);
    assert_ne!(all_of(&reader.snapshot()), before);
}

#[test]
fn a_scan_hands_out_each_record_once_however_many_versions_it_has() {
    // A scan steps over a few versions and seeks past more: lengths on both sides of that.
    let lengths = [1_usize, 2, 3, 4, 5, 6, 7, 60, 1, 9];
    let mut replica = Replica::new();
    let (mut sequence, mut expected) = (0, Vec::new());
    for (name, length) in ('a'..).zip(lengths) {
        for _ in 0..length {
            sequence += 1;
            let change = put(PROFILE, sequence, &name.to_string(), "value");
            replica.apply(sequence, &batch_of(sequence, &Terms::default(), vec![change]));
        }
        expected.push((name.to_string(), sequence));
    }
    for _ in 0..2 {
        assert_eq!(scan(&replica.reader().snapshot(), PROFILE, "", None), expected);
        assert_eq!(scan(&replica.reader().snapshot(), PROFILE, "", Some("c")), expected[3..]);
        assert_eq!(scan(&replica.reader().snapshot(), PROFILE, "h", None), expected[7..8]);
        replica.compact();
    }
}

/// Keys that are beginnings of each other, with the bytes that have a meaning in the keys of rows among them.
fn any_key() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&['\0', '\u{1}', '\u{2}', 'a', 'b', 'é', '\u{10FFFF}'][..]), 1..5)
        .prop_map(String::from_iter)
}

#[test]
fn a_scan_finds_exactly_the_keys_that_begin_with_the_prefix_and_come_after() {
    let replica = RefCell::new(Replica::new());
    let made = Cell::new(0);
    let next = || made.replace(made.get() + 1) + 1;
    let inputs = (btree_set(any_key(), 0..12), option::of(any_key()), option::of(any_key()), 0_u8..4);
    let outcome = TestRunner::new(cases(400)).run(&inputs, |(keys, prefix, after, number)| {
        let mut replica = replica.borrow_mut();
        // Neighbours whose names begin alike hold the same keys.
        let name = format!("t{}/u/a", next());
        let profiles = [name.clone(), format!("{name}\0"), format!("{name}\u{1}"), name.replace("/u/", "/u\0/")];
        for profile in &profiles {
            let changes: Vec<_> = keys.iter().map(|key| put(profile, next(), key, "value")).collect();
            let sequence = next();
            replica.apply(sequence, &batch_of(sequence, &Terms::default(), changes));
        }
        let profile = &profiles[usize::from(number)];
        let prefix = prefix.unwrap_or_default();
        let found = scan(&replica.reader().snapshot(), profile, &prefix, after.as_deref());
        let comes_after = |key: &&String| after.as_ref().is_none_or(|after| *key > after);
        let expected: Vec<&String> = keys.iter().filter(comes_after).filter(|key| key.starts_with(&prefix)).collect();
        prop_assert_eq!(found.iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
        for key in &keys {
            let snapshot = replica.reader().snapshot();
            let mut known = false;
            let visit = |_, found: Option<(Place, VersionRow<'_>)>| {
                known = found.is_some();
                Ok(ControlFlow::Continue(()))
            };
            snapshot.records_of(&key_of(profile), [&Key::parse(key.as_str()).unwrap()], visit).unwrap();
            prop_assert!(known, "{:?}", key);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// A put that ends at a whole second, whenever it is applied: rows of `expiry` come, go and come again.
fn ending(sequence: u64, key: &str, end: u64) -> StampedChange {
    let ttl = Some(u32::try_from(end - sequence).unwrap());
    let action = Action::Put(Put { value: Value::new("value"), content_type: ContentType::text(), ttl });
    one(PROFILE, sequence, Operation { key: Key::parse(key).unwrap(), action, expect: Expect::Any })
}

#[test]
fn every_record_has_one_row_in_feed_and_in_expiry_after_many_overwrites() {
    const END: u64 = 100_000;
    let mut replica = Replica::new();
    let mut random = Random(0x5EED);
    let mut newest: BTreeMap<String, (u64, u64, u8)> = BTreeMap::new();
    let mut sequence = 0;
    for round in 1..=60_u64 {
        // Old states that somebody still reads keep compactions from dropping what they would drop otherwise.
        let reader = replica.reader().clone();
        let held = reader.snapshot();
        let changes = (0..40).map(|_| {
            sequence += 1;
            let key = format!("key {}", random.below(12));
            let (change, end, kind) = match random.below(4) {
                0 => (one(PROFILE, sequence, Operation::delete(Key::parse(&key).unwrap())), sequence, 2),
                // Often the very end that the record had before, or one before that.
                _ => (ending(sequence, &key, END + random.below(2)), 0, 1),
            };
            let end = if kind == 1 { ttl_end(&change, sequence) } else { end };
            newest.insert(key, (sequence, end, kind));
            change
        });
        let changes = changes.collect();
        replica.apply(round, &batch_of(round, &Terms::default(), changes));
        assert_eq!(held.head(&key_of(PROFILE)).unwrap().unwrap_or_default().revision.get(), (round - 1) * 40);
        drop(held);
        drop(reader);
        match round % 7 {
            // Opening writes what was in memory to a file of the youngest level.
            1 | 3 | 4 => replica.reopen(),
            6 => replica.compact(),
            _ => {}
        }
        check_rows(replica.reader(), &newest);
    }
}

fn ttl_end(change: &StampedChange, sequence: u64) -> u64 {
    match &change.change.ops()[0].action {
        Action::Put(put) => sequence + u64::from(put.ttl.unwrap()),
        Action::Delete => sequence,
    }
}

fn check_rows(reader: &Reader, newest: &BTreeMap<String, (u64, u64, u8)>) {
    let profile = key_of(PROFILE);
    let escaped = |key: &str| [key.as_bytes(), &[0, 1]].concat();
    let feed: BTreeSet<Vec<u8>> = newest
        .iter()
        .map(|(key, (revision, ..))| [profile.as_bytes(), &revision.to_be_bytes(), &escaped(key)].concat())
        .collect();
    let expiry: BTreeSet<Vec<u8>> = newest
        .iter()
        .map(|(key, (_, end, kind))| {
            [&[*kind][..], &(end * 1_000_000_000).to_be_bytes(), profile.as_bytes(), &escaped(key)].concat()
        })
        .collect();
    let keys = |table| rows(reader, table).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys("feed"), feed.into_iter().collect::<Vec<_>>());
    assert_eq!(keys("expiry"), expiry.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_digest_tells_replicas_apart_that_differ_in_one_byte() {
    let digest = |value: &str| {
        let mut replica = Replica::new();
        replica.apply(1, &batch_of(1, &Terms::default(), vec![put(PROFILE, 1, "a", value)]));
        let snapshot = replica.reader().snapshot();
        (snapshot.profile_digest(&key_of(PROFILE)).unwrap(), snapshot.table_digest("version").unwrap())
    };
    let (one, other) = (digest("1"), digest("2"));
    assert_eq!(one, digest("1"));
    assert_ne!(one.0, other.0);
    assert_ne!(one.1, other.1);
    assert_eq!((one.0.rows, one.1.rows), (2, 1));
}

#[test]
fn a_profile_digest_is_of_what_it_holds_and_not_of_its_past() {
    let mut replica = Replica::new();
    let changes = vec![
        put(PROFILE, 1, "a", "1"),
        put(PROFILE, 2, "a", "2"),
        one(PROFILE, 3, Operation::delete(Key::parse("b").unwrap())),
        put("acme/alice/other", 4, "a", "1"),
    ];
    replica.apply(1, &batch_of(1, &Terms::default(), changes));
    let snapshot = replica.reader().snapshot();
    assert_eq!(snapshot.profile_digest(&key_of(PROFILE)).unwrap().rows, 2, "the head, and the value of `a`");
    assert_eq!(snapshot.profile_digest(&key_of("acme/alice/never written")).unwrap().rows, 0);
}

#[test]
fn a_late_operation_is_kept_behind_the_version_that_beat_it_and_is_never_the_record() {
    let mut replica = Replica::new();
    let mut late = put(PROFILE, 1, "a", "late");
    late.stamp.origin = Origin { incarnation: 3, sequence: 1 };
    late.stamp.time = Timestamp::from_nanos(1);
    replica.apply(1, &batch_of(1, &Terms::default(), vec![put(PROFILE, 9, "a", "first"), late]));
    replica.compact();
    let mut places = Vec::new();
    let visit = |place: Place, row: VersionRow<'_>| {
        places.push((place.revision.get(), place.rank, row.time.as_nanos()));
        Ok(ControlFlow::Continue(()))
    };
    let snapshot = replica.reader().snapshot();
    snapshot.versions(&key_of(PROFILE), &Key::parse("a").unwrap(), visit).unwrap();
    assert_eq!(places, [(1, 0, 9_000_000_000), (1, 1, 1)]);
    assert_eq!(scan(&snapshot, PROFILE, "", None), [("a".to_owned(), 1)]);
}

/// Writes the row `format` of a store that is closed.
fn write_format(directory: &Path, format: &[u8]) {
    let options = rocksdb::Options::default();
    let tables = rocksdb::DB::list_cf(&options, directory).unwrap();
    let db = rocksdb::DB::open_cf(&options, directory, tables).unwrap();
    db.put_cf(db.cf_handle("meta").unwrap(), "format", format).unwrap();
}

#[test]
fn a_directory_of_another_format_does_not_open() {
    let mut replica = Replica::new();
    replica.apply(1, &batch(1));
    let directory = replica.close();
    let refusal = |format: &[u8]| {
        write_format(directory.path(), format);
        open(directory.path()).err()
    };
    assert!(matches!(refusal(&[1, 1]), Some(StoreError::Format { found: 1 })));
    assert!(matches!(refusal(&[1, 0]), Some(StoreError::Format { found: 0 })));
    assert!(matches!(refusal(&[2, 1]), Some(StoreError::Layout { table: "meta", layout: 2 })));
    assert!(matches!(refusal(&[]), Some(StoreError::Damaged { table: "meta", .. })));
    assert!(refusal(&[1, 2]).is_none());
}

#[test]
fn a_directory_is_open_once() {
    let replica = Replica::new();
    assert!(matches!(open(replica.path()), Err(StoreError::Engine(_))));
}

#[test]
fn a_directory_that_cannot_be_made_is_said() {
    let replica = Replica::new();
    let file = replica.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(StoreError::Directory(_))));
    assert!(matches!(open(&file.join("below")), Err(StoreError::Directory(_))));
}
