//! Table `feed`: for each record of a profile one row at the revision that last wrote it. A delta is a scan from a
//! revision on, so it costs what changed, never what is held.
//!
//! | part | layout |
//! |---|---|
//! | key | profile, revision (8 bytes, big-endian), key |
//! | value | empty |
//! | lifetime | until the record moves on, or its tombstone goes |

use roam_schemas::{Key, Revision};

use super::{
    StoreError,
    keys::{self, ProfileKey, RecordKey},
};

/// The name of the column family.
pub(super) const TABLE: &str = "feed";

/// The key of a row.
pub(super) fn key(record: &RecordKey, revision: Revision) -> Vec<u8> {
    let (profile, key) = record.parts();
    [profile, &revision.get().to_be_bytes(), key].concat()
}

/// Where the rows of a revision begin.
pub(super) fn from(profile: &ProfileKey, revision: Revision) -> Vec<u8> {
    let mut bytes = profile.begin(64);
    bytes.extend_from_slice(&revision.get().to_be_bytes());
    bytes
}

/// Reads what is behind the profile in a row's key.
pub(super) fn revision_and_key(bytes: &[u8]) -> Result<(Revision, Key), StoreError> {
    let read = || {
        let (revision, rest) = keys::take_u64(bytes)?;
        let (key, rest) = keys::take_key(rest)?;
        rest.is_empty().then_some((Revision::new(revision), key))
    };
    read().ok_or_else(|| StoreError::Damaged { table: TABLE, what: "a key".to_owned() })
}
