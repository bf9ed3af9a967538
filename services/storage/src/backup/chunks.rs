//! The chunks of large values in a backup: each is a file of the repository under its own hash, so that what is in many
//! backups, or was copied before, is there once; and a list names those that one backup needs, and whose they are.
//! The list is a file of the repository as well.
//!
//! A backup that is brought back has them below the directory of the store, in [`place_of_chunks`], until the replica has
//! put those back on the bus that are missing there. Never reads from the bus, and sends nothing.
//!
//! Persisted: never change the meaning of a line; another one raises the format of the manifest.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use roam_schemas::{ContentHash, Tenant, User, limits::HAVE_HASHES};

use super::{
    BackupError, BackupFile, BackupId, Guard, Hash, Kept, Manifest, Place, Progress, Repository,
    directory::{copy, sync_directory},
    manifest::BackupChunks,
    verify::judge,
};
use crate::{
    chunks::Chunks,
    store::{ChunksOfUsers, NeededChunks},
};

/// Where chunks lie that were brought back, below the directory of the store.
const PLACE: &str = "chunks";
/// The list of them there.
const LIST: &str = "list";
/// How many chunks are copied, read or written at once: some megabytes.
const AT_ONCE: usize = 8;

/// Where chunks wait, below the directory of a store, that a backup brought.
pub(crate) fn place_of_chunks(directory: &Path) -> PathBuf {
    directory.join(PLACE)
}

/// The chunks that wait there, by their users; none if there are none.
///
/// # Errors
/// A list that cannot be read, or is none.
pub(crate) fn waiting_chunks(place: &Path) -> Result<ChunksOfUsers, BackupError> {
    let path = place.join(LIST);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ChunksOfUsers::new()),
        read => read.map_err(BackupError::path(&path))?,
    };
    read_list(&bytes).map_err(|what| BackupError::path(path)(std::io::Error::other(what)))
}

/// The file of a chunk that waits there.
pub(crate) fn waiting_chunk(place: &Path, hash: ContentHash) -> PathBuf {
    place.join(hash.to_string())
}

/// One line a chunk: its hash, its size in bytes, and tenant and user as they stand on subjects.
fn write_list(chunks: &ChunksOfUsers) -> String {
    let mut list = String::new();
    for ((tenant, user), chunks) in chunks {
        let (tenant, user) = (tenant.token(), user.token());
        for (hash, bytes) in chunks {
            list.push_str(&format!("{hash} {bytes} {tenant} {user}\n"));
        }
    }
    list
}

fn read_list(bytes: &[u8]) -> Result<ChunksOfUsers, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut chunks = ChunksOfUsers::new();
    for (number, line) in text.lines().enumerate() {
        let (owner, hash, bytes) = read_line(line).ok_or_else(|| format!("line {} names no chunk", number + 1))?;
        chunks.entry(owner).or_default().insert(hash, bytes);
    }
    Ok(chunks)
}

fn read_line(line: &str) -> Option<((Tenant, User), ContentHash, u32)> {
    let mut words = line.split(' ');
    let (hash, bytes) = (ContentHash::parse(words.next()?)?, words.next()?.parse().ok()?);
    let owner = (Tenant::from_token(words.next()?).ok()?, User::from_token(words.next()?).ok()?);
    words.next().is_none().then_some((owner, hash, bytes))
}

/// What came of copying the chunks of a backup.
pub(super) struct Copied {
    /// None if none is needed.
    pub(super) chunks: Option<BackupChunks>,
    /// How many bytes of it the repository did not have.
    pub(super) new_bytes: u64,
}

impl Repository {
    /// Copies the chunks that are needed and not in the repository yet, and writes the list of all. One that is nowhere is
    /// counted and left out; without `source` that is every one which the repository does not have.
    pub(super) async fn copy_chunks(
        &self,
        needed: &ChunksOfUsers,
        source: Option<&Chunks>,
        guard: &mut Guard,
        progress: &Progress,
    ) -> Result<Copied, BackupError> {
        if needed.is_empty() {
            return Ok(Copied { chunks: None, new_bytes: 0 });
        }
        let mut there: HashSet<Hash> = self.files().await?.into_iter().collect();
        let mut new_bytes = 0;
        for (owner, chunks) in needed {
            let absent: Vec<_> = chunks.keys().copied().filter(|hash| !there.contains(&Hash::from(*hash))).collect();
            let Some(source) = source else { continue };
            progress.more(absent.len() as u64, absent.iter().map(|hash| u64::from(chunks[hash])).sum());
            for hashes in absent.chunks(HAVE_HASHES) {
                guard.renew().await?;
                let (copied, bytes) = self.copy_group(owner, hashes, source, progress).await?;
                new_bytes += bytes;
                there.extend(copied);
            }
        }
        let mut listed = ChunksOfUsers::new();
        let mut missing = 0;
        for (owner, chunks) in needed {
            let is_there = |(hash, _): &(&ContentHash, &u32)| there.contains(&Hash::from(**hash));
            let found: NeededChunks = chunks.iter().filter(is_there).map(|(hash, bytes)| (*hash, *bytes)).collect();
            missing += (chunks.len() - found.len()) as u64;
            if !found.is_empty() {
                listed.insert(owner.clone(), found);
            }
        }
        let (count, bytes) = sum(&listed);
        let list = write_list(&listed);
        let (hash, list_bytes) = (Hash::from(blake3::hash(list.as_bytes())), list.len() as u64);
        if self.put_bytes(hash, list.into(), progress).await? == Kept::New {
            new_bytes += list_bytes;
        }
        Ok(Copied { chunks: Some(BackupChunks { count, bytes, missing, list: hash, list_bytes }), new_bytes })
    }

    /// Copies some chunks of a user that the bus has. Says which, and how many bytes of them were new.
    async fn copy_group(
        &self,
        owner: &(Tenant, User),
        hashes: &[ContentHash],
        source: &Chunks,
        progress: &Progress,
    ) -> Result<(Vec<Hash>, u64), BackupError> {
        // What is promised is not removed before it is copied.
        let absent: HashSet<_> =
            source.promise(owner, hashes).await.map_err(BackupError::Chunks)?.into_iter().collect();
        let mut copies = Vec::new();
        for hash in hashes.iter().filter(|hash| !absent.contains(hash)) {
            copies.push(self.clone().copy_chunk(owner.clone(), *hash, source.clone(), progress.clone()));
        }
        let copied: Vec<_> = stream::iter(copies).buffer_unordered(AT_ONCE).try_collect().await?;
        let copied = copied.into_iter().flatten();
        Ok(copied.fold((Vec::new(), 0), |(mut hashes, total), (hash, bytes)| {
            hashes.push(hash);
            (hashes, total + bytes)
        }))
    }

    /// Copies a chunk that the bus has. Says how many bytes of it were new; none if the bus has it no longer.
    async fn copy_chunk(
        self,
        owner: (Tenant, User),
        hash: ContentHash,
        source: Chunks,
        progress: Progress,
    ) -> Result<Option<(Hash, u64)>, BackupError> {
        let Some(bytes) = source.read(&owner, hash).await.map_err(BackupError::Chunks)? else { return Ok(None) };
        let (hash, length) = (Hash::from(hash), bytes.len() as u64);
        let kept = self.put_bytes(hash, bytes, &progress).await?;
        progress.files_done(1);
        Ok(Some((hash, if kept == Kept::New { length } else { 0 })))
    }

    /// The chunks of a backup, by their users.
    pub(super) async fn chunks_of(&self, manifest: &Manifest) -> Result<ChunksOfUsers, BackupError> {
        let Some(chunks) = &manifest.chunks else { return Ok(ChunksOfUsers::new()) };
        let damaged =
            |what| BackupError::Damaged { id: manifest.id.clone(), file: "the list of chunks".to_owned(), what };
        let bytes = match self.read_file(chunks.list, chunks.list_bytes).await {
            Ok(bytes) if Hash::from(blake3::hash(&bytes)) == chunks.list => bytes,
            Ok(_) => return Err(damaged("its hash is another one".to_owned())),
            Err(error) => {
                let list = BackupFile { name: "the list of chunks".to_owned(), bytes: 0, blake3: chunks.list };
                return Err(judge(&manifest.id, &list, Err(error)).err().unwrap_or(BackupError::Panicked));
            }
        };
        let listed = read_list(&bytes).map_err(damaged)?;
        let found = sum(&listed);
        if found != (chunks.count, chunks.bytes) {
            return Err(damaged(format!("it names {} chunks of {} bytes", found.0, found.1)));
        }
        Ok(listed)
    }

    /// Compares every chunk of a backup with its hash.
    pub(super) async fn verify_chunks(
        &self,
        id: &BackupId,
        chunks: &ChunksOfUsers,
        progress: &Progress,
    ) -> Result<(), BackupError> {
        let looks: Vec<_> = files(chunks)
            .into_iter()
            .map(|file| self.clone().verify_chunk(id.clone(), file, progress.clone()))
            .collect();
        stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Brings the chunks of a backup into a directory, where the list of them comes last.
    pub(super) async fn fetch_chunks(
        &self,
        manifest: &Manifest,
        place: &Path,
        progress: &Progress,
    ) -> Result<(), BackupError> {
        let chunks = self.chunks_of(manifest).await?;
        if chunks.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(place).map_err(BackupError::path(place))?;
        let mut fetches = Vec::new();
        for file in files(&chunks) {
            fetches.push(self.clone().fetch_chunk(manifest.id.clone(), file, place.to_owned(), progress.clone()));
        }
        stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        super::fetch::write_note(place, LIST, write_list(&chunks).as_bytes())?;
        sync_directory(place)
    }

    async fn verify_chunk(self, id: BackupId, file: BackupFile, progress: Progress) -> Result<(), BackupError> {
        judge(&id, &file, self.look_at_file(file.blake3, &progress).await)?;
        progress.files_done(1);
        Ok(())
    }

    async fn fetch_chunk(
        self,
        id: BackupId,
        file: BackupFile,
        place: PathBuf,
        progress: Progress,
    ) -> Result<(), BackupError> {
        let target = place.join(file.blake3.to_hex());
        match &self.place {
            Place::Bucket(bucket) => judge(&id, &file, bucket.get_file(file.blake3, &target, &progress).await)?,
            Place::Directory(directory) => {
                judge(&id, &file, directory.look_at_file(file.blake3, &progress).await)?;
                let source = directory.file_path(file.blake3);
                // Not every file system has hard links, and the directory may be on another one.
                if fs::hard_link(&source, &target).is_err() {
                    judge(&id, &file, copy(&source, &target, &Progress::default()))?;
                }
            }
        }
        progress.files_done(1);
        Ok(())
    }
}

/// How many chunks there are, and how many bytes they have.
fn sum(chunks: &ChunksOfUsers) -> (u64, u64) {
    let sizes = chunks.values().flat_map(NeededChunks::values);
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + u64::from(*size)))
}

/// Each chunk once, as a file of a backup.
fn files(chunks: &ChunksOfUsers) -> Vec<BackupFile> {
    let sizes: BTreeMap<_, _> = chunks.values().flatten().map(|(hash, bytes)| (*hash, *bytes)).collect();
    let file = |(hash, bytes): (ContentHash, u32)| BackupFile {
        name: format!("chunk {hash}"),
        bytes: bytes.into(),
        blake3: hash.into(),
    };
    sizes.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owner(tenant: &str, user: &str) -> (Tenant, User) {
        (Tenant::parse(tenant).unwrap(), User::parse(user).unwrap())
    }

    #[test]
    fn a_list_names_whose_each_chunk_is_and_reads_as_it_was_written() {
        let (a, b) = (ContentHash::of(b"a"), ContentHash::of(b"b"));
        let chunks: ChunksOfUsers = [
            (owner("acme", "alice smith"), [(a, 1), (b, 262_144)].into()),
            (owner("acme", "bob@example.com\n"), [(a, 1)].into()),
        ]
        .into();
        let list = write_list(&chunks);
        assert_eq!(list.lines().count(), 3);
        assert_eq!(read_list(list.as_bytes()).unwrap(), chunks);
        assert_eq!((sum(&chunks), files(&chunks).len()), ((3, 262_146), 2));
    }

    #[test]
    fn what_names_no_chunk_is_refused() {
        let hash = ContentHash::of(b"a");
        let bad = [
            format!("{hash} 1 acme"),
            format!("{hash} 1 acme alice more"),
            format!("{hash} x acme alice"),
            format!("{hash} 1 acme *"),
            format!("{} 1 acme alice", hash.to_string().to_uppercase()),
            String::new() + "\n",
        ];
        for line in bad {
            assert!(read_list(line.as_bytes()).unwrap_err().starts_with("line 1"), "{line}");
        }
        assert!(read_list(b"\xff").is_err());
        assert_eq!(read_list(b"").unwrap(), ChunksOfUsers::new());
    }
}
