//! A repository in a directory: `backups/<id>.json`, `files/<first two digits>/<hash>`, `work/` for what is not finished,
//! and `lock`. A file gets its name once it is whole and fsynced.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    BackupError, Got, Kept, Progress,
    manifest::{self, BackupId, Hash},
};

/// How much of a file is in memory at a time.
const BUFFER: usize = 1024 * 1024;
const BACKUPS: &str = "backups";
const FILES: &str = "files";
const WORK: &str = "work";
const LOCK: &str = "lock";
const SUFFIX: &str = ".json";

/// Tells the unfinished files of one process apart.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// A repository in a directory.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    root: Arc<PathBuf>,
}

/// Shared by those who make and read backups, held alone by who prunes. Let go when dropped, also by a kill.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root: Arc::new(root) }
    }

    /// A repository in a directory below this one.
    pub(super) fn below(&self, name: &str) -> Self {
        Self::new(self.root.join(name))
    }

    pub(super) async fn ids(&self) -> Result<Vec<BackupId>, BackupError> {
        self.blocking(|this| {
            this.check()?;
            let names = names_in(&this.root.join(BACKUPS))?;
            Ok(names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect())
        })
        .await
    }

    pub(super) async fn manifest(&self, id: &BackupId) -> Result<Vec<u8>, BackupError> {
        let id = id.clone();
        self.blocking(move |this| {
            this.check()?;
            let path = this.manifest_path(&id);
            let mut bytes = Vec::new();
            let limit = manifest::MAX_BYTES as u64;
            match File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
                Ok(_) => Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BackupError::NoSuchBackup { id }),
                Err(error) => Err(BackupError::path(path)(error)),
            }
        })
        .await
    }

    pub(super) async fn put_manifest(&self, id: &BackupId, bytes: Vec<u8>) -> Result<(), BackupError> {
        let id = id.clone();
        self.blocking(move |this| {
            let unfinished = this.unfinished();
            write(&unfinished, &bytes)?;
            put_in_place(&unfinished, &this.manifest_path(&id))
        })
        .await
    }

    pub(super) async fn remove_manifest(&self, id: &BackupId) -> Result<(), BackupError> {
        let id = id.clone();
        self.blocking(move |this| {
            remove(&this.manifest_path(&id))?;
            // Files go only once nothing on the disk names them.
            sync_directory(&this.root.join(BACKUPS))
        })
        .await
    }

    pub(super) async fn put_file(&self, hash: Hash, source: &Path, progress: &Progress) -> Result<Kept, BackupError> {
        let (source, progress) = (source.to_owned(), progress.clone());
        self.blocking(move |this| {
            let path = this.file_path(hash);
            if path.exists() {
                return Ok(Kept::Known);
            }
            let unfinished = this.unfinished();
            let got = copy(&source, &unfinished, &progress)?;
            if got.hash != hash {
                let changed = io::Error::other("it changed while it was copied");
                return Err(BackupError::path(source)(changed));
            }
            put_in_place(&unfinished, &path)?;
            Ok(Kept::New)
        })
        .await
    }

    pub(super) async fn put_bytes(&self, hash: Hash, bytes: Bytes, progress: &Progress) -> Result<Kept, BackupError> {
        let progress = progress.clone();
        self.blocking(move |this| {
            let path = this.file_path(hash);
            if path.exists() {
                return Ok(Kept::Known);
            }
            let unfinished = this.unfinished();
            write(&unfinished, &bytes)?;
            put_in_place(&unfinished, &path)?;
            progress.add(bytes.len() as u64);
            Ok(Kept::New)
        })
        .await
    }

    pub(super) async fn read_file(&self, hash: Hash, bytes: u64) -> Result<Vec<u8>, BackupError> {
        self.blocking(move |this| {
            let path = this.file_path(hash);
            let mut read = Vec::new();
            let file = File::open(&path).map_err(BackupError::path(&path))?;
            file.take(bytes).read_to_end(&mut read).map_err(BackupError::path(path))?;
            Ok(read)
        })
        .await
    }

    pub(super) async fn get_file(&self, hash: Hash, target: &Path, progress: &Progress) -> Result<Got, BackupError> {
        let (target, progress) = (target.to_owned(), progress.clone());
        self.blocking(move |this| copy(&this.file_path(hash), &target, &progress)).await
    }

    /// What a file comes to.
    pub(super) async fn look_at_file(&self, hash: Hash, progress: &Progress) -> Result<Got, BackupError> {
        let progress = progress.clone();
        self.blocking(move |this| {
            let path = this.file_path(hash);
            File::open(&path).and_then(|file| pour(file, io::sink(), &progress)).map_err(BackupError::path(path))
        })
        .await
    }

    pub(super) async fn files(&self) -> Result<Vec<Hash>, BackupError> {
        self.blocking(|this| {
            let mut hashes = Vec::new();
            for part in names_in(&this.root.join(FILES))? {
                let names = names_in(&this.root.join(FILES).join(part))?;
                hashes.extend(names.iter().filter_map(|name| name.parse::<Hash>().ok()));
            }
            Ok(hashes)
        })
        .await
    }

    pub(super) async fn remove_file(&self, hash: Hash) -> Result<u64, BackupError> {
        self.blocking(move |this| {
            let path = this.file_path(hash);
            let bytes = fs::metadata(&path).map_or(0, |found| found.len());
            remove(&path)?;
            Ok(bytes)
        })
        .await
    }

    /// Makes the repository if there is none, and removes what killed processes left in it.
    pub(super) async fn begin_create(&self) -> Result<Lock, BackupError> {
        self.blocking(|this| {
            this.make()?;
            let file = this.open_lock()?;
            match file.try_lock() {
                Ok(()) => this.remove_unfinished()?,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(BackupError::path(this.root.join(LOCK))(error)),
            }
            // Never both at once: what is locked alone is let go first, and nothing of ours is there yet.
            file.unlock().and_then(|()| file.lock_shared()).map_err(BackupError::path(this.root.join(LOCK)))?;
            Ok(Lock { _file: file })
        })
        .await
    }

    pub(super) async fn begin_read(&self) -> Result<Lock, BackupError> {
        self.blocking(|this| {
            this.check()?;
            let file = this.open_lock()?;
            file.lock_shared().map_err(BackupError::path(this.root.join(LOCK)))?;
            Ok(Lock { _file: file })
        })
        .await
    }

    pub(super) async fn begin_prune(&self) -> Result<Option<Lock>, BackupError> {
        self.blocking(|this| {
            this.check()?;
            let file = this.open_lock()?;
            match file.try_lock() {
                Ok(()) => {
                    this.remove_unfinished()?;
                    Ok(Some(Lock { _file: file }))
                }
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(BackupError::path(this.root.join(LOCK))(error)),
            }
        })
        .await
    }

    /// A directory for what is looked at only now, on the file system of the repository.
    pub(super) fn scratch(&self) -> PathBuf {
        self.unfinished()
    }

    pub(super) fn file_path(&self, hash: Hash) -> PathBuf {
        let name = hash.to_hex();
        self.root.join(FILES).join(&name[..2]).join(name)
    }

    fn manifest_path(&self, id: &BackupId) -> PathBuf {
        self.root.join(BACKUPS).join(format!("{id}{SUFFIX}"))
    }

    fn unfinished(&self) -> PathBuf {
        let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
        self.root.join(WORK).join(format!("{}-{number}", std::process::id()))
    }

    /// Whether there is a repository.
    fn check(&self) -> Result<(), BackupError> {
        let there = self.root.join(BACKUPS).is_dir();
        if there { Ok(()) } else { Err(BackupError::NoRepository { path: self.root.to_path_buf() }) }
    }

    fn make(&self) -> Result<(), BackupError> {
        let root = self.root.as_path();
        if !root.join(BACKUPS).is_dir() && root.is_dir() && !names_in(root)?.iter().all(|name| is_ours(name)) {
            return Err(BackupError::NotARepository { path: root.to_owned() });
        }
        for part in [FILES, WORK, BACKUPS] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(BackupError::path(path))?;
        }
        sync_directory(root)
    }

    fn open_lock(&self) -> Result<File, BackupError> {
        let path = self.root.join(LOCK);
        let made = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        // A repository that may only be read has one already.
        made.or_else(|_| File::open(&path)).map_err(BackupError::path(path))
    }

    fn remove_unfinished(&self) -> Result<(), BackupError> {
        let work = self.root.join(WORK);
        for name in names_in(&work)? {
            let path = work.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(BackupError::path(path))?;
            } else {
                remove(&path)?;
            }
        }
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, BackupError> + Send + 'static,
    ) -> Result<T, BackupError> {
        let this = self.clone();
        spawn_blocking(move || work(&this)).await.unwrap_or(Err(BackupError::Panicked))
    }
}

fn is_ours(name: &str) -> bool {
    [BACKUPS, FILES, WORK, LOCK].contains(&name)
}

/// Writes a file and fsyncs it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(BackupError::path(path))
}

/// Copies a file and fsyncs the copy.
pub(super) fn copy(source: &Path, target: &Path, progress: &Progress) -> Result<Got, BackupError> {
    let from = File::open(source).map_err(BackupError::path(source))?;
    let to = File::create(target).map_err(BackupError::path(target))?;
    let got = pour(from, &to, progress).map_err(BackupError::path(target))?;
    to.sync_all().map_err(BackupError::path(target))?;
    Ok(got)
}

/// What a file comes to.
pub(super) fn hash_file(path: &Path) -> Result<Got, BackupError> {
    let nobody = Progress::default();
    File::open(path).and_then(|file| pour(file, io::sink(), &nobody)).map_err(BackupError::path(path))
}

fn pour(mut from: impl Read, mut to: impl Write, progress: &Progress) -> io::Result<Got> {
    let mut buffer = vec![0; BUFFER];
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        hasher.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
        bytes += length as u64;
        progress.add(length as u64);
    }
    Ok(Got { bytes, hash: hasher.finalize().into() })
}

/// Gives a finished file its name. It survives a power cut from here on.
fn put_in_place(unfinished: &Path, path: &Path) -> Result<(), BackupError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if !parent.is_dir() {
        fs::create_dir_all(parent).map_err(BackupError::path(parent))?;
        parent.parent().map_or(Ok(()), sync_directory)?;
    }
    fs::rename(unfinished, path).map_err(BackupError::path(path))?;
    sync_directory(parent)
}

pub(super) fn sync_directory(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(BackupError::path(path))
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::path(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names in a directory, none if it is missing. A name that is no text is not ours.
pub(super) fn names_in(path: &Path) -> Result<Vec<String>, BackupError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(BackupError::path(path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BackupError::path(path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
