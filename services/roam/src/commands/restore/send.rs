//! Writing what brings keys back: change after change, each all or nothing, and each only if its records stand as they
//! were seen. A key that somebody wrote meanwhile is left out, and the others are tried again without it.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use roam_client::{ChangeError, ProfileClient, ReadError, Saved};
use roam_schemas::{Action, Code, Encoding, Expect, Key, Operation, Record, Revision, Select, State};

use crate::{output::Output, transfer::Batcher};

/// How often a change is tried again without the keys that were written meanwhile.
const ATTEMPTS: usize = 5;

/// Why not everything was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRestored {
    /// What stands now could not be learnt.
    #[error(transparent)]
    Unanswered(#[from] ReadError),
    /// A change was not saved.
    #[error(transparent)]
    Unsaved(#[from] ChangeError),
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// How many keys were written.
    pub(super) put: u64,
    /// How many keys were deleted.
    pub(super) deleted: u64,
    /// How many changes it took.
    pub(super) changes: u64,
    /// The profile's revision after them.
    pub(super) revision: Option<Revision>,
    /// Keys that stay as they are: somebody wrote them meanwhile.
    pub(super) changed_meanwhile: Vec<Key>,
}

/// Writes what brings keys back.
pub(super) struct Restorer<'a> {
    profile: &'a ProfileClient,
    base: Revision,
    seen: HashMap<Key, Revision>,
    restored: Restored,
}

impl<'a> Restorer<'a> {
    /// For keys that were seen at these revisions, when the profile was at `base`.
    pub(super) fn new(profile: &'a ProfileClient, base: Revision, seen: HashMap<Key, Revision>) -> Self {
        Self { profile, base, seen, restored: Restored::default() }
    }

    /// What was written so far.
    pub(super) fn into_restored(self) -> Restored {
        self.restored
    }

    /// Writes everything, in as few changes as their limits allow, one after the other.
    pub(super) async fn send_all(
        &mut self,
        ops: Vec<Operation>,
        encoding: Encoding,
        out: Output,
    ) -> Result<(), NotRestored> {
        let bar = out.bar(ops.len() as u64, "restoring");
        let mut batcher = Batcher::new(encoding);
        let mut batches: Vec<_> = ops.into_iter().filter_map(|op| batcher.add(op)).collect();
        batches.extend(batcher.take());
        let mut sent = Ok(());
        for ops in batches {
            let count = ops.len() as u64;
            sent = self.send(ops).await;
            if sent.is_err() {
                break;
            }
            bar.inc(count);
        }
        bar.finish_and_clear();
        sent
    }

    /// Writes one change, without the keys that stand differently by now.
    async fn send(&mut self, mut ops: Vec<Operation>) -> Result<(), NotRestored> {
        let mut attempt = 1;
        while !ops.is_empty() {
            match self.profile.change_with(Some(self.base), ops.clone()).await {
                Ok(saved) => {
                    self.count(&ops, &saved);
                    return Ok(());
                }
                Err(error) if is_unmet(&error) && attempt < ATTEMPTS => ops = self.look_again(ops).await?,
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
        }
        Ok(())
    }

    fn count(&mut self, ops: &[Operation], saved: &Saved) {
        let put = ops.iter().filter(|op| matches!(op.action, Action::Put(_))).count() as u64;
        self.restored.put += put;
        self.restored.deleted += ops.len() as u64 - put;
        self.restored.changes += 1;
        self.restored.revision = self.restored.revision.max(Some(saved.revision));
    }

    async fn look_again(&mut self, ops: Vec<Operation>) -> Result<Vec<Operation>, ReadError> {
        let keys = ops.iter().map(|op| op.key.clone()).collect();
        let records: Vec<Record> = self.profile.records(Select::Keys(keys)).try_collect().await?;
        let records = records.into_iter().map(|record| (record.key.clone(), record)).collect();
        let (ops, changed) = still_meant(ops, &self.seen, &records);
        self.restored.changed_meanwhile.extend(changed);
        Ok(ops)
    }
}

/// Whether the change was refused because a record does not stand as expected.
fn is_unmet(error: &ChangeError) -> bool {
    matches!(error.code(), Some(Code::Conflict | Code::Exists))
}

/// The operations whose records stand at the revision that they were seen at, and the keys of the others. A record whose
/// time came meanwhile is absent now; nobody has to delete it any more.
fn still_meant(
    ops: Vec<Operation>,
    seen: &HashMap<Key, Revision>,
    records: &HashMap<Key, Record>,
) -> (Vec<Operation>, Vec<Key>) {
    let (mut meant, mut changed) = (Vec::new(), Vec::new());
    for mut op in ops {
        match records.get(&op.key) {
            Some(record) if seen.get(&op.key) == Some(&record.revision) => {
                let is_live = matches!(record.state, State::Value(_));
                op.expect = if is_live { Expect::At(record.revision) } else { Expect::Absent };
                if is_live || op.action != Action::Delete {
                    meant.push(op);
                }
            }
            // A tombstone that was forgotten meanwhile: it is as absent as before.
            None if op.expect == Expect::Absent => meant.push(op),
            _ => changed.push(op.key),
        }
    }
    (meant, changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ContentType, Device, Stored, Timestamp, Value};

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn record(name: &str, revision: u64, state: State) -> (Key, Record) {
        let record = Record {
            key: key(name),
            revision: Revision::new(revision),
            time: Timestamp::from_nanos(revision),
            device: Device::parse("d").unwrap(),
            conflict: false,
            state,
        };
        (key(name), record)
    }

    #[test]
    fn what_somebody_wrote_meanwhile_is_left_out() {
        let live = || State::Value(Stored { value: Value::new("v"), content_type: ContentType::text(), expires: None });
        let at = |revision| Expect::At(Revision::new(revision));
        let put = |name: &str, expect| Operation::put(key(name), "v", ContentType::text()).expecting(expect);
        let delete = |name: &str, expect| Operation::delete(key(name)).expecting(expect);
        let ops = vec![
            put("stands", at(1)),
            put("written", at(2)),
            put("gone", Expect::Absent),
            put("forgotten", Expect::Absent),
            put("expired", at(5)),
            delete("expired-too", at(6)),
            delete("unknown", at(7)),
        ];
        let names = ["stands", "written", "gone", "forgotten", "expired", "expired-too", "unknown"];
        let seen = names.iter().zip(1..).map(|(name, number)| (key(name), Revision::new(number))).collect();
        let records = HashMap::from([
            record("stands", 1, live()),
            record("written", 9, live()),
            record("gone", 3, State::Deleted),
            record("expired", 5, State::Expired),
            record("expired-too", 6, State::Expired),
        ]);
        let (meant, changed) = still_meant(ops, &seen, &records);
        let expected = [
            put("stands", at(1)),
            put("gone", Expect::Absent),
            put("forgotten", Expect::Absent),
            put("expired", Expect::Absent),
        ];
        assert_eq!(meant, expected);
        assert_eq!(changed, [key("written"), key("unknown")]);
    }
}
