//! Table `meta`: what a replica knows of itself.
//!
//! | part | layout |
//! |---|---|
//! | key | a name: `format`, `position`, `passed`, `horizon`, `epoch`, `since`, `shard` |
//! | value | the type that belongs to the name |
//! | lifetime | for ever |
//!
//! Persisted: never reorder the fields.

use roam_schemas::{BatchId, JournalPosition, Terms, Timestamp};
use serde::{Deserialize, Serialize};

use super::{StoreError, row};

/// The name of the column family.
pub(super) const TABLE: &str = "meta";
/// Holds the number of the format that the directory is written in.
pub(super) const FORMAT: &[u8] = b"format";
/// Holds the [`Position`].
pub(super) const POSITION: &[u8] = b"position";
/// Holds the [`Passed`]; nothing where none was ever written down.
pub(super) const PASSED: &[u8] = b"passed";
/// Holds the [`Horizon`].
pub(super) const HORIZON: &[u8] = b"horizon";
/// Holds the number of the epoch (`u16`); 0 where there is none.
pub(super) const EPOCH: &[u8] = b"epoch";
/// Holds the instant since when this directory is what it is ([`Timestamp`]); nothing where an older build made it.
pub(super) const SINCE: &[u8] = b"since";

/// Holds the shard that the directory is of, as text ([`Shard`](roam_schemas::Shard)); nothing in a deployment of one.
pub(super) const SHARD: &[u8] = b"shard";

/// The format that this build reads and writes. 1 had other rows in `seen` and `expiry`, and was never released.
pub(crate) const FORMAT_VERSION: u32 = 2;

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

/// Up to where a line of the journal is known to hold nothing behind the [`Position`] that had to be applied. It is of no
/// interest once the position is beyond it, or on another line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passed {
    /// That of the journal, as in a [`Position`].
    pub(crate) incarnation: u64,
    /// The line.
    pub(crate) line: u64,
    /// The sequence of the last such entry.
    pub(crate) sequence: u64,
}

/// Before these instants rows may be gone. They only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// Tombstones that were written before this.
    pub tombstones: Timestamp,
    /// Decisions that were made before this.
    pub seen: Timestamp,
    /// Versions that were replaced before this.
    pub versions: Timestamp,
    /// So many versions of a key stay if none of them is that old; 0 while nothing is known of it.
    pub depth: u32,
    /// Versions that were replaced before this may be gone although they are neither that old nor that deep: fewer were kept then.
    pub deepened: Timestamp,
}

/// The same as it was written before the depth could be raised.
#[derive(Deserialize)]
struct HorizonBefore {
    tombstones: Timestamp,
    seen: Timestamp,
    versions: Timestamp,
    depth: u32,
}

impl Horizon {
    /// Writes the row.
    pub fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes).or_else(|error| {
            let before = row::read(TABLE, bytes).map_err(|_| error)?;
            let HorizonBefore { tombstones, seen, versions, depth } = before;
            Ok(Self { tombstones, seen, versions, depth, deepened: Timestamp::default() })
        })
    }
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

impl Passed {
    /// Writes the row.
    pub(super) fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes)
    }
}

/// What others are told of a position.
impl From<&Position> for JournalPosition {
    fn from(position: &Position) -> Self {
        Self {
            incarnation: position.incarnation,
            sequence: position.sequence,
            batch: position.batch,
            line: position.line,
            published: Timestamp::from_nanos(position.published),
        }
    }
}
