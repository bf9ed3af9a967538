//! The fold: the one thread that decides and writes. Batches are decided one after the other; those that came while the
//! ones before were fsynced are written together. What became of them is told to the rest of the process only after the
//! fsync. What cannot be applied stops it there, until the journal is read again.

use std::time::{Duration, Instant};

use roam_process::{Condition, clock, kill_point};
use roam_schemas::{Control, JournalBatch, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{AppliedBatch, Applier, ApplyError, Prepared},
    erasure::Erasures,
    journal::Work,
    metrics::Metrics,
    planted::planted,
    progress::Progress,
    room::{Room, pause},
    store::{Position, StoreError},
};

/// How long to wait for room on a full disk before trying again.
const FULL_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How many tombstones are removed between two batches at most: some milliseconds' work.
const REMOVED_AT_ONCE: usize = 1_000;

/// How many batches are written at once at most.
const MOST_IN_GROUP: usize = 8;

/// Applies batches.
pub(crate) struct Fold {
    pub(crate) applier: Applier,
    pub(crate) progress: Progress,
    pub(crate) metrics: Metrics,
    pub(crate) condition: Condition,
    /// Whether the disk has any left.
    pub(crate) room: Room,
    pub(crate) shutdown: CancellationToken,
    /// Says what cannot be applied.
    pub(crate) stuck: watch::Sender<Option<Stuck>>,
    /// Takes users whose rows are gone.
    pub(crate) erasures: Erasures,
}

/// A batch that this replica cannot apply. What came before it is applied, and nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Its place in the journal.
    pub(crate) position: Position,
    /// Why.
    pub(crate) reason: String,
}

/// Why no further batch can be applied. Nothing of the batch in hand was told to anybody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the applying thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("the applying thread panicked")]
    Panicked,
}

impl Fold {
    /// Applies batches until there are no more, on a thread of its own: an fsync must hold up nobody else.
    pub(crate) async fn run(self, batches: mpsc::Receiver<Work>) -> Result<(), FoldError> {
        let shutdown = self.shutdown.clone();
        let (done, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("apply".to_owned());
        let handle = thread
            .spawn(move || {
                // Nobody to tell means that the task was aborted.
                let _ = done.send(self.apply_all(batches));
            })
            .map_err(FoldError::Thread)?;
        let result = ended.await.unwrap_or(Err(FoldError::Panicked));
        // It has sent its result, so it ends now: the store is closed once it has.
        let _ = handle.join();
        result?;
        // Where no more batches come although nobody asked for that, the follower failed, and its reason is the one to tell.
        shutdown.cancelled().await;
        Ok(())
    }

    fn apply_all(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), FoldError> {
        let mut group = Vec::new();
        while let Some(first) = work.blocking_recv() {
            let mut next = Some(first);
            while let Some(Work::Batch(position, batch)) = next {
                group.push((position, batch));
                next = if group.len() < MOST_IN_GROUP { work.try_recv().ok() } else { None };
            }
            if self.is_stuck() {
                group.clear();
            }
            if !self.apply_group(&mut group)? {
                return Ok(());
            }
            match next {
                Some(Work::Begin) => self.stuck.send_if_modified(|stuck| stuck.take().is_some()),
                Some(Work::Clean) => {
                    self.clean()?;
                    true
                }
                Some(other) if !self.is_stuck() => {
                    if !self.do_other(other)? {
                        return Ok(());
                    }
                    true
                }
                Some(_) | None => true,
            };
        }
        Ok(())
    }

    fn is_stuck(&self) -> bool {
        self.stuck.borrow().is_some()
    }

    /// Does what is not the applying of batches. False if the disk was still full at shutdown.
    fn do_other(&mut self, work: Work) -> Result<bool, FoldError> {
        match work {
            Work::Passed(sequence) => self.progress.passed(sequence),
            Work::Skipped(position, batch) => {
                let prepared = self.applier.prepare_skipped(&batch, &position)?;
                return self.conclude(vec![(position, batch)], prepared, Duration::ZERO);
            }
            Work::Control(position, control) => return self.control(&position, &control),
            Work::Epoch(epoch) => return self.begin_epoch(epoch),
            Work::Batch(..) | Work::Begin | Work::Clean => {}
        }
        Ok(true)
    }

    /// Does what an operator ordered. False if the disk was still full at shutdown.
    fn control(&mut self, position: &Position, control: &Control) -> Result<bool, FoldError> {
        let Some(removed) = self.while_full(position.sequence, |applier| applier.control(control, position))? else {
            return Ok(false);
        };
        tracing::info!(sequence = position.sequence, ?control, ?removed, "what an operator ordered is done");
        if let Control::Erase(erase) = control {
            self.erasures.erased(erase, position);
        }
        self.metrics.stands_at(position);
        self.progress.controlled(position.sequence);
        Ok(true)
    }

    /// Lets revisions go on in an epoch before a line of the journal is read. False if the disk was still full at shutdown.
    fn begin_epoch(&mut self, epoch: u16) -> Result<bool, FoldError> {
        let began = self.while_full(0, |applier| applier.begin_epoch(epoch))?;
        tracing::warn!(epoch, "a new epoch begins: devices are told to begin anew, and offer what they hold");
        Ok(began.is_some())
    }

    /// Applies the batches that came while the ones before were fsynced, in one write. False if the disk was still full
    /// at shutdown.
    fn apply_group(&mut self, group: &mut Vec<(Position, JournalBatch)>) -> Result<bool, FoldError> {
        if group.is_empty() {
            return Ok(true);
        }
        let began = Instant::now();
        let mut prepared = Prepared::default();
        for (index, (position, batch)) in group.iter().enumerate() {
            if let Err(error) = self.applier.prepare_more(&mut prepared, batch, position) {
                // Those before it are as good as ever: they are applied without it.
                let (position, _) = group.split_off(index).swap_remove(0);
                let went_on = self.apply_group(group)?;
                self.stop_before(position, error)?;
                return Ok(went_on);
            }
        }
        self.conclude(std::mem::take(group), prepared, began.elapsed())
    }

    /// Nothing behind a batch that cannot be applied may be, but the replica lives on: a person, or a newer build, has to
    /// help. A store that fails is another matter.
    fn stop_before(&self, position: Position, error: ApplyError) -> Result<(), FoldError> {
        if let ApplyError::Store(_) = error {
            return Err(error.into());
        }
        let reason = error.to_string();
        tracing::error!(sequence = position.sequence, batch = %position.batch, reason, "a batch cannot be applied");
        self.stuck.send_replace(Some(Stuck { position, reason }));
        Ok(())
    }

    /// Writes what is decided of some batches, and tells the others. False if the disk was still full at shutdown.
    fn conclude(
        &mut self,
        group: Vec<(Position, JournalBatch)>,
        prepared: Prepared,
        decided: Duration,
    ) -> Result<bool, FoldError> {
        let Some((last, _)) = group.last().cloned() else {
            return Ok(true);
        };
        if planted("told-before-commit") {
            let mut verdicts = prepared.verdicts.iter().cloned();
            let early = group.iter().map(|(position, batch)| {
                let verdicts = verdicts.by_ref().take(batch.changes.len()).collect();
                AppliedBatch { sequence: position.sequence, batch: batch.clone(), verdicts }
            });
            self.progress.applied(early, &prepared.heads);
            pause(FULL_AGAIN_AFTER);
        }
        let began = Instant::now();
        kill_point("decided");
        if self.while_full(last.sequence, |applier| applier.commit(&prepared))?.is_none() {
            return Ok(false);
        }
        kill_point("committed");
        self.metrics.applied(&last, group.len(), &prepared.verdicts, decided, began.elapsed());
        let rolled_back = self.applier.take_rolled_back();
        if rolled_back > 0 {
            tracing::error!(
                operations = rolled_back,
                "the stream of changes was rolled back: its sequences come again"
            );
            self.metrics.changes_rolled_back(rolled_back);
        }
        let mut verdicts = prepared.verdicts.into_iter();
        let applied = group.into_iter().map(|(position, batch)| {
            let verdicts = verdicts.by_ref().take(batch.changes.len()).collect();
            AppliedBatch { sequence: position.sequence, batch, verdicts }
        });
        self.progress.applied(applied, &prepared.heads);
        kill_point("applied");
        Ok(true)
    }

    /// Removes some of what may go. A full disk only puts it off.
    fn clean(&mut self) -> Result<(), FoldError> {
        if self.room.is_short() {
            return Ok(());
        }
        match self.applier.clean(Timestamp::from_nanos(clock::now_ns()), REMOVED_AT_ONCE) {
            Ok(gone) => {
                self.metrics.removed(gone);
                Ok(())
            }
            Err(StoreError::Full(_)) => Ok(()),
            Err(error) => Err(ApplyError::from(error).into()),
        }
    }

    /// Writes; waits while the disk is full. None if it was still full at shutdown.
    fn while_full<T>(
        &mut self,
        sequence: u64,
        mut write: impl FnMut(&mut Applier) -> Result<T, StoreError>,
    ) -> Result<Option<T>, FoldError> {
        let mut full = false;
        loop {
            if !self.room.wait(&self.shutdown) {
                return Ok(None);
            }
            match write(&mut self.applier) {
                Ok(written) => {
                    if full {
                        self.condition.set_ready();
                    }
                    return Ok(Some(written));
                }
                Err(StoreError::Full(error)) if !self.shutdown.is_cancelled() => {
                    if !full {
                        tracing::error!(sequence, %error, "the disk of the store is full");
                    }
                    full = true;
                    self.condition.set_not_ready("storage_full: the disk of the store is full");
                    pause(FULL_AGAIN_AFTER);
                }
                Err(StoreError::Full(_)) => return Ok(None),
                Err(error) => return Err(ApplyError::from(error).into()),
            }
        }
    }
}
