//! Verifying a backup: every file is read and compared with the manifest, then all of it is opened as a store and
//! every row is read.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use super::{
    BackupChunks, BackupError, BackupFile, BackupId, Got, JournalPosition, Manifest, Place, Progress, Repository,
    directory::copy,
};
use crate::store::{ChunksOfUsers, NeededChunks, StoreSettings, open_read_only};
use roam_nats::ObjectError;

/// A backup that is as it was, and opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What it consists of.
    pub manifest: Manifest,
    /// How many rows each table has.
    pub rows: Vec<(&'static str, u64)>,
    /// How many chunks of large values its records and kept versions need that are not in it.
    pub missing_chunks: u64,
}

/// A directory that goes when this is dropped.
struct Scratch(PathBuf);

impl Repository {
    /// Reads all of a backup. From a bucket it is copied to the directory for temporary files first, in a directory
    /// into `work/`, by hard links.
    ///
    /// # Errors
    /// See [`BackupError`]: it names the first thing that is wrong.
    pub async fn verify(&self, id: &BackupId, progress: &Progress) -> Result<Verified, BackupError> {
        let guard = self.begin_read().await?;
        let manifest = self.manifest(id).await?;
        let scratch = Scratch::new(match &self.place {
            Place::Directory(directory) => directory.scratch(),
            Place::Bucket(_) => env::temp_dir().join(format!("roam-verify-{id}-{}", std::process::id())),
        })?;
        match &self.place {
            Place::Bucket(_) => self.fetch_files(&manifest, &scratch.0, progress).await?,
            Place::Directory(_) => self.link_files(&manifest, &scratch.0, progress).await?,
        }
        let chunks = self.chunks_of(&manifest).await?;
        if let Some(BackupChunks { count, bytes, .. }) = manifest.chunks {
            progress.more(count, bytes);
        }
        self.verify_chunks(id, &chunks, progress).await?;
        let verified = spawn_blocking(move || read_all(manifest, &chunks, &scratch.0)).await;
        drop(guard);
        verified.unwrap_or(Err(BackupError::Panicked))
    }

    async fn link_files(&self, manifest: &Manifest, target: &Path, progress: &Progress) -> Result<(), BackupError> {
        let Place::Directory(directory) = &self.place else { return Ok(()) };
        progress.begin(manifest.files.len() as u64, manifest.bytes());
        let mut done = 0;
        for file in &manifest.files {
            judge(&manifest.id, file, directory.look_at_file(file.blake3, progress).await)?;
            done += file.bytes;
            progress.file_done(done);
            let (from, to) = (directory.file_path(file.blake3), target.join(&file.name));
            // Not every file system has hard links.
            if fs::hard_link(&from, &to).is_err() {
                copy(&from, &to, &Progress::default())?;
            }
        }
        Ok(())
    }
}

/// Whether a file is what the manifest says.
pub(super) fn judge(id: &BackupId, file: &BackupFile, got: Result<Got, BackupError>) -> Result<(), BackupError> {
    let damaged = |what: String| BackupError::Damaged { id: id.clone(), file: file.name.clone(), what };
    match got {
        Ok(got) if got.bytes != file.bytes => {
            Err(damaged(format!("it has {} bytes, and should have {}", got.bytes, file.bytes)))
        }
        Ok(got) if got.hash != file.blake3 => Err(damaged("its hash is another one".to_owned())),
        Ok(_) => Ok(()),
        Err(BackupError::Path { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(damaged("it is missing".to_owned()))
        }
        Err(BackupError::Bucket(ObjectError::NotFound { .. })) => Err(damaged("it is missing".to_owned())),
        Err(BackupError::Bucket(ObjectError::Damaged { what, .. })) => Err(damaged(what)),
        Err(error) => Err(error),
    }
}

fn read_all(manifest: Manifest, chunks: &ChunksOfUsers, path: &Path) -> Result<Verified, BackupError> {
    let reader = open_read_only(path, &StoreSettings::default())?;
    let snapshot = reader.snapshot();
    let position = snapshot.position()?.as_ref().map(JournalPosition::from);
    if position != manifest.position {
        let sequence = |position: &Option<JournalPosition>| position.as_ref().map_or(0, |position| position.sequence);
        let (found, said) = (sequence(&position), sequence(&manifest.position));
        let what = format!("it stands at batch {found} of the journal, not at {said}");
        return Err(BackupError::Unlike { id: manifest.id, what });
    }
    let mut rows = Vec::new();
    for table in reader.tables() {
        rows.push((table, snapshot.table_digest(table)?.rows));
    }
    drop(snapshot);
    let missing_chunks = missing(&manifest, &reader.needed_chunks()?, chunks)?;
    Ok(Verified { manifest, rows, missing_chunks })
}

/// How many chunks are needed and not listed. A backup that says something else is of another store than its list.
fn missing(manifest: &Manifest, needed: &ChunksOfUsers, listed: &ChunksOfUsers) -> Result<u64, BackupError> {
    let count = |these: &ChunksOfUsers, without: &ChunksOfUsers| {
        let of_user = |(owner, chunks): (_, &NeededChunks)| {
            let without = without.get(owner);
            chunks.keys().filter(|hash| !without.is_some_and(|without| without.contains_key(hash))).count() as u64
        };
        these.iter().map(of_user).sum::<u64>()
    };
    let (missing, needless) = (count(needed, listed), count(listed, needed));
    if manifest.chunks.is_some_and(|chunks| chunks.missing != missing) || needless > 0 {
        let what = format!("of the chunks that it needs {missing} are not listed, and {needless} are that it does not");
        return Err(BackupError::Unlike { id: manifest.id.clone(), what });
    }
    Ok(missing)
}

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, BackupError> {
        fs::create_dir_all(&path).map_err(BackupError::path(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory for verifying is not removed");
        }
    }
}
