//! The servers, as plain as can be: one list of what was applied, one map of what is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use roam_schemas::{
    Change, ChangeId, Code, Conflict, Device, Expect, Key, Operation, Problem, Record, Revision, State, Timestamp,
};

use super::super::outbox::{Decided, state_after};
use crate::Saved;

#[derive(Debug, Clone, Default)]
pub(super) struct Server {
    pub(super) revision: u64,
    pub(super) records: BTreeMap<Key, Record>,
    decided: HashMap<ChangeId, Decided>,
    /// A cursor below this is too old.
    horizon: u64,
    /// All states that were ever applied, by key, with the revision: the history.
    pub(super) applied: Vec<(Key, Record)>,
}

impl Server {
    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_nanos(1_000 + self.revision)
    }

    pub(super) fn place(&self) -> (Revision, Timestamp) {
        (Revision::new(self.revision), self.time())
    }

    pub(super) fn decide(&mut self, change: &Change, device: &Device) -> Decided {
        if let Some(first) = self.decided.get(&change.id()) {
            return first.clone();
        }
        let decided = self.first(change, device);
        self.decided.insert(change.id(), decided.clone());
        decided
    }

    fn first(&mut self, change: &Change, device: &Device) -> Decided {
        if let Some(failed) = change.ops().iter().find(|op| !self.is_as_expected(op)) {
            let problem = Problem::new(Code::Conflict, "not as expected").with_failed(failed.key.clone(), None);
            return Decided::Rejected(problem);
        }
        let conflicts: Vec<Conflict> = Vec::new();
        self.revision += 1;
        let (revision, time) = self.place();
        for op in change.ops() {
            let (key, state) = (op.key.clone(), state_after(op, time));
            let record = Record { key: key.clone(), revision, time, device: device.clone(), conflict: false, state };
            self.applied.push((key.clone(), record.clone()));
            self.records.insert(key, record);
        }
        Decided::Applied(Saved {
            id: change.id(),
            sequence: 1,
            again: false,
            revision,
            time,
            conflicts,
            superseded: Vec::new(),
            nearly_full: false,
        })
    }

    fn is_as_expected(&self, op: &Operation) -> bool {
        let live = self.records.get(&op.key).filter(|record| matches!(record.state, State::Value(_)));
        match op.expect {
            Expect::Any => true,
            Expect::Absent => live.is_none(),
            Expect::At(revision) => live.is_some_and(|record| record.revision == revision),
        }
    }

    /// What changed since a revision; none if that is too far back, or of another epoch.
    pub(super) fn since(&self, revision: u64) -> Option<Vec<Record>> {
        let reset = revision > 0 && (revision < self.horizon || revision >> 40 != self.revision >> 40);
        (!reset).then(|| self.all().into_iter().filter(|record| record.revision.get() > revision).collect())
    }

    pub(super) fn all(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.records.values().cloned().collect();
        records.sort_by_key(|record| record.revision);
        records
    }

    /// Whether the history of this epoch has the state.
    pub(super) fn known(&self, held: &[Record]) -> HashSet<Key> {
        let has = |held: &&Record| self.applied.iter().any(|(key, past)| *key == held.key && past.state == held.state);
        held.iter().filter(has).map(|held| held.key.clone()).collect()
    }

    pub(super) fn forget_tombstones(&mut self) {
        self.horizon = self.revision;
        self.records.retain(|_, record| matches!(record.state, State::Value(_)));
    }

    /// Becomes what a backup was, in a new epoch.
    pub(super) fn restore(&mut self, backup: Self) {
        let epoch = (self.revision >> 40) + 1;
        *self = Self { revision: epoch << 40, ..backup };
    }
}
