//! How far a backup, a fetch or a verification is: told to whoever looks, by whoever works.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Shared by the one who works and those who look. Starts at nothing.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    files: AtomicU64,
    files_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many files there are; 0 until that is known.
    pub files: u64,
    /// How many of them are done.
    pub files_done: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many of them are done.
    pub bytes_done: u64,
}

impl Progress {
    /// How far it is now.
    pub fn seen(&self) -> Seen {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { files, files_done, bytes, bytes_done } = &*self.counts;
        Seen { files: load(files), files_done: load(files_done), bytes: load(bytes), bytes_done: load(bytes_done) }
    }

    /// Begins: so many files with so many bytes are to be done.
    pub(super) fn begin(&self, files: u64, bytes: u64) {
        self.counts.files.store(files, Ordering::Relaxed);
        self.counts.bytes.store(bytes, Ordering::Relaxed);
        self.counts.files_done.store(0, Ordering::Relaxed);
        self.counts.bytes_done.store(0, Ordering::Relaxed);
    }

    /// So many more files, with so many bytes, are to be done.
    pub(super) fn more(&self, files: u64, bytes: u64) {
        self.counts.files.fetch_add(files, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more files are done, whose bytes were told as they came.
    pub(super) fn files_done(&self, files: u64) {
        self.counts.files_done.fetch_add(files, Ordering::Relaxed);
    }

    /// So many bytes more are done.
    pub(super) fn add(&self, bytes: u64) {
        self.counts.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file is done, and with it so many bytes in all: what was counted twice, or was there already, is put right.
    pub(super) fn file_done(&self, bytes_in_all: u64) {
        self.counts.files_done.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes_done.store(bytes_in_all, Ordering::Relaxed);
    }
}
