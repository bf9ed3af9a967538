//! The set in full: at the end the profile holds exactly what the changes with receipts make of it, every change that was
//! accepted was decided or is in ROAM_REJECTED, and all replicas hold the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Findings, Given, Kind, Timeline, register};
use crate::history::{Answer, History, Told};

/// So many of a user ROAM_REJECTED keeps, the newest.
const KEPT: usize = 1_000;
/// Once it holds so many, these are there all the same: some may be filed twice, and some a little out of order.
const SURELY_KEPT: usize = 800;

pub(super) fn check(history: &History, timelines: &[Timeline<'_>], given: Given, findings: &mut Findings) {
    for (profile, answer) in &history.finals {
        if let Some(timeline) = timelines.get(*profile) {
            whole(*profile, answer, timeline, findings);
        }
    }
    for failure in &history.failures {
        findings.object(Kind::Lost, failure);
    }
    if !given.bus_lost {
        for vanished in &history.vanished {
            findings.object(Kind::Lost, vanished);
        }
        let undecided = history.writes.iter().filter(|write| matches!(write.told, Told::Unknown { .. }));
        for write in undecided {
            findings.object(Kind::Lost, format!("nobody decides change {}", write.id));
        }
        if let Some(filed) = &history.filed {
            let looked_for = if filed.len() < KEPT { usize::MAX } else { SURELY_KEPT };
            let filed: HashSet<u64> = filed.iter().copied().collect();
            let mut spoiled = history.spoiled.clone();
            spoiled.sort_unstable();
            for sequence in spoiled.iter().rev().take(looked_for).filter(|sequence| !filed.contains(sequence)) {
                findings.object(Kind::Lost, format!("change {sequence} is not decodable and not in ROAM_REJECTED"));
            }
        }
    }
    same_everywhere(history, given.replicas, findings);
}

fn whole(profile: usize, answer: &Answer, timeline: &Timeline<'_>, findings: &mut Findings) {
    let who = format!("at the end profile {profile}");
    if answer.head < timeline.head() {
        findings.object(Kind::Lost, format!("{who} stands at {} of {}", answer.head, timeline.head()));
    }
    register::exact(&who, answer, timeline, findings);
    let there: HashMap<&str, u64> = answer.records.iter().map(|record| (&*record.key, record.revision)).collect();
    for key in timeline.keys() {
        let live = timeline.version(key, u64::MAX).filter(|version| version.value.is_some());
        if let Some(version) = live
            && !there.contains_key(key)
        {
            findings.object(Kind::Lost, format!("{who} has no {key}, saved at {}", version.revision));
        }
    }
}

fn same_everywhere(history: &History, replicas: usize, findings: &mut Findings) {
    let mut profiles: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for standing in &history.standings {
        profiles.entry(&standing.profile).or_default().push((standing.revision, &standing.digest));
    }
    for (profile, standings) in profiles {
        let same = standings.len() == replicas && standings.windows(2).all(|pair| pair[0] == pair[1]);
        if !same {
            findings.object(Kind::Lost, format!("replicas hold different things of {profile}: {standings:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forge::Forge;
    use super::*;
    use crate::history::Standing;

    #[test]
    fn what_is_missing_or_older_at_the_end_is_lost() {
        let mut forge = Forge::good();
        forge.history.finals[0].1.records.retain(|record| &*record.key != "own");
        forge.finds(&[Kind::Lost]);
        let mut forge = Forge::good();
        forge.history.finals[0].1.head = 3;
        assert!(forge.kinds().contains(&Kind::Lost));
    }

    #[test]
    fn what_is_there_and_was_never_written_is_unexpected() {
        let mut forge = Forge::good();
        let mut record = forge.history.finals[0].1.records[0].clone();
        record.key = "strange".into();
        forge.history.finals[0].1.records.push(record);
        forge.finds(&[Kind::Disordered]);
    }

    #[test]
    fn what_was_accepted_and_is_not_decided_is_lost_unless_the_bus_lost_it() {
        let mut forge = Forge::good();
        forge.history.vanished.push("it".to_owned());
        forge.history.spoiled.extend([1, 2]);
        forge.history.filed = Some(vec![2]);
        forge.finds(&[Kind::Lost, Kind::Lost]);
        forge.given.bus_lost = true;
        forge.finds(&[]);
    }

    #[test]
    fn of_many_that_cannot_be_decoded_the_newest_are_filed() {
        let mut forge = Forge::good();
        forge.history.spoiled.extend(1..=1_100);
        forge.history.filed = Some((101..=1_100).collect());
        forge.finds(&[]);
        forge.history.filed = Some((100..=1_100).filter(|sequence| *sequence != 700).collect());
        forge.finds(&[Kind::Lost]);
        // Below a thousand nothing was pushed out.
        forge.history.spoiled = (1..=900).collect();
        forge.history.filed = Some((2..=900).collect());
        forge.finds(&[Kind::Lost]);
    }

    #[test]
    fn replicas_that_differ_are_objected_to() {
        let mut forge = Forge::good();
        let mut standing =
            Standing { replica: "a".to_owned(), profile: "p".to_owned(), revision: 4, digest: Some("1".to_owned()) };
        forge.history.standings.push(standing.clone());
        standing.replica = "b".to_owned();
        forge.history.standings.push(standing);
        forge.finds(&[]);
        forge.history.standings[1].digest = Some("2".to_owned());
        forge.finds(&[Kind::Lost]);
        forge.history.standings.truncate(1);
        forge.finds(&[Kind::Lost]);
        forge.given.replicas = 1;
        forge.finds(&[]);
    }
}
