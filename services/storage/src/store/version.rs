//! Table `version`: every kept version of every key, newest first. The first rank-0 version of a key is its record.
//!
//! | part | layout |
//! |---|---|
//! | key | profile, key, 2^64-1 minus the revision (8 bytes, big-endian), rank (4 bytes, big-endian) |
//! | value | [`VersionRow`] |
//! | lifetime | until it is replaced and its age or depth is passed; a tombstone goes with all that is behind it |
//!
//! The prefix of the bloom filter ends at the terminator of the key. Persisted: never reorder the fields.

use roam_schemas::{
    ChangeId, ContentType, Device, Key, Record, Revision, Stamp, State, Stored, Timestamp, Value, Version,
};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    keys::{self, RecordKey},
    row,
};

/// The name of the column family.
pub(super) const TABLE: &str = "version";

/// How many bytes of a row's key are its [`Place`].
pub(super) const PLACE_BYTES: usize = 12;
/// How many parts the bloom's prefix has: tenant, user, app, key.
pub(super) const PREFIX_PARTS: usize = 4;

/// What one row says. Borrows from the bytes that it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow<'a> {
    /// The time of its revision; for a superseded operation the time at which the stream took it in.
    pub time: Timestamp,
    /// Who wrote it.
    pub device: &'a str,
    /// The change that wrote it.
    pub change: ChangeId,
    /// The profile revision that its writer had seen.
    pub base: Option<Revision>,
    /// Its raw time and origin.
    pub stamp: Stamp,
    /// Whether it won over a version that its writer had not seen.
    pub conflict: bool,
    /// What it wrote.
    #[serde(borrow)]
    pub state: RowState<'a>,
}

/// The state that a row holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowState<'a> {
    /// A value.
    Value {
        /// What it is.
        content_type: &'a str,
        /// The instant from which it counts as expired.
        expires: Option<Timestamp>,
        /// The bytes.
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
    },
    /// A tombstone.
    Deleted,
}

/// The order part of a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The revision that wrote it, or that beat it.
    pub revision: Revision,
    /// 0 for a version, more for operations that came too late for it.
    pub rank: u32,
}

/// The key of a row.
pub(super) fn key(record: &RecordKey, place: Place) -> Vec<u8> {
    let newest_first = u64::MAX - place.revision.get();
    [record.as_bytes(), &newest_first.to_be_bytes(), &place.rank.to_be_bytes()].concat()
}

/// Reads the order part of a row's key, given what is behind the key's terminator.
pub(super) fn place(bytes: &[u8]) -> Result<Place, StoreError> {
    let read = || {
        let (inverted, rest) = keys::take_u64(bytes)?;
        let rank: [u8; 4] = rest.try_into().ok()?;
        let revision = Revision::new(u64::MAX - inverted);
        Some(Place { revision, rank: u32::from_be_bytes(rank) })
    };
    read().ok_or_else(damaged_key)
}

/// Splits a row's key into that of its record and its place.
pub(super) fn split_place(row_key: &[u8]) -> Result<(&[u8], Place), StoreError> {
    let at = row_key.len().checked_sub(PLACE_BYTES).ok_or_else(damaged_key)?;
    let (record, rest) = row_key.split_at(at);
    Ok((record, place(rest)?))
}

/// Reads what is between the profile and the place in a row's key.
pub(super) fn read_key(bytes: &[u8]) -> Result<Key, StoreError> {
    match keys::take_key(bytes) {
        Some((key, [])) => Ok(key),
        _ => Err(damaged_key()),
    }
}

/// What a row's key that does not read is told as.
pub(super) fn damaged_key() -> StoreError {
    StoreError::Damaged { table: TABLE, what: "a key".to_owned() }
}

impl<'a> VersionRow<'a> {
    /// Writes the row.
    pub fn write(&self) -> Result<Vec<u8>, StoreError> {
        row::write(TABLE, self)
    }

    /// Reads a row.
    pub fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        row::read(TABLE, bytes)
    }

    /// The record that a reader at `now` sees in this row.
    pub fn record(&self, key: Key, revision: Revision, now: Timestamp) -> Result<Record, StoreError> {
        Ok(Record {
            key,
            revision,
            time: self.time,
            device: self.device()?,
            conflict: self.conflict,
            state: self.state.seen_at(now)?,
        })
    }

    /// The kept version that a reader at `now` sees in this row.
    pub fn version(&self, place: Place, now: Timestamp) -> Result<Version, StoreError> {
        Ok(Version {
            revision: place.revision,
            rank: place.rank,
            time: self.time,
            device: self.device()?,
            change: self.change,
            base: self.base,
            conflict: self.conflict,
            state: self.state.seen_at(now)?,
        })
    }

    fn device(&self) -> Result<Device, StoreError> {
        Device::try_from(self.device.to_owned()).map_err(|error| damaged(&error))
    }
}

impl RowState<'_> {
    /// Whether a reader at `now` sees a value.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self, Self::Value { expires, .. } if expires.is_none_or(|end| now < end))
    }

    fn seen_at(&self, now: Timestamp) -> Result<State, StoreError> {
        match self {
            Self::Deleted => Ok(State::Deleted),
            Self::Value { .. } if !self.is_live(now) => Ok(State::Expired),
            Self::Value { content_type, expires, value } => Ok(State::Value(Stored {
                value: Value::new(*value),
                content_type: ContentType::parse(*content_type).map_err(|error| damaged(&error))?,
                expires: *expires,
            })),
        }
    }
}

fn damaged(error: &dyn std::error::Error) -> StoreError {
    StoreError::Damaged { table: TABLE, what: error.to_string() }
}
