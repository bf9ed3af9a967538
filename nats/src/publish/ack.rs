//! What JetStream answers to a publish, and what a publisher must do about it.

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use crate::bus::{Lost, SendError};

/// A message was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubAck {
    /// The stream that took it.
    pub stream: String,
    /// The sequence that it has there.
    pub sequence: u64,
    /// Whether the stream took it for one that it had already (by `Nats-Msg-Id`, which Roam never sets).
    pub duplicate: bool,
}

/// A message was not stored, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The stream, or the stream for this subject, is full: nothing was stored. Try again later.
    #[error("the stream is full (JetStream error {code})")]
    Busy {
        /// The error code of JetStream.
        code: u64,
    },
    /// No PubAck came while retries were allowed. Whether anything was stored is unknown.
    #[error("no PubAck came in time")]
    Unavailable {
        /// The reason of the last attempt.
        source: Failure,
    },
    /// The message exceeds what the server or the stream takes. Never try again.
    #[error("the message is larger than the server or the stream takes")]
    TooLarge,
    /// The server does not let us publish there.
    #[error("publishing is denied")]
    Denied,
    /// The stream refuses the message. Trying again does not help.
    #[error("the stream refuses: {text} (JetStream error {code})")]
    Refused {
        /// The error code of JetStream, 0 if it has none.
        code: u64,
        /// What the server says of it.
        text: String,
    },
    /// The connection was closed by us. Whether anything was stored is unknown.
    #[error("the connection is closed")]
    Closed,
}

/// Why one attempt brought no PubAck.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection is down.
    #[error("the connection is down")]
    Disconnected,
    /// No stream listens on the subject, or the one that does has no leader.
    #[error("no stream listens there")]
    NoStream,
    /// JetStream cannot store it now.
    #[error("{text} (JetStream error {code})")]
    Unable {
        /// The error code of JetStream.
        code: u64,
        /// What the server says of it.
        text: String,
    },
    /// The answer is none of JetStream's.
    #[error("the answer is malformed")]
    Malformed,
}

impl Failure {
    /// Whether the message may be stored all the same.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::NoStream)
    }
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Final(Result<PubAck, PublishError>),
    Again(Failure),
}

/// `err_code` of a stream that could not store a message. Measured with nats-server 2.15: a full stream answers with it
/// whichever limit is reached (`maximum messages exceeded`, `maximum messages per subject exceeded`, `maximum bytes
/// exceeded`), and only the text tells these from faults of the store.
const STORE_FAILED: u64 = 10_077;
/// `err_code` of a message beyond the stream's `max_msg_size`.
const MESSAGE_TOO_LARGE: u64 = 10_054;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

pub(super) fn judge(answer: Result<Message, Lost>) -> Verdict {
    match answer {
        Ok(message) if message.status == Some(StatusCode::NO_RESPONDERS) => Verdict::Again(Failure::NoStream),
        Ok(message) => read(&message.payload),
        Err(Lost::TimedOut) => Verdict::Again(Failure::TimedOut),
        Err(Lost::Denied) => Verdict::Final(Err(PublishError::Denied)),
        Err(Lost::Closed) => Verdict::Final(Err(PublishError::Closed)),
    }
}

/// What follows if the message could not even be handed to the connection.
pub(super) fn unsent(error: SendError) -> PublishError {
    match error {
        SendError::TooLarge { .. } => PublishError::TooLarge,
        SendError::Subject => PublishError::Refused { code: 0, text: error.to_string() },
        SendError::Denied => PublishError::Denied,
        SendError::TimedOut => PublishError::Unavailable { source: Failure::TimedOut },
        SendError::Closed => PublishError::Closed,
    }
}

fn read(payload: &[u8]) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<Answer>(payload) else { return Verdict::Again(Failure::Malformed) };
    match answer.error {
        Some(error) => refusal(error),
        None if answer.seq == 0 => Verdict::Again(Failure::Malformed),
        None => Verdict::Final(Ok(PubAck { stream: answer.stream, sequence: answer.seq, duplicate: answer.duplicate })),
    }
}

fn refusal(AnswerError { code: status, err_code: code, description: text }: AnswerError) -> Verdict {
    match code {
        STORE_FAILED if text.starts_with("maximum ") => Verdict::Final(Err(PublishError::Busy { code })),
        MESSAGE_TOO_LARGE => Verdict::Final(Err(PublishError::TooLarge)),
        // As in HTTP: the fault is the server's, or there is too much to do now.
        _ if status >= 500 || status == 429 => Verdict::Again(Failure::Unable { code, text }),
        _ => Verdict::Final(Err(PublishError::Refused { code, text })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn error(code: u16, err_code: u64, text: &str) -> String {
        format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{text}"}},"stream":"S","seq":0}}"#)
    }

    fn check(answer: &str, expect: &Verdict) {
        assert_eq!(&read(answer.as_bytes()), expect, "{answer}");
    }

    #[test]
    fn an_answer_of_jetstream_is_judged_by_what_can_be_done() {
        let ack = |duplicate| Verdict::Final(Ok(PubAck { stream: "S".to_owned(), sequence: 7, duplicate }));
        check(r#"{"stream":"S","seq":7}"#, &ack(false));
        check(r#"{"stream":"S","seq":7,"duplicate":true,"domain":"d"}"#, &ack(true));

        let busy = Verdict::Final(Err(PublishError::Busy { code: 10_077 }));
        check(&error(503, 10_077, "maximum messages exceeded"), &busy);
        check(&error(503, 10_077, "maximum messages per subject exceeded"), &busy);
        check(&error(503, 10_077, "maximum bytes exceeded"), &busy);

        let unable = |code, text: &str| Verdict::Again(Failure::Unable { code, text: text.to_owned() });
        check(&error(503, 10_077, "store is closed"), &unable(10_077, "store is closed"));
        check(&error(503, 10_008, "temporarily unavailable"), &unable(10_008, "temporarily unavailable"));
        check(&error(429, 10_167, "too many requests"), &unable(10_167, "too many requests"));

        check(
            &error(400, 10_054, "message size exceeds maximum allowed"),
            &Verdict::Final(Err(PublishError::TooLarge)),
        );
        let refused = PublishError::Refused { code: 10_060, text: "expected stream does not match".to_owned() };
        check(&error(400, 10_060, "expected stream does not match"), &Verdict::Final(Err(refused)));
    }

    #[test]
    fn an_answer_that_is_none_of_jetstreams_is_no_ack() {
        for answer in ["", "{}", "[]", r#"{"stream":"S"}"#, "nonsense", r#"{"stream":"S","seq":0}"#] {
            check(answer, &Verdict::Again(Failure::Malformed));
        }
    }
}
