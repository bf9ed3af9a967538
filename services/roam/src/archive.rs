//! An exported profile: one line of JSON that says what it is, then one for each live record; of a user one line more, and
//! then the profiles one after the other. Pure: lines go in and out, nothing is opened and nothing is sent.
//!
//! People keep these files: a field is never renamed, and what its meaning depends on raises [`VERSION`].

mod read;

use roam_schemas::{ContentType, Device, Key, Profile, Record, Revision, State, Timestamp, Value};
use serde::{Deserialize, Serialize};

use crate::owner::UserName;
pub(crate) use read::{Archive, Piece, Unreadable};

/// The name of the format.
const FORMAT: &str = "roam-export";
/// The name of the format of all profiles of a user.
const USER_FORMAT: &str = "roam-export-user";
/// The version of both formats that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The first line of all profiles of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserHeader {
    /// [`USER_FORMAT`].
    format: String,
    /// [`VERSION`].
    version: u32,
    /// Whose profiles these are: tenant/user.
    user: String,
    /// How many profiles follow, so that a file that was cut off is noticed.
    #[serde(default)]
    profiles: Option<u64>,
}

/// The first line of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// [`FORMAT`].
    format: String,
    /// [`VERSION`].
    version: u32,
    /// Whose records these are: tenant/user/app.
    profile: String,
    /// The revision of the profile.
    head: Revision,
    /// The time of that revision.
    time: Timestamp,
    /// How many records follow, so that a file that was cut off is noticed.
    #[serde(default)]
    records: Option<u64>,
}

/// Each further line: a live record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// The key.
    key: Key,
    /// What the value is.
    content_type: ContentType,
    /// The value: text as it is, anything else as `{"base64": "..."}`.
    value: Value,
    /// The revision that wrote it. Tells where it comes from, as the next two do; none of them is read back.
    #[serde(default)]
    revision: Option<Revision>,
    /// The time of that revision.
    #[serde(default)]
    time: Option<Timestamp>,
    /// Who wrote it.
    #[serde(default)]
    device: Option<Device>,
    /// When it ends; none for never.
    #[serde(default)]
    expires: Option<Timestamp>,
}

impl UserHeader {
    /// Of so many profiles of a user.
    pub(crate) fn new(user: &UserName, profiles: u64) -> Self {
        Self { format: USER_FORMAT.to_owned(), version: VERSION, user: user.to_string(), profiles: Some(profiles) }
    }
}

impl Header {
    /// Of so many records of a profile, as it was at that revision.
    pub(crate) fn new(profile: &Profile, head: Revision, time: Timestamp, records: u64) -> Self {
        let (format, profile) = (FORMAT.to_owned(), profile.to_string());
        Self { format, version: VERSION, profile, head, time, records: Some(records) }
    }
}

impl Line {
    /// Of a record; none if it has no value.
    pub(crate) fn of(record: Record) -> Option<Self> {
        let State::Value(stored) = record.state else { return None };
        Some(Self {
            key: record.key,
            content_type: stored.content_type,
            value: stored.value,
            revision: Some(record.revision),
            time: Some(record.time),
            device: Some(record.device),
            expires: stored.expires,
        })
    }
}
