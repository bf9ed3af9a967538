//! Checkpoints: the files of one state of a running store, by hard links. The writer goes on meanwhile; what it waits for
//! is one flush of its buffers. Also opening such files to read them, beside whoever else does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use rocksdb::{DB, Options};

use super::{ChunksOfUsers, Position, Reader, Store, StoreError, StoreSettings, TABLES, forget, meta, options, row};

/// Where a checkpoint lies below the directory of its store: on the same file system, as hard links must.
const PLACE: &str = "checkpoint";
/// Where RocksDB makes it.
const UNFINISHED: &str = "checkpoint.tmp";

/// The files of one state. They go when this is dropped.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    position: Option<Position>,
    epoch: u16,
    chunks: ChunksOfUsers,
}

impl Reader {
    /// Makes a checkpoint, in place of one that a crash left behind. There is one at a time: who asks sees to that.
    ///
    /// # Errors
    /// See [`StoreError`]; a full disk is [`StoreError::Full`], and leaves nothing behind.
    pub fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let db = &self.store.db;
        remove_leftovers(db.path())?;
        // Removed with whatever is there of it, if anything goes wrong.
        let path = db.path().join(PLACE);
        let mut checkpoint = Checkpoint { path, position: None, epoch: 0, chunks: ChunksOfUsers::new() };
        rocksdb::checkpoint::Checkpoint::new(db)?.create_checkpoint(&checkpoint.path)?;
        // Not the position of the store: that may be a later one by now, or an earlier one.
        let copy = open_read_only(&checkpoint.path, &StoreSettings::smallest())?;
        checkpoint.position = copy.newest().position()?;
        checkpoint.epoch = copy.newest().stored_epoch()?;
        checkpoint.chunks = copy.needed_chunks()?;
        Ok(checkpoint)
    }
}

impl Checkpoint {
    /// The directory with the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which batch of the journal is the last one in it; none if there is none.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The epoch of the revisions in it.
    pub fn epoch(&self) -> u64 {
        self.epoch.into()
    }

    /// The chunks of large values that its records and kept versions need.
    pub(crate) fn chunks(&self) -> &ChunksOfUsers {
        &self.chunks
    }

    /// The format of the store.
    pub fn format(&self) -> u32 {
        meta::FORMAT_VERSION
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Some(directory) = self.path.parent()
            && let Err(error) = remove_leftovers(directory)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "a checkpoint is not removed");
        }
    }
}

/// Removes the checkpoint that a process left behind which was killed: it keeps files from being deleted.
pub(super) fn remove_leftovers(directory: &Path) -> Result<(), StoreError> {
    for place in [PLACE, UNFINISHED] {
        match fs::remove_dir_all(directory.join(place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::Directory(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Opens the files of a store to read them: changes none, though RocksDB adds a log of its own.
///
/// # Errors
/// See [`StoreError`]. A table that an older build did not know is none.
pub fn open_read_only(path: &Path, settings: &StoreSettings) -> Result<Reader, StoreError> {
    let horizon = forget::SharedHorizon::default();
    let tables = options::tables(settings, &horizon);
    let there = DB::list_cf(&Options::default(), path)?;
    let families = tables.families.into_iter().filter(|family| there.iter().any(|name| name == family.name()));
    let db = DB::open_cf_descriptors_read_only(&tables.database, path, families, false)?;
    let store = Arc::new(Store::new(db, horizon));
    match store.db.get_pinned_cf(store.table(meta::TABLE)?, meta::FORMAT)? {
        Some(bytes) => match row::read(meta::TABLE, &bytes)? {
            meta::FORMAT_VERSION => {}
            found => return Err(StoreError::Format { found }),
        },
        None => return Err(StoreError::Damaged { table: meta::TABLE, what: "it does not say its format".to_owned() }),
    }
    let reader = Reader::new(store);
    reader.store.horizon.set(reader.newest().horizon()?);
    reader.store.epoch.store(reader.newest().stored_epoch()?, Ordering::Release);
    Ok(reader)
}

impl Reader {
    /// The tables that the store has: all of [`TABLES`], unless it was opened to be read and is of an older build.
    pub fn tables(&self) -> Vec<&'static str> {
        TABLES.into_iter().filter(|table| self.store.db.cf_handle(table).is_some()).collect()
    }
}
