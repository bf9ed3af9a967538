//! What goes, when it goes, and what never does.
#![allow(clippy::unwrap_used)]

use roam_schemas::{Operation, Revision};

use super::*;
use crate::{
    fixture::{Fixture, key, put, seconds},
    store::forget::VersionFilter,
};

const DAY: u64 = 24 * 3600;

fn rows(fixture: &Fixture, table: &'static str) -> u64 {
    fixture.reader.snapshot().table_digest(table).unwrap().rows
}

fn counts(fixture: &Fixture) -> [u64; 3] {
    ["version", "feed", "expiry"].map(|table| rows(fixture, table))
}

#[test]
fn a_tombstone_goes_a_day_after_its_term_with_all_that_is_behind_it() {
    let mut fixture = Fixture::new();
    fixture.write_each(["a", "a", "b"].map(|name| put(name, "v")));
    fixture.write(vec![Operation::delete(key("a"))]);
    let profile = fixture.reader.snapshot().profile_digest(&fixture.key()).unwrap();
    assert_eq!(counts(&fixture), [4, 2, 1]);
    // The tombstone was written 4 seconds after 1970; the term is 30 days.
    assert_eq!(fixture.clean(seconds(31 * DAY + 3)), 0);
    assert_eq!((counts(&fixture), fixture.reader.horizon().tombstones), ([4, 2, 1], seconds(3)));
    assert_eq!(fixture.clean(seconds(31 * DAY + 100)), 1);
    assert_eq!(counts(&fixture), [1, 1, 0]);
    assert_eq!(
        fixture.reader.snapshot().profile_digest(&fixture.key()).unwrap(),
        profile,
        "nobody sees the difference"
    );
    // What comes later finds nothing, and goes its way.
    fixture.write(vec![put("a", "new")]);
    assert_eq!(counts(&fixture), [2, 2, 0]);
}

#[test]
fn no_more_go_at_once_than_may_and_the_rest_goes_next_time() {
    let mut fixture = Fixture::new();
    fixture.write((0..10).map(|number| Operation::delete(key(&format!("{number}")))).collect());
    let gone: Vec<_> = (0..4).map(|_| fixture.clean_some(seconds(40 * DAY), 4)).collect();
    assert_eq!(gone, [4, 4, 2, 0]);
}

#[test]
fn the_horizon_only_rises_and_survives_a_restart() {
    let mut fixture = Fixture::new();
    fixture.write(vec![put("a", "v")]);
    fixture.clean(seconds(100 * DAY));
    let horizon = fixture.reader.horizon();
    assert_eq!(horizon.tombstones, seconds(69 * DAY));
    fixture.clean(seconds(90 * DAY));
    assert_eq!(fixture.reader.horizon(), horizon);
    assert_eq!(fixture.reader.snapshot().horizon().unwrap(), horizon);
}

#[test]
fn a_horizon_of_before_the_depth_could_be_raised_is_read() {
    let before = (seconds(1), seconds(2), seconds(3), 10_u32);
    let read = Horizon::read(&crate::store::row::write(meta::TABLE, &before).unwrap()).unwrap();
    let expected = Horizon {
        tombstones: seconds(1),
        seen: seconds(2),
        versions: seconds(3),
        depth: 10,
        deepened: Timestamp::default(),
    };
    assert_eq!(read, expected);
    let now = Horizon { deepened: seconds(4), ..expected };
    assert_eq!(Horizon::read(&now.write().unwrap()).unwrap(), now);
}

#[test]
fn a_compaction_forgets_old_decisions_and_versions_and_never_a_record() {
    let mut fixture = Fixture::new();
    fixture.write_each((0..15).map(|number| put("deep", format!("{number}"))));
    fixture.write_each(["old", "old"].map(|name| put(name, "v")));
    let digest = |fixture: &Fixture| fixture.reader.snapshot().profile_digest(&fixture.key()).unwrap();
    let before = digest(&fixture);
    fixture.clean(seconds(1));
    fixture.compact();
    assert_eq!((rows(&fixture, "version"), rows(&fixture, "seen")), (12, 17), "only what is beyond the depth");
    fixture.clean(seconds(40 * DAY));
    fixture.compact();
    assert_eq!((rows(&fixture, "version"), rows(&fixture, "seen")), (2, 0));
    assert_eq!(digest(&fixture), before);
}

/// What becomes of versions of one key that pass by, newest first: (revision, rank, time in seconds).
fn gone(horizon: Horizon, versions: &[(u64, u32, u64)]) -> Vec<bool> {
    let record = Fixture::new().key().record(&key("k"));
    let mut filter = VersionFilter::new(horizon);
    let rows = versions.iter().map(|&(revision, rank, time)| {
        let place = version::Place { revision: Revision::new(revision), rank };
        let row = version::VersionRow {
            time: seconds(time),
            device: "d",
            change: roam_schemas::ChangeId::from_bytes([0; 16]),
            base: None,
            stamp: roam_schemas::Stamp::default(),
            conflict: false,
            state: RowState::Deleted,
        };
        filter.is_gone(&version::key(&record, place), &row.write().unwrap())
    });
    rows.collect()
}

#[test]
fn age_counts_from_being_replaced_and_depth_from_the_newest() {
    let horizon = |versions, depth| Horizon { versions: seconds(versions), depth, ..Horizon::default() };
    // The last was replaced at 50, however old it is itself.
    let three = [(9, 0, 100), (5, 0, 50), (1, 0, 1)];
    assert_eq!(gone(horizon(50, 10), &three), [false, false, false]);
    assert_eq!(gone(horizon(51, 10), &three), [false, false, true]);
    assert_eq!(gone(horizon(500, 10), &three), [false, true, true]);
    assert_eq!(gone(horizon(0, 2), &three), [false, false, true]);
    assert_eq!(gone(horizon(0, 0), &three), [false, false, false], "nothing is known of the depth");
    // What came too late was replaced when it came: by the version that beat it. Its own time says nothing of that.
    let late = [(9, 0, 100), (9, 1, 10), (5, 0, 50)];
    assert_eq!(gone(horizon(99, 10), &late), [false, false, false]);
    assert_eq!(gone(horizon(101, 10), &late), [false, true, true]);
}
