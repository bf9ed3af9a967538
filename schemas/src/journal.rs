//! What the journal holds: batches of stamped changes, with the terms that they are decided under.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Change, Device, Encoding, Kind, Message, Profile, Tenant, Timestamp, limits};

/// The newest rules of `decide` that this build knows. A batch names the rules that it is decided under.
pub const RULES: u16 = 1;

/// The id of a journal batch, which its `Roam-Batch` header repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BatchId(#[schemars(with = "String", extend("format" = "uuid"))] Uuid);

impl BatchId {
    /// A new id.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads the header form back.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a change stood in ROAM_CHANGES.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// When that stream was created, in nanoseconds since the Unix epoch: a re-created stream is another one.
    pub incarnation: u64,
    /// Its sequence in the stream, which the publisher's PubAck named.
    pub sequence: u64,
}

/// What an access server attaches: the same on every redelivery and whichever server handles it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The instant at which the stream took the change in. No device clock is ever used.
    pub time: Timestamp,
    /// Where it stood in the stream.
    pub origin: Origin,
}

/// A valid change with its identity (from the subject alone), its time and its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StampedChange {
    /// The profile that it changes.
    pub profile: Profile,
    /// The device that published it.
    pub device: Device,
    /// The encoding that it was published in, which its receipt and notice use.
    pub encoding: Encoding,
    /// Its time and origin.
    pub stamp: Stamp,
    /// [`Change::digest`].
    pub digest: [u8; 16],
    /// The change.
    pub change: Change,
}

/// The terms that a batch is decided under. They travel with it, so that every replica decides alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// For how long a decided change id is known, in seconds. Default 30 days.
    pub seen_seconds: u64,
    /// For how long a tombstone stays, in seconds. Default 30 days.
    pub tombstone_seconds: u64,
    /// For how long a replaced version is kept, in seconds from its replacement. Default 30 days.
    pub history_seconds: u64,
    /// How many versions of a key are kept. Default 10.
    pub history_versions: u32,
    /// How many live records a profile may hold. Default 50,000.
    pub profile_records: u64,
    /// How many bytes of keys and values a profile may hold, large values among them. Default 512 MiB.
    pub profile_bytes: u64,
    /// How many profiles a user may have. Default 256.
    pub user_profiles: u32,
}

impl Default for Terms {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            seen_seconds: 30 * DAY,
            tombstone_seconds: 30 * DAY,
            history_seconds: 30 * DAY,
            history_versions: 10,
            profile_records: 50_000,
            profile_bytes: 512 * 1024 * 1024,
            user_profiles: 256,
        }
    }
}

/// How much a profile may hold, and a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many live records a profile may hold.
    pub profile_records: u64,
    /// How many bytes of keys and values a profile may hold.
    pub profile_bytes: u64,
    /// How many profiles a user may have.
    pub user_profiles: u32,
}

/// The quota of a tenant that has one of its own, in place of that of the terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantQuota {
    /// The tenant.
    pub tenant: Tenant,
    /// How many live records a profile may hold.
    pub profile_records: u64,
    /// How many bytes of keys and values a profile may hold.
    pub profile_bytes: u64,
    /// How many profiles a user may have.
    pub user_profiles: u32,
}

impl Terms {
    /// What a profile may hold of a tenant that has no quota of its own.
    pub fn quota(&self) -> Quota {
        let Self { profile_records, profile_bytes, user_profiles, .. } = *self;
        Quota { profile_records, profile_bytes, user_profiles }
    }
}

impl TenantQuota {
    /// What a profile of the tenant may hold.
    pub fn quota(&self) -> Quota {
        let Self { profile_records, profile_bytes, user_profiles, .. } = *self;
        Quota { profile_records, profile_bytes, user_profiles }
    }
}

/// One entry of the journal: up to 1,000 changes that are applied in one synced write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalBatch {
    /// Chosen by the access server.
    pub id: BatchId,
    /// The rules of `decide` that it is decided under.
    pub rules: u16,
    /// The terms that it is decided under.
    pub terms: Terms,
    /// The quotas of those tenants of its changes that have one of their own.
    #[serde(default)]
    pub quotas: Vec<TenantQuota>,
    /// Its changes, in order.
    #[schemars(length(min = 1, max = limits::BATCH_CHANGES))]
    pub changes: Vec<StampedChange>,
}

impl JournalBatch {
    /// What a profile of that tenant may hold.
    pub fn quota(&self, tenant: &Tenant) -> Quota {
        let own = self.quotas.iter().find(|own| own.tenant == *tenant);
        own.map_or_else(|| self.terms.quota(), TenantQuota::quota)
    }
}

impl Message for JournalBatch {
    const KIND: Kind = Kind::JournalBatch;
}
