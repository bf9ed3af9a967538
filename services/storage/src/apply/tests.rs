//! Quotas of a store: what a profile may hold, how many profiles a user may have, and tenants with a quota of their own.
//! What `decide` makes of them is tested against a model, in `tests/decide.rs`.
#![allow(clippy::unwrap_used)]

use roam_schemas::{Change, ChangeId, Code, Operation, TenantQuota, Terms};

use super::*;
use crate::fixture::{Fixture, key, put};

fn outcomes(batch: &AppliedBatch) -> Vec<Option<(Code, u64, u64)>> {
    let outcome = |verdict: &Verdict| match verdict {
        Verdict::Decided(Outcome::Applied(_)) => None,
        Verdict::Decided(Outcome::Rejected(problem)) => {
            Some((problem.code, problem.limit.unwrap(), problem.actual.unwrap()))
        }
        other => panic!("{other:?}"),
    };
    batch.verdicts.iter().map(outcome).collect()
}

fn is_nearly_full(batch: &AppliedBatch) -> bool {
    matches!(&batch.verdicts[0], Verdict::Decided(Outcome::Applied(applied)) if applied.nearly_full)
}

/// A change of the fixture, in another profile.
fn change_in(fixture: &mut Fixture, profile: &str) -> StampedChange {
    StampedChange { profile: profile.parse().unwrap(), ..fixture.change(None, vec![put("k", "v")]) }
}

#[test]
fn a_profile_holds_as_many_records_as_it_may_and_can_always_be_emptied() {
    let mut fixture = Fixture::new();
    fixture.terms = Terms { profile_records: 5, ..Terms::default() };
    let full = fixture.write_each((0..7).map(|number| put(&format!("{number}"), "v")));
    let over = Some((Code::OverQuota, 5, 6));
    assert_eq!(outcomes(&full), [None, None, None, None, None, over, over]);
    assert!(!is_nearly_full(&full));
    assert!(is_nearly_full(&fixture.write(vec![put("4", "again")])), "replacing makes it no more");
    fixture.terms.profile_records = 2;
    let delete = Operation::delete(key("0"));
    assert_eq!(outcomes(&fixture.write(vec![delete, put("1", "w")])), [None], "beyond a lower quota too");
    assert_eq!(outcomes(&fixture.write(vec![put("new", "v")])), [Some((Code::OverQuota, 2, 5))]);
    assert_eq!(
        outcomes(&fixture.write_each((1..5).map(|number| Operation::delete(key(&format!("{number}"))))))[3],
        None
    );
    assert!(!is_nearly_full(&fixture.write(vec![put("new", "v")])));
}

#[test]
fn a_profile_holds_as_many_bytes_as_it_may() {
    let mut fixture = Fixture::new();
    fixture.terms = Terms { profile_bytes: 100, ..Terms::default() };
    assert!(!is_nearly_full(&fixture.write(vec![put("k", "x".repeat(78))])));
    assert!(is_nearly_full(&fixture.write(vec![put("k", "x".repeat(79))])));
    assert_eq!(outcomes(&fixture.write(vec![put("l", "x".repeat(20))])), [Some((Code::OverQuota, 100, 101))]);
    assert_eq!(outcomes(&fixture.write(vec![put("l", "x".repeat(19))])), [None]);
}

#[test]
fn a_user_has_as_many_profiles_as_they_may() {
    let mut fixture = Fixture::new();
    fixture.terms = Terms { user_profiles: 2, ..Terms::default() };
    let profiles = ["acme/alice/a", "acme/alice/b", "acme/alice/c", "acme/alice/a", "acme/alice\0/c", "acme/alic/c"];
    let changes: Vec<_> = profiles.iter().map(|profile| change_in(&mut fixture, profile)).collect();
    let over = Some((Code::OverQuota, 2, 3));
    assert_eq!(outcomes(&fixture.apply(changes)), [None, None, over, None, None, None], "within a batch");
    let changes = ["acme/alice/d", "acme/alice/b"].map(|profile| change_in(&mut fixture, profile));
    assert_eq!(outcomes(&fixture.apply(changes.into())), [over, None], "and from the store");
}

#[test]
fn a_tenant_with_a_quota_of_its_own_is_held_to_that() {
    let mut fixture = Fixture::new();
    fixture.terms = Terms { profile_records: 1, ..Terms::default() };
    let tenant = roam_schemas::Tenant::parse("acme").unwrap();
    fixture.quotas = vec![TenantQuota { tenant, profile_records: 2, profile_bytes: 1_000, user_profiles: 1 }];
    let wide = fixture.write_each(["a", "b", "c"].map(|name| put(name, "v")));
    assert_eq!(outcomes(&wide), [None, None, Some((Code::OverQuota, 2, 3))]);
    let others = [change_in(&mut fixture, "other/alice/a"), change_in(&mut fixture, "acme/alice/b")];
    assert_eq!(outcomes(&fixture.apply(others.into())), [None, Some((Code::OverQuota, 1, 2))]);
    let second =
        StampedChange { profile: "other/alice/a".parse().unwrap(), ..fixture.change(None, vec![put("second", "v")]) };
    assert_eq!(outcomes(&fixture.apply(vec![second])), [Some((Code::OverQuota, 1, 2))]);
}

/// A number for a change by which nobody can tell when it was made.
fn scattered(number: u64) -> ChangeId {
    ChangeId::from_bytes(u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes())
}

#[test]
fn no_change_takes_effect_twice_in_whatever_order_ids_come() {
    let mut fixture = Fixture::new();
    let profiles = ["acme/alice/mail", "acme/alice/mai", "acme/alice/mail2"];
    let mut sent = Vec::new();
    for number in 0..40 {
        for profile in profiles {
            let stamped = change_in(&mut fixture, profile);
            let change = Change::new(scattered(number), None, stamped.change.ops().to_vec()).unwrap();
            sent.push(StampedChange { digest: change.digest(), change, ..stamped });
        }
    }
    for (round, of_batch) in sent.chunks(7).enumerate() {
        let first = fixture.apply(of_batch.to_vec());
        assert!(first.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Decided(_))), "round {round}");
        // All that was sent so far, twice in a batch.
        let so_far = sent.len().min((round + 1) * 7);
        let before: Vec<_> = sent[..so_far].iter().rev().chain(&sent[..7]).cloned().collect();
        let again = fixture.apply(before);
        assert!(again.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Again(_))), "round {round}");
        if round % 5 == 4 {
            fixture = fixture.reopen();
        }
    }
    let other = Change::new(scattered(3), None, vec![put("k", "another")]).unwrap();
    let stamped = StampedChange { digest: other.digest(), change: other, ..change_in(&mut fixture, profiles[0]) };
    assert!(matches!(fixture.apply(vec![stamped]).verdicts[0], Verdict::Mismatch(_)));
}
