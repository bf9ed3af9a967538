//! Putting back: the chunks that a backup brought go onto the bus, if they are missing there and a record or a kept version
//! needs them now. They wait below the directory of the store, and go from there when that is done.
//!
//! It begins once the replica is as new as the journal: so what the journal says of a user who was erased meanwhile is
//! known by then, and nothing of theirs comes back.

use std::{collections::VecDeque, error::Error, fs, io, path::Path, time::Duration};

use bytes::Bytes;
use roam_nats::{Headers, PendingAck, PublishError};
use roam_schemas::{ContentHash, Problem, headers, limits::HAVE_HASHES};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Chunks, index::Owner};
use crate::{
    backup::{BackupError, place_of_chunks, waiting_chunk, waiting_chunks},
    progress::Progress,
    store::{Reader, StoreError},
};

/// How long to wait before trying again what failed: there may be no stream yet, or no room in it.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How many chunks may be without a PubAck: some megabytes.
const WINDOW: usize = 32;

/// Puts chunks back.
pub(crate) struct PutBack {
    pub(crate) chunks: Chunks,
    pub(crate) reader: Reader,
    pub(crate) progress: Progress,
    pub(crate) shutdown: CancellationToken,
}

/// Why chunks are not put back now.
#[derive(Debug, thiserror::Error)]
enum PutBackError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Waiting(#[from] BackupError),
    #[error("a chunk that waits cannot be read")]
    Unread(#[from] io::Error),
    #[error("the stream of chunks cannot be asked: {0}")]
    Chunks(Problem),
    #[error("a chunk is not taken")]
    Publish(#[from] PublishError),
    #[error("the records are not read")]
    Panicked(#[from] tokio::task::JoinError),
}

impl PutBack {
    /// Puts back what waits, and then waits for shutdown. What fails is tried again: it stops nothing else.
    pub(crate) async fn run(self) -> Result<(), StoreError> {
        let place = place_of_chunks(self.reader.directory());
        while place.exists() {
            match self.shutdown.run_until_cancelled(self.put_back(&place)).await {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(PutBackError::Store(error))) => return Err(error),
                Some(Err(error)) => {
                    tracing::warn!(error = &error as &dyn Error, "chunks of a backup cannot be put back now");
                    self.shutdown.run_until_cancelled(sleep(AGAIN_AFTER)).await;
                }
            }
        }
        self.shutdown.cancelled().await;
        Ok(())
    }

    /// Puts all back that is missing, and removes what waited.
    async fn put_back(&self, place: &Path) -> Result<(), PutBackError> {
        self.progress.current().await;
        let waiting = {
            let place = place.to_owned();
            spawn_blocking(move || waiting_chunks(&place)).await??
        };
        let mut sent = 0;
        for (owner, waits) in waiting {
            let needed = {
                let (reader, (tenant, user)) = (self.reader.clone(), owner.clone());
                spawn_blocking(move || reader.snapshot().needed_chunks(&tenant, &user, reader.horizon())).await??
            };
            let hashes: Vec<_> = waits.into_keys().filter(|hash| needed.contains_key(hash)).collect();
            for hashes in hashes.chunks(HAVE_HASHES) {
                let missing = self.chunks.promise(&owner, hashes).await.map_err(PutBackError::Chunks)?;
                sent += self.send(&owner, missing, place).await?;
            }
        }
        fs::remove_dir_all(place)?;
        tracing::info!(chunks = sent, "chunks of large values that a backup brought are back on the bus");
        Ok(())
    }

    /// Sends chunks of a user. Says how many.
    async fn send(&self, owner: &Owner, hashes: Vec<ContentHash>, place: &Path) -> Result<u64, PutBackError> {
        let (mut sent, mut unacked) = (0, VecDeque::<PendingAck>::with_capacity(WINDOW));
        for hash in hashes {
            let path = waiting_chunk(place, hash);
            let Some(bytes) = spawn_blocking(move || read(&path, hash)).await?? else { continue };
            if unacked.len() >= WINDOW
                && let Some(oldest) = unacked.pop_front()
            {
                oldest.await?;
            }
            let headers = Headers::new().with(headers::CHUNK, hash.to_string());
            let subject = self.chunks.upload_subject(owner);
            unacked.push_back(self.chunks.shared.publisher.publish(subject, headers, bytes).await);
            sent += 1;
        }
        for pending in unacked {
            pending.await?;
        }
        Ok(sent)
    }
}

/// Reads a chunk that waits. None if it is not what it was when it was brought back: that one is lost.
fn read(path: &Path, hash: ContentHash) -> io::Result<Option<Bytes>> {
    let bytes = fs::read(path)?;
    if ContentHash::of(&bytes) == hash {
        return Ok(Some(bytes.into()));
    }
    tracing::error!(path = %path.display(), "a chunk that a backup brought is damaged, and is left out");
    Ok(None)
}
