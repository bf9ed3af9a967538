//! Busy: tells a publisher that a change was not decided because its user is over the rate. It never waits and never holds
//! anything up: of a flood, what does not fit into its queue is told nothing, and whoever sent it sends it again later.

use std::{convert::Infallible, error::Error};

use roam_nats::{Bus, Delivery, Headers};
use roam_schemas::{ChangeId, Code, Device, Encoding, Outcome, Problem, Profile, Receipt, Shard, encode, subjects};
use tokio::sync::mpsc;

use crate::{metrics::Metrics, rate::Rates, validate::Validated};

/// How many receipts wait at most.
const QUEUE: usize = 1_024;

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

/// Whom to tell about which change.
struct Told {
    profile: Profile,
    device: Device,
    encoding: Encoding,
    sequence: u64,
    /// None if it was not decoded: the sequence is enough to match it then.
    id: Option<ChangeId>,
}

/// The one who decides and the one who tells.
pub(crate) fn throttle(shard: Shard, rates: Rates, bus: &Bus, metrics: &Metrics) -> (Throttle, Teller) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Throttle { shard, rates, queue: sender, metrics: metrics.clone() }, Teller { queue: receiver, bus: bus.clone() })
}

impl Throttle {
    /// The delivery again if its user is within the rate, or if it says not whose it is: what is wrong with it is looked at
    /// elsewhere. Otherwise it leaves the stream, undecided. Nothing is decoded for that.
    pub(crate) fn admit(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(encoding) = delivery.message.headers.encoding() else { return Some(delivery) };
        let Ok((profile, device)) = subjects::parse_change(self.shard, &delivery.message.subject) else {
            return Some(delivery);
        };
        if self.rates.take(&profile, &device, delivery.received_at) {
            return Some(delivery);
        }
        self.metrics.throttled();
        // A full queue means a flood, whose sender will not read the receipts.
        let _ = self.queue.try_send(Told { profile, device, encoding, sequence: delivery.stream_sequence, id: None });
        delivery.term();
        None
    }

    /// A bulk again if all its users are within the rate. Otherwise it leaves the stream whole and undecided: were a part of it
    /// decided, a redelivery could decide what was said to be not. Whoever sent it sends each change by itself then.
    pub(crate) fn admit_bulk(&mut self, bulk: Validated) -> Option<Validated> {
        let (device, encoding) = bulk.written();
        let received_at = bulk.delivery().received_at;
        // Each user pays, whoever of them is over: as if the changes had come singly.
        let over = bulk.each().filter(|(profile, _)| !self.rates.take(profile, device, received_at)).count();
        if over == 0 {
            return Some(bulk);
        }
        let sequence = bulk.delivery().stream_sequence;
        for (profile, id) in bulk.each() {
            self.metrics.throttled();
            let told = Told { profile: profile.clone(), device: device.clone(), encoding, sequence, id: Some(id) };
            let _ = self.queue.try_send(told);
        }
        bulk.into_parts().0.term();
        None
    }
}

impl Teller {
    /// Works until nobody is turned away any more.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        while let Some(told) = self.queue.recv().await {
            let problem = Problem::new(Code::Busy, "more changes a second than this user may publish");
            let outcome = Outcome::Rejected(problem);
            let receipt = Receipt { sequence: told.sequence, id: told.id, again: false, outcome };
            let payload = match encode(&receipt, told.encoding) {
                Ok(payload) => payload.into(),
                Err(error) => {
                    tracing::error!(error = &error as &dyn Error, "a receipt cannot be written");
                    continue;
                }
            };
            let headers = Headers::new().with_content_type(told.encoding);
            // One that does not leave is missed by whoever waits for it, who then sends the change again.
            let _ = self.bus.send(subjects::receipt(&told.profile, &told.device), headers, payload).await;
        }
        Ok(())
    }
}
