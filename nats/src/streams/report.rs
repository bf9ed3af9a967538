//! What operators want to know of a stream and of those who work on it, and how a subject of it is emptied. Takes the
//! rights of operators; no service asks for any of this.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{ANSWER_WITHIN, ConsumerInfo, ConsumerState, Metadata, NOTHING, Sequences, StateError, api, rfc3339};
use crate::Bus;

/// A stream with its limits and its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// When it was created, to the nanosecond: its incarnation.
    pub created: OffsetDateTime,
    /// How many messages it holds.
    pub messages: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// Sequence of the oldest message that it holds; if it holds none, of the next one to come.
    pub first_sequence: u64,
    /// Sequence of the newest message that it ever held.
    pub last_sequence: u64,
    /// How many bytes it may hold; none: any number.
    pub max_bytes: Option<u64>,
    /// How many messages it may hold; none: any number.
    pub max_messages: Option<u64>,
    /// For how long it keeps a message; none: for ever.
    pub max_age: Option<Duration>,
    /// The servers that keep it. Empty where there is only one.
    pub servers: Vec<StreamServer>,
    /// What provisioning wrote into it, and what the server did.
    pub metadata: BTreeMap<String, String>,
}

/// A server of a cluster that keeps a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamServer {
    /// Its name.
    pub name: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it holds all that the leader does, as the leader sees it.
    pub current: bool,
    /// Whether the leader hears nothing of it.
    pub offline: bool,
    /// By how many operations it is behind.
    pub behind: u64,
}

/// A durable with those who ask it for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableReport {
    /// The durable.
    pub state: ConsumerState,
    /// How many requests for messages wait.
    pub asking: u64,
}

/// A stream as operators look at it.
///
/// # Errors
/// See [`StateError`].
pub async fn stream_report(bus: &Bus, stream: &str) -> Result<StreamReport, StateError> {
    let info: Info = api::call(bus, &format!("STREAM.INFO.{stream}"), &NOTHING, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    let Info { created, state, config, cluster } = info;
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    Ok(StreamReport {
        created,
        messages: state.messages,
        bytes: state.bytes,
        first_sequence: state.first_seq,
        last_sequence: state.last_seq,
        max_bytes: limit(config.max_bytes),
        max_messages: limit(config.max_msgs),
        max_age: limit(config.max_age).map(Duration::from_nanos),
        servers: cluster.map(Cluster::servers).unwrap_or_default(),
        metadata: config.metadata.metadata,
    })
}

/// A durable as operators look at it.
///
/// # Errors
/// See [`StateError`].
pub async fn durable_report(bus: &Bus, stream: &str, durable: &str) -> Result<DurableReport, StateError> {
    let info: DurableInfo = api::call(bus, &format!("CONSUMER.INFO.{stream}.{durable}"), &NOTHING, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("consumer {stream}/{durable}"), error))?;
    Ok(DurableReport { state: info.consumer.into(), asking: info.num_waiting })
}

/// How many messages of a stream stand on subjects that match.
///
/// # Errors
/// See [`StateError`].
pub async fn subject_messages(bus: &Bus, stream: &str, subject: &str) -> Result<u64, StateError> {
    let question = Filter { subjects_filter: subject };
    let info: Counted = api::call(bus, &format!("STREAM.INFO.{stream}"), &question, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    Ok(info.state.subjects.values().sum())
}

/// Removes the messages on subjects that match, those up to a sequence. Says how many went.
///
/// # Errors
/// See [`StateError`]; a stream that denies purging refuses.
pub async fn purge_subject(bus: &Bus, stream: &str, subject: &str, through: u64) -> Result<u64, StateError> {
    let question = Purge { filter: subject, seq: through.saturating_add(1) };
    let purged: Purged = api::call(bus, &format!("STREAM.PURGE.{stream}"), &question, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    Ok(purged.purged)
}

#[derive(Deserialize)]
struct Info {
    #[serde(deserialize_with = "rfc3339")]
    created: OffsetDateTime,
    state: Sequences,
    config: Limits,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    max_msgs: i64,
    #[serde(default)]
    max_age: i64,
    #[serde(flatten)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    lag: u64,
}

impl Cluster {
    fn servers(self) -> Vec<StreamServer> {
        let leader = self.leader.filter(|leader| !leader.is_empty());
        let leader = leader.map(|name| StreamServer { name, leads: true, current: true, offline: false, behind: 0 });
        let others = self.replicas.into_iter().map(|Peer { name, current, offline, lag }| StreamServer {
            name,
            leads: false,
            current,
            offline,
            behind: lag,
        });
        leader.into_iter().chain(others).collect()
    }
}

#[derive(Deserialize)]
struct DurableInfo {
    #[serde(flatten)]
    consumer: ConsumerInfo,
    #[serde(default)]
    num_waiting: u64,
}

#[derive(Serialize)]
struct Filter<'a> {
    subjects_filter: &'a str,
}

#[derive(Deserialize)]
struct Counted {
    state: Subjects,
}

#[derive(Deserialize)]
struct Subjects {
    /// None if no subject matches.
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Purge<'a> {
    filter: &'a str,
    /// The first sequence that stays.
    seq: u64,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}
