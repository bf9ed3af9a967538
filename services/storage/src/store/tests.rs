//! What lies on disk, byte by byte. A store that was written by an earlier build must stay readable: whoever changes one
//! of these changes the format.
#![allow(clippy::unwrap_used)]

use roam_schemas::{
    Applied, BatchId, ChangeId, Code, Key, Origin, Outcome, Problem, Profile, Revision, Stamp, Terms, Timestamp,
};

use super::{expiry::Ending, *};

const ID: [u8; 16] = [0xA1; 16];

fn profile() -> ProfileKey {
    ProfileKey::new(&"t\0/u/é".parse::<Profile>().unwrap())
}

fn record() -> RecordKey {
    profile().record(&Key::parse("a\0b").unwrap())
}

const PROFILE: &[u8] = b"t\0\x02\0\x01u\0\x01\xC3\xA9\0\x01";
const KEY: &[u8] = b"a\0\x02b\0\x01";

#[test]
fn the_hint_of_the_memtable_is_understood() {
    rocksdb::Options::default().get_options_from_string(options::HINTED_BY).unwrap();
}

/// Whoever waits for it may put another directory in its place: RocksDB holds the lock, and removes files, until it has closed.
#[test]
fn a_store_that_is_said_to_be_closed_can_be_opened_again_at_once() {
    let place = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let (writer, reader) = open(place.path(), &StoreSettings::default()).unwrap();
        let closed = reader.closed();
        drop(writer);
        assert!(!closed.is_cancelled(), "somebody reads still");
        std::thread::scope(|scope| {
            scope.spawn(move || drop(reader));
            // At once, not once a runtime gets to it.
            while !closed.is_cancelled() {
                std::hint::spin_loop();
            }
            assert!(open(place.path(), &StoreSettings::default()).is_ok(), "it was said to be closed");
        });
    }
}

#[test]
fn keys_of_rows_stay_as_they_are() {
    assert_eq!(profile().as_bytes(), PROFILE);
    assert_eq!(record().as_bytes(), [PROFILE, KEY].concat());
    let place = Place { revision: Revision::new(0x0102), rank: 3 };
    let inverted = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFD];
    assert_eq!(version::key(&record(), place), [PROFILE, KEY, &inverted, &[0, 0, 0, 3]].concat());
    let revision = [0, 0, 0, 0, 0, 0, 1, 2];
    assert_eq!(feed::key(&record(), place.revision), [PROFILE, &revision, KEY].concat());
    assert_eq!(seen::key(&profile(), ChangeId::from_bytes(ID)), [PROFILE, &ID].concat());
    let time = Timestamp::from_nanos(0x0102);
    for (ending, kind) in [(Ending::Record, 1), (Ending::Tombstone, 2)] {
        assert_eq!(expiry::key(time, ending, &record()), [&[kind][..], &revision, PROFILE, KEY].concat());
    }
}

#[test]
fn a_version_stays_as_it_is() {
    let row = VersionRow {
        time: Timestamp::from_nanos(1),
        device: "d",
        change: ChangeId::from_bytes(ID),
        base: Some(Revision::new(2)),
        stamp: Stamp { time: Timestamp::from_nanos(3), origin: Origin { incarnation: 4, sequence: 300 } },
        conflict: true,
        state: RowState::Value { content_type: "c", expires: Some(Timestamp::from_nanos(6)), value: b"v\0" },
    };
    let head = [&[1, 1, 1, b'd', 16], &ID[..], &[1, 2, 3, 4, 0xAC, 0x02, 1]].concat();
    let bytes = [&head[..], &[0, 1, b'c', 1, 6, 2, b'v', 0]].concat();
    assert_eq!(row.write().unwrap(), bytes);
    assert_eq!(VersionRow::read(&bytes).unwrap(), row);
    let row = VersionRow { state: RowState::Deleted, ..row };
    let bytes = [&head[..], &[1]].concat();
    assert_eq!(row.write().unwrap(), bytes);
    assert_eq!(VersionRow::read(&bytes).unwrap(), row);
}

#[test]
fn a_decided_change_stays_as_it_is() {
    let (revision, time) = (Revision::new(5), Timestamp::from_nanos(6));
    let applied = Applied { revision, time, conflicts: Vec::new(), superseded: Vec::new(), nearly_full: false };
    let head = [&[1, 16], &ID[..], &[2], &[0xD1; 16], &[3]].concat();
    let row = |outcome| Seen {
        batch: BatchId::from_bytes(ID),
        index: 2,
        digest: [0xD1; 16],
        time: Timestamp::from_nanos(3),
        outcome,
    };
    let cases = [
        (Outcome::Applied(applied), vec![0, 5, 6, 0, 0, 0]),
        // The code by its place in the list of codes.
        (Outcome::Rejected(Problem::new(Code::Conflict, "m").with_limit(7, 8)), vec![1, 3, 1, b'm', 0, 1, 7, 1, 8, 0]),
    ];
    for (outcome, tail) in cases {
        let (row, bytes) = (row(outcome), [head.clone(), tail].concat());
        assert_eq!(row.write().unwrap(), bytes);
        assert_eq!(Seen::read(&bytes).unwrap(), row);
    }
}

#[test]
fn heads_and_positions_stay_as_they_are() {
    let head = Head { revision: Revision::new(1), time: Timestamp::from_nanos(2), records: 3, bytes: 4 };
    assert_eq!(head.write().unwrap(), [1, 1, 2, 3, 4]);
    assert_eq!(Head::read(&[1, 1, 2, 3, 4]).unwrap(), head);
    let terms = Terms {
        seen_seconds: 6,
        tombstone_seconds: 7,
        history_seconds: 8,
        history_versions: 9,
        profile_records: 10,
        profile_bytes: 11,
        user_profiles: 12,
    };
    let position =
        Position { incarnation: 1, sequence: 2, batch: BatchId::from_bytes(ID), published: 4, line: 5, terms };
    let bytes = [&[1, 1, 2, 16], &ID[..], &[4, 5, 6, 7, 8, 9, 10, 11, 12]].concat();
    assert_eq!(position.write().unwrap(), bytes);
    assert_eq!(Position::read(&bytes).unwrap(), position);
    let passed = Passed { incarnation: 1, line: 2, sequence: 3 };
    assert_eq!(passed.write().unwrap(), [1, 1, 2, 3]);
    assert_eq!(Passed::read(&[1, 1, 2, 3]).unwrap(), passed);
}

#[test]
fn a_row_of_another_layout_or_a_broken_one_is_said() {
    assert!(matches!(Head::read(&[2, 1, 2, 3, 4]), Err(StoreError::Layout { table: "head", layout: 2 })));
    assert!(matches!(Head::read(&[1, 1, 2, 3]), Err(StoreError::Damaged { table: "head", .. })));
    assert!(matches!(Head::read(&[]), Err(StoreError::Damaged { table: "head", .. })));
    assert!(matches!(version::place(&[0; 11]), Err(StoreError::Damaged { .. })));
    assert!(matches!(version::split_place(&[0; 11]), Err(StoreError::Damaged { .. })));
    assert!(matches!(version::read_key(PROFILE), Err(StoreError::Damaged { .. })));
    assert!(matches!(feed::revision_and_key(&[0; 8]), Err(StoreError::Damaged { .. })));
    assert!(matches!(feed::revision_and_key(&[&[0; 8], KEY, b"x"].concat()), Err(StoreError::Damaged { .. })));
}
