//! Single messages of a stream, asked for by sequence: no consumer is needed, and bytes that the library cannot read do no
//! harm, since the answer is JSON. Slow (a round trip each), so only for the few that are looked for.

use std::{str::FromStr, time::Duration};

use async_nats::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    StateError,
    api::{self, ApiError, code},
    rfc3339,
};
use crate::{Bus, Entry, Headers};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The next message of the stream from a sequence on.
#[derive(Serialize)]
struct Question<'a> {
    seq: u64,
    next_by_subj: &'a str,
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

/// The first message at or after a sequence whose subject matches; none if there is none.
pub(crate) async fn next_stored(
    bus: &Bus,
    stream: &str,
    subject: &str,
    sequence: u64,
) -> Result<Option<Stored>, ApiError> {
    let question = Question { seq: sequence, next_by_subj: subject };
    let mut stored = match api::call::<Answer>(bus, &format!("STREAM.MSG.GET.{stream}"), &question, ANSWER_WITHIN).await
    {
        Ok(answer) => answer.message,
        Err(ApiError::Refused(refusal)) if refusal.err_code == code::NO_MESSAGE => return Ok(None),
        Err(error) => return Err(error),
    };
    let headers = BASE64_STANDARD.decode(&stored.hdrs).unwrap_or_default();
    stored.headers = if headers.is_empty() { Some(HeaderMap::new()) } else { read_headers(&headers) };
    stored.hdrs = String::new();
    Ok(Some(stored))
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
