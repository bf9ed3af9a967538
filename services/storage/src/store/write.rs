//! The one writer: gathers the rows of one journal batch and commits them, with the journal position, in one synced
//! write. All of them are kept or none.

use std::sync::{Arc, atomic::Ordering};

use roam_schemas::{ChangeId, Revision, Shard, Timestamp};
use rocksdb::{ColumnFamily, WriteBatch, WriteOptions};

use super::{
    Passed, Position, Store, StoreError,
    expiry::{self, Ending},
    feed,
    head::{self, Head},
    keys::{ProfileKey, RecordKey},
    large, meta, options, row,
    seen::{self, Seen},
    version::{self, Place, VersionRow},
};
use crate::planted::planted;

/// The right to write. There is one a directory.
pub struct Writer {
    pub(super) store: Arc<Store>,
}

/// The right to commit what the writer gathered, on another thread. Whoever has it sees to the order.
pub struct Committer {
    store: Arc<Store>,
}

/// The rows of one commit. Nothing is visible to readers before [`Committer::commit`].
#[derive(Default)]
pub struct Commit {
    batch: WriteBatch,
}

/// The tables that changes are written to, looked up once for many of them.
pub(crate) struct ChangeTables<'s> {
    version: &'s ColumnFamily,
    feed: &'s ColumnFamily,
    seen: &'s ColumnFamily,
    expiry: &'s ColumnFamily,
    large: &'s ColumnFamily,
}

/// What a row of `version` leaves in the other tables, so that it can be taken back when the record moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traces {
    /// The revision that its `feed` row stands at.
    pub(crate) revision: Revision,
    /// When a value ends, if it does.
    pub(crate) expires: Option<Timestamp>,
    /// When it was written, if it is a tombstone.
    pub(crate) deleted: Option<Timestamp>,
}

pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl Writer {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The right to commit.
    pub(crate) fn committer(&self) -> Committer {
        Committer { store: Arc::clone(&self.store) }
    }

    /// As [`Committer::commit`].
    ///
    /// # Errors
    /// The same.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.committer().commit(commit)
    }

    /// Compacts everything: for tests and for proofs that bytes are gone.
    ///
    /// # Errors
    /// None that RocksDB reports.
    pub fn compact(&self) -> Result<(), StoreError> {
        for name in super::TABLES {
            self.store.db.compact_range_cf_opt(
                self.store.table(name)?,
                None::<&[u8]>,
                None::<&[u8]>,
                &options::compaction(),
            );
        }
        Ok(())
    }

    /// Writes where a profile stands.
    pub(crate) fn put_head(&self, commit: &mut Commit, profile: &ProfileKey, head: &Head) -> Result<(), StoreError> {
        commit.batch.put_cf(self.store.table(head::TABLE)?, profile.as_bytes(), head.write()?);
        Ok(())
    }

    /// Lets revisions go on in an epoch, unless they are there already, and moves the position past what ordered it, if
    /// that stands in the journal.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn begin_epoch(&mut self, epoch: u16, position: Option<&Position>) -> Result<(), StoreError> {
        let epoch = epoch.max(self.store.epoch.load(Ordering::Acquire));
        let mut batch = WriteBatch::default();
        let meta = self.store.table(meta::TABLE)?;
        batch.put_cf(meta, meta::EPOCH, row::write(meta::TABLE, &epoch)?);
        if let Some(position) = position {
            batch.put_cf(meta, meta::POSITION, position.write()?);
        }
        self.store.db.write_opt(batch, &synced())?;
        self.store.epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Notes since when this directory is what it is.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn put_since(&mut self, since: Timestamp) -> Result<(), StoreError> {
        let meta = self.store.table(meta::TABLE)?;
        Ok(self.store.db.put_cf_opt(meta, meta::SINCE, row::write(meta::TABLE, &since)?, &synced())?)
    }

    /// Notes for ever which shard the directory is of.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn put_shard(&mut self, shard: Shard) -> Result<(), StoreError> {
        let meta = self.store.table(meta::TABLE)?;
        Ok(self.store.db.put_cf_opt(meta, meta::SHARD, row::write(meta::TABLE, &shard.to_string())?, &synced())?)
    }

    /// Moves the position alone.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn pass(&mut self, position: &Position) -> Result<(), StoreError> {
        let meta = self.store.table(meta::TABLE)?;
        Ok(self.store.db.put_cf_opt(meta, meta::POSITION, position.write()?, &synced())?)
    }

    /// Notes up to where nothing behind the position had to be applied.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn put_passed(&mut self, passed: &Passed) -> Result<(), StoreError> {
        let meta = self.store.table(meta::TABLE)?;
        Ok(self.store.db.put_cf_opt(meta, meta::PASSED, passed.write()?, &synced())?)
    }

    /// Takes back what [`Self::put_passed`] wrote.
    pub(crate) fn forget_passed(&self, commit: &mut Commit) -> Result<(), StoreError> {
        commit.batch.delete_cf(self.store.table(meta::TABLE)?, meta::PASSED);
        Ok(())
    }

    /// Writes which batch of the journal this commit is.
    pub(crate) fn put_position(&self, commit: &mut Commit, position: &Position) -> Result<(), StoreError> {
        if planted("position-before-batch") {
            self.store.db.put_cf_opt(self.store.table(meta::TABLE)?, meta::POSITION, position.write()?, &synced())?;
            return Ok(());
        }
        commit.batch.put_cf(self.store.table(meta::TABLE)?, meta::POSITION, position.write()?);
        Ok(())
    }
}

impl<'s> ChangeTables<'s> {
    pub(super) fn of(store: &'s Store) -> Result<Self, StoreError> {
        Ok(Self {
            version: store.table(version::TABLE)?,
            feed: store.table(feed::TABLE)?,
            seen: store.table(seen::TABLE)?,
            expiry: store.table(expiry::TABLE)?,
            large: store.table(large::TABLE)?,
        })
    }
}

impl Commit {
    /// Writes a version that becomes the record of its key, and takes back what the one before it left.
    pub(crate) fn put_record(
        &mut self,
        tables: &ChangeTables<'_>,
        key: &RecordKey,
        row: &VersionRow<'_>,
        new: Traces,
        old: Option<Traces>,
    ) -> Result<(), StoreError> {
        let place = Place { revision: new.revision, rank: 0 };
        self.put_version(tables, key, place, row)?;
        if let Some(old) = old {
            // Each feed row is written once and removed once, which is what makes a single delete right.
            self.batch.single_delete_cf(tables.feed, feed::key(key, old.revision));
            if let Some((time, ending)) = old.ending() {
                self.batch.single_delete_cf(tables.expiry, expiry::key(time, ending, key));
            }
        }
        if !(planted("feed-row-forgotten") && new.deleted.is_some()) {
            self.batch.put_cf(tables.feed, feed::key(key, new.revision), []);
        }
        if let Some((time, ending)) = new.ending() {
            self.batch.put_cf(tables.expiry, expiry::key(time, ending, key), []);
        }
        Ok(())
    }

    /// Writes a version that does not become the record.
    pub(crate) fn put_version(
        &mut self,
        tables: &ChangeTables<'_>,
        key: &RecordKey,
        place: Place,
        row: &VersionRow<'_>,
    ) -> Result<(), StoreError> {
        self.batch.put_cf(tables.version, version::key(key, place), row.write()?);
        if large::is_large(&row.state) {
            self.batch.put_cf(tables.large, key.as_bytes(), []);
        }
        Ok(())
    }

    /// Writes the decision on a change.
    pub(crate) fn put_seen(
        &mut self,
        tables: &ChangeTables<'_>,
        profile: &ProfileKey,
        id: ChangeId,
        seen: &Seen,
    ) -> Result<(), StoreError> {
        self.batch.put_cf(tables.seen, seen::key(profile, id), seen.write()?);
        Ok(())
    }
}

impl Committer {
    /// Writes the commit and returns once it is fsynced.
    ///
    /// # Errors
    /// [`StoreError::Full`] may be tried again with the same commit; after any other the process must end.
    pub fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let copy = WriteBatch::from_data(commit.batch.data());
        if planted("position-before-batch") {
            // So that a kill comes in between.
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        if planted("receipt-before-fsync") {
            return Ok(self.store.db.write_opt(copy, &WriteOptions::default())?);
        }
        Ok(self.store.db.write_opt(copy, &synced())?)
    }
}

impl Traces {
    fn ending(self) -> Option<(Timestamp, Ending)> {
        let record = self.expires.map(|time| (time, Ending::Record));
        record.or(self.deleted.map(|time| (time, Ending::Tombstone)))
    }
}
