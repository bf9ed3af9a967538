//! The timeline of a profile: its changes by revision, as receipts tell it, and the versions of each key. All other checkers
//! compare with it. Making it finds revisions that two changes took.

use std::collections::{BTreeMap, HashMap};

use super::{Findings, Kind};
use crate::history::{History, Nanos, Saved, Text, Told, Write};

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) revision: u64,
    /// None: a delete.
    pub(crate) value: Option<Text>,
}

/// The changes of one profile.
#[derive(Debug, Default)]
pub(crate) struct Timeline<'a> {
    changes: BTreeMap<u64, (&'a Write, &'a Saved)>,
    keys: HashMap<&'a str, Vec<Version>>,
    /// When receipts came, with the highest revision among those that had come by then.
    receipts: Vec<(Nanos, u64)>,
    /// Whether there are changes of which nobody knows what became.
    pub(crate) is_open: bool,
}

impl<'a> Timeline<'a> {
    pub(crate) fn new(history: &'a History, profile: usize, findings: &mut Findings) -> Self {
        let mut timeline = Self::default();
        for write in history.writes.iter().filter(|write| write.profile == profile) {
            match &write.told {
                Told::Saved(saved) => {
                    timeline.receipts.push((write.span.completed, saved.revision));
                    if takes_revision(write, saved) {
                        timeline.add(write, saved, findings);
                    }
                }
                Told::Unknown { .. } => timeline.is_open = true,
                Told::Refused(_) => {}
            }
        }
        for (revision, (write, saved)) in &timeline.changes {
            for op in write.ops.iter().filter(|op| !saved.superseded.contains(&op.key)) {
                let version = Version { revision: *revision, value: op.value.clone() };
                timeline.keys.entry(&op.key).or_default().push(version);
            }
        }
        timeline.receipts.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut timeline.receipts {
            highest = highest.max(*revision);
            *revision = highest;
        }
        timeline
    }

    fn add(&mut self, write: &'a Write, saved: &'a Saved, findings: &mut Findings) {
        if let Some((other, _)) = self.changes.insert(saved.revision, (write, saved)) {
            let text = format!(
                "profile {}: changes {} and {} both took revision {}",
                write.profile, other.id, write.id, saved.revision
            );
            findings.object(Kind::Disordered, text);
        }
    }

    /// The change that took a revision.
    pub(crate) fn at(&self, revision: u64) -> Option<(&'a Write, &'a Saved)> {
        self.changes.get(&revision).copied()
    }

    /// All changes, in order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (u64, &'a Write, &'a Saved)> {
        self.changes.iter().map(|(revision, (write, saved))| (*revision, *write, *saved))
    }

    /// The changes after one revision and up to another.
    pub(crate) fn between(&self, after: u64, upto: u64) -> impl Iterator<Item = (&'a Write, &'a Saved)> {
        let upto = upto.max(after);
        self.changes
            .range(after.saturating_add(1)..=upto.saturating_add(1))
            .filter_map(move |(revision, change)| (*revision <= upto).then_some(*change))
    }

    pub(crate) fn head(&self) -> u64 {
        self.changes.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// The version of a key as of a revision; none if it was not written by then.
    pub(crate) fn version(&self, key: &str, upto: u64) -> Option<&Version> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|version| version.revision <= upto);
        versions[..after].last()
    }

    /// All versions of a key.
    pub(crate) fn versions(&self, key: &str) -> &[Version] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.keys.keys().copied()
    }

    /// The highest revision whose receipt had come before that time.
    pub(crate) fn saved_before(&self, time: Nanos) -> u64 {
        let after = self.receipts.partition_point(|(came, _)| *came < time);
        after.checked_sub(1).map_or(0, |last| self.receipts[last].1)
    }
}

/// Whether the change took the revision that its receipt names: one that came too late whole did not.
fn takes_revision(write: &Write, saved: &Saved) -> bool {
    saved.superseded.len() < write.ops.len()
}
