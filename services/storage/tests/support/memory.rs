//! The least that `decide` can be run on: what the store would hold, in maps. Holds no test.

use std::collections::BTreeMap;

use roam_schemas::{Action, BatchId, ChangeId, Key, Outcome, StampedChange, Terms, Timestamp};
use roam_storage::{
    decide::{Decision, Effect, Effects, Facts, Known, KnownValue, decide},
    store::{Head, Seen},
};

use super::model::{Answer, Said};

/// A profile in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) head: Head,
    pub(crate) records: BTreeMap<Key, Record>,
    /// How many operations came too late, by key and the revision that beat them.
    pub(crate) late: BTreeMap<(Key, u64), u32>,
    seen: BTreeMap<ChangeId, Seen>,
}

/// A record, with what a reader sees of it beside what `decide` does.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) known: Known,
    pub(crate) conflict: bool,
    pub(crate) value: Option<Vec<u8>>,
}

impl Memory {
    /// Decides on a change and does what the decision says.
    pub(crate) fn hear(&mut self, stamped: &StampedChange, terms: &Terms) -> Said {
        match decide(&self.facts(stamped), terms, terms.quota(), stamped) {
            Decision::Again(outcome) => Said::Again(answer(&outcome)),
            Decision::Mismatch(_) => Said::Mismatch,
            Decision::Decided { time, outcome, effects } => {
                let said = Said::First(answer(&outcome));
                self.apply(stamped, time, &outcome, &effects);
                let (batch, digest) = (BatchId::from_bytes([0; 16]), stamped.digest);
                self.seen.insert(stamped.change.id(), Seen { batch, index: 0, digest, time, outcome });
                said
            }
        }
    }

    /// How many records hold a value, and how many bytes their keys and values have, counted anew.
    pub(crate) fn count(&self) -> (u64, u64) {
        let sizes = self.records.values().filter_map(|record| record.known.value).map(|value| value.bytes);
        sizes.fold((0, 0), |(records, bytes), size| (records + 1, bytes + size))
    }

    fn facts(&self, stamped: &StampedChange) -> Facts {
        let ops = stamped.change.ops().iter();
        Facts {
            seen: self.seen.get(&stamped.change.id()).cloned(),
            head: self.head,
            records: ops.map(|op| self.records.get(&op.key).map(|record| record.known.clone())).collect(),
            user_profiles: (self.head == Head::default()).then_some(0),
            erased: None,
            elsewhere: false,
            journaled: Timestamp::default(),
        }
    }

    fn apply(&mut self, stamped: &StampedChange, time: Timestamp, outcome: &Outcome, effects: &Effects) {
        let ops = stamped.change.ops();
        let rejected = matches!(outcome, Outcome::Rejected(_));
        assert_eq!(effects.operations.len(), if rejected { 0 } else { ops.len() }, "an effect for each operation");
        let moves = effects.operations.iter().any(|effect| matches!(effect, Effect::Record { .. }));
        assert_eq!(effects.head.is_some(), moves, "the head moves exactly if a record does");
        self.head = effects.head.unwrap_or(self.head);
        for (op, effect) in ops.iter().zip(&effects.operations) {
            match *effect {
                Effect::Late { beaten_by } => {
                    *self.late.entry((op.key.clone(), beaten_by.get())).or_default() += 1;
                }
                Effect::Record { expires, conflict } => {
                    let value = match &op.action {
                        Action::Delete => None,
                        Action::Put(put) => Some(put.value.as_bytes().to_vec()),
                    };
                    let bytes = |value: &Vec<u8>| (op.key.as_str().len() + value.len()) as u64;
                    let known = Known {
                        revision: self.head.revision,
                        time,
                        device: stamped.device.clone(),
                        stamp: stamped.stamp,
                        value: value.as_ref().map(|value| KnownValue { expires, bytes: bytes(value) }),
                    };
                    self.records.insert(op.key.clone(), Record { known, conflict, value });
                }
            }
        }
    }
}

/// An outcome in the words of the model.
pub(crate) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Applied(applied) => Answer::Applied {
            revision: applied.revision.get(),
            time: applied.time.as_nanos(),
            conflicts: applied
                .conflicts
                .iter()
                .map(|c| (c.key.as_str().to_owned(), c.revision.get(), c.device.as_str().to_owned()))
                .collect(),
            superseded: applied
                .superseded
                .iter()
                .map(|late| (late.key.as_str().to_owned(), late.revision.get()))
                .collect(),
            nearly_full: applied.nearly_full,
        },
        Outcome::Rejected(problem) => {
            let failed = problem.failed.as_ref();
            let failed = failed.map(|it| (it.key.as_str().to_owned(), it.revision.map(|revision| revision.get())));
            Answer::Rejected { code: problem.code, failed, exceeded: problem.limit.zip(problem.actual) }
        }
    }
}
