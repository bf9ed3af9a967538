//! What a history holds, and since when it says that it is whole.

use roam_schemas::{Control, Erase};

use super::*;

fn history(fixture: &Fixture, name: &str, limit: Option<u32>) -> HistoryReply {
    history_at(fixture, name, limit, NOW)
}

fn history_at(fixture: &Fixture, name: &str, limit: Option<u32>, now: Timestamp) -> HistoryReply {
    let snapshot = fixture.reader.snapshot();
    let head = snapshot.head(&fixture.key()).unwrap().unwrap_or_default();
    let (request, encoding) = (HistoryRequest { key: key(name), limit }, Encoding::Json);
    let of = history::Of { profile: &fixture.key(), head, request: &request };
    let reply = history::history(&fixture.reader, &snapshot, of, encoding, now).unwrap();
    fits(&reply, encoding);
    reply
}
#[test]
fn a_key_that_was_never_written_has_no_history_and_that_is_no_error() {
    assert_eq!(history(&Fixture::new(), "a", None), HistoryReply::default());
}

#[test]
fn a_history_shows_as_many_versions_as_the_terms_say_and_all_that_they_beat() {
    let mut fixture = Fixture::new();
    for number in 1..=15 {
        fixture.write(vec![put("a", format!("{number}"))]);
    }
    // Came too late for the newest version: published before it, and delivered after.
    let late = (0..3).map(|number| {
        let mut late = fixture.change(None, vec![put("a", format!("late {number}"))]);
        late.stamp = Stamp { time: seconds(number), origin: Origin { incarnation: 1, sequence: number } };
        late
    });
    let late = late.collect();
    fixture.apply(late);
    fixture.write(vec![put("a", "16")]);
    let reply = history(&fixture, "a", None);
    let places: Vec<_> = reply.versions.iter().map(|version| (version.revision.get(), version.rank)).collect();
    let expected: Vec<_> = [(16, 0), (15, 0), (15, 1), (15, 2), (15, 3)]
        .into_iter()
        .chain((7..15).rev().map(|revision| (revision, 0)))
        .collect();
    assert_eq!(places, expected);
    assert!(!reply.more, "what is beyond the depth is not there");
    assert_eq!(reply.head, Revision::new(16));
    let reply = history(&fixture, "a", Some(3));
    assert_eq!((reply.versions.len(), reply.more), (3, true));
    assert_eq!(history(&fixture, "unknown", None).versions, []);
}

#[test]
fn a_history_says_since_when_nothing_is_missing_in_it() {
    const DAY: u64 = 86_400;
    let mut fixture = Fixture::new();
    fixture.terms.history_versions = 3;
    // Revision n is of second n.
    fixture.write_each((1..=2).map(|number| put("few", format!("{number}"))));
    fixture.write_each((3..=6).map(|number| put("many", format!("{number}"))));
    fixture.write_each((7..=9).map(|number| put("full", format!("{number}"))));
    let told = |name: &str, limit, now| {
        let reply = history_at(&fixture, name, limit, seconds(now));
        let versions: Vec<_> = reply.versions.iter().map(|version| version.revision.get()).collect();
        (versions, reply.whole_since)
    };
    assert_eq!(told("few", None, 100), (vec![2, 1], seconds(0)));
    assert_eq!(told("many", None, 100), (vec![6, 5, 4], seconds(4)));
    assert_eq!(told("full", None, 100), (vec![9, 8, 7], seconds(7)), "one more may have been there");
    assert_eq!(told("few", Some(1), 100), (vec![2], seconds(2)), "there is more");
    assert_eq!(told("never", None, 100), (vec![], seconds(0)));
    // By age: what was replaced 30 days ago goes.
    assert_eq!(told("few", None, 30 * DAY + 2), (vec![2, 1], seconds(2)));
    assert_eq!(told("few", None, 30 * DAY + 3), (vec![2], seconds(3)));
    assert_eq!(told("never", None, 30 * DAY + 3), (vec![], seconds(3)));
    fixture.terms.tombstone_seconds = 10 * DAY;
    fixture.write(vec![put("other", "10")]);
    let reply = history_at(&fixture, "never", None, seconds(30 * DAY));
    assert_eq!(reply.whole_since, seconds(20 * DAY), "a deletion goes with all that is behind it");
}

#[test]
fn a_history_says_that_it_was_shorter_before_its_terms_were_raised() {
    let mut fixture = Fixture::new();
    fixture.terms.history_versions = 2;
    fixture.write_each((1..=4).map(|number| put("a", format!("{number}"))));
    fixture.clean(seconds(50));
    fixture.terms.history_versions = 10;
    fixture.write(vec![put("a", "5")]);
    let told = |fixture: &Fixture| {
        let reply = history_at(fixture, "a", None, seconds(100));
        let versions: Vec<_> = reply.versions.iter().map(|version| version.revision.get()).collect();
        (versions, reply.whole_since)
    };
    assert_eq!(told(&fixture), (vec![5, 4], seconds(4)), "compactions go by the terms of before");
    fixture.compact();
    fixture.clean(seconds(60));
    assert_eq!(told(&fixture), (vec![5, 4], seconds(60)), "nobody knows whether there were others");
    fixture.write(vec![put("a", "6")]);
    fixture.clean(seconds(200));
    let fixture = fixture.reopen();
    assert_eq!(told(&fixture), (vec![6, 5, 4], seconds(60)));
}

#[test]
fn a_deletion_past_its_term_is_told_of_as_long_as_it_is_there() {
    let mut fixture = Fixture::new();
    fixture.write(vec![put("a", "1")]);
    fixture.write(vec![delete("a")]);
    let versions = |now| history_at(&fixture, "a", None, now).versions.len();
    assert_eq!(versions(seconds(40 * 86_400)), 1, "`changes` tells of it, too");
    assert_eq!(versions(seconds(1_000)), 2);
}

#[test]
fn nothing_is_known_of_before_an_erasure() {
    let mut fixture = Fixture::new();
    fixture.write(vec![put("a", "1")]);
    let (tenant, user) = (fixture.profile.tenant.clone(), fixture.profile.user.clone());
    fixture.published = seconds(1).as_nanos();
    fixture.control(&Control::Erase(Erase { tenant, user }));
    fixture.write(vec![put("a", "2")]);
    let erased = fixture.reader.snapshot().erasure(&fixture.key()).unwrap().unwrap();
    let reply = history(&fixture, "a", None);
    assert_eq!((reply.versions.len(), reply.whole_since), (1, erased.time));
    assert!(erased.time > Timestamp::default());
}

#[test]
fn a_history_of_large_values_is_one_page() {
    let mut fixture = Fixture::new();
    for number in 0..5_u8 {
        fixture.write(vec![put("a", vec![b'a' + number; limits::VALUE_BYTES])]);
    }
    let reply = history(&fixture, "a", None);
    assert_eq!((reply.versions.len(), reply.more), (1, true));
    assert_eq!(reply.whole_since, reply.versions[0].time);
}
