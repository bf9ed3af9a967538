//! Announce: after a batch is applied, its publishers get their receipts and the other devices their notices. One
//! replica does so at a time, in order; what it sent is on the bus, and what it filed in the stream, before the delivery is
//! acked, so that a successor announces again rather than never.

mod compose;
pub(crate) mod standing;

use std::{
    collections::VecDeque,
    error::Error,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use roam_nats::{
    ANNOUNCE_DURABLE, Bus, ConsumeError, Delivery, Entry, JournalReader, Message, PinnedDeliveries, PublishError,
    Publisher, SendError, journal_stream,
};
use roam_process::{Condition, Context, kill_point};
use roam_schemas::{BatchId, EncodeError, Shard, Timestamp};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{interval, sleep, sleep_until, timeout},
};

use crate::{
    apply::{AppliedBatch, Verdict},
    journal::{self, Read},
    metrics::Metrics,
    progress::Progress,
    store::{ProfileKey, Reader, StoreError},
};
use compose::Announcement;

/// How often the server is told that a batch is still in hand: well within `ack_wait`.
const IN_PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long the server may take to say that it has all that was sent.
const ROUND_TRIP_WITHIN: Duration = Duration::from_secs(3);
/// How many batches are announced at once.
const BATCHES_AT_ONCE: usize = 32;
/// How long after one round trip the next one begins. Nobody waits for it but the acks; each costs the server two messages.
const ROUND_TRIP_EVERY: Duration = Duration::from_millis(5);
/// How many rejected changes of what is announced at once are filed together: one round trip serves them all.
const FILED_TOGETHER: usize = 256;
/// How long what is being filed has at the end. What is not there then is announced again.
const FILED_WITHIN: Duration = Duration::from_millis(500);
/// How many batches are asked for ahead.
const PREFETCH: usize = 256;
/// For how long the table may not know a change that the journal holds: a new line of the journal is being read again.
/// After that nothing is said of it, and whoever published it asks again.
const UNDECIDED_FOR: Duration = Duration::from_secs(30);
/// How many entries of the journal are read over to come to one that is not remembered: more cost more than another reader.
const READ_ON: u64 = 1_000;
/// How long to wait before trying again what failed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Why announcing cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A message cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Announces until shutdown.
pub(crate) struct Announcer {
    pub(crate) shard: Shard,
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
    /// Says whether this replica is the one that announces.
    pub(crate) announces: Arc<AtomicBool>,
    /// Reads batches again that are not remembered, and the sequence of the last one that it read.
    pub(crate) rereading: Mutex<Option<(JournalReader, u64)>>,
}

impl Announcer {
    /// Announces until shutdown. What is in hand then is announced to the end; the rest goes to another replica.
    pub(crate) async fn announce(self) -> Result<(), AnnounceError> {
        let (shutdown, stream) = (self.context.shutdown.clone(), journal_stream(self.shard));
        // A replica that stands still applies nothing, so it leaves what it would hold for ever to another one.
        while shutdown.run_until_cancelled(self.progress.halted(false)).await.is_some() {
            let mut deliveries = match PinnedDeliveries::open(&self.bus, &stream, ANNOUNCE_DURABLE, PREFETCH).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    self.wait(&error).await;
                    continue;
                }
            };
            self.condition.set_ready();
            let lost = self.announce_from(&mut deliveries).await?;
            self.announces.store(false, Ordering::Relaxed);
            deliveries.close().await;
            if let Some(lost) = lost {
                self.wait(&lost).await;
            }
        }
        Ok(())
    }

    /// Announces until shutdown or until this replica stands still (none), or until the durable is lost. A batch is sent once this replica's own fold has
    /// passed it, and acked once the server is known to have what was sent and what was filed; meanwhile the next ones are sent.
    async fn announce_from(&self, deliveries: &mut PinnedDeliveries) -> Result<Option<ConsumeError>, AnnounceError> {
        let shutdown = &self.context.shutdown;
        let mut held = VecDeque::new();
        let mut said = VecDeque::new();
        let mut trips = FuturesUnordered::new();
        // Beside all else: whoever has much rejected holds up nobody's receipt. Acks behind it wait, and if that takes long, so do access servers.
        let mut filing: JoinSet<Said> = JoinSet::new();
        let mut next_trip = Instant::now();
        let mut ticks = interval(IN_PROGRESS_EVERY);
        let lost = loop {
            let next = held.front().map(|delivery: &Delivery| delivery.stream_sequence);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break None,
                () = self.progress.halted(true) => break None,
                Some(arrived) = trips.next(), if !trips.is_empty() => {
                    next_trip = Instant::now() + self.settle(&mut said, arrived).await;
                }
                // A task that panicked gave its deliveries back.
                Some(filed) = filing.join_next(), if !filing.is_empty() => said.extend(filed.ok()),
                () = self.progress.reached(next.unwrap_or(u64::MAX)) => {
                    let applied = self.progress.applied_to();
                    let ready = held.iter().take_while(|delivery| delivery.stream_sequence <= applied).count();
                    let ready: Vec<Delivery> = held.drain(..ready.min(BATCHES_AT_ONCE)).collect();
                    let in_hand = || held.iter().chain(said.iter().flat_map(|said: &Said| &said.of)).chain(&ready);
                    let Some((announcement, sent)) = keep_in_progress(in_hand, self.say(&ready)).await? else { break None };
                    let now = Said { of: ready, announcement, sent };
                    if now.announcement.filed.is_empty() {
                        said.push_back(now);
                    } else {
                        filing.spawn(file(self.filing.clone(), now));
                    }
                }
                taken = deliveries.next_ready(BATCHES_AT_ONCE, usize::MAX) => match taken {
                    Ok(taken) => {
                        self.announces.store(deliveries.is_pinned(), Ordering::Relaxed);
                        hold(&mut held, taken, |delivery| delivery.stream_sequence);
                    }
                    Err(lost) => break Some(lost),
                },
                () = sleep_until(next_trip.into()), if trips.is_empty() && !said.is_empty() => {
                    trips.push(self.round_trip(said.len()));
                }
                _ = ticks.tick() => {
                    held.iter().chain(said.iter().flat_map(|said| &said.of)).for_each(Delivery::in_progress);
                }
            }
        };
        // What was filed and sent is acked, as far as that can be known soon; the rest goes to another replica.
        let filed = async {
            while let Some(filed) = filing.join_next().await {
                said.extend(filed.ok());
            }
        };
        let _ = timeout(FILED_WITHIN, filed).await;
        filing.shutdown().await;
        if !said.is_empty() && self.sending.state().connected {
            let arrived = self.round_trip(said.len()).await;
            self.settle(&mut said, arrived).await;
        }
        Ok(lost)
    }

    async fn wait(&self, reason: &ConsumeError) {
        self.condition.set_not_ready(reason.to_string());
        let _ = self.context.shutdown.run_until_cancelled(sleep(AGAIN_AFTER)).await;
    }

    /// Sends what there is to say of batches that were applied, and says under which generation of the connection that was;
    /// none at shutdown.
    async fn say(&self, ready: &[Delivery]) -> Result<Option<(Announcement, Result<u64, SendError>)>, AnnounceError> {
        let Some(batches) = self.batches(ready).await? else {
            return Ok(None);
        };
        let mut announcement = Announcement::default();
        for batch in batches {
            announcement.add(&batch)?;
        }
        kill_point("announcing");
        let sent = self.send(&announcement).await;
        kill_point("announced");
        Ok(Some((announcement, sent)))
    }

    /// The applied batches of the deliveries; none at shutdown.
    async fn batches(&self, ready: &[Delivery]) -> Result<Option<Vec<Arc<AppliedBatch>>>, AnnounceError> {
        let mut batches = Vec::with_capacity(ready.len());
        for delivery in ready {
            let Some(id) = delivery.message.headers.batch().and_then(BatchId::parse) else {
                continue;
            };
            // On a new line of the journal a sequence means another batch than it did before.
            if let Some(batch) = self.progress.recent(delivery.stream_sequence).filter(|recent| recent.batch.id == id) {
                batches.push(batch);
                // It would hold on to what comes next, and nobody needs that any more.
                *self.rereading.lock().await = None;
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
                    // What does not decode was passed over, or the fold would stand before it.
                    let Ok(Read::Batch(batch)) = journal::read_entry(&entry) else {
                        return Ok(ControlFlow::Continue(None));
                    };
                    let snapshot = self.reader.snapshot();
                    let verdicts = compose::verdicts(&snapshot, &batch)?;
                    let journaled = Timestamp::from_nanos(journal::nanos(entry.published));
                    let are_settled = compose::are_settled(&snapshot, journaled, &batch, &verdicts)?;
                    if are_settled || began.elapsed() > UNDECIDED_FOR {
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

    /// The entry at that sequence, or the first one behind it. Goes on with the reader of the one before it: the server keeps
    /// each for a while, and refuses further ones beyond a thousand.
    async fn read(&self, sequence: u64) -> Result<Entry, Box<dyn Error + Send + Sync>> {
        let mut kept = self.rereading.lock().await;
        let mut reader = match kept.take() {
            Some((reader, at)) if (at + 1..=at + READ_ON).contains(&sequence) => reader,
            _ => JournalReader::open(&self.bus, &journal_stream(self.shard), None, sequence).await?,
        };
        loop {
            let entry = reader.next().await?;
            if entry.sequence >= sequence {
                *kept = Some((reader, entry.sequence));
                return Ok(entry);
            }
        }
    }

    /// Hands everything to the connection. Says under which generation of it that was.
    async fn send(&self, announcement: &Announcement) -> Result<u64, SendError> {
        let generation = self.sending.state().generation;
        for message in &announcement.messages {
            self.sending.send_kept(message).await?;
        }
        Ok(generation)
    }

    /// Returns once the server has the first so many announcements, unless the connection was replaced meanwhile.
    async fn round_trip(&self, of: usize) -> (usize, Result<(), SendError>) {
        (of, self.sending.round_trip(ROUND_TRIP_WITHIN).await)
    }

    /// Acks what the server has, and sends again what may have been lost with a connection. Says when to ask next.
    async fn settle(&self, said: &mut VecDeque<Said>, (of, arrived): (usize, Result<(), SendError>)) -> Duration {
        let generation = self.sending.state().generation;
        let (mut announced, mut lost) = (Vec::new(), Vec::new());
        for said in said.drain(..of) {
            if arrived.is_ok() && said.sent == Ok(generation) {
                self.metrics.announced(said.announcement.receipts, said.announcement.notices);
                announced.extend(said.of.iter().map(|delivery| delivery.stream_sequence));
                said.of.into_iter().for_each(Delivery::ack);
                kill_point("announcement-acked");
            } else {
                lost.push(said);
            }
        }
        self.progress.announced(&announced);
        for said in &mut lost {
            if said.sent != Ok(generation) {
                self.metrics.announced_again();
                said.sent = self.send(&said.announcement).await;
            }
        }
        lost.into_iter().rev().for_each(|lost| said.push_front(lost));
        match arrived {
            Ok(()) => ROUND_TRIP_EVERY,
            Err(error) => {
                tracing::warn!(%error, "what was announced is not known to have arrived");
                AGAIN_AFTER
            }
        }
    }
}

/// What was said of some batches, and may not have arrived yet.
struct Said {
    of: Vec<Delivery>,
    announcement: Announcement,
    /// Under which generation of the connection it was sent.
    sent: Result<u64, SendError>,
}

/// Files in ROAM_REJECTED what storage rejected. Gives back what was said of it once all of it is there.
async fn file(filing: Publisher, said: Said) -> Said {
    let filed = async {
        for together in said.announcement.filed.chunks(FILED_TOGETHER) {
            file_all(&filing, together.to_vec()).await;
        }
    };
    keep_in_progress(|| said.of.iter(), filed).await;
    said
}

/// Returns once all of it is filed. What fails is tried again, and nothing else.
async fn file_all(filing: &Publisher, mut unfiled: Vec<Message>) {
    loop {
        let filed = join_all(unfiled.into_iter().map(|message| file_one(filing, message))).await;
        let failed: Vec<_> = filed.into_iter().flatten().collect();
        let Some((_, error)) = failed.first() else { return };
        tracing::warn!(%error, changes = failed.len(), "filing rejected changes failed, trying again");
        unfiled = failed.into_iter().map(|(message, _)| message).collect();
        sleep(AGAIN_AFTER).await;
    }
}

/// Gives the message back if that fails, and why it does.
async fn file_one(filing: &Publisher, message: Message) -> Option<(Message, PublishError)> {
    let Message { subject, headers, payload, .. } = message.clone();
    let error = filing.publish(subject, headers, payload).await.await.err()?;
    Some((message, error))
}

/// Takes more in hand, in the order of the journal. What was rolled back comes again with lower numbers, behind what is held from before and is of entries
/// that are no more: it must not wait for those.
fn hold<D>(held: &mut VecDeque<D>, taken: Vec<D>, sequence: impl Fn(&D) -> u64) {
    held.extend(taken);
    if !held.iter().is_sorted_by_key(&sequence) {
        held.make_contiguous().sort_by_key(sequence);
    }
}

/// Tells the server that the deliveries are still in hand for as long as `work` takes.
async fn keep_in_progress<'a, T, I: Iterator<Item = &'a Delivery>>(
    held: impl Fn() -> I,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(IN_PROGRESS_EVERY);
    ticks.reset();
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => held().for_each(Delivery::in_progress),
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

#[cfg(test)]
mod tests;
