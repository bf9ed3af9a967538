//! What whoever published a change is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChangeId, Device, Key, Kind, Message, Problem, Revision, Timestamp};

/// A record that another device had changed since the publisher looked. The operation won all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// The record.
    pub key: Key,
    /// The revision of the version that lost; it stays in the history.
    pub revision: Revision,
    /// Who wrote the version that lost.
    pub device: Device,
}

/// An operation that came too late: a change that was published after it had been applied before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Superseded {
    /// The record, which was not touched.
    pub key: Key,
    /// The revision that stands.
    pub revision: Revision,
}

/// What applying a change did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The profile's revision after it. A change that was superseded whole takes none: this is then the head that stood.
    pub revision: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// Records that another device had changed since the publisher looked.
    pub conflicts: Vec<Conflict>,
    /// Operations that came too late.
    pub superseded: Vec<Superseded>,
    /// Whether the profile holds 80 % or more of the records or bytes that it may.
    #[serde(default)]
    pub nearly_full: bool,
}

/// The decision on a change. Persisted in `seen` rows: never reorder, only add at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was applied, and is fsynced.
    Applied(Applied),
    /// It was refused whole, for good: try again under a new id.
    Rejected(Problem),
}

/// The answer to whoever published a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The sequence that the PubAck named, so that even an undecodable change can be matched.
    pub sequence: u64,
    /// The change's id; none if it could not be decoded.
    pub id: Option<ChangeId>,
    /// Whether the change had been decided before: this is then its first outcome, whole.
    pub again: bool,
    /// The decision.
    pub outcome: Outcome,
}

impl Message for Receipt {
    const KIND: Kind = Kind::Receipt;
}
