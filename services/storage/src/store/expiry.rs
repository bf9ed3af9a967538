//! Table `expiry`: what ends by itself, in order of time: the time to live of a record, and the stay of a tombstone.
//!
//! | part | layout |
//! |---|---|
//! | key | time in nanoseconds (8 bytes, big-endian), kind (1 byte), profile, key |
//! | value | empty |
//! | lifetime | until the record that it speaks of is replaced or gone |

use roam_schemas::Timestamp;

use super::keys::RecordKey;

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
    [&time.as_nanos().to_be_bytes()[..], &[ending as u8], record.as_bytes()].concat()
}
