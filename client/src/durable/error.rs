//! What can go wrong with the file, told apart by what the caller must do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use roam_schemas::{ChangeId, Problem};

use crate::IdentityError;

/// The local store did not do what it was asked. What it had accepted before is not lost.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LocalError {
    /// The change breaks a rule of the protocol: mend it. Nothing was written.
    #[error("the change is not valid: {0}")]
    Invalid(#[source] Problem),
    /// Too much of the profile is unsent or parked. Nothing was written. Let it sync, or retry or drop what is parked.
    #[error("too much is unsent or parked: {held} of {limit} bytes")]
    OutboxFull {
        /// The limit, in bytes.
        limit: u64,
        /// How much is held already, in bytes.
        held: u64,
    },
    /// The disk is full. What was asked for was not done; free some space and ask again.
    #[error("the disk is full: free some space and try again")]
    DiskFull,
    /// The file could not be read or written. After a write it is unknown whether that was done: look before you repeat it.
    #[error("the local store could not be read or written: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The file is damaged. Keep a copy of it, move it away and open the store anew: all that was saved comes back from the
    /// servers; what had not been sent is in the damaged file alone.
    #[error("the local store {} is damaged ({reason}): move it away and start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer version of this library: upgrade this program.
    #[error("the local store {} is of format {found}, this program knows up to {known}: upgrade it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The file belongs to another device, or to another user: name another file.
    #[error("the local store {} belongs to {owner}: use a file of your own", path.display())]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// Whose it is, as `tenant/user/device`.
        owner: String,
    },
    /// Another process has the file open: one at a time may.
    #[error("the local store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The profile is not this device's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No such change is parked.
    #[error("no change {id} is parked")]
    NotParked {
        /// Its id.
        id: ChangeId,
    },
    /// The store was closed.
    #[error("the local store is closed")]
    Closed,
}

impl LocalError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(problem) => problem.code.as_str(),
            Self::OutboxFull { .. } => "outbox_full",
            Self::DiskFull => "disk_full",
            Self::Io(_) => "local_io",
            Self::Damaged { .. } => "local_damaged",
            Self::Newer { .. } => "local_newer",
            Self::OtherDevice { .. } => "local_other_device",
            Self::InUse { .. } => "local_in_use",
            Self::Identity(_) => "denied",
            Self::NotParked { .. } => "not_parked",
            Self::Closed => "closed",
        }
    }

    /// Whether the same can succeed later without anybody mending anything but space.
    pub fn retry(&self) -> bool {
        matches!(self, Self::OutboxFull { .. } | Self::DiskFull | Self::Io(_) | Self::InUse { .. })
    }
}

/// A row is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage(pub(super) &'static str);

/// Why a transaction cannot go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It was refused before anything was written; others in the same transaction are not concerned.
    Refused(LocalError),
    /// Nothing of the transaction counts.
    Broken(redb::Error),
    Damaged(Damage),
}

impl From<LocalError> for Fault {
    fn from(error: LocalError) -> Self {
        Self::Refused(error)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl From<redb::StorageError> for Fault {
    fn from(error: redb::StorageError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<redb::TableError> for Fault {
    fn from(error: redb::TableError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<redb::TransactionError> for Fault {
    fn from(error: redb::TransactionError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<redb::CommitError> for Fault {
    fn from(error: redb::CommitError) -> Self {
        Self::Broken(error.into())
    }
}

impl From<redb::DatabaseError> for Fault {
    fn from(error: redb::DatabaseError) -> Self {
        Self::Broken(error.into())
    }
}

impl Fault {
    /// As the caller is told.
    pub(super) fn at(self, path: &std::path::Path) -> LocalError {
        let path = path.to_owned();
        match self {
            Self::Refused(error) => error,
            Self::Damaged(Damage(reason)) => LocalError::Damaged { path, reason: reason.to_owned() },
            Self::Broken(redb::Error::Io(error)) => from_io(error, path),
            Self::Broken(redb::Error::DatabaseAlreadyOpen) => LocalError::InUse { path },
            Self::Broken(redb::Error::DatabaseClosed) => LocalError::Closed,
            Self::Broken(redb::Error::PreviousIo) => {
                LocalError::Io(Arc::new(io::Error::other("an earlier write failed")))
            }
            Self::Broken(error) => LocalError::Damaged { path, reason: error.to_string() },
        }
    }
}

fn from_io(error: io::Error, path: PathBuf) -> LocalError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => LocalError::DiskFull,
        // What redb says of a file that is none of its own, or that ends too early.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            LocalError::Damaged { path, reason: error.to_string() }
        }
        _ => LocalError::Io(Arc::new(error)),
    }
}
