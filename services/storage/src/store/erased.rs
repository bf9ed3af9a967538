//! Table `erased`: the users whose data an operator had removed, so that nothing older of theirs comes back.
//!
//! | part | layout |
//! |---|---|
//! | key | tenant, user |
//! | value | [`Erased`] |
//! | lifetime | [`ERASED_SECONDS`] from its time: longer than a change can be on its way |
//!
//! Persisted: never reorder the fields.

use roam_schemas::{Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Head, StoreError, row};

/// The name of the column family.
pub(super) const TABLE: &str = "erased";
/// How long a marker counts, in seconds: 40 days, when a journal keeps its entries for 7 and an outbox its changes for 20.
pub const ERASED_SECONDS: u64 = 40 * 24 * 3600;

/// That a user was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// When. What the stream took in before that is not applied any more.
    pub time: Timestamp,
    /// The highest revision that a profile of theirs had, and one more: all of their profiles stand there now.
    pub revision: Revision,
}

impl Erased {
    /// Where every profile of the user stands that was not written since.
    pub fn head(self) -> Head {
        Head { revision: self.revision, time: self.time, ..Head::default() }
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
