//! Table `meta`: what a replica knows of itself.
//!
//! | part | layout |
//! |---|---|
//! | key | a name: `format`, `position` |
//! | value | the type that belongs to the name |
//! | lifetime | for ever |
//!
//! Persisted: never reorder the fields.

use roam_schemas::{BatchId, Terms};
use serde::{Deserialize, Serialize};

use super::{StoreError, row};

/// The name of the column family.
pub(super) const TABLE: &str = "meta";
/// Holds the number of the format that the directory is written in.
pub(super) const FORMAT: &[u8] = b"format";
/// Holds the [`Position`].
pub(super) const POSITION: &[u8] = b"position";

/// The format that this build reads and writes. 1 had no `nearly_full` in the outcomes of `seen` rows, and was never
/// released.
pub(super) const FORMAT_VERSION: u32 = 2;

/// Which batch of the journal was applied last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// When the journal stream was created, in nanoseconds since the Unix epoch.
    pub incarnation: u64,
    /// The sequence of the batch in the journal.
    pub sequence: u64,
    /// The id of the batch.
    pub batch: BatchId,
    /// When the stream took the batch in, in nanoseconds since the Unix epoch.
    pub published: u64,
    /// The unbroken run of the journal that it belongs to.
    pub line: u64,
    /// The terms of the batch.
    pub terms: Terms,
}

impl Position {
    /// Writes the row.
    pub fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes)
    }
}
