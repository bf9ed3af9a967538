//! Erasing a user: every row of theirs in every table goes, and a marker stays. What readers see of it changes in one
//! write, together with the journal position; rows that only point at others go before that, some at a time, since a
//! user may have millions of them.

use std::ops::ControlFlow;

use roam_schemas::{Revision, Timestamp};
use rocksdb::WriteBatch;

use super::{
    Erased, Position, Reader, StoreError, Writer, erased,
    expiry::{self, Ending},
    feed, head,
    keys::UserKey,
    large, meta, options, seen,
    version::{self, RowState},
    write,
};

/// The tables whose rows begin with their user, but for the marker of an erased one.
const BY_USER: [&str; 5] = [version::TABLE, feed::TABLE, seen::TABLE, head::TABLE, large::TABLE];
/// How many rows of `expiry` are removed in one write.
const AT_ONCE: usize = 10_000;

/// What was removed of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many profiles.
    pub profiles: u64,
    /// How many records that held a value.
    pub records: u64,
    /// How many bytes the keys and values of those had.
    pub bytes: u64,
}

impl Writer {
    /// Removes all rows of a user and leaves a marker of that time. Done again after a crash, it comes to the same.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub(crate) fn erase(&mut self, user: &UserKey, position: &Position) -> Result<(Removed, Erased), StoreError> {
        let reader = Reader::new(std::sync::Arc::clone(&self.store));
        let (removed, highest) = reader.newest().holds(user)?;
        self.remove_endings(&reader, user)?;
        let mut batch = WriteBatch::default();
        let (first, end) = user.range();
        for table in BY_USER {
            batch.delete_range_cf(self.store.table(table)?, first, &end);
        }
        let before = reader.newest().erased(user)?.map(|erased| erased.revision).unwrap_or_default();
        let marker = Erased {
            time: Timestamp::from_nanos(position.published),
            revision: highest.max(before).next().unwrap_or(highest),
        };
        batch.put_cf(self.store.table(erased::TABLE)?, user.as_bytes(), marker.write()?);
        batch.put_cf(self.store.table(meta::TABLE)?, meta::POSITION, position.write()?);
        self.store.db.write_opt(batch, &write::synced())?;
        Ok((removed, marker))
    }

    /// Removes the rows of `expiry` of a user. They are in order of time, so they are found by the records that they speak of.
    fn remove_endings(&self, reader: &Reader, user: &UserKey) -> Result<(), StoreError> {
        let table = self.store.table(expiry::TABLE)?;
        let mut batch = WriteBatch::default();
        reader.newest().records_of_user(user, |record, row| {
            let ending = match row.state {
                RowState::Deleted => Some((row.time, Ending::Tombstone)),
                RowState::Value { expires, .. } => expires.map(|time| (time, Ending::Record)),
            };
            if let Some((time, ending)) = ending {
                batch.delete_cf(table, expiry::key(time, ending, record));
            }
            if batch.len() >= AT_ONCE {
                self.store.db.write_opt(std::mem::take(&mut batch), &write::synced())?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(self.store.db.write_opt(batch, &write::synced())?)
    }
}

impl Reader {
    /// The users who were erased after that time.
    ///
    /// # Errors
    /// As all reads.
    pub(crate) fn erased_since(&self, time: Timestamp) -> Result<Vec<UserKey>, StoreError> {
        let mut users = Vec::new();
        self.newest().all_erased(|user, marker| {
            if marker.time > time {
                users.push(UserKey::of_row(user));
            }
        })?;
        Ok(users)
    }

    /// Rewrites the files that held rows of a user who was erased, so that the bytes are gone from the disk too. Takes from
    /// milliseconds to minutes, beside everything else. (RocksDB's list of files may name a few keys a little longer, see
    /// `options.rs`.)
    ///
    /// # Errors
    /// None that RocksDB reports for compactions; a failed flush.
    pub fn compact_user(&self, user: &UserKey) -> Result<(), StoreError> {
        let (first, end) = user.range();
        for name in super::TABLES {
            let table = self.store.table(name)?;
            // What is not in a file yet lies in the log, which goes once all that it holds is in files.
            self.store.db.flush_cf(table)?;
            let (first, end) = match name {
                // In order of time: a user's rows are all over it.
                expiry::TABLE => (None, None),
                _ => (Some(first), Some(end.as_slice())),
            };
            self.store.db.compact_range_cf_opt(table, first, end, &options::compaction());
        }
        Ok(())
    }
}

impl super::Snapshot<'_> {
    /// How many rows each table holds of a user, but for the marker that they were erased. Reads all of `expiry`, which is
    /// in order of time.
    ///
    /// # Errors
    /// As all reads.
    pub fn rows_of_user(&self, user: &UserKey) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let (first, end) = user.range();
        let mut counts = Vec::with_capacity(BY_USER.len() + 1);
        for table in BY_USER {
            let mut rows = 0;
            self.row_keys(table, first, Some(end.clone()), |_| rows += 1)?;
            counts.push((table, rows));
        }
        let mut rows = 0;
        self.row_keys(expiry::TABLE, &[], None, |key| rows += u64::from(expiry::is_of(key, user.as_bytes())))?;
        counts.push((expiry::TABLE, rows));
        Ok(counts)
    }

    /// What a user holds, and the highest revision of their profiles.
    ///
    /// # Errors
    /// As all reads.
    pub fn holds(&self, user: &UserKey) -> Result<(Removed, Revision), StoreError> {
        let (mut removed, mut highest) = (Removed::default(), self.epoch());
        self.heads_of_user(user, |head| {
            removed.profiles += 1;
            removed.records += head.records;
            removed.bytes += head.bytes;
            highest = highest.max(head.revision);
        })?;
        Ok((removed, highest))
    }
}

#[cfg(test)]
mod tests;
