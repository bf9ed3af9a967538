//! Stamp: attaches the time and the origin, which are the same on every redelivery and whichever server handles it. No
//! clock is read here: the time is the instant at which ROAM_CHANGES took the change in.

use std::time::Instant;

use roam_nats::AckDuty;
use roam_schemas::{Change, Origin, Profile, Stamp, StampedChange, Timestamp, User};
use time::OffsetDateTime;

use crate::{planted::planted, validate::Validated};

/// The stamped changes of a delivery with the duty to ack it once they are in the journal.
///
/// `D` is that duty; tests put something plainer in its place.
pub(crate) struct Stamped<D = AckDuty> {
    /// What is acked.
    pub(crate) duty: D,
    /// When the delivery came, at the latest.
    pub(crate) received_at: Instant,
    /// The changes, in order: one, or those of a bulk, which all have the same stamp.
    pub(crate) changes: Vec<StampedChange>,
    /// The size of the payload that they came in, in bytes.
    pub(crate) bytes: usize,
}

/// Stamps what was delivered by ROAM_CHANGES in this incarnation.
pub(crate) fn stamp(validated: Validated, incarnation: u64) -> Stamped {
    let (delivery, device, encoding, changes) = validated.into_parts();
    let stamp = Stamp {
        time: Timestamp::from_nanos(nanos(delivery.published)),
        origin: Origin { incarnation, sequence: delivery.stream_sequence },
    };
    let another =
        User::parse("user-1").ok().filter(|_| planted("profile-mixed-up") && stamp.origin.sequence.is_multiple_of(50));
    let stamped = |(profile, change): (Profile, Change)| {
        let profile = Profile { user: another.clone().unwrap_or(profile.user), ..profile };
        StampedChange { profile, device: device.clone(), encoding, stamp, digest: change.digest(), change }
    };
    let changes = changes.into_iter().map(stamped).collect();
    Stamped { duty: delivery.duty, received_at: delivery.received_at, changes, bytes: delivery.message.payload.len() }
}

/// The incarnation of ROAM_CHANGES, and whether what is known of it can still be trusted.
#[derive(Debug)]
pub(crate) struct Incarnation {
    nanos: u64,
    /// The connection's generation when it was read.
    generation: u64,
    /// The highest sequence that was delivered for the first time.
    newest: u64,
}

impl Incarnation {
    /// As just read over a connection of this generation. `created` is when the stream was created.
    pub(crate) fn read(created: OffsetDateTime, generation: u64) -> Self {
        Self { nanos: nanos(created), generation, newest: 0 }
    }

    /// When the stream was created, in nanoseconds since the Unix epoch.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos
    }

    /// Takes note of the sequence of a delivery, and of how often it was delivered. Whether the stream may be another
    /// one by now: the connection was made anew, or a first delivery does not come after those before it.
    pub(crate) fn is_in_doubt(&mut self, generation: u64, sequence: u64, delivered: u64) -> bool {
        let first = delivered <= 1;
        let goes_back = first && sequence <= self.newest;
        if first {
            self.newest = self.newest.max(sequence);
        }
        goes_back || generation != self.generation
    }
}

/// Nanoseconds since the Unix epoch. JetStream's times lie between 1970 and 2554, like every [`Timestamp`].
fn nanos(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation() -> Incarnation {
        Incarnation::read(OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(1_234_567_891), 1)
    }

    #[test]
    fn the_incarnation_is_the_creation_to_the_nanosecond() {
        assert_eq!(incarnation().nanos(), 1_234_567_891);
    }

    #[test]
    fn an_incarnation_is_trusted_while_first_deliveries_rise() {
        let mut known = incarnation();
        for (sequence, delivered) in [(5, 1), (6, 1), (2, 3), (6, 2), (9, 1)] {
            assert!(!known.is_in_doubt(1, sequence, delivered), "{sequence} delivered {delivered} times");
        }
    }

    #[test]
    fn a_first_delivery_that_goes_back_puts_the_incarnation_in_doubt() {
        let mut known = incarnation();
        assert!(!known.is_in_doubt(1, 5, 1));
        assert!(known.is_in_doubt(1, 5, 1));
        assert!(known.is_in_doubt(1, 1, 1));
    }

    #[test]
    fn a_new_connection_puts_the_incarnation_in_doubt() {
        assert!(incarnation().is_in_doubt(2, 1, 1));
    }
}
