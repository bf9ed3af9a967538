//! Single messages of a stream, by their sequence: reading one, and deleting one. Goes by the JetStream API, whose answers
//! are JSON: bytes that the library cannot read (in a subject or in headers) do no harm here, and no stored header ever
//! becomes the header of an answer.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::api::{self, ApiError, Refusal, code};
use super::{StateError, rfc3339};
use crate::consume::unreadable::{is_subject, read_headers};
use crate::{Bus, Headers};

/// How long an answer may take: it may be a megabyte.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// The subject that it was published on; what is no text in it is replaced.
    pub subject: String,
    /// Its headers; none if they, or the subject, are such that no reader survives them.
    pub headers: Option<Headers>,
    /// Its payload.
    pub payload: Bytes,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream took it in.
    pub published: OffsetDateTime,
}

#[derive(Serialize)]
struct Question {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'static str>,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    #[serde(deserialize_with = "rfc3339")]
    time: OffsetDateTime,
}

#[derive(Serialize)]
struct Deletion {
    seq: u64,
    /// Not written over: only the message goes, as when a stream drops one by its limits.
    no_erase: bool,
}

#[derive(Deserialize)]
struct Deleted {}

/// The message at a sequence; none if there is none, or none any more. Takes the right `STREAM.MSG.GET`.
///
/// # Errors
/// See [`StateError`].
pub async fn stored_message(bus: &Bus, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, StateError> {
    ask(bus, stream, Question { seq: sequence, next_by_subj: None }).await
}

/// The first message at a sequence or after it; none beyond the last. Takes the right `STREAM.MSG.GET`.
///
/// # Errors
/// See [`StateError`].
pub async fn next_message(bus: &Bus, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, StateError> {
    ask(bus, stream, Question { seq: sequence, next_by_subj: Some(">") }).await
}

/// Deletes a message. One that is gone already is as good. Takes the right `STREAM.MSG.DELETE`.
///
/// # Errors
/// See [`StateError`].
pub async fn delete_message(bus: &Bus, stream: &str, sequence: u64) -> Result<(), StateError> {
    let deletion = Deletion { seq: sequence, no_erase: true };
    match api::call::<Deleted>(bus, &format!("STREAM.MSG.DELETE.{stream}"), &deletion, ANSWER_WITHIN).await {
        Ok(_) => Ok(()),
        Err(ApiError::Refused(refusal)) if is_gone(refusal.err_code) || is_missing(&refusal) => Ok(()),
        Err(error) => Err(StateError::of(format!("stream {stream}"), error)),
    }
}

async fn ask(bus: &Bus, stream: &str, question: Question) -> Result<Option<StoredMessage>, StateError> {
    match api::call::<Answer>(bus, &format!("STREAM.MSG.GET.{stream}"), &question, ANSWER_WITHIN).await {
        Ok(Answer { message }) => Ok(Some(message.into())),
        Err(ApiError::Refused(refusal)) if is_gone(refusal.err_code) => Ok(None),
        Err(error) => Err(StateError::of(format!("stream {stream}"), error)),
    }
}

/// The server tells a message that is not there from one that may not be deleted only in its text.
fn is_missing(refusal: &Refusal) -> bool {
    refusal.err_code == code::DELETE_FAILED && !refusal.description.contains("not permitted")
}

fn is_gone(err_code: u64) -> bool {
    matches!(err_code, code::NO_MESSAGE | code::SEQUENCE_NOT_FOUND)
}

impl From<Stored> for StoredMessage {
    fn from(stored: Stored) -> Self {
        let block = BASE64_STANDARD.decode(&stored.hdrs).unwrap_or_default();
        let headers = match block.is_empty() {
            true => Some(Headers::new()),
            false => read_headers(&block).map(|map| Headers::received(Some(map))),
        };
        Self {
            headers: headers.filter(|_| is_subject(&stored.subject)),
            subject: stored.subject,
            payload: Bytes::from(BASE64_STANDARD.decode(&stored.data).unwrap_or_default()),
            sequence: stored.seq,
            published: stored.time,
        }
    }
}
