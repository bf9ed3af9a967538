//! Pull: the straight line from ROAM_CHANGES to the journal. Deliveries are validated, stamped and batched as they come;
//! what is refused leaves the line here. One task does all of it, and waits for nothing but the next delivery and the
//! PubAcks of the appends in flight.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use roam_nats::{
    ACCESS_DURABLE, Bus, ConsumeError, Deliveries, Delivery, PullSettings, StateError, WrongShards, changes_stream,
    check_shards, stream_state,
};
use roam_process::{Condition, kill_point};
use roam_schemas::{
    Shard,
    limits::{BATCH_BYTES, BATCH_CHANGES},
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    append::{ACK_WAIT, Appended, Appender, Batch, Batcher},
    backpressure::{Gate, Look},
    busy::Throttle,
    metrics::Metrics,
    reject::Refusals,
    stamp::{Incarnation, stamp},
    validate::{Verdict, validate},
};

/// How many bytes of changes are asked for ahead. A half of it, which is one pull, exceeds the largest message that the
/// servers take.
const PREFETCH_BYTES: usize = 16 * 1024 * 1024;
/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The straight line.
pub(crate) struct Line {
    /// The shard that is worked on.
    pub(crate) shard: Shard,
    /// The connection that is pulled over.
    pub(crate) bus: Bus,
    /// How many changes are asked for ahead.
    pub(crate) prefetch: usize,
    /// How many appends there may be at once.
    pub(crate) appends: usize,
    /// Turns away what is over a user's rate.
    pub(crate) throttle: Throttle,
    /// Where refused changes go.
    pub(crate) refusals: Refusals,
    /// Where stamped changes are gathered.
    pub(crate) batcher: Batcher,
    /// Where batches go.
    pub(crate) appender: Appender,
    /// What is known of the announcer.
    pub(crate) looks: watch::Receiver<Look>,
    /// What follows from it.
    pub(crate) gate: Gate,
    /// Holds while there is something to pull from.
    pub(crate) source: Condition,
    /// Holds while the gate is open, or closed by nothing out of the ordinary.
    pub(crate) opening: Condition,
    /// Where all is counted.
    pub(crate) metrics: Metrics,
}

type InFlight = FuturesUnordered<BoxFuture<'static, Option<Appended>>>;

/// The stream cannot be pulled from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// Its consumer.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Its incarnation is not known.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is of a deployment that is split otherwise.
    #[error(transparent)]
    Shards(#[from] WrongShards),
}

impl Line {
    /// Works until the shutdown: then nothing more is pulled, what was pulled ahead is given back, and the appends in
    /// flight are waited for.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), PullError> {
        let mut in_flight = InFlight::new();
        while !shutdown.is_cancelled() {
            let Some(opened) = shutdown.run_until_cancelled(self.open()).await else { break };
            let ended = match opened {
                Ok((mut deliveries, incarnation)) => {
                    self.source.set_ready();
                    let ended = self.work(&mut deliveries, incarnation, &mut in_flight, &shutdown).await;
                    deliveries.close().await;
                    ended
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                self.complain(&error);
                shutdown.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
        while in_flight.next().await.is_some() {}
        Ok(())
    }

    async fn open(&self) -> Result<(Deliveries, Incarnation), PullError> {
        let stream = changes_stream(self.shard);
        check_shards(&stream_state(&self.bus, &stream).await?, self.shard)?;
        let incarnation = self.read_incarnation().await?;
        let settings = PullSettings {
            max_messages: self.prefetch,
            max_bytes: Some(PREFETCH_BYTES),
            untrusted: true,
            ..PullSettings::default()
        };
        let mut deliveries = Deliveries::open(&self.bus, &stream, ACCESS_DURABLE, settings).await?;
        if self.gate.is_closed() {
            deliveries.pause();
        }
        Ok((deliveries, incarnation))
    }

    /// `Ok` at the shutdown.
    async fn work(
        &mut self,
        deliveries: &mut Deliveries,
        mut incarnation: Incarnation,
        in_flight: &mut InFlight,
        shutdown: &CancellationToken,
    ) -> Result<(), PullError> {
        let mut resting_until = None;
        loop {
            let rested = sleep_until(resting_until.unwrap_or_else(Instant::now).into());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = rested, if resting_until.is_some() => resting_until = None,
                seen = self.looks.changed() => match seen {
                    Ok(()) => self.heed(deliveries),
                    // Nobody looks any more, which happens only at the shutdown.
                    Err(_) => return Ok(()),
                },
                Some(ended) = in_flight.next(), if !in_flight.is_empty() => {
                    if let Some(appended) = ended {
                        self.gate.appended(appended, Instant::now());
                    }
                }
                taken = take(deliveries, &self.throttle), if resting_until.is_none() && self.may_take(in_flight) => {
                    let taken = taken?;
                    kill_point("pulled");
                    if let Some(trusted) = self.trust(taken, &mut incarnation).await {
                        let changes = self.handle(trusted, &incarnation, in_flight);
                        resting_until = self.gate.rest(changes).map(|rest| Instant::now() + rest);
                    }
                }
            }
        }
    }

    /// What was asked for before the gate closed still comes, and waits until it is open: in bulks that may be a hundred thousand changes.
    fn may_take(&self, in_flight: &InFlight) -> bool {
        in_flight.len() < self.appends && !self.gate.is_closed()
    }

    fn heed(&mut self, deliveries: &mut Deliveries) {
        let look = *self.looks.borrow_and_update();
        let (was_closed, now) = (self.gate.is_closed(), Instant::now());
        match (was_closed, self.gate.heed(&look, now)) {
            (_, Some(why)) => {
                deliveries.pause();
                if !was_closed {
                    self.metrics.paused();
                    tracing::debug!(why = %why, "pulling is paused");
                }
            }
            (true, None) => {
                deliveries.resume();
                self.metrics.resumed();
                tracing::debug!("pulling is resumed");
            }
            (false, None) => {}
        }
        match self.gate.not_ready(now) {
            Some(why) => self.opening.set_not_ready(why.to_string()),
            None => self.opening.set_ready(),
        }
    }

    /// The deliveries, once it is certain of which incarnation of the stream they are; else they are given back.
    async fn trust(&self, taken: Vec<Delivery>, incarnation: &mut Incarnation) -> Option<Vec<Delivery>> {
        let generation = self.bus.state().generation;
        let mut doubt = false;
        for delivery in &taken {
            doubt |= incarnation.is_in_doubt(generation, delivery.stream_sequence, delivery.delivered);
        }
        if !doubt {
            return Some(taken);
        }
        match self.read_incarnation().await {
            Ok(read) => {
                *incarnation = read;
                Some(taken)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "the incarnation of the stream is not known");
                taken.into_iter().for_each(|delivery| self.give_back(delivery));
                None
            }
        }
    }

    async fn read_incarnation(&self) -> Result<Incarnation, StateError> {
        // Before asking, so that a connection that is made anew meanwhile leaves it in doubt.
        let generation = self.bus.state().generation;
        let stream = stream_state(&self.bus, &changes_stream(self.shard)).await?;
        Ok(Incarnation::read(stream.created, generation))
    }

    /// How many changes go on.
    fn handle(&mut self, taken: Vec<Delivery>, incarnation: &Incarnation, in_flight: &mut InFlight) -> usize {
        let mut valid = 0;
        for delivery in taken {
            if delivery.received_at.elapsed() >= ACK_WAIT {
                self.give_back(delivery);
                continue;
            }
            let Some(delivery) = self.throttle.admit(delivery) else { continue };
            let validated = match validate(self.shard, delivery) {
                Verdict::Valid(validated) => Some(validated),
                Verdict::Bulk(bulk) => self.throttle.admit_bulk(bulk),
                Verdict::Invalid(invalid) => {
                    if let Some(invalid) = self.throttle.admit_refused(invalid) {
                        self.refusals.hand_in(invalid);
                    }
                    None
                }
                Verdict::Foreign(delivery) => {
                    self.metrics.dropped_foreign();
                    tracing::debug!(sequence = delivery.stream_sequence, "a message that is not ours is dropped");
                    delivery.term();
                    None
                }
            };
            let Some(validated) = validated else { continue };
            valid += validated.len();
            let full = self.batcher.add(stamp(validated, incarnation.nanos()));
            in_flight.extend(full.map(|batch| self.append(batch)));
        }
        self.metrics.validated(valid);
        let rest = self.batcher.close();
        in_flight.extend(rest.map(|batch| self.append(batch)));
        valid
    }

    fn append(&self, batch: Batch) -> BoxFuture<'static, Option<Appended>> {
        Box::pin(self.appender.append(batch))
    }

    fn give_back(&self, delivery: Delivery) {
        self.metrics.returned(1);
        delivery.nak(Some(PAUSE));
    }

    fn complain(&self, error: &PullError) {
        self.source.set_not_ready(error.to_string());
        tracing::warn!(error = error as &dyn Error, "changes cannot be pulled");
    }
}

/// What is there, once whoever is over the rate can be told of all of it. Cancel-safe.
async fn take(deliveries: &mut Deliveries, throttle: &Throttle) -> Result<Vec<Delivery>, ConsumeError> {
    throttle.room().await;
    deliveries.next_ready(BATCH_CHANGES, BATCH_BYTES).await
}
