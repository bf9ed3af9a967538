//! Revision (order) and time (information): two types, never one integer.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::limits::{EPOCH_BITS, REVISION_END};

/// The counter of a profile: +1 for each change applied, below 2^53. It orders; time only informs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Revision(#[schemars(range(max = 9_007_199_254_740_991_u64))] u64);

impl Revision {
    /// The revision of a profile that was never written.
    pub const ZERO: Self = Self(0);

    /// A revision from its number. A message with a number of 2^53 or more does not decode.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The lowest revision of an epoch: its number times 2^40.
    pub const fn of_epoch(epoch: u16) -> Self {
        Self((epoch as u64) << EPOCH_BITS)
    }

    /// The epoch that it belongs to.
    pub const fn epoch(self) -> u64 {
        self.0 >> EPOCH_BITS
    }

    /// The revision after this one; `None` once revisions would no longer be exact in JSON.
    pub fn next(self) -> Option<Self> {
        Self::checked(self.0.saturating_add(1))
    }

    /// A revision from a number that somebody sent; `None` for one that no revision can have.
    pub(crate) fn checked(number: u64) -> Option<Self> {
        (number < REVISION_END).then_some(Self(number))
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        Self::checked(number).ok_or_else(|| de::Error::custom("a revision is below 2^53"))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An instant, in nanoseconds since the Unix epoch. In JSON it is RFC 3339 in UTC with nine digits of fraction, so
/// that texts sort as times do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The next instant: one nanosecond later.
    #[must_use]
    pub const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This instant moved later by whole seconds; stays at the end of time instead of wrapping.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000_000)))
    }

    /// This instant moved earlier by whole seconds; stays at the epoch instead of wrapping.
    pub const fn minus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds.saturating_mul(1_000_000_000)))
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// Says what is wrong with the text, or that the instant lies before 1970 or after 2554.
    pub fn parse(text: &str) -> Result<Self, String> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| error.to_string())?;
        u64::try_from(time.unix_timestamp_nanos())
            .map(Self)
            .map_err(|_| "the instant lies outside 1970 to 2554".to_owned())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0)).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.nanosecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse(&text).map_err(de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}
