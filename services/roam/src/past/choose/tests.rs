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

/// What stood there, as the number of its revision, if the history is whole since that day.
fn stood(text: &str, point: Point, since: u64) -> Result<Option<u64>, ()> {
    let history = HistoryReply { whole_since: day(since), ..history(text) };
    match stood_at(&history, point) {
        Stood::Version(version) => Ok(Some(version.revision.get())),
        Stood::Nothing { whole_since } => {
            assert_eq!(whole_since, day(since));
            Ok(None)
        }
        Stood::Lost => Err(()),
    }
}

#[test]
fn the_newest_version_at_or_before_the_point_is_what_stood_there() {
    for (kept, point, expected) in [
        ("7:dark 2:light", at(7), Some(7)),
        ("7:dark 2:light", at(6), Some(2)),
        ("7:dark 2:light", at(2), Some(2)),
        ("7:dark 2:light", at(1), None),
        ("7:dark 2:light", at(0), None),
        ("7:dark 2:light", Point::Time(day(6)), Some(2)),
        ("7:dark 2:light", Point::Time(day(1)), None),
        ("7:dark 5:- 2:light", at(6), Some(5)),
        ("7:dark 3:a 3'late", at(3), Some(3)),
        ("7:dark 7'late 3:a", at(5), Some(3)),
        ("7:dark 2'late", at(5), None),
        ("", at(5), None),
    ] {
        assert_eq!(stood(kept, point, 0), Ok(expected), "{kept} at {point}");
    }
}

#[test]
fn between_two_versions_that_are_older_than_what_is_whole_another_may_have_stood() {
    let kept = "9:d 7:c 4:b 2:a";
    for (point, since, expected) in [
        (at(9), 20, Ok(Some(9))),
        (at(8), 9, Ok(Some(7))),
        (at(8), 10, Err(())),
        (at(5), 7, Ok(Some(4))),
        (at(5), 8, Err(())),
        (at(3), 8, Err(())),
        (at(1), 8, Ok(None)),
    ] {
        assert_eq!(stood(kept, point, since), expected, "at {point}, whole since {since}");
    }
}

#[test]
fn nothing_follows_from_what_is_not_there_where_the_history_is_not_whole() {
    for (point, seen, expected) in [
        (Point::Time(day(970)), None, true),
        (Point::Time(day(969)), None, false),
        (at(0), None, true),
        (Point::Time(day(0)), Some((1, 1)), true),
        (Point::Time(day(0)), Some((2, 1)), false),
        (at(500), None, false),
        (at(500), Some((499, 970)), true),
        (at(500), Some((499, 969)), false),
        (at(500), Some((501, 999)), false),
    ] {
        let mut memory = Memory::of(point);
        if let Some((revision, number)) = seen {
            memory.saw(Revision::new(revision), day(number));
        }
        assert_eq!(memory.holds(day(970)), expected, "{point} {seen:?}");
        let then = Then::of(Stood::Nothing { whole_since: day(970) }, memory);
        assert_eq!(then, if expected { Then::Absent } else { Then::NotKept }, "{point} {seen:?}");
    }
}

#[test]
fn a_version_that_stood_tells_what_a_key_was() {
    let then = |text| Then::of(stood_at(&history(text), at(9)), Memory::of(at(9)));
    assert_eq!(then("7:dark"), Then::Value(stored("dark", None)));
    assert_eq!([then("7:-"), then("7:expired")], [Then::Absent, Then::Absent]);
    assert_eq!(Then::of(Stood::Lost, Memory::of(at(0))), Then::NotKept);
}

#[test]
fn a_step_brings_a_key_back_and_expects_it_as_it_stands() {
    let then = |text: &str| Then::Value(stored(text, None));
    let expecting = |expect| move |op: Operation| Step::Do(op.expecting(expect));
    let as_it_stands = expecting(Expect::At(Revision::new(9)));
    let put = Operation::put(key(), "light", ContentType::text());
    for (stands, then, expected) in [
        (Some("dark"), then("light"), as_it_stands(put.clone())),
        (Some("dark"), then("dark"), Step::Nothing),
        (None, then("light"), expecting(Expect::Absent)(put)),
        (Some("dark"), Then::Absent, as_it_stands(Operation::delete(key()))),
        (Some("dark"), Then::NotKept, Step::NotKept),
        (None, Then::Absent, Step::Nothing),
    ] {
        let standing = Standing { revision: Revision::new(9), value: stands.map(|text| stored(text, None)) };
        assert_eq!(step(&key(), now(), &standing, then.clone()), expected, "{stands:?} {then:?}");
    }
}

#[test]
fn a_time_to_live_goes_on_and_does_not_begin_again() {
    let gone = Standing { revision: Revision::new(9), value: None };
    let ends = |expires| Then::Value(stored("light", Some(expires)));
    let ttl = |then| match step(&key(), now(), &gone, then) {
        Step::Do(Operation { action: Action::Put(put), .. }) => put.ttl,
        other => panic!("{other:?}"),
    };
    assert_eq!(ttl(ends(now().plus_seconds(90))), Some(90));
    assert_eq!(ttl(ends(now().successor())), Some(1));
    assert_eq!(step(&key(), now(), &gone, ends(now())), Step::Nothing, "its time is over");
    assert_eq!(remaining(Timestamp::from_nanos(u64::MAX), now()), Some(TTL_SECONDS));

    let lasting = Standing { value: Some(stored("light", None)), ..gone };
    let step = step(&key(), now(), &lasting, ends(now().plus_seconds(90)));
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
