//! What can go wrong with backups, shaped by what the caller must do about it.

use std::{io, path::PathBuf};

use roam_nats::ObjectError;
use roam_schemas::Problem;

use super::manifest::{BackupId, ManifestError};
use crate::store::StoreError;

/// Something could not be done with a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no repository there: is the path right?
    #[error("{} holds no backups", path.display())]
    NoRepository {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds other things: name another one.
    #[error("{} holds other things than backups: name a directory that is empty or missing", path.display())]
    NotARepository {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] ObjectError),
    /// There is no such backup, or no longer.
    #[error("there is no backup {id}")]
    NoSuchBackup {
        /// The one that was asked for.
        id: BackupId,
    },
    /// The manifest of a backup is not used. Use another backup.
    #[error("the manifest of backup {id} is not used")]
    Manifest {
        /// The backup.
        id: BackupId,
        /// Why.
        source: ManifestError,
    },
    /// A file of a backup is not what it was. Use another backup.
    #[error("the file {file} of backup {id} is damaged: {what}")]
    Damaged {
        /// The backup.
        id: BackupId,
        /// The name of the file in the store.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// There is something in the way: name a directory that is empty or missing.
    #[error("{} is not empty", target.display())]
    NotEmpty {
        /// The directory.
        target: PathBuf,
    },
    /// The store could not be opened, read, or made a checkpoint of.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files are as they were, and what is in them is not what the manifest says. Use another backup.
    #[error("backup {id} does not hold what its manifest says: {what}")]
    Unlike {
        /// The backup.
        id: BackupId,
        /// What differs.
        what: String,
    },
    /// The chunks of large values cannot be read, or kept while they are. Try again later.
    #[error("the chunks of large values cannot be read: {0}")]
    Chunks(#[source] Problem),
    /// Somebody prunes, and does not come to an end. Try again later.
    #[error("the bucket is being pruned: try again later")]
    Pruning,
    /// This program is broken.
    #[error("a backup thread panicked")]
    Panicked,
}

impl BackupError {
    /// Whether the same may succeed later.
    pub fn retry(&self) -> bool {
        match self {
            Self::Bucket(error) => matches!(error, ObjectError::Unavailable { .. }),
            Self::Store(error) => matches!(error, StoreError::Full(_)),
            Self::Pruning | Self::Chunks(_) => true,
            _ => false,
        }
    }

    pub(super) fn path(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { path, source }
    }
}
