//! Erasing and epochs, on a real store.
#![allow(clippy::unwrap_used)]

use roam_schemas::{Code, Control, Epoch, Erase, Expect, Outcome, Revision, Timestamp};

use crate::{
    apply::Verdict,
    fixture::{Fixture, delete, put, seconds, with_ttl},
    store::{Head, ProfileKey, Removed, TABLES, UserKey},
};

fn erase(fixture: &mut Fixture) -> Removed {
    let (tenant, user) = (fixture.profile.tenant.clone(), fixture.profile.user.clone());
    fixture.control(&Control::Erase(Erase { tenant, user })).unwrap()
}

/// Every row of every table whose key or value holds that text.
fn rows_with(fixture: &Fixture, text: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for table in TABLES {
        let collect = |key: &[u8], value: &[u8]| {
            if [key, value].iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())) {
                found.push((table, key.escape_ascii().to_string()));
            }
            Ok(std::ops::ControlFlow::Continue(()))
        };
        fixture.reader.snapshot().rows(table, collect).unwrap();
    }
    found
}

fn revision_of(verdict: &Verdict) -> Result<u64, Code> {
    match verdict {
        Verdict::Decided(Outcome::Applied(applied)) => Ok(applied.revision.get()),
        Verdict::Decided(Outcome::Rejected(problem)) => Err(problem.code),
        other => panic!("{other:?}"),
    }
}

/// A user with two profiles, of a second user whose name begins as theirs, and rows in every table.
fn two_users() -> Fixture {
    let mut fixture = Fixture::of("acme/alice/mail", "laptop");
    fixture.write(vec![put("kept", "canary"), with_ttl(put("ends", "canary"), 3_600)]);
    fixture.write(vec![put("kept", "canary 2"), delete("gone")]);
    for (profile, key) in [("acme/alice/notes", "other"), ("acme/alicex/mail", "theirs"), ("acmex/alice/mail", "x")] {
        fixture.profile = profile.parse().unwrap();
        fixture.write(vec![put(key, "canary"), delete("gone too")]);
    }
    fixture.profile = "acme/alice/mail".parse().unwrap();
    fixture
}

#[test]
fn nothing_of_an_erased_user_is_left_but_the_marker_and_nobody_else_is_touched() {
    let mut fixture = two_users();
    let others = |fixture: &Fixture| {
        let digest = |profile: &str| {
            let key = ProfileKey::new(&profile.parse().unwrap());
            fixture.reader.snapshot().profile_digest(&key).unwrap()
        };
        [digest("acme/alicex/mail"), digest("acmex/alice/mail")]
    };
    let before = others(&fixture);
    let removed = erase(&mut fixture);
    assert_eq!((removed.profiles, removed.records), (2, 3));
    let left = rows_with(&fixture, "acme\0\u{1}alice\0\u{1}");
    assert_eq!(left.iter().map(|(table, _)| *table).collect::<Vec<_>>(), ["erased"]);
    assert_eq!(others(&fixture), before);
    assert_eq!(erase(&mut fixture), Removed::default(), "there is nothing left to erase");
}

#[test]
fn the_rows_of_a_user_are_counted_table_by_table() {
    let mut fixture = two_users();
    let count = |fixture: &Fixture, profile: &str| {
        let profile: roam_schemas::Profile = profile.parse().unwrap();
        fixture.reader.snapshot().rows_of_user(&UserKey::new(&profile.tenant, &profile.user)).unwrap()
    };
    let before = count(&fixture, "acme/alice/x");
    let tables: Vec<_> = before.iter().filter(|(_, rows)| *rows > 0).map(|(table, _)| *table).collect();
    assert_eq!(tables, ["version", "feed", "seen", "head", "expiry"], "{before:?}");
    let others = count(&fixture, "acme/alicex/x");
    assert!(others.iter().all(|(table, rows)| (*rows > 0) == (*table != "large")), "{others:?}");
    assert_eq!(fixture.reader.erased_since(Timestamp::from_nanos(0)).unwrap(), []);
    fixture.published = seconds(100).as_nanos();
    erase(&mut fixture);
    assert!(count(&fixture, "acme/alice/x").iter().all(|(_, rows)| *rows == 0));
    assert_eq!(count(&fixture, "acme/alicex/x"), others);
    let alice = UserKey::new(&fixture.profile.tenant, &fixture.profile.user);
    assert_eq!(fixture.reader.erased_since(Timestamp::from_nanos(0)).unwrap(), [alice]);
    assert_eq!(fixture.reader.erased_since(Timestamp::from_nanos(u64::MAX)).unwrap(), []);
}

#[test]
fn the_bytes_of_an_erased_user_leave_the_files() {
    let mut fixture = two_users();
    for number in 0..200 {
        fixture.write(vec![put(&format!("canary-key-{number}"), format!("canary-value-{number}"))]);
    }
    fixture.compact();
    let in_files = |fixture: &Fixture| {
        let files =
            std::fs::read_dir(fixture.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        files.map(|bytes| bytes.windows(10).filter(|window| *window == b"canary-key").count()).sum::<usize>()
    };
    assert!(in_files(&fixture) > 0, "otherwise this test shows nothing");
    erase(&mut fixture);
    fixture.reader.compact_user(&UserKey::new(&fixture.profile.tenant, &fixture.profile.user)).unwrap();
    // RocksDB's list of files knows keys at the edges of files that are gone, until it is written anew.
    let fixture = fixture.reopen();
    assert_eq!(in_files(&fixture), 0);
}

#[test]
fn what_was_on_its_way_when_a_user_was_erased_does_not_come_back() {
    let mut fixture = two_users();
    let late = fixture.change(None, vec![put("late", "canary")]);
    fixture.published = late.stamp.time.as_nanos() + 1;
    erase(&mut fixture);
    let applied = fixture.apply(vec![late]);
    assert_eq!(revision_of(&applied.verdicts[0]), Err(Code::Skipped));

    // What the user does afterwards begins above all that there was.
    let key = fixture.key();
    let floor = fixture.reader.snapshot().floor(&key).unwrap();
    assert_eq!(fixture.reader.snapshot().standing(&key).unwrap().revision, floor);
    let applied = fixture.write(vec![put("new", "1")]);
    assert_eq!(revision_of(&applied.verdicts[0]), Ok(floor.get() + 1));
    assert_eq!(floor, Revision::new(3));
    // The marker counts for whatever was taken in before it, also in a profile that lives again.
    let mut late = fixture.change(None, vec![put("late", "canary")]);
    late.stamp.time = Timestamp::from_nanos(fixture.published);
    assert_eq!(revision_of(&fixture.apply(vec![late]).verdicts[0]), Err(Code::Skipped));
}

#[test]
fn an_erased_user_is_erased_after_a_restart_too_and_forgotten_after_forty_days() {
    let mut fixture = two_users();
    fixture.published = seconds(100).as_nanos();
    erase(&mut fixture);
    let mut fixture = fixture.reopen();
    let mut early = fixture.change(None, vec![put("early", "1")]);
    early.stamp.time = seconds(99);
    assert_eq!(revision_of(&fixture.apply(vec![early]).verdicts[0]), Err(Code::Skipped));

    // 40 days later `decide` takes the marker for absent, whether or not the row is there.
    let mut later = fixture.change(None, vec![put("later", "1")]);
    later.stamp.time = seconds(100 + 40 * 24 * 3600);
    assert_eq!(revision_of(&fixture.apply(vec![later]).verdicts[0]), Ok(1));
    fixture.published = seconds(100 + 42 * 24 * 3600).as_nanos();
    let now = fixture.write(vec![put("x", "1")]);
    assert_eq!(revision_of(&now.verdicts[0]), Ok(2));
    fixture.clean(seconds(100 + 42 * 24 * 3600));
    assert_eq!(
        rows_with(&fixture, "acme\0\u{1}alice\0\u{1}").iter().filter(|(table, _)| *table == "erased").count(),
        0
    );
}

#[test]
fn an_erased_user_has_no_profiles_that_count_for_the_quota() {
    let mut fixture = two_users();
    fixture.terms.user_profiles = 2;
    fixture.profile = "acme/alice/third".parse().unwrap();
    assert_eq!(revision_of(&fixture.write(vec![put("x", "1")]).verdicts[0]), Err(Code::OverQuota));
    erase(&mut fixture);
    assert!(revision_of(&fixture.write(vec![put("x", "1")]).verdicts[0]).is_ok());
}

#[test]
fn in_a_new_epoch_every_profile_stands_above_all_that_was_used() {
    let mut fixture = two_users();
    let key = fixture.key();
    let first = 1 << 40;
    fixture.control(&Control::Epoch(Epoch { epoch: 1 }));
    let Head { revision, records, .. } = fixture.reader.snapshot().standing(&key).unwrap();
    assert_eq!((revision.get(), records), (first, 2));
    assert_eq!(fixture.reader.snapshot().floor(&key).unwrap().get(), first);
    let applied = fixture.write(vec![put("kept", "canary 3")]);
    assert_eq!(revision_of(&applied.verdicts[0]), Ok(first + 1));
    fixture.profile = "acme/new/mail".parse().unwrap();
    assert_eq!(revision_of(&fixture.write(vec![put("x", "1")]).verdicts[0]), Ok(first + 1));

    // Ordered again, or an older one ordered later, changes nothing; a restart neither.
    fixture.control(&Control::Epoch(Epoch { epoch: 1 }));
    let mut fixture = fixture.reopen();
    assert_eq!(revision_of(&fixture.write(vec![put("x", "2")]).verdicts[0]), Ok(first + 2));
    fixture.control(&Control::Epoch(Epoch { epoch: 3 }));
    fixture.control(&Control::Epoch(Epoch { epoch: 2 }));
    let mut at = put("x", "3");
    at.expect = Expect::At(Revision::new(first + 2));
    assert_eq!(revision_of(&fixture.write(vec![at]).verdicts[0]), Ok(3 * first + 1), "records keep their revisions");
}

#[test]
fn a_batch_that_is_passed_over_rejects_its_changes_and_remembers_that() {
    let mut fixture = two_users();
    let before = fixture.reader.snapshot().profile_digest(&fixture.key()).unwrap();
    let known = fixture.change(None, vec![put("kept", "4")]);
    fixture.apply(vec![known.clone()]);
    let new = fixture.change(None, vec![put("kept", "5")]);
    let skipped = fixture.skip(vec![known, new.clone()]);
    assert!(matches!(&skipped[0], Verdict::Again(Outcome::Applied(_))), "it was applied before");
    assert_eq!(revision_of(&skipped[1]), Err(Code::Skipped));
    // Sent again, it is told the same.
    let again = fixture.apply(vec![new]);
    assert!(matches!(&again.verdicts[0], Verdict::Again(Outcome::Rejected(problem)) if problem.code == Code::Skipped));
    assert_ne!(fixture.reader.snapshot().profile_digest(&fixture.key()).unwrap(), before);
}
