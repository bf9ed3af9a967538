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
mod erasure;
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
mod room;
mod settings;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use roam_nats::{
    Bus, ConnectError, PublishSettings, Publisher, WrongShards, check_shards, journal_stream, stream_state,
};
use roam_process::{Condition, Context, Tasks, TasksError, clock};
use roam_schemas::{ReplicaName, Shard, Timestamp};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::spawn_blocking,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    announce::{Announcer, standing},
    apply::Applier,
    backup::{BackupError, Restored},
    chunks::{Chunks, PutBack, Sweeper},
    connect::Connections,
    erasure::erasures,
    expire::Expirer,
    fold::Fold,
    journal::{Follower, Orders, Rescue, Work},
    keeper::Keeper,
    metrics::Metrics,
    operate::Operated,
    progress::Progress,
    respond::{Answers, Responder},
    room::Room,
    store::{Reader, StoreError, Writer},
};
pub use settings::{BackupSettings, Settings};

/// How many batches may wait for the applying thread.
const BATCHES_AHEAD: usize = 8;
/// How often the applying thread is told to remove what may go.
const CLEAN_EVERY: Duration = Duration::from_secs(1);
/// How long whoever still reads it on a thread of its own may take after shutdown. A backup that takes its place waits for as long as it takes.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
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
    /// A backup cannot take the place of the store, or the note of one that was restored does not read.
    #[error("what was restored into the directory cannot be taken up")]
    Restored(#[from] BackupError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings are for a deployment that is split otherwise: mend them.
    #[error(transparent)]
    Shards(#[from] WrongShards),
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
    loop {
        // Ends with the process, or alone when a backup is to take the place of the store.
        let turn = Context { shutdown: context.shutdown.child_token(), ..context.clone() };
        let ended = run_once(settings.clone(), &turn, conditions.clone(), metrics.clone()).await;
        match ended {
            Ok(true) if !context.shutdown.is_cancelled() => {}
            ended => {
                // Whoever runs beside it is not to go on without it.
                context.shutdown.cancel();
                return ended.map(drop);
            }
        }
    }
}

/// Runs a replica until shutdown, or until a backup is there to take the place of its store: says whether one is.
async fn run_once(
    settings: Settings,
    context: &Context,
    conditions: Conditions,
    metrics: Metrics,
) -> Result<bool, RunError> {
    let directory = settings.directory.clone();
    let restored = spawn_blocking(move || backup::settle(&directory).and_then(|_| backup::restored(&directory)));
    let restored = restored.await.unwrap_or(Err(BackupError::Panicked))?;
    let shard = settings.shard();
    let opened = store::open(&settings.directory, &settings.store).and_then(|(mut writer, reader)| {
        be_of(shard, &mut writer, &reader)?;
        Ok((writer, reader))
    });
    let (mut writer, reader) =
        opened.map_err(|source| RunError::Open { directory: settings.directory.display().to_string(), source })?;
    let since = note_since(&mut writer, &reader, restored.as_ref())?;
    if let Some(position) = reader.snapshot().position()? {
        metrics.stands_at(&position);
    }
    conditions.store.set_ready();
    let connecting = Box::pin(Connections::open(&settings, &conditions.bus));
    let Some(connections) = context.shutdown.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(false);
    };
    if journal_exists(shard, &connections.following, context, &conditions.journal).await.transpose()?.is_none() {
        return Ok(false);
    }
    let name = settings.replica_name();
    tracing::info!(%name, %shard, "operators call this replica so");
    let Settings { backup, bus, answers_mib, .. } = settings;
    let answers = Answers::new(answers_mib);
    let chunks = Chunks::new(shard, &connections.chunks, metrics.clone());
    let keeper = Keeper::new(reader.clone(), chunks.clone(), name.clone(), backup, bus, metrics.clone());
    let adopted = watch::Sender::new(false);
    let rescue = Rescue::new(keeper.clone(), restored, since, adopted.clone());
    let closed = reader.closed();
    let parts = Parts { shard, context, conditions, metrics, reader, chunks, answers, name, keeper, rescue };
    let ended = parts.start(&connections, writer)?.join(context.grace).await;
    connections.close().await;
    ended?;
    // Whoever is told that this replica has stopped may put another directory in its place.
    if *adopted.borrow() {
        closed.cancelled().await;
    } else if timeout(CLOSED_WITHIN, closed.cancelled()).await.is_err() {
        tracing::warn!(within = ?CLOSED_WITHIN, "the store is still read, and is not closed");
    }
    Ok(adopted.send_replace(false))
}

/// Makes sure that the directory is of this shard. One in which nothing was applied yet becomes so.
fn be_of(shard: Shard, writer: &mut Writer, reader: &Reader) -> Result<(), StoreError> {
    let snapshot = reader.snapshot();
    let (found, is_new) = (snapshot.shard()?, snapshot.position()?.is_none());
    match found {
        found if found == shard => Ok(()),
        found if found.is_only() && is_new => writer.put_shard(shard),
        found => Err(StoreError::Shard { found, expected: shard }),
    }
}

/// Since when the directory is what it is, in nanoseconds since the Unix epoch: noted when it is made or was restored. 0
/// where that is not known.
fn note_since(writer: &mut Writer, reader: &Reader, restored: Option<&Restored>) -> Result<u64, StoreError> {
    let snapshot = reader.snapshot();
    let (stored, is_empty) = (snapshot.since()?, snapshot.position()?.is_none());
    let since = match (restored, stored) {
        (Some(restored), stored) => Some(restored.restored).max(stored),
        (None, None) if is_empty => Some(Timestamp::from_nanos(clock::now_ns())),
        (None, stored) => stored,
    };
    if let Some(since) = since.filter(|since| Some(*since) != stored) {
        writer.put_since(since)?;
    }
    Ok(since.map_or(0, Timestamp::as_nanos))
}

/// What must hold for the replica to be ready.
#[derive(Clone)]
struct Conditions {
    bus: Condition,
    store: Condition,
    room: Condition,
    journal: Condition,
    announce: Condition,
    consumer: Condition,
    respond: Condition,
}

/// What the tasks of a replica are made of.
struct Parts<'a> {
    shard: Shard,
    context: &'a Context,
    conditions: Conditions,
    metrics: Metrics,
    reader: Reader,
    chunks: Chunks,
    answers: Answers,
    name: ReplicaName,
    keeper: Keeper,
    rescue: Rescue,
}

impl Conditions {
    fn new(context: &Context) -> Self {
        let condition = |name| context.health.condition(name);
        Self {
            bus: condition("bus"),
            store: condition("store"),
            room: condition("room"),
            journal: condition("journal"),
            announce: condition("announce"),
            consumer: condition("consumer"),
            respond: condition("respond"),
        }
    }
}

impl Parts<'_> {
    fn start(self, connections: &Connections, writer: Writer) -> Result<Tasks, StoreError> {
        let Self { shard, context, conditions, metrics, reader, chunks, answers, name, keeper, rescue } = self;
        let progress = Progress::default();
        let (position, passed) = (reader.snapshot().position()?, reader.snapshot().passed()?);
        let (work, batches) = mpsc::channel(BATCHES_AHEAD);
        let (stuck, is_stuck) = watch::channel(None);
        let (erasures, compactor, given_up) = erasures(reader.clone(), context.shutdown.clone());
        let room = Room::default();
        let directory = reader.directory().to_owned();
        let looking = room.clone().watch(move || room::free(&directory), conditions.room, context.shutdown.clone());
        let fold = Fold {
            stuck,
            room,
            erasures,
            applier: Applier::new(writer, reader.clone())?,
            progress: progress.clone(),
            metrics: metrics.clone(),
            condition: conditions.store,
            shutdown: context.shutdown.clone(),
        };
        let follower = Follower {
            shard,
            bus: connections.following.clone(),
            context: context.clone(),
            metrics: metrics.clone(),
            reader: reader.clone(),
            progress: progress.clone(),
            position,
            passed,
            name: name.clone(),
            orders: Orders::default(),
            rescue,
            state: None,
            stuck: is_stuck,
            work: work.clone(),
            condition: conditions.journal,
        };
        let announces = Arc::new(AtomicBool::new(false));
        let expirer = Expirer::new(
            shard,
            Publisher::new(&connections.announcing, PublishSettings::default()),
            reader.clone(),
            Arc::clone(&announces),
            metrics.clone(),
            context.shutdown.clone(),
        );
        let operated = Operated {
            shard,
            bus: connections.responding.clone(),
            context: context.clone(),
            health: context.health.clone(),
            name,
            progress: progress.clone(),
            reader: reader.clone(),
            announces: Arc::clone(&announces),
            chunks: chunks.clone(),
            leaving: compactor.leaving(),
        };
        let ordered = keeper.clone().take_orders(connections.responding.clone(), context.shutdown.clone());
        let keeping = keeper.run(Arc::clone(&announces), context.shutdown.clone());
        let sweeper = Sweeper {
            chunks: chunks.clone(),
            reader: reader.clone(),
            progress: progress.clone(),
            announces: Arc::clone(&announces),
            metrics: metrics.clone(),
            shutdown: context.shutdown.clone(),
            erased: given_up,
        };
        let put_back = PutBack {
            chunks: chunks.clone(),
            reader: reader.clone(),
            progress: progress.clone(),
            shutdown: context.shutdown.clone(),
        };
        let announcer = Announcer {
            shard,
            announces,
            rereading: Mutex::default(),
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
        let standing =
            standing::watch(shard, following, conditions.consumer, metrics.clone(), context.shutdown.clone());
        let responder = Responder {
            shard,
            bus: connections.responding.clone(),
            context: context.clone(),
            progress,
            reader,
            chunks: chunks.clone(),
            answers,
            metrics,
            condition: conditions.respond,
        };
        let mut tasks = Tasks::new(context);
        tasks.spawn("connections", connections.observe(conditions.bus, context.shutdown.clone()));
        tasks.spawn("room", looking);
        tasks.spawn("journal", follower.follow());
        tasks.spawn("apply", fold.run(batches));
        tasks.spawn("announce", announcer.announce());
        tasks.spawn("standing", standing);
        tasks.spawn("respond", responder.respond());
        tasks.spawn("operate", operated.operate());
        tasks.spawn("expire", expirer.run());
        tasks.spawn("backup", keeping);
        tasks.spawn("backup-orders", ordered);
        tasks.spawn("compact", compactor.run());
        tasks.spawn("chunks", chunks.follow(context.shutdown.clone()));
        tasks.spawn("sweep", sweeper.run());
        tasks.spawn("put-back", put_back.run());
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

/// Returns once there is a journal of the shard; none at shutdown.
async fn journal_exists(
    shard: Shard,
    bus: &Bus,
    context: &Context,
    condition: &Condition,
) -> Option<Result<(), WrongShards>> {
    let stream = journal_stream(shard);
    loop {
        match context.shutdown.run_until_cancelled(stream_state(bus, &stream)).await? {
            Ok(state) => return Some(check_shards(&state, shard)),
            Err(error) => {
                condition.set_not_ready(error.to_string());
                context.shutdown.run_until_cancelled(sleep(ASK_AGAIN_AFTER)).await?;
            }
        }
    }
}
