//! Comparing what replicas say of their profiles. Pure.

use std::collections::BTreeMap;

use roam_schemas::{Profile, ProfileStanding, ProfilesReply, ReplicaName, Revision};
use serde::{Serialize, Serializer};

/// What came of comparing a page of each replica.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// How many profiles were compared.
    pub(super) profiles: u64,
    /// Those of which replicas do not say the same.
    pub(super) suspects: Vec<Profile>,
    /// Behind which profile it goes on; none if that was all.
    pub(super) end: Option<Profile>,
}

/// A profile of which replicas do not hold the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The profile.
    #[serde(serialize_with = "as_text")]
    pub(super) profile: Profile,
    /// What each replica holds of it.
    pub(super) replicas: Vec<Held>,
}

/// What a replica holds of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Held {
    pub(super) name: ReplicaName,
    pub(super) revision: Revision,
    pub(super) records: u64,
    /// None if it does not have the profile.
    pub(super) digest: Option<String>,
}

fn as_text<S: Serializer>(profile: &Profile, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(profile)
}

/// Compares pages that begin at the same place, as far as all of them reach.
pub(super) fn compare(pages: &[ProfilesReply]) -> Compared {
    let end = pages.iter().filter_map(|page| page.next.as_ref()).min();
    let mut held: BTreeMap<&Profile, Vec<&ProfileStanding>> = BTreeMap::new();
    let all = pages.iter().flat_map(|page| &page.profiles);
    for standing in all.filter(|standing| end.is_none_or(|end| standing.profile <= *end)) {
        held.entry(&standing.profile).or_default().push(standing);
    }
    let agree = |standings: &[&ProfileStanding]| {
        standings.len() == pages.len() && standings.windows(2).all(|pair| pair[0].digest == pair[1].digest)
    };
    let suspects = held.iter().filter(|(_, standings)| !agree(standings)).map(|(profile, _)| (*profile).clone());
    Compared { profiles: held.len() as u64, suspects: suspects.collect(), end: end.cloned() }
}

/// How replicas differ in one profile; none if they do not.
pub(super) fn differ(profile: &Profile, replies: &[ProfilesReply]) -> Option<Difference> {
    let replicas: Vec<_> = replies
        .iter()
        .map(|reply| {
            let found = reply.profiles.iter().find(|standing| standing.profile == *profile);
            Held {
                name: reply.name.clone(),
                revision: found.map(|found| found.revision).unwrap_or_default(),
                records: found.map_or(0, |found| found.records),
                digest: found.and_then(|found| found.digest.clone()),
            }
        })
        .collect();
    let agree = replicas.windows(2).all(|pair| pair[0].digest == pair[1].digest);
    (!agree).then(|| Difference { profile: profile.clone(), replicas })
}

/// Whether all of them stand at the same entry of the same journal.
pub(super) fn same_place(replies: &[ProfilesReply]) -> bool {
    let place = |reply: &ProfilesReply| reply.position.map(|at| (at.incarnation, at.sequence, at.batch));
    replies.windows(2).all(|pair| place(&pair[0]) == place(&pair[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{BatchId, JournalPosition, Timestamp};

    use super::*;

    fn reply(name: &str, sequence: u64, held: &[(&str, &str)], next: Option<&str>) -> ProfilesReply {
        let standing = |(app, digest): &(&str, &str)| ProfileStanding {
            profile: profile(app),
            revision: Revision::new(7),
            time: Timestamp::from_nanos(1),
            records: 1,
            bytes: 1,
            digest: Some((*digest).to_owned()),
        };
        let position = JournalPosition {
            incarnation: 1,
            sequence,
            batch: BatchId::from_bytes([7; 16]),
            line: 1,
            published: Timestamp::from_nanos(1),
        };
        ProfilesReply {
            name: ReplicaName::parse(name).unwrap(),
            position: Some(position),
            profiles: held.iter().map(standing).collect(),
            next: next.map(profile),
        }
    }

    fn profile(app: &str) -> Profile {
        format!("t/u/{app}").parse().unwrap()
    }

    #[test]
    fn pages_are_compared_as_far_as_all_of_them_reach() {
        let whole = reply("a", 9, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")], None);
        let short = reply("b", 9, &[("a", "1"), ("b", "x")], Some("b"));
        let compared = compare(&[whole.clone(), short]);
        let expected = Compared { profiles: 2, suspects: vec![profile("b")], end: Some(profile("b")) };
        assert_eq!(compared, expected);
        let lacks = reply("b", 9, &[("a", "1"), ("c", "3"), ("d", "4"), ("e", "5")], None);
        let compared = compare(&[whole.clone(), lacks]);
        assert_eq!((compared.profiles, compared.suspects), (5, vec![profile("b"), profile("e")]));
        assert_eq!(compare(&[whole.clone(), whole]).suspects, []);
        assert_eq!(compare(&[]), Compared::default());
    }

    #[test]
    fn a_difference_says_what_each_replica_holds() {
        let (one, other) = (reply("a", 9, &[("x", "1")], None), reply("b", 9, &[], None));
        let difference = differ(&profile("x"), &[one.clone(), other.clone()]).unwrap();
        let digests: Vec<_> = difference.replicas.iter().map(|held| held.digest.as_deref()).collect();
        assert_eq!(digests, [Some("1"), None]);
        assert!(same_place(&[one.clone(), other]));
        assert!(!same_place(&[one.clone(), reply("b", 8, &[], None)]));
        assert_eq!(differ(&profile("x"), &[one.clone(), one]), None);
    }
}
