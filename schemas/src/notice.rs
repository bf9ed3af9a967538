//! What the other devices of a profile are told after a change is applied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChangeId, Device, Key, Kind, Message, Revision, State, Timestamp};

/// One record that a change wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeOperation {
    /// The record.
    pub key: Key,
    /// Whether it won over a version that its writer had not seen.
    pub conflict: bool,
    /// Its new state; none if the notice would have been too large: fetch it.
    pub state: Option<State>,
}

/// A revision of a profile, as it is announced. On the wire it may come twice or not at all; the next revision, or
/// the delta, repairs that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// The revision.
    pub revision: Revision,
    /// Its time.
    pub time: Timestamp,
    /// Who wrote it.
    pub device: Device,
    /// The change that it is.
    pub change: ChangeId,
    /// The records that it wrote. Operations that were superseded are not among them.
    pub ops: Vec<NoticeOperation>,
}

impl Message for Notice {
    const KIND: Kind = Kind::Notice;
}
