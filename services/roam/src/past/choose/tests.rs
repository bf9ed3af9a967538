//! What a key was, and what brings it back, as tables: histories are written as `revision:value`, newest first.
#![allow(clippy::unwrap_used)]

use roam_schemas::{ChangeId, ContentType, Device, Value};

use super::*;

const DAY: u64 = 86_400;

fn key() -> Key {
    Key::parse("theme").unwrap()
}

fn now() -> Timestamp {
    day(1_000)
}

/// The instant so many days after the beginning; revision n of a history is written on day n.
fn day(number: u64) -> Timestamp {
    Timestamp::from_nanos(0).plus_seconds(number * DAY)
}

fn stored(text: &str, expires: Option<Timestamp>) -> Stored {
    Stored { value: Value::new(text), content_type: ContentType::text(), expires }
}

/// `7:dark 5:- 4:expired 3'late 2:light`: a value, a tombstone, an expired value, and one that came too late for 3.
fn history(text: &str) -> HistoryReply {
    let versions = text.split_whitespace().map(|word| {
        let (number, rank, state) = match word.split_once('\'') {
            Some((number, state)) => (number, 1, state),
            None => word.split_once(':').map(|(number, state)| (number, 0, state)).unwrap(),
        };
        let number = number.parse().unwrap();
        let state = match state {
            "-" => State::Deleted,
            "expired" => State::Expired,
            value => State::Value(stored(value, None)),
        };
        Version {
            revision: Revision::new(number),
            rank,
            time: day(number),
            device: Device::parse("laptop").unwrap(),
            change: ChangeId::from_bytes([0; 16]),
            base: None,
            conflict: false,
            state,
        }
    });
    HistoryReply { versions: versions.collect(), ..HistoryReply::default() }
}

fn at(revision: u64) -> Point {
    Point::Revision(Revision::new(revision))
}

#[test]
fn the_newest_version_at_or_before_the_point_is_what_a_key_was() {
    let value = |text| Then::Value(stored(text, None));
    let ten = "20:a 19:a 18:a 17:a 16:a 15:a 14:a 13:a 12:a 11:oldest";
    let nine_and_late = "20:a 19:a 18:a 17:a 16:a 15:a 14:a 13:a 12:a 12'late";
    for (kept, point, expected) in [
        ("7:dark 2:light", at(7), value("dark")),
        ("7:dark 2:light", at(6), value("light")),
        ("7:dark 2:light", at(2), value("light")),
        ("7:dark 2:light", at(1), Then::Unborn),
        ("7:dark 2:light", at(0), Then::Absent),
        ("7:dark 2:light", Point::Time(day(6)), value("light")),
        ("7:dark 2:light", Point::Time(day(1)), Then::Unborn),
        ("7:dark 5:- 2:light", at(6), Then::Absent),
        ("7:dark 5:expired", at(6), Then::Absent),
        ("7:dark 3:a 3'late", at(3), value("a")),
        ("7:dark 7'late 3:a", at(5), value("a")),
        (ten, at(11), value("oldest")),
        (ten, at(10), Then::NotKept),
        (ten, at(0), Then::Absent),
        (nine_and_late, at(5), Then::Unborn),
    ] {
        assert_eq!(choose(&history(kept), point, &Terms::default()), expected, "{kept} at {point}");
    }
    let cut = HistoryReply { more: true, ..history("7:dark") };
    assert_eq!(choose(&cut, at(3), &Terms::default()), Then::NotKept, "older ones did not fit in the answer");
}

#[test]
fn nothing_follows_from_what_is_not_there_beyond_the_memory_of_the_system() {
    let terms = Terms::default();
    for (point, seen, expected) in [
        (Point::Time(day(971)), None, true),
        (Point::Time(day(970)), None, false),
        (at(0), None, true),
        (Point::Time(day(0)), Some((1, 1)), true),
        (Point::Time(day(0)), Some((2, 1)), false),
        (at(500), None, false),
        (at(500), Some((499, 971)), true),
        (at(500), Some((499, 969)), false),
        (at(500), Some((501, 999)), false),
    ] {
        let mut memory = Memory::of(point);
        if let Some((revision, number)) = seen {
            memory.saw(Revision::new(revision), day(number));
        }
        assert_eq!(memory.holds(&terms, now()), expected, "{point} {seen:?}");
    }
}

#[test]
fn a_step_brings_a_key_back_and_expects_it_as_it_stands() {
    let then = |text: &str| Then::Value(stored(text, None));
    let expecting = |expect| move |op: Operation| Step::Do(op.expecting(expect));
    let as_it_stands = expecting(Expect::At(Revision::new(9)));
    let put = Operation::put(key(), "light", ContentType::text());
    for (stands, then, remembered, expected) in [
        (Some("dark"), then("light"), true, as_it_stands(put.clone())),
        (Some("dark"), then("dark"), true, Step::Nothing),
        (None, then("light"), true, expecting(Expect::Absent)(put)),
        (Some("dark"), Then::Absent, false, as_it_stands(Operation::delete(key()))),
        (Some("dark"), Then::Unborn, true, as_it_stands(Operation::delete(key()))),
        (Some("dark"), Then::Unborn, false, Step::NotKept),
        (Some("dark"), Then::NotKept, true, Step::NotKept),
        (None, Then::Absent, true, Step::Nothing),
        (None, Then::Unborn, true, Step::Nothing),
    ] {
        let standing = Standing { revision: Revision::new(9), value: stands.map(|text| stored(text, None)) };
        assert_eq!(step(&key(), now(), &standing, then.clone(), remembered), expected, "{stands:?} {then:?}");
    }
}

#[test]
fn a_time_to_live_goes_on_and_does_not_begin_again() {
    let gone = Standing { revision: Revision::new(9), value: None };
    let ends = |expires| Then::Value(stored("light", Some(expires)));
    let ttl = |then| match step(&key(), now(), &gone, then, true) {
        Step::Do(Operation { action: Action::Put(put), .. }) => put.ttl,
        other => panic!("{other:?}"),
    };
    assert_eq!(ttl(ends(now().plus_seconds(90))), Some(90));
    assert_eq!(ttl(ends(now().successor())), Some(1));
    assert_eq!(step(&key(), now(), &gone, ends(now()), true), Step::Nothing, "its time is over");
    assert_eq!(remaining(Timestamp::from_nanos(u64::MAX), now()), Some(TTL_SECONDS));

    let lasting = Standing { value: Some(stored("light", None)), ..gone };
    let step = step(&key(), now(), &lasting, ends(now().plus_seconds(90)), true);
    assert!(matches!(step, Step::Do(_)), "that it ends is a difference");
}

#[test]
fn what_stands_is_the_newest_version_that_did_not_come_too_late() {
    let standing_of = |text| standing(&history(text));
    assert_eq!(standing_of(""), None);
    let dark = Standing { revision: Revision::new(7), value: Some(stored("dark", None)) };
    assert_eq!(standing_of("7:dark 7'late 2:light"), Some(dark));
    assert_eq!(standing_of("7:- 2:light"), Some(Standing { revision: Revision::new(7), value: None }));
}
