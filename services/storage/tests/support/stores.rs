//! A replica's store in a directory of its own: applying, opening again, and looking at all of it. Holds no test.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use roam_schemas::{JournalBatch, Timestamp};
use roam_storage::{
    apply::{Applier, ApplyError, Prepared, Verdict},
    store::{self, Digest, Position, Reader, StoreError, StoreSettings, TABLES, Writer},
};
use tempfile::TempDir;

use super::batches::position;

/// Small, so that tables are flushed and compacted within a test.
pub(crate) fn settings() -> StoreSettings {
    StoreSettings { memory_mib: 32, ..StoreSettings::default() }
}

/// Opens a store.
pub(crate) fn open(directory: &Path) -> Result<(Writer, Reader), StoreError> {
    store::open(directory, &settings())
}

/// A replica in a temporary directory.
pub(crate) struct Replica {
    directory: TempDir,
    parts: Option<(Applier, Reader)>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        let mut replica = Self { directory: tempfile::tempdir().unwrap(), parts: None };
        replica.reopen();
        replica
    }

    pub(crate) fn reopen(&mut self) {
        // Closed first: a directory is open once.
        self.parts = None;
        let (writer, reader) = open(self.directory.path()).unwrap();
        self.parts = Some((Applier::new(writer, reader.clone()).unwrap(), reader));
    }

    pub(crate) fn apply(&mut self, sequence: u64, batch: &JournalBatch) -> Vec<Verdict> {
        let (applier, _) = self.parts.as_mut().unwrap();
        apply(applier, sequence, batch)
    }

    /// Applies a batch that has that position.
    pub(crate) fn apply_at(&mut self, position: &Position, batch: &JournalBatch) -> Vec<Verdict> {
        let (applier, _) = self.parts.as_mut().unwrap();
        let prepared = applier.prepare(batch, position).unwrap();
        applier.commit(&prepared).unwrap();
        prepared.verdicts
    }

    /// Removes what may go at that instant.
    pub(crate) fn clean(&mut self, now: Timestamp) {
        self.parts.as_mut().unwrap().0.clean(now, usize::MAX).unwrap();
    }

    /// Applies batches in one write, as they are when they came while another was fsynced.
    pub(crate) fn apply_together(&mut self, batches: &[(u64, JournalBatch)]) -> Vec<Verdict> {
        let prepared = self.prepare_together(batches).unwrap_or_else(|error| panic!("{error}"));
        self.commit(&prepared);
        prepared.verdicts
    }

    pub(crate) fn prepare_together(&mut self, batches: &[(u64, JournalBatch)]) -> Result<Prepared, ApplyError> {
        let (applier, _) = self.parts.as_mut().unwrap();
        let positions: Vec<_> = batches.iter().map(|(sequence, batch)| position(*sequence, batch)).collect();
        let group = positions.iter().zip(batches.iter().map(|(_, batch)| batch));
        applier.prepare_group(group).map_err(|(_, error)| error)
    }

    pub(crate) fn prepare(&mut self, sequence: u64, batch: &JournalBatch) -> Result<Prepared, ApplyError> {
        let (applier, _) = self.parts.as_mut().unwrap();
        applier.prepare(batch, &position(sequence, batch))
    }

    pub(crate) fn commit(&mut self, prepared: &Prepared) {
        self.parts.as_mut().unwrap().0.commit(prepared).unwrap();
    }

    /// Writes everything out and compacts it.
    pub(crate) fn compact(&mut self) {
        self.parts.as_mut().unwrap().0.compact().unwrap();
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.parts.as_ref().unwrap().1
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Closes the store and leaves its directory.
    pub(crate) fn close(mut self) -> TempDir {
        self.parts = None;
        self.directory
    }
}

/// Applies a batch.
pub(crate) fn apply(applier: &mut Applier, sequence: u64, batch: &JournalBatch) -> Vec<Verdict> {
    let prepared = applier.prepare(batch, &position(sequence, batch)).unwrap();
    applier.commit(&prepared).unwrap();
    prepared.verdicts
}

/// What every table comes to.
pub(crate) fn digests(reader: &Reader) -> Result<BTreeMap<&'static str, Digest>, StoreError> {
    let snapshot = reader.snapshot();
    TABLES.into_iter().map(|table| Ok((table, snapshot.table_digest(table)?))).collect()
}

/// All rows of a table.
pub(crate) fn rows(reader: &Reader, table: &'static str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let visit = |key: &[u8], value: &[u8]| {
        all.push((key.to_vec(), value.to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    reader.snapshot().rows(table, visit).unwrap();
    all
}
