//! Sweep: a replica, as a rule the one that announces, removes the chunks that no record and no kept version needs, a grace after anybody
//! asked for them last; those of a user who was erased at once.
//!
//! Right in three steps. A chunk is given up only if all changes are applied here that were taken in until a grace after
//! it was last kept: whoever asked for it had half of that to publish the change that needs it. Giving up is a note in
//! the stream, which counts only if nobody noted before it that the chunk is to stay. And only what is given up by such
//! a note is deleted, by its sequence, so that a copy that was uploaded since is another message.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use roam_nats::{PublishError, StateError, changes_stream, delete_message, journal_stream, stream_state};
use roam_schemas::{ContentHash, Timestamp, limits::HAVE_HASHES};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Chunks,
    index::{DROP, Owner},
    now,
};
use crate::{
    erasure::ErasedUser,
    metrics::Metrics,
    progress::Progress,
    store::{NeededChunks, Reader, StoreError},
};

/// How often messages are deleted that are of no use.
const DELETE_EVERY: Duration = Duration::from_secs(1);
/// How many at a time, and how many of them at once.
const DELETED_AT_A_TIME: usize = 2_000;
const DELETED_AT_ONCE: usize = 16;
/// How much more seldom a replica does so that does not announce: in case none does. Nothing goes wrong if several do.
const OTHERS: u32 = 4;
/// It is swept this often in a grace, and never more seldom than every so often.
const SWEEPS_IN_A_GRACE: u32 = 8;
const SWEEP_AT_LEAST_EVERY: Duration = Duration::from_secs(600);
/// How long the fold may take to reach the end of the journal before a sweep is put off.
const FOLDED_WITHIN: Duration = Duration::from_secs(30);

/// Removes chunks.
pub(crate) struct Sweeper {
    pub(crate) chunks: Chunks,
    pub(crate) reader: Reader,
    pub(crate) progress: Progress,
    /// Whether this replica is the one that announces, and so has the first turn.
    pub(crate) announces: Arc<AtomicBool>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    /// Tells who was erased.
    pub(crate) erased: mpsc::Receiver<ErasedUser>,
}

/// Why sweeping cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a sweep is put off.
#[derive(Debug, thiserror::Error)]
enum PutOff {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("what is given up cannot be noted")]
    Note(#[from] PublishError),
    #[error("the records are not read")]
    Unread(#[from] tokio::task::JoinError),
    #[error("the journal is not applied to its end")]
    Behind,
    #[error("the stream of chunks is not read to its end")]
    NotRead,
}

impl Sweeper {
    /// Sweeps until shutdown.
    pub(crate) async fn run(mut self) -> Result<(), SweepError> {
        let mut ticks = interval(DELETE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        let mut turn = 0_u32;
        let mut erased = VecDeque::new();
        while self.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            turn = turn.wrapping_add(1);
            while let Ok(user) = self.erased.try_recv() {
                erased.push_back(user);
            }
            match self.shutdown.run_until_cancelled(self.give_up_erased(&mut erased)).await {
                Some(Ok(())) => {}
                Some(Err(PutOff::Store(error))) => return Err(error.into()),
                Some(Err(error)) => {
                    tracing::debug!(error = &error as &dyn Error, "the chunks of who was erased wait");
                }
                None => break,
            }
            let patience = if self.announces.load(Ordering::Relaxed) { 1 } else { OTHERS };
            if !turn.is_multiple_of(patience) {
                continue;
            }
            let due = swept.elapsed() >= self.sweep_every() * patience;
            if due {
                swept = Instant::now();
            }
            match self.shutdown.run_until_cancelled(self.round(due)).await {
                Some(Ok(())) => {}
                Some(Err(PutOff::Store(error))) => return Err(error.into()),
                Some(Err(error)) => {
                    tracing::debug!(error = &error as &dyn Error, "a sweep of chunks is put off");
                }
                None => break,
            }
        }
        Ok(())
    }

    fn sweep_every(&self) -> Duration {
        let grace = Duration::from_secs(self.chunks.grace_seconds());
        (grace / SWEEPS_IN_A_GRACE).clamp(DELETE_EVERY, SWEEP_AT_LEAST_EVERY)
    }

    async fn round(&self, due: bool) -> Result<(), PutOff> {
        if due {
            // Twice the grace: whatever a note kept is older than the grace by then, or was kept again.
            let before = now().minus_seconds(self.chunks.grace_seconds().saturating_mul(2));
            self.chunks.index().let_notes_go(before);
            self.compare().await?;
            self.sweep().await?;
        }
        self.delete().await
    }

    /// If the stream holds less than is known of it, somebody purged it: it is read anew.
    async fn compare(&self) -> Result<(), PutOff> {
        let known = self.chunks.index().chunks() as u64;
        let state = stream_state(&self.chunks.shared.bus, &self.chunks.shared.stream).await?;
        if known > state.messages {
            tracing::warn!(known, found = state.messages, "chunks are gone from the stream: it is read anew");
            self.chunks.read_anew();
        }
        Ok(())
    }

    /// Gives up what nothing needs.
    async fn sweep(&self) -> Result<(), PutOff> {
        let through = self.applied_through().await?;
        let read = self.chunks.index().position();
        let old = self.chunks.index().kept_before(through.minus_seconds(self.chunks.grace_seconds()));
        for (owner, hashes) in old {
            self.give_up(&owner, hashes, read).await?;
        }
        Ok(())
    }

    /// Gives up what users had who were erased, but for what somebody asked for since: that was promised.
    async fn give_up_erased(&self, erased: &mut VecDeque<ErasedUser>) -> Result<(), PutOff> {
        while let Some(ErasedUser { tenant, user, time }) = erased.front() {
            // Whatever was uploaded before the order is known then.
            self.chunks.caught_up().await.map_err(|_| PutOff::NotRead)?;
            let owner = (tenant.clone(), user.clone());
            let (read, hashes) = {
                let index = self.chunks.index();
                (index.position(), index.kept_until(&owner, *time))
            };
            self.give_up(&owner, hashes, read).await?;
            erased.pop_front();
        }
        Ok(())
    }

    /// Notes that those of some chunks go which nothing needs. What was kept behind `read` stays.
    async fn give_up(&self, owner: &Owner, hashes: Vec<ContentHash>, read: u64) -> Result<(), PutOff> {
        if hashes.is_empty() {
            return Ok(());
        }
        let needed = {
            let (reader, (tenant, user)) = (self.reader.clone(), owner.clone());
            spawn_blocking(move || reader.snapshot().needed_chunks(&tenant, &user, reader.horizon())).await??
        };
        let hashes = unneeded(hashes, &needed);
        for hashes in hashes.chunks(HAVE_HASHES) {
            self.chunks.note(owner, DROP, hashes, read).await?;
            self.metrics.chunks_dropped(hashes.len());
        }
        Ok(())
    }

    /// An instant up to which everything that clients published is applied here. Asked for in this order: what is not
    /// in ROAM_CHANGES any more stands in the journal, and the journal is applied up to the end that it has after that.
    async fn applied_through(&self) -> Result<Timestamp, PutOff> {
        let (now, bus, shard) = (now(), &self.chunks.shared.bus, self.chunks.shared.shard);
        let waiting = stream_state(bus, &changes_stream(shard)).await?.first_time;
        let waiting = waiting.map(|time| u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0));
        let end = stream_state(bus, &journal_stream(shard)).await?.last_sequence;
        timeout(FOLDED_WITHIN, self.progress.reached(end)).await.map_err(|_| PutOff::Behind)?;
        Ok(waiting.map_or(now, |oldest| now.min(Timestamp::from_nanos(oldest))))
    }

    /// Deletes messages that are of no use.
    async fn delete(&self) -> Result<(), PutOff> {
        let (bus, stream) = (&self.chunks.shared.bus, &self.chunks.shared.stream);
        let leaving = self.chunks.index().leaving(DELETED_AT_A_TIME);
        let deletions = leaving
            .into_iter()
            .map(|sequence| async move { delete_message(bus, stream, sequence).await.map(|()| sequence) });
        let mut deletions = stream::iter(deletions).buffer_unordered(DELETED_AT_ONCE);
        while let Some(deleted) = deletions.next().await {
            self.chunks.index().left(deleted?);
            self.metrics.chunk_message_deleted();
        }
        Ok(())
    }
}

fn unneeded(hashes: Vec<ContentHash>, needed: &NeededChunks) -> Vec<ContentHash> {
    hashes.into_iter().filter(|hash| !needed.contains_key(hash)).collect()
}
