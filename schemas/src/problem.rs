//! What went wrong, in words that a program can act on: a stable code, a text, the limit and the actual value, and
//! whether a retry can help. One page of documentation each, in `docs/errors/`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Key, Revision};

/// The stable codes. Persisted in `seen` rows by position: never renumber, only add at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The message breaks a rule of the protocol; sending it again cannot help.
    Invalid,
    /// Something is over a limit of the protocol.
    TooLarge,
    /// The asker has no right to that.
    Denied,
    /// A record was not as the change expected.
    Conflict,
    /// A record that was expected to be absent exists.
    Exists,
    /// The profile or the user would hold more than it may.
    OverQuota,
    /// This replica has not reached the revision that was asked for.
    Behind,
    /// The cursor is too old or of another epoch: fetch the whole profile.
    Reset,
    /// Not now: nothing was decided, send the same again later.
    Busy,
    /// There is no room for more chunks of large values.
    StorageFull,
    /// An operator let the pipeline go past the batch that held this change.
    Skipped,
    /// The message is of a version that this service does not know.
    UnsupportedVersion,
    /// A chunk is not there that a manifest names.
    Missing,
}

impl Code {
    /// Every code, in order.
    pub const ALL: [Self; 13] = [
        Self::Invalid,
        Self::TooLarge,
        Self::Denied,
        Self::Conflict,
        Self::Exists,
        Self::OverQuota,
        Self::Behind,
        Self::Reset,
        Self::Busy,
        Self::StorageFull,
        Self::Skipped,
        Self::UnsupportedVersion,
        Self::Missing,
    ];

    /// The code as it is written everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Exists => "exists",
            Self::OverQuota => "over_quota",
            Self::Behind => "behind",
            Self::Reset => "reset",
            Self::Busy => "busy",
            Self::StorageFull => "storage_full",
            Self::Skipped => "skipped",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Missing => "missing",
        }
    }

    /// Whether sending the very same again later can help.
    pub const fn retry(self) -> bool {
        matches!(self, Self::Behind | Self::Busy | Self::StorageFull)
    }

    /// Whether a client must expect this in ordinary work, so that it is only receipted, never filed in ROAM_REJECTED.
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::Conflict | Self::Exists | Self::Busy)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The record that did not meet an expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Its key.
    pub key: Key,
    /// The revision that it has; none if it is absent.
    pub revision: Option<Revision>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{code}: {message}{}", limits(*.limit, *.actual))]
pub struct Problem {
    /// What kind of problem it is.
    pub code: Code,
    /// A sentence for people. It may change; the code does not.
    pub message: String,
    /// Whether sending the very same again later can help.
    pub retry: bool,
    /// The limit that was passed, where there is one.
    pub limit: Option<u64>,
    /// The actual value beside the limit.
    pub actual: Option<u64>,
    /// With `conflict` and `exists`: the first record that was not as expected.
    pub failed: Option<Failed>,
}

impl Problem {
    /// A problem without limits.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: code.retry(), limit: None, actual: None, failed: None }
    }

    /// `invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// `too_large`, with the limit and the actual value.
    pub fn too_large(message: impl Into<String>, limit: usize, actual: usize) -> Self {
        Self::new(Code::TooLarge, message).with_limit(limit as u64, actual as u64)
    }

    /// `denied`: it stands in, or was asked of, a shard that its user is not in.
    pub fn of_another_shard() -> Self {
        Self::new(Code::Denied, "the subject is not of this shard")
    }

    /// The same with the limit that was passed and the actual value.
    #[must_use]
    pub fn with_limit(mut self, limit: u64, actual: u64) -> Self {
        self.limit = Some(limit);
        self.actual = Some(actual);
        self
    }

    /// The same with the record that was not as expected.
    #[must_use]
    pub fn with_failed(mut self, key: Key, revision: Option<Revision>) -> Self {
        self.failed = Some(Failed { key, revision });
        self
    }
}

fn limits(limit: Option<u64>, actual: Option<u64>) -> String {
    match (limit, actual) {
        (Some(limit), Some(actual)) => format!(" (limit {limit}, actual {actual})"),
        (Some(limit), None) => format!(" (limit {limit})"),
        _ => String::new(),
    }
}
