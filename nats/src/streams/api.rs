//! One request to the JetStream API and its answer. Never tries again: whoever asks knows whether that helps.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Bus, Headers, RequestError};

/// `err_code` of answers of the JetStream API (`server/errors.json` of nats-server).
pub(crate) mod code {
    /// No server of the cluster fits just now, as while one of them starts.
    pub(crate) const NO_SUITABLE_PEERS: u64 = 10_005;
    /// The cluster has no leader just now.
    pub(crate) const TEMPORARILY_UNAVAILABLE: u64 = 10_008;
    /// There is no such consumer.
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
    /// There is no such message.
    pub(crate) const NO_MESSAGE: u64 = 10_037;
    /// There is no message at that sequence.
    pub(crate) const SEQUENCE_NOT_FOUND: u64 = 10_043;
    /// The server has no room left for what was asked for: of its disk, or of what it may take of it.
    pub(crate) const NO_RESOURCES: u64 = 10_023;
    /// The same of the disk alone.
    pub(crate) const NO_STORAGE: u64 = 10_047;
    /// A message could not be deleted.
    pub(crate) const DELETE_FAILED: u64 = 10_057;
    /// There is no such stream.
    pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
}

/// A request to the JetStream API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// It was not answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It was answered with an error.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was answered, and not understood.
    #[error("JetStream's answer is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// An error that JetStream answered with, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} (JetStream error {err_code})")]
pub struct Refusal {
    /// Which error: `err_code` of the JetStream API.
    #[serde(default)]
    pub err_code: u64,
    /// What the server says of it.
    #[serde(default)]
    pub description: String,
}

/// An answer: either has `error`, or the fields of what was asked for.
#[derive(Deserialize)]
struct Outcome {
    error: Option<Refusal>,
}

/// Asks `$JS.API.<subject>`.
pub(crate) async fn call<T: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    body: &(impl Serialize + ?Sized),
    within: Duration,
) -> Result<T, ApiError> {
    let payload = Bytes::from(serde_json::to_vec(body)?);
    let answer = bus.request(format!("$JS.API.{subject}"), Headers::new(), payload, within).await?;
    let outcome: Outcome = serde_json::from_slice(&answer.payload)?;
    match outcome.error {
        Some(refusal) => Err(ApiError::Refused(refusal)),
        None => Ok(serde_json::from_slice(&answer.payload)?),
    }
}
