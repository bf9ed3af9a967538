//! Table `seen`: every change that was decided, with its first outcome, so that it takes effect at most once.
//!
//! | part | layout |
//! |---|---|
//! | key | profile, change id (16 bytes) |
//! | value | [`Seen`] |
//! | lifetime | 30 days from its time, by the terms of the batch |
//!
//! Persisted: never reorder the fields.

use roam_schemas::{BatchId, ChangeId, Outcome, Timestamp};
use serde::{Deserialize, Serialize};

use super::{StoreError, keys::ProfileKey, row};

/// The name of the column family.
pub(super) const TABLE: &str = "seen";

/// What is known of a decided change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The journal batch that it was decided in.
    pub batch: BatchId,
    /// Its index in that batch.
    pub index: u32,
    /// [`roam_schemas::Change::digest`] of its content.
    pub digest: [u8; 16],
    /// The time that it was decided at.
    pub time: Timestamp,
    /// The decision, whole.
    pub outcome: Outcome,
}

/// The key of a row.
pub(super) fn key(profile: &ProfileKey, id: ChangeId) -> Vec<u8> {
    let mut bytes = profile.begin(16);
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

/// Reads the id in the key of a row of a profile.
pub(super) fn id(profile: &ProfileKey, row_key: &[u8]) -> Result<ChangeId, StoreError> {
    let id = row_key.strip_prefix(profile.as_bytes()).and_then(|id| id.try_into().ok());
    id.map(ChangeId::from_bytes).ok_or_else(|| StoreError::Damaged { table: TABLE, what: "a key".to_owned() })
}

impl Seen {
    /// Writes the row.
    pub fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes)
    }
}
