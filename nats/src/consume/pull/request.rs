//! What is asked for when a consumer is pulled: the settings, and the body of the request.

use std::time::Duration;

use async_nats::Message;
use async_nats::header::NATS_PIN_ID;
use bytes::Bytes;
use serde::Serialize;

/// How many pulls stand at a time, if more than one message is wanted.
pub(super) const PULLS: usize = 2;

/// How a consumer is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSettings {
    /// How many messages may be on their way or waiting to be taken. 0 pulls nothing.
    pub max_messages: usize,
    /// How many bytes of them, if they are bounded. A message of more than half of it never comes.
    pub max_bytes: Option<usize>,
    /// How long a pull stands at the server.
    pub expires: Duration,
    /// How often the server gives a sign of life while it has nothing to deliver; at most a half of `expires`. After two
    /// without one the pulls count as lost.
    pub heartbeat: Duration,
    /// Whether anybody may publish into the stream, and so also what the library cannot read: after the connection was
    /// lost such messages are looked for, and delivered with what of them is text. Needs the right to
    /// `$JS.API.STREAM.MSG.GET.<stream>`.
    pub untrusted: bool,
}

impl Default for PullSettings {
    /// 1,000 messages; five seconds; two seconds; trusted.
    fn default() -> Self {
        Self {
            max_messages: 1_000,
            max_bytes: None,
            expires: Duration::from_secs(5),
            heartbeat: Duration::from_secs(2),
            untrusted: false,
        }
    }
}

/// The priority group in which a consumer with `pinned_client` is pulled, and our pin while we hold it.
#[derive(Debug)]
pub(crate) struct Group {
    name: &'static str,
    pin: Option<String>,
}

impl Group {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, pin: None }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    pub(super) fn lose_pin(&mut self) {
        self.pin = None;
    }

    /// The first delivery to a reader that was pinned says so.
    pub(super) fn read_pin(&mut self, message: &Message) {
        let Some(pin) = message.headers.as_ref().and_then(|headers| headers.get(NATS_PIN_ID)) else { return };
        if self.pin.as_deref() != Some(pin.as_str()) {
            self.pin = Some(pin.as_str().to_owned());
        }
    }
}

/// The body of a pull, as the JetStream API has it.
#[derive(Serialize)]
struct Request<'a> {
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
    /// In nanoseconds, as `idle_heartbeat`.
    expires: u64,
    idle_heartbeat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl PullSettings {
    /// How many messages one pull asks for.
    pub(super) fn batch(&self) -> usize {
        (self.max_messages / PULLS).max(1)
    }

    /// The body of one pull.
    pub(super) fn request(&self, group: Option<&Group>) -> Bytes {
        let request = Request {
            batch: self.batch(),
            max_bytes: self.max_bytes.map(|bytes| (bytes / PULLS).max(1)),
            expires: nanoseconds(self.expires),
            idle_heartbeat: nanoseconds(self.heartbeat),
            group: group.map(|group| group.name),
            id: group.and_then(|group| group.pin.as_deref()),
        };
        // Plain numbers and strings always serialise.
        Bytes::from(serde_json::to_vec(&request).unwrap_or_default())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
