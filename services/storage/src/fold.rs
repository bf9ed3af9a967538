//! The fold: decides and writes, one batch of the journal after the other. Those that came while the ones before were fsynced
//! are written together. What became of them is told to the rest of the process only after the fsync. What cannot be applied
//! stops it there, until the journal is read again.
//!
//! Two threads take turns: while one writes, the other decides on what comes next. Whoever decides holds `deciding`, takes
//! `writing` before letting go of it, and so nothing is written out of order, and nothing is decided while more than one group
//! is not written yet: what that writes is known beside the store (`apply/facts.rs`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

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
    store::{Committer, Position, StoreError},
};

/// How long to wait for room on a full disk before trying again.
const FULL_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How many tombstones are removed between two batches at most: some milliseconds' work.
const REMOVED_AT_ONCE: usize = 1_000;

/// How many batches are written at once at most.
const MOST_IN_GROUP: usize = 8;

/// One that writes, and one that decides meanwhile.
const THREADS: usize = 2;

/// With fewer changes than this, waking the other thread would cost more than it saves: they are decided in less time than an
/// fsync takes.
const WORTH_A_TURN: usize = 16;

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
    #[error("an applying thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("an applying thread panicked")]
    Panicked,
}

/// What the two threads share.
struct Turns {
    deciding: Mutex<Deciding>,
    writing: Mutex<Writing>,
    progress: Progress,
    metrics: Metrics,
    condition: Condition,
    room: Room,
    shutdown: CancellationToken,
    stuck: watch::Sender<Option<Stuck>>,
    erasures: Erasures,
}

/// What whoever decides has.
struct Deciding {
    work: mpsc::Receiver<Work>,
    applier: Applier,
}

/// What whoever writes has.
struct Writing {
    committer: Committer,
    /// Something was not written, so nothing behind it may be.
    is_over: bool,
}

/// Batches that are written together, each with the position after it.
type Group = Vec<(Position, JournalBatch)>;

/// A group that is decided.
struct Decided {
    group: Group,
    prepared: Prepared,
    /// How many operations showed that ROAM_CHANGES was rolled back.
    rolled_back: u64,
    took: Duration,
}

impl Fold {
    /// Applies batches until there are no more, on threads of its own: an fsync must hold up nobody else.
    pub(crate) async fn run(self, work: mpsc::Receiver<Work>) -> Result<(), FoldError> {
        let Self { applier, progress, metrics, condition, room, shutdown, stuck, erasures } = self;
        let turns = Arc::new(Turns {
            writing: Mutex::new(Writing { committer: applier.committer(), is_over: false }),
            deciding: Mutex::new(Deciding { work, applier }),
            progress,
            metrics,
            condition,
            room,
            shutdown: shutdown.clone(),
            stuck,
            erasures,
        });
        let (done, mut ended) = mpsc::channel(THREADS);
        let mut threads = Vec::with_capacity(THREADS);
        for _ in 0..THREADS {
            let (turns, done) = (Arc::clone(&turns), done.clone());
            let take_turns = move || {
                let result = catch_unwind(AssertUnwindSafe(|| turns.take())).unwrap_or(Err(FoldError::Panicked));
                // Nobody to tell means that the task was aborted.
                let _ = done.blocking_send(result);
            };
            let thread = std::thread::Builder::new().name("apply".to_owned());
            threads.push(thread.spawn(take_turns).map_err(FoldError::Thread)?);
        }
        for _ in 0..THREADS {
            // With an error the other one ends once no more work comes, as it does when this task has failed.
            ended.recv().await.unwrap_or(Err(FoldError::Panicked))?;
        }
        // They have sent their results, so they end now: the store is closed once they have.
        for thread in threads {
            let _ = thread.join();
        }
        drop(turns);
        // Where no more batches come although nobody asked for that, the follower failed, and its reason is the one to tell.
        shutdown.cancelled().await;
        Ok(())
    }
}

impl Turns {
    fn take(&self) -> Result<(), FoldError> {
        while self.turn()? {}
        Ok(())
    }

    /// Decides on what is there, and writes it. False once no more comes, or may be written.
    fn turn(&self) -> Result<bool, FoldError> {
        let mut deciding = lock(&self.deciding)?;
        let Some((mut group, other)) = deciding.next() else { return Ok(false) };
        if self.is_stuck() {
            group.clear();
        }
        let began = Instant::now();
        let prepared = deciding.prepare(&group);
        // All that came before it is written now.
        let mut writing = lock(&self.writing)?;
        if writing.is_over {
            return Ok(false);
        }
        let went_on = match prepared {
            Ok(prepared) => {
                let decided = deciding.decided(group, prepared, began.elapsed());
                self.write(deciding, &writing, decided, other)
            }
            Err(stopped) => {
                let went_on = self.apply_before(&mut deciding, &writing, group, stopped);
                self.then_other(&mut deciding, &writing, went_on, other)
            }
        };
        writing.is_over = !matches!(went_on, Ok(true));
        went_on
    }

    /// Writes a group, and does what comes behind it. Where that is nothing and the group is worth it, the other thread decides
    /// on the next one meanwhile. False if the disk was still full at shutdown.
    fn write(
        &self,
        mut deciding: MutexGuard<'_, Deciding>,
        writing: &Writing,
        decided: Decided,
        other: Option<Work>,
    ) -> Result<bool, FoldError> {
        if other.is_none() && decided.changes() >= WORTH_A_TURN {
            drop(deciding);
            return self.conclude(writing, decided);
        }
        let went_on = self.conclude(writing, decided);
        self.then_other(&mut deciding, writing, went_on, other)
    }

    /// Does what comes behind a group, if that is written and there is something.
    fn then_other(
        &self,
        deciding: &mut Deciding,
        writing: &Writing,
        went_on: Result<bool, FoldError>,
        other: Option<Work>,
    ) -> Result<bool, FoldError> {
        match (went_on, other) {
            (Ok(true), Some(other)) => self.do_other(deciding, writing, other),
            (went_on, _) => went_on,
        }
    }

    fn is_stuck(&self) -> bool {
        self.stuck.borrow().is_some()
    }

    /// Does what is not the applying of batches. False if the disk was still full at shutdown.
    fn do_other(&self, deciding: &mut Deciding, writing: &Writing, work: Work) -> Result<bool, FoldError> {
        match work {
            Work::Begin => {
                self.stuck.send_if_modified(|stuck| stuck.take().is_some());
            }
            Work::Clean => self.clean(&mut deciding.applier)?,
            _ if self.is_stuck() => {}
            Work::Passed(sequence) => self.progress.passed(sequence),
            Work::PassedOver(passed) => {
                deciding.applier.pass(passed);
                self.progress.passed(passed.sequence);
            }
            Work::Skipped(position, batch) => {
                let prepared = deciding.applier.prepare_skipped(&batch, &position)?;
                let decided = deciding.decided(vec![(position, batch)], prepared, Duration::ZERO);
                return self.conclude(writing, decided);
            }
            Work::Control(position, control) => return self.control(&mut deciding.applier, &position, &control),
            Work::Epoch(epoch) => return self.begin_epoch(&mut deciding.applier, epoch),
            Work::Batch(..) => {}
        }
        Ok(true)
    }

    /// Does what an operator ordered. False if the disk was still full at shutdown.
    fn control(&self, applier: &mut Applier, position: &Position, control: &Control) -> Result<bool, FoldError> {
        let Some(removed) = self.while_full(position.sequence, || applier.control(control, position))? else {
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
    fn begin_epoch(&self, applier: &mut Applier, epoch: u16) -> Result<bool, FoldError> {
        let began = self.while_full(0, || applier.begin_epoch(epoch))?;
        tracing::warn!(epoch, "a new epoch begins: devices are told to begin anew, and offer what they hold");
        Ok(began.is_some())
    }

    /// Applies the batches of a group that are before one that cannot be applied, and stands still there. They are decided
    /// anew: nothing that was prepared counts. False if the disk was still full at shutdown.
    fn apply_before(
        &self,
        deciding: &mut Deciding,
        writing: &Writing,
        mut group: Group,
        (index, error): (usize, ApplyError),
    ) -> Result<bool, FoldError> {
        let (position, _) = group.split_off(index).swap_remove(0);
        let began = Instant::now();
        let went_on = match deciding.prepare(&group) {
            Ok(prepared) => self.conclude(writing, deciding.decided(group, prepared, began.elapsed()))?,
            Err(stopped) => return self.apply_before(deciding, writing, group, stopped),
        };
        self.stop_before(position, error)?;
        Ok(went_on)
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
    fn conclude(&self, writing: &Writing, decided: Decided) -> Result<bool, FoldError> {
        let Decided { group, prepared, rolled_back, took } = decided;
        let Some(last) = group.last().map(|(position, _)| position.clone()) else {
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
        if self.while_full(last.sequence, || writing.committer.commit(&prepared.commit))?.is_none() {
            return Ok(false);
        }
        kill_point("committed");
        self.metrics.applied(&last, group.len(), &prepared.verdicts, took, began.elapsed());
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

    /// Removes some of what may go, and writes down what was passed over since the last time, however many entries that were. A
    /// full disk only puts it off.
    fn clean(&self, applier: &mut Applier) -> Result<(), FoldError> {
        if self.room.is_short() {
            return Ok(());
        }
        let now = Timestamp::from_nanos(clock::now_ns());
        match applier.write_passed().and_then(|()| applier.clean(now, REMOVED_AT_ONCE)) {
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
        &self,
        sequence: u64,
        mut write: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<Option<T>, FoldError> {
        let mut full = false;
        loop {
            if !self.room.wait(&self.shutdown) {
                return Ok(None);
            }
            match write() {
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

impl Decided {
    /// How many changes it has.
    fn changes(&self) -> usize {
        self.group.iter().map(|(_, batch)| batch.changes.len()).sum()
    }
}

impl Deciding {
    /// Waits for work. Gives the batches that are there, and what comes behind them if that is something else.
    fn next(&mut self) -> Option<(Group, Option<Work>)> {
        let (mut group, mut next) = (Group::new(), Some(self.work.blocking_recv()?));
        while let Some(Work::Batch(position, batch)) = next {
            group.push((position, batch));
            next = if group.len() < MOST_IN_GROUP { self.work.try_recv().ok() } else { None };
        }
        Some((group, next))
    }

    /// Decides on the batches of a group.
    ///
    /// # Errors
    /// The index of the first that cannot be applied, and why. Nothing that was prepared counts then.
    fn prepare(&mut self, group: &Group) -> Result<Prepared, (usize, ApplyError)> {
        self.applier.prepare_group(group.iter().map(|(position, batch)| (position, batch)))
    }

    /// What is decided is to be written next: what is decided from here on stands on it.
    fn decided(&mut self, group: Group, prepared: Prepared, took: Duration) -> Decided {
        self.applier.hand_over();
        Decided { group, prepared, rolled_back: self.applier.take_rolled_back(), took }
    }
}

/// What is held by whoever is not dead: with half of its work done, nobody may go on.
fn lock<T>(held: &Mutex<T>) -> Result<MutexGuard<'_, T>, FoldError> {
    held.lock().map_err(|_| FoldError::Panicked)
}

#[cfg(test)]
mod tests;
