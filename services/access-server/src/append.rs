//! Append: gathers stamped changes into batches and appends each to the journal. A delivery is acked after the PubAck of
//! its batch, and never before.
//!
//! Nothing waits for a batch to fill: what is there is taken. An append whose deliveries are past `ack_wait` is given up,
//! because by then another server may have them.

use std::{
    error::Error,
    future::Future,
    mem,
    time::{Duration, Instant},
};

use roam_nats::{AckDuty, Bus, Headers, PublishError, PublishSettings, Publisher};
use roam_process::kill_point;
use roam_schemas::{
    BatchId, EncodeError, Encoding, JournalBatch, Shard, StampedChange, TenantQuota, Terms, encode,
    limits::{BATCH_BYTES, BATCH_CHANGES},
    subjects,
};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{metrics::Metrics, planted::planted, stamp::Stamped};

/// The `ack_wait` of the durable `access`, as it is provisioned: after this long without an ack a delivery is delivered
/// again, to whichever server asks.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(5);

/// How long one attempt to append waits for its PubAck.
const ATTEMPT: Duration = Duration::from_secs(2);
/// After a refusal, how long until its deliveries are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What will be one entry of the journal, with the deliveries that are acked for it.
pub(crate) struct Batch<D = AckDuty> {
    /// What is acked.
    pub(crate) duties: Vec<D>,
    /// When the first of the deliveries came.
    pub(crate) received_at: Instant,
    /// The entry.
    pub(crate) journal: JournalBatch,
}

/// Gathers changes into batches.
pub(crate) struct Batcher<D = AckDuty> {
    rules: u16,
    terms: Terms,
    quotas: Vec<TenantQuota>,
    open: Open<D>,
}

/// The batch that is being gathered.
struct Open<D> {
    duties: Vec<D>,
    changes: Vec<StampedChange>,
    bytes: usize,
    received_at: Option<Instant>,
}

impl<D> Batcher<D> {
    /// Makes batches that are decided under these rules, terms and quotas.
    pub(crate) fn new(rules: u16, terms: Terms, quotas: Vec<TenantQuota>) -> Self {
        Self { rules, terms, quotas, open: Open::default() }
    }

    /// Adds the changes of a delivery, which stay together: they have one stamp, so that nothing but their place in a batch says in
    /// which order they are. Gives the batches that are full by now: the one before, if there was no room in it, and that with them.
    pub(crate) fn add(&mut self, stamped: Stamped<D>) -> impl Iterator<Item = Batch<D>> + use<D> {
        let Stamped { duty, received_at, changes, bytes } = stamped;
        let no_room = self.open.changes.len() + changes.len() > BATCH_CHANGES;
        let before = no_room.then(|| self.close()).flatten();
        let open = &mut self.open;
        open.duties.push(duty);
        open.changes.extend(changes);
        open.bytes += bytes;
        open.received_at = Some(open.received_at.map_or(received_at, |first| first.min(received_at)));
        let full = open.changes.len() >= BATCH_CHANGES || open.bytes > BATCH_BYTES;
        before.into_iter().chain(full.then(|| self.close()).flatten())
    }

    /// Closes the batch as it is; none if it is empty.
    #[must_use]
    pub(crate) fn close(&mut self) -> Option<Batch<D>> {
        let Open { duties, mut changes, received_at, .. } = mem::take(&mut self.open);
        let received_at = received_at?;
        // Redeliveries come late, between newer ones.
        changes.sort_by_key(|change| change.stamp.origin.sequence);
        let (rules, terms) = (self.rules, self.terms.clone());
        let here = |own: &&TenantQuota| changes.iter().any(|change| change.profile.tenant == own.tenant);
        let quotas = self.quotas.iter().filter(here).cloned().collect();
        let journal = JournalBatch { id: BatchId::random(), rules, terms, quotas, changes };
        Some(Batch { duties, received_at, journal })
    }
}

impl<D> Default for Open<D> {
    fn default() -> Self {
        Self { duties: Vec::new(), changes: Vec::new(), bytes: 0, received_at: None }
    }
}

/// Appends batches to the journal.
pub(crate) struct Appender {
    publisher: Publisher,
    subject: String,
    metrics: Metrics,
    shutdown: CancellationToken,
}

/// A batch that is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Its sequence there.
    pub(crate) sequence: u64,
    /// How many changes it holds.
    pub(crate) changes: usize,
}

impl Appender {
    /// Appends to the journal of a shard, over a connection of its own. `in_flight` is how many appends there may be at once.
    pub(crate) fn new(
        shard: Shard,
        bus: &Bus,
        in_flight: usize,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        // The window never makes an append wait, because there is one place more than appends; the deadline of each
        // append comes from its deliveries, and no retry passes it.
        let settings = PublishSettings { window: in_flight + 1, ack_timeout: ATTEMPT, retry_for: ACK_WAIT };
        Self { publisher: Publisher::new(bus, settings), subject: subjects::journal(shard), metrics, shutdown }
    }

    /// Appends a batch and acks its deliveries; none if there was no PubAck. It is sent at the first poll.
    pub(crate) fn append(&self, batch: Batch) -> impl Future<Output = Option<Appended>> + Send + use<> {
        let Batch { duties, received_at, journal } = batch;
        let changes = journal.changes.len();
        let span = tracing::info_span!("append", batch = %journal.id, changes);
        let (publisher, subject, metrics) = (self.publisher.clone(), self.subject.clone(), self.metrics.clone());
        let shutdown = self.shutdown.clone();
        let appending = async move {
            let begun = Instant::now();
            kill_point("batched");
            let duties = if planted("ack-before-append") {
                duties.into_iter().for_each(AckDuty::ack);
                sleep(PAUSE / 10).await;
                Vec::new()
            } else {
                duties
            };
            match send(&publisher, subject, journal, received_at + ACK_WAIT, &metrics).await {
                Ok(sequence) => {
                    metrics.appended(changes, begun.elapsed());
                    tracing::debug!(sequence, "appended");
                    kill_point("appended");
                    duties.into_iter().for_each(AckDuty::ack);
                    kill_point("acked");
                    Some(Appended { sequence, changes })
                }
                Err(error) => {
                    fail(duties, &error, &metrics);
                    // Its place is held for a while, so that an append that cannot succeed is not tried as fast as the
                    // machine can.
                    shutdown.run_until_cancelled(sleep(PAUSE)).await;
                    None
                }
            }
        };
        appending.instrument(span)
    }
}

/// Why a batch is not known to be in the journal.
#[derive(Debug, thiserror::Error)]
enum AppendError {
    /// Its deliveries are past `ack_wait`: another server may have them.
    #[error("no PubAck before the deliveries were past ack_wait")]
    Late,
    /// It was refused, or may have been lost: give the deliveries back.
    #[error("the journal did not take it")]
    Publish(#[from] PublishError),
    /// It cannot be written. No batch of valid changes causes it.
    #[error("it cannot be written")]
    Encode(#[from] EncodeError),
}

async fn send(
    publisher: &Publisher,
    subject: String,
    journal: JournalBatch,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<u64, AppendError> {
    let payload = encode(&journal, Encoding::Postcard)?;
    metrics.batched(journal.changes.len(), payload.len());
    let headers = Headers::new().with_content_type(Encoding::Postcard).with_batch(journal.id.to_string());
    drop(journal);
    let publishing = async {
        let ack = publisher.publish(subject, headers, payload.into()).await;
        kill_point("appending");
        ack.await
    };
    let ack = timeout_at(deadline.into(), publishing).await.map_err(|_| AppendError::Late)??;
    Ok(ack.sequence)
}

/// What is done without a PubAck.
fn fail(duties: Vec<AckDuty>, error: &AppendError, metrics: &Metrics) {
    metrics.failed_to_append(error.kind());
    tracing::warn!(error = error as &dyn Error, "not appended");
    metrics.returned(duties.len());
    for duty in duties {
        // With a delay also when it is late: where another server has the change by now, that one may finish first.
        duty.nak(Some(PAUSE));
    }
}

impl AppendError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Publish(PublishError::Unavailable { .. } | PublishError::Closed) => "unavailable",
            Self::Publish(PublishError::Busy { .. }) => "busy",
            Self::Publish(PublishError::Denied) => "denied",
            Self::Publish(PublishError::TooLarge) => "too_large",
            Self::Publish(PublishError::Refused { .. }) => "refused",
            Self::Encode(_) => "encode",
        }
    }
}

#[cfg(test)]
mod tests;
