//! The keeper of backups: makes one when it is time, and when somebody asks; one at a time. A backup that fails is told,
//! counted and tried again; it stops nothing else. What a backup is, is in [`crate::backup`].

mod orders;
mod rescue;

use std::{
    convert::Infallible,
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use roam_nats::{Bus, BusSettings, ConnectError};
use roam_process::clock;
use roam_schemas::{ReplicaName, Shard, Timestamp};
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backup::{BackupError, Created, Progress, Repository, Target, create_with_chunks},
    chunks::Chunks,
    metrics::Metrics,
    settings::BackupSettings,
    store::Reader,
};

/// How often it is looked whether this replica announces.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked how old the newest backup is, and how long after a failure it is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);
const SECONDS_OF_AN_HOUR: u64 = 3_600;
/// What the connection to the bucket is called.
const CONNECTION: &str = "roam-storage backup";

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// One is being made.
    #[error("a backup is being made already")]
    Busy,
    /// The settings name no directory.
    #[error("the settings of this replica name no directory for backups ([backup] directory)")]
    NoDirectory,
    #[error("the bus cannot be connected to")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Makes backups. Clones make them one after the other.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    shard: Shard,
    reader: Reader,
    chunks: Chunks,
    replica: ReplicaName,
    settings: BackupSettings,
    bus: BusSettings,
    metrics: Metrics,
    /// Held while one is made.
    one_at_a_time: Mutex<()>,
    /// A backup of this line of the journal is wanted, whatever the settings say; 0 if none is.
    wanted: AtomicU64,
}

impl Keeper {
    /// Of the shard that the chunks are of.
    pub(crate) fn new(
        reader: Reader,
        chunks: Chunks,
        replica: ReplicaName,
        settings: BackupSettings,
        bus: BusSettings,
        metrics: Metrics,
    ) -> Self {
        let shard = chunks.shard();
        let (one_at_a_time, wanted) = (Mutex::new(()), AtomicU64::new(0));
        Self {
            inner: Arc::new(Inner { shard, reader, chunks, replica, settings, bus, metrics, one_at_a_time, wanted }),
        }
    }

    /// Where backups go unless somebody says otherwise.
    pub(crate) fn usual(&self) -> Target {
        if self.inner.settings.directory.is_some() { Target::Directory } else { Target::Bucket }
    }

    /// Makes a backup.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub(crate) async fn make(&self, target: Target, progress: &Progress) -> Result<Created, KeepError> {
        let inner = &self.inner;
        let _held = inner.one_at_a_time.try_lock().map_err(|_| KeepError::Busy)?;
        let made = self.with_repository(target, async |repository| self.make_in(repository, progress).await).await;
        inner.metrics.backup_made(made.as_ref().ok());
        made
    }

    /// Makes a backup whenever it is time and this replica is the one that announces, until shutdown.
    pub(crate) async fn run(self, announces: Arc<AtomicBool>, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = Instant::now();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if shutdown.run_until_cancelled(self.make_if_wanted()).await.is_none() {
                break;
            }
            let asked = self.inner.settings.every > 0 && announces.load(Ordering::Relaxed);
            if !asked || Instant::now() < look_at {
                continue;
            }
            look_at = Instant::now() + LOOK_EVERY;
            let Some(made) = shutdown.run_until_cancelled(self.make_if_time()).await else { break };
            if let Err(error) = made {
                tracing::error!(error = &error as &dyn Error, "no backup was made, though it is time");
            }
        }
        Ok(())
    }

    /// Makes a backup if the newest is old, and removes those that are too many.
    async fn make_if_time(&self) -> Result<(), KeepError> {
        let inner = &self.inner;
        let Ok(_held) = inner.one_at_a_time.try_lock() else { return Ok(()) };
        let made = self.with_repository(self.usual(), async |repository| {
            let newest = match repository.newest().await {
                Err(BackupError::NoRepository { .. }) => None,
                found => found?,
            };
            let now = Timestamp::from_nanos(clock::now_ns());
            let age = u64::from(inner.settings.every) * SECONDS_OF_AN_HOUR;
            if newest.is_some_and(|newest| newest.created > now.minus_seconds(age)) {
                return Ok(None);
            }
            let made = self.make_in(repository, &Progress::default()).await?;
            match repository.prune(inner.settings.keep).await {
                Ok(pruned) => {
                    tracing::info!(backups = pruned.removed.len(), bytes = pruned.bytes, "old backups were removed");
                }
                Err(error) => tracing::error!(error = &error as &dyn Error, "old backups are not removed"),
            }
            Ok(Some(made))
        });
        match made.await {
            Ok(None) => Ok(()),
            made => {
                inner.metrics.backup_made(made.as_ref().ok().and_then(Option::as_ref));
                made.map(drop)
            }
        }
    }

    async fn make_in(&self, repository: &Repository, progress: &Progress) -> Result<Created, KeepError> {
        let inner = &self.inner;
        let made =
            create_with_chunks(&inner.reader, inner.replica.as_str(), repository, &inner.chunks, progress).await?;
        let (id, bytes) = (&made.manifest.id, made.manifest.bytes());
        tracing::info!(%id, bytes, new_bytes = made.new_bytes, took = ?made.took, "a backup was made");
        Ok(made)
    }

    async fn with_repository<T>(
        &self,
        target: Target,
        work: impl AsyncFnOnce(&Repository) -> Result<T, KeepError>,
    ) -> Result<T, KeepError> {
        match target {
            Target::Directory => {
                let directory: Option<&PathBuf> = self.inner.settings.directory.as_ref();
                let directory = directory.ok_or(KeepError::NoDirectory)?;
                work(&Repository::in_directory(directory).of_shard(self.inner.shard)).await
            }
            Target::Bucket => {
                // A connection of its own: what goes to the bucket holds up nothing else.
                let bus = Bus::connect(&self.inner.bus, CONNECTION).await?;
                let done = work(&Repository::in_bucket(&bus).of_shard(self.inner.shard)).await;
                bus.close().await;
                done
            }
        }
    }
}
