//! The file: its tables, their rows, and how rows are written. One file a device, made by redb; a profile is a number in
//! it, so that no long name stands in each key.
//!
//! Persisted: names of tables, tags of rows and the order of their fields never change and are never used again. What
//! changes gets a new tag; what an older program could not live with raises [`FORMAT`], and that program then refuses the
//! file instead of misreading it.
//!
//! | table | key | row |
//! |---|---|---|
//! | `meta` | `format`; `device` | [`FORMAT`], 4 bytes, big-endian; whose file it is, as text |
//! | `profile` | `tenant/user/app` | [`ProfileRow`] |
//! | `copy` | profile, key | the record as the servers have it, tombstones included |
//! | `waiting` | profile, position | [`Unit`]: what is to be published, in order |
//! | `waiting_key` | profile, key | the position of the last unit that holds the key; [`POSITION_IN_FLIGHT`] if that is in flight |
//! | `in_flight` | profile | [`InFlight`]: the one change that was handed to the bus, frozen |
//! | `offer` | profile, key | a record of an earlier epoch that is to be offered again |
//! | `parked` | profile, change id | [`ParkedRow`]: a change that was rejected, with the reason |

use redb::TableDefinition;
use roam_schemas::{Change, Problem, Record, Revision, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::Damage;
use super::unit::Unit;

/// The version of the file as a whole. Persisted: only raised.
pub(super) const FORMAT: u32 = 1;

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const PROFILE: TableDefinition<&str, &[u8]> = TableDefinition::new("profile");
pub(super) const COPY: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("copy");
pub(super) const WAITING: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("waiting");
pub(super) const WAITING_KEY: TableDefinition<(u32, &str), u64> = TableDefinition::new("waiting_key");
pub(super) const IN_FLIGHT: TableDefinition<u32, &[u8]> = TableDefinition::new("in_flight");
pub(super) const OFFER: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("offer");
pub(super) const PARKED: TableDefinition<(u32, [u8; 16]), &[u8]> = TableDefinition::new("parked");

/// In [`WAITING_KEY`]: nothing newer waits of the key than what is in flight. No unit has this position.
pub(super) const POSITION_IN_FLIGHT: u64 = u64::MAX;

/// Keys of [`META`].
pub(super) const META_FORMAT: &str = "format";
pub(super) const META_DEVICE: &str = "device";

/// What is known of a profile as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProfileRow {
    /// Its number in the keys of the other tables.
    pub(super) number: u32,
    /// The local copy is the profile as it was at this revision, or newer; the cursor is made of it and of `time`.
    pub(super) revision: Revision,
    /// The time of the cursor.
    pub(super) time: Timestamp,
    /// The highest revision that anything has told this device of.
    pub(super) seen: Revision,
    /// The position of the next unit that waits.
    pub(super) next_position: u64,
    /// Units at this position and after may still be merged with what is written.
    pub(super) mergeable_from: u64,
    /// How many bytes wait, are in flight or are parked, counted generously.
    pub(super) held_bytes: u64,
}

impl ProfileRow {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            revision: Revision::ZERO,
            time: Timestamp::default(),
            seen: Revision::ZERO,
            next_position: 0,
            mergeable_from: 0,
            held_bytes: 0,
        }
    }
}

/// Why a change is in flight, which decides what its outcome means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Somebody wrote it.
    Edit,
    /// It offers records of an earlier epoch again.
    Offer,
}

/// The change that was handed to the bus: the same id and the same bytes until its receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) change: Change,
    pub(super) purpose: Purpose,
    /// When it was frozen, by this device's clock, in nanoseconds since the Unix epoch.
    pub(super) frozen: u64,
    /// What it counts for in `held_bytes`.
    pub(super) bytes: u64,
}

/// A change that was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ParkedRow {
    pub(super) change: Change,
    pub(super) problem: Problem,
    /// When it was parked, by this device's clock, in nanoseconds since the Unix epoch.
    pub(super) parked: u64,
    /// What it counts for in `held_bytes`.
    pub(super) bytes: u64,
}

/// A row with a tag as its first byte, and postcard behind it.
pub(super) trait Row: Serialize + DeserializeOwned {
    /// Persisted: never used again for anything else.
    const TAG: u8;
}

impl Row for ProfileRow {
    const TAG: u8 = 1;
}
impl Row for Record {
    const TAG: u8 = 2;
}
impl Row for Unit {
    const TAG: u8 = 3;
}
impl Row for InFlight {
    const TAG: u8 = 4;
}
impl Row for ParkedRow {
    const TAG: u8 = 5;
}

pub(super) fn write<R: Row>(row: &R) -> Result<Vec<u8>, Damage> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(R::TAG);
    postcard::to_extend(row, bytes).map_err(|_| Damage("a row does not encode"))
}

pub(super) fn read<R: Row>(bytes: &[u8]) -> Result<R, Damage> {
    match bytes.split_first() {
        Some((tag, body)) if *tag == R::TAG => match postcard::take_from_bytes(body) {
            Ok((row, [])) => Ok(row),
            _ => Err(Damage("a row does not decode")),
        },
        _ => Err(Damage("a row has a tag that is not of its table")),
    }
}
