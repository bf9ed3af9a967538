//! What is answered, given what the store holds. What is refused before the store is asked is in `admit.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bus;
mod versions;

use std::{collections::BTreeSet, time::Duration};

use proptest::{collection::vec, prelude::*};
use roam_schemas::{
    ChangeId, ChangesReply, ChangesRequest, ContentType, Cursor, Device, HistoryReply, HistoryRequest, Key,
    LatestReply, LatestRequest, Operation, Origin, Select, Stamp, State, decode, limits,
};

use super::{page::Page, *};
use crate::{
    fixture::{Fixture, delete, key, put, seconds, with_ttl},
    store::{RowState, VersionRow},
};

const NOW: Timestamp = seconds(1_000_000);
const ENCODINGS: [Encoding; 2] = [Encoding::Postcard, Encoding::Json];

fn latest(fixture: &Fixture, encoding: Encoding, request: &LatestRequest) -> LatestReply {
    let snapshot = fixture.reader.snapshot();
    let head = snapshot.head(&fixture.key()).unwrap().unwrap_or_default();
    let reply = latest::latest(&snapshot, &fixture.key(), head, request, encoding, NOW).unwrap();
    fits(&reply, encoding);
    reply
}

fn changes(fixture: &Fixture, encoding: Encoding, after: u64, limit: Option<u32>) -> ChangesReply {
    let snapshot = fixture.reader.snapshot();
    let head = snapshot.head(&fixture.key()).unwrap().unwrap_or_default();
    let since = Since { profile: &fixture.profile, after: Revision::new(after), as_of: None, limit, encoding };
    let reply = changes::changes(&snapshot, &fixture.key(), head, &since, Timestamp::default(), NOW).unwrap();
    fits(&reply, encoding);
    reply
}

/// Whatever is answered can be sent.
fn fits<M: roam_schemas::Message>(reply: &M, encoding: Encoding) {
    let size = encode(reply, encoding).unwrap().len();
    assert!(size < limits::MAX_PAYLOAD, "{size} bytes of {encoding:?}");
}

fn all() -> LatestRequest {
    LatestRequest::default()
}

/// Follows `next` until there is none.
fn pages(fixture: &Fixture, encoding: Encoding, request: &LatestRequest) -> Vec<Vec<String>> {
    let mut request = request.clone();
    let mut pages = Vec::new();
    loop {
        let reply = latest(fixture, encoding, &request);
        pages.push(reply.records.iter().map(|record| record.key.as_str().to_owned()).collect());
        request.after = reply.next;
        if request.after.is_none() {
            return pages;
        }
    }
}

/// Follows the cursor until there is no more; the revisions and keys of each page.
fn deltas(fixture: &Fixture, encoding: Encoding, limit: Option<u32>) -> Vec<Vec<(u64, String)>> {
    let (mut after, mut pages) = (0, Vec::new());
    loop {
        let reply = changes(fixture, encoding, after, limit);
        let of = |record: &roam_schemas::Record| (record.revision.get(), record.key.as_str().to_owned());
        pages.push(reply.records.iter().map(of).collect());
        (after, _) = reply.cursor.open(&fixture.profile).map(|(revision, time)| (revision.get(), time)).unwrap();
        if !reply.more {
            return pages;
        }
    }
}

#[test]
fn latest_comes_in_pages_of_a_thousand_records() {
    let mut fixture = Fixture::new();
    let names: Vec<_> = (0..2_500).map(|number| format!("key {number:04}")).collect();
    for names in names.chunks(500) {
        fixture.write(names.iter().map(|name| put(name, "value")).collect());
    }
    for encoding in ENCODINGS {
        let pages = pages(&fixture, encoding, &all());
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(pages.concat(), names);
    }
    let few = LatestRequest { limit: Some(7), ..all() };
    let reply = latest(&fixture, Encoding::Json, &few);
    assert_eq!((reply.records.len(), reply.next), (7, Some(key("key 0006"))));
    assert_eq!(reply.head, Revision::new(5));
    assert_eq!(reply.time, seconds(5));
}

#[test]
fn a_page_that_ends_with_the_last_record_names_no_next() {
    let mut fixture = Fixture::new();
    fixture.write((0..1_000).map(|number| put(&format!("{number:04}"), "")).collect());
    fixture.write(vec![put("9999", ""), put("deleted", "")]);
    fixture.write(vec![delete("9999"), delete("deleted")]);
    let reply = latest(&fixture, Encoding::Json, &all());
    assert_eq!((reply.records.len(), reply.next), (1_000, None));
}

#[test]
fn latest_of_large_values_comes_in_pages_of_768_kib() {
    let mut fixture = Fixture::new();
    for number in 0..7 {
        fixture.write(vec![put(&format!("{number}"), vec![b'x'; limits::VALUE_BYTES])]);
    }
    let lengths = |encoding| pages(&fixture, encoding, &all()).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(Encoding::Postcard), [2, 2, 2, 1]);
    // In JSON a value may take twice as much.
    assert_eq!(lengths(Encoding::Json), [1; 7]);
    for encoding in ENCODINGS {
        let reply = latest(&fixture, encoding, &all());
        assert!(encode(&reply, encoding).unwrap().len() <= limits::PAGE_BYTES);
    }
}

#[test]
fn prefix_and_after_choose_and_go_on() {
    let mut fixture = Fixture::new();
    let names = ["a", "a\0", "a\0b", "a/1", "a/2", "a/3", "aa", "b", "é"];
    fixture.write(names.iter().map(|name| put(name, "")).collect());
    let found = |prefix: &str, after: Option<&str>| {
        let (select, after) = (Select::Prefix(prefix.to_owned()), after.map(key));
        let reply = latest(&fixture, Encoding::Json, &LatestRequest { select, after, ..all() });
        reply.records.into_iter().map(|record| record.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("", None), names);
    assert_eq!(found("a", None), names[..7]);
    assert_eq!(found("a/", None), ["a/1", "a/2", "a/3"]);
    assert_eq!(found("a/", Some("a/1")), ["a/2", "a/3"]);
    assert_eq!(found("a/", Some("a/1x")), ["a/2", "a/3"]);
    assert_eq!(found("a\0", None), ["a\0", "a\0b"]);
    assert_eq!(found("a/", Some("0")), ["a/1", "a/2", "a/3"], "a place before the prefix");
    assert!(found("a/", Some("b")).is_empty(), "a place behind the prefix");
    assert!(found("c", None).is_empty());
}

#[test]
fn unknown_deleted_and_expired_are_three_answers() {
    let mut fixture = Fixture::new();
    fixture.write(vec![
        put("live", "1"),
        put("deleted", "1"),
        with_ttl(put("expired", "1"), 5),
        with_ttl(put("expires", "1"), 2_000_000),
    ]);
    fixture.write(vec![delete("deleted"), delete("never written")]);
    let names = ["expired", "unknown", "live", "deleted", "never written", "expires", "also unknown"];
    let select = Select::Keys(names.map(key).to_vec());
    let reply = latest(&fixture, Encoding::Json, &LatestRequest { select, ..all() });
    let states: Vec<_> = reply.records.iter().map(|record| (record.key.as_str(), state(&record.state))).collect();
    assert_eq!(
        states,
        [
            ("expired", "expired"),
            ("live", "value"),
            ("deleted", "deleted"),
            ("never written", "deleted"),
            ("expires", "value")
        ]
    );
    assert_eq!(reply.unknown, ["unknown", "also unknown"].map(key));
    assert_eq!(reply.next, None);
    // Without keys only what is live is answered.
    assert_eq!(pages(&fixture, Encoding::Json, &all()), [["expires", "live"]]);
}

fn state(state: &State) -> &'static str {
    match state {
        State::Value(_) => "value",
        State::Deleted => "deleted",
        State::Expired => "expired",
    }
}

#[test]
fn a_page_of_keys_names_the_first_that_it_left_out() {
    let mut fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.write(vec![put(name, vec![b'x'; limits::VALUE_BYTES])]);
    }
    let select = Select::Keys(["c", "unknown", "b", "a"].map(key).to_vec());
    let reply = latest(&fixture, Encoding::Postcard, &LatestRequest { select, ..all() });
    assert_eq!(reply.records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!((reply.unknown, reply.next), (vec![key("unknown")], Some(key("a"))));
}

#[test]
fn a_profile_that_was_never_written_is_empty_and_no_error() {
    let fixture = Fixture::new();
    let reply = latest(&fixture, Encoding::Json, &all());
    assert_eq!(reply, LatestReply::default());
    let reply = changes(&fixture, Encoding::Json, 0, None);
    let cursor = Cursor::new(&fixture.profile, Revision::ZERO, Timestamp::default());
    assert_eq!(reply, ChangesReply { head: Revision::ZERO, records: Vec::new(), cursor, more: false });
}

#[test]
fn changes_hands_out_each_record_once_in_its_newest_state() {
    let mut fixture = Fixture::new();
    fixture.write(vec![put("a", "1"), put("b", "1")]);
    fixture.write(vec![put("a", "2")]);
    fixture.write(vec![delete("b")]);
    assert_eq!(deltas(&fixture, Encoding::Json, None), [[(2, "a".to_owned()), (3, "b".to_owned())]]);
    let reply = changes(&fixture, Encoding::Json, 2, None);
    assert_eq!(reply.records.iter().map(|record| state(&record.state)).collect::<Vec<_>>(), ["deleted"]);
    assert_eq!(reply.cursor, Cursor::new(&fixture.profile, Revision::new(3), seconds(3)));
    let reply = changes(&fixture, Encoding::Json, 3, None);
    assert_eq!((reply.records.len(), reply.more, reply.head), (0, false, Revision::new(3)), "at the head");
    assert_eq!(reply.cursor, Cursor::new(&fixture.profile, Revision::new(3), seconds(3)));
}

#[test]
fn a_page_of_changes_never_ends_inside_a_revision() {
    let mut fixture = Fixture::new();
    for revision in 0..8 {
        fixture.write((0..=revision).map(|number| put(&format!("{revision} {number}"), "")).collect());
    }
    for limit in [1, 2, 3, 5, 10, 100] {
        let pages = deltas(&fixture, Encoding::Json, Some(limit));
        let mut seen = BTreeSet::new();
        for page in &pages {
            let revisions: BTreeSet<u64> = page.iter().map(|(revision, _)| *revision).collect();
            assert!(revisions.is_disjoint(&seen), "a revision is in two pages of {limit}");
            // It closes after the first revision that fills it, and not before.
            let last = *revisions.last().unwrap();
            let before_last = page.iter().filter(|(revision, _)| *revision < last).count();
            assert!(before_last < limit as usize, "a page of {limit} went on when it was full");
            seen.extend(revisions);
        }
        assert_eq!(pages.concat().len(), 36);
        assert!(pages[..pages.len() - 1].iter().all(|page| page.len() >= limit as usize));
    }
}

#[test]
fn changes_come_in_pages_of_a_thousand_records_and_of_768_kib() {
    let mut fixture = Fixture::new();
    for _ in 0..5 {
        let ops = (0..500).map(|number| put(&format!("{number} {}", fixture_count(&fixture)), "")).collect();
        fixture.write(ops);
    }
    assert_eq!(deltas(&fixture, Encoding::Json, None).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    let mut fixture = Fixture::new();
    for number in 0..7 {
        fixture.write(vec![put(&format!("{number}"), vec![b'x'; limits::VALUE_BYTES])]);
    }
    let lengths = |encoding| deltas(&fixture, encoding, None).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(Encoding::Postcard), [3, 3, 1], "the third passes 768 KiB");
    assert_eq!(lengths(Encoding::Json), [2, 2, 2, 1]);
}

fn fixture_count(fixture: &Fixture) -> u64 {
    fixture.reader.snapshot().head(&fixture.key()).unwrap().unwrap_or_default().revision.get()
}

/// Names, keys and values of which JSON makes as much as it can.
fn nastiest() -> Fixture {
    let name = "\u{1}".repeat(limits::NAME_BYTES);
    Fixture::of(&format!("{name}/{name}/{name}"), &name)
}

fn nasty_key(number: usize, bytes: usize) -> String {
    format!("{number:04}{}", "\u{1}".repeat(bytes - 4))
}

fn nasty_put(number: usize, key_bytes: usize, value_bytes: usize) -> Operation {
    let content_type = ContentType::parse("\"".repeat(limits::CONTENT_TYPE_BYTES)).unwrap();
    Operation::put(key(&nasty_key(number, key_bytes)), vec![b'"'; value_bytes], content_type)
}

/// As many operations as a change can have, and as many bytes of those that JSON writes twice.
fn write_the_largest_change(fixture: &mut Fixture) {
    let beside = limits::CONTENT_TYPE_BYTES + 20;
    let value = limits::CHANGE_BYTES / limits::CHANGE_OPERATIONS - beside;
    let ops = (0..limits::CHANGE_OPERATIONS).map(|number| nasty_put(90_000 + number, 5, value));
    let applied = fixture.write(ops.collect());
    let size = encode(&applied.batch.changes[0].change, Encoding::Postcard).unwrap().len();
    assert!((limits::CHANGE_BYTES - 20_000..=limits::CHANGE_BYTES).contains(&size), "{size}");
}

#[test]
fn the_nastiest_records_fit_into_a_message() {
    let mut fixture = nastiest();
    // Long keys, at most as many in one change as it takes.
    for chunk in 0..20 {
        let ops = (0..100).map(|number| nasty_put(chunk * 100 + number, limits::KEY_BYTES, 5)).collect();
        fixture.write(ops);
    }
    write_the_largest_change(&mut fixture);
    // Keys that are unknown take their place in a reply as well.
    let unknown = (0..1_000).map(|number| key(&nasty_key(5_000 + number, limits::KEY_BYTES)));
    let known = (0..1_000).map(|number| key(&nasty_key(number, limits::KEY_BYTES)));
    for encoding in ENCODINGS {
        assert!(pages(&fixture, encoding, &all()).len() > 1);
        assert!(deltas(&fixture, encoding, None).len() > 1);
        for keys in [unknown.clone().collect(), known.clone().collect(), mixed(unknown.clone(), known.clone())] {
            latest(&fixture, encoding, &LatestRequest { select: Select::Keys(keys), ..all() });
        }
    }
}

fn mixed(one: impl Iterator<Item = Key>, other: impl Iterator<Item = Key>) -> Vec<Key> {
    one.zip(other).flat_map(|(one, other)| [one, other]).take(limits::REQUEST_KEYS).collect()
}

#[test]
fn a_revision_behind_a_page_that_is_all_but_full_fits_into_a_message() {
    let mut fixture = nastiest();
    for number in 0..30 {
        fixture.write(vec![nasty_put(number, 8, 12_000)]);
    }
    write_the_largest_change(&mut fixture);
    for encoding in ENCODINGS {
        deltas(&fixture, encoding, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_page_never_counts_less_than_it_takes(
        name in "[\\x00-\\x22\\\\a-cé]{1,60}",
        device in "[\\x00-\\x22\\\\a-cé]{1,60}",
        content_type in "[\"\\\\ -~]{1,127}",
        value in prop_oneof![vec(any::<u8>(), 0..80), "[\"\\\\\n\t]{0,80}".prop_map(String::into_bytes)],
        is_value in any::<bool>(),
        numbers in any::<(u32, u32, bool)>(),
    ) {
        let (device, name) = (Device::parse(&device).unwrap(), key(&name));
        let time = Timestamp::from_nanos(u64::MAX / 2);
        let row = VersionRow {
            time,
            device: device.as_str(),
            change: ChangeId::from_bytes([0xFF; 16]),
            base: Some(Revision::new(limits::REVISION_END - 1)),
            stamp: Stamp::default(),
            conflict: numbers.2,
            state: match is_value {
                true => RowState::Value { content_type: &content_type, expires: Some(time), value: &value },
                false => RowState::Deleted,
            },
        };
        let place = crate::store::Place { revision: Revision::new(limits::REVISION_END - 1), rank: numbers.0 };
        for encoding in ENCODINGS {
            let cost = Page::new(encoding, None).cost(&name, &row);
            let record = row.record(name.clone(), place.revision, Timestamp::default()).unwrap();
            let one = LatestReply { records: vec![record], ..LatestReply::default() };
            prop_assert!(cost >= size_of_one(&one, &LatestReply::default(), encoding), "{:?}", one);
            let versions = vec![row.version(place, Timestamp::default()).unwrap()];
            let one = HistoryReply { versions, ..HistoryReply::default() };
            prop_assert!(cost >= size_of_one(&one, &HistoryReply::default(), encoding), "{:?}", one);
        }
    }
}

/// What the records of a reply take on the wire, and the comma between two.
fn size_of_one<M: roam_schemas::Message>(reply: &M, empty: &M, encoding: Encoding) -> usize {
    encode(reply, encoding).unwrap().len() - encode(empty, encoding).unwrap().len() + 1
}

/// The cursor of an answer of at most one revision, as (revision, time in seconds, whether there is more).
fn walk(fixture: &Fixture, since: Option<(u64, u64)>, applied: u64) -> (u64, u64, bool) {
    let snapshot = fixture.reader.snapshot();
    let head = snapshot.head(&fixture.key()).unwrap().unwrap_or_default();
    let (after, as_of) = (since.map_or(0, |(after, _)| after), since.map(|(_, as_of)| seconds(as_of)));
    let (after, limit) = (Revision::new(after), Some(1));
    let since = Since { profile: &fixture.profile, after, as_of, limit, encoding: Encoding::Json };
    let reply = changes::changes(&snapshot, &fixture.key(), head, &since, seconds(applied), NOW).unwrap();
    let (revision, time) = reply.cursor.open(&fixture.profile).unwrap();
    (revision.get(), time.as_nanos() / 1_000_000_000, reply.more)
}

#[test]
fn a_cursor_is_as_new_as_the_walk_that_led_to_it() {
    let mut fixture = Fixture::new();
    fixture.write_each(["a", "b", "c"].map(|name| put(name, "1")));
    // What the replica had applied when the walk began, less twelve hours, and not the age of the records on the way.
    assert_eq!(walk(&fixture, None, 45_000), (1, 1_800, true));
    assert_eq!(walk(&fixture, Some((1, 1_800)), 49_000), (2, 1_800, true), "it goes on as of then");
    assert_eq!(walk(&fixture, Some((2, 1_800)), 49_000), (3, 5_800, false), "and is as of now at its end");
    assert_eq!(walk(&fixture, Some((3, 1_800)), 49_000), (3, 5_800, false));
}

#[test]
fn who_may_have_missed_a_deletion_that_is_forgotten_begins_anew() {
    let mut fixture = Fixture::new();
    fixture.write_each(["a", "b", "c"].map(|name| put(name, "1")));
    let head = fixture.reader.snapshot().head(&fixture.key()).unwrap().unwrap();
    let check = |after, as_of: Option<u64>| {
        let (profile, as_of) = (&fixture.profile, as_of.map(seconds));
        let since = Since { profile, after: Revision::new(after), as_of, limit: None, encoding: Encoding::Json };
        since.check(head, Revision::ZERO, seconds(100)).map_err(|problem| problem.code)
    };
    assert_eq!(check(2, Some(99)), Err(Code::Reset));
    assert_eq!(check(2, Some(100)), Ok(()));
    assert_eq!(check(3, Some(1)), Ok(()), "whoever is at the head has missed nothing");
    assert_eq!(check(0, Some(1)), Ok(()), "whoever holds nothing has missed nothing");
    assert_eq!(check(0, None), Ok(()));
}
