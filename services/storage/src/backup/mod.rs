//! Backups of a replica: a checkpoint of the running store, kept in a repository, and brought back from there.
//!
//! A repository holds files by the hash of what is in them, so that a file which is in many backups is there once, and
//! one manifest a backup. **Architecture Invariant:** the manifest comes last and goes first: a backup is whole or absent,
//! whenever whoever makes or removes it is killed. What comes out of a repository is believed only after its hash is
//! checked.
//!
//! The place is a directory, or a bucket of the object store of NATS. Never decides when a backup is made, and what a
//! replica does with one that was brought back.

mod adopt;
mod bucket;
mod chunks;
mod create;
mod directory;
mod error;
mod fetch;
mod manifest;
mod order;
mod progress;
mod prune;
mod verify;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use roam_nats::Bus;
use roam_schemas::{JournalPosition, Shard};

use self::{bucket::Bucket, directory::Directory};
pub use self::{
    create::{Created, create},
    error::BackupError,
    fetch::{RESTORED, Restored, restored},
    manifest::{
        BackupChunks, BackupFile, BackupId, BadId, FORMAT, FORMAT_WITHOUT_CHUNKS, Hash, Manifest, ManifestError,
    },
    order::{Order, Target, Told},
    progress::{Progress, Seen},
    prune::Pruned,
    verify::Verified,
};
pub(crate) use adopt::{place as place_to_adopt, settle};
pub(crate) use chunks::{place_of_chunks, waiting_chunk, waiting_chunks};
pub(crate) use create::create_with_chunks;
pub(crate) use fetch::{forget_restored, is_unfinished};

/// Where backups are kept.
#[derive(Debug, Clone)]
pub struct Repository {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(Directory),
    Bucket(Bucket),
}

/// The name of the part of a repository that has the backups of a shard; none in a deployment of one.
pub(crate) fn part_of(shard: Shard) -> Option<String> {
    (!shard.is_only()).then(|| format!("shard-{}", shard.number()))
}

/// A backup of a repository.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub id: BackupId,
    /// What it consists of, or why that is not known.
    pub manifest: Result<Manifest, ManifestError>,
}

/// Held while a backup is made, fetched or pruned.
#[derive(Debug)]
enum Guard {
    Directory(directory::Lock),
    Bucket(bucket::Sign),
}

/// Whether a file was new to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    New,
    Known,
}

impl Repository {
    /// Backups in a directory. Nothing is looked at yet.
    pub fn in_directory(path: impl Into<PathBuf>) -> Self {
        Self { place: Place::Directory(Directory::new(path.into())) }
    }

    /// Backups in the bucket that is provisioned for them.
    pub fn in_bucket(bus: &Bus) -> Self {
        Self { place: Place::Bucket(Bucket::new(bus)) }
    }

    /// The part of it that has the backups of a shard: of a directory one below it, of the bucket objects whose names begin
    /// with the shard. All of it in a deployment of one shard.
    #[must_use]
    pub fn of_shard(self, shard: Shard) -> Self {
        let Some(below) = part_of(shard) else { return self };
        let place = match self.place {
            Place::Directory(directory) => Place::Directory(directory.below(&below)),
            Place::Bucket(bucket) => Place::Bucket(bucket.below(&below)),
        };
        Self { place }
    }

    /// All backups, newest first.
    ///
    /// # Errors
    /// See [`BackupError`]. A manifest that does not read is none: it is listed as such.
    pub async fn list(&self) -> Result<Vec<Listed>, BackupError> {
        let mut listed = Vec::new();
        for id in self.ids().await? {
            let manifest = match self.manifest(&id).await {
                // It was pruned meanwhile.
                Err(BackupError::NoSuchBackup { .. }) => continue,
                Err(BackupError::Manifest { source, .. }) => Err(source),
                found => Ok(found?),
            };
            listed.push(Listed { id, manifest });
        }
        Ok(listed)
    }

    /// The newest backup whose manifest reads; none if there is none.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn newest(&self) -> Result<Option<Manifest>, BackupError> {
        for id in self.ids().await? {
            match self.manifest(&id).await {
                Err(BackupError::NoSuchBackup { .. } | BackupError::Manifest { .. }) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }

    /// What a backup consists of.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest, BackupError> {
        let bytes = match &self.place {
            Place::Directory(directory) => directory.manifest(id).await,
            Place::Bucket(bucket) => bucket.manifest(id).await,
        }?;
        let read = Manifest::read(&bytes).and_then(|manifest| {
            if manifest.id == *id {
                Ok(manifest)
            } else {
                Err(ManifestError::Damaged("it is of another backup".to_owned()))
            }
        });
        read.map_err(|source| BackupError::Manifest { id: id.clone(), source })
    }

    /// The ids of all backups, newest first.
    async fn ids(&self) -> Result<Vec<BackupId>, BackupError> {
        let mut ids = match &self.place {
            Place::Directory(directory) => directory.ids().await,
            Place::Bucket(bucket) => bucket.ids().await,
        }?;
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Keeps files from being pruned that a backup in the making counts on.
    async fn begin_create(&self, replica: &str) -> Result<Guard, BackupError> {
        Ok(match &self.place {
            Place::Directory(directory) => Guard::Directory(directory.begin_create().await?),
            Place::Bucket(bucket) => Guard::Bucket(bucket.begin_create(replica).await?),
        })
    }

    /// None while a backup is being made or fetched.
    async fn begin_prune(&self) -> Result<Option<Guard>, BackupError> {
        Ok(match &self.place {
            Place::Directory(directory) => directory.begin_prune().await?.map(Guard::Directory),
            Place::Bucket(bucket) => bucket.begin_prune().await?.map(Guard::Bucket),
        })
    }

    /// Keeps files from being pruned that are being read.
    async fn begin_read(&self) -> Result<Option<Guard>, BackupError> {
        Ok(match &self.place {
            Place::Directory(directory) => Some(Guard::Directory(directory.begin_read().await?)),
            // Whoever meets a file that was pruned is told so.
            Place::Bucket(_) => None,
        })
    }

    async fn put_file(&self, hash: Hash, source: &Path, progress: &Progress) -> Result<Kept, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.put_file(hash, source, progress).await,
            Place::Bucket(bucket) => bucket.put_file(hash, source, progress).await,
        }
    }

    async fn put_bytes(&self, hash: Hash, bytes: Bytes, progress: &Progress) -> Result<Kept, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.put_bytes(hash, bytes, progress).await,
            Place::Bucket(bucket) => bucket.put_bytes(hash, &bytes, progress).await,
        }
    }

    /// What is in a small file of so many bytes; a longer one is cut.
    async fn read_file(&self, hash: Hash, bytes: u64) -> Result<Vec<u8>, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.read_file(hash, bytes).await,
            Place::Bucket(bucket) => bucket.read_file(hash).await,
        }
    }

    /// What a file comes to.
    async fn look_at_file(&self, hash: Hash, progress: &Progress) -> Result<Got, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.look_at_file(hash, progress).await,
            Place::Bucket(bucket) => bucket.look_at_file(hash, progress).await,
        }
    }

    /// Writes a file, fsyncs it, and tells what came of it.
    async fn get_file(&self, hash: Hash, target: &Path, progress: &Progress) -> Result<Got, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.get_file(hash, target, progress).await,
            Place::Bucket(bucket) => bucket.get_file(hash, target, progress).await,
        }
    }

    async fn put_manifest(&self, id: &BackupId, bytes: Vec<u8>) -> Result<(), BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.put_manifest(id, bytes).await,
            Place::Bucket(bucket) => bucket.put_manifest(id, &bytes).await,
        }
    }

    async fn remove_manifest(&self, id: &BackupId) -> Result<(), BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.remove_manifest(id).await,
            Place::Bucket(bucket) => bucket.remove_manifest(id).await,
        }
    }

    /// The hashes of all files.
    async fn files(&self) -> Result<Vec<Hash>, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.files().await,
            Place::Bucket(bucket) => bucket.files().await,
        }
    }

    /// Removes a file; says how many bytes it had.
    async fn remove_file(&self, hash: Hash) -> Result<u64, BackupError> {
        match &self.place {
            Place::Directory(directory) => directory.remove_file(hash).await,
            Place::Bucket(bucket) => bucket.remove_file(hash).await,
        }
    }
}

/// A file that came out of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Got {
    bytes: u64,
    hash: Hash,
}

impl Guard {
    /// Says again that whoever holds it is alive: to be called at least once a minute or so.
    async fn renew(&mut self) -> Result<(), BackupError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Bucket(sign) => sign.renew().await,
        }
    }

    /// Lets go. A guard that is dropped instead lets go as well: at once in a directory, after a while in a bucket.
    async fn end(self) {
        match self {
            Self::Directory(lock) => drop(lock),
            Self::Bucket(sign) => sign.end().await,
        }
    }
}
