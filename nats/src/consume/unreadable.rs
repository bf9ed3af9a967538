//! Messages that the library cannot read. nats-server passes on whatever bytes a publisher puts into a subject or into
//! headers; the library (async-nats 0.51) ends the connection at those that are no text, and dies of a carriage return
//! within a header. Such a message is never seen, only that a connection is lost, and it comes again with each
//! redelivery. So after a loss they are looked for where bytes cannot hurt, in answers of the JetStream API (JSON and
//! base64). Each becomes a delivery as good as any, with what of it is text; whoever reads settles it.

use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;

use super::delivery::Delivery;
use super::lost;
use crate::bus::Bus;
use crate::message::{Headers, Message};
use crate::streams::api::ApiError;
use crate::streams::stored::{Stored, next_stored};
use crate::streams::{ConsumerState, StateError, consumer_state};

/// How many messages are asked for at a time.
const LANES: u64 = 16;

/// They could not be looked for: the stream or the consumer has no leader now, or somebody may not ask.
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
    let found: Vec<Delivered> = try_join_all(lanes).await?.into_iter().flatten().collect();
    // From here on nothing is waited for: a delivery that is dropped is nacked.
    let first = found.iter().find(|found| !found.readable).map_or(u64::MAX, |found| found.stored.seq);
    let (readable, unreadable): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.readable);
    let lost = readable.into_iter().filter(|found| found.stored.seq > first.min(newest));
    lost.for_each(|found| search.delivery(found.stored).nak(None));
    Ok(unreadable.into_iter().map(|found| search.delivery(found.stored)).collect())
}

struct Search<'a> {
    bus: &'a Bus,
    stream: &'a str,
    durable: &'a str,
    state: ConsumerState,
}

/// A message that the consumer delivered.
struct Delivered {
    stored: Stored,
    readable: bool,
}

impl Search<'_> {
    /// What the stream still holds between two sequences, both included. What was settled is gone, or does no harm: to
    /// settle it again is void.
    async fn lane(&self, first: u64, last: u64) -> Result<Vec<Delivered>, ApiError> {
        let mut found = Vec::new();
        let mut next = first;
        while next <= last {
            let stored = next_stored(self.bus, self.stream, ">", next).await?;
            let Some(mut stored) = stored.filter(|stored| stored.seq <= last) else {
                break;
            };
            next = stored.seq + 1;
            let readable = is_subject(&stored.subject) && stored.headers.is_some();
            if readable {
                // Nothing but its place is needed of it.
                (stored.subject, stored.data, stored.headers) = Default::default();
            }
            found.push(Delivered { stored, readable });
        }
        Ok(found)
    }

    fn delivery(&self, stored: Stored) -> Delivery {
        let (sequence, nanos) = (stored.seq, stored.time.unix_timestamp_nanos());
        let duty = lost::duty(self.bus, (self.stream, self.durable), &self.state, (sequence, nanos));
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
            pending: self.state.pending,
            published: stored.time,
            received_at: Instant::now(),
            duty,
        }
    }
}

/// Whether the library reads such a subject.
pub(crate) fn is_subject(subject: &str) -> bool {
    !subject.contains(|sign: char| sign == char::REPLACEMENT_CHARACTER || sign.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_in_a_subject_is_told_from_what_is() {
        for (subject, read) in [("a.b", true), ("a.\u{e9}", true), ("a.\u{fffd}", false), ("a.\u{a0}b", false)] {
            assert_eq!(is_subject(subject), read, "{subject:?}");
        }
    }
}
