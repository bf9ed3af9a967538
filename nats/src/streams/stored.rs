//! Single messages of a stream, by their sequence: reading one, and deleting one. No consumer is needed. The answers of the
//! JetStream API are JSON: bytes that the library cannot read (in a subject or in headers) do no harm here, and no stored
//! header ever becomes the header of an answer. Slow (a round trip each), so only for the few that are looked for.

use std::{str::FromStr, time::Duration};

use async_nats::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    StateError,
    api::{self, ApiError, Refusal, code},
    rfc3339,
};
use crate::{Bus, Entry, Headers, consume::unreadable::is_subject};

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

/// The message at a sequence, or the next one from there on whose subject matches.
#[derive(Serialize)]
struct Question<'a> {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

/// A message as the API tells it. Bytes of the subject that are no text are U+FFFD here.
#[derive(Deserialize)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    pub(crate) data: String,
    #[serde(deserialize_with = "rfc3339")]
    pub(crate) time: OffsetDateTime,
    /// The headers, unless they cannot be read.
    #[serde(skip)]
    pub(crate) headers: Option<HeaderMap>,
}

#[derive(Serialize)]
struct Deletion {
    seq: u64,
    /// Not written over: only the message goes, as when a stream drops one by its limits.
    no_erase: bool,
}

#[derive(Deserialize)]
struct Deleted {}

/// The first message at or after a sequence whose subject matches; none if there is none.
pub(crate) async fn next_stored(
    bus: &Bus,
    stream: &str,
    subject: &str,
    sequence: u64,
) -> Result<Option<Stored>, ApiError> {
    ask(bus, stream, Question { seq: sequence, next_by_subj: Some(subject) }).await
}

/// The message at a sequence; none if there is none, or none any more. Takes the right `STREAM.MSG.GET`.
///
/// # Errors
/// See [`StateError`].
pub async fn stored_message(bus: &Bus, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, StateError> {
    message(stream, ask(bus, stream, Question { seq: sequence, next_by_subj: None }).await)
}

/// The first message at a sequence or after it; none beyond the last. Takes the right `STREAM.MSG.GET`.
///
/// # Errors
/// See [`StateError`].
pub async fn next_message(bus: &Bus, stream: &str, sequence: u64) -> Result<Option<StoredMessage>, StateError> {
    message(stream, next_stored(bus, stream, ">", sequence).await)
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

fn message(stream: &str, stored: Result<Option<Stored>, ApiError>) -> Result<Option<StoredMessage>, StateError> {
    let stored = stored.map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    Ok(stored.map(StoredMessage::from))
}

async fn ask(bus: &Bus, stream: &str, question: Question<'_>) -> Result<Option<Stored>, ApiError> {
    let answer = api::call::<Answer>(bus, &format!("STREAM.MSG.GET.{stream}"), &question, ANSWER_WITHIN).await;
    let mut stored = match answer {
        Ok(answer) => answer.message,
        Err(ApiError::Refused(refusal)) if is_gone(refusal.err_code) => return Ok(None),
        Err(error) => return Err(error),
    };
    let headers = BASE64_STANDARD.decode(&stored.hdrs).unwrap_or_default();
    stored.headers = if headers.is_empty() { Some(HeaderMap::new()) } else { read_headers(&headers) };
    stored.hdrs = String::new();
    Ok(Some(stored))
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
        let headers = stored.headers.filter(|_| is_subject(&stored.subject));
        Self {
            headers: headers.map(|map| Headers::received(Some(map))),
            subject: stored.subject,
            payload: Bytes::from(BASE64_STANDARD.decode(&stored.data).unwrap_or_default()),
            sequence: stored.seq,
            published: stored.time,
        }
    }
}

/// The first entry of a stream at or after a sequence whose subject matches; none if there is none.
pub async fn next_entry(bus: &Bus, stream: &str, subject: &str, sequence: u64) -> Result<Option<Entry>, StateError> {
    let stored = next_stored(bus, stream, subject, sequence).await;
    let stored = stored.map_err(|error| StateError::of(format!("stream {stream}"), error))?;
    Ok(stored.map(|stored| Entry {
        headers: Headers::received(stored.headers),
        payload: BASE64_STANDARD.decode(&stored.data).unwrap_or_default().into(),
        subject: stored.subject,
        sequence: stored.seq,
        published: stored.time,
    }))
}

/// Headers as the library reads them; none where it does not.
fn read_headers(block: &[u8]) -> Option<HeaderMap> {
    let mut lines = str::from_utf8(block).ok()?.lines().peekable();
    let status = lines.next()?.strip_prefix("NATS/1.0")?.trim().split(' ').next()?;
    if !status.is_empty() {
        StatusCode::from_str(status).ok()?;
    }
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        headers.append(HeaderName::from_str(name).ok()?, HeaderValue::from_str(value.trim_end()).ok()?);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_reads_is_told_from_what_it_does_not() {
        let readable: [&[u8]; 6] = [
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0\r\nContent-Type: application/json\r\n\r\n",
            b"NATS/1.0\r\nA:1\r\nA: 2\r\n\r\n",
            b"NATS/1.0\r\nA: folded\r\n  further\r\n\r\n",
            b"NATS/1.0 503 No Responders\r\n\r\n",
            b"NATS/1.0\r\nA: \xc3\xa9\r\n\r\n",
        ];
        let unreadable: [&[u8]; 7] = [
            b"NATS/1.0\r\nA: \xff\r\n\r\n",
            b"NATS/1.0\r\nA: a\rb\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\nno name here: 1\r\n\r\n",
            b"NATS/1.0 rubbish\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"\xff",
        ];
        for block in readable {
            assert!(read_headers(block).is_some(), "{}", block.escape_ascii());
        }
        for block in unreadable {
            assert!(read_headers(block).is_none(), "{}", block.escape_ascii());
        }
    }
}
