//! What operators ask replicas, and what these answer: how a replica stands, and what it holds. Requests go to one replica by
//! its name, or to all of them; each answers for itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    App, BatchId, Kind, Message, Problem, Profile, ReplicaName, Revision, Skip, Tenant, Timestamp, User,
    limits::{PAGE_RECORDS, WAIT_MS},
    query::check_page,
};

/// How a replica stands. It is asked for with an empty payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusReply {
    /// Its name.
    pub name: ReplicaName,
    /// The version of Roam that it runs.
    pub version: String,
    /// Up to where it applied the journal; none if it applied nothing yet.
    pub position: Option<JournalPosition>,
    /// Why it stands still, if it does.
    pub halted: Option<Halted>,
    /// What keeps it from being ready.
    pub missing: Vec<Missing>,
    /// Whether it is the one that announces.
    pub announces: bool,
    /// The number of the epoch.
    pub epoch: u16,
    /// How many bytes its files take.
    pub used_bytes: u64,
    /// How many bytes its disk has left; none if the system does not tell.
    pub free_bytes: Option<u64>,
}

/// Why a replica stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halted {
    /// In words, with what to do about it.
    pub reason: String,
    /// What helps, for programs.
    pub remedy: Remedy,
}

/// What helps a replica that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// A backup that reaches as far as the journal begins; where there is none, an order to resume.
    BackupOrResume,
    /// An order to resume: replicas have to be told which of them counts.
    Resume,
    /// A backup of this replica, which counts.
    BackupOf(ReplicaName),
    /// A newer build, or, if no replica can apply it, this order to skip the entry.
    Skip(Skip),
}

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalPosition {
    /// When the journal stream was created, in nanoseconds since the Unix epoch.
    pub incarnation: u64,
    /// The sequence in it.
    pub sequence: u64,
    /// The id of the entry there.
    pub batch: BatchId,
    /// The unbroken run of the journal that it belongs to.
    pub line: u64,
    /// When the stream took it in.
    pub published: Timestamp,
}

/// Something that must hold for a process to be ready, and does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// What it is.
    pub condition: String,
    /// Why it does not hold, in words.
    pub reason: String,
}

/// Asks a replica for the profiles that it holds, in order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfilesRequest {
    /// Only those of this tenant,
    pub tenant: Option<Tenant>,
    /// of this user of it,
    pub user: Option<User>,
    /// and of this app.
    pub app: Option<App>,
    /// Only those behind this one.
    pub after: Option<Profile>,
    /// How many at most, 1 to 1,000.
    #[schemars(range(min = 1, max = PAGE_RECORDS))]
    pub limit: Option<u32>,
    /// With a digest of each, as of this instant: what is too old by then does not count.
    pub digests_as_of: Option<Timestamp>,
    /// Wait until the journal is applied up to this sequence,
    pub min_sequence: Option<u64>,
    /// for so many milliseconds at most.
    #[schemars(range(max = WAIT_MS))]
    pub wait_ms: Option<u32>,
}

/// The profiles that a replica holds, or a part of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfilesReply {
    /// Who answers.
    pub name: ReplicaName,
    /// Up to where the journal was applied when this was so.
    pub position: Option<JournalPosition>,
    /// The profiles.
    pub profiles: Vec<ProfileStanding>,
    /// Behind which profile it goes on; none if that was all.
    pub next: Option<Profile>,
}

/// Where a profile stands on a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileStanding {
    /// The profile.
    pub profile: Profile,
    /// Its newest revision.
    pub revision: Revision,
    /// The time of that.
    pub time: Timestamp,
    /// How many of its records hold a value.
    pub records: u64,
    /// How many bytes the keys and values of those have.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal, over all of it that anybody can see, if it was asked for.
    pub digest: Option<String>,
}

/// Asks a replica what it holds of a user: for the proof that nothing is left once they were erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldingsRequest {
    /// The tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: User,
    /// Wait until the journal is applied up to this sequence,
    #[serde(default)]
    pub min_sequence: Option<u64>,
    /// for so many milliseconds at most.
    #[serde(default)]
    #[schemars(range(max = WAIT_MS))]
    pub wait_ms: Option<u32>,
}

/// What a replica holds of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldingsReply {
    /// Who answers.
    pub name: ReplicaName,
    /// Up to where the journal was applied when this was so.
    pub position: Option<JournalPosition>,
    /// How many rows each table holds of the user, those of all tables but the marker that they were erased.
    pub rows: Vec<TableRows>,
    /// How many chunks it knows of the user.
    pub chunks: u64,
    /// How many erased users' bytes have not left the files of the replica yet.
    pub leaving: u64,
}

/// How many rows a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRows {
    /// The table.
    pub table: String,
    /// How many rows.
    pub rows: u64,
}

impl HoldingsRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        check_page(None, self.wait_ms)
    }
}

impl ProfilesRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        if self.user.is_some() && self.tenant.is_none() || self.app.is_some() && self.user.is_none() {
            return Err(Problem::invalid("an app is named with its user, and a user with their tenant"));
        }
        check_page(self.limit, self.wait_ms)
    }
}

impl Message for StatusReply {
    const KIND: Kind = Kind::StatusReply;
}

impl Message for ProfilesRequest {
    const KIND: Kind = Kind::ProfilesRequest;
}

impl Message for ProfilesReply {
    const KIND: Kind = Kind::ProfilesReply;
}

impl Message for HoldingsRequest {
    const KIND: Kind = Kind::HoldingsRequest;
}

impl Message for HoldingsReply {
    const KIND: Kind = Kind::HoldingsReply;
}
