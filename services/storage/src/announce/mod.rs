//! Announce: after a batch is applied, its publishers get their receipts and the other devices their notices. One
//! replica does so at a time, in order; what it sent is on the bus before the delivery is acked, so that a successor
//! announces again rather than never.

mod compose;

use std::{
    error::Error,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use roam_nats::{
    ANNOUNCE_DURABLE, Bus, ConsumeError, Delivery, Entry, JOURNAL_STREAM, JournalReader, PinnedDeliveries, Publisher,
    SendError,
};
use roam_process::{Condition, Context};
use roam_schemas::{BatchId, EncodeError};
use tokio::time::{interval, sleep};

use crate::{
    apply::{AppliedBatch, Verdict},
    journal::{self, FollowError},
    metrics::Metrics,
    progress::Progress,
    store::{ProfileKey, Reader, StoreError},
};
use compose::Announcement;

/// How often the server is told that a batch is still in hand: well within `ack_wait`.
const IN_PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long the server may take to say that it has all that was sent.
const ROUND_TRIP_WITHIN: Duration = Duration::from_secs(3);
/// How many batches are announced between two round trips.
const BATCHES_AT_ONCE: usize = 32;
/// How many batches are asked for ahead.
const PREFETCH: usize = 256;
/// For how long the table may not know a change that the journal holds: a new line of the journal is being read again.
/// After that nothing is said of it, and whoever published it asks again.
const UNDECIDED_FOR: Duration = Duration::from_secs(30);
/// How long to wait before trying again what failed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why announcing cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal holds something that this build does not understand.
    #[error(transparent)]
    Journal(#[from] FollowError),
    /// A message cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Announces until shutdown.
pub(crate) struct Announcer {
    /// The connection that deliveries come on.
    pub(crate) bus: Bus,
    /// The connection that receipts and notices leave on.
    pub(crate) sending: Bus,
    /// Files what storage rejected.
    pub(crate) filing: Publisher,
    pub(crate) context: Context,
    pub(crate) progress: Progress,
    pub(crate) reader: Reader,
    pub(crate) metrics: Metrics,
    pub(crate) condition: Condition,
}

impl Announcer {
    /// Announces until shutdown. What is in hand then is announced to the end; the rest goes to another replica.
    pub(crate) async fn announce(self) -> Result<(), AnnounceError> {
        let shutdown = self.context.shutdown.clone();
        while !shutdown.is_cancelled() {
            let mut deliveries =
                match PinnedDeliveries::open(&self.bus, JOURNAL_STREAM, ANNOUNCE_DURABLE, PREFETCH).await {
                    Ok(deliveries) => deliveries,
                    Err(error) => {
                        self.wait(&error).await;
                        continue;
                    }
                };
            self.condition.set_ready();
            let lost = self.announce_from(&mut deliveries).await?;
            deliveries.close().await;
            if let Some(lost) = lost {
                self.wait(&lost).await;
            }
        }
        Ok(())
    }

    /// Announces until shutdown (none) or until the durable is lost.
    async fn announce_from(&self, deliveries: &mut PinnedDeliveries) -> Result<Option<ConsumeError>, AnnounceError> {
        let shutdown = &self.context.shutdown;
        loop {
            let next = deliveries.next_ready(BATCHES_AT_ONCE, usize::MAX);
            let held = match shutdown.run_until_cancelled(next).await {
                None => return Ok(None),
                Some(Err(lost)) => return Ok(Some(lost)),
                Some(Ok(held)) => held,
            };
            let Some(batches) = self.batches(&held).await? else {
                return Ok(None);
            };
            if self.deliver(&held, &batches).await? {
                held.into_iter().for_each(Delivery::ack);
            }
        }
    }

    async fn wait(&self, reason: &ConsumeError) {
        self.condition.set_not_ready(reason.to_string());
        let _ = self.context.shutdown.run_until_cancelled(sleep(AGAIN_AFTER)).await;
    }

    /// The applied batches of the deliveries, once this replica's own fold has passed them; none at shutdown.
    async fn batches(&self, held: &[Delivery]) -> Result<Option<Vec<Arc<AppliedBatch>>>, AnnounceError> {
        let Some(last) = held.last().map(|delivery| delivery.stream_sequence) else {
            return Ok(Some(Vec::new()));
        };
        let reached = keep_in_progress(held, self.progress.reached(last));
        if self.context.shutdown.run_until_cancelled(reached).await.is_none() {
            return Ok(None);
        }
        let mut batches = Vec::with_capacity(held.len());
        for delivery in held {
            let Some(id) = delivery.message.headers.batch().and_then(BatchId::parse) else {
                continue;
            };
            // On a new line of the journal a sequence means another batch than it did before.
            if let Some(batch) = self.progress.recent(delivery.stream_sequence).filter(|recent| recent.batch.id == id) {
                batches.push(batch);
                continue;
            }
            match self.reload(delivery).await? {
                ControlFlow::Continue(batch) => batches.extend(batch.map(Arc::new)),
                ControlFlow::Break(()) => return Ok(None),
            }
        }
        Ok(Some(batches))
    }

    /// Reads a batch that is not remembered, and what became of its changes; no batch if the journal no longer holds it,
    /// so that nobody can announce it. Breaks at shutdown.
    async fn reload(&self, delivery: &Delivery) -> Result<ControlFlow<(), Option<AppliedBatch>>, AnnounceError> {
        let began = Instant::now();
        loop {
            delivery.in_progress();
            let reason: Box<dyn Error + Send + Sync> = match self.read(delivery.stream_sequence).await {
                Ok(entry) if entry.sequence == delivery.stream_sequence => {
                    let Some(batch) = journal::read_entry(&entry)? else {
                        return Ok(ControlFlow::Continue(None));
                    };
                    let verdicts = compose::verdicts(&self.reader.snapshot(), &batch)?;
                    if verdicts.iter().all(Option::is_some) || began.elapsed() > UNDECIDED_FOR {
                        return Ok(ControlFlow::Continue(Some(compose::known(entry.sequence, batch, verdicts))));
                    }
                    "not all of its changes are decided here".into()
                }
                Ok(_) => return Ok(ControlFlow::Continue(None)),
                Err(reason) => reason,
            };
            if self.context.shutdown.is_cancelled() {
                return Ok(ControlFlow::Break(()));
            }
            tracing::warn!(%reason, "a batch to be announced could not be read, trying again");
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn read(&self, sequence: u64) -> Result<Entry, Box<dyn Error + Send + Sync>> {
        let mut reader = JournalReader::open(&self.bus, JOURNAL_STREAM, None, sequence).await?;
        Ok(reader.next().await?)
    }

    /// Files and sends everything; whether the server has it all.
    async fn deliver(&self, held: &[Delivery], batches: &[Arc<AppliedBatch>]) -> Result<bool, AnnounceError> {
        let mut announcement = Announcement::default();
        for batch in batches {
            announcement.add(batch)?;
        }
        let sent = async {
            self.file(&announcement).await;
            loop {
                match self.send(&announcement).await {
                    Ok(true) => return true,
                    Ok(false) => self.metrics.announced_again(),
                    Err(error) => {
                        tracing::warn!(%error, "announcing failed, trying again");
                        sleep(AGAIN_AFTER).await;
                    }
                }
                if self.context.shutdown.is_cancelled() {
                    return false;
                }
            }
        };
        let delivered = keep_in_progress(held, sent).await;
        if delivered {
            self.metrics.announced(announcement.receipts, announcement.notices);
        }
        Ok(delivered)
    }

    /// Sends everything and waits until the server has it; false if the connection was replaced meanwhile, so that some
    /// of it may be lost.
    async fn send(&self, announcement: &Announcement) -> Result<bool, SendError> {
        let generation = self.sending.state().generation;
        for message in &announcement.messages {
            let message = message.clone();
            self.sending.send(message.subject, message.headers, message.payload).await?;
        }
        self.sending.round_trip(ROUND_TRIP_WITHIN).await?;
        Ok(self.sending.state().generation == generation)
    }

    /// Files what storage rejected in ROAM_REJECTED.
    async fn file(&self, announcement: &Announcement) {
        for message in &announcement.filed {
            loop {
                let message = message.clone();
                let filed = self.filing.publish(message.subject, message.headers, message.payload).await;
                match filed.await {
                    Ok(_) => break,
                    Err(error) if self.context.shutdown.is_cancelled() => {
                        tracing::warn!(%error, "a rejected change was not filed");
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "filing a rejected change failed, trying again");
                        sleep(AGAIN_AFTER).await;
                    }
                }
            }
        }
    }
}

/// Tells the server that the deliveries are still in hand for as long as `work` takes.
async fn keep_in_progress<T>(held: &[Delivery], work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(IN_PROGRESS_EVERY);
    ticks.reset();
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => held.iter().for_each(Delivery::in_progress),
        }
    }
}

impl Verdict {
    /// What a successor finds out about a change of a batch from the table alone.
    fn from_seen(
        snapshot: &crate::store::Snapshot<'_>,
        batch: &roam_schemas::JournalBatch,
        index: usize,
    ) -> Result<Option<Self>, StoreError> {
        let stamped = &batch.changes[index];
        let profile = ProfileKey::new(&stamped.profile);
        Ok(snapshot.seen(&profile, stamped.change.id())?.map(|seen| {
            if seen.digest != stamped.digest {
                Self::Mismatch(crate::decide::mismatch())
            } else if seen.batch == batch.id && seen.index as usize == index {
                Self::Decided(seen.outcome)
            } else {
                Self::Again(seen.outcome)
            }
        }))
    }
}
