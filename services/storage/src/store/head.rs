//! Table `head`: where each profile stands.
//!
//! | part | layout |
//! |---|---|
//! | key | profile |
//! | value | [`Head`] |
//! | lifetime | until the profile is erased |
//!
//! Persisted: never reorder the fields.

use roam_schemas::{Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::{StoreError, row};

/// The name of the column family.
pub(super) const TABLE: &str = "head";

/// Where a profile stands. A profile that was never written stands at zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its newest revision.
    pub revision: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// How many of its records hold a value.
    pub records: u64,
    /// How many bytes the keys and values of those have.
    pub bytes: u64,
}

impl Head {
    /// The same with a revision of at least that.
    #[must_use]
    pub fn not_below(self, least: Revision) -> Self {
        Self { revision: self.revision.max(least), ..self }
    }

    /// Writes the row.
    pub fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes)
    }
}
