//! One profile roams: hears what others changed, looks at the files whenever something may have happened, and publishes.
//! This is the shell around `desk.rs`, which decides.

mod batch;

use std::time::Duration;

use roam_client::{ChangeError, Client, Code, Event, ProfileClient, ReadError, Watch, WatchError, WatchFrom};
use roam_schemas::{App, Cursor, Operation, Record, Revision, Timestamp};
use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    control::Order,
    desk::{Desk, DeskError, Round},
    format::LeftOut,
    status::Board,
    store::StoreError,
    watcher::Watcher,
};

/// A burst of changes is over once there was none for this long. An editor that saves writes a few times.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that goes on for longer than this is looked at all the same.
const BURST: Duration = Duration::from_millis(500);
/// How often the files are looked at although nothing seems to have happened.
const CHECK: Duration = Duration::from_secs(300);
/// The same where the system cannot tell of changes.
const CHECK_UNWATCHED: Duration = Duration::from_secs(10);
/// The first pause after something went wrong; each further one is twice as long, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(30);
/// How often a round is repeated at once while files are edited under it.
const REPEATS: usize = 20;

/// A profile cannot roam any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoamError {
    /// The agent's own database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work on the files ended before its time.
    #[error("the work on the files ended before its time")]
    Lost(#[from] JoinError),
    /// The connection was closed under it.
    #[error("the client is closed")]
    Closed,
}

/// A profile that roams.
#[derive(Debug)]
pub(crate) struct Roamer {
    app: String,
    profile: ProfileClient,
    /// Away while it works on a thread of its own.
    desk: Option<Desk>,
    board: Board,
    orders: mpsc::Receiver<Order>,
    watcher: Option<Watcher>,
    pauses: u32,
}

/// How publishing went.
enum Published {
    All,
    /// The profile is not as this device has heard: it will hear.
    Behind,
    /// Not now.
    Later(String),
}

impl Roamer {
    pub(crate) fn new(client: &Client, app: App, desk: Desk, board: Board, orders: mpsc::Receiver<Order>) -> Self {
        let name = app.as_str().to_owned();
        let profile = client.profile(app);
        Self { app: name, profile, desk: Some(desk), board, orders, watcher: None, pauses: 0 }
    }

    /// Roams until it is dropped. It may be dropped at any time.
    pub(crate) async fn run(mut self) -> Result<(), RoamError> {
        let mut watch = self.meet().await?;
        let mut look_at = Instant::now();
        let mut burst_ends = None;
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Ok(event) => {
                        self.hear(event, &mut watch).await?;
                        look_at = Instant::now();
                    }
                    Err(WatchError::Closed) => return Err(RoamError::Closed),
                    Err(WatchError::Read(error)) => {
                        self.trouble(&error);
                        sleep(self.pause()).await;
                        watch = self.meet().await?;
                    }
                },
                () = changed(self.watcher.as_ref()) => {
                    let now = Instant::now();
                    look_at = (now + QUIET).min(*burst_ends.get_or_insert(now + BURST));
                }
                Some(order) = self.orders.recv() => {
                    self.work(move |desk| match order {
                        Order::Confirm => { desk.confirm(); Ok(()) }
                        Order::Retry => desk.retry(),
                    }).await??;
                    look_at = Instant::now();
                }
                () = sleep_until(look_at) => {
                    burst_ends = None;
                    self.keep_watching().await?;
                    look_at = Instant::now() + self.look().await?;
                }
            }
        }
    }

    /// Hears of the profile for the first time, or goes on where it was left. However long that takes.
    async fn meet(&mut self) -> Result<Watch, RoamError> {
        loop {
            let cursor = self.work(|desk| desk.cursor()).await?;
            let met = match cursor {
                Some(cursor) => self.profile.watch(WatchFrom::Cursor(cursor)).await.map(Some),
                None => self.pull().await?.map(|()| None),
            };
            match met {
                Ok(Some(watch)) => return Ok(watch),
                Ok(None) => {}
                Err(ReadError::Closed) => return Err(RoamError::Closed),
                Err(error) => {
                    self.trouble(&error);
                    sleep(self.pause()).await;
                }
            }
        }
    }

    /// All that the profile holds.
    async fn pull(&mut self) -> Result<Result<(), ReadError>, RoamError> {
        match self.profile.changes(None).await {
            Ok(delta) => {
                let records = match self.whole(delta.records).await {
                    Ok(records) => records,
                    Err(error) => return Ok(Err(error)),
                };
                self.work(move |desk| desk.hear(&records, delta.cursor, true)).await??;
                self.contact();
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn hear(&mut self, event: Event, watch: &mut Watch) -> Result<(), RoamError> {
        let (records, cursor, whole) = match event {
            Event::Revision { records, cursor, .. } | Event::State { records, cursor, .. } => (records, cursor, false),
            Event::Reset => match watch.next().await {
                Ok(Event::Revision { records, cursor, .. } | Event::State { records, cursor, .. }) => {
                    (records, cursor, true)
                }
                // The next one says why.
                Ok(Event::Reset) | Err(_) => return Ok(()),
            },
        };
        // What was told is not told again: it is fetched however long that takes.
        let records = loop {
            match self.whole(records.clone()).await {
                Ok(records) => break records,
                Err(ReadError::Closed) => return Err(RoamError::Closed),
                Err(error) => {
                    self.trouble(&error);
                    sleep(self.pause()).await;
                }
            }
        };
        let epoch = if whole { self.new_epoch(cursor) } else { None };
        let heard = self.work(move |desk| {
            if let Some(epoch) = epoch {
                desk.restored(&records, epoch)?;
            }
            desk.hear(&records, cursor, whole)
        });
        heard.await??;
        self.contact();
        Ok(())
    }

    /// The first revision of the epoch that a cursor is of, if what was heard before is of an earlier one.
    fn new_epoch(&self, cursor: Cursor) -> Option<Revision> {
        let before = self.profile.revision_of(self.desk.as_ref()?.cursor()?)?.epoch();
        let now = self.profile.revision_of(cursor)?.epoch();
        let first = Revision::of_epoch(u16::try_from(now).ok()?);
        (before < now).then_some(first)
    }

    /// The records with their whole values: a large one lies in chunks. (A file that large is written, and left out when files
    /// are read: the agent publishes values that fit into a record.)
    async fn whole(&self, records: Vec<Record>) -> Result<Vec<Record>, ReadError> {
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            all.push(self.profile.whole(record).await?);
        }
        Ok(all)
    }

    /// Looks at the files and does what there is to do. Says after how long to look again.
    async fn look(&mut self) -> Result<Duration, RoamError> {
        for _ in 0..REPEATS {
            let now = Timestamp::from_nanos(roam_process::clock::now_ns());
            let mut round = match self.work(move |desk| desk.round(now)).await? {
                Ok(round) => round,
                Err(DeskError::Store(error)) => return Err(error.into()),
                Err(DeskError::Files(error)) => {
                    self.trouble(&error);
                    return Ok(self.pause());
                }
            };
            let ops = std::mem::take(&mut round.publish);
            let again = round.again;
            self.report(round, ops.len()).await?;
            match self.publish(ops).await? {
                Published::All if again => {}
                Published::All => {
                    self.pauses = 0;
                    self.report_waiting(0).await?;
                    return Ok(if self.watcher.is_some() { CHECK } else { CHECK_UNWATCHED });
                }
                Published::Behind => return Ok(self.pause()),
                Published::Later(why) => {
                    self.board.update(&self.app, |status| status.trouble = Some(why));
                    return Ok(self.pause());
                }
            }
        }
        Ok(self.pause())
    }

    /// Publishes in as few changes as may be. A change that is refused for good is divided, until what is parked is what
    /// the refusal is about.
    async fn publish(&mut self, ops: Vec<Operation>) -> Result<Published, RoamError> {
        let mut changes = batch::changes(ops);
        while let Some(mut ops) = changes.pop() {
            match self.profile.change_with(Some(self.profile.seen()), ops.clone()).await {
                Ok(saved) => {
                    self.work(move |desk| desk.published(ops, saved.revision)).await??;
                    self.contact();
                }
                Err(ChangeError::Closed) => return Err(RoamError::Closed),
                Err(ChangeError::Rejected(problem)) if matches!(problem.code, Code::Conflict | Code::Exists) => {
                    return Ok(Published::Behind);
                }
                Err(ChangeError::Rejected(_) | ChangeError::Invalid(_)) if ops.len() > 1 => {
                    let second = ops.split_off(ops.len() / 2);
                    changes.extend([second, ops]);
                }
                Err(ChangeError::Rejected(problem) | ChangeError::Invalid(problem)) => {
                    tracing::warn!(app = %self.app, code = ?problem.code, "an edit was refused, and is parked");
                    let reason = problem.to_string();
                    let parked = ops.pop().map(|op| self.work(move |desk| desk.park(&op, reason)));
                    if let Some(parked) = parked {
                        parked.await??;
                    }
                }
                Err(error) => return Ok(Published::Later(error.to_string())),
            }
        }
        Ok(Published::All)
    }

    /// Watches the directory as soon as there is one, and the next one if it was removed.
    async fn keep_watching(&mut self) -> Result<(), RoamError> {
        let watcher = self.watcher.take();
        let watching = self.work(|desk| {
            let (directory, below) = desk.watched();
            match watcher.filter(|watcher| watcher.watches(directory)) {
                None if !directory.is_dir() => Ok(None),
                None => Watcher::start(directory, below).map(Some),
                watcher => Ok(watcher),
            }
        });
        match watching.await? {
            Ok(watcher) => self.watcher = watcher,
            Err(error) => tracing::warn!(app = %self.app, %error, "changes of files are not told of"),
        }
        Ok(())
    }

    /// Works on the files and the database, on a thread where waiting for a disk holds up nobody.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, RoamError> {
        let Some(mut desk) = self.desk.take() else { return Err(RoamError::Closed) };
        let (done, desk) = spawn_blocking(move || (work(&mut desk), desk)).await?;
        self.desk = Some(desk);
        Ok(done)
    }

    async fn report(&mut self, round: Round, waiting: usize) -> Result<(), RoamError> {
        for name in &round.set_aside {
            tracing::warn!(app = %self.app, file = ?name, "two edits of one file: the local one was set aside");
        }
        if let Some(held_back) = round.held_back {
            let app = &self.app;
            tracing::warn!(%app, publish = held_back.publish, take = held_back.take, "deletions wait to be confirmed");
        }
        let (before, refused) =
            (self.board.read().remove(&self.app), self.work(|desk| left_out(desk.refused())).await?);
        let known = before.map(|status| status.refused).unwrap_or_default();
        for LeftOut { key, why } in refused.iter().filter(|entry| !known.contains(entry)) {
            tracing::warn!(app = %self.app, key = ?key, why, "a key of the profile has no place here");
        }
        self.board.update(&self.app, |status| {
            status.held_back = round.held_back;
            status.left_out = round.left_out;
            status.refused = refused;
            status.set_aside.extend(round.set_aside);
            status.trouble = None;
        });
        self.report_waiting(waiting).await
    }

    async fn report_waiting(&mut self, waiting: usize) -> Result<(), RoamError> {
        let (revision, agreed, parked) = self
            .work(|desk| {
                let parked = desk.parked().iter().map(|(key, parked)| (key, &parked.reason));
                let parked = parked.map(|(key, why)| LeftOut { key: key.to_string(), why: why.clone() });
                (desk.revision(), desk.agreed(), parked.collect())
            })
            .await?;
        self.board.update(&self.app, |status| {
            (status.revision, status.agreed, status.parked, status.waiting) = (revision, agreed, parked, waiting);
        });
        Ok(())
    }

    fn contact(&self) {
        let now = Timestamp::from_nanos(roam_process::clock::now_ns());
        self.board.update(&self.app, |status| status.last_contact = Some(now));
    }

    fn trouble(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::warn!(app = %self.app, error, "the profile does not roam now");
        self.board.update(&self.app, |status| status.trouble = Some(error.to_string()));
    }

    fn pause(&mut self) -> Duration {
        let mean = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_LAST);
        self.pauses = self.pauses.saturating_add(1);
        mean.mul_f64(rand::random_range(0.5..1.5))
    }
}

fn left_out(entries: &std::collections::BTreeMap<roam_schemas::Key, String>) -> Vec<LeftOut> {
    entries.iter().map(|(key, why)| LeftOut { key: key.to_string(), why: why.clone() }).collect()
}

async fn changed(watcher: Option<&Watcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}
