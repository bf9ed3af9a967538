//! What a reader may ask of a profile, and the answers: `latest`, `changes` and `history`. Instead of its answer a
//! request may get a [`crate::Problem`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Cursor, Key, Kind, Message, Problem, Record, Revision, Timestamp, Version, bounded,
    limits::{PAGE_RECORDS, REQUEST_KEYS, WAIT_MS},
};

/// Which records are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// All live ones, in order of their keys.
    #[default]
    All,
    /// All live ones whose key begins with this, in order of their keys.
    Prefix(String),
    /// These, live or not, in this order.
    // Of a longer list one key more than that is decoded, for the check of the limits to refuse.
    Keys(
        #[serde(deserialize_with = "bounded::list::<_, _, REQUEST_KEYS>")]
        #[schemars(length(max = REQUEST_KEYS))]
        Vec<Key>,
    ),
}

/// Asks for records. An empty payload asks for the first page of the whole profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LatestRequest {
    /// Which records.
    pub select: Select,
    /// Answer only once the profile has reached this revision.
    pub min_revision: Option<Revision>,
    /// How long to wait for that, in milliseconds, at most 5,000; none for not at all.
    pub wait_ms: Option<u32>,
    /// Most records in the answer, at most 1,000; none for as many as a page holds.
    pub limit: Option<u32>,
    /// Go on after this key: the `next` of the page before. Not with `keys`.
    pub after: Option<Key>,
}

/// Answers [`LatestRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatestReply {
    /// The revision of the profile; 0 if it was never written.
    pub head: Revision,
    /// The time of that revision.
    pub time: Timestamp,
    /// The records. With `keys` deleted and expired ones are among them; otherwise only live ones.
    pub records: Vec<Record>,
    /// With `keys`: those that the profile does not know.
    pub unknown: Vec<Key>,
    /// None on the last page. Otherwise ask again with this as `after`; with `keys`, this is the first one that was not
    /// answered: ask for it and those behind it again.
    pub next: Option<Key>,
}

/// Asks for all that changed since a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesRequest {
    /// Where the asker stands; none for the beginning.
    pub cursor: Option<Cursor>,
    /// Close the page after the first revision that passes this many records, at most 1,000.
    pub limit: Option<u32>,
    /// Answer only once the profile has reached this revision.
    pub min_revision: Option<Revision>,
    /// How long to wait for that, in milliseconds, at most 5,000; none for not at all.
    pub wait_ms: Option<u32>,
}

/// Answers [`ChangesRequest`]. `reset` comes as a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangesReply {
    /// The revision of the profile; 0 if it was never written.
    pub head: Revision,
    /// The records that changed, tombstones included, in order of their revisions; each once, in its newest state.
    pub records: Vec<Record>,
    /// Where the asker stands after these.
    pub cursor: Cursor,
    /// Whether there is more to fetch at once.
    pub more: bool,
}

/// Asks for the kept versions of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryRequest {
    /// The key.
    pub key: Key,
    /// Most versions in the answer, at most 1,000; none for all that are kept.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Answers [`HistoryRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryReply {
    /// The revision of the profile; 0 if it was never written.
    pub head: Revision,
    /// The kept versions, newest first; none if the key is unknown.
    pub versions: Vec<Version>,
    /// Whether older versions were left out because the page was full.
    pub more: bool,
    /// From this instant on nothing is missing: what the key was then and later is among the versions, or it was absent. Between
    /// two versions that are both older, others may be missing.
    pub whole_since: Timestamp,
}

impl Message for LatestRequest {
    const KIND: Kind = Kind::LatestRequest;

    fn is_cut(&self) -> bool {
        matches!(&self.select, Select::Keys(keys) if keys.len() > REQUEST_KEYS)
    }
}
impl Message for LatestReply {
    const KIND: Kind = Kind::LatestReply;
}
impl Message for ChangesRequest {
    const KIND: Kind = Kind::ChangesRequest;
}
impl Message for ChangesReply {
    const KIND: Kind = Kind::ChangesReply;
}
impl Message for HistoryRequest {
    const KIND: Kind = Kind::HistoryRequest;
}
impl Message for HistoryReply {
    const KIND: Kind = Kind::HistoryReply;
}
impl Message for Problem {
    const KIND: Kind = Kind::Problem;
}

impl LatestRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        check_page(self.limit, self.wait_ms)?;
        match &self.select {
            Select::Keys(_) if self.after.is_some() => {
                Err(Problem::invalid("`after` goes with a prefix or with all, not with keys"))
            }
            Select::Keys(keys) if keys.len() > REQUEST_KEYS => {
                Err(Problem::too_large("a request names too many keys", REQUEST_KEYS, keys.len()))
            }
            _ => Ok(()),
        }
    }
}

impl ChangesRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        check_page(self.limit, self.wait_ms)
    }
}

impl HistoryRequest {
    /// Checks the limits.
    ///
    /// # Errors
    /// `invalid` or `too_large`.
    pub fn validate(&self) -> Result<(), Problem> {
        check_page(self.limit, None)
    }
}

/// Checks what every request for a page names.
pub(crate) fn check_page(limit: Option<u32>, wait_ms: Option<u32>) -> Result<(), Problem> {
    let too_large = |message, limit: u32, actual: u32| {
        Problem::new(crate::Code::TooLarge, message).with_limit(limit.into(), actual.into())
    };
    match (limit, wait_ms) {
        (Some(0), _) => Err(Problem::invalid("a limit is at least 1")),
        (Some(limit), _) if limit > PAGE_RECORDS => {
            Err(too_large("a page cannot hold that many records", PAGE_RECORDS, limit))
        }
        (_, Some(wait)) if wait > WAIT_MS => {
            Err(too_large("a request cannot wait that long, in milliseconds", WAIT_MS, wait))
        }
        _ => Ok(()),
    }
}
