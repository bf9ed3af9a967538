//! One delivered message, and the duty to say what became of it.

use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;
use time::OffsetDateTime;

use super::place::Place;
use crate::bus::AckSender;
use crate::message::{Headers, Message};

const ACK: &[u8] = b"+ACK";
const NAK: &[u8] = b"-NAK";
const TERM: &[u8] = b"+TERM";
const IN_PROGRESS: &[u8] = b"+WPI";

/// A message delivered by a durable consumer. It is settled by value: [`Self::ack`], [`Self::nak`] or [`Self::term`]. One
/// that is dropped is nacked, so that nothing is forgotten by mistake.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is nacked"]
pub struct Delivery {
    /// The message. Its `reply` is always `None`: who published it cannot name one that survives the stream.
    pub message: Message,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// How often it was delivered, this time included: 1 for the first time.
    pub delivered: u64,
    /// How many messages the consumer had yet to deliver for the first time, after this one.
    pub pending: u64,
    /// When the stream took it in, by the clock of its leader, in nanoseconds. The same on each redelivery.
    pub published: OffsetDateTime,
    /// No later than when it reached this process, so that `ack_wait` is not over before it seems to be.
    pub received_at: Instant,
    /// The duty to settle it, for whoever lets go of the message earlier.
    pub duty: AckDuty,
}

impl Delivery {
    /// Never deliver it again.
    pub fn ack(self) {
        self.duty.ack();
    }

    /// Deliver it again, at the earliest after `delay`.
    pub fn nak(self, delay: Option<Duration>) {
        self.duty.nak(delay);
    }

    /// Never deliver it again, although it was not processed.
    pub fn term(self) {
        self.duty.term();
    }

    /// It is being worked on: the consumer's `ack_wait` begins anew.
    pub fn in_progress(&self) {
        self.duty.in_progress();
    }

    /// `None` if the message carries no reply subject of JetStream.
    pub(super) fn new(message: async_nats::Message, received_at: Instant, acks: &AckSender) -> Option<Self> {
        let reply = message.reply?;
        let place = Place::parse(&reply)?;
        Some(Self {
            message: Message {
                subject: message.subject.into_string(),
                reply: None,
                headers: Headers::received(message.headers),
                payload: message.payload,
            },
            stream_sequence: place.stream_sequence,
            delivered: place.delivered,
            pending: place.pending,
            published: OffsetDateTime::from_unix_timestamp_nanos(place.published.into()).ok()?,
            received_at,
            duty: AckDuty::new(reply, acks),
        })
    }

    /// What it takes of a bound on bytes: subject and payload.
    pub(super) fn size(&self) -> usize {
        self.message.subject.len() + self.message.payload.len()
    }
}

/// The duty to settle one delivery. Dropping it naks.
#[derive(Debug)]
#[must_use = "a delivery whose duty is dropped is nacked"]
pub struct AckDuty {
    /// Where acks go. `None` once it is settled.
    subject: Option<Subject>,
    acks: AckSender,
}

impl AckDuty {
    pub(super) fn new(subject: Subject, acks: &AckSender) -> Self {
        Self { subject: Some(subject), acks: acks.clone() }
    }

    /// Never deliver it again.
    pub fn ack(mut self) {
        self.settle(Bytes::from_static(ACK));
    }

    /// Deliver it again, at the earliest after `delay`.
    pub fn nak(mut self, delay: Option<Duration>) {
        self.settle(match delay {
            None => Bytes::from_static(NAK),
            Some(delay) => Bytes::from(format!("-NAK {{\"delay\": {}}}", delay.as_nanos())),
        });
    }

    /// Never deliver it again, although it was not processed.
    pub fn term(mut self) {
        self.settle(Bytes::from_static(TERM));
    }

    /// It is being worked on: the consumer's `ack_wait` begins anew.
    pub fn in_progress(&self) {
        if let Some(subject) = &self.subject {
            self.acks.send(subject.clone(), Bytes::from_static(IN_PROGRESS));
        }
    }

    fn settle(&mut self, payload: Bytes) {
        if let Some(subject) = self.subject.take() {
            self.acks.send(subject, payload);
        }
    }
}

impl Drop for AckDuty {
    fn drop(&mut self) {
        self.settle(Bytes::from_static(NAK));
    }
}
