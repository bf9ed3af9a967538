//! What readers see of a key: its record, and its kept versions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChangeId, ContentType, Device, Key, Revision, Timestamp, Value};

/// A live value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// The value.
    pub value: Value,
    /// What the value is.
    pub content_type: ContentType,
    /// The instant from which the record counts as expired; none for never.
    pub expires: Option<Timestamp>,
}

/// The state of a record. An unknown key is told apart from all of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has a value.
    Value(Stored),
    /// It was deleted.
    Deleted,
    /// Its time to live ended.
    Expired,
}

/// The newest state of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The profile revision that wrote it.
    pub revision: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// Who wrote it.
    pub device: Device,
    /// Whether it won over a version that its writer had not seen.
    pub conflict: bool,
    /// Its state.
    pub state: State,
}

/// One kept version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The profile revision that wrote it; for a superseded one, the revision that beat it.
    pub revision: Revision,
    /// 0 for a version that was the record once; 1, 2, ... for operations that came too late for it.
    pub rank: u32,
    /// Its time; for a superseded one, the time at which the stream took it in.
    pub time: Timestamp,
    /// Who wrote it.
    pub device: Device,
    /// The change that wrote it.
    pub change: ChangeId,
    /// The profile revision that its writer had seen.
    pub base: Option<Revision>,
    /// Whether it won over a version that its writer had not seen.
    pub conflict: bool,
    /// What it wrote.
    pub state: State,
}
