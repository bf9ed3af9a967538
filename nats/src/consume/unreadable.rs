//! Messages that the library cannot read. nats-server passes on whatever bytes a publisher puts into a subject or into
//! headers; the library (async-nats 0.51) ends the connection at those that are no text, and dies of a carriage return
//! within a header. Such a message is never seen, only that a connection is lost, and it comes again with each
//! redelivery. So after a loss they are looked for where bytes cannot hurt, in answers of the JetStream API (JSON and
//! base64). Each becomes a delivery as good as any, with what of it is text; whoever reads settles it.

use std::str::FromStr;
use std::time::{Duration, Instant};

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::{StatusCode, Subject};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::delivery::{AckDuty, Delivery};
use crate::bus::Bus;
use crate::message::{Headers, Message};
use crate::streams::api::{self, ApiError, code};
use crate::streams::{ConsumerState, StateError, consumer_state, rfc3339};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How many messages are asked for at a time.
const LANES: u64 = 16;

/// They could not be looked for: the next redelivery makes another occasion.
#[derive(Debug, thiserror::Error)]
pub(super) enum SearchError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("a message cannot be asked for")]
    Message(#[from] ApiError),
}

/// Looks through all that the consumer delivered, and that is not settled. What cannot be read is returned. What was
/// delivered later than the first of these, or than the newest that came here, was perhaps lost with the connection: it is
/// nacked, and need not wait for `ack_wait`. (Another reader of the consumer may be at work on some of that, and will
/// then see it twice.)
pub(super) async fn search(bus: &Bus, stream: &str, durable: &str, newest: u64) -> Result<Vec<Delivery>, SearchError> {
    let state = consumer_state(bus, stream, durable).await?;
    if state.unacked == 0 {
        return Ok(Vec::new());
    }
    let search = Search { bus, stream, durable, state };
    let (first, last) = (state.ack_floor + 1, state.delivered);
    let stride = (last + 1).saturating_sub(first).div_ceil(LANES).max(1);
    let lanes = (0..LANES).map(|lane| first + lane * stride).map(|from| search.lane(from, last.min(from + stride - 1)));
    let stored: Vec<Stored> = try_join_all(lanes).await?.into_iter().flatten().collect();
    // From here on nothing is waited for: a delivery that is dropped is nacked.
    let first = stored.iter().find(|stored| !stored.readable).map_or(u64::MAX, |stored| stored.seq);
    let (readable, unreadable): (Vec<_>, Vec<_>) = stored.into_iter().partition(|stored| stored.readable);
    let lost = readable.into_iter().filter(|stored| stored.seq > first.min(newest));
    lost.for_each(|stored| search.delivery(stored).nak(None));
    Ok(unreadable.into_iter().map(|stored| search.delivery(stored)).collect())
}

struct Search<'a> {
    bus: &'a Bus,
    stream: &'a str,
    durable: &'a str,
    state: ConsumerState,
}

/// The next message of the stream from a sequence on.
#[derive(Serialize)]
struct Question {
    seq: u64,
    next_by_subj: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    message: Stored,
}

/// A message as the API tells it. Bytes of the subject that are no text are U+FFFD here.
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
    /// The headers, unless they cannot be read.
    #[serde(skip)]
    headers: Option<HeaderMap>,
    #[serde(skip)]
    readable: bool,
}

impl Search<'_> {
    /// What the stream still holds between two sequences, both included. What was settled is gone, or does no harm: to
    /// settle it again is void.
    async fn lane(&self, first: u64, last: u64) -> Result<Vec<Stored>, ApiError> {
        let mut found = Vec::new();
        let mut next = first;
        while next <= last {
            let question = Question { seq: next, next_by_subj: ">" };
            let verb = format!("STREAM.MSG.GET.{}", self.stream);
            let mut stored = match api::call::<Answer>(self.bus, &verb, &question, ANSWER_WITHIN).await {
                Ok(answer) => answer.message,
                Err(ApiError::Refused(refusal)) if refusal.err_code == code::NO_MESSAGE => break,
                Err(error) => return Err(error),
            };
            if stored.seq > last {
                break;
            }
            next = stored.seq + 1;
            let headers = BASE64_STANDARD.decode(&stored.hdrs).unwrap_or_default();
            stored.headers = if headers.is_empty() { Some(HeaderMap::new()) } else { read_headers(&headers) };
            stored.readable = is_subject(&stored.subject) && stored.headers.is_some();
            if stored.readable {
                // Nothing but its place is needed of it.
                (stored.subject, stored.data, stored.headers) = Default::default();
            }
            stored.hdrs = String::new();
            found.push(stored);
        }
        Ok(found)
    }

    fn delivery(&self, stored: Stored) -> Delivery {
        let ConsumerState { delivered_count, pending, .. } = self.state;
        let Self { stream, durable, .. } = self;
        // The server goes by the sequence, and wants the number of the delivery to be one that it has made.
        let (sequence, nanos) = (stored.seq, stored.time.unix_timestamp_nanos());
        let acks = format!("$JS.ACK.{stream}.{durable}.1.{sequence}.{delivered_count}.{nanos}.{pending}");
        let payload = BASE64_STANDARD.decode(&stored.data).unwrap_or_default();
        Delivery {
            message: Message {
                subject: stored.subject,
                reply: None,
                headers: Headers::received(stored.headers),
                payload: Bytes::from(payload),
            },
            stream_sequence: sequence,
            delivered: 1,
            pending,
            published: stored.time,
            received_at: Instant::now(),
            duty: AckDuty::new(Subject::from(acks), self.bus.acks()),
        }
    }
}

/// Whether the library reads such a subject.
pub(crate) fn is_subject(subject: &str) -> bool {
    !subject.contains(|sign: char| sign == char::REPLACEMENT_CHARACTER || sign.is_whitespace())
}

/// Headers as the library reads them; none where it does not.
pub(crate) fn read_headers(block: &[u8]) -> Option<HeaderMap> {
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
        for (subject, read) in [("a.b", true), ("a.\u{e9}", true), ("a.\u{fffd}", false), ("a.\u{a0}b", false)] {
            assert_eq!(is_subject(subject), read, "{subject:?}");
        }
    }
}
