//! Bringing a backup back: into a directory that is empty or missing, every file checked as it is written.
//!
//! While that goes on the directory holds [`RESTORING`], and a store does not open there. At the end it holds
//! [`RESTORED`], which says what it was restored from.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use roam_process::clock;
use roam_schemas::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    BackupError, BackupId, JournalPosition, Manifest, Progress, Repository,
    chunks::place_of_chunks,
    directory::{names_in, sync_directory},
};

/// The file that a directory holds which was restored, until a replica has taken note of it.
pub const RESTORED: &str = "restored.json";
/// The file that a directory holds while it is being restored.
pub(super) const RESTORING: &str = "restoring.json";

/// What a directory was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The backup.
    pub backup: BackupId,
    /// When that was made.
    pub created: Timestamp,
    /// The name of the replica that made it.
    pub replica: String,
    /// The epoch of its revisions.
    pub epoch: u64,
    /// The highest epoch of all backups in the repository: a new one has to be above it, so that no revision is used twice.
    pub highest_epoch: u64,
    /// When it was restored, by the clock of the machine.
    pub restored: Timestamp,
    /// Where in the journal it stands; none if nothing was ever applied.
    pub position: Option<JournalPosition>,
}

/// What a directory was restored from; none if it was not, or if that was taken note of.
///
/// # Errors
/// If the file is there and does not read.
pub fn restored(directory: &Path) -> Result<Option<Restored>, BackupError> {
    let path = directory.join(RESTORED);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| BackupError::path(path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackupError::path(path)(error)),
    }
}

/// Takes note of what a directory was restored from: from here on it is a store as any other.
///
/// # Errors
/// If the note cannot be removed.
pub(crate) fn forget_restored(directory: &Path) -> Result<(), BackupError> {
    let path = directory.join(RESTORED);
    fs::remove_file(&path).map_err(BackupError::path(path))?;
    sync_directory(directory)
}

/// Whether a backup was restored into the directory in part only.
pub(crate) fn is_unfinished(directory: &Path) -> bool {
    directory.join(RESTORING).exists()
}

impl Repository {
    /// Brings a backup back into a directory that is empty or missing, with the chunks of large values: the replica that is
    /// started there puts those back on the bus that are missing. One that was restored in part is begun anew.
    ///
    /// # Errors
    /// See [`BackupError`]. The directory does not open as a store then.
    pub async fn fetch(&self, id: &BackupId, target: &Path, progress: &Progress) -> Result<Restored, BackupError> {
        self.bring(id, target, true, progress).await
    }

    /// The same without the chunks: for a bus that has them.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn fetch_records(
        &self,
        id: &BackupId,
        target: &Path,
        progress: &Progress,
    ) -> Result<Restored, BackupError> {
        self.bring(id, target, false, progress).await
    }

    async fn bring(
        &self,
        id: &BackupId,
        target: &Path,
        with_chunks: bool,
        progress: &Progress,
    ) -> Result<Restored, BackupError> {
        let guard = self.begin_read().await?;
        let manifest = self.manifest(id).await?;
        prepare(target)?;
        let highest_epoch = self.highest_epoch().await?.max(manifest.epoch);
        let restored = Restored::of(&manifest, highest_epoch);
        let note = serde_json::to_vec(&restored).map_err(|error| BackupError::path(target)(error.into()))?;
        write_note(target, RESTORING, &note)?;
        self.fetch_files(&manifest, target, progress).await?;
        if let Some(chunks) = manifest.chunks.filter(|_| with_chunks) {
            progress.more(chunks.count, chunks.bytes);
            self.fetch_chunks(&manifest, &place_of_chunks(target), progress).await?;
        }
        write_note(target, RESTORED, &note)?;
        let restoring = target.join(RESTORING);
        fs::remove_file(&restoring).map_err(BackupError::path(restoring))?;
        sync_directory(target)?;
        drop(guard);
        Ok(restored)
    }

    /// The highest epoch of all backups whose manifests read.
    async fn highest_epoch(&self) -> Result<u64, BackupError> {
        let listed = self.list().await?;
        Ok(listed.iter().filter_map(|listed| Some(listed.manifest.as_ref().ok()?.epoch)).max().unwrap_or_default())
    }

    /// Writes the files of a backup into a directory, checks and fsyncs each, and the directory.
    pub(super) async fn fetch_files(
        &self,
        manifest: &Manifest,
        target: &Path,
        progress: &Progress,
    ) -> Result<(), BackupError> {
        progress.begin(manifest.files.len() as u64, manifest.bytes());
        let mut done = 0;
        for file in &manifest.files {
            let got = self.get_file(file.blake3, &target.join(&file.name), progress).await;
            super::verify::judge(&manifest.id, file, got)?;
            done += file.bytes;
            progress.file_done(done);
        }
        sync_directory(target)
    }
}

impl Restored {
    fn of(manifest: &Manifest, highest_epoch: u64) -> Self {
        Self {
            highest_epoch,
            restored: Timestamp::from_nanos(clock::now_ns()),
            backup: manifest.id.clone(),
            created: manifest.created,
            replica: manifest.replica.clone(),
            epoch: manifest.epoch,
            position: manifest.position,
        }
    }
}

/// Makes the directory, or looks whether it is empty. What a restore began and did not end is removed: it is all that
/// such a directory holds, since a restore begins in none that holds anything.
fn prepare(target: &Path) -> Result<(), BackupError> {
    fs::create_dir_all(target).map_err(BackupError::path(target))?;
    let names = names_in(target)?;
    if !is_unfinished(target) {
        return if names.is_empty() { Ok(()) } else { Err(BackupError::NotEmpty { target: target.to_owned() }) };
    }
    // The note goes last: until then it is still one that was restored in part.
    for name in names.iter().filter(|name| *name != RESTORING) {
        let path: PathBuf = target.join(name);
        // A directory is one that was about to take its place.
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(BackupError::path(path))?;
    }
    Ok(())
}

/// Writes a file that is there whole or not at all.
pub(super) fn write_note(directory: &Path, name: &str, note: &[u8]) -> Result<(), BackupError> {
    let (unfinished, path) = (directory.join(format!("{name}.tmp")), directory.join(name));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(note)?;
        file.sync_all()
    });
    written.map_err(BackupError::path(&unfinished))?;
    fs::rename(&unfinished, &path).map_err(BackupError::path(&path))?;
    sync_directory(directory)
}
