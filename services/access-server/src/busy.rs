//! Busy: tells a publisher that a change was not decided because its user is over the rate. Whoever tells has room for all
//! that is taken from the stream at once ([`Throttle::room`]), so nothing leaves it unsaid, and nothing comes again for want
//! of room.
//!
//! **`busy` is said only of what is in no journal.** What is delivered again may be in one: its batch was appended, and the
//! ack got lost. So only a first delivery is charged and may be turned away; what comes again is let through as it is. What comes
//! again was let through before, and charged then (it was not appended, or not acked, or refused and not filed); or no server looked
//! at it (it got lost, came too late, or was pulled by one that stopped). That takes trouble of which a user can make one kind: a
//! message that no connection survives. What was pulled behind it, 2,000 changes at most, then comes again uncharged.
//!
//! What nobody can see here: that a delivery which waited in this process was given to another server meanwhile, as after that one
//! lost its connection, or that the consumer was made anew. `busy` may then be said of a change that is saved; its own receipt comes too.

use std::{
    convert::Infallible,
    error::Error,
    time::{Duration, Instant},
};

use roam_nats::{Bus, Delivery, Headers};
use roam_schemas::{
    ChangeId, Code, Encoding, Outcome, Problem, Receipt, Shard, encode, limits::BATCH_CHANGES, subjects,
};
use tokio::sync::mpsc;

use crate::{
    metrics::Metrics,
    rate::Rates,
    validate::{Invalid, Sender, Validated},
};

/// How many deliveries wait at most whose publishers are to be told: as many as are taken at once, and as many that are
/// being worked off.
const QUEUE: usize = 2 * BATCH_CHANGES;
/// How long until a delivery comes again that nobody can tell of.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets changes through, or turns them away.
pub(crate) struct Throttle {
    shard: Shard,
    rates: Rates,
    queue: mpsc::Sender<Told>,
    metrics: Metrics,
}

/// Sends receipts.
pub(crate) struct Teller {
    queue: mpsc::Receiver<Told>,
    bus: Bus,
}

/// Whom to tell about which changes of a delivery.
struct Told {
    encoding: Encoding,
    sequence: u64,
    /// Without an id if it was not decoded: the sequence is enough to match it then.
    to: Vec<(Sender, Option<ChangeId>)>,
}

/// The one who decides and the one who tells.
pub(crate) fn throttle(shard: Shard, rates: Rates, bus: &Bus, metrics: &Metrics) -> (Throttle, Teller) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Throttle { shard, rates, queue: sender, metrics: metrics.clone() }, Teller { queue: receiver, bus: bus.clone() })
}

impl Throttle {
    /// Returns once as many deliveries as are taken at once could all be turned away. Receipts leave over the connection
    /// that says whether anything may be pulled, so what holds them up holds up pulling as well.
    pub(crate) async fn room(&self) {
        // Where nobody tells any more, there is none to wait for.
        let _ = self.queue.reserve_many(BATCH_CHANGES).await;
    }

    /// The delivery again if its user is within the rate, if it comes again, or if it says not whose it is: what is wrong
    /// with it is looked at elsewhere. Otherwise it leaves the stream, undecided. Nothing is decoded for that.
    pub(crate) fn admit(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(encoding) = delivery.message.headers.encoding() else { return Some(delivery) };
        let Ok((profile, device)) = subjects::parse_change(self.shard, &delivery.message.subject) else {
            return Some(delivery);
        };
        if comes_again(&delivery) || self.rates.take(&profile, &device, Instant::now()) {
            return Some(delivery);
        }
        self.turn_away(delivery, encoding, vec![(Sender::Of(profile, device), None)]);
        None
    }

    /// A bulk again if all its users are within the rate, or if it comes again. Otherwise it leaves the stream whole and
    /// undecided: were a part of it decided, a redelivery could decide what was said to be not. Whoever sent it sends each
    /// change by itself then.
    pub(crate) fn admit_bulk(&mut self, bulk: Validated) -> Option<Validated> {
        if comes_again(bulk.delivery()) {
            return Some(bulk);
        }
        let (device, encoding) = bulk.written();
        let now = Instant::now();
        // Each user pays, whoever of them is over: as if the changes had come singly.
        let over = bulk.each().filter(|(profile, _)| !self.rates.take(profile, device, now)).count();
        if over == 0 {
            return Some(bulk);
        }
        let to = bulk.each().map(|(profile, id)| (Sender::Of(profile.clone(), device.clone()), Some(id))).collect();
        self.turn_away(bulk.into_parts().0, encoding, to);
        None
    }

    /// What is refused again if whoever published it is within the rate, too; it is not filed otherwise. Who names a user was
    /// charged for it already. The others may have a new subject for each, which no bound of the stream counts, and would
    /// fill all that may be un-acked with what waits to be filed.
    pub(crate) fn admit_refused(&mut self, invalid: Invalid) -> Option<Invalid> {
        let Invalid { delivery, refusal } = &invalid;
        if comes_again(delivery) || matches!(refusal.sender, Some(Sender::Of(..))) {
            return Some(invalid);
        }
        let publisher = subjects::publisher_of_change(self.shard, &delivery.message.subject).unwrap_or_default();
        if self.rates.take_nameless(publisher, Instant::now()) {
            return Some(invalid);
        }
        let Invalid { delivery, refusal } = invalid;
        // Of a bulk its service is told; of what names nobody, nobody.
        let to = refusal.sender.map(|sender| (sender, None)).into_iter().collect();
        self.turn_away(delivery, refusal.encoding, to);
        None
    }

    fn turn_away(&self, delivery: Delivery, encoding: Encoding, to: Vec<(Sender, Option<ChangeId>)>) {
        let changes = to.len().max(1);
        if self.queue.try_send(Told { encoding, sequence: delivery.stream_sequence, to }).is_ok() {
            self.metrics.throttled(changes);
            delivery.term();
        } else {
            // There is room, but nobody who tells.
            self.metrics.returned(1);
            delivery.nak(Some(PAUSE));
        }
    }
}

/// Whether it was delivered before, to whomever.
fn comes_again(delivery: &Delivery) -> bool {
    delivery.delivered > 1
}

impl Teller {
    /// Works until nobody is turned away any more.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        while let Some(Told { encoding, sequence, to }) = self.queue.recv().await {
            for (sender, id) in to {
                let problem = Problem::new(Code::Busy, "more changes a second than this user may publish");
                let receipt = Receipt { sequence, id, again: false, outcome: Outcome::Rejected(problem) };
                let payload = match encode(&receipt, encoding) {
                    Ok(payload) => payload.into(),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn Error, "a receipt cannot be written");
                        continue;
                    }
                };
                let headers = Headers::new().with_content_type(encoding);
                // One that does not leave is missed by whoever waits for it, who then sends the change again.
                let _ = self.bus.send(sender.receipt_subject(), headers, payload).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::rate::Rate;

    #[test]
    fn nothing_is_taken_before_all_of_it_could_be_told_of() {
        let (queue, mut teller) = mpsc::channel(QUEUE);
        let (rates, metrics) = (Rates::new(Rate::default(), &[]), Metrics::register(&mut Registry::default()));
        let throttle = Throttle { shard: Shard::ONLY, rates, queue, metrics };
        let told = || Told { encoding: Encoding::Json, sequence: 7, to: Vec::new() };
        for _ in 0..QUEUE - BATCH_CHANGES {
            assert!(throttle.room().now_or_never().is_some());
            throttle.queue.try_send(told()).unwrap();
        }
        assert!(throttle.room().now_or_never().is_some(), "as much room as is taken at once");
        throttle.queue.try_send(told()).unwrap();
        assert!(throttle.room().now_or_never().is_none());
        teller.try_recv().unwrap();
        assert!(throttle.room().now_or_never().is_some());
        drop(teller);
        assert!(throttle.room().now_or_never().is_some(), "nobody tells any more");
    }
}
