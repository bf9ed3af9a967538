//! The storage service: one replica. It follows the journal, applies each batch in one synced write, announces what
//! became of its changes, and answers who asks.
//!
//! Data moves in a straight line: journal -> apply -> announce, and readers see what is applied. **Architecture
//! Invariant:** a replica is a deterministic fold of the journal: it takes changes from nowhere else, and what it decides
//! depends on no clock, no setting and no other replica.

pub mod apply;
pub mod backup;
pub mod decide;
pub mod store;

mod announce;
mod chunks;
mod connect;
mod expire;
#[cfg(test)]
mod fixture;
mod fold;
mod journal;
mod keeper;
mod metrics;
mod operate;
mod planted;
mod progress;
mod respond;
mod settings;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use roam_nats::{Bus, ConnectError, JOURNAL_STREAM, PublishSettings, Publisher, stream_state};
use roam_process::{Condition, Context, Tasks, TasksError};
use roam_schemas::ReplicaName;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    announce::{Announcer, standing},
    apply::Applier,
    chunks::{Chunks, Sweeper},
    connect::Connections,
    expire::Expirer,
    fold::Fold,
    journal::{Follower, Orders, Work},
    keeper::Keeper,
    metrics::Metrics,
    operate::Operated,
    progress::Progress,
    respond::Responder,
    store::{Reader, StoreError, UserKey, Writer},
};
pub use settings::{BackupSettings, Settings};

/// How many batches may wait for the applying thread.
const BATCHES_AHEAD: usize = 8;
/// How many erased users may wait for their bytes to go.
const ERASED_AHEAD: usize = 1_024;
/// How often the applying thread is told to remove what may go.
const CLEAN_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before asking again for a journal that is not there yet.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why a replica ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store does not open: read what it says, nothing was changed.
    #[error("the store in {directory} does not open")]
    Open {
        /// Its directory.
        directory: String,
        /// Why.
        source: StoreError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus does not let us in, or the settings do not say how to get there: mend them.
    #[error("the bus cannot be connected to")]
    Connect(#[from] ConnectError),
    /// A part of it failed, or did not stop in time.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Runs a replica until the context's shutdown: it takes no further batch, finishes the one in hand, announces what it
/// holds, answers what has come, and closes its store.
///
/// # Errors
/// See [`RunError`]. A bus that cannot be reached is none: it is waited for.
pub async fn run(settings: Settings, context: Context) -> Result<(), RunError> {
    let conditions = Conditions::new(&context);
    let metrics = Metrics::new(&context.metrics);
    let (writer, reader) = store::open(&settings.directory, &settings.store)
        .map_err(|source| RunError::Open { directory: settings.directory.display().to_string(), source })?;
    conditions.store.set_ready();
    let connecting = Box::pin(Connections::open(&settings, &conditions.bus));
    let Some(connections) = context.shutdown.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    let Some(catch_up_to) = journal_end(&connections.following, &context, &conditions.journal).await else {
        return Ok(());
    };
    let Settings { name, backup, bus, .. } = settings;
    let keeper = Keeper::new(reader.clone(), name.clone(), backup, bus, metrics.clone());
    let parts = Parts { context: &context, conditions, metrics, reader, name, keeper };
    let ended = parts.start(&connections, writer, catch_up_to)?.join(context.grace).await;
    connections.close().await;
    Ok(ended?)
}

/// What must hold for the replica to be ready.
struct Conditions {
    bus: Condition,
    store: Condition,
    journal: Condition,
    announce: Condition,
    consumer: Condition,
    respond: Condition,
}

/// What the tasks of a replica are made of.
struct Parts<'a> {
    context: &'a Context,
    conditions: Conditions,
    metrics: Metrics,
    reader: Reader,
    name: ReplicaName,
    keeper: Keeper,
}

impl Conditions {
    fn new(context: &Context) -> Self {
        let condition = |name| context.health.condition(name);
        Self {
            bus: condition("bus"),
            store: condition("store"),
            journal: condition("journal"),
            announce: condition("announce"),
            consumer: condition("consumer"),
            respond: condition("respond"),
        }
    }
}

impl Parts<'_> {
    fn start(self, connections: &Connections, writer: Writer, catch_up_to: u64) -> Result<Tasks, StoreError> {
        let Self { context, conditions, metrics, reader, name, keeper } = self;
        let progress = Progress::default();
        let position = reader.snapshot().position()?;
        let (work, batches) = mpsc::channel(BATCHES_AHEAD);
        let (stuck, is_stuck) = watch::channel(None);
        let (erased, to_compact) = mpsc::channel(ERASED_AHEAD);
        let fold = Fold {
            stuck,
            erased,
            applier: Applier::new(writer, reader.clone())?,
            progress: progress.clone(),
            metrics: metrics.clone(),
            condition: conditions.store,
            shutdown: context.shutdown.clone(),
        };
        let follower = Follower {
            bus: connections.following.clone(),
            context: context.clone(),
            metrics: metrics.clone(),
            reader: reader.clone(),
            progress: progress.clone(),
            position,
            name: name.clone(),
            orders: Orders::default(),
            stuck: is_stuck,
            work: work.clone(),
            condition: conditions.journal,
        };
        let announces = Arc::new(AtomicBool::new(false));
        let expirer = Expirer::new(
            Publisher::new(&connections.announcing, PublishSettings::default()),
            reader.clone(),
            Arc::clone(&announces),
            metrics.clone(),
            context.shutdown.clone(),
        );
        let operated = Operated {
            bus: connections.responding.clone(),
            context: context.clone(),
            health: context.health.clone(),
            name,
            progress: progress.clone(),
            reader: reader.clone(),
            announces: Arc::clone(&announces),
        };
        let ordered = keeper.clone().take_orders(connections.responding.clone(), context.shutdown.clone());
        let keeping = keeper.run(Arc::clone(&announces), context.shutdown.clone());
        let chunks = Chunks::new(&connections.chunks, metrics.clone());
        let sweeper = Sweeper {
            chunks: chunks.clone(),
            reader: reader.clone(),
            progress: progress.clone(),
            announces: Arc::clone(&announces),
            metrics: metrics.clone(),
            shutdown: context.shutdown.clone(),
        };
        let announcer = Announcer {
            announces,
            bus: connections.following.clone(),
            sending: connections.announcing.clone(),
            filing: Publisher::new(&connections.following, PublishSettings::default()),
            context: context.clone(),
            progress: progress.clone(),
            reader: reader.clone(),
            metrics: metrics.clone(),
            condition: conditions.announce,
        };
        let following = connections.following.clone();
        let standing = standing::watch(following, conditions.consumer, metrics.clone(), context.shutdown.clone());
        let compacted = compact_erased(to_compact, reader.clone(), context.shutdown.clone());
        let responder = Responder {
            bus: connections.responding.clone(),
            context: context.clone(),
            progress,
            reader,
            chunks: chunks.clone(),
            metrics,
            condition: conditions.respond,
            catch_up_to,
        };
        let mut tasks = Tasks::new(context);
        tasks.spawn("connections", connections.observe(conditions.bus, context.shutdown.clone()));
        tasks.spawn("journal", follower.follow());
        tasks.spawn("apply", fold.run(batches));
        tasks.spawn("announce", announcer.announce());
        tasks.spawn("standing", standing);
        tasks.spawn("respond", responder.respond());
        tasks.spawn("operate", operated.operate());
        tasks.spawn("expire", expirer.run());
        tasks.spawn("backup", keeping);
        tasks.spawn("backup-orders", ordered);
        tasks.spawn("compact", compacted);
        tasks.spawn("chunks", chunks.follow(context.shutdown.clone()));
        tasks.spawn("sweep", sweeper.run());
        tasks.spawn("clean", remind_to_clean(work, context.shutdown.clone()));
        Ok(tasks)
    }
}

/// Tells the applying thread again and again to remove what may go, until shutdown.
async fn remind_to_clean(work: mpsc::Sender<Work>, shutdown: CancellationToken) -> Result<(), Infallible> {
    let mut ticks = interval(CLEAN_EVERY);
    let reminding = async {
        loop {
            ticks.tick().await;
            if work.send(Work::Clean).await.is_err() {
                return;
            }
        }
    };
    shutdown.run_until_cancelled(reminding).await;
    Ok(())
}

/// Has the bytes of users who were erased leave the disk, until shutdown. What is not done then goes with later
/// compactions.
async fn compact_erased(
    mut erased: mpsc::Receiver<UserKey>,
    reader: Reader,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    while let Some(Some(user)) = shutdown.run_until_cancelled(erased.recv()).await {
        let reader = reader.clone();
        // A panic in there is RocksDB's, and the store is of no use then.
        spawn_blocking(move || reader.compact_user(&user)).await.unwrap_or(Ok(()))?;
    }
    shutdown.cancelled().await;
    Ok(())
}

/// The last sequence of the journal now; none at shutdown.
async fn journal_end(bus: &Bus, context: &Context, condition: &Condition) -> Option<u64> {
    loop {
        match context.shutdown.run_until_cancelled(stream_state(bus, JOURNAL_STREAM)).await? {
            Ok(state) => return Some(state.last_sequence),
            Err(error) => {
                condition.set_not_ready(error.to_string());
                context.shutdown.run_until_cancelled(sleep(ASK_AGAIN_AFTER)).await?;
            }
        }
    }
}
