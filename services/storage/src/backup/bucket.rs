//! A repository in a bucket of the object store of NATS: objects `backups/<id>`, `files/<hash>`, and signs of life:
//! `creating/<replica>` and `pruning`. Where there are several shards, the first two begin with `shard-<number>/`.
//!
//! There is no lock in a bucket. Whoever makes a backup and whoever prunes each put their sign first and look for the
//! other's then, so at least one of two sees the other: who makes waits, who prunes leaves the files alone. A sign that
//! was not renewed for a while is of a process that died.

use std::{
    io::Cursor,
    path::Path,
    task::{Context, Poll},
};

use roam_nats::{BACKUPS_BUCKET, Bus, ObjectError, ObjectStore, Put};
use roam_process::clock;
use time::OffsetDateTime;
use tokio::{
    fs::File,
    io::AsyncWrite,
    time::{Duration, Instant, sleep},
};

use super::{
    BackupError, Got, Kept, Progress,
    manifest::{BackupId, Hash},
};

const BACKUPS: &str = "backups/";
const FILES: &str = "files/";
const CREATING: &str = "creating/";
const PRUNING: &str = "pruning";

/// How old a sign may be. Much longer than the pauses between renewals, and than clocks are apart.
const ALIVE: Duration = Duration::from_secs(15 * 60);
/// How often a sign is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// How long, and how often, the end of a pruning is waited for.
const WAIT_FOR_PRUNING: Duration = Duration::from_secs(10 * 60);
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How old pieces are at least that are taken for those of a put which never ended.
const LOST_AFTER: time::Duration = time::Duration::hours(1);

/// A repository in a bucket.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    store: ObjectStore,
    /// What the names of backups and files begin with. Signs of life are everybody's: a pruning looks at the whole bucket.
    prefix: String,
}

/// A sign of life.
#[derive(Debug)]
pub(super) struct Sign {
    store: ObjectStore,
    name: String,
    renewed: Instant,
}

impl Bucket {
    pub(super) fn new(bus: &Bus) -> Self {
        Self { store: ObjectStore::new(bus, BACKUPS_BUCKET), prefix: String::new() }
    }

    /// The part of it whose names begin with this one.
    pub(super) fn below(self, name: &str) -> Self {
        Self { prefix: format!("{}{name}/", self.prefix), ..self }
    }

    pub(super) async fn ids(&self) -> Result<Vec<BackupId>, BackupError> {
        let prefix = format!("{}{BACKUPS}", self.prefix);
        let names = self.store.names(&prefix).await?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect())
    }

    pub(super) async fn manifest(&self, id: &BackupId) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        match self.store.get(&self.manifest_name(id), &mut bytes, |_| {}).await {
            Ok(()) => Ok(bytes),
            Err(ObjectError::NotFound { .. }) => Err(BackupError::NoSuchBackup { id: id.clone() }),
            Err(ObjectError::Damaged { what, .. }) => {
                let source = super::ManifestError::Damaged(what);
                Err(BackupError::Manifest { id: id.clone(), source })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn put_manifest(&self, id: &BackupId, bytes: &[u8]) -> Result<(), BackupError> {
        self.store.put(&self.manifest_name(id), &mut Cursor::new(bytes), |_| {}).await?;
        Ok(())
    }

    pub(super) async fn remove_manifest(&self, id: &BackupId) -> Result<(), BackupError> {
        self.store.delete(&self.manifest_name(id)).await?;
        Ok(())
    }

    pub(super) async fn put_file(&self, hash: Hash, source: &Path, progress: &Progress) -> Result<Kept, BackupError> {
        let mut file = File::open(source).await.map_err(BackupError::path(source))?;
        Ok(self.store.put(&self.file_name(hash), &mut file, |bytes| progress.add(bytes)).await?.into())
    }

    pub(super) async fn put_bytes(&self, hash: Hash, bytes: &[u8], progress: &Progress) -> Result<Kept, BackupError> {
        let mut source = Cursor::new(bytes);
        Ok(self.store.put(&self.file_name(hash), &mut source, |bytes| progress.add(bytes)).await?.into())
    }

    pub(super) async fn get_file(&self, hash: Hash, target: &Path, progress: &Progress) -> Result<Got, BackupError> {
        let file = File::create(target).await.map_err(BackupError::path(target))?;
        let mut sink = Hashing::into(file);
        self.store.get(&self.file_name(hash), &mut sink, |bytes| progress.add(bytes)).await?;
        sink.to.sync_all().await.map_err(BackupError::path(target))?;
        Ok(sink.got())
    }

    /// What a file comes to.
    pub(super) async fn look_at_file(&self, hash: Hash, progress: &Progress) -> Result<Got, BackupError> {
        let mut sink = Hashing::into(tokio::io::sink());
        self.store.get(&self.file_name(hash), &mut sink, |bytes| progress.add(bytes)).await?;
        Ok(sink.got())
    }

    pub(super) async fn read_file(&self, hash: Hash) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        self.store.get(&self.file_name(hash), &mut bytes, |_| {}).await?;
        Ok(bytes)
    }

    pub(super) async fn files(&self) -> Result<Vec<Hash>, BackupError> {
        let prefix = format!("{}{FILES}", self.prefix);
        let names = self.store.names(&prefix).await?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect())
    }

    pub(super) async fn remove_file(&self, hash: Hash) -> Result<u64, BackupError> {
        let bytes = self.store.info(&self.file_name(hash)).await?.map_or(0, |info| info.bytes);
        self.store.delete(&self.file_name(hash)).await?;
        Ok(bytes)
    }

    pub(super) async fn begin_create(&self, replica: &str) -> Result<Sign, BackupError> {
        let mut sign = self.sign(format!("{CREATING}{replica}")).await?;
        let until = Instant::now() + WAIT_FOR_PRUNING;
        while self.is_alive(PRUNING).await? {
            if Instant::now() > until {
                sign.end().await;
                return Err(BackupError::Pruning);
            }
            sleep(LOOK_AGAIN_AFTER).await;
            sign.renew().await?;
        }
        Ok(sign)
    }

    pub(super) async fn begin_prune(&self) -> Result<Option<Sign>, BackupError> {
        let sign = self.sign(PRUNING.to_owned()).await?;
        for name in self.store.names(CREATING).await? {
            if self.is_alive(&name).await? {
                sign.end().await;
                return Ok(None);
            }
            self.store.delete(&name).await?;
        }
        self.store.sweep(now() - LOST_AFTER).await?;
        Ok(Some(sign))
    }

    fn manifest_name(&self, id: &BackupId) -> String {
        format!("{}{BACKUPS}{id}", self.prefix)
    }

    fn file_name(&self, hash: Hash) -> String {
        format!("{}{FILES}{}", self.prefix, hash.to_hex())
    }

    async fn sign(&self, name: String) -> Result<Sign, BackupError> {
        self.store.touch(&name).await?;
        Ok(Sign { store: self.store.clone(), name, renewed: Instant::now() })
    }

    async fn is_alive(&self, name: &str) -> Result<bool, BackupError> {
        let info = self.store.info(name).await?;
        Ok(info.is_some_and(|info| now() - info.modified < ALIVE))
    }
}

impl Sign {
    pub(super) async fn renew(&mut self) -> Result<(), BackupError> {
        if self.renewed.elapsed() > RENEW_AFTER {
            self.store.touch(&self.name).await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }

    pub(super) async fn end(self) {
        if let Err(error) = self.store.delete(&self.name).await {
            // It counts for nothing after a while.
            tracing::warn!(error = &error as &dyn std::error::Error, "a sign in the bucket of backups is not removed");
        }
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(clock::now_ns().into()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl From<Put> for Kept {
    fn from(put: Put) -> Self {
        match put {
            Put::Stored => Self::New,
            Put::Exists => Self::Known,
        }
    }
}

/// What is hashed as it is written.
struct Hashing<W> {
    to: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn into(to: W) -> Self {
        Self { to, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    fn got(&self) -> Got {
        Got { bytes: self.bytes, hash: self.hasher.finalize().into() }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Hashing<W> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = std::pin::Pin::new(&mut self.to).poll_write(context, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.hasher.update(&bytes[..length]);
            self.bytes += length as u64;
        }
        written
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.to).poll_flush(context)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.to).poll_shutdown(context)
    }
}
