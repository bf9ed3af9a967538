//! What the server says of a stream or of a durable consumer right now. Each question is one request, cheap enough to be
//! asked several times a second. Needs no rights but `STREAM.INFO` or `CONSUMER.INFO`; single messages are in `stored.rs`.

pub(crate) mod api;
mod report;
pub(crate) mod stored;

use std::{collections::BTreeMap, time::Duration};

use roam_schemas::{Shard, Shards};
use serde::{Deserialize, Deserializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::api::{ApiError, code};
use crate::{Bus, RequestError, SHARDS_KEY};
pub use api::Refusal;
pub use report::{
    DurableReport, StreamReport, StreamServer, durable_report, purge_subject, stream_report, subject_messages,
};
pub use stored::next_entry;
pub use stored::{StoredMessage, delete_message, next_message, stored_message};

/// The stream of what clients publish.
pub const CHANGES_STREAM: &str = "ROAM_CHANGES";
/// The stream of what is stamped.
pub const JOURNAL_STREAM: &str = "ROAM_JOURNAL";
/// The stream of what was refused.
pub const REJECTED_STREAM: &str = "ROAM_REJECTED";
/// The object-store bucket of the backups of storage replicas.
pub const BACKUPS_BUCKET: &str = "ROAM_BACKUPS";
/// The stream of what is known of tokens.
pub const TOKENS_STREAM: &str = "ROAM_TOKENS";
/// The stream of who did what.
pub const AUDIT_STREAM: &str = "ROAM_AUDIT";
/// The stream of the chunks of large values.
pub const CHUNKS_STREAM: &str = "ROAM_CHUNKS";
/// The stream of what access servers go by.
pub const TERMS_STREAM: &str = "ROAM_TERMS";
/// The durable of the access servers on [`CHANGES_STREAM`].
pub const ACCESS_DURABLE: &str = "access";
/// The durable of the replicas on [`JOURNAL_STREAM`], and its one priority group.
pub const ANNOUNCE_DURABLE: &str = "announce";

/// The stream of what clients publish into a shard: [`CHANGES_STREAM`], with the number behind it where there are several.
pub fn changes_stream(shard: Shard) -> String {
    in_shard(CHANGES_STREAM, shard)
}

/// The stream of what is stamped in a shard: [`JOURNAL_STREAM`], with the number behind it where there are several.
pub fn journal_stream(shard: Shard) -> String {
    in_shard(JOURNAL_STREAM, shard)
}

/// The stream of the chunks of a shard: [`CHUNKS_STREAM`], with the number behind it where there are several.
pub fn chunks_stream(shard: Shard) -> String {
    in_shard(CHUNKS_STREAM, shard)
}

/// The name of something that each shard has one of.
pub(crate) fn in_shard(name: &str, shard: Shard) -> String {
    if shard.is_only() { name.to_owned() } else { format!("{name}_{}", shard.number()) }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The body of a question without parameters: `{}`.
const NOTHING: BTreeMap<&str, ()> = BTreeMap::new();

/// A stream, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// When it was created, to the nanosecond: its incarnation. The same after restarts and on every server of a cluster;
    /// another one if the stream was deleted and made again. *Not* another one after its files were damaged.
    pub created: OffsetDateTime,
    /// Sequence of the oldest message that it holds. If it holds none: of the next one to come, or 0 if none ever came.
    pub first_sequence: u64,
    /// When it took in the oldest message that it holds; none if it holds none.
    pub first_time: Option<OffsetDateTime>,
    /// Sequence of the newest message that it ever held, 0 if none ever came.
    pub last_sequence: u64,
    /// How many messages it holds.
    pub messages: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// What provisioning wrote into it (keys `roam.…`), and what the server did (keys `_nats.…`).
    pub metadata: BTreeMap<String, String>,
}

/// A durable consumer, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// Stream sequence of the newest message that it delivered.
    pub delivered: u64,
    /// How many deliveries it made, redeliveries included.
    pub delivered_count: u64,
    /// Stream sequence up to which everything is acked.
    pub ack_floor: u64,
    /// How many messages it has not delivered even once.
    pub pending: u64,
    /// How many messages it delivered that are not acked.
    pub unacked: u64,
}

/// Where a durable consumer stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerStanding {
    /// Stream sequence of the newest message that it delivered.
    pub delivered: u64,
    /// Sequence of the newest message that the stream ever held, as far as it knows.
    pub last: u64,
}

/// The server did not say.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It does not exist: provision, or find out who deleted it.
    #[error("{object} does not exist")]
    NotFound {
        /// `stream NAME` or `consumer STREAM/NAME`.
        object: String,
    },
    /// Nobody answered, or the cluster has no leader: ask again later.
    #[error("nobody says how {object} is")]
    Unavailable {
        /// `stream NAME` or `consumer STREAM/NAME`.
        object: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// We may not ask: mend the credentials. (A server may also say nothing at all to whom it denies.)
    #[error("asking for {object} is denied")]
    Denied {
        /// `stream NAME` or `consumer STREAM/NAME`.
        object: String,
    },
}

/// A stream is of a deployment with another number of shards than whoever uses it was told. Mend the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deployment was provisioned with {} shards, and the settings say {}", found.get(), expected.get())]
pub struct WrongShards {
    /// How many there are to be.
    pub expected: Shards,
    /// How many there are.
    pub found: Shards,
}

/// How many shards the deployment has, by the metadata of one of its streams.
pub fn shards_of(metadata: &BTreeMap<String, String>) -> Shards {
    let shards = metadata.get(SHARDS_KEY).and_then(|text| Shards::new(text.parse().ok()?).ok());
    shards.unwrap_or_default()
}

/// Whether a stream of a shard is of a deployment with as many as are expected.
///
/// # Errors
/// It is not.
pub fn check_shards(stream: &StreamState, shard: Shard) -> Result<(), WrongShards> {
    let (expected, found) = (shard.shards(), shards_of(&stream.metadata));
    if expected == found { Ok(()) } else { Err(WrongShards { expected, found }) }
}

/// How many shards the deployment was provisioned with.
///
/// # Errors
/// See [`StateError`]: not found if nothing is provisioned.
pub async fn provisioned_shards(bus: &Bus) -> Result<Shards, StateError> {
    // Each deployment has it, once.
    Ok(shards_of(&stream_state(bus, REJECTED_STREAM).await?.metadata))
}

/// The state of a stream.
pub async fn stream_state(bus: &Bus, stream: &str) -> Result<StreamState, StateError> {
    let info: StreamInfo = api::call(bus, &format!("STREAM.INFO.{stream}"), &NOTHING, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    Ok(StreamState {
        created: info.created,
        first_sequence: info.state.first_seq,
        first_time: Some(info.state.first_ts).filter(|_| info.state.messages > 0),
        last_sequence: info.state.last_seq,
        messages: info.state.messages,
        bytes: info.state.bytes,
        metadata: info.config.metadata,
    })
}

/// The state of a durable consumer.
pub async fn consumer_state(bus: &Bus, stream: &str, durable: &str) -> Result<ConsumerState, StateError> {
    let info: ConsumerInfo = api::call(bus, &format!("CONSUMER.INFO.{stream}.{durable}"), &NOTHING, ANSWER_WITHIN)
        .await
        .map_err(|error| StateError::of(format!("consumer {stream}/{durable}"), error))?;
    Ok(info.into())
}

/// Where a durable consumer stands in its stream.
pub async fn consumer_standing(bus: &Bus, stream: &str, durable: &str) -> Result<ConsumerStanding, StateError> {
    // In this order, because the stream goes on: the other way round a consumer could seem ahead.
    let consumer = consumer_state(bus, stream, durable).await?;
    let stream = stream_state(bus, stream).await?;
    Ok(ConsumerStanding { delivered: consumer.delivered, last: stream.last_sequence })
}

impl ConsumerStanding {
    /// Whether it delivered what its stream does not have: the stream lost its end. It then receives nothing of what is
    /// newly accepted, and reports no backlog.
    pub fn is_ahead(&self) -> bool {
        self.delivered > self.last
    }
}

impl ConsumerState {
    /// How many messages wait to be acked: pending and un-acked.
    pub fn backlog(&self) -> u64 {
        self.pending.saturating_add(self.unacked)
    }
}

impl StateError {
    fn of(object: String, error: ApiError) -> StateError {
        match error {
            ApiError::Refused(refusal)
                if matches!(refusal.err_code, code::STREAM_NOT_FOUND | code::CONSUMER_NOT_FOUND) =>
            {
                StateError::NotFound { object }
            }
            ApiError::Request(RequestError::Denied) => StateError::Denied { object },
            other => StateError::Unavailable { object, source: other.into() },
        }
    }
}

#[derive(Deserialize)]
struct StreamInfo {
    #[serde(deserialize_with = "rfc3339")]
    created: OffsetDateTime,
    state: Sequences,
    config: Metadata,
}

#[derive(Deserialize)]
struct Sequences {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    #[serde(deserialize_with = "rfc3339")]
    first_ts: OffsetDateTime,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    delivered: Delivered,
    ack_floor: Delivered,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_ack_pending: u64,
}

impl From<ConsumerInfo> for ConsumerState {
    fn from(info: ConsumerInfo) -> Self {
        Self {
            delivered: info.delivered.stream_seq,
            delivered_count: info.delivered.consumer_seq,
            ack_floor: info.ack_floor.stream_seq,
            pending: info.num_pending,
            unacked: info.num_ack_pending,
        }
    }
}

#[derive(Deserialize)]
struct Delivered {
    consumer_seq: u64,
    stream_seq: u64,
}

pub(crate) fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
}
