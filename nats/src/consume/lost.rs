//! What a consumer delivered and what never arrived: it was on its way over a connection that is gone, or from a leader of the
//! consumer that is gone. The next leader takes it for delivered, and would wait for `ack_wait` from the moment it leads. Nothing here
//! reads a message: it is told by its sequence.

use async_nats::Subject;

use super::delivery::AckDuty;
use crate::bus::Bus;
use crate::streams::{ConsumerState, StateError, consumer_state};

/// Naks all that the consumer delivered after the newest that came here. (What is on its way at this moment comes twice then, and so
/// does what another reader of the consumer has in hand.)
pub(super) async fn give_back(bus: &Bus, stream: &str, durable: &str, newest: u64) -> Result<(), StateError> {
    let state = consumer_state(bus, stream, durable).await?;
    let first = newest.max(state.ack_floor) + 1;
    for sequence in first..=state.delivered {
        duty(bus, (stream, durable), &state, (sequence, 0)).nak(None);
    }
    Ok(())
}

/// The duty to settle a message that the consumer delivered, given its sequence in the stream and when that took it in, in
/// nanoseconds since the epoch. To settle one again is void.
pub(super) fn duty(
    bus: &Bus,
    (stream, durable): (&str, &str),
    state: &ConsumerState,
    (sequence, nanos): (u64, i128),
) -> AckDuty {
    // The server goes by the sequence, and wants the number of the delivery to be one that it has made.
    let ConsumerState { delivered_count, pending, .. } = state;
    let acks = format!("$JS.ACK.{stream}.{durable}.1.{sequence}.{delivered_count}.{nanos}.{pending}");
    AckDuty::new(Subject::from(acks), bus.acks())
}
