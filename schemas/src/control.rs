//! Control entries: what operators write into the journal beside the batches of access servers. Every replica applies
//! them at their place in the order, so that all of them still hold the same.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{BatchId, Kind, Message, Origin, ReplicaName, Tenant, User, limits::EPOCHS};

/// One control entry of the journal. It stands on a subject that only operators may publish on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlEntry {
    /// Chosen by whoever writes it; its `Roam-Batch` header repeats it.
    pub id: BatchId,
    /// What is to be done.
    pub control: Control,
}

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The journal is another one than the replicas knew, or lacks a piece: what one of them holds counts from here on.
    Resume(Resume),
    /// An entry that no replica can apply is passed over. Each change in it is decided as `rejected` with the code
    /// `skipped`.
    Skip(Skip),
    /// All that a user has is removed, the past included.
    Erase(Erase),
    /// Revisions go on in a new epoch, so that none that was lost with a younger state is ever used twice.
    Epoch(Epoch),
}

/// Begins a new line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The number of the new line.
    pub line: u64,
    /// The replica that goes on with what it holds. The others take a backup of it.
    pub from: ReplicaName,
}

/// Names an entry by all that tells it apart, so that no other one is skipped by mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The incarnation of the journal, and the sequence of the entry in it.
    pub origin: Origin,
    /// The id in its header; none if that is none.
    pub batch: Option<BatchId>,
}

/// Names the user whose profiles are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// The tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: User,
}

/// Begins an epoch, unless it began already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Its number, 1 to 8191: revisions in it are at least this times 2^40.
    #[schemars(range(min = 1, max = EPOCHS))]
    #[serde(deserialize_with = "epoch")]
    pub epoch: u16,
}

fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let epoch = u16::deserialize(deserializer)?;
    let fits = (1..=EPOCHS).contains(&epoch);
    fits.then_some(epoch).ok_or_else(|| de::Error::custom("an epoch is 1 to 8191"))
}

impl Message for ControlEntry {
    const KIND: Kind = Kind::ControlEntry;
}
