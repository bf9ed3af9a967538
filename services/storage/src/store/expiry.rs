//! Table `expiry`: what ends by itself, by kind and in order of time: the time to live of a record, and the stay of a tombstone.
//!
//! | part | layout |
//! |---|---|
//! | key | kind (1 byte), time in nanoseconds (8 bytes, big-endian), profile, key |
//! | value | empty |
//! | lifetime | until the record that it speaks of is replaced or gone |

use roam_schemas::{Key, Profile, Timestamp};

use super::{
    StoreError,
    keys::{self, ProfileKey, RecordKey},
};

/// The name of the column family.
pub(super) const TABLE: &str = "expiry";

/// What ends. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Ending {
    /// A record expires at the row's time.
    Record = 1,
    /// A tombstone was written at the row's time; it may go once the term has passed.
    Tombstone = 2,
}

/// The key of a row.
pub(super) fn key(time: Timestamp, ending: Ending, record: &RecordKey) -> Vec<u8> {
    [&[ending as u8][..], &time.as_nanos().to_be_bytes(), record.as_bytes()].concat()
}

/// Where the rows of a kind begin that are not before a time.
pub(super) fn from(ending: Ending, time: Timestamp) -> Vec<u8> {
    [&[ending as u8][..], &time.as_nanos().to_be_bytes()].concat()
}

/// Whether a row is of a profile whose key begins with this.
pub(super) fn is_of(row_key: &[u8], prefix: &[u8]) -> bool {
    row_key.get(1 + size_of::<u64>()..).is_some_and(|rest| rest.starts_with(prefix))
}

/// Reads a row's key.
pub(super) fn read(row_key: &[u8]) -> Result<(Timestamp, Profile, Key), StoreError> {
    let read = || {
        let (_, rest) = row_key.split_first()?;
        let (nanos, rest) = keys::take_u64(rest)?;
        let (profile, rest) = ProfileKey::split(rest)?;
        let (key, rest) = keys::take_key(rest)?;
        rest.is_empty().then_some((Timestamp::from_nanos(nanos), profile, key))
    };
    read().ok_or_else(|| StoreError::Damaged { table: TABLE, what: "a key".to_owned() })
}
