//! What the desk learns: of what the profile holds, and of what became of what it published. Only the database and what is
//! known change; the files do in the next round.

use std::collections::{BTreeMap, BTreeSet};

use roam_schemas::{Action, Cursor, Key, Operation, Record, Revision, Stored};

use super::Desk;
use crate::{
    content::Content,
    store::{Agreed, Parked, StoreError},
};

impl Desk {
    /// Takes in what the profile holds; `whole` if it is all of it.
    pub(crate) fn hear(&mut self, records: &[Record], cursor: Cursor, whole: bool) -> Result<(), StoreError> {
        self.store.hear(&self.scope, &mut self.known, records, cursor, whole)?;
        self.all |= whole;
        let mut own = Vec::new();
        for record in records {
            let Some(key) = self.layered.local(&record.key) else { continue };
            // Of an own change the receipt may have been lost, and the file edited again since: that is no conflict.
            if record.device.as_str() == self.device {
                let value = Content::of(record);
                if self.sent.get(&key) == Some(&value.as_ref().map(Content::digest)) {
                    self.sent.remove(&key);
                    own.push(Agreed { key: key.clone(), value, written: None });
                }
            }
            self.touched.insert(key);
        }
        self.store.agree(&self.scope, &mut self.known, own)
    }

    /// A backup was restored on the servers, so what they hold may be older than what was heard of before; `epoch` is the
    /// first revision since then. What this device alone has now counts as its own edit: it is published, or kept beside what
    /// another device wrote since. To be called before the whole profile is heard.
    pub(crate) fn restored(&mut self, records: &[Record], epoch: Revision) -> Result<(), StoreError> {
        let found: BTreeMap<&Key, &Record> = records.iter().map(|record| (&record.key, record)).collect();
        let heard = self.known.remote.keys().filter_map(|record| self.layered.local(record));
        let keys: BTreeSet<Key> = self.known.base.keys().cloned().chain(heard).collect();
        let agreed = keys.into_iter().filter_map(|key| {
            let in_force = self.layered.in_force(&self.known.remote, &key);
            let (record, before) =
                in_force.map_or((key.clone(), Revision::ZERO), |(_, record, held)| (record, held.revision));
            let value = match found.get(&record) {
                // As it was heard of, or newer and of before the restore.
                Some(record) if record.revision >= before && (record.revision < epoch || record.revision == before) => {
                    return None;
                }
                Some(record) if record.revision < before => Content::of(record),
                // Gone with what was lost, or written since by somebody who may not have seen it.
                Some(_) | None => None,
            };
            Some(Agreed { key, value, written: None })
        });
        let agreed = agreed.collect();
        self.store.agree(&self.scope, &mut self.known, agreed)
    }

    /// An operation took effect, as part of the revision.
    pub(crate) fn published(&mut self, ops: Vec<Operation>, revision: Revision) -> Result<(), StoreError> {
        let mut agreed = Vec::with_capacity(ops.len());
        for op in ops {
            let Some(key) = self.layered.local(&op.key) else { continue };
            self.sent.remove(&key);
            let value = content_of(op.action);
            agreed.push(Agreed { key, value, written: Some((op.key, revision)) });
        }
        self.store.agree(&self.scope, &mut self.known, agreed)
    }

    /// An operation was refused for good: it is put aside until its value changes or somebody asks for it.
    pub(crate) fn park(&mut self, op: Operation, reason: String) -> Result<(), StoreError> {
        let Some(key) = self.layered.local(&op.key) else { return Ok(()) };
        self.sent.remove(&key);
        let digest = content_of(op.action).map(|content| *content.digest().as_bytes());
        self.store.park(&self.scope, &mut self.known, key, Parked { digest, reason })
    }

    /// What was put aside is tried again.
    pub(crate) fn retry(&mut self) -> Result<(), StoreError> {
        self.all = true;
        self.store.unpark(&self.scope, &mut self.known)
    }

    /// What was put aside under a key, or all of it, is let go: the file stays as it is, and is published no more until it
    /// changes.
    pub(crate) fn let_go(&mut self, key: Option<&Key>) -> Result<(), StoreError> {
        let keys: Vec<Key> =
            self.known.parked.keys().filter(|parked| key.is_none_or(|key| key == *parked)).cloned().collect();
        for key in keys {
            self.store.let_go(&self.scope, &mut self.known, &key)?;
        }
        Ok(())
    }
}

/// What an operation leaves under its key.
fn content_of(action: Action) -> Option<Content> {
    let Action::Put(put) = action else { return None };
    let stored = Stored { value: put.value, content_type: put.content_type, expires: None };
    let manifest = stored.manifest().ok().flatten();
    Some(manifest.map_or_else(|| Content::Whole(stored.value.into_bytes()), Content::Large))
}
