//! The store of one replica: a RocksDB directory with one column family a table, one writer and any number of readers.
//! Only this module and its children name `rocksdb`. It knows rows, never messages on a bus, and decides nothing.

mod clean;
mod digest;
mod expiry;
mod feed;
mod forget;
mod head;
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

use std::{fs, path::Path, sync::Arc};

use rocksdb::{ColumnFamily, DB, ErrorKind};

pub use digest::Digest;
pub use head::Head;
pub use keys::{ProfileKey, RecordKey};
pub use meta::{Horizon, Position};
pub use options::StoreSettings;
pub(crate) use read::Lookup;
pub use read::{Reader, RecordRow, Snapshot};
pub use seen::Seen;
pub use version::{Place, RowState, VersionRow};
pub(crate) use write::Traces;
pub use write::{Commit, Writer};

/// Every table.
pub const TABLES: [&str; 7] =
    [version::TABLE, feed::TABLE, seen::TABLE, expiry::TABLE, head::TABLE, meta::TABLE, large::TABLE];

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
    /// A write-ahead log is damaged: it ends in the middle of a record, though a newer one follows.
    #[error("the log {file} ends in the middle of a record, and another log follows it")]
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
}

/// Opens the directory, and makes it if there is none.
///
/// # Errors
/// Damage refuses to open: only a torn tail of the write-ahead log, which nobody was told of, is dropped.
pub fn open(path: &Path, settings: &StoreSettings) -> Result<(Writer, Reader), StoreError> {
    fs::create_dir_all(path).map_err(StoreError::Directory)?;
    log::check(path)?;
    let horizon = forget::SharedHorizon::default();
    let tables = options::tables(settings, &horizon);
    let db = DB::open_cf_descriptors(&tables.database, path, tables.families)?;
    let store = Arc::new(Store { db, horizon });
    store.check_format()?;
    store.horizon.set(Reader::new(Arc::clone(&store)).newest().horizon()?);
    Ok((Writer::new(Arc::clone(&store)), Reader::new(store)))
}

impl Store {
    fn table(&self, name: &'static str) -> Result<&ColumnFamily, StoreError> {
        let missing = || StoreError::Damaged { table: name, what: "the table is missing".to_owned() };
        self.db.cf_handle(name).ok_or_else(missing)
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
