//! What follows the erasure of a user, beside the fold: the bytes of the rows leave the files, and the chunks of large
//! values are given up at once. What a replica reads of a user is gone before any of this begins.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use roam_process::clock;
use roam_schemas::{Erase, Tenant, Timestamp, User};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::store::{Position, Reader, StoreError, UserKey};

/// How many erased users may wait for their bytes to go, and for their chunks to.
const AHEAD: usize = 1_024;
/// Whoever was erased so many seconds ago is compacted again at a start: it may have ended before that was done.
const AGAIN_SECONDS: u64 = 24 * 3_600;

/// A user who was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErasedUser {
    pub(crate) tenant: Tenant,
    pub(crate) user: User,
    /// When the journal took the order in.
    pub(crate) time: Timestamp,
}

/// Tells what has to be done for users who were erased.
pub(crate) struct Erasures {
    files: mpsc::Sender<UserKey>,
    chunks: mpsc::Sender<ErasedUser>,
    leaving: Leaving,
}

/// How many users' bytes have not left the files yet. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving(Arc<AtomicU64>);

/// Has bytes leave the files.
pub(crate) struct Compactor {
    pub(crate) reader: Reader,
    pub(crate) shutdown: CancellationToken,
    files: mpsc::Receiver<UserKey>,
    leaving: Leaving,
}

impl Leaving {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn more(&self, users: usize) {
        self.0.fetch_add(users as u64, Ordering::AcqRel);
    }

    fn less(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who tells, who has bytes leave, and whose chunks are to be given up.
pub(crate) fn erasures(
    reader: Reader,
    shutdown: CancellationToken,
) -> (Erasures, Compactor, mpsc::Receiver<ErasedUser>) {
    let ((files, to_compact), (chunks, to_give_up)) = (mpsc::channel(AHEAD), mpsc::channel(AHEAD));
    let leaving = Leaving::default();
    let compactor = Compactor { reader, shutdown, files: to_compact, leaving: leaving.clone() };
    (Erasures { files, chunks, leaving }, compactor, to_give_up)
}

impl Erasures {
    /// The rows of a user are gone. Never waits: what does not fit goes later by itself, with compactions and sweeps.
    pub(crate) fn erased(&self, erase: &Erase, position: &Position) {
        let Erase { tenant, user } = erase.clone();
        let key = UserKey::new(&tenant, &user);
        self.leaving.more(1);
        if self.files.try_send(key).is_err() {
            self.leaving.less();
            tracing::warn!("too many users are erased at once: the bytes of one go with later compactions");
        }
        let time = Timestamp::from_nanos(position.published);
        if self.chunks.try_send(ErasedUser { tenant, user, time }).is_err() {
            tracing::warn!("too many users are erased at once: the chunks of one go with later sweeps");
        }
    }
}

impl Compactor {
    /// How many users' bytes have not left the files yet.
    pub(crate) fn leaving(&self) -> Leaving {
        self.leaving.clone()
    }

    /// Has bytes leave the files, until shutdown. What is not done then is done again at the next start.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let since = Timestamp::from_nanos(clock::now_ns()).minus_seconds(AGAIN_SECONDS);
        let before = self.reader.erased_since(since)?;
        self.leaving.more(before.len());
        for user in before {
            self.compact(user).await?;
        }
        let shutdown = self.shutdown.clone();
        while let Some(Some(user)) = shutdown.run_until_cancelled(self.files.recv()).await {
            self.compact(user).await?;
        }
        shutdown.cancelled().await;
        Ok(())
    }

    async fn compact(&self, user: UserKey) -> Result<(), StoreError> {
        if self.shutdown.is_cancelled() {
            return Ok(());
        }
        let reader = self.reader.clone();
        // A panic in there is RocksDB's, and the store is of no use then.
        spawn_blocking(move || reader.compact_user(&user)).await.unwrap_or(Ok(()))?;
        self.leaving.less();
        Ok(())
    }
}
