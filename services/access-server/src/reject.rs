//! Reject: files a refused change in ROAM_REJECTED, tells its publisher, and terminates the delivery, in this order. It
//! works beside the way of the valid ones and never holds them up: what does not fit into its queue is given back, to be
//! delivered again.

mod entry;

use std::{
    convert::Infallible,
    error::Error,
    mem,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use roam_nats::{AckDuty, Bus, Delivery, PublishError, PublishSettings, Publisher, SendError};
use roam_process::kill_point;
use roam_schemas::Code;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use self::entry::{Letter, entry, receipt};
use crate::{append::ACK_WAIT, metrics::Metrics, planted::planted, validate::Invalid};

/// How many refusals wait at most. Each holds no more of its change than what is filed.
const QUEUE: usize = 512;
/// How many refusals are filed together: one round trip serves them all.
const GROUP: usize = 64;
/// After a failure, how long until the same changes are tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an attempt to file waits for its PubAck, and the receipts for their round trip.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Where refusals are handed in. Once it is dropped, the [`Rejecter`] finishes what is queued and ends.
pub(crate) struct Refusals {
    queue: mpsc::Sender<Filing>,
    metrics: Metrics,
}

/// Files refusals and sends their receipts.
pub(crate) struct Rejecter {
    queue: mpsc::Receiver<Filing>,
    bus: Bus,
    publisher: Publisher,
    metrics: Metrics,
}

/// A refused change, with what is filed of it.
struct Filing {
    refused: Refused,
    entry: Letter,
}

/// A refused change, with what is said to its publisher.
struct Refused {
    duty: AckDuty,
    received_at: Instant,
    sequence: u64,
    code: Code,
    /// None if the subject names nobody.
    receipt: Option<Letter>,
}

/// A queue and the one who works it off.
pub(crate) fn rejecter(bus: &Bus, metrics: &Metrics) -> (Refusals, Rejecter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let settings = PublishSettings { window: GROUP, ack_timeout: ATTEMPT, retry_for: ATTEMPT };
    let publisher = Publisher::new(bus, settings);
    let refusals = Refusals { queue: sender, metrics: metrics.clone() };
    (refusals, Rejecter { queue: receiver, bus: bus.clone(), publisher, metrics: metrics.clone() })
}

impl Refusals {
    /// Hands in a refused change; never waits.
    pub(crate) fn hand_in(&self, invalid: Invalid) {
        let Invalid { delivery, refusal } = invalid;
        let Delivery { message, stream_sequence: sequence, received_at, duty, .. } = delivery;
        if planted("rejected-not-filed") {
            return duty.ack();
        }
        // Room comes first, so that a flood costs little.
        let written = self.queue.try_reserve().map(|room| (room, receipt(sequence, &refusal)));
        match written {
            Ok((room, Ok(receipt))) => {
                let entry = entry(&message, sequence, &refusal);
                let refused = Refused { duty, received_at, sequence, code: refusal.problem.code, receipt };
                room.send(Filing { refused, entry });
                return;
            }
            Ok((_, Err(error))) => tracing::error!(error = &error as &dyn Error, "a receipt cannot be written"),
            Err(_) => tracing::debug!(sequence, "too many refusals wait"),
        }
        self.metrics.returned(1);
        duty.nak(Some(PAUSE));
    }
}

impl Rejecter {
    /// Works until the queue is closed and empty. What fails after the shutdown is not tried again: the rest is given
    /// back by being dropped.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut group = Vec::new();
        while self.queue.recv_many(&mut group, GROUP).await > 0 {
            let rejected = self.reject(mem::take(&mut group)).await;
            // Those that failed come back after a while; whoever is queued behind them would fail too.
            if rejected.is_err() && shutdown.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn reject(&self, group: Vec<Filing>) -> Result<(), Failed> {
        // Another server may have what is past `ack_wait`.
        let (late, group): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|filing| filing.refused.received_at.elapsed() >= ACK_WAIT);
        self.give_back(late.into_iter().map(|filing| filing.refused));
        let (filed, unfiled) = self.file(group).await;
        kill_point("refusal-filed");
        let all = unfiled.is_empty();
        self.give_back(unfiled);
        if let Err(error) = self.tell(&filed).await {
            tracing::warn!(error = &error as &dyn Error, "receipts of refused changes are not known to be sent");
            self.give_back(filed);
            return Err(Failed);
        }
        kill_point("refusal-told");
        self.terminate(filed);
        all.then_some(()).ok_or(Failed)
    }

    /// Files all of a group at once. Says which are filed, and which are not.
    async fn file(&self, group: Vec<Filing>) -> (Vec<Refused>, Vec<Refused>) {
        let filing = group.into_iter().map(|Filing { refused, entry }| async move {
            let Letter { subject, headers, payload } = entry;
            (refused, self.publisher.publish(subject, headers, payload).await.await)
        });
        let (mut filed, mut unfiled, mut why) = (Vec::new(), Vec::new(), None::<PublishError>);
        for (refused, ack) in join_all(filing).await {
            match ack {
                Ok(_) => filed.push(refused),
                Err(error) => {
                    unfiled.push(refused);
                    why = Some(error);
                }
            }
        }
        if let Some(error) = &why {
            tracing::warn!(error = error as &dyn Error, changes = unfiled.len(), "refused changes are not filed");
        }
        (filed, unfiled)
    }

    /// Sends the receipts, and returns once the server has them.
    async fn tell(&self, filed: &[Refused]) -> Result<(), SendError> {
        let receipts = || filed.iter().filter_map(|refused| refused.receipt.as_ref());
        if receipts().next().is_none() {
            return Ok(());
        }
        loop {
            let generation = self.bus.state().generation;
            for Letter { subject, headers, payload } in receipts().cloned() {
                self.bus.send(subject, headers, payload).await?;
            }
            self.bus.round_trip(ATTEMPT).await?;
            // A connection that was made anew in between may have lost some of them.
            if self.bus.state().generation == generation {
                return Ok(());
            }
        }
    }

    fn terminate(&self, filed: Vec<Refused>) {
        if let Some(Refused { code, sequence, .. }) = filed.first() {
            // One line for all: whoever floods us with refused changes must not flood the log.
            tracing::info!(changes = filed.len(), code = code.as_str(), sequence, "changes rejected");
        }
        for refused in filed {
            self.metrics.rejected(refused.code);
            refused.duty.term();
        }
    }

    fn give_back(&self, refused: impl IntoIterator<Item = Refused>) {
        for Refused { duty, .. } in refused {
            self.metrics.returned(1);
            duty.nak(Some(PAUSE));
        }
    }
}

/// Some of a group were given back; the log says why.
struct Failed;
