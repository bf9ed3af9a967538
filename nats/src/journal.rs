//! Reading a stream from a sequence on, all of it and in order, as replicas do. The consumer behind it is made once and
//! never again: whatever casts doubt on the order ends the reader, and who reads decides where to begin anew.

use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::bus::{Bus, RequestError, SubscribeError};
use crate::consume::place::Place;
use crate::consume::pull::{Event, PullSettings, Puller};
use crate::message::Headers;
use crate::streams::Refusal;
use crate::streams::api::{self, ApiError, code};

/// How long the server may take to make the consumer. What is asked while the servers elect a leader is lost.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// After so long without a reader the server removes the consumer.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// How often the server gives a sign of life. After two without one the reader is lost, and its owner knows that it may be behind:
/// the server that had the consumer may be gone while all connections stand (seen with three servers of which one was killed).
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What may be on its way or wait to be taken. The bytes are twice the largest message and some: two pulls stand, and
/// each must have room for one.
const MAX_MESSAGES: usize = 4_000;
const MAX_BYTES: usize = 2 * (4 * 1024 * 1024 + 64 * 1024);

/// Reads a stream in order, each message once.
#[derive(Debug)]
pub struct JournalReader {
    puller: Puller,
    /// The number of the last delivery, counted by the consumer without gaps.
    consumer_sequence: u64,
    lost: Option<JournalLost>,
}

/// A message of the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The subject that it was published on.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream took it in, by the clock of its leader, in nanoseconds.
    pub published: OffsetDateTime,
}

/// A reader could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no such stream: provision, or find out who deleted it.
    #[error("stream {stream} does not exist")]
    NotFound {
        /// The stream.
        stream: String,
    },
    /// Nobody answered, or the cluster has no leader: try again later.
    #[error("nobody makes a reader of stream {stream}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refuses: the stream is not as it should be.
    #[error("a reader of stream {stream} is refused")]
    Refused {
        /// The stream.
        stream: String,
        /// What the server says.
        source: Refusal,
    },
    /// We may not make readers: mend the credentials.
    #[error("making readers of stream {stream} is denied")]
    Denied {
        /// The stream.
        stream: String,
    },
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

/// A reader came to its end. What it gave until then was complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the journal is lost: {reason}")]
pub struct JournalLost {
    /// Why.
    pub reason: LostReason,
}

/// Why a reader came to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// The server was silent for two heartbeats.
    #[error("the server is silent")]
    Silent,
    /// The connection was made anew, and what was on its way is gone.
    #[error("the connection was made anew")]
    Reconnected,
    /// The consumer is gone.
    #[error("its consumer is gone")]
    Deleted,
    /// A delivery is missing.
    #[error("delivery {expected} is missing, {found} came")]
    Gap {
        /// The number of the delivery that should have come.
        expected: u64,
        /// The number of the one that came.
        found: u64,
    },
    /// The server refuses our way of pulling.
    #[error("pulling is refused: {0}")]
    Refused(String),
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

#[derive(Serialize)]
struct Create<'a> {
    stream_name: &'a str,
    config: Config<'a>,
}

#[derive(Serialize)]
struct Config<'a> {
    name: &'a str,
    deliver_policy: &'static str,
    opt_start_seq: u64,
    ack_policy: &'static str,
    replay_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_subject: Option<&'a str>,
    headers_only: bool,
    mem_storage: bool,
    num_replicas: usize,
    /// In nanoseconds.
    inactive_threshold: u64,
}

/// Nothing of the answer is needed but that it is no error.
#[derive(Deserialize)]
struct Created {}

impl JournalReader {
    /// Makes a reader of a stream, or of the subjects of it that match the filter. The first entry is the one at
    /// `start_sequence`, or the first one after it that there is.
    pub async fn open(
        bus: &Bus,
        stream: &str,
        subject_filter: Option<&str>,
        start_sequence: u64,
    ) -> Result<Self, JournalError> {
        Self::open_as(bus, stream, (subject_filter, false), start_sequence).await
    }

    /// The same for all of a stream, without payloads: of each entry the size of its payload is told in the header
    /// `Nats-Msg-Size`, and the payload is empty.
    pub async fn open_headers(bus: &Bus, stream: &str, start_sequence: u64) -> Result<Self, JournalError> {
        Self::open_as(bus, stream, (None, true), start_sequence).await
    }

    async fn open_as(
        bus: &Bus,
        stream: &str,
        (subject_filter, headers_only): (Option<&str>, bool),
        start_sequence: u64,
    ) -> Result<Self, JournalError> {
        let inbox = bus.new_inbox();
        let name = inbox.rsplit('.').next().unwrap_or_default();
        let settings = PullSettings {
            max_messages: MAX_MESSAGES,
            max_bytes: Some(MAX_BYTES),
            heartbeat: HEARTBEAT,
            ..PullSettings::default()
        };
        // The puller remembers under which connection it began, so it comes before what belongs to that connection.
        let puller = Puller::open(bus, stream, name, settings, None).await.map_err(|error| match error {
            SubscribeError::Closed => JournalError::Closed,
            SubscribeError::Malformed => JournalError::NotFound { stream: stream.to_owned() },
        })?;
        create(bus, stream, name, (subject_filter, headers_only), start_sequence).await?;
        Ok(Self { puller, consumer_sequence: 0, lost: None })
    }

    /// The next entry. Once lost, always lost. Cancel-safe.
    pub async fn next(&mut self) -> Result<Entry, JournalLost> {
        loop {
            if let Some(lost) = &self.lost {
                return Err(lost.clone());
            }
            let event = self.puller.next().await;
            if let Some(entry) = self.read(event) {
                return Ok(entry);
            }
        }
    }

    /// The next entry if it is here already.
    pub fn next_ready(&mut self) -> Option<Entry> {
        while self.lost.is_none() {
            let event = self.puller.ready()?;
            if let Some(entry) = self.read(event) {
                return Some(entry);
            }
        }
        None
    }

    fn read(&mut self, event: Event) -> Option<Entry> {
        let reason = match event {
            Event::Message(message, _) => match self.in_order(message) {
                Ok(entry) => return Some(entry),
                Err(reason) => reason,
            },
            Event::Silent => LostReason::Silent,
            Event::Reconnected => LostReason::Reconnected,
            Event::Vacant | Event::Deleted => LostReason::Deleted,
            Event::Refused(text) => LostReason::Refused(text),
            Event::Closed => LostReason::Closed,
        };
        self.lost = Some(JournalLost { reason });
        None
    }

    fn in_order(&mut self, message: Message) -> Result<Entry, LostReason> {
        let expected = self.consumer_sequence + 1;
        let place = message.reply.as_deref().and_then(Place::parse);
        let published = place.and_then(|place| OffsetDateTime::from_unix_timestamp_nanos(place.published.into()).ok());
        let (Some(place), Some(published)) = (place, published) else {
            return Err(LostReason::Refused("a delivery says nothing of its place".to_owned()));
        };
        if place.consumer_sequence != expected {
            return Err(LostReason::Gap { expected, found: place.consumer_sequence });
        }
        self.consumer_sequence = expected;
        Ok(Entry {
            subject: message.subject.into_string(),
            headers: Headers::received(message.headers),
            payload: message.payload,
            sequence: place.stream_sequence,
            published,
        })
    }
}

async fn create(
    bus: &Bus,
    stream: &str,
    name: &str,
    (filter_subject, headers_only): (Option<&str>, bool),
    start_sequence: u64,
) -> Result<(), JournalError> {
    let config = Config {
        name,
        deliver_policy: "by_start_sequence",
        opt_start_seq: start_sequence.max(1),
        ack_policy: "none",
        replay_policy: "instant",
        filter_subject,
        headers_only,
        mem_storage: true,
        num_replicas: 1,
        inactive_threshold: u64::try_from(INACTIVE_THRESHOLD.as_nanos()).unwrap_or(u64::MAX),
    };
    // The server wants the filter in the subject too, so that permissions can be given for it.
    let filter = filter_subject.map(|filter| format!(".{filter}")).unwrap_or_default();
    let verb = format!("CONSUMER.CREATE.{stream}.{name}{filter}");
    let created = api::call::<Created>(bus, &verb, &Create { stream_name: stream, config }, OPEN_WITHIN).await;
    created.map(drop).map_err(|error| refused(stream.to_owned(), error))
}

fn refused(stream: String, error: ApiError) -> JournalError {
    match error {
        ApiError::Refused(refusal) => match refusal.err_code {
            code::STREAM_NOT_FOUND => JournalError::NotFound { stream },
            code::NO_SUITABLE_PEERS | code::TEMPORARILY_UNAVAILABLE => {
                JournalError::Unavailable { stream, source: refusal.into() }
            }
            _ => JournalError::Refused { stream, source: refusal },
        },
        ApiError::Request(RequestError::Denied) => JournalError::Denied { stream },
        ApiError::Request(RequestError::Closed) => JournalError::Closed,
        other => JournalError::Unavailable { stream, source: other.into() },
    }
}
