//! The fold: the one thread that decides and writes. Batches come in, are applied one after the other, and what became
//! of them is told to the rest of the process only after the fsync.

use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use roam_process::Condition;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{AppliedBatch, Applier, ApplyError, Prepared},
    journal::Work,
    metrics::Metrics,
    progress::Progress,
    store::{Position, StoreError},
};

/// How long to wait for room on a full disk before trying again.
const FULL_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Applies batches.
pub(crate) struct Fold {
    pub(crate) applier: Applier,
    pub(crate) progress: Progress,
    pub(crate) metrics: Metrics,
    pub(crate) condition: Condition,
    pub(crate) shutdown: CancellationToken,
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
        result
    }

    fn apply_all(mut self, mut batches: mpsc::Receiver<Work>) -> Result<(), FoldError> {
        while let Some(work) = batches.blocking_recv() {
            match work {
                Work::Passed(sequence) => self.progress.passed(sequence),
                Work::Batch(position, batch) => {
                    let began = Instant::now();
                    let prepared = self.applier.prepare(&batch, &position)?;
                    let decided = began.elapsed();
                    if !self.commit(&prepared, &position)? {
                        return Ok(());
                    }
                    let Prepared { verdicts, heads, .. } = prepared;
                    self.metrics.applied(position.sequence, &verdicts, decided, began.elapsed() - decided);
                    self.progress.applied(AppliedBatch { sequence: position.sequence, batch, verdicts }, &heads);
                }
            }
        }
        Ok(())
    }

    /// Writes; waits while the disk is full. False if it was still full at shutdown.
    fn commit(&mut self, prepared: &Prepared, position: &Position) -> Result<bool, FoldError> {
        let mut full = false;
        loop {
            match self.applier.commit(prepared) {
                Ok(()) => {
                    if full {
                        self.condition.set_ready();
                    }
                    return Ok(true);
                }
                Err(StoreError::Full(error)) if !self.shutdown.is_cancelled() => {
                    if !full {
                        tracing::error!(sequence = position.sequence, %error, "the disk of the store is full");
                    }
                    full = true;
                    self.condition.set_not_ready("storage_full: the disk of the store is full");
                    pause(FULL_AGAIN_AFTER);
                }
                Err(StoreError::Full(_)) => return Ok(false),
                Err(error) => return Err(ApplyError::from(error).into()),
            }
        }
    }
}

/// Waits on a thread that has nothing else to do.
fn pause(duration: Duration) {
    let (_held, silent) = std::sync::mpsc::sync_channel::<()>(0);
    if let Err(RecvTimeoutError::Disconnected) = silent.recv_timeout(duration) {
        // Cannot be: the sender is held above.
    }
}
