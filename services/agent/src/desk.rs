//! One profile's work on its files, without the bus: what was heard of the profile goes into the files, and what the files
//! hold that the profile does not becomes operations to publish. Blocking; a round may be repeated at any time, and after a
//! crash at any point.
//!
//! **Invariant:** an operation expects the record to be as this device has heard it. So of two devices that edit one key,
//! the later one is refused, hears of the other's edit, and merges or keeps both; nothing is overwritten unseen, and a
//! change of which no receipt came may be published again under another id.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use globset::GlobSet;
use roam_schemas::{Action, Cursor, Expect, Key, Operation, Record, Revision, State, Timestamp};

use crate::{
    files::{Aside, Done, Edit, Files, FilesError},
    format::{Entries, LeftOut},
    reconcile::{Digest, Held, Sides, Step, reconcile},
    store::{Agreed, Known, Parked, Store, StoreError},
};

/// Deletions of more keys than this are held back if they are more than half of all.
const DELETIONS: usize = 20;

/// One profile and its files.
#[derive(Debug)]
pub(crate) struct Desk {
    /// What the store keeps the profile under.
    scope: String,
    device: String,
    store: Arc<Store>,
    files: Files,
    known: Known,
    /// Keys that stay on this device.
    kept_local: GlobSet,
    /// Whether the next round may delete as much as it likes.
    confirmed: bool,
    /// Keys of the profile that the files cannot hold, and why.
    refused: BTreeMap<Key, String>,
    /// What was given out to be published and is not known to have been, since this process began.
    sent: BTreeMap<Key, Option<Digest>>,
}

/// What a round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What is to be published.
    pub(crate) publish: Vec<Operation>,
    /// Whether there is more to do at once.
    pub(crate) again: bool,
    /// How many keys the files took over from the profile.
    pub(crate) taken: usize,
    /// Files that were set aside, by the names that they have now.
    pub(crate) set_aside: Vec<String>,
    /// What is held back until somebody confirms it.
    pub(crate) held_back: Option<HeldBack>,
    /// What the files hold and does not roam.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Deletions that look like a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HeldBack {
    /// How many keys would be deleted in the profile.
    pub publish: usize,
    /// How many would be deleted in the files.
    pub take: usize,
    /// How many keys file and profile agree on.
    pub of: usize,
}

/// A round could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// The files cannot be worked on now; a change of them may mend it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The agent's own database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// What is known of the profile is read from the store.
    pub(crate) fn new(
        scope: &str,
        device: &str,
        store: Arc<Store>,
        files: Files,
        kept_local: GlobSet,
    ) -> Result<Self, StoreError> {
        let known = store.known(scope)?;
        let (scope, device) = (scope.to_owned(), device.to_owned());
        Ok(Self {
            scope,
            device,
            store,
            files,
            known,
            kept_local,
            confirmed: false,
            refused: BTreeMap::new(),
            sent: BTreeMap::new(),
        })
    }

    /// Where to go on from; none before the profile was heard of for the first time.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.known.cursor
    }

    /// The highest revision that was heard of.
    pub(crate) fn revision(&self) -> Revision {
        self.known.remote.values().map(|held| held.revision).max().unwrap_or_default()
    }

    /// How many keys file and profile agree on.
    pub(crate) fn agreed(&self) -> usize {
        self.known.base.len()
    }

    /// What cannot be published, by key.
    pub(crate) fn parked(&self) -> &BTreeMap<Key, Parked> {
        &self.known.parked
    }

    /// What the files cannot hold, by key.
    pub(crate) fn refused(&self) -> &BTreeMap<Key, String> {
        &self.refused
    }

    /// The directory to watch, and whether what lies below it counts, too.
    pub(crate) fn watched(&self) -> (&std::path::Path, bool) {
        self.files.watched()
    }

    /// The next round may delete as much as it likes.
    pub(crate) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Takes in what the profile holds; `whole` if it is all of it.
    pub(crate) fn hear(&mut self, records: &[Record], cursor: Cursor, whole: bool) -> Result<(), StoreError> {
        self.store.hear(&self.scope, &mut self.known, records, cursor, whole)?;
        // Of an own change the receipt may have been lost, and the file edited again since: that is no conflict.
        let own = records.iter().filter(|record| record.device.as_str() == self.device).filter_map(|record| {
            let value = value_of(record);
            let is_sent = self.sent.get(&record.key) == Some(&value.as_deref().map(blake3::hash));
            is_sent.then(|| Agreed { key: record.key.clone(), value, revision: None })
        });
        let own: Vec<Agreed> = own.collect();
        for Agreed { key, .. } in &own {
            self.sent.remove(key);
        }
        self.store.agree(&self.scope, &mut self.known, own)
    }

    /// A backup was restored on the servers, so what they hold may be older than what was heard of before; `epoch` is the
    /// first revision since then. What this device alone has now counts as its own edit: it is published, or kept beside what
    /// another device wrote since. To be called before the whole profile is heard.
    pub(crate) fn restored(&mut self, records: &[Record], epoch: Revision) -> Result<(), StoreError> {
        let found: BTreeMap<&Key, &Record> = records.iter().map(|record| (&record.key, record)).collect();
        let keys: BTreeSet<&Key> = self.known.base.keys().chain(self.known.remote.keys()).collect();
        let agreed = keys.into_iter().filter_map(|key| {
            let before = self.known.remote.get(key).map_or(Revision::ZERO, |held| held.revision);
            let value = match found.get(key) {
                // As it was heard of, or newer and of before the restore.
                Some(record) if record.revision >= before && (record.revision < epoch || record.revision == before) => {
                    return None;
                }
                Some(record) if record.revision < before => value_of(record),
                // Gone with what was lost, or written since by somebody who may not have seen it.
                Some(_) | None => None,
            };
            Some(Agreed { key: key.clone(), value, revision: None })
        });
        let agreed = agreed.collect();
        self.store.agree(&self.scope, &mut self.known, agreed)
    }

    /// An operation took effect, as part of the revision.
    pub(crate) fn published(&mut self, ops: Vec<Operation>, revision: Revision) -> Result<(), StoreError> {
        for op in &ops {
            self.sent.remove(&op.key);
        }
        let agreed = ops.into_iter().map(|op| Agreed {
            key: op.key,
            value: match op.action {
                Action::Put(put) => Some(put.value.into_bytes()),
                Action::Delete => None,
            },
            revision: Some(revision),
        });
        self.store.agree(&self.scope, &mut self.known, agreed.collect())
    }

    /// An operation was refused for good: it is put aside until its value changes or somebody asks for it.
    pub(crate) fn park(&mut self, op: &Operation, reason: String) -> Result<(), StoreError> {
        let digest = digest(op).map(|digest| *digest.as_bytes());
        self.store.park(&self.scope, &mut self.known, op.key.clone(), Parked { digest, reason })
    }

    /// What was put aside is tried again.
    pub(crate) fn retry(&mut self) -> Result<(), StoreError> {
        self.store.unpark(&self.scope, &mut self.known)
    }

    /// Looks at the files, takes into them what others changed, and says what is to be published.
    pub(crate) fn round(&mut self, now: Timestamp) -> Result<Round, DeskError> {
        let base = if self.files.needs_base() { self.store.base(&self.scope)? } else { Entries::new() };
        let look = self.files.look(&base)?;
        let unknown: BTreeSet<&str> = look.left_out.iter().map(|left_out| left_out.key.as_str()).collect();
        let is_unknown = |key: &Key| {
            self.kept_local.is_match(key.as_str()) || ancestors(key.as_str()).any(|path| unknown.contains(path))
        };
        let sides = Sides { local: &look.local, base: &self.known.base, remote: &self.known.remote };
        let mut steps = reconcile(sides, is_unknown);
        let mut round = Round { held_back: self.hold_back(&mut steps, &look.local), ..Round::default() };
        let mut agreed = Vec::new();
        let mut edits = Vec::new();
        for (key, step) in steps {
            let local = look.local.get(&key).copied();
            match step {
                Step::Settle => agreed.push(Agreed { value: self.remote_value(&key)?, key, revision: None }),
                Step::Publish => round.publish.extend(self.operation(&key, local)),
                Step::Take => {
                    let value = self.remote_value(&key)?;
                    edits.push(Planned::taking(Edit { key, value, over: local, aside: None }));
                }
                Step::Clash => edits.push(self.settle_clash(key, local, &base, now)?),
            }
        }
        self.sent.extend(round.publish.iter().map(|op| (op.key.clone(), digest(op))));
        self.make(edits, agreed, &mut round)?;
        round.left_out = look.left_out;
        Ok(round)
    }

    /// What to do about a key that has two values.
    fn settle_clash(
        &self,
        key: Key,
        local: Option<Digest>,
        base: &Entries,
        now: Timestamp,
    ) -> Result<Planned, DeskError> {
        let remote = self.remote_value(&key)?;
        let merged = match (self.files.value(&key), &remote) {
            (Some(mine), Some(theirs)) => self.files.merge(base.get(&key).map(Vec::as_slice), &mine, theirs),
            _ => None,
        };
        // What is agreed on is the other side's value: so the merged one, or the local one, is published next.
        if merged.is_some() {
            let edit = Edit { key, value: merged, over: local, aside: None };
            return Ok(Planned { edit: Some(edit), agreed: remote, key: None });
        }
        if self.files.needs_base() && base.contains_key(&key) {
            return Ok(Planned { edit: None, agreed: remote, key: Some(key) });
        }
        let aside = Some(Aside { device: self.device.clone(), time: now });
        Ok(Planned::taking(Edit { key, value: remote, over: local, aside }))
    }

    /// Changes the files, and remembers what they and the profile agree on then.
    fn make(&mut self, planned: Vec<Planned>, mut agreed: Vec<Agreed>, round: &mut Round) -> Result<(), DeskError> {
        let mut edits = Vec::new();
        let mut after = Vec::new();
        for Planned { edit, agreed: value, key } in planned {
            match (edit, key) {
                (Some(edit), _) => {
                    after.push((edit.key.clone(), value));
                    edits.push(edit);
                }
                (None, Some(key)) => {
                    round.again = true;
                    agreed.push(Agreed { key, value, revision: None });
                }
                (None, None) => {}
            }
        }
        let done = self.files.put(&edits)?;
        let mut refused = BTreeMap::new();
        for ((edit, (key, value)), done) in edits.iter().zip(after).zip(done) {
            match done {
                Done::Made(aside) => {
                    round.taken += 1;
                    // A merged value is to be published, and so is what was set aside.
                    round.again |= edit.value != value || aside.is_some();
                    round.set_aside.extend(aside);
                    agreed.push(Agreed { key, value, revision: None });
                }
                Done::Edited => round.again = true,
                Done::Refused(why) => drop(refused.insert(key, why)),
            }
        }
        round.set_aside.sort_unstable();
        round.set_aside.dedup();
        self.refused = refused;
        Ok(self.store.agree(&self.scope, &mut self.known, agreed)?)
    }

    /// The operation that makes the profile hold what the files do, as long as it still is as it was heard of.
    fn operation(&self, key: &Key, local: Option<Digest>) -> Option<Operation> {
        let op = match local {
            // What cannot be read any more was edited since, and the next round sees it.
            Some(_) => Operation::put(key.clone(), self.files.value(key)?, self.files.content_type(key)),
            None => Operation::delete(key.clone()),
        };
        let parked =
            self.known.parked.get(key).is_some_and(|parked| parked.digest == local.map(|digest| *digest.as_bytes()));
        let expect = match self.known.remote.get(key) {
            Some(Held { revision, value: Some(_) }) => Expect::At(*revision),
            _ => Expect::Absent,
        };
        (!parked).then(|| op.expecting(expect))
    }

    /// Takes deletions out of the steps if they look like a mistake: an emptied directory, a settings file that was reset,
    /// a server that lost its data.
    fn hold_back(&mut self, steps: &mut Vec<(Key, Step)>, local: &BTreeMap<Key, Digest>) -> Option<HeldBack> {
        let deletes = |key: &Key, step: Step| match step {
            Step::Publish => !local.contains_key(key),
            Step::Take => local.contains_key(key) && self.known.remote.get(key).is_none_or(|held| held.value.is_none()),
            Step::Settle | Step::Clash => false,
        };
        let count = |which: Step| steps.iter().filter(|(key, step)| *step == which && deletes(key, *step)).count();
        let held_back = HeldBack { publish: count(Step::Publish), take: count(Step::Take), of: self.known.base.len() };
        let is_much = |count: usize| count > DELETIONS && 2 * count > held_back.of;
        let is_gone = held_back.publish > 0 && self.files.are_gone();
        if !is_gone && !is_much(held_back.publish) && !is_much(held_back.take) {
            return None;
        }
        if std::mem::take(&mut self.confirmed) {
            return None;
        }
        if is_gone {
            // Nothing is written into files that are gone, either: what is written would hide what is missing.
            steps.clear();
        }
        steps.retain(|(key, step)| !deletes(key, *step));
        Some(held_back)
    }

    fn remote_value(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.remote_value(&self.scope, key)
    }
}

fn value_of(record: &Record) -> Option<Vec<u8>> {
    match &record.state {
        State::Value(stored) => Some(stored.value.as_bytes().to_vec()),
        State::Deleted | State::Expired => None,
    }
}

fn digest(op: &Operation) -> Option<Digest> {
    match &op.action {
        Action::Put(put) => Some(blake3::hash(put.value.as_bytes())),
        Action::Delete => None,
    }
}

/// An edit, and what file and profile agree on once it is made. Without an edit they agree already, about the key.
struct Planned {
    edit: Option<Edit>,
    agreed: Option<Vec<u8>>,
    key: Option<Key>,
}

impl Planned {
    /// The profile's value goes into the files.
    fn taking(edit: Edit) -> Self {
        Self { agreed: edit.value.clone(), edit: Some(edit), key: None }
    }
}

/// A path and all directories above it.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once(path).chain(path.match_indices('/').map(|(at, _)| &path[..at]))
}
