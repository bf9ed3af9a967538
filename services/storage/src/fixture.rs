//! A replica's store in a temporary directory, for the tests of this crate: fed with changes, it holds what a replica
//! holds. And a bus of a test's own.
#![allow(clippy::unwrap_used)]

mod provisioned;

use std::path::Path;

use roam_schemas::{
    BatchId, Change, ChangeId, ContentType, Control, Device, Encoding, JournalBatch, Key, Operation, Origin, Profile,
    RULES, Revision, Skip, Stamp, StampedChange, TenantQuota, Terms, Timestamp,
};
use tempfile::TempDir;

use crate::{
    apply::{AppliedBatch, Applier, Verdict},
    store::{self, Position, ProfileKey, Reader, Removed, StoreSettings},
};
pub(crate) use provisioned::Provisioned;

/// A replica that has its batches from a test.
pub(crate) struct Fixture {
    pub(crate) profile: Profile,
    pub(crate) device: Device,
    pub(crate) terms: Terms,
    pub(crate) quotas: Vec<TenantQuota>,
    pub(crate) reader: Reader,
    applier: Applier,
    /// When the stream took in what is applied next, in nanoseconds.
    pub(crate) published: u64,
    changes: u64,
    batches: u64,
    /// Last, so that the store is closed before it goes.
    directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::of("acme/alice/mail", "laptop")
    }

    pub(crate) fn of(profile: &str, device: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (writer, reader) = store::open(directory.path(), &StoreSettings::default()).unwrap();
        Self {
            profile: profile.parse().unwrap(),
            device: Device::parse(device).unwrap(),
            terms: Terms::default(),
            quotas: Vec::new(),
            applier: Applier::new(writer, reader.clone()).unwrap(),
            reader,
            published: 0,
            changes: 0,
            batches: 0,
            directory,
        }
    }

    pub(crate) fn key(&self) -> ProfileKey {
        ProfileKey::new(&self.profile)
    }

    /// A change that came one second after the one before.
    pub(crate) fn change(&mut self, base: Option<u64>, ops: Vec<Operation>) -> StampedChange {
        self.changes += 1;
        let id = ChangeId::from_bytes(u128::from(self.changes).to_be_bytes());
        let change = Change::new(id, base.map(Revision::new), ops).unwrap();
        StampedChange {
            profile: self.profile.clone(),
            device: self.device.clone(),
            encoding: Encoding::Json,
            stamp: Stamp { time: seconds(self.changes), origin: Origin { incarnation: 1, sequence: self.changes } },
            digest: change.digest(),
            change,
        }
    }

    /// Applies changes as one batch.
    pub(crate) fn apply(&mut self, changes: Vec<StampedChange>) -> AppliedBatch {
        let (batch, position) = self.batch(changes);
        let prepared = self.applier.prepare(&batch, &position).unwrap();
        self.applier.commit(&prepared).unwrap();
        AppliedBatch { sequence: self.batches, batch, verdicts: prepared.verdicts }
    }

    /// Passes over changes as one batch.
    pub(crate) fn skip(&mut self, changes: Vec<StampedChange>) -> Vec<Verdict> {
        let (batch, position) = self.batch(changes);
        let prepared = self.applier.prepare_skipped(&batch, &position).unwrap();
        self.applier.commit(&prepared).unwrap();
        prepared.verdicts
    }

    /// Does what an operator ordered.
    pub(crate) fn control(&mut self, control: &Control) -> Option<Removed> {
        let (_, position) = self.batch(Vec::new());
        self.applier.control(control, &position).unwrap()
    }

    fn batch(&mut self, changes: Vec<StampedChange>) -> (JournalBatch, Position) {
        self.batches += 1;
        let position = self.position(self.batches);
        let batch = self.journal_batch(&position, changes);
        (batch, position)
    }

    /// Where the journal stands after entry `sequence`.
    pub(crate) fn position(&self, sequence: u64) -> Position {
        Position {
            incarnation: 1,
            sequence,
            batch: BatchId::from_bytes(u128::from(sequence).to_be_bytes()),
            published: self.published,
            line: 1,
            terms: self.terms.clone(),
        }
    }

    /// Changes as the batch of the journal that stands there.
    pub(crate) fn journal_batch(&self, position: &Position, changes: Vec<StampedChange>) -> JournalBatch {
        let (terms, quotas) = (self.terms.clone(), self.quotas.clone());
        JournalBatch { id: position.batch, rules: RULES, terms, quotas, changes }
    }

    /// The directory of the store.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { profile, device, terms, quotas, reader, applier, published, changes, batches, directory } = self;
        drop((reader, applier));
        let (writer, reader) = store::open(directory.path(), &StoreSettings::default()).unwrap();
        let applier = Applier::new(writer, reader.clone()).unwrap();
        Self { profile, device, terms, quotas, reader, applier, published, changes, batches, directory }
    }

    /// Removes what may go at that instant; says how many tombstones went.
    pub(crate) fn clean(&mut self, now: Timestamp) -> usize {
        self.clean_some(now, usize::MAX)
    }

    /// The same for so many tombstones at most.
    pub(crate) fn clean_some(&mut self, now: Timestamp, most: usize) -> usize {
        // It goes by what is applied, too: something that was journaled just now.
        let before = std::mem::replace(&mut self.published, now.as_nanos());
        self.control(&Control::Skip(Skip { origin: Origin::default(), batch: None }));
        self.published = before;
        self.applier.clean(now, most).unwrap()
    }

    pub(crate) fn compact(&self) {
        self.applier.compact().unwrap();
    }

    /// Applies a change of these operations.
    pub(crate) fn write(&mut self, ops: Vec<Operation>) -> AppliedBatch {
        let change = self.change(None, ops);
        self.apply(vec![change])
    }

    /// Applies each operation as a change of its own, all in one batch.
    pub(crate) fn write_each(&mut self, ops: impl IntoIterator<Item = Operation>) -> AppliedBatch {
        let changes = ops.into_iter().map(|op| self.change(None, vec![op])).collect();
        self.apply(changes)
    }
}

/// That many seconds after 1970.
pub(crate) const fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

pub(crate) fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// An unconditional put of text.
pub(crate) fn put(name: &str, value: impl Into<Vec<u8>>) -> Operation {
    Operation::put(key(name), value, ContentType::text())
}

pub(crate) fn delete(name: &str) -> Operation {
    Operation::delete(key(name))
}

/// The same put with a time to live, in seconds.
pub(crate) fn with_ttl(mut op: Operation, seconds: u32) -> Operation {
    if let roam_schemas::Action::Put(put) = &mut op.action {
        put.ttl = Some(seconds);
    }
    op
}
