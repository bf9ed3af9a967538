//! Making a backup: a checkpoint, its files, and the manifest last.

use std::{path::Path, time::Duration};

use roam_process::clock;
use roam_schemas::Timestamp;
use tokio::task::spawn_blocking;

use super::{
    BackupError, BackupFile, BackupId, FORMAT, FORMAT_WITHOUT_CHUNKS, JournalPosition, Kept, Manifest, Progress,
    Repository,
    directory::{hash_file, names_in},
    manifest::is_plain,
};
use crate::{
    chunks::Chunks,
    store::{Checkpoint, Reader},
};

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// What it consists of.
    pub manifest: Manifest,
    /// How many bytes of it the repository did not have.
    pub new_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Makes a backup of a running store, while whoever writes goes on. Beside others, but not beside another one of the
/// same store. Nobody is asked for the chunks of large values: those that are not in the repository count as missing.
///
/// # Errors
/// See [`BackupError`]. No backup is there then; what was copied for it serves the next one, or is pruned.
pub async fn create(
    reader: &Reader,
    replica: &str,
    repository: &Repository,
    progress: &Progress,
) -> Result<Created, BackupError> {
    make(reader, replica, repository, None, progress).await
}

/// The same with the chunks of large values that its records and kept versions need.
///
/// # Errors
/// As [`create`].
pub(crate) async fn create_with_chunks(
    reader: &Reader,
    replica: &str,
    repository: &Repository,
    chunks: &Chunks,
    progress: &Progress,
) -> Result<Created, BackupError> {
    make(reader, replica, repository, Some(chunks), progress).await
}

async fn make(
    reader: &Reader,
    replica: &str,
    repository: &Repository,
    chunks: Option<&Chunks>,
    progress: &Progress,
) -> Result<Created, BackupError> {
    let began = std::time::Instant::now();
    let mut guard = repository.begin_create(replica).await?;
    let created = Timestamp::from_nanos(clock::now_ns());
    let reader = reader.clone();
    let checkpoint = spawn_blocking(move || reader.checkpoint()).await.map_err(|_| BackupError::Panicked)??;
    let (files, new_bytes) = copy_files(&checkpoint, repository, &mut guard, progress).await?;
    let copied = repository.copy_chunks(checkpoint.chunks(), chunks, &mut guard, progress).await?;
    let position = checkpoint.position().map(JournalPosition::from);
    let manifest = Manifest {
        format: if copied.chunks.is_some() { FORMAT } else { FORMAT_WITHOUT_CHUNKS },
        id: BackupId::new(created, replica, position.as_ref()),
        created,
        replica: replica.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store_format: checkpoint.format(),
        epoch: checkpoint.epoch(),
        position,
        files,
        chunks: copied.chunks,
    };
    let bytes = manifest.write().map_err(|error| BackupError::path(checkpoint.path())(error.into()))?;
    repository.put_manifest(&manifest.id, bytes).await?;
    guard.end().await;
    Ok(Created { manifest, new_bytes: new_bytes + copied.new_bytes, took: began.elapsed() })
}

async fn copy_files(
    checkpoint: &Checkpoint,
    repository: &Repository,
    guard: &mut super::Guard,
    progress: &Progress,
) -> Result<(Vec<BackupFile>, u64), BackupError> {
    let names = files_of(checkpoint.path())?;
    let mut bytes = 0;
    for name in &names {
        let path = checkpoint.path().join(name);
        bytes += path.metadata().map_err(BackupError::path(&path))?.len();
    }
    progress.begin(names.len() as u64, bytes);
    let (mut files, mut done, mut new_bytes) = (Vec::with_capacity(names.len()), 0, 0);
    for name in names {
        guard.renew().await?;
        let path = checkpoint.path().join(&name);
        let hashed = path.clone();
        let got = spawn_blocking(move || hash_file(&hashed)).await.map_err(|_| BackupError::Panicked)??;
        if repository.put_file(got.hash, &path, progress).await? == Kept::New {
            new_bytes += got.bytes;
        }
        done += got.bytes;
        progress.file_done(done);
        files.push(BackupFile { name, bytes: got.bytes, blake3: got.hash });
    }
    Ok((files, new_bytes))
}

/// The files of a checkpoint, in order of their names. RocksDB's lock and its logs for people belong to no backup.
fn files_of(path: &Path) -> Result<Vec<String>, BackupError> {
    let belongs = |name: &String| is_plain(name) && name != "LOCK" && !name.starts_with("LOG");
    let mut names = names_in(path)?;
    names.retain(belongs);
    names.sort_unstable();
    Ok(names)
}
