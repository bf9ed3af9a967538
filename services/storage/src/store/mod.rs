//! The store of one replica: a RocksDB directory with one column family a table, one writer and any number of readers.
//! Only this module and its children name `rocksdb`. It knows rows, never messages on a bus, and decides nothing.

mod background;
mod checkpoint;
mod clean;
mod digest;
mod erase;
mod erased;
mod expiry;
mod feed;
mod forget;
mod head;
mod kept;
mod keys;
mod large;
mod log;
mod meta;
mod options;
mod read;
mod row;
mod seen;
#[cfg(test)]
mod tests;
mod version;
mod write;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use roam_schemas::{Revision, Shard};
use rocksdb::{ColumnFamily, DB, ErrorKind};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use checkpoint::{Checkpoint, open_read_only};
pub use digest::{AsOf, Digest};
pub use erase::Removed;
pub use erased::{ERASED_SECONDS, Erased};
pub use head::Head;
pub(crate) use kept::{Bounds, Kept};
pub use keys::{ProfileKey, RecordKey, UserKey, scope};
pub(crate) use large::{Chunks as NeededChunks, ChunksOfUsers};
pub(crate) use meta::{FORMAT_VERSION, Passed};
pub use meta::{Horizon, Position};
pub use options::StoreSettings;
pub(crate) use read::Lookup;
pub use read::{Reader, RecordRow, Snapshot};
pub use seen::Seen;
pub use version::{Place, RowState, VersionRow};
pub(crate) use write::{ChangeTables, Traces};
pub use write::{Commit, Committer, Writer};

use crate::backup;

/// Every table.
pub const TABLES: [&str; 8] =
    [version::TABLE, feed::TABLE, seen::TABLE, expiry::TABLE, erased::TABLE, head::TABLE, large::TABLE, meta::TABLE];

/// What the store can fail with. Only [`StoreError::Full`] heals by itself; after any other the process must end and
/// replay the journal.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. RocksDB goes on by itself once there is room.
    #[error("the disk of the store is full")]
    Full(#[source] rocksdb::Error),
    /// RocksDB refuses: damage, a failed fsync, a directory in use by another process.
    #[error("the store failed")]
    Engine(#[source] rocksdb::Error),
    /// The directory cannot be made or looked into.
    #[error("the directory of the store cannot be made or looked into")]
    Directory(#[source] std::io::Error),
    /// A backup is being restored into the directory, or was in part: restore it again, or remove the directory.
    #[error("a backup was restored into the directory only in part: restore it again")]
    Unfinished,
    /// A log is damaged: it ends in the middle of a record, though a newer one follows, or holds a record of a kind that is
    /// never written.
    #[error("the log {file} is damaged: a record of it ends beyond its end, or is of a kind that nobody writes")]
    Log {
        /// Its path.
        file: String,
    },
    /// A row does not read.
    #[error("a row of table `{table}` is damaged: {what}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A row is of a layout that this build does not know.
    #[error("a row of table `{table}` has layout {layout}, which this build does not know")]
    Layout {
        /// The table.
        table: &'static str,
        /// Its layout.
        layout: u8,
    },
    /// The directory is of another shard, or of a deployment that was split otherwise. Mend the settings of the replica.
    #[error("the store is of shard {found}, and the settings say {expected}")]
    Shard {
        /// Its shard.
        found: Shard,
        /// That of the settings.
        expected: Shard,
    },
    /// The directory is of a format that this build does not know.
    #[error("the store is of format {found}, this build knows {}", meta::FORMAT_VERSION)]
    Format {
        /// Its format.
        found: u32,
    },
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        // RocksDB tells a full disk from other input and output errors only in its text.
        let full = error.kind() == ErrorKind::IOError && error.as_ref().contains("No space left");
        if full { Self::Full(error) } else { Self::Engine(error) }
    }
}

/// An open directory. Closed when the last reader and the writer are gone.
struct Store {
    db: DB,
    /// What readers and compactions go by.
    horizon: forget::SharedHorizon,
    /// The number of the epoch that revisions are in.
    epoch: AtomicU16,
    /// Tells that it is closed. The last field, since that is so only once `db` is dropped, which takes a moment: RocksDB removes files
    /// and holds the directory's lock until then.
    closed: DropGuard,
}

/// Opens the directory, and makes it if there is none.
///
/// # Errors
/// Damage refuses to open: only a torn tail of the write-ahead log, which nobody was told of, is dropped.
pub fn open(path: &Path, settings: &StoreSettings) -> Result<(Writer, Reader), StoreError> {
    fs::create_dir_all(path).map_err(StoreError::Directory)?;
    if backup::is_unfinished(path) {
        return Err(StoreError::Unfinished);
    }
    log::check(path)?;
    let horizon = forget::SharedHorizon::default();
    let tables = options::tables(settings, &horizon);
    let db = DB::open_cf_descriptors(&tables.database, path, tables.families)?;
    background::compactions_stand_back();
    checkpoint::remove_leftovers(path)?;
    let store = Arc::new(Store::new(db, horizon));
    store.check_format()?;
    let reader = Reader::new(Arc::clone(&store));
    store.horizon.set(reader.newest().horizon()?);
    store.epoch.store(reader.newest().stored_epoch()?, Ordering::Release);
    Ok((Writer::new(store), reader))
}

impl Store {
    fn new(db: DB, horizon: forget::SharedHorizon) -> Self {
        Self { db, horizon, epoch: AtomicU16::new(0), closed: CancellationToken::new().drop_guard() }
    }

    fn table(&self, name: &'static str) -> Result<&ColumnFamily, StoreError> {
        let missing = || StoreError::Damaged { table: name, what: "the table is missing".to_owned() };
        self.db.cf_handle(name).ok_or_else(missing)
    }

    /// The lowest revision of the epoch.
    fn epoch(&self) -> Revision {
        Revision::of_epoch(self.epoch.load(Ordering::Acquire))
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let meta = self.table(meta::TABLE)?;
        match self.db.get_pinned_cf(meta, meta::FORMAT)? {
            None => {
                let format = row::write(meta::TABLE, &meta::FORMAT_VERSION)?;
                Ok(self.db.put_cf_opt(meta, meta::FORMAT, format, &write::synced())?)
            }
            Some(bytes) => match row::read(meta::TABLE, &bytes)? {
                meta::FORMAT_VERSION => Ok(()),
                found => Err(StoreError::Format { found }),
            },
        }
    }
}
